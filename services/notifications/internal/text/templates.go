package text

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/notifications/internal/domain"
)

// deploymentEvent is any event of a deployment.
type deploymentEvent interface {
	GetSubject() *deploymenteventsv1.Subject
}

// The commands that messages name.
const (
	cmdGet        = "certwright certificates get "
	cmdRenew      = "certwright certificates renew "
	cmdRevoke     = "certwright certificates revoke "
	cmdOrder      = "certwright orders get "
	cmdOrderRetry = "certwright orders retry "
	cmdVerify     = "certwright challenges verify "
	cmdExplain    = "certwright renewals explain "
	cmdDeployment = "certwright deployments get "
	cmdRedeploy   = "certwright deployments retry "
)

// compose has one case for each event type of domain.EventTypes; false for any other.
func compose(m proto.Message) (words, bool) {
	switch m := m.(type) {
	case *certificateeventsv1.Issued:
		v := m.GetVersion()
		return words{
			what:  fmt.Sprintf("%s issued: valid until %s", names(v.GetNames(), m.GetCertificateId()), day(v.GetNotAfter())),
			lead:  "The certificate was issued. It is renewed by itself in time; there is nothing to do.",
			facts: append(certificate(m.GetCertificateId(), v.GetNames(), m.GetOwner()), version(v)...),
			todo:  "To look at it:", commands: []string{cmdGet + m.GetCertificateId()},
		}, true

	case *certificateeventsv1.Renewed:
		v := m.GetVersion()
		return words{
			what: fmt.Sprintf("%s renewed: valid until %s", names(v.GetNames(), m.GetCertificateId()), day(v.GetNotAfter())),
			lead: "The certificate was renewed. Where Certwright deploys it, the new version is on its way; elsewhere it has to be fetched and installed.",
			facts: append(append(certificate(m.GetCertificateId(), v.GetNames(), m.GetOwner()), version(v)...),
				fact{"Replaces", m.GetReplacesVersionId()}, fact{"Old expiry", stamp(m.GetReplacedNotAfter())}),
			todo: "To look at it:", commands: []string{cmdGet + m.GetCertificateId()},
		}, true

	case *certificateeventsv1.VersionRevoked:
		v := m.GetVersion()
		w := words{
			what: names(v.GetNames(), m.GetCertificateId()) + " revoked: " + m.GetReason(),
			lead: "The CA has revoked a version of the certificate. Clients that check will refuse it.",
			facts: append(append(certificate(m.GetCertificateId(), v.GetNames(), m.GetOwner()), version(v)...),
				fact{"Reason", m.GetReason()}),
			todo: "A newer version exists, or the certificate was not in use. To look at it:", commands: []string{cmdGet + m.GetCertificateId()},
		}
		if m.GetAlreadyRevoked() {
			w.lead = "A version of the certificate was found to be revoked at the CA already. Clients that check will refuse it."
		}
		if m.GetCurrent() {
			w.todo = "It was the current version. See whether another is on its way, and ask for one if not:"
			w.commands = append(w.commands, cmdRenew+m.GetCertificateId())
		}
		return w, true

	case *certificateeventsv1.RevocationFailed:
		return words{
			what: m.GetCertificateId() + " not revoked: " + m.GetProblem().GetReason(),
			lead: "The CA refuses to revoke a version of the certificate. It is still valid.",
			facts: append(append(certificate(m.GetCertificateId(), nil, m.GetOwner()), fact{"Version", m.GetVersionId()}),
				problem(m.GetProblem())...),
			todo:     "Mend what the problem names and revoke again:",
			commands: []string{cmdGet + m.GetCertificateId(), cmdRevoke + m.GetCertificateId()},
		}, true

	case *ordereventsv1.Failed:
		return words{
			what: names(m.GetNames(), m.GetCertificateId()) + " not issued: " + m.GetProblem().GetReason(),
			lead: "An order has ended without a certificate. The version before, if there is one, stays in use; a renewal is planned again by itself.",
			facts: append(append(certificate(m.GetCertificateId(), m.GetNames(), m.GetOwner()), fact{"Order", m.GetOrderId()}),
				problem(m.GetProblem())...),
			todo:     "Mend what the problem names and ask again:",
			commands: []string{cmdOrder + m.GetOrderId(), cmdRenew + m.GetCertificateId()},
		}, true

	case *ordereventsv1.Blocked:
		return words{
			what: m.GetCertificateId() + " waits: " + m.GetProblem().GetReason(),
			lead: "An order waits for something. It goes on by itself when that has come.",
			facts: append(append(certificate(m.GetCertificateId(), nil, m.GetOwner()),
				fact{"Order", m.GetOrderId()}, fact{"Next try", stamp(m.GetRetryAt())}), problem(m.GetProblem())...),
			todo:     "To see it, or to try at once after mending what the problem names:",
			commands: []string{cmdOrder + m.GetOrderId(), cmdOrderRetry + m.GetOrderId()},
		}, true

	case *challengeeventsv1.ActionRequired:
		w := words{
			what: "proof of control needed at " + m.GetLocation(),
			lead: "Somebody has to place a value by hand, so that the CA sees who controls the name.",
			facts: []fact{
				{"Kind", m.GetType()}, {"Place", m.GetLocation()}, {"Value", m.GetValue()},
				{"Order", m.GetOrderId()}, {"Challenge", m.GetChallengeId()}, {"Owner", m.GetOwner()},
			},
			todo:     "Serve exactly the value at the place, then say so; the order waits until then:",
			commands: []string{cmdVerify + m.GetChallengeId()},
		}
		if m.GetType() == "dns-01" {
			w.todo = "Make a TXT record with exactly the value at the place, then say so; the order waits until then:"
		}
		return w, true

	case *renewaleventsv1.Expiring:
		return words{
			what: fmt.Sprintf("%s expires on %s", names(m.GetNames(), m.GetCertificateId()), day(m.GetNotAfter())),
			lead: "The certificate is about to expire and is not replaced yet.",
			facts: append(certificate(m.GetCertificateId(), m.GetNames(), m.GetOwner()),
				fact{"Version", m.GetVersionId()}, fact{"Expires", stamp(m.GetNotAfter())}, fact{"Warning at", m.GetThreshold()}),
			todo:     "See why, and renew it now:",
			commands: []string{cmdExplain + m.GetCertificateId(), cmdRenew + m.GetCertificateId()},
		}, true

	case *renewaleventsv1.Expired:
		return words{
			what: fmt.Sprintf("%s EXPIRED on %s", names(m.GetNames(), m.GetCertificateId()), day(m.GetNotAfter())),
			lead: "The certificate is no longer valid. Whoever connects to a service that uses it is warned or refused.",
			facts: append(certificate(m.GetCertificateId(), m.GetNames(), m.GetOwner()),
				fact{"Version", m.GetVersionId()}, fact{"Expired", stamp(m.GetNotAfter())}),
			todo:     "See why it was not renewed, and renew it now:",
			commands: []string{cmdExplain + m.GetCertificateId(), cmdRenew + m.GetCertificateId()},
		}, true

	case *renewaleventsv1.Overdue:
		return words{
			what: fmt.Sprintf("renewal of %s is overdue: expires on %s", m.GetCertificateId(), day(m.GetNotAfter())),
			lead: "A renewal that should have ended has not.",
			facts: append(certificate(m.GetCertificateId(), nil, m.GetOwner()), fact{"Version", m.GetVersionId()},
				fact{"Was due", stamp(m.GetWasDueAt())}, fact{"Expires", stamp(m.GetNotAfter())}),
			todo:     "See what it waits for, and renew it now:",
			commands: []string{cmdExplain + m.GetCertificateId(), cmdRenew + m.GetCertificateId()},
		}, true

	case *renewaleventsv1.Held:
		return words{
			what: fmt.Sprintf("renewal of %s is held: %s", m.GetCertificateId(), m.GetReason()),
			lead: "The certificate is not renewed before somebody decides, or the review comes.",
			facts: append(certificate(m.GetCertificateId(), nil, m.GetOwner()), fact{"Version", m.GetVersionId()},
				fact{"Reason", m.GetReason()}, fact{"Review", stamp(m.GetReviewAt())}),
			todo:     "See why, and renew it if that is right:",
			commands: []string{cmdExplain + m.GetCertificateId(), cmdRenew + m.GetCertificateId()},
		}, true

	case *deploymenteventsv1.Failed:
		return deployment(m.GetSubject(), m.GetProblem(), m.GetRetryAt(), "failed",
			"A new version could not be installed. What is served has not changed; it is tried again by itself."), true

	case *deploymenteventsv1.RolledBack:
		return deployment(m.GetSubject(), m.GetProblem(), m.GetRetryAt(), "rolled back",
			"A new version was installed and taken back, because it was not seen to work. The version before is served again; it is tried again by itself."), true

	case *deploymenteventsv1.Stuck:
		return deployment(m.GetSubject(), m.GetProblem(), m.GetRetryAt(), "STUCK",
			"Neither the new nor the old version is seen to be served. The service on the target may be down: look at it now."), true
	}
	return words{}, false
}

func deployment(s *deploymenteventsv1.Subject, p *typesv1.Problem, retry *timestamppb.Timestamp, what, lead string) words {
	return words{
		what: fmt.Sprintf("deployment of %s to %s %s", s.GetCertificateId(), s.GetTargetId(), what),
		lead: lead,
		facts: append(append(certificate(s.GetCertificateId(), nil, s.GetOwner()), fact{"Version", s.GetVersionId()}, fact{"Target", s.GetTargetId()},
			fact{"Deployment", s.GetDeploymentId()}, fact{"Next try", stamp(retry)}), problem(p)...),
		todo:     "Mend what the problem names, and try at once:",
		commands: []string{cmdDeployment + s.GetDeploymentId(), cmdRedeploy + s.GetDeploymentId()},
	}
}

func certificate(id string, all []string, owner string) []fact {
	return []fact{{"Certificate", id}, {"Names", strings.Join(all, ", ")}, {"Owner", owner}}
}

func version(v *typesv1.VersionFacts) []fact {
	return []fact{
		{"Version", fmt.Sprintf("%s (number %d)", v.GetVersionId(), v.GetNumber())}, {"Valid from", stamp(v.GetNotBefore())}, {"Valid until", stamp(v.GetNotAfter())},
		{"Issued by", v.GetIssuerName()}, {"Serial", v.GetSerial()}, {"SHA-256", v.GetFingerprintSha256()},
	}
}

func problem(p *typesv1.Problem) []fact {
	if p == nil {
		return nil
	}
	out := []fact{{"Problem", p.GetReason()}, {"Detail", p.GetDetail()}, {"CA's type", p.GetType()}}
	for _, s := range p.GetSubproblems() {
		out = append(out, fact{"At " + domain.OneLine(s.GetIdentifier(), maxValue), strings.TrimSpace(s.GetType() + " " + s.GetDetail())})
	}
	return out
}

// names is how a subject calls a certificate.
func names(all []string, certificateID string) string {
	switch len(all) {
	case 0:
		return certificateID
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s and %d more", all[0], len(all)-1)
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return moment(t.AsTime())
}

func day(t *timestamppb.Timestamp) string {
	if t == nil {
		return "an unknown day"
	}
	return t.AsTime().Format("2006-01-02")
}

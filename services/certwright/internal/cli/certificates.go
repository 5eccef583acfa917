package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

var keyAlgorithms = []string{"RSA_2048", "RSA_3072", "RSA_4096", "ECDSA_P256", "ECDSA_P384"}

// certificateList reads /v1/certificates.
func certificateList() listing[*inventoryv1.ListCertificatesResponse, *inventoryv1.Certificate] {
	type c = *inventoryv1.Certificate
	return listing[*inventoryv1.ListCertificatesResponse, c]{
		path: "/v1/certificates", items: (*inventoryv1.ListCertificatesResponse).GetCertificates,
		columns: []column[c]{
			{"ID", c.GetId},
			{"NAMES", func(c c) string { return short(c.GetSpec().GetNames()) }},
			{"STATE", c.GetState},
			{"VALID UNTIL", func(c c) string { return stamp(c.GetCurrentVersion().GetFacts().GetNotAfter()) }},
			{"RENEWAL", func(c c) string { return renewalOf(c.GetRenewal()) }},
			{"OWNER", c.GetOwner},
			{"TEAM", c.GetTeam},
		},
	}
}

func renewalOf(r *inventoryv1.RenewalStatus) string {
	return strings.TrimSpace(r.GetState() + " " + stamp(r.GetDueAt()))
}

func (a *app) certificates() *cobra.Command {
	l := certificateList()
	k := a.certificateKind()
	g := group("certificates", "Request, renew, revoke, export and look up certificates",
		a.requestCertificate(),
		l.command(
			a, "List certificates",
			filter{flag: "owner", field: "owner", usage: "only those of this `owner`"},
			filter{flag: "team", field: "team", usage: "only those of this `team`"},
			filter{flag: "issuer", field: "issuer", usage: "only those of the issuer with this `id`"},
			filter{flag: "name", field: "name", usage: "only those for exactly this DNS `name`"},
			filter{flag: "label", field: "label", usage: "only those with this label, `key=value`; may be repeated", kind: many},
			filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"pending", "active", "expired", "revoked", "deleted"}},
			filter{flag: "expires-before", field: "expires_before", usage: "only those that end before this `moment` (2027-01-31), or within this time (30d)", kind: moment},
		),
		about(a, k, "get ID|NAME", "Show a certificate", "", nil, a.showCertificate),
		a.updateCertificate(), a.listVersions(), a.renewCertificate(), a.revokeCertificate(k), a.exportCertificate(), a.deleteCertificate(k),
	)
	for _, c := range g.Commands() {
		if c.Name() != "request" && c.Name() != "list" {
			c.ValidArgsFunction = k.complete
		}
	}
	return g
}

// certificateKind are the certificates, each found by the one DNS name that it is for.
func (a *app) certificateKind() kind {
	return kind{"/v1/certificates/", a.findCertificate, ids(a, certificateList(), 1)}
}

// findCertificate turns a DNS name into the id of the one certificate for it.
func (a *app) findCertificate(ctx context.Context, given string) (string, error) {
	if strings.HasPrefix(given, "crt_") {
		return given, nil
	}
	c, err := a.client()
	if err != nil {
		return "", err
	}
	if strings.Contains(given, " ") {
		return "", usage("%q is neither an id nor a DNS name", given)
	}
	l := certificateList()
	found, err := l.fetch(ctx, c, "name="+given, 10)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, crt := range l.items(found) {
		ids = append(ids, crt.GetId())
	}
	switch len(ids) {
	case 0:
		return "", errs.New(errs.NotFound, "NOT_FOUND", "there is no certificate for %q; certwright certificates list shows what there is", given)
	case 1:
		return ids[0], nil
	}
	return "", errs.New(errs.Invalid, "NAME_AMBIGUOUS", "several certificates are for %q: %s; give an id", given, list(ids))
}

func (a *app) readCertificate(ctx context.Context, c *client, id string) (*inventoryv1.Certificate, error) {
	crt := &inventoryv1.Certificate{}
	return crt, c.call(ctx, http.MethodGet, path("/v1/certificates/", id), nil, nil, crt)
}

func (a *app) showCertificate(c *inventoryv1.Certificate) error {
	s, v, i := c.GetSpec(), c.GetCurrentVersion(), c.GetIntent()
	f := v.GetFacts()
	pairs := []pair{
		{"id", c.GetId()},
		{"name", c.GetDisplayName()},
		{"names", list(s.GetNames())},
		{"state", c.GetState()},
		{"owner", c.GetOwner()},
		{"team", c.GetTeam()},
		{"labels", list(c.GetLabels())},
		{"issuer", s.GetIssuer()},
		{"key algorithm", s.GetKeyAlgorithm()},
		{"profile", s.GetProfile()},
		{"challenge", challengeOf(s.GetChallenge())},
		{"wanted until", stamp(s.GetNotAfter())},
	}
	if v != nil {
		pairs = append(
			pairs,
			pair{"version", f.GetVersionId() + " (number " + strconv.FormatInt(f.GetNumber(), 10) + ", " + v.GetState() + ")"},
			pair{"valid from", stamp(f.GetNotBefore())},
			pair{"valid until", stamp(f.GetNotAfter())},
			pair{"issued by", f.GetIssuerName()},
			pair{"serial", f.GetSerial()},
			pair{"fingerprint", f.GetFingerprintSha256()},
			pair{"revoked", strings.TrimSpace(stamp(v.GetRevokeTime()) + " " + v.GetRevocationReason())},
		)
	}
	if i != nil {
		pairs = append(pairs, pair{"order", i.GetOrderId() + " (" + i.GetOutcome() + ", cause: " + i.GetCause() + ")"}, pair{"problem", why(i.GetProblem())})
	}
	pairs = append(pairs, pair{"renewal", renewalOf(c.GetRenewal())}, pair{"renewal says", c.GetRenewal().GetExplanation()})
	for _, n := range c.GetFindings() {
		pairs = append(pairs, pair{"finding", n.GetDetail() + " (" + n.GetReason() + ", since " + stamp(n.GetSince()) + ")"})
	}
	return a.showPairs(c, append(pairs, pair{"created", strings.TrimSpace(stamp(c.GetCreateTime()) + " " + by(c.GetCreatedBy()))}))
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return "by " + who
}

func challengeOf(c *typesv1.ChallengeSpec) string {
	if c.GetManual() {
		return c.GetType() + ", placed by hand"
	}
	return c.GetType()
}

func (a *app) requestCertificate() *cobra.Command {
	var (
		crt                      = &inventoryv1.Certificate{Spec: &typesv1.CertificateSpec{Challenge: &typesv1.ChallengeSpec{}}}
		s                        = crt.GetSpec()
		targets                  []string
		issuer, notAfter, repeat string
		wait                     bool
		timeout                  time.Duration
	)
	c := &cobra.Command{
		Use: "request NAME…", Short: "Request a certificate for DNS names or IP addresses", Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: `Request a certificate for DNS names or IP addresses. From then on it is renewed by itself until it is deleted.

The same issuer and names are refused a second time unless --allow-duplicate. A repeat with the same --request-id and the same content answers the first
result: use it in scripts that may run twice.`,
		Example: `  certwright certificates request www.example.org example.org --issuer letsencrypt --owner web@example.org --wait
  certwright certificates request '*.example.org' --challenge dns-01 --deploy-to front --label billing=1234`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			for _, l := range crt.GetLabels() {
				if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
					return usage("--label is %q; allowed is key=value", l)
				}
			}
			if timeout < 0 {
				return usage("--timeout is %s; allowed: 0 (no limit) or more", timeout)
			}
			if notAfter != "" {
				at, err := a.moment("--not-after", notAfter)
				if err != nil {
					return err
				}
				s.NotAfter = timestamppb.New(at)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			s.Names = args
			if s.Issuer, err = a.chooseIssuer(ctx, c, issuer); err != nil {
				return err
			}
			req := &inventoryv1.CreateCertificateRequest{RequestId: repeat, Certificate: crt}
			if repeat == "" {
				req.RequestId = a.requestID()
			}
			for _, t := range targets {
				id, err := resolve(ctx, a, targetList(), "tgt_", t)
				if err != nil {
					return err
				}
				req.DeployTo = append(req.DeployTo, id)
			}
			made := &inventoryv1.Certificate{}
			if err := c.call(ctx, http.MethodPost, "/v1/certificates", nil, req, made); err != nil {
				if exitCode(err) == ExitUnavailable {
					fmt.Fprintf(a.Err, "the request may have arrived; repeating it with --request-id %s makes no second certificate\n", printable(req.GetRequestId()))
				}
				return err
			}
			if !wait {
				return a.showCertificate(made)
			}
			return a.waitAndShow(ctx, c, timeout, goal{
				certificate: made.GetId(), order: made.GetIntent().GetOrderId(), generation: made.GetSpecGeneration(), targets: req.GetDeployTo(),
			})
		},
	}
	f := c.Flags()
	f.StringVar(&issuer, "issuer", "", "`name` or id of the issuer; may be left out when there is only one")
	f.StringVar(&crt.DisplayName, "display-name", "", "`name` to show for it")
	f.StringVar(&crt.Owner, "owner", "", "`who` answers for it: a mail address or a name")
	f.StringVar(&crt.Team, "team", "", "`team` that it belongs to; default: the token's")
	f.StringVar(&s.KeyAlgorithm, "key-algorithm", "", "`algorithm` of the key: "+list(keyAlgorithms)+" (default ECDSA_P256)")
	f.StringVar(&s.Profile, "profile", "", "`profile` of the CA; certwright issuers test shows what it has")
	f.StringVar(&s.Challenge.Type, "challenge", "auto", "`way` to prove control of the names: auto, http-01, dns-01 or tls-alpn-01")
	f.BoolVar(&s.Challenge.Manual, "manual", false, "a person places the answers")
	f.StringArrayVar(&crt.Labels, "label", nil, "label, `key=value`; may be repeated")
	f.StringArrayVar(&targets, "deploy-to", nil, "`name` or id of a target that gets every version; may be repeated")
	f.BoolVar(&crt.AllowDuplicate, "allow-duplicate", false, "also when there is a certificate with the same issuer and names")
	f.StringVar(&repeat, "request-id", "", "`id` that makes a repeat safe, up to 64 characters; default: a new one")
	f.StringVar(&notAfter, "not-after", "", "end of validity to ask the CA for: a `moment` (2027-01-31), or a time from now (30d)")
	waitFlags(c, &wait, &timeout)
	complete(c, "key-algorithm", keyAlgorithms...)
	complete(c, "challenge", "auto", "http-01", "dns-01", "tls-alpn-01")
	must(c.RegisterFlagCompletionFunc("issuer", ids(a, issuerList(), 0)))
	must(c.RegisterFlagCompletionFunc("deploy-to", ids(a, targetList(), 0)))
	return c
}

func waitFlags(c *cobra.Command, wait *bool, timeout *time.Duration) {
	c.Flags().BoolVar(wait, "wait", false, "wait until it is issued and deployed, and show every step")
	c.Flags().DurationVar(timeout, "timeout", 15*time.Minute, "how long --wait waits, 0: no limit")
}

// waitAndShow follows the goal to its end and shows the certificate.
func (a *app) waitAndShow(ctx context.Context, c *client, timeout time.Duration, g goal) error {
	if err := a.wait(ctx, c, timeout, g); err != nil {
		return err
	}
	crt, err := a.readCertificate(ctx, c, g.certificate)
	if err != nil {
		return err
	}
	return a.showCertificate(crt)
}

func (a *app) listVersions() *cobra.Command {
	type v = *inventoryv1.Version
	return a.verb("versions ID|NAME", "List the versions of a certificate", 1, func(ctx context.Context, c *client, args []string) error {
		id, err := a.findCertificate(ctx, args[0])
		if err != nil {
			return err
		}
		l := listing[*inventoryv1.ListVersionsResponse, v]{
			path: path("/v1/certificates/", id, "/versions"), items: (*inventoryv1.ListVersionsResponse).GetVersions,
			columns: []column[v]{
				{"ID", func(v v) string { return v.GetFacts().GetVersionId() }},
				{"NUMBER", func(v v) string { return number(v.GetFacts().GetNumber()) }},
				{"STATE", v.GetState},
				{"VALID FROM", func(v v) string { return stamp(v.GetFacts().GetNotBefore()) }},
				{"VALID UNTIL", func(v v) string { return stamp(v.GetFacts().GetNotAfter()) }},
				{"SERIAL", func(v v) string { return v.GetFacts().GetSerial() }},
				{"ORDER", func(v v) string { return v.GetFacts().GetOrderId() }},
			},
		}
		all, err := l.fetch(ctx, c, "", 0)
		if err != nil {
			return err
		}
		return a.show(all, func(w io.Writer) error { return writeTable(w, l.items(all), l.columns) })
	})
}

func (a *app) renewCertificate() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := a.verb("renew ID|NAME", "Ask for a new version now", 1, func(ctx context.Context, c *client, args []string) error {
		id, err := a.findCertificate(ctx, args[0])
		if err != nil {
			return err
		}
		answer := &inventoryv1.RequestVersionResponse{}
		if err := c.call(ctx, http.MethodPost, path("/v1/certificates/", id, ":renew"), nil, &inventoryv1.RenewCertificateRequest{RequestId: a.requestID()}, answer); err != nil {
			return err
		}
		if !wait || answer.GetNothingToDo() || answer.GetOrderId() == "" {
			return a.showPairs(answer, []pair{
				{"certificate", id},
				{"order", answer.GetOrderId()},
				{"nothing to do", yes(answer.GetNothingToDo())},
				{"another follows", yes(answer.GetNextIntentFollows())},
				{"explanation", answer.GetExplanation()},
			})
		}
		return a.waitAndShow(ctx, c, timeout, goal{certificate: id, order: answer.GetOrderId(), generation: answer.GetSpecGeneration()})
	})
	waitFlags(cmd, &wait, &timeout)
	return cmd
}

func (a *app) revokeCertificate(k kind) *cobra.Command {
	req := &inventoryv1.RevokeCertificateRequest{}
	cmd := about(a, k, "revoke ID|NAME", "Revoke a version at its CA", ":revoke", req, func(v *inventoryv1.Version) error {
		return a.showPairs(v, []pair{
			{"certificate", v.GetCertificateId()},
			{"version", v.GetFacts().GetVersionId()},
			{"state", v.GetState()},
			{"reason", v.GetRevocationReason()},
			{"serial", v.GetFacts().GetSerial()},
			{"revoked", stamp(v.GetRevokeTime())},
		})
	})
	cmd.Long = `Revoke a version at its CA. A replacement is requested first and the old version is revoked when the new one is served, or after a day; with the reason
keyCompromise it is revoked at once.`
	f := cmd.Flags()
	f.StringVar(&req.Reason, "reason", "unspecified", "`why` (RFC 5280): unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation")
	f.StringVar(&req.VersionId, "version", "", "`id` of the version; default: the current one")
	f.BoolVar(&req.NoReplacement, "no-replacement", false, "do not ask for a replacement")
	f.BoolVar(&req.Now, "now", false, "revoke before the replacement is served")
	complete(cmd, "reason", "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation")
	return cmd
}

func (a *app) deleteCertificate(k kind) *cobra.Command {
	answer := &inventoryv1.DeleteCertificateResponse{}
	return a.deleting(k, "delete ID|NAME", "Remove a certificate from the repository; its versions stay valid", "certificate", answer, func() {
		if n := answer.GetNotice(); n != "" {
			fmt.Fprintln(a.Out, printable(n))
		}
	})
}

package domain

import (
	"fmt"
	"slices"
	"time"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/errs"
)

// Revocation is one of a version of this certificate.
type Revocation struct {
	Version Facts  `bson:"version"`
	Reason  string `bson:"reason"` // RFC 5280 section 5.3.1 name
	By      string `bson:"by"`     // principal
	State   string `bson:"state"`
	// SendBy is when it is sent at the latest, while it waits for the replacement to be served.
	SendBy time.Time `bson:"send_by"`
	DoneAt time.Time `bson:"done_at"`
	DER    []byte    `bson:"der"` // of the leaf, until it is done
}

// The states of a revocation.
const (
	RevocationWaiting   = "waiting"   // for the replacement
	RevocationRequested = "requested" // of orders
	RevocationDone      = "done"
)

// ReasonKeyCompromise is the reason that waits for nothing.
const ReasonKeyCompromise = "keyCompromise"

// RevocationReasons are those that a subscriber may give (RFC 5280 section 5.3.1).
func RevocationReasons() []string {
	return []string{"unspecified", ReasonKeyCompromise, "affiliationChanged", "superseded", "cessationOfOperation"}
}

// RevokeAsk is the wish to have a version revoked.
type RevokeAsk struct {
	Version Facts
	DER     []byte
	Reason  string
	By      string
	// NoReplacement: nothing takes the version's place.
	NoReplacement bool
	// Now: it is not waited for the replacement to be served.
	Now bool
	// Wait is for how long it is waited for the replacement otherwise.
	Wait time.Duration
}

// Revoke moves a version to revoking. The current version is replaced: with keyCompromise in the same write, else first, and the revocation is sent when
// the replacement is served. Asking again changes nothing, or hurries what waits. Precondition/VERSION_EXPIRED for what has expired.
func (c *Certificate) Revoke(a RevokeAsk, m Moment) (Outcome, error) {
	var out Outcome
	hurry := a.Now || a.NoReplacement || a.Reason == ReasonKeyCompromise
	if r := c.revocation(a.Version.VersionID); r != nil {
		if r.State == RevocationWaiting && hurry {
			r.Reason, r.By = a.Reason, a.By
			c.request(r, m, &out)
		}
		return out, nil
	}
	if !a.Version.NotAfter.After(m.Now) {
		return out, errs.New(errs.Precondition, "VERSION_EXPIRED", "version %s expired at %s: there is nothing to revoke",
			a.Version.VersionID, a.Version.NotAfter.Format(time.RFC3339))
	}
	out.Changed = true
	c.unfind(a.Version.VersionID, "REVOCATION_REFUSED")
	current := c.Current != nil && c.Current.VersionID == a.Version.VersionID
	replace := current && !c.Deleted() && !a.NoReplacement
	c.Revocations = append(c.Revocations, Revocation{
		Version: a.Version, Reason: a.Reason, By: a.By, State: RevocationWaiting, SendBy: m.Now.Add(a.Wait), DER: a.DER,
	})
	if !replace || hurry {
		c.request(&c.Revocations[len(c.Revocations)-1], m, &out)
	}
	switch {
	case replace && !c.Intent.IsOpen(): // an open intent brings a new key and takes the version's place as well
		c.open(CauseRevocation, m, &out)
	case current && a.NoReplacement:
		c.NoReplacement = true
	}
	return out, nil
}

// RevocationEnded records what orders made of a requested revocation: done, or refused for good with a problem. Told again it changes nothing.
func (c *Certificate) RevocationEnded(version string, already bool, problem *Problem, m Moment) Outcome {
	var out Outcome
	r := c.revocation(version)
	if r == nil || r.State == RevocationDone || r.State == RevocationWaiting && problem != nil {
		return out
	}
	out.Changed = true
	out.Forget = append(out.Forget, RevokeKey(version))
	if problem != nil {
		until := r.Version.NotAfter
		c.Revocations = slices.DeleteFunc(c.Revocations, func(r Revocation) bool { return r.Version.VersionID == version })
		c.find("REVOCATION_REFUSED", fmt.Sprintf("the CA refuses to revoke version %s: %s", version, problem.Detail), version, until, m)
		out.tell(&certificateeventsv1.RevocationFailed{CertificateId: m.ID, VersionId: version, Problem: problem.Message(), Owner: c.Owner})
		return out
	}
	r.State, r.DoneAt, r.DER = RevocationDone, m.Now, nil
	current := c.Current != nil && c.Current.VersionID == version
	if current && !c.Deleted() {
		c.CurrentRevoked = true
	}
	out.tell(&certificateeventsv1.VersionRevoked{
		CertificateId: m.ID, Version: r.Version.Message(), Reason: r.Reason, AlreadyRevoked: already, Current: current, Owner: c.Owner,
	})
	return out
}

// Release sends the revocations that have waited enough.
func (c *Certificate) Release(m Moment) Outcome {
	var out Outcome
	c.release(m, &out)
	return out
}

func (c *Certificate) release(m Moment, out *Outcome) {
	for i := range c.Revocations {
		r := &c.Revocations[i]
		if r.State == RevocationWaiting && (!r.SendBy.After(m.Now) || c.replacedAndServed(r.Version.VersionID)) {
			c.request(r, m, out)
		}
	}
}

// replacedAndServed reports whether another version is current and every binding that is known or still to be made serves it.
func (c *Certificate) replacedAndServed(version string) bool {
	if c.Current == nil || c.Current.VersionID == version || len(c.DeployTo) > 0 {
		return false
	}
	return !slices.ContainsFunc(c.Bindings, func(b Binding) bool { return b.VersionID != c.Current.VersionID || !b.Served })
}

func (c *Certificate) request(r *Revocation, m Moment, out *Outcome) {
	r.State = RevocationRequested
	out.Changed = true
	out.await(RevokeKey(r.Version.VersionID), &certificateeventsv1.RevocationRequested{
		CertificateId: m.ID, Version: r.Version.Message(), Reason: r.Reason, By: r.By, CertificateDer: r.DER,
	})
}

func (c *Certificate) revocation(version string) *Revocation {
	for i := range c.Revocations {
		if c.Revocations[i].Version.VersionID == version {
			return &c.Revocations[i]
		}
	}
	return nil
}

// Revoking reports whether a revocation still waits for its result.
func (c *Certificate) Revoking() bool {
	return slices.ContainsFunc(c.Revocations, func(r Revocation) bool { return r.State != RevocationDone })
}

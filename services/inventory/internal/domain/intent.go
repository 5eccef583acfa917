package domain

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/errs"
)

// RequestedKey is the natural key of an open intent, which orders answers with its acceptance and then its outcome.
func RequestedKey(number int64) string { return "requested/" + strconv.FormatInt(number, 10) }

// SpecChangedKey is the key of the word that an order is wanted no more.
func SpecChangedKey(order string) string { return "spec/" + order }

// ClosedKey is the key of an intent's end, which renewals answers with its plan.
func ClosedKey(number int64) string { return "closed/" + strconv.FormatInt(number, 10) }

// VersionKey is the key of the answer to an issued order: version_added or version_refused.
func VersionKey(order string) string { return "version/" + order }

// RevokeKey is the key of the wish that a version be revoked.
func RevokeKey(version string) string { return "revoke/" + version }

// DeletedKey is the key of the deletion, which is told again while an order is open.
const DeletedKey = "deleted"

// open opens the next intent. The caller has made sure that none is open and that the certificate lives.
func (c *Certificate) open(cause string, m Moment, out *Outcome) {
	i := Intent{
		Number: c.Intent.Number + 1, OrderID: m.Order, SpecGeneration: c.SpecGeneration, Cause: cause, Outcome: Open,
		OpenedAt: m.Now, Trace: m.Trace,
	}
	if c.Current != nil {
		i.ReplacesVersionID = c.Current.VersionID
	}
	c.Intent, c.NoReplacement = i, false
	out.Changed = true
	out.await(RequestedKey(i.Number), &certificateeventsv1.Requested{
		CertificateId: m.ID, IntentNumber: i.Number, OrderId: i.OrderID, SpecGeneration: i.SpecGeneration, Spec: c.Spec.Message(),
		Replaces: c.Current.Message(), Cause: cause, Owner: c.Owner,
	})
}

// Ask is one call at the door.
type Ask struct {
	// Replaces is the version that the caller wants replaced; empty: the current one, or a first one.
	Replaces string
	// First: the caller knew of no version.
	First bool
	Cause string
	// Person: a person asks, who may also ask for what was revoked without replacement.
	Person bool
	// AskedAt is when the caller asked for the first time, if it names its request; an intent that ended since was the answer. Zero: unknown.
	AskedAt time.Time
}

// Answer is the door's.
type Answer struct {
	OrderID        string
	SpecGeneration int64
	IntentNumber   int64
	// NextFollows: the open intent is of an older spec, and the next one is opened when it ends.
	NextFollows bool
	NothingToDo bool
	Explanation string
}

// RequestVersion is the one door: an open intent is the answer; what is replaced already needs nothing; else an intent is opened.
func (c *Certificate) RequestVersion(a Ask, m Moment) (Answer, Outcome) {
	var out Outcome
	nothing := func(format string, args ...any) (Answer, Outcome) {
		return Answer{
			SpecGeneration: c.SpecGeneration, IntentNumber: c.Intent.Number, NothingToDo: true, Explanation: fmt.Sprintf(format, args...),
		}, Outcome{}
	}
	switch {
	case c.Deleted():
		return nothing("the certificate was deleted")
	case c.Intent.IsOpen():
		return c.answer(), out
	case !a.AskedAt.IsZero() && a.AskedAt.Before(c.Intent.ClosedAt):
		done, _ := nothing("the request was answered by order %s, which has ended: %s", c.Intent.OrderID, c.Intent.Outcome)
		done.OrderID = c.Intent.OrderID
		return done, out
	case a.First && c.Current != nil:
		return nothing("version %s exists", c.Current.VersionID)
	case a.Replaces != "" && (c.Current == nil || c.Current.VersionID != a.Replaces):
		if c.Current == nil {
			return nothing("the certificate has no version %s", a.Replaces)
		}
		return nothing("version %s is not current any more; %s is", a.Replaces, c.Current.VersionID)
	case c.NoReplacement && !a.Person:
		return nothing("the current version was revoked without replacement; only a person may ask for another")
	}
	c.open(a.Cause, m, &out)
	return c.answer(), out
}

func (c *Certificate) answer() Answer {
	return Answer{
		OrderID: c.Intent.OrderID, SpecGeneration: c.SpecGeneration, IntentNumber: c.Intent.Number,
		NextFollows: c.Intent.SpecGeneration < c.SpecGeneration,
	}
}

// Edit is a change that a person wants; nil means unchanged. Spec must be valid and in canonical form.
type Edit struct {
	DisplayName *string
	Owner       *string
	Labels      *[]string
	Spec        *Spec
}

// Edit changes what people may change. A changed spec asks for a new version: at once, or when the open intent has ended, whose order is told to stop.
// Precondition/CERTIFICATE_DELETED for a tombstone.
func (c *Certificate) Edit(e Edit, m Moment) (Outcome, error) {
	var out Outcome
	if c.Deleted() {
		return out, errs.New(errs.Precondition, "CERTIFICATE_DELETED", "certificate %s was deleted and cannot be changed", m.ID)
	}
	if e.DisplayName != nil && *e.DisplayName != c.DisplayName {
		c.DisplayName, out.Changed = *e.DisplayName, true
	}
	if e.Owner != nil && *e.Owner != c.Owner {
		c.Owner, out.Changed = *e.Owner, true
	}
	if e.Labels != nil && !slices.Equal(*e.Labels, c.Labels) {
		c.Labels, out.Changed = *e.Labels, true
	}
	if e.Spec != nil && !e.Spec.Equal(c.Spec) {
		c.Spec, out.Changed = *e.Spec, true
		c.SpecGeneration++
		if c.Intent.IsOpen() {
			c.Intent.CancelWanted = true
			out.await(SpecChangedKey(c.Intent.OrderID), &certificateeventsv1.SpecChanged{
				CertificateId: m.ID, OrderId: c.Intent.OrderID, SpecGeneration: c.SpecGeneration,
			})
		} else {
			c.open(CauseSpecChanged, m, &out)
		}
	}
	if out.Changed {
		c.EditNumber++
	}
	return out, nil
}

// Accept records that orders has the order. The certificate goes on waiting for its outcome.
func (c *Certificate) Accept(order string) Outcome {
	if !c.Intent.IsOpen() || c.Intent.OrderID != order || c.Intent.Accepted {
		return Outcome{}
	}
	c.Intent.Accepted = true
	return Outcome{Changed: true}
}

// CloseIntent ends the intent of an order that ended without a certificate; the order of another intent changes nothing. byUser says who
// cancelled, if cancelled.
func (c *Certificate) CloseIntent(order, outcome string, problem *Problem, byUser bool, m Moment) Outcome {
	var out Outcome
	if c.Intent.IsOpen() && c.Intent.OrderID == order {
		c.close(outcome, problem, byUser, m, &out)
	}
	return out
}

// close ends the open intent and, when the spec changed meanwhile, opens the next one in the same write.
func (c *Certificate) close(outcome string, problem *Problem, byUser bool, m Moment, out *Outcome) {
	i := &c.Intent
	i.Outcome, i.Problem, i.ClosedAt = outcome, problem, m.Now
	follows := !c.Deleted() && i.SpecGeneration < c.SpecGeneration
	out.Changed = true
	out.Forget = append(out.Forget, RequestedKey(i.Number), SpecChangedKey(i.OrderID), "closed/")
	msg := &certificateeventsv1.IntentClosed{
		CertificateId: m.ID, IntentNumber: i.Number, OrderId: i.OrderID, Outcome: outcome, Problem: problem.Message(), Current: c.Current.Message(),
		NextIntentFollows: follows, Owner: c.Owner, IssuerId: c.Spec.Issuer,
	}
	if outcome == Cancelled {
		msg.CancelledBy = "system"
		if byUser {
			msg.CancelledBy = "user"
		}
	}
	if c.Deleted() { // nobody plans for it any more
		out.Answered = append(out.Answered, DeletedKey)
		out.tell(msg)
		return
	}
	out.await(ClosedKey(i.Number), msg)
	if follows {
		c.open(CauseSpecChanged, m, out)
	}
}

// Planned projects what renewals told. What is not newer than what is known changes nothing, but answers all the same.
func (c *Certificate) Planned(r Renewal, intentNumber int64) Outcome {
	var out Outcome
	if c.Deleted() {
		return out
	}
	closed := c.Intent.Number
	if c.Intent.IsOpen() {
		closed--
	}
	if intentNumber >= closed {
		out.Answered = append(out.Answered, ClosedKey(closed))
	}
	if r.Epoch > c.Renewal.Epoch || r.Epoch == c.Renewal.Epoch && r.Revision > c.Renewal.Revision {
		c.Renewal, out.Changed = r, true
	}
	return out
}

// Delete makes a tombstone of the certificate. What it says about itself to the caller is Notice's business, before.
func (c *Certificate) Delete(m Moment) Outcome {
	var out Outcome
	if c.Deleted() {
		return out
	}
	c.DeletedAt, c.DeployTo, c.Findings = m.Now, nil, nil
	out.Changed = true
	out.Forget = append(out.Forget, "closed/")
	msg := &certificateeventsv1.Deleted{CertificateId: m.ID, Owner: c.Owner, Names: c.Spec.Names}
	if c.Intent.IsOpen() { // told again until the order has ended, whatever orders hears first
		msg.OrderId = c.Intent.OrderID
		out.await(DeletedKey, msg)
	} else {
		out.tell(msg)
	}
	for i := range c.Revocations { // no replacement comes that they could wait for
		if c.Revocations[i].State == RevocationWaiting {
			c.request(&c.Revocations[i], m, &out)
		}
	}
	return out
}

// Notice says what stays valid and until when after a deletion, in one or two sentences.
func (c *Certificate) Notice(now time.Time) string {
	notice := "Nothing of it is valid any more."
	if c.Current != nil && !c.CurrentRevoked && c.revocation(c.Current.VersionID) == nil && c.Current.NotAfter.After(now) {
		notice = fmt.Sprintf("Version %s for %s stays valid wherever it is installed until %s, unless it is revoked.",
			c.Current.VersionID, c.Current.Names[0], c.Current.NotAfter.Format(time.RFC3339))
	} else if c.Current == nil {
		notice = "It had no version yet."
	}
	if c.Intent.IsOpen() {
		notice += fmt.Sprintf(" Order %s is cancelled if it is not being finalized already; a certificate that still comes is not stored.", c.Intent.OrderID)
	}
	return notice
}

// Package domain is the certificate repository without any outside: what a certificate is, when an intent is opened and closed, what
// becomes of an issued order, when a revocation is sent. Its methods change the aggregate and return the facts that they caused.
//
// It must never do I/O, read a clock, or open a second intent while one is open.
package domain

import (
	"slices"
	"strings"
	"time"
)

// Never is the moment of what does not happen; it equals clock.Never.
var Never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// Certificate is the body of a stored certificate. A deleted one stays as a tombstone for a while.
type Certificate struct {
	DisplayName string `bson:"display_name"`
	Owner       string `bson:"owner"`
	// Labels are "key=value".
	Labels []string `bson:"labels"`
	// Tags is what lists find a certificate by; empty for a tombstone. See Reindex.
	Tags []string `bson:"tags"`
	// UniqueKey is a hash of issuer and names, or the own id where a duplicate is allowed and for a tombstone.
	UniqueKey      string `bson:"unique_key"`
	AllowDuplicate bool   `bson:"allow_duplicate"`
	CreatedBy      string `bson:"created_by"`
	Spec           Spec   `bson:"spec"`
	// SpecGeneration counts the changes of Spec, from 1.
	SpecGeneration int64 `bson:"spec_generation"`
	// EditNumber counts what people changed, from 1: the etag. What machines write does not void it.
	EditNumber int64 `bson:"edit_number"`
	// Intent is the open or the last one; its number is 0 when there was none.
	Intent Intent `bson:"intent"`
	// Current is the version to be served, nil before the first.
	Current        *Facts `bson:"current"`
	CurrentRevoked bool   `bson:"current_revoked"`
	// NoReplacement is set when somebody revoked the current version and wants no other: only a person opens an intent then.
	NoReplacement bool `bson:"no_replacement"`
	// NotAfter is that of the current version, Never before the first and for a tombstone.
	NotAfter time.Time `bson:"not_after"`
	Renewal  Renewal   `bson:"renewal"`
	Findings []Finding `bson:"findings"`
	// DeployTo are the targets whose binding is still to be made.
	DeployTo []Pending `bson:"deploy_to"`
	// Bindings are those that were heard of, with the last news of each.
	Bindings []Binding `bson:"bindings"`
	// Revocations are those of versions of this certificate: waiting, requested and done.
	Revocations []Revocation `bson:"revocations"`
	// DeletedAt is Never for a living certificate.
	DeletedAt time.Time `bson:"deleted_at"`
}

// Outcomes of an intent.
const (
	Open      = "open"
	Issued    = "issued"
	Failed    = "failed"
	Rejected  = "rejected"
	Cancelled = "cancelled"
)

// Causes of an intent that inventory itself knows; callers of the door bring more.
const (
	CauseCreated     = "created"
	CauseManual      = "manual"
	CauseRevocation  = "revocation"
	CauseSpecChanged = "spec_changed"
)

// Intent is the wish for exactly one new version.
type Intent struct {
	Number            int64     `bson:"number"`
	OrderID           string    `bson:"order_id"`
	SpecGeneration    int64     `bson:"spec_generation"`
	ReplacesVersionID string    `bson:"replaces_version_id"`
	Cause             string    `bson:"cause"`
	Outcome           string    `bson:"outcome"`
	Problem           *Problem  `bson:"problem"`
	CancelWanted      bool      `bson:"cancel_wanted"`
	Accepted          bool      `bson:"accepted"`
	OpenedAt          time.Time `bson:"opened_at"`
	ClosedAt          time.Time `bson:"closed_at"` // zero while open
	Trace             string    `bson:"trace"`     // traceparent of who opened it
}

// IsOpen reports whether the intent waits for its outcome.
func (i Intent) IsOpen() bool { return i.Outcome == Open }

// Renewal is what renewals last told of its plan: a projection with the revision of its source.
type Renewal struct {
	State       string    `bson:"state"` // planned, held, or empty
	DueAt       time.Time `bson:"due_at"`
	Basis       string    `bson:"basis"`
	Explanation string    `bson:"explanation"`
	Epoch       string    `bson:"epoch"`
	Revision    int64     `bson:"revision"`
}

// Finding is something a person should know of the certificate.
type Finding struct {
	Reason  string    `bson:"reason"`
	Detail  string    `bson:"detail"`
	Since   time.Time `bson:"since"`
	Subject string    `bson:"subject"`
	Until   time.Time `bson:"until"` // Never, or when it does not matter any more
}

// Moment is what a decision is given from outside.
type Moment struct {
	ID    string    // of the certificate
	Now   time.Time // UTC, milliseconds
	Order string    // id of the order, should an intent be opened now; never used before
	Trace string    // traceparent of what caused the decision
}

// New makes a certificate with its first intent open. Spec must be valid and in canonical form.
func New(c Certificate, m Moment) (Certificate, Outcome) {
	c.SpecGeneration, c.EditNumber = 1, 1
	c.NotAfter, c.DeletedAt = Never, Never
	var out Outcome
	c.open(CauseCreated, m, &out)
	return c, out
}

// Unknown makes the tombstone of a certificate that this store does not know (any more), so that an answer can be kept in it.
func Unknown(m Moment) Certificate {
	return Certificate{UniqueKey: m.ID, NotAfter: Never, DeletedAt: m.Now}
}

// Deleted reports whether this is a tombstone.
func (c *Certificate) Deleted() bool { return !c.DeletedAt.Equal(Never) }

// The derived states of a certificate.
const (
	StatePending = "pending"
	StateActive  = "active"
	StateExpired = "expired"
	StateRevoked = "revoked"
	StateDeleted = "deleted"
)

// State derives the state at the moment now.
func (c *Certificate) State(now time.Time) string {
	switch {
	case c.Deleted():
		return StateDeleted
	case c.Current == nil:
		return StatePending
	case c.CurrentRevoked:
		return StateRevoked
	case !c.NotAfter.After(now):
		return StateExpired
	}
	return StateActive
}

// Reindex derives what lists and the unique index look at. Call it after every change of the certificate; key is the hash of issuer and names.
func (c *Certificate) Reindex(id, team, key string) {
	if c.Deleted() {
		c.UniqueKey, c.Tags, c.NotAfter, c.CurrentRevoked = id, nil, Never, false
		return
	}
	c.UniqueKey = key
	if c.AllowDuplicate {
		c.UniqueKey = id
	}
	tags := []string{"team=" + team, "issuer=" + c.Spec.Issuer, "owner=" + strings.ToLower(c.Owner)}
	for _, n := range c.Spec.Names {
		tags = append(tags, "name="+n)
	}
	for _, l := range c.Labels {
		tags = append(tags, "label="+l)
	}
	slices.Sort(tags)
	c.Tags = slices.Compact(tags)
}

// WorkAt is when the worker has something to do for the certificate, Never when nothing.
func (c *Certificate) WorkAt() time.Time {
	at := Never
	if c.Deleted() {
		return at
	}
	for _, p := range c.DeployTo {
		at = earlier(at, p.NextAt)
	}
	for _, r := range c.Revocations {
		if r.State == RevocationWaiting {
			at = earlier(at, r.SendBy)
		}
	}
	return at
}

// ShownFindings are those that still matter at the moment now.
func (c *Certificate) ShownFindings(now time.Time) []Finding {
	return slices.DeleteFunc(slices.Clone(c.Findings), func(f Finding) bool { return !f.Until.After(now) })
}

func (c *Certificate) find(reason, detail, subject string, until time.Time, m Moment) {
	f := Finding{Reason: reason, Detail: detail, Subject: subject, Since: m.Now, Until: until}
	for i, old := range c.Findings {
		if old.Reason == reason && old.Subject == subject {
			f.Since = old.Since
			c.Findings[i] = f
			return
		}
	}
	c.Findings = append(c.ShownFindings(m.Now), f)
}

// unfind drops the findings about subject, of these reasons only when some are given.
func (c *Certificate) unfind(subject string, reasons ...string) {
	c.Findings = slices.DeleteFunc(c.Findings, func(f Finding) bool {
		return f.Subject == subject && (len(reasons) == 0 || slices.Contains(reasons, f.Reason))
	})
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

package domain

import (
	"fmt"
	"time"
)

// The findings of the rules.
const (
	FindingOrderOpen   = "ORDER_OPEN"
	FindingNoOrder     = "NO_ORDER_OPEN"
	FindingFailed      = "ORDER_FAILED"
	FindingNotFailed   = "NO_FAILURE"
	FindingHeld        = "HELD"
	FindingNotHeld     = "NOT_HELD"
	FindingRevoked     = "REVOKED"
	FindingNotRevoked  = "NOT_REVOKED"
	FindingNoVersion   = "NO_VERSION"
	FindingHasVersion  = "HAS_VERSION"
	FindingARI         = "ARI_WINDOW"
	FindingARIPastSafe = "ARI_AFTER_SAFE_LIMIT"
	FindingNoARI       = "NO_ARI"
	FindingARIUnread   = "ARI_NOT_READ"
	FindingARITrouble  = "ARI_TROUBLE"
	FindingLifeLeft    = "LIFE_LEFT"
	FindingSafeLimit   = "SAFE_LIMIT"
)

// Finding is what one rule says of a plan.
type Finding struct {
	Reason   string
	Sentence string
	Decisive bool // the first rule that has something to say

	says  bool
	state State
	basis Basis
	at    time.Time
}

// rules is the whole policy, in the order in which it counts.
var rules = []func(p *Plan) Finding{orderOpen, orderFailed, held, revoked, noVersion, ariWindow, lifeLeft}

// Findings asks every rule and marks the decisive one.
func (p *Plan) Findings() []Finding {
	out := make([]Finding, 0, len(rules)+2)
	decided := false
	for _, r := range rules {
		f := r(p)
		f.Decisive = f.says && !decided
		decided = decided || f.says
		out = append(out, f)
	}
	if t := p.ARI.Problem; t != nil {
		out = append(out, silent(FindingARITrouble, "The last look at ARI failed (%s: %s); the next is at %s.", t.Reason, t.Detail, stamp(p.ARI.CheckAt)))
	}
	return append(out, safeLimit(p))
}

// Settle writes down what the decisive rule says. It depends on nothing but the plan: every random moment was drawn before.
func (p *Plan) Settle() {
	for _, r := range rules {
		if f := r(p); f.says {
			p.State, p.DueAt, p.Basis, p.Explanation = f.state, f.at, f.basis, f.Sentence
			return
		}
	}
}

func silent(reason, format string, args ...any) Finding {
	return Finding{Reason: reason, Sentence: fmt.Sprintf(format, args...)}
}

func says(reason string, state State, basis Basis, at time.Time, format string, args ...any) Finding {
	return Finding{Reason: reason, Sentence: fmt.Sprintf(format, args...), says: true, state: state, basis: basis, at: at}
}

// orderOpen: one intent at a time.
func orderOpen(p *Plan) Finding {
	switch {
	case p.Intent.Open && p.Intent.OrderID != "":
		return says(FindingOrderOpen, Ordered, BasisOrdered, p.Intent.OpenedAt, "Order %s is open since %s; its outcome decides what comes next.",
			p.Intent.OrderID, stamp(p.Intent.OpenedAt))
	case p.ordered():
		return says(FindingOrderOpen, Ordered, BasisOrdered, p.Intent.OpenedAt, "The specification changed and the next order is being opened; its outcome decides what comes next.")
	}
	return silent(FindingNoOrder, "No order is open.")
}

// orderFailed: a failure is tried again after a growing wait, whatever else speaks for haste.
func orderFailed(p *Plan) Finding {
	if p.RetryAt.IsZero() {
		return silent(FindingNotFailed, "The last order did not fail.")
	}
	why := ""
	if p.Problem != nil {
		why = fmt.Sprintf(" (%s: %s)", p.Problem.Reason, p.Problem.Detail)
	}
	return says(FindingFailed, Waiting, BasisBackoff, p.RetryAt, "%s failed%s; a new one is asked for at %s.", plural(p.Failed, "order", "orders in a row"), why, stamp(p.RetryAt))
}

// held: what a person decided stands until the review.
func held(p *Plan) Finding {
	if p.Hold == nil {
		return silent(FindingNotHeld, "Nobody holds it.")
	}
	then := "asked for again"
	if p.Version.ID == "" {
		then = "its owner is reminded"
	}
	return says(FindingHeld, Held, BasisHeld, p.Hold.ReviewAt, "Held (%s: %s); at %s it is %s.", p.Hold.Reason, p.Hold.Detail, stamp(p.Hold.ReviewAt), then)
}

// revoked: what is revoked is replaced at once.
func revoked(p *Plan) Finding {
	if p.Version.RevokedAt.IsZero() {
		return silent(FindingNotRevoked, "The current version is not revoked.")
	}
	return says(FindingRevoked, Waiting, BasisRevoked, p.Version.RevokedAt, "Version %s is revoked; a replacement is asked for at once.", p.Version.ID)
}

// noVersion: a certificate without version, order, failure and hold lost its order somewhere.
func noVersion(p *Plan) Finding {
	if p.Version.ID != "" {
		return silent(FindingHasVersion, "Version %s is valid until %s.", p.Version.ID, stamp(p.Version.NotAfter))
	}
	return says(FindingNoVersion, Waiting, BasisBackoff, p.Since, "There is neither a version nor an order; one is asked for at once.")
}

// ariWindow: the CA knows best (RFC 9773), up to the safe limit.
func ariWindow(p *Plan) Finding {
	a := p.ARI
	switch {
	case p.Version.ID == "" || p.Version.ARICertID == "":
		return silent(FindingNoARI, "There is no certificate that ARI could be asked for.")
	case !a.Read:
		return silent(FindingARIUnread, "The CA's suggestion (ARI) is not known yet.")
	case !a.Supported:
		return silent(FindingNoARI, "The CA suggests no renewal window (it has no ARI).")
	}
	window := fmt.Sprintf("The CA suggests %s to %s (ARI)", stamp(a.WindowStart), stamp(a.WindowEnd))
	if a.ExplanationURL != "" {
		window += ", see " + a.ExplanationURL
	}
	safe := p.Version.SafeLimit()
	if at := later(later(safe, p.Version.SeenAt), p.CalmTill); a.MomentAt.After(at) {
		return says(FindingARIPastSafe, Waiting, BasisARI, at, "%s, but the safe limit %s comes first.", window, stamp(safe))
	}
	return says(FindingARI, Waiting, BasisARI, a.MomentAt, "%s; the moment drawn is %s.", window, stamp(a.MomentAt))
}

// lifeLeft: without ARI a fixed part of the life is kept in reserve. There is always a version when this rule is asked for a decision.
func lifeLeft(p *Plan) Finding {
	if p.Version.ID == "" {
		return silent(FindingLifeLeft, "There is no life of which a part could be left.")
	}
	left := p.Version.NotAfter.Sub(p.LifeAt)
	return says(FindingLifeLeft, Waiting, BasisLife, p.LifeAt, "Of the life of %s, %s are left at %s, the moment drawn for a renewal without ARI.",
		period(p.Version.Life()), period(left), stamp(p.LifeAt))
}

// safeLimit decides nothing by itself; other rules keep to it.
func safeLimit(p *Plan) Finding {
	if p.Version.ID == "" {
		return silent(FindingSafeLimit, "A first version has no safe limit.")
	}
	return silent(FindingSafeLimit, "From the safe limit %s on a version is asked for whatever holds it up.", stamp(p.Version.SafeLimit()))
}

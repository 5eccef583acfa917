// Package domain decides when a certificate is renewed. A plan gathers what is known of one certificate; a chain of pure rules (decide.go) makes
// the decision of it; the methods here take what was heard or answered.
//
// It must never do I/O, read a clock, or draw a random moment twice: what is drawn is stored.
package domain

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
)

// Never is the moment of what does not happen; it equals clock.Never.
var Never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// State of a plan.
type State string

// The states of a plan.
const (
	Waiting State = "waiting" // for its moment
	Ordered State = "ordered" // for the end of an open intent
	Held    State = "held"    // for a person, or the review
)

// States lists every state.
func States() []State { return []State{Waiting, Ordered, Held} }

// Basis is what the moment of a plan follows from.
type Basis string

// The bases of a plan.
const (
	BasisARI     Basis = "ari"     // the CA's suggestion (RFC 9773)
	BasisLife    Basis = "life"    // a part of the version's life is left
	BasisBackoff Basis = "backoff" // an order failed, or there was none
	BasisRevoked Basis = "revoked" // the current version was revoked
	BasisOrdered Basis = "ordered" // an intent is open
	BasisHeld    Basis = "held"    // a person decided against it
)

// The causes with which renewals asks for a version.
const (
	causeARI        = "ari"
	causeSchedule   = "schedule"
	causeRetry      = "retry"
	causeRevocation = "revocation"
)

// Version is the current version of the certificate; an empty ID means that there is none yet.
type Version struct {
	ID        string    `bson:"id"`
	Number    int64     `bson:"number"` // rises with each version of a certificate
	Names     []string  `bson:"names"`
	NotBefore time.Time `bson:"not_before"`
	NotAfter  time.Time `bson:"not_after"`
	IssuerID  string    `bson:"issuer_id"`
	ARICertID string    `bson:"ari_cert_id"` // RFC 9773 section 4.1; empty when the certificate has none
	SeenAt    time.Time `bson:"seen_at"`     // when the plan first heard of it
	RevokedAt time.Time `bson:"revoked_at"`  // when the plan heard of its revocation, zero while it is not revoked
}

// Life is for how long the version is valid.
func (v Version) Life() time.Duration { return max(v.NotAfter.Sub(v.NotBefore), 0) }

// SafeLimit is the earlier of the moments when 10 % of the life or 24 h are left, but for lives under four days never before three quarters have passed.
// It is Never while there is no version.
func (v Version) SafeLimit() time.Time {
	if v.ID == "" {
		return Never
	}
	return v.NotAfter.Add(-max(v.Life()/10, min(day, v.Life()/4)))
}

// Intent is the last wish for a new version that the plan knows of.
type Intent struct {
	Number int64 `bson:"number"`
	Open   bool  `bson:"open"`
	// Following: it ended, and the next was opened in the same write but is not heard of yet.
	Following bool      `bson:"following"`
	OrderID   string    `bson:"order_id"`
	Cause     string    `bson:"cause"`
	Replaces  string    `bson:"replaces"` // id of the version to be replaced, empty for a first one
	OpenedAt  time.Time `bson:"opened_at"`
}

// Hold is why nothing is done before ReviewAt.
type Hold struct {
	Reason   string    `bson:"reason"`
	Detail   string    `bson:"detail"`
	ReviewAt time.Time `bson:"review_at"`
}

// Problem is why something did not go on, as users see it.
type Problem struct {
	Reason   string `bson:"reason"`
	Detail   string `bson:"detail"`
	Retrying bool   `bson:"retrying"`
}

// The reasons that renewals itself gives.
const (
	ReasonDeclined    = "RENEWAL_DECLINED" // of a hold: the inventory sees nothing to do
	ReasonUnreachable = "ARI_UNREADABLE"   // of ARI: orders could not be asked
	reasonExpired     = "APPROVAL_EXPIRED" // of a failed order: like a rejection
)

// Source is where in the certificate's history the plan is: a store epoch and a revision in it.
type Source struct {
	Epoch    string `bson:"epoch"`
	Revision int64  `bson:"revision"`
}

// Plan is the body of a stored plan; its document has the certificate's id.
type Plan struct {
	Since   time.Time `bson:"since"` // when the plan was made
	Owner   string    `bson:"owner"`
	Version Version   `bson:"version"`
	Intent  Intent    `bson:"intent"`

	// What the rules made of the rest; see Settle.
	State       State     `bson:"state"`
	DueAt       time.Time `bson:"plan_due_at"`
	Basis       Basis     `bson:"basis"`
	Explanation string    `bson:"explanation"`

	LifeAt   time.Time `bson:"life_at"` // drawn once a version
	ARI      ARI       `bson:"ari"`
	Failed   int64     `bson:"failed"`   // consecutive failed orders
	RetryAt  time.Time `bson:"retry_at"` // drawn once a failure; zero when the last order did not fail
	Problem  *Problem  `bson:"problem"`  // of the last failed order
	Hold     *Hold     `bson:"hold"`
	AskAt    time.Time `bson:"ask_at"`    // before it the inventory is not asked (again)
	Hurried  int64     `bson:"hurried"`   // consecutive versions that were due for replacement as soon as they came
	CalmTill time.Time `bson:"calm_till"` // before it a hurried version is not replaced
	DueTold  int64     `bson:"due_told"`  // number of the last intent for which renewal.due was told
	WantedAt time.Time `bson:"wanted_at"` // since when a new version is wanted, zero when none is

	OverdueTold bool      `bson:"overdue_told"`
	WarnedTo    time.Time `bson:"warned_to"` // the last warning threshold told
	ExpiredTold bool      `bson:"expired_told"`

	Source    Source    `bson:"source"`
	DroppedAt time.Time `bson:"dropped_at"` // Never for a living plan
}

// Moment is what a transition is given from outside.
type Moment struct {
	ID     string // of the certificate
	Now    time.Time
	Policy Policy
	Draw   func() float64 // in [0, 1); each result is stored and never drawn again
}

// Fact is an event that a transition caused and nobody waits for. The plan itself is told by the caller; see Plan.Message.
type Fact = proto.Message

// New makes the plan of a certificate of which nothing is known yet.
func New(m Moment) Plan { return Plan{Since: m.Now, DroppedAt: Never} }

// Dropped reports whether the certificate is gone.
func (p *Plan) Dropped() bool { return !p.DroppedAt.Equal(Never) }

// Drop ends the plan: the certificate was deleted, or the inventory does not know it.
func (p *Plan) Drop(m Moment) {
	if !p.Dropped() {
		p.DroppedAt = m.Now
	}
}

// Revive takes back a Drop: the inventory has the certificate after all, which happens after a recovery from a backup.
func (p *Plan) Revive() { p.DroppedAt = Never }

// Hear notes how far the history was heard. past: the fact is of a history that ended with a recovery from a backup, and is not to be applied at all. fresh: what it
// projects is not older than what is known (facts of one write share a revision). Intents and versions are judged by their numbers instead, since facts may come out of
// order. A newer epoch counts from what the backup held.
func (p *Plan) Hear(s Source) (fresh, past bool) {
	switch {
	case s.Epoch > p.Source.Epoch:
		if p.Source.Epoch != "" {
			p.Intent, p.Version.Number = Intent{}, 0
		}
		p.Source = s
	case s.Epoch < p.Source.Epoch:
		return false, true
	case s.Revision < p.Source.Revision:
		return false, false
	default:
		p.Source.Revision = s.Revision
	}
	return true, false
}

// Own sets who answers for the certificate.
func (p *Plan) Own(owner string) {
	if owner != "" {
		p.Owner = owner
	}
}

// Take makes v the version that is planned for, if it is newer than the known one. spread: many are heard of at once, so their CA is not asked at once.
func (p *Plan) Take(v Version, spread bool, m Moment) bool {
	old := p.Version
	if v.ID == "" || v.ID == old.ID || v.Number <= old.Number {
		return false
	}
	v.SeenAt = m.Now
	p.calm(v, m)
	p.Version, p.LifeAt, p.ARI = v, later(m.Policy.drawLife(v, m), p.CalmTill), ARI{CheckAt: m.Now}
	if spread {
		p.ARI.CheckAt = m.Now.Add(part(time.Hour, m.Draw()))
	}
	p.Failed, p.RetryAt, p.Problem, p.Hold = 0, time.Time{}, nil, nil
	p.OverdueTold, p.WarnedTo, p.ExpiredTold, p.WantedAt = false, time.Time{}, false, time.Time{}
	if p.ordered() {
		p.WantedAt = m.Now
	} else {
		p.AskAt = time.Time{}
	}
	return true
}

// calm keeps a CA from making us order for ever: one whose window is stuck in the past, or that issues what is past its safe limit already. Each such version waits
// longer than the one before.
func (p *Plan) calm(v Version, m Moment) {
	byARI := p.Version.ID != "" && p.Intent.Cause == causeARI && m.Now.Before(p.Version.SeenAt.Add(p.Version.Life()/10))
	if !byARI && m.Now.Before(v.SafeLimit()) {
		p.Hurried, p.CalmTill = 0, time.Time{}
		return
	}
	p.Hurried++
	p.CalmTill = m.Now.Add(backoff(p.Hurried))
}

// Revoked notes that the CA has revoked the version.
func (p *Plan) Revoked(version string, m Moment) {
	if p.Version.ID == version && version != "" && p.Version.RevokedAt.IsZero() {
		p.Version.RevokedAt = m.Now
	}
}

// Opened takes that the intent is open. What is known already, or ended, changes nothing. renewal.due is told once, when the intent's cause is one of ours.
func (p *Plan) Opened(i Intent, m Moment) []Fact {
	if i.Number == p.Intent.Number && p.Intent.Open && p.Intent.OrderID == "" {
		p.Intent.OrderID = i.OrderID
	}
	if i.Number <= p.Intent.Number {
		return nil
	}
	basis := basisOf(i.Cause)
	if p.WantedAt.IsZero() {
		p.WantedAt = m.Now
		if p.State == Waiting && p.DueAt.Before(m.Now) {
			p.WantedAt = p.DueAt
		}
	}
	i.Open, i.Following, i.OpenedAt = true, false, m.Now
	p.Intent, p.Hold, p.RetryAt, p.AskAt = i, nil, time.Time{}, m.Now.Add(m.Policy.AskAgain)
	if basis == "" || p.DueTold >= i.Number {
		return nil
	}
	p.DueTold = i.Number
	return []Fact{p.due(basis, m)}
}

// Closed takes the outcome of an intent: issued, failed, rejected or cancelled. follows: the same write opened the next. by says who cancelled: user, system,
// or empty for unknown. What is known already changes nothing.
func (p *Plan) Closed(number int64, outcome string, problem *Problem, follows bool, by string, m Moment) {
	if number < p.Intent.Number || number == p.Intent.Number && !p.Intent.Open {
		return
	}
	p.Intent.Number, p.Intent.Open, p.Intent.Following, p.AskAt = number, false, follows, time.Time{}
	p.Hold, p.RetryAt = nil, time.Time{}
	if problem == nil {
		problem = &Problem{Reason: "ORDER_" + outcomeReason(outcome), Detail: "no reason was given"}
	}
	switch {
	case follows:
		p.Intent.OrderID, p.Intent.Replaces = "", p.Version.ID
		p.AskAt = m.Now.Add(m.Policy.AskAgain)
	case outcome == "issued":
		p.Failed, p.RetryAt, p.Problem, p.WantedAt = 0, time.Time{}, nil, time.Time{}
	case outcome == "rejected", outcome == "cancelled" && by != "system", problem.Reason == reasonExpired:
		p.hold(problem.Reason, problem.Detail, m)
	default:
		p.Failed++
		p.Problem, p.RetryAt = problem, p.drawRetry(m)
	}
}

func outcomeReason(outcome string) string {
	if outcome == "cancelled" {
		return "CANCELLED"
	}
	if outcome == "rejected" {
		return "REJECTED"
	}
	return "FAILED"
}

// hold stops asking until a review: at the safe limit, or when that has passed soon again, and weekly where no version is about to end.
func (p *Plan) hold(reason, detail string, m Moment) {
	review := m.Now.Add(m.Policy.Review)
	if v := p.Version; v.ID != "" && v.RevokedAt.IsZero() && v.NotAfter.After(m.Now) {
		soon := m.Now.Add(max(min(day, v.Life()/10), time.Minute))
		if review = v.SafeLimit(); review.Before(soon) {
			review = soon
		}
	}
	p.Hold = &Hold{Reason: reason, Detail: detail, ReviewAt: review}
	p.Failed, p.RetryAt, p.Problem = 0, time.Time{}, nil
	p.WantedAt, p.OverdueTold = time.Time{}, false
}

// Remind moves the review of a hold that only a person can end: there is no version that a safe limit could be counted from.
func (p *Plan) Remind(m Moment) {
	if p.Hold != nil {
		h := *p.Hold
		h.ReviewAt = m.Now.Add(m.Policy.Review)
		p.Hold = &h
	}
}

// Ask is what the inventory is asked.
type Ask struct {
	Replaces string
	First    bool
	Cause    string
}

// Asking is the question of this plan. Asked again about an open intent it names the version that the intent replaces: so it can never open another
// order after that one has brought its version.
func (p *Plan) Asking() Ask {
	if p.Intent.Open {
		return Ask{Replaces: p.Intent.Replaces, First: p.Intent.Replaces == "", Cause: causeRetry}
	}
	return Ask{Replaces: p.Version.ID, First: p.Version.ID == "", Cause: causeOf(p.Basis)}
}

// Answer is what the inventory answers.
type Answer struct {
	OrderID     string
	Number      int64 // of the open intent, or of the last
	NothingToDo bool
	Explanation string
}

// Asked takes the inventory's answer to ask.
func (p *Plan) Asked(ask Ask, a Answer, m Moment) []Fact {
	again := m.Now.Add(m.Policy.AskAgain)
	switch {
	case a.NothingToDo && (p.ordered() || a.Number > p.Intent.Number):
		// The news are on their way: as a fact told again, or by healing.
		p.AskAt = again
	case a.NothingToDo:
		p.hold(ReasonDeclined, a.Explanation, m)
	case a.Number > p.Intent.Number:
		return p.Opened(Intent{Number: a.Number, OrderID: a.OrderID, Cause: ask.Cause, Replaces: ask.Replaces}, m)
	case p.ordered():
		p.AskAt = again
	default: // that intent has ended while the answer was on its way
		p.AskAt = m.Now.Add(time.Minute)
	}
	return nil
}

func (p *Plan) ordered() bool { return p.Intent.Open || p.Intent.Following }

// OpenOrder is the order of the open intent, empty when none is open.
func (p *Plan) OpenOrder() string {
	if !p.Intent.Open {
		return ""
	}
	return p.Intent.OrderID
}

// Ended is the number of the last intent whose end the plan knows. It is what an answer to the inventory carries: a plan that knows only that the
// intent is open has not heard of its end.
func (p *Plan) Ended() int64 {
	if p.Intent.Open {
		return p.Intent.Number - 1
	}
	return p.Intent.Number
}

// Seen is the certificate as the inventory has it now.
type Seen struct {
	Version Version // empty when there is none
	Revoked bool
	Owner   string
	Intent  Intent
	Outcome string // of the intent
	Problem *Problem
}

// Observe takes what the inventory has, whatever was heard or missed before.
func (p *Plan) Observe(s Seen, m Moment) (facts []Fact) {
	p.Own(s.Owner)
	took := p.Take(s.Version, true, m)
	if s.Revoked {
		p.Revoked(s.Version.ID, m)
	}
	switch {
	case s.Intent.Number == 0:
	case s.Outcome == "open":
		facts = p.Opened(s.Intent, m)
	default:
		p.Closed(s.Intent.Number, s.Outcome, s.Problem, false, "", m)
	}
	if took && !p.ordered() {
		p.WantedAt = time.Time{}
	}
	return facts
}

// Act is what a worker does for a plan next.
type Act string

// What a worker can do.
const (
	Rest    Act = "rest"
	Alarm   Act = "alarm"    // tell that something did not happen
	AskDoor Act = "ask"      // ask the inventory for a version
	Reread  Act = "read ari" // ask for the CA's suggestion
	Review  Act = "remind"   // tell again that a person has to decide
)

// Next says what is to be done at m.Now. An alarm needs nobody and comes first.
func (p *Plan) Next(m Moment) Act {
	due := func(at time.Time) bool { return !at.After(m.Now) }
	switch {
	case p.Dropped():
		return Rest
	case due(p.alarmAt(m.Policy)):
		return Alarm
	case due(p.actAt()) && p.reminds():
		return Review
	case due(p.actAt()):
		return AskDoor
	case due(p.ARIAt()):
		return Reread
	}
	return Rest
}

// WorkAt is when the worker has something to do for the plan. It is finite for every living plan: no certificate rests without a next step.
func (p *Plan) WorkAt(policy Policy) time.Time {
	if p.Dropped() {
		return Never
	}
	return slices.MinFunc([]time.Time{p.alarmAt(policy), p.actAt(), p.ARIAt()}, time.Time.Compare)
}

func (p *Plan) actAt() time.Time {
	if p.State == Ordered {
		return p.AskAt
	}
	return later(p.DueAt, p.AskAt)
}

// reminds: a person rejected or cancelled the very first version; nothing runs out, so nothing is ordered against that will.
func (p *Plan) reminds() bool { return p.State == Held && p.Version.ID == "" }

func basisOf(cause string) Basis {
	return map[string]Basis{causeARI: BasisARI, causeSchedule: BasisLife, causeRetry: BasisBackoff, causeRevocation: BasisRevoked}[cause]
}

func causeOf(b Basis) string {
	if c, ok := map[Basis]string{BasisARI: causeARI, BasisLife: causeSchedule, BasisRevoked: causeRevocation}[b]; ok {
		return c
	}
	return causeRetry
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func plural(n int64, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}

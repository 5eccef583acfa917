package domain

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	orderev "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/shared/errs"
)

// maxAttempts is how many attempts an order remembers.
const maxAttempts = 12

// Fact is an event with the natural key under which the order keeps it, and whether the order waits for an answer.
type Fact struct {
	Msg   proto.Message
	Keep  string
	Await bool
}

// CAOrder is an order as the CA tells it.
type CAOrder struct {
	URL            string
	Status         string // pending, ready, processing, valid or invalid (RFC 8555 section 7.1.6)
	FinalizeURL    string
	CertificateURL string
	AuthzURLs      []string
	ExpiresAt      time.Time
	Problem        *Problem
	RetryAfter     time.Duration
}

// Tell makes order.accepted.
func (o *Order) Tell() Fact {
	return Fact{Keep: AcceptedKey, Msg: &orderev.Accepted{OrderId: o.ID, CertificateId: o.CertificateID, IntentNumber: o.IntentNumber}}
}

// HaveCSR notes the key and its request, made once for the order and reused by all its attempts.
func (o *Order) HaveCSR(keyID string, csr []byte, spki string) {
	o.KeyID, o.CSR, o.SPKI = keyID, csr, spki
	o.Retries, o.RetryAt = 0, time.Time{}
}

// OpenAttempt stores the attempt that newOrder is sent for next.
func (o *Order) OpenAttempt(accountID, lease string, now time.Time) error {
	if o.State != Queued || o.Attempt() != nil {
		return errs.New(errs.Precondition, "ORDER_STATE", "an order that is %s opens no attempt", o.State)
	}
	a := Attempt{Number: 1, IssuerID: o.Spec.IssuerID, AccountID: accountID, State: AttemptOpen, CreatedAt: now, Lease: lease}
	if n := len(o.Attempts); n > 0 {
		a.Number = o.Attempts[n-1].Number + 1
	}
	if len(o.Attempts) >= maxAttempts { // of the dead, the first and the newest tell the story
		o.Attempts = append(o.Attempts[:1:1], o.Attempts[len(o.Attempts)-maxAttempts+2:]...)
	}
	if r := o.Replaces; r != nil && !o.NoReplaces && r.IssuerID == a.IssuerID && r.NotAfter.After(now) {
		a.Replaces = r.ARICertID
	}
	o.Attempts = append(o.Attempts, a)
	return nil
}

// Unknown ends an attempt of which nobody knows whether the CA has it, and leaves room for the next (flows.md, newOrder).
func (o *Order) Unknown(now time.Time) {
	o.kill(&Problem{Reason: "NEW_ORDER_UNANSWERED", Detail: "newOrder was sent but its answer was not stored; it is sent once more", Retrying: true}, now)
}

// Ordered notes the CA's order.
func (o *Order) Ordered(ca CAOrder) {
	a := o.Attempt()
	a.URL, a.FinalizeURL, a.AuthzURLs, a.ExpiresAt = ca.URL, ca.FinalizeURL, ca.AuthzURLs, ca.ExpiresAt
	o.progress()
}

// NeedAuthorizations notes what the CA wants proven, and tells challenges. With nothing left to prove the order goes straight to finalizing.
func (o *Order) NeedAuthorizations(zs []Authorization, lease string, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	a.Authorizations = zs
	var facts []Fact
	open := 0
	for i := range zs {
		z := &a.Authorizations[i]
		z.Number = int64(i)
		if !z.ExpiresAt.IsZero() && (a.ExpiresAt.IsZero() || z.ExpiresAt.Before(a.ExpiresAt)) {
			a.ExpiresAt = z.ExpiresAt
		}
		if z.State == AuthzInvalid {
			return o.authorizationsFailed(*a, now)
		}
		if !z.State.Open() {
			continue
		}
		open++
		facts = append(facts, Fact{Keep: RequiredKey(a.Number, z.Number), Await: true, Msg: o.required(a.Number, *z)})
	}
	more := o.Unblock()
	o.progress()
	if open == 0 {
		a.Lease = lease
		return append(facts, more...), o.move(Finalizing)
	}
	return append(facts, more...), o.move(Authorizing)
}

// Presented notes that the answer of an authorization is in place. It reports whether that is news.
func (o *Order) Presented(attempt, number int64, challengeID, typ string) bool {
	z := o.Authorization(attempt, number)
	if z == nil || z.State != AuthzPending {
		return false
	}
	z.State, z.ChallengeID, z.Answered, z.Action, z.Problem = AuthzPresented, challengeID, typ, nil, nil
	o.Polls, o.RetryAt = 0, time.Time{}
	return true
}

// ActionRequired notes what a person has to place.
func (o *Order) ActionRequired(attempt, number int64, challengeID string, a Action) bool {
	z := o.Authorization(attempt, number)
	if z == nil || z.State != AuthzPending {
		return false
	}
	z.ChallengeID, z.Action = challengeID, &a
	return true
}

// ChallengeFailed notes that an answer cannot be placed: for now, which blocks the order, or for good, which fails it.
func (o *Order) ChallengeFailed(attempt, number int64, p *Problem, now time.Time) ([]Fact, bool, error) {
	z := o.Authorization(attempt, number)
	if z == nil || !z.State.Open() || o.State != Authorizing {
		return nil, false, nil
	}
	z.Problem = p
	if p.Retrying {
		return o.Block(p, time.Time{}), true, nil
	}
	facts, err := o.Fail(p, now)
	return facts, true, err
}

// Responded notes that the CA was told of the answers of these authorizations.
func (o *Order) Responded(numbers []int64) {
	a := o.Attempt()
	for _, n := range numbers {
		if z := o.Authorization(a.Number, n); z != nil && z.State == AuthzPresented {
			z.State = AuthzValidating
		}
	}
	o.progress()
}

// Polled takes the CA's word about the order. zs, when not nil, are its authorizations as the CA has them, read because the order is invalid.
func (o *Order) Polled(ca CAOrder, zs []Authorization, lease string, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	if a == nil || o.State.Final() {
		return nil, nil
	}
	switch ca.Status {
	case "valid":
		facts := o.close(a, AuthzValid)
		a.CertificateURL, a.Finalized = ca.CertificateURL, true
		facts = append(facts, o.Unblock()...)
		o.progress()
		return facts, o.move(Finalizing)
	case "ready":
		facts := append(o.close(a, AuthzValid), o.Unblock()...)
		a.Lease = lease
		if a.Finalized { // the CA took finalize and is ready again: not at once
			a.Finalized = false
			o.wait(ca.RetryAfter, now)
			return facts, nil
		}
		o.progress()
		return facts, o.move(Finalizing)
	case "invalid":
		for i := range zs {
			if i < len(a.Authorizations) && a.Authorizations[i].State.Open() {
				a.Authorizations[i].State, a.Authorizations[i].Problem = zs[i].State, zs[i].Problem
			}
		}
		if o.State == Finalizing {
			return o.finalizeFailed(ca, now)
		}
		return o.authorizationsFailed(*a, now)
	}
	o.wait(ca.RetryAfter, now)
	return nil, nil
}

// Finalized notes that finalize was answered.
func (o *Order) Finalized(ca CAOrder, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	a.Finalized = true
	if ca.Status == "valid" || ca.Status == "invalid" {
		return o.Polled(ca, nil, "", now)
	}
	o.Polls = 0
	o.wait(ca.RetryAfter, now)
	return nil, nil
}

// HaveCertificate ends the order with the chain, which Verify has passed.
func (o *Order) HaveCertificate(chain [][]byte, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	if err := o.move(Issued); err != nil {
		return nil, err
	}
	a.State, o.Chain, o.EndedAt = AttemptDone, chain, now
	facts := o.Unblock()
	return append(facts, Fact{Keep: OutcomeKey, Await: true, Msg: &orderev.Issued{
		OrderId: o.ID, CertificateId: o.CertificateID, IntentNumber: o.IntentNumber, SpecGeneration: o.SpecGeneration, ChainDer: chain,
		IssuerId: a.IssuerID, AccountId: a.AccountID, KeyId: o.KeyID, ReplacesSent: a.Replaces != "",
	}}), nil
}

// Fail ends the order without a certificate.
func (o *Order) Fail(p *Problem, now time.Time) ([]Fact, error) {
	if err := o.move(Failed); err != nil {
		return nil, err
	}
	p.Retrying = false
	o.Problem, o.Blocked, o.EndedAt = p, nil, now
	facts := o.kill(p, now)
	return append(facts, Fact{Keep: OutcomeKey, Msg: &orderev.Failed{
		OrderId: o.ID, CertificateId: o.CertificateID, IntentNumber: o.IntentNumber, Problem: p.Message(), Names: o.Spec.Names, Owner: o.Owner,
	}}), nil
}

// Cancel ends the order unless it is finalizing or over: then it reports false and changes nothing.
func (o *Order) Cancel(reason string, now time.Time) ([]Fact, bool) {
	if !CanMove(o.State, Cancelled) {
		return nil, false
	}
	_ = o.move(Cancelled)
	o.Blocked, o.EndedAt = nil, now
	facts := o.kill(nil, now)
	return append(facts, Fact{Keep: OutcomeKey, Msg: &orderev.Cancelled{
		OrderId: o.ID, CertificateId: o.CertificateID, IntentNumber: o.IntentNumber, Reason: reason,
	}}), true
}

// GiveUp fails an order whose time is over.
func (o *Order) GiveUp(now time.Time) ([]Fact, error) {
	p := &Problem{Reason: "GAVE_UP", Detail: "the order was not fulfilled until " + o.GiveUpAt.Format(time.RFC3339)}
	if o.Blocked != nil {
		p.Detail += "; last: " + o.Blocked.Detail
		p.Type = o.Blocked.Type
	}
	return o.Fail(p, now)
}

// Expire ends an attempt whose authorizations are about to expire; the next attempt asks again.
func (o *Order) Expire(now time.Time) ([]Fact, error) {
	facts := o.killAs(AuthzExpired, &Problem{Reason: "AUTHORIZATION_EXPIRED", Detail: "the authorizations expire before they were proven; they are asked for again", Retrying: true}, now)
	return facts, o.move(Queued)
}

// NotOrdered takes back an attempt that the CA definitely does not have: newOrder was refused or could not be sent.
func (o *Order) NotOrdered() {
	if a := o.Attempt(); a != nil && a.URL == "" {
		o.Attempts = o.Attempts[:len(o.Attempts)-1]
	}
}

// Trouble takes what went wrong at a step: transient trouble is waited for, refused replacements are dropped, everything else ends the order.
func (o *Order) Trouble(p *Problem, retryAfter time.Duration, now time.Time) ([]Fact, error) {
	if a := o.Attempt(); a != nil && a.URL == "" && a.Replaces != "" && !p.Retrying && p.Type != "" {
		o.NoReplaces = true
		return o.kill(&Problem{Reason: "REPLACES_REFUSED", Detail: "the CA does not accept the replacement: " + p.Detail + "; ordered again without it", Type: p.Type, Retrying: true}, now), nil
	}
	if !p.Retrying {
		return o.Fail(p, now)
	}
	o.Retries++
	o.RetryAt = now.Add(max(Backoff(o.Retries), retryAfter))
	return o.Block(p, o.RetryAt), nil
}

// Gone ends an attempt that the CA does not know any more.
func (o *Order) Gone(p *Problem, now time.Time) ([]Fact, error) {
	p.Retrying = true
	facts := o.killAs(AuthzExpired, p, now)
	o.Retries++
	o.RetryAt = now.Add(Backoff(o.Retries))
	if o.State == Queued {
		return facts, nil
	}
	return facts, o.move(Queued)
}

// Block notes what the order waits for; told when it begins and when the reason changes.
func (o *Order) Block(p *Problem, retryAt time.Time) []Fact {
	news := o.Blocked == nil || o.Blocked.Reason != p.Reason
	o.Blocked = p
	if !news {
		return nil
	}
	m := &orderev.Blocked{OrderId: o.ID, CertificateId: o.CertificateID, Problem: p.Message(), Owner: o.Owner}
	m.RetryAt = stamp(retryAt)
	return []Fact{{Msg: m}}
}

// Unblock notes that the order goes on.
func (o *Order) Unblock() []Fact {
	if o.Blocked == nil {
		return nil
	}
	o.Blocked = nil
	return []Fact{{Msg: &orderev.Unblocked{OrderId: o.ID, CertificateId: o.CertificateID}}}
}

func (o *Order) progress() { o.Retries, o.Polls, o.RetryAt = 0, 0, time.Time{} }

func (o *Order) wait(retryAfter time.Duration, now time.Time) {
	if retryAfter <= 0 {
		retryAfter = PollAfter(o.Polls)
	}
	o.Polls++
	o.Retries = 0
	o.RetryAt = now.Add(retryAfter)
}

// close ends the open authorizations of an attempt with one outcome, and tells challenges.
func (o *Order) close(a *Attempt, as AuthzState) (facts []Fact) {
	for i := range a.Authorizations {
		z := &a.Authorizations[i]
		if z.State.Open() {
			z.State, z.Action = as, nil
			facts = append(facts, o.closed(a.Number, *z))
		}
	}
	return facts
}

func (o *Order) closed(attempt int64, z Authorization) Fact {
	return Fact{Keep: ClosedKey(attempt, z.Number), Msg: &orderev.AuthorizationClosed{
		OrderId: o.ID, Attempt: attempt, Authorization: z.Number, Outcome: string(z.State), Problem: z.Problem.Message(),
	}}
}

// kill ends the open attempt, if any.
func (o *Order) kill(p *Problem, now time.Time) []Fact { return o.killAs(AuthzCancelled, p, now) }

func (o *Order) killAs(as AuthzState, p *Problem, _ time.Time) []Fact {
	a := o.Attempt()
	if a == nil {
		return nil
	}
	facts := o.close(a, as)
	a.State, a.Problem = AttemptDead, p
	return facts
}

// authorizationsFailed fails the order with what the CA said per identifier.
func (o *Order) authorizationsFailed(a Attempt, now time.Time) ([]Fact, error) {
	p := &Problem{Reason: "VALIDATION_FAILED"}
	var said []string
	for i := range a.Authorizations {
		z := &a.Authorizations[i]
		if z.State == AuthzInvalid && z.Problem != nil {
			p.Type = z.Problem.Type
			p.Subproblems = append(p.Subproblems, Subproblem{Identifier: z.Identifier, Type: z.Problem.Type, Detail: z.Problem.Detail})
			said = append(said, fmt.Sprintf("%s: %s", z.Identifier, z.Problem.Detail))
		}
	}
	p.Detail = "the CA could not validate control of the names"
	if len(said) > 0 {
		p.Detail += ": " + strings.Join(said, "; ")
	}
	var facts []Fact
	if att := o.Attempt(); att != nil {
		for i := range att.Authorizations {
			if z := &att.Authorizations[i]; z.State == AuthzInvalid {
				facts = append(facts, o.closed(att.Number, *z))
			}
		}
	}
	more, err := o.Fail(p, now)
	return append(facts, more...), err
}

// finalizeFailed ends the attempt of an order that the CA would not finalize; what the CA calls its own fault is tried again.
func (o *Order) finalizeFailed(ca CAOrder, now time.Time) ([]Fact, error) {
	p := ca.Problem
	if p == nil {
		p = &Problem{Reason: "CA_REFUSED", Detail: "the CA made the order invalid without saying why"}
	}
	if strings.HasSuffix(p.Type, ":serverInternal") || strings.HasSuffix(p.Type, ":orderNotReady") {
		return o.Gone(p, now)
	}
	return o.Fail(p, now)
}

package domain

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	orderev "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/shared/errs"
)

const (
	// maxAttempts is how many attempts an order remembers.
	maxAttempts = 12
	// maxVoided is how many attempts the CA may make void before the order fails: renewals asks again later.
	maxVoided = 10
	// bareEvery is every how many tries in a row newOrder is sent without "replaces": some CAs answer a replacement that they do not know with 5xx.
	bareEvery = 3
)

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

// NextAttempt is the number of the attempt that is opened next.
func (o *Order) NextAttempt() int64 {
	if n := len(o.Attempts); n > 0 {
		return o.Attempts[n-1].Number + 1
	}
	return 1
}

// Replacing is the ARI certificate id that the next attempt carries as "replaces"; empty: none.
func (o *Order) Replacing(now time.Time) string {
	if r := o.Replaces; r != nil && !o.NoReplaces && r.IssuerID == o.Spec.IssuerID && r.NotAfter.After(now) && o.Retries%bareEvery != bareEvery-1 {
		return r.ARICertID
	}
	return ""
}

// OpenAttempt stores the attempt that newOrder is sent for next.
func (o *Order) OpenAttempt(accountID, lease string, now time.Time) error {
	if o.State != Queued || o.Attempt() != nil {
		return errs.New(errs.Precondition, "ORDER_STATE", "an order that is %s opens no attempt", o.State)
	}
	a := Attempt{
		Number: o.NextAttempt(), IssuerID: o.Spec.IssuerID, AccountID: accountID, State: AttemptOpen, CreatedAt: now, Lease: lease, Replaces: o.Replacing(now),
	}
	if len(o.Attempts) >= maxAttempts { // of the dead, the first and the newest tell the story
		o.Attempts = append(o.Attempts[:1:1], o.Attempts[len(o.Attempts)-maxAttempts+2:]...)
	}
	o.Attempts = append(o.Attempts, a)
	return nil
}

// Unknown ends an attempt of which nobody knows whether the CA has it, and leaves room for the next (flows.md, newOrder).
func (o *Order) Unknown() {
	o.kill(&Problem{Reason: "NEW_ORDER_UNANSWERED", Detail: "newOrder was sent but its answer was not stored; it is sent once more", Retrying: true})
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
		switch z.State {
		case AuthzInvalid:
			return o.authorizationsFailed(CAOrder{}, now)
		case AuthzExpired, AuthzCancelled:
			return o.Void(&Problem{Reason: "AUTHORIZATION_EXPIRED", Detail: "the CA's order needs an authorization that is void already"}, now)
		case AuthzPending:
		case AuthzPresented, AuthzValidating, AuthzValid:
			continue
		}
		open++
		facts = append(facts, Fact{Keep: RequiredKey(a.Number, z.Number), Await: true, Msg: o.required(a.Number, *z)})
	}
	more := o.Unblock()
	o.progress()
	if open == 0 {
		a.Lease = lease
		return append(facts, more...), o.finalizing(now)
	}
	return append(facts, more...), o.move(Authorizing)
}

// Presented notes that the answer of an authorization is in place. It reports whether that is news.
func (o *Order) Presented(attempt, number int64, challengeID, typ string) bool {
	z := o.Authorization(attempt, number)
	if z == nil || z.State != AuthzPending || !slices.ContainsFunc(z.Offered, func(c Offer) bool { return c.Type == typ }) {
		return false
	}
	z.State, z.ChallengeID, z.Answered, z.Action, z.Problem = AuthzPresented, challengeID, typ, nil, nil
	o.Polls, o.RetryAt = 0, time.Time{}
	return true
}

// ActionRequired notes what a person has to place.
func (o *Order) ActionRequired(attempt, number int64, challengeID string, a Action) bool {
	z := o.Authorization(attempt, number)
	if z == nil || z.State != AuthzPending || (z.ChallengeID == challengeID && z.Action != nil && *z.Action == a) {
		return false
	}
	z.ChallengeID, z.Action = challengeID, &a
	return true
}

// challengeExpired is the reason of a challenge whose authorization the CA has forgotten.
const challengeExpired = "CHALLENGE_EXPIRED"

// ChallengeFailed notes that an answer cannot be placed: for now, which blocks the order, or for good, which fails it. Once the CA was told of
// an answer, or is about to be, the CA decides. It reports whether that is news.
func (o *Order) ChallengeFailed(attempt, number int64, p *Problem, now time.Time) ([]Fact, bool, error) {
	z := o.Authorization(attempt, number)
	if z == nil || z.State != AuthzPending || o.State != Authorizing {
		return nil, false, nil
	}
	if p == nil {
		p = &Problem{Reason: "CHALLENGE_FAILED", Detail: "the answer to the CA's challenge cannot be placed; look at the challenge of " + z.Identifier}
	}
	if p.Reason == challengeExpired {
		facts, err := o.Expire(now)
		return facts, true, err
	}
	if p.Retrying {
		if z.Problem != nil && z.Problem.Reason == p.Reason && z.Problem.Detail == p.Detail {
			return nil, false, nil
		}
		z.Problem = p
		return o.Block(p, time.Time{}), true, nil
	}
	z.Problem = p
	facts, err := o.Fail(p.Clone(), now)
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

// Polled takes the CA's word about the order. zs, when not nil, are its authorizations as the CA has them.
func (o *Order) Polled(ca CAOrder, zs []Authorization, lease string, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	if a == nil || o.State.Final() {
		return nil, nil
	}
	facts := o.decided(a, zs)
	var more []Fact
	var err error
	switch {
	case ca.Status == "invalid" && o.State == Finalizing:
		more, err = o.finalizeFailed(ca, now)
	case ca.Status == "invalid":
		more, err = o.authorizationsFailed(ca, now)
	case ca.Status == "valid" && ca.CertificateURL != "":
		facts = append(append(facts, o.close(a, AuthzValid)...), o.Unblock()...)
		a.CertificateURL, a.Finalized = ca.CertificateURL, true
		o.progress()
		err = o.finalizing(now)
	case ca.Status == "ready":
		facts = append(append(facts, o.close(a, AuthzValid)...), o.Unblock()...)
		a.Lease = lease
		o.progress()
		if err = o.finalizing(now); err == nil && a.Finalizes > 0 { // the CA took finalize and is ready again: not at once
			o.RetryAt = now.Add(max(Backoff(a.Finalizes), ca.RetryAfter))
			if a.Finalized {
				a.Finalized = false
				more, err = o.silent(now)
			}
		}
	default:
		more, err = o.wait(ca.RetryAfter, now)
	}
	return append(facts, more...), err
}

// decided takes what the CA says of authorizations that are still open here, and tells challenges of those that are over.
func (o *Order) decided(a *Attempt, zs []Authorization) (facts []Fact) {
	for i := range a.Authorizations {
		z := &a.Authorizations[i]
		if j := slices.IndexFunc(zs, func(c Authorization) bool { return c.URL == z.URL }); j >= 0 && z.State.Open() && !zs[j].State.Open() {
			z.State, z.Problem, z.Action = zs[j].State, zs[j].Problem, nil
			facts = append(facts, o.closed(a.Number, *z))
		}
	}
	return facts
}

// finalizing moves the order to finalizing, from where no other attempt is opened unless the CA says that this one is invalid.
func (o *Order) finalizing(now time.Time) error {
	if o.State != Finalizing {
		o.SilentAt = o.silentAt(now)
	}
	return o.move(Finalizing)
}

// Finalized notes that finalize was answered.
func (o *Order) Finalized(ca CAOrder, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	a.Finalized = true
	a.Finalizes++
	if ca.Status == "valid" || ca.Status == "invalid" {
		return o.Polled(ca, nil, "", now)
	}
	return o.wait(ca.RetryAfter, now)
}

// HaveCertificate ends the order with the chain, which Verify has passed.
func (o *Order) HaveCertificate(chain [][]byte, now time.Time) ([]Fact, error) {
	a := o.Attempt()
	if err := o.move(Issued); err != nil {
		return nil, err
	}
	facts := append(o.close(a, AuthzValid), o.Unblock()...)
	a.State, o.Chain, o.EndedAt = AttemptDone, chain, now
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
	facts := o.kill(p)
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
	facts := o.kill(nil)
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

// briefly is how long an attempt has to live not to count as void from the start.
const briefly = time.Minute

// Expire ends an attempt whose authorizations are about to expire; the next attempt asks again.
func (o *Order) Expire(now time.Time) ([]Fact, error) {
	p := &Problem{Reason: "AUTHORIZATION_EXPIRED", Detail: "the authorizations expire before they were proven; they are asked for again"}
	if a := o.Attempt(); a != nil && now.Sub(a.CreatedAt) < briefly {
		return o.Void(p, now)
	}
	p.Retrying = true
	facts := o.killAs(AuthzExpired, p)
	o.progress()
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
	if a := o.Attempt(); a != nil && a.URL == "" && a.Replaces != "" && !p.Retrying {
		o.NoReplaces = true
		return o.kill(&Problem{Reason: "REPLACES_REFUSED", Detail: "the CA does not accept the replacement: " + p.Detail + "; ordered again without it", Type: p.Type, Retrying: true}), nil
	}
	if !p.Retrying {
		return o.Fail(p, now)
	}
	o.Retries++
	o.RetryAt = now.Add(max(Backoff(o.Retries), retryAfter))
	facts := o.Block(p, o.RetryAt)
	more, err := o.silent(now)
	return append(facts, more...), err
}

// Gone takes that the CA does not know a thing of the attempt any more. Before finalize that makes the attempt void. From then on it is no proof
// that no certificate came of it, so the CA is asked on.
func (o *Order) Gone(p *Problem, now time.Time) ([]Fact, error) {
	if o.State != Finalizing {
		return o.Void(p, now)
	}
	p.Retrying = true
	return o.Trouble(p, 0, now)
}

// Void ends an attempt of which no certificate can come. The next one is opened after a growing wait, until there were too many.
func (o *Order) Void(p *Problem, now time.Time) ([]Fact, error) {
	o.Voided++
	if o.Voided >= maxVoided {
		return o.Fail(p, now)
	}
	p.Retrying = true
	facts := o.killAs(AuthzExpired, p)
	o.progress()
	o.RetryAt = now.Add(Backoff(o.Voided))
	return facts, o.move(Queued)
}

// KeyChanged takes that the account has another key than the one with which the answers of the challenges were made: the CA would find them wrong.
func (o *Order) KeyChanged(now time.Time) ([]Fact, error) {
	if o.State != Authorizing {
		return nil, nil
	}
	return o.Void(&Problem{Reason: "ACCOUNT_KEY_CHANGED", Detail: "the key of the ACME account was changed, and with it the answers of the challenges; they are asked for anew"}, now)
}

// silent gives an order up whose CA took finalize and has had no answer for too long, and else sees to it that the moment is not slept over. It is
// asked only after the CA was.
func (o *Order) silent(now time.Time) ([]Fact, error) {
	if o.State != Finalizing || o.SilentAt.IsZero() {
		return nil, nil
	}
	if now.Before(o.SilentAt) {
		if o.RetryAt.After(o.SilentAt) {
			o.RetryAt = o.SilentAt
		}
		return nil, nil
	}
	a := o.Attempt()
	p := &Problem{Reason: "GAVE_UP", Detail: "the CA was asked to finalize the order " + a.URL + " and has not answered until " + o.SilentAt.Format(time.RFC3339) +
		"; a certificate that it issues after all has no key any more"}
	if o.Blocked != nil {
		p.Detail += "; last: " + o.Blocked.Detail
		p.Type = o.Blocked.Type
	}
	facts := o.close(a, AuthzCancelled)
	a.State, a.Problem = AttemptAbandoned, p
	more, err := o.Fail(p.Clone(), now)
	return append(facts, more...), err
}

// Block notes what the order waits for; told when it begins and when the reason changes.
func (o *Order) Block(p *Problem, retryAt time.Time) []Fact {
	news := o.Blocked == nil || o.Blocked.Reason != p.Reason
	o.Blocked = p
	if !news {
		return nil
	}
	return []Fact{{Msg: &orderev.Blocked{
		OrderId: o.ID, CertificateId: o.CertificateID, Problem: p.Message(), Owner: o.Owner, RetryAt: stamp(retryAt),
	}}}
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

// wait puts the order off until the CA may have news.
func (o *Order) wait(retryAfter time.Duration, now time.Time) (facts []Fact, err error) {
	if o.Retries > 0 {
		facts = o.Unblock() // the CA answers again
	}
	if retryAfter <= 0 {
		retryAfter = PollAfter(o.Polls)
	}
	o.Polls++
	o.Retries = 0
	o.RetryAt = now.Add(retryAfter)
	more, err := o.silent(now)
	return append(facts, more...), err
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
func (o *Order) kill(p *Problem) []Fact { return o.killAs(AuthzCancelled, p) }

func (o *Order) killAs(as AuthzState, p *Problem) []Fact {
	a := o.Attempt()
	if a == nil {
		return nil
	}
	facts := o.close(a, as)
	a.State, a.Problem = AttemptDead, p
	return facts
}

// authorizationsFailed ends an attempt whose order is invalid before finalize: with what the CA said per identifier, or, when it found no answer wrong
// but an authorization void, by asking again.
func (o *Order) authorizationsFailed(ca CAOrder, now time.Time) ([]Fact, error) {
	p := &Problem{Reason: "VALIDATION_FAILED"}
	var said []string
	for _, z := range o.Attempt().Authorizations {
		if z.State != AuthzInvalid || z.Problem == nil {
			continue
		}
		what := z.Identifier + ": " + z.Problem.Detail
		if slices.Contains(said, what) { // a name and its wildcard are one identifier
			continue
		}
		said = append(said, what)
		p.Type = z.Problem.Type
		p.Subproblems = append(p.Subproblems, Subproblem{Identifier: z.Identifier, Type: z.Problem.Type, Detail: z.Problem.Detail})
	}
	if len(said) == 0 {
		if p = ca.Problem.Clone(); p == nil {
			p = &Problem{Reason: "AUTHORIZATION_EXPIRED", Detail: "the CA made the order invalid without finding an answer wrong"}
		}
		return o.Void(p, now)
	}
	p.Detail = "the CA could not validate control of the names: " + strings.Join(said, "; ")
	if o.nobodyAnswered() {
		p.Retrying = true
		return o.Void(p, now)
	}
	return o.Fail(p, now)
}

// nobodyAnswered reports whether the CA found nobody at home, for the first time in this order: a responder that is being restarted right
// when the CA asks looks like that. It is worth one more attempt; an order that is itself a repeat gets none, since CAs count failed
// authorizations.
func (o *Order) nobodyAnswered() bool {
	if o.Cause == "retry" {
		return false
	}
	for _, a := range o.Attempts {
		if a.State == AttemptDead && a.Problem != nil && a.Problem.Reason == "VALIDATION_FAILED" {
			return false
		}
	}
	for _, z := range o.Attempt().Authorizations {
		if z.State == AuthzInvalid && (z.Problem == nil || !strings.HasSuffix(z.Problem.Type, ":connection")) {
			return false
		}
	}
	return true
}

// finalizeFailed ends the attempt of an order that the CA would not finalize; what the CA calls its own fault is tried again.
func (o *Order) finalizeFailed(ca CAOrder, now time.Time) ([]Fact, error) {
	p := ca.Problem.Clone()
	if p == nil {
		p = &Problem{Reason: "CA_REFUSED", Detail: "the CA made the order invalid without saying why"}
	}
	for _, own := range []string{":serverInternal", ":orderNotReady", ":rateLimited"} {
		if strings.HasSuffix(p.Type, own) {
			return o.Void(p, now)
		}
	}
	return o.Fail(p, now)
}

// Package domain is the issuance saga: what an order is, what its next step is, and what each answer makes of it. It calls nothing and
// reads no clock.
package domain

import (
	"slices"
	"strconv"
	"time"

	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

// State of an order.
type State string

// The states; docs/services/orders.md has the picture.
const (
	Queued      State = "queued"
	Authorizing State = "authorizing"
	Finalizing  State = "finalizing"
	Issued      State = "issued"
	Failed      State = "failed"
	Rejected    State = "rejected"
	Cancelled   State = "cancelled"
)

// States lists them all.
func States() []State {
	return []State{Queued, Authorizing, Finalizing, Issued, Failed, Rejected, Cancelled}
}

// Final reports whether nothing can change the state any more.
func (s State) Final() bool {
	return s == Issued || s == Failed || s == Rejected || s == Cancelled
}

// transitions says which states may follow which.
var transitions = map[State][]State{
	Queued:      {Authorizing, Finalizing, Failed, Rejected, Cancelled},
	Authorizing: {Queued, Finalizing, Failed, Cancelled},
	Finalizing:  {Queued, Issued, Failed},
}

// CanMove reports whether a step from one state to another is legal.
func CanMove(from, to State) bool { return slices.Contains(transitions[from], to) }

// Spec is the snapshot of what is wanted.
type Spec struct {
	IssuerID     string    `bson:"issuer_id"`
	Names        []string  `bson:"names"`
	KeyAlgorithm string    `bson:"key_algorithm"`
	Profile      string    `bson:"profile"`
	Challenge    string    `bson:"challenge"` // auto, http-01, dns-01 or tls-alpn-01
	Manual       bool      `bson:"manual"`
	NotAfter     time.Time `bson:"not_after"` // zero: the CA's default
}

// Replaced is the version that a new one is to replace.
type Replaced struct {
	VersionID string    `bson:"version_id"`
	IssuerID  string    `bson:"issuer_id"`
	ARICertID string    `bson:"ari_cert_id"`
	NotBefore time.Time `bson:"not_before"`
	NotAfter  time.Time `bson:"not_after"`
	Names     []string  `bson:"names"`
}

// Problem is why something does not go on, as users see it.
type Problem struct {
	Reason      string       `bson:"reason"`
	Detail      string       `bson:"detail"`
	Type        string       `bson:"type"`
	Subproblems []Subproblem `bson:"subproblems"`
	Retrying    bool         `bson:"retrying"`
}

// Subproblem is a problem with one identifier (RFC 8555 section 6.7.1).
type Subproblem struct {
	Identifier string `bson:"identifier"`
	Type       string `bson:"type"`
	Detail     string `bson:"detail"`
}

// Message returns the problem as it travels.
func (p *Problem) Message() *typesv1.Problem {
	if p == nil {
		return nil
	}
	m := &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Type: p.Type, Retrying: p.Retrying}
	for _, s := range p.Subproblems {
		m.Subproblems = append(m.Subproblems, &typesv1.Subproblem{Identifier: s.Identifier, Type: s.Type, Detail: s.Detail})
	}
	return m
}

// ProblemFrom reads a problem as it travels; nil stays nil.
func ProblemFrom(m *typesv1.Problem) *Problem {
	if m == nil {
		return nil
	}
	p := &Problem{Reason: m.GetReason(), Detail: m.GetDetail(), Type: m.GetType(), Retrying: m.GetRetrying()}
	for _, s := range m.GetSubproblems() {
		p.Subproblems = append(p.Subproblems, Subproblem{Identifier: s.GetIdentifier(), Type: s.GetType(), Detail: s.GetDetail()})
	}
	return p
}

// AttemptState is the state of an attempt.
type AttemptState string

// The states of an attempt.
const (
	AttemptOpen AttemptState = "open"
	AttemptDead AttemptState = "dead"
	AttemptDone AttemptState = "done"
	// AttemptAbandoned is one that the CA took finalize for and then kept silent about until the order gave up.
	AttemptAbandoned AttemptState = "abandoned_after_finalize"
)

// Attempt is one order at one CA. It is stored before newOrder is sent; while URL is empty under another lease nobody knows whether the CA has it.
type Attempt struct {
	Number         int64           `bson:"number"`
	IssuerID       string          `bson:"issuer_id"`
	AccountID      string          `bson:"account_id"`
	State          AttemptState    `bson:"state"`
	Lease          string          `bson:"lease"` // lease under which newOrder or finalize may be sent without asking the CA first
	URL            string          `bson:"url"`
	FinalizeURL    string          `bson:"finalize_url"`
	CertificateURL string          `bson:"certificate_url"`
	Replaces       string          `bson:"replaces"`
	AccountKey     string          `bson:"account_key"` // thumbprint of the key that the answers of the challenges are made with; empty: not known
	AuthzURLs      []string        `bson:"authz_urls"`
	Authorizations []Authorization `bson:"authorizations"`
	Problem        *Problem        `bson:"problem"`
	CreatedAt      time.Time       `bson:"created_at"`
	ExpiresAt      time.Time       `bson:"expires_at"`
	Finalized      bool            `bson:"finalized"` // the CA has answered finalize, and has not been ready again since
	Finalizes      int             `bson:"finalizes"` // how often it has
	Reservation    Reservation     `bson:"reservation"`
}

// AuthzState is the state of an authorization.
type AuthzState string

// The states of an authorization.
const (
	AuthzPending    AuthzState = "pending"    // challenges was told, nothing came back yet
	AuthzPresented  AuthzState = "presented"  // the answer is in place, the CA was not told
	AuthzValidating AuthzState = "validating" // the CA was told
	AuthzValid      AuthzState = "valid"
	AuthzInvalid    AuthzState = "invalid"
	AuthzCancelled  AuthzState = "cancelled"
	AuthzExpired    AuthzState = "expired"
)

// Open reports whether the authorization still needs something.
func (s AuthzState) Open() bool {
	return s == AuthzPending || s == AuthzPresented || s == AuthzValidating
}

// Offer is a challenge that the CA offers.
type Offer struct {
	Type             string `bson:"type"`
	URL              string `bson:"url"`
	Token            string `bson:"token"`
	KeyAuthorization string `bson:"key_authorization"`
}

// Action is what a person has to place.
type Action struct {
	Type     string `bson:"type"`
	Location string `bson:"location"`
	Value    string `bson:"value"`
}

// Authorization is the proof of control of one identifier.
type Authorization struct {
	Number      int64      `bson:"number"`
	URL         string     `bson:"url"`
	Identifier  string     `bson:"identifier"`
	Wildcard    bool       `bson:"wildcard"`
	State       AuthzState `bson:"state"`
	Offered     []Offer    `bson:"offered"`
	Answered    string     `bson:"answered"` // challenge type that was presented
	ChallengeID string     `bson:"challenge_id"`
	Action      *Action    `bson:"action"`
	Problem     *Problem   `bson:"problem"`
	ExpiresAt   time.Time  `bson:"expires_at"`
}

// Order is one intent's way to a certificate.
type Order struct {
	ID             string    `bson:"order_id"` // the document's id
	CertificateID  string    `bson:"certificate_id"`
	IntentNumber   int64     `bson:"intent_number"`
	SpecGeneration int64     `bson:"spec_generation"`
	Owner          string    `bson:"owner"`
	Cause          string    `bson:"cause"`
	Spec           Spec      `bson:"spec"`
	IssuerID       string    `bson:"issuer_id"` // as in Spec, for lists
	Replaces       *Replaced `bson:"replaces"`
	State          State     `bson:"state"`
	Open           bool      `bson:"open"`
	Attempts       []Attempt `bson:"attempts"`
	KeyID          string    `bson:"key_id"`
	CSR            []byte    `bson:"csr"` // PKCS#10, DER
	SPKI           string    `bson:"spki"`
	Blocked        *Problem  `bson:"blocked"`
	Problem        *Problem  `bson:"problem"`
	Retries        int       `bson:"retries"`  // transient failures in a row
	Polls          int       `bson:"polls"`    // polls in a row without news
	RetryAt        time.Time `bson:"retry_at"` // nothing is sent before
	GiveUpAt       time.Time `bson:"give_up_at"`
	SilentAt       time.Time `bson:"silent_at"`   // while finalizing: from when on a CA without an answer is given up
	NoReplaces     bool      `bson:"no_replaces"` // the CA refused the replacement
	Voided         int       `bson:"voided"`      // attempts that the CA made void
	Chain          [][]byte  `bson:"chain"`
	VersionID      string    `bson:"version_id"`
	EndedAt        time.Time `bson:"ended_at"`
}

// Longest is how long an order may take (flows.md, One retrier).
const Longest = 30 * 24 * time.Hour

// New makes the order of an intent.
func New(id, certificateID string, intent, generation int64, spec Spec, replaces *Replaced, cause, owner string, now time.Time) Order {
	o := Order{
		ID: id, CertificateID: certificateID, IntentNumber: intent, SpecGeneration: generation, Spec: spec, IssuerID: spec.IssuerID,
		Replaces: replaces, Cause: cause, Owner: owner, State: Queued, Open: true, GiveUpAt: now.Add(Longest),
	}
	if replaces != nil && replaces.NotAfter.After(now) && replaces.NotAfter.Before(o.GiveUpAt) {
		o.GiveUpAt = replaces.NotAfter
	}
	return o
}

// Attempt returns the last attempt if it is open, else nil. The result points into o.
func (o *Order) Attempt() *Attempt {
	if n := len(o.Attempts); n > 0 && o.Attempts[n-1].State == AttemptOpen {
		return &o.Attempts[n-1]
	}
	return nil
}

// Authorization returns an authorization of any attempt, or nil. The result points into o.
func (o *Order) Authorization(attempt, number int64) *Authorization {
	for i := range o.Attempts {
		a := &o.Attempts[i]
		if a.Number == attempt && number >= 0 && number < int64(len(a.Authorizations)) {
			return &a.Authorizations[number]
		}
	}
	return nil
}

// Clone returns a copy whose attempts and authorizations can be changed without touching o.
func (o Order) Clone() Order {
	o.Attempts = slices.Clone(o.Attempts)
	for i := range o.Attempts {
		o.Attempts[i].Authorizations = slices.Clone(o.Attempts[i].Authorizations)
	}
	return o
}

func (o *Order) move(to State) error {
	if o.State == to {
		return nil
	}
	if !CanMove(o.State, to) {
		return errs.New(errs.Precondition, "ORDER_STATE", "an order that is %s cannot become %s", o.State, to)
	}
	o.State = to
	o.Open = !to.Final()
	return nil
}

// RequiredKey is the natural key of order.authorization_required.
func RequiredKey(attempt, authorization int64) string {
	return "required/" + strconv.FormatInt(attempt, 10) + "/" + strconv.FormatInt(authorization, 10)
}

// ClosedKey is the natural key of order.authorization_closed.
func ClosedKey(attempt, authorization int64) string {
	return "closed/" + strconv.FormatInt(attempt, 10) + "/" + strconv.FormatInt(authorization, 10)
}

// The natural keys of an order's other facts.
const (
	AcceptedKey = "accepted"
	OutcomeKey  = "outcome"
)

// Clone returns a copy of the problem; nil stays nil.
func (p *Problem) Clone() *Problem {
	if p == nil {
		return nil
	}
	c := *p
	c.Subproblems = slices.Clone(p.Subproblems)
	return &c
}

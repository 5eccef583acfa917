package domain

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/shared/errs"
)

// State of a challenge.
type State string

// The states. Validation is the CA's and the order's affair: from here it is Presented until the order tells the outcome.
const (
	Pending    State = "pending"    // a solver is to be chosen
	Presenting State = "presenting" // the answer is on its way to where the CA will look
	Presented  State = "presented"  // it was seen there
	Cleaning   State = "cleaning"   // closed; the answer is taken away
	Cleaned    State = "cleaned"    // closed; nothing is left
)

// Outcomes of a closed challenge.
const (
	Valid     = "valid"
	Invalid   = "invalid"
	Cancelled = "cancelled"
	Expired   = "expired"
)

// Natural keys of the facts that a challenge keeps.
const (
	KeyRecord    = "record"    // challenge.record_wanted, until dns answers
	KeyUnwanted  = "unwanted"  // challenge.record_unwanted, until dns answers
	KeyPresented = "presented" // challenge.presented, until the order closes the authorization
	KeyAction    = "action"    // challenge.action_required
	KeyFailed    = "failed"    // challenge.failed
)

const (
	// reminder is how often a person is asked again to place an answer.
	reminder = 24 * time.Hour
	// defaultLife ends a challenge whose authorization has no expiry: no order lives longer.
	defaultLife = 30 * 24 * time.Hour
	firstRetry  = time.Second
	lastRetry   = 5 * time.Minute
)

// Offer is one way to prove control that the CA offers. It is published to be validated, and so no secret.
type Offer struct {
	Type             string `bson:"type"`
	Token            string `bson:"token"`
	KeyAuthorization string `bson:"key_authorization"`
}

// Challenge is the proof of control of one identifier for one authorization of one attempt of an order.
type Challenge struct {
	OrderID        string    `bson:"order_id"`
	CertificateID  string    `bson:"certificate_id"`
	Attempt        int64     `bson:"attempt"`
	Authorization  int64     `bson:"authorization"`
	Identifier     string    `bson:"identifier"`
	Wildcard       bool      `bson:"wildcard"`
	WantedType     string    `bson:"wanted_type"`
	Manual         bool      `bson:"manual"`
	Offered        []Offer   `bson:"offered"`
	Owner          string    `bson:"owner"`
	Expires        time.Time `bson:"expires"`
	Type           string    `bson:"type"`
	Solver         Solver    `bson:"solver"`
	Explanation    string    `bson:"explanation"`
	State          State     `bson:"state"`
	Outcome        string    `bson:"outcome"`
	Token          string    `bson:"token"`    // of the type chosen; empty before
	Location       string    `bson:"location"` // a DNS name (of the record itself, where an alias leads), a URL, or host:port
	Value          string    `bson:"value"`    // the exact TXT value, file content, or key authorization
	RouteID        string    `bson:"route_id"` // that decided; empty: none did
	Check          Check     `bson:"check"`
	Written        bool      `bson:"written"` // dns has written the TXT value; Check is to be passed
	Found          []string  `bson:"found"`   // by the last look, a line for each server
	Problem        Problem   `bson:"problem"`
	ActionRequired bool      `bson:"action_required"`
	RemindAt       time.Time `bson:"remind_at"`
	ChecksWanted   int64     `bson:"checks_wanted"` // how often a person asked to verify
	ChecksDone     int64     `bson:"checks_done"`
	Tries          int       `bson:"tries"` // consecutive looks of our own that did not do
	RetryAt        time.Time `bson:"retry_at"`
}

// Fact is what a change makes true. Kept facts may be told again; awaited ones are, until they are answered.
type Fact struct {
	Natural string
	Msg     proto.Message
	Await   bool
}

// Effect is what an event comes to, besides the changed challenge.
type Effect struct {
	Changed  bool
	Facts    []Fact
	Answered []string // natural keys whose answer was heard
	Again    string   // natural key of the present answer, to be told again
}

// ID of the challenge of an authorization.
func ID(order string, attempt, authorization int64) string {
	_, rest, ok := strings.Cut(order, "_")
	if !ok {
		rest = order
	}
	return fmt.Sprintf("chl_%s-%d-%d", rest, attempt, authorization)
}

// New makes the pending challenge of an authorization. now bounds its life when the CA named no expiry.
func New(c Challenge, now time.Time) (Challenge, error) {
	if c.OrderID == "" || c.Identifier == "" {
		return c, errs.New(errs.Invalid, "EVENT_MALFORMED", "an authorization names no order or no identifier")
	}
	c.Identifier = strings.ToLower(c.Identifier)
	if c.Expires.IsZero() {
		c.Expires = now.Add(defaultLife)
	}
	c.State = Pending
	return c, nil
}

// NewClosed makes the mark of an authorization that was closed before it was heard of.
func NewClosed(order string, attempt, authorization int64, outcome string) Challenge {
	return Challenge{OrderID: order, Attempt: attempt, Authorization: authorization, State: Cleaned, Outcome: outcome}
}

// Closed reports whether the challenge is over.
func (c *Challenge) Closed() bool { return c.State == Cleaning || c.State == Cleaned }

// Answers reports whether the built-in responder for the type has to answer it now.
func (c *Challenge) Answers(typ string) bool {
	return c.Solver == ByResponder && c.Type == typ && (c.State == Presenting || c.State == Presented)
}

// Stalled reports whether it cannot be answered at all: only its end is waited for.
func (c *Challenge) Stalled() bool {
	return !c.Problem.IsZero() && !c.Problem.Retrying && !c.ActionRequired
}

// Input is what the choice of a solver looks at.
func (c *Challenge) Input(r Responders) Input {
	in := Input{Identifier: c.Identifier, Wildcard: c.Wildcard, WantedType: cmp.Or(c.WantedType, Auto), Manual: c.Manual, Responders: r}
	for _, o := range c.Offered {
		in.Offered = append(in.Offered, o.Type)
	}
	return in
}

// Place takes the choice of a solver: from now on the answer is on its way.
func (c *Challenge) Place(id string, f Finding, now time.Time) Effect {
	if c.State != Pending || c.Stalled() {
		return Effect{}
	}
	c.Type, c.Solver, c.Explanation, c.RouteID, c.Check = f.Type, f.Solver, f.Explanation, f.RouteID, f.Check
	if !f.Trouble.IsZero() {
		if f.Trouble.Retrying {
			c.later(now)
		}
		out := c.fail(id, f.Trouble)
		out.Changed = true
		return out
	}
	i := slices.IndexFunc(c.Offered, func(o Offer) bool { return o.Type == f.Type })
	offer := c.Offered[i] // Choose found it
	c.State, c.Problem, c.Tries, c.RetryAt = Presenting, Problem{}, 0, time.Time{}
	c.Token, c.Value = offer.Token, offer.KeyAuthorization
	c.Location = Location(f.Type, c.Identifier, offer.Token)
	if f.Type == DNS01 {
		c.Location, c.Value = cmp.Or(f.Record, c.Location), DNSValue(offer.KeyAuthorization)
	}
	out := Effect{Changed: true}
	switch f.Solver {
	case ByDNS:
		out.Facts = []Fact{{Natural: KeyRecord, Await: true, Msg: &challengeeventsv1.RecordWanted{
			ChallengeId: id, Fqdn: c.Location, Value: c.Value, DnsAccountId: f.Account,
		}}}
	case ByHand:
		c.ActionRequired = true
		out.Facts = []Fact{c.ask(id, now)}
	case ByResponder:
	}
	return out
}

// Location is where an answer belongs, as people write it.
func Location(typ, identifier, token string) string {
	switch typ {
	case DNS01:
		return "_acme-challenge." + identifier
	case TLSALPN01:
		return net.JoinHostPort(identifier, "443")
	}
	return "http://" + urlHost(identifier) + "/.well-known/acme-challenge/" + token
}

// Instructions say how a person makes and places an answer.
func Instructions(typ, identifier, location, value string) string {
	switch typ {
	case DNS01:
		return fmt.Sprintf("Put a TXT record with exactly this value at %s, beside those that are there, then verify:\n  %s. 60 IN TXT %q", location, location, value)
	case TLSALPN01:
		kind := "DNS"
		if net.ParseIP(identifier) != nil {
			kind = "IP"
		}
		return fmt.Sprintf("Make a certificate that carries the digest of the value, show it to whoever asks port 443 of %[1]s for the protocol acme-tls/1, then verify:\n"+
			"  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj /CN=acme -keyout acme.key -out acme.crt"+
			" -addext subjectAltName=%[2]s:%[1]s -addext 1.3.6.1.5.5.7.1.31=critical,DER:0420%[3]x\n"+
			"  openssl s_server -accept 443 -cert acme.crt -key acme.key -alpn acme-tls/1", identifier, kind, sha256.Sum256([]byte(value)))
	}
	return fmt.Sprintf("Serve a file with exactly this content at %s, then verify. In nginx, without a file:\n"+
		"  location = %s { default_type text/plain; return 200 %q; }", location, strings.TrimPrefix(location, "http://"+urlHost(identifier)), value)
}

// DNSValue is the TXT value of a key authorization (RFC 8555 section 8.4).
func DNSValue(keyAuthorization string) string {
	sum := sha256.Sum256([]byte(keyAuthorization))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// urlHost puts an IPv6 address into brackets.
func urlHost(identifier string) string {
	if ip := net.ParseIP(identifier); ip != nil && ip.To4() == nil {
		return "[" + identifier + "]"
	}
	return identifier
}

// Remind asks the person again.
func (c *Challenge) Remind(id string, now time.Time) Effect {
	if c.State != Presenting || c.Solver != ByHand || now.Before(c.RemindAt) {
		return Effect{}
	}
	return Effect{Changed: true, Facts: []Fact{c.ask(id, now)}}
}

func (c *Challenge) ask(id string, now time.Time) Fact {
	c.RemindAt = now.Add(reminder)
	return Fact{Natural: KeyAction, Msg: &challengeeventsv1.ActionRequired{
		ChallengeId: id, OrderId: c.OrderID, Attempt: c.Attempt, Authorization: c.Authorization, Type: c.Type,
		Location: c.Location, Value: c.Value, Owner: c.Owner,
	}}
}

// Verify notes that a person asks to look now, and answers which look will tell. Precondition CHALLENGE_OVER when it is too late. Where
// no person has to do anything there is nothing to look for, and 0 is answered.
func (c *Challenge) Verify(id string) (look int64, err error) {
	switch {
	case c.Closed():
		return 0, errs.New(errs.Precondition, ReasonOver, "challenge %s is over (%s); its value is void: look for a newer challenge of order %s", id, c.Outcome, c.OrderID)
	case c.State != Presenting || c.Solver != ByHand:
		return 0, nil
	}
	c.ChecksWanted++
	return c.ChecksWanted, nil
}

// Looked takes the verdict of a look at where the CA will look: what is wrong, or nothing, and what was found. look is the number that was asked
// for when it began.
func (c *Challenge) Looked(id string, look int64, wrong Problem, found []string, now time.Time) Effect {
	if c.State != Presenting || c.Solver == ByDNS && !c.Written {
		return Effect{}
	}
	c.ChecksDone, c.Found = max(c.ChecksDone, look), found
	if wrong.IsZero() {
		return c.present(id)
	}
	wrong.Retrying = c.Solver != ByHand
	if c.Solver == ByHand {
		c.Problem = wrong // shown to the person who asked; the order waits on
		return Effect{Changed: true}
	}
	c.later(now)
	out := c.fail(id, wrong)
	out.Changed = true
	return out
}

// later puts the next try off, each time for twice as long.
func (c *Challenge) later(now time.Time) {
	c.Tries++
	c.RetryAt = now.Add(min(firstRetry<<min(c.Tries-1, 16), lastRetry))
}

// Waited lets the time pass that the check wants instead of a look: the first call sets its end, the one after it presents.
func (c *Challenge) Waited(id string, now time.Time) Effect {
	switch {
	case c.State != Presenting || c.Solver != ByDNS || !c.Written || c.Check.How != CheckWait || now.Before(c.RetryAt):
		return Effect{}
	case c.RetryAt.IsZero():
		c.RetryAt = now.Add(c.Check.Wait)
		return Effect{Changed: true}
	}
	return c.present(id)
}

// RecordPresented hears that the TXT value is in the zone.
func (c *Challenge) RecordPresented(id, value string) Effect {
	switch {
	case c.Solver != ByDNS || value != c.Value:
	case c.State == Presenting && c.Check.How != "" && c.Written:
	case c.State == Presenting && c.Check.How != "":
		c.Written, c.Problem, c.Tries, c.RetryAt = true, Problem{}, 0, time.Time{}
		return Effect{Changed: true, Answered: []string{KeyRecord}}
	case c.State == Presenting:
		out := c.present(id)
		out.Answered = []string{KeyRecord}
		return out
	case c.State == Cleaned:
		return Effect{Again: KeyUnwanted} // a wish of ours was heard late: it is not wanted any more
	}
	return Effect{}
}

// RecordFailed hears that the TXT value cannot be written. As long as dns tries again, its answer is waited for.
func (c *Challenge) RecordFailed(id, value string, p Problem) Effect {
	if c.Solver != ByDNS || value != c.Value || c.State != Presenting {
		return Effect{}
	}
	out := c.fail(id, p)
	if !p.Retrying {
		out.Changed, out.Answered = true, []string{KeyRecord}
	}
	return out
}

// RecordRemoved hears that the TXT value is gone.
func (c *Challenge) RecordRemoved(value string) Effect {
	if c.State != Cleaning || value != c.Value {
		return Effect{}
	}
	c.State = Cleaned
	return Effect{Changed: true, Answered: []string{KeyUnwanted}}
}

// Required hears again that the authorization has to be proven, and gives the present answer.
func (c *Challenge) Required() Effect {
	switch {
	case c.Closed() && c.Outcome == Expired:
		return Effect{Again: KeyFailed}
	case c.Closed():
	case c.State == Presented:
		return Effect{Again: KeyPresented}
	case !c.Problem.IsZero() && !c.ActionRequired:
		return Effect{Again: KeyFailed}
	case c.ActionRequired:
		return Effect{Again: KeyAction}
	}
	return Effect{}
}

// Close hears that the CA has decided, or that nobody needs the answer any more.
func (c *Challenge) Close(id, outcome string) Effect {
	if c.Closed() {
		return Effect{}
	}
	written := c.Solver == ByDNS && c.State != Pending
	c.State, c.Outcome, c.ActionRequired = Cleaned, outcome, false
	out := Effect{Changed: true, Answered: []string{KeyRecord, KeyPresented}}
	if written {
		c.State = Cleaning
		out.Facts = []Fact{{Natural: KeyUnwanted, Await: true, Msg: &challengeeventsv1.RecordUnwanted{ChallengeId: id, Fqdn: c.Location, Value: c.Value}}}
	}
	return out
}

// Expire closes a challenge whose authorization the CA has forgotten, and tells the order.
func (c *Challenge) Expire(id string, now time.Time) Effect {
	if c.Closed() || now.Before(c.Expires) {
		return Effect{}
	}
	out := c.Close(id, Expired)
	told := c.fail(id, Problem{Reason: ReasonExpired, Detail: fmt.Sprintf(
		"the authorization of %s expired at %s before the CA had validated it; the value at %s is void", c.Identifier, c.Expires.UTC().Format(time.RFC3339), cmp.Or(c.Location, "its place"))})
	out.Facts = append(out.Facts, told.Facts...)
	return out
}

func (c *Challenge) present(id string) Effect {
	c.State, c.ActionRequired, c.Problem, c.Tries, c.RetryAt = Presented, false, Problem{}, 0, time.Time{}
	return Effect{Changed: true, Facts: []Fact{{Natural: KeyPresented, Await: true, Msg: &challengeeventsv1.Presented{
		ChallengeId: id, OrderId: c.OrderID, Attempt: c.Attempt, Authorization: c.Authorization, Type: c.Type,
	}}}}
}

// fail stores the problem and tells it, once for each distinct reason.
func (c *Challenge) fail(id string, p Problem) Effect {
	known := c.Problem.Reason == p.Reason && c.Problem.Retrying == p.Retrying
	out := Effect{Changed: c.Problem != p}
	c.Problem = p
	if !known {
		out.Facts = []Fact{{Natural: KeyFailed, Msg: &challengeeventsv1.Failed{
			ChallengeId: id, OrderId: c.OrderID, Attempt: c.Attempt, Authorization: c.Authorization, Problem: p.Proto(),
		}}}
	}
	return out
}

// Action is the next thing that the worker has to do for a challenge.
type Action string

// The actions.
const (
	Wait   Action = "wait"
	Expiry Action = "expiry"
	Solve  Action = "solve" // choose who answers
	Look   Action = "look"  // see whether the answer is where the CA will look
	Ask    Action = "ask"   // remind the person
)

// Next says what there is to do, and when. False: never.
func (c *Challenge) Next(now time.Time) (Action, time.Time, bool) {
	if c.Closed() {
		return Wait, time.Time{}, false
	}
	if !now.Before(c.Expires) {
		return Expiry, now, true
	}
	action, at := Expiry, c.Expires
	sooner := func(a Action, t time.Time) {
		if t.Before(now) {
			t = now
		}
		if t.Before(at) {
			action, at = a, t
		}
	}
	switch {
	case c.Stalled() || c.State == Presented || c.Solver == ByDNS && c.State == Presenting && !c.Written:
	case c.State == Pending:
		sooner(Solve, c.RetryAt)
	case c.Solver == ByHand && c.ChecksWanted > c.ChecksDone:
		sooner(Look, now)
	case c.Solver == ByHand:
		sooner(Ask, c.RemindAt)
	default:
		sooner(Look, c.RetryAt)
	}
	return action, at, true
}

package domain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// LimitKind is what a CA counts.
type LimitKind string

// The kinds of limits.
const (
	OrdersPerAccount     LimitKind = "orders_per_account"
	PerRegisteredDomain  LimitKind = "certificates_per_registered_domain"
	PerExactSet          LimitKind = "certificates_per_exact_set"
	FailedAuthorizations LimitKind = "failed_authorizations_per_identifier"
)

// LimitKinds lists them all.
func LimitKinds() []LimitKind {
	return []LimitKind{OrdersPerAccount, PerRegisteredDomain, PerExactSet, FailedAuthorizations}
}

// What a limit may be exempt from.
const (
	ExemptARI     = "ari"     // an order that carries "replaces" (RFC 9773 section 5)
	ExemptRenewal = "renewal" // an order for exactly the names of the version that it replaces
)

// Limit is one published limit of a CA: Capacity tokens, which come back evenly, all of them in Period.
type Limit struct {
	Kind     LimitKind     `bson:"kind"`
	Capacity int64         `bson:"capacity"`
	Period   time.Duration `bson:"period"`
	Exempt   []string      `bson:"exempt"`
}

// The bounds of a limit.
const (
	MaxCapacity = 1_000_000
	MinPeriod   = time.Second
	MaxPeriod   = 366 * 24 * time.Hour
)

// interval is in which time one token comes back, rounded up to what the store keeps.
func (l Limit) interval() time.Duration {
	ms := int64(time.Millisecond)
	n := l.Capacity * ms
	return time.Duration((int64(l.Period)+n-1)/n) * time.Millisecond
}

// presets are the published limits of CAs, by directory URL (docs/budgets.md).
var presets = map[string][]Limit{
	"https://acme-v02.api.letsencrypt.org/directory": {
		{Kind: OrdersPerAccount, Capacity: 300, Period: 3 * time.Hour, Exempt: []string{ExemptARI, ExemptRenewal}},
		{Kind: PerRegisteredDomain, Capacity: 50, Period: 7 * 24 * time.Hour, Exempt: []string{ExemptARI, ExemptRenewal}},
		{Kind: PerExactSet, Capacity: 5, Period: 7 * 24 * time.Hour, Exempt: []string{ExemptARI}},
		{Kind: FailedAuthorizations, Capacity: 5, Period: time.Hour, Exempt: []string{ExemptARI}},
	},
	"https://acme-staging-v02.api.letsencrypt.org/directory": {
		{Kind: OrdersPerAccount, Capacity: 1500, Period: 3 * time.Hour, Exempt: []string{ExemptARI, ExemptRenewal}},
	},
}

// EffectiveLimits returns the limits of the issuer: those given, else the preset of its directory, else none.
func (i Issuer) EffectiveLimits() []Limit {
	if len(i.Limits) > 0 {
		return i.Limits
	}
	return presets[i.DirectoryURL]
}

// LimitOf returns the issuer's limit of a kind.
func (i Issuer) LimitOf(kind LimitKind) (Limit, bool) {
	for _, l := range i.EffectiveLimits() {
		if l.Kind == kind {
			return l, true
		}
	}
	return Limit{}, false
}

// Claim is what an order wants of one bucket.
type Claim struct {
	Limit Limit
	Scope string
	Names []string // under which the bucket is found
	// Look: the bucket must have a token, but the order takes none; its failures do.
	Look bool
}

// Claims returns what the next attempt of the order needs, in no order.
func (o *Order) Claims(limits []Limit, now time.Time) (out []Claim) {
	exempt := map[string]bool{ExemptARI: o.Replacing(now) != "", ExemptRenewal: o.sameNames()}
	for _, l := range limits {
		if slices.ContainsFunc(l.Exempt, func(e string) bool { return exempt[e] }) {
			continue
		}
		switch l.Kind {
		case OrdersPerAccount:
			out = append(out, Claim{Limit: l})
		case PerRegisteredDomain:
			for _, d := range distinct(o.Spec.Names, RegisteredDomain) {
				out = append(out, Claim{Limit: l, Scope: d, Names: []string{d}})
			}
		case PerExactSet:
			set := distinct(o.Spec.Names, strings.ToLower)
			out = append(out, Claim{Limit: l, Scope: SetHash(set), Names: set})
		case FailedAuthorizations:
			for _, n := range distinct(o.Spec.Names, Identifier) {
				out = append(out, Claim{Limit: l, Scope: n, Names: []string{n}, Look: true})
			}
		}
	}
	return out
}

// sameNames reports whether the order renews exactly the names of the version that it replaces at the same issuer.
func (o *Order) sameNames() bool {
	r := o.Replaces
	return r != nil && r.IssuerID == o.Spec.IssuerID && len(r.Names) > 0 && slices.Equal(distinct(o.Spec.Names, strings.ToLower), distinct(r.Names, strings.ToLower))
}

// firstIssuance is how long a first version may wait before renewals that end later go before it.
const firstIssuance = 7 * 24 * time.Hour

// Urgency is by when the order should have its token; the earliest goes first. A renewal has the end of the version that it replaces, a first issuance
// a week from when it was asked for. It never changes, so everybody's turn comes.
func (o *Order) Urgency(asked time.Time) time.Time {
	if o.Replaces != nil && o.Replaces.NotAfter.After(asked) {
		return o.Replaces.NotAfter
	}
	return asked.Add(firstIssuance)
}

// Identifier returns the identifier that is validated for a name: that of a wildcard is the name below it.
func Identifier(name string) string { return strings.TrimPrefix(strings.ToLower(name), "*.") }

// RegisteredDomain returns the public suffix of the name and one label more. An IPv4 address is its own, an IPv6 address its /64.
func RegisteredDomain(name string) string {
	name = Identifier(name)
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Is4() {
			return ip.String()
		}
		return netip.PrefixFrom(ip, 64).Masked().String()
	}
	if d, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return d
	}
	return name // is a public suffix itself
}

// SetHash is the scope of an exact set of names: the hex SHA-256 of its sorted names, one a line.
func SetHash(sorted []string) string {
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\n")))
	return hex.EncodeToString(sum[:])
}

// distinct returns what f makes of the names, sorted, each once.
func distinct(names []string, f func(string) string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = f(n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// limitHit says which kind of limit a CA's 429 speaks of, by the words that Boulder uses; false: they are not known.
func limitHit(p Problem) (LimitKind, bool) {
	for _, words := range []struct {
		say  string
		kind LimitKind
	}{
		{"exact set of", PerExactSet}, {"failed authorizations", FailedAuthorizations}, {"already issued for", PerRegisteredDomain}, {"new orders", OrdersPerAccount},
	} {
		if strings.Contains(p.Detail, words.say) {
			return words.kind, true
		}
	}
	return OrdersPerAccount, false
}

// Concerned returns the buckets that a CA's 429 on newOrder speaks of, and until when they are empty. One that does not say what it counts holds the
// account up for an hour at most: it may mean one name alone.
func (o *Order) Concerned(limits []Limit, f *Failure, now time.Time) (claims []Claim, until time.Time) {
	kind, named := limitHit(f.Problem)
	wait := f.RetryAfter
	if !named {
		wait = min(wait, unnamedClose)
	}
	bare := slices.Clone(limits)
	for i := range bare {
		bare[i].Exempt = nil
	}
	for _, c := range o.Claims(bare, now) {
		if c.Limit.Kind == kind {
			claims = append(claims, c)
		}
	}
	quoted := func(c Claim) bool { return strings.Contains(f.Problem.Detail, `"`+c.Scope+`"`) }
	if slices.ContainsFunc(claims, quoted) {
		claims = slices.DeleteFunc(claims, func(c Claim) bool { return !quoted(c) })
	}
	return claims, now.Add(wait)
}

const (
	// HoldFor is how long a reservation is good for: newOrder is not sent later.
	HoldFor = 2 * time.Minute
	// SendMargin is how much of that must be left when newOrder is sent: more than a call to a CA may take.
	SendMargin = 30 * time.Second
	// keepPlace is how long after its turn an order that does not come keeps its place.
	keepPlace = time.Minute
	// yieldFor is how long a place is kept for an order that waits for another bucket.
	yieldFor = 10 * time.Minute
	// maxWaiting is how many orders, the most urgent, a bucket keeps in order. The others come again when these had their turn.
	maxWaiting = 100
	// turnPause is after which time an order looks again for which there would be a token if those before it came.
	turnPause = time.Second
	// unnamedClose is for how long at most the account waits for a 429 that does not say what it is about.
	unnamedClose = time.Hour
)

// Hold is a reservation: a token taken for a newOrder that may be on its way.
type Hold struct {
	Order   string    `bson:"order"`
	Attempt int64     `bson:"attempt"`
	Until   time.Time `bson:"until"` // when it counts as spent; newOrder is not sent later
}

// Waiter is an order that found no token.
type Waiter struct {
	Order   string    `bson:"order"`
	Urgency time.Time `bson:"urgency"`
	Till    time.Time `bson:"till"` // until when its place is kept
}

// Bucket is what is left of one limit for one scope. One that is full need not be stored. Its methods err only towards fewer tokens: a token counts as
// taken from the reservation on, and comes back counted from when newOrder was answered or could last have been sent.
type Bucket struct {
	IssuerID string    `bson:"issuer_id"`
	Kind     LimitKind `bson:"kind"`
	Scope    string    `bson:"scope"`
	Names    []string  `bson:"names"`
	// Interval is in which time a token came back when the bucket was written; what is missing counts in it.
	Interval    time.Duration `bson:"interval"`
	FullAt      time.Time     `bson:"full_at"`      // when all tokens that were spent are back
	ClosedUntil time.Time     `bson:"closed_until"` // by the CA's word
	Holds       []Hold        `bson:"holds"`
	Waiting     []Waiter      `bson:"waiting"` // the most urgent first
	// IdleAt is from when on the bucket says no more than one that is not stored.
	IdleAt time.Time `bson:"idle_at"`
}

// Clone returns a copy that can be changed without touching b.
func (b Bucket) Clone() Bucket {
	b.Holds, b.Waiting = slices.Clone(b.Holds), slices.Clone(b.Waiting)
	return b
}

// Left returns how many tokens are there.
func (b Bucket) Left(l Limit, now time.Time) int64 {
	b = b.Clone()
	b.tidy(l, now)
	if b.ClosedUntil.After(now) {
		return 0
	}
	return max(0, b.free(l, now))
}

// NextAt returns when the next token is there for an order that nobody goes before; zero: now.
func (b Bucket) NextAt(l Limit, now time.Time) time.Time {
	b = b.Clone()
	b.tidy(l, now)
	if b.free(l, now) > 0 && !b.ClosedUntil.After(now) {
		return time.Time{}
	}
	return b.tokenAt(l, 0, now)
}

// Reserve takes a token for an attempt, if there is one that no more urgent order waits for. Asked again, it prolongs the reservation. Else it answers
// when the order's turn comes, and how many are before it; its place is kept until a little after.
func (b *Bucket) Reserve(l Limit, order string, attempt int64, urgency, now time.Time) (ok bool, turn time.Time, before int) {
	b.tidy(l, now)
	defer b.mark(l, now)
	mine := func(h Hold) bool { return h.Order == order && h.Attempt == attempt }
	if i := slices.IndexFunc(b.Holds, mine); i >= 0 {
		b.Holds[i].Until = now.Add(HoldFor)
		return true, time.Time{}, 0
	}
	b.Waiting = slices.DeleteFunc(b.Waiting, func(w Waiter) bool { return w.Order == order })
	me := Waiter{Order: order, Urgency: urgency}
	before, _ = slices.BinarySearchFunc(b.Waiting, me, sooner)
	if !b.ClosedUntil.After(now) && b.free(l, now) > int64(before) {
		b.Holds = append(b.Holds, Hold{Order: order, Attempt: attempt, Until: now.Add(HoldFor)})
		return true, time.Time{}, 0
	}
	turn = b.tokenAt(l, before, now)
	me.Till = turn.Add(keepPlace)
	b.enlist(me)
	return false, turn, before
}

// enlist gives an order its place, which it does not have yet; the least urgent may lose theirs.
func (b *Bucket) enlist(w Waiter) {
	at, _ := slices.BinarySearchFunc(b.Waiting, w, sooner)
	b.Waiting = slices.Insert(b.Waiting, at, w)
	if len(b.Waiting) > maxWaiting {
		b.Waiting = b.Waiting[:maxWaiting]
	}
}

// Keeps reports whether the order has a place among those that wait.
func (b *Bucket) Keeps(order string) bool {
	return slices.ContainsFunc(b.Waiting, func(w Waiter) bool { return w.Order == order })
}

func sooner(a, b Waiter) int {
	if c := a.Urgency.Compare(b.Urgency); c != 0 {
		return c
	}
	return strings.Compare(a.Order, b.Order)
}

// Release gives the token of an attempt back that the CA certainly has not counted. It reports whether it was reserved.
func (b *Bucket) Release(l Limit, order string, attempt int64, now time.Time) bool {
	b.tidy(l, now)
	defer b.mark(l, now)
	return b.drop(order, attempt)
}

// Yield gives the token of an attempt back that has to wait for another bucket until the moment given. When that is soon its place here is kept: an order
// that needs two scarce tokens would else find the one gone whenever it has the other. When it is far off nobody waits for it.
func (b *Bucket) Yield(l Limit, order string, attempt int64, urgency, until, now time.Time) bool {
	b.tidy(l, now)
	defer b.mark(l, now)
	if !b.drop(order, attempt) {
		return false
	}
	if until.Sub(now) <= yieldFor {
		b.enlist(Waiter{Order: order, Urgency: urgency, Till: until.Add(keepPlace)})
	}
	return true
}

// Sent spends the token of an attempt: newOrder was answered before now. It reports whether it was reserved.
func (b *Bucket) Sent(l Limit, order string, attempt int64, now time.Time) bool {
	b.tidy(l, now)
	defer b.mark(l, now)
	if !b.drop(order, attempt) {
		return false // it ran out and is spent
	}
	b.spend(l, now)
	return true
}

// Spend takes a token, whether there is one or not: the CA has counted.
func (b *Bucket) Spend(l Limit, now time.Time) {
	b.tidy(l, now)
	b.spend(l, now)
	b.mark(l, now)
}

// Close empties the bucket until the moment that the CA named.
func (b *Bucket) Close(l Limit, until, now time.Time) {
	b.tidy(l, now)
	if until.After(b.ClosedUntil) {
		b.ClosedUntil = until
	}
	b.mark(l, now)
}

func (b *Bucket) drop(order string, attempt int64) bool {
	n := len(b.Holds)
	b.Holds = slices.DeleteFunc(b.Holds, func(h Hold) bool { return h.Order == order && h.Attempt == attempt })
	return len(b.Holds) < n
}

func (b *Bucket) spend(l Limit, at time.Time) {
	if b.FullAt.Before(at) {
		b.FullAt = at
	}
	b.FullAt = b.FullAt.Add(l.interval())
}

// tidy brings the bucket to a moment: reservations that ran out are spent, places that were not taken are lost, and what was spent under another limit
// is as many tokens of this one.
func (b *Bucket) tidy(l Limit, now time.Time) {
	b.Holds = slices.Clone(b.Holds)
	slices.SortFunc(b.Holds, func(x, y Hold) int { return x.Until.Compare(y.Until) })
	for len(b.Holds) > 0 && !b.Holds[0].Until.After(now) {
		b.spend(l, b.Holds[0].Until)
		b.Holds = b.Holds[1:]
	}
	if b.Interval != l.interval() {
		if b.Interval > 0 && b.FullAt.After(now) {
			b.FullAt = now.Add(time.Duration(tokens(b.FullAt.Sub(now), b.Interval)) * l.interval())
		}
		b.Interval = l.interval()
	}
	b.Waiting = slices.DeleteFunc(b.Waiting, func(w Waiter) bool { return !w.Till.After(now) })
}

// mark notes until when the bucket has something to say.
func (b *Bucket) mark(l Limit, now time.Time) {
	idle := now
	if b.FullAt.After(idle) {
		idle = b.FullAt
	}
	for _, h := range b.Holds { // each spends a token at the latest when it runs out
		if h.Until.After(idle) {
			idle = h.Until
		}
	}
	idle = idle.Add(time.Duration(len(b.Holds)) * l.interval())
	if b.ClosedUntil.After(idle) {
		idle = b.ClosedUntil
	}
	for _, w := range b.Waiting {
		if w.Till.After(idle) {
			idle = w.Till
		}
	}
	b.IdleAt = idle
}

// free is how many tokens are there, by time alone; below zero when more were spent than there are.
func (b *Bucket) free(l Limit, now time.Time) int64 {
	return l.Capacity - tokens(max(0, b.FullAt.Sub(now)), l.interval()) - int64(len(b.Holds))
}

// tokenAt is when there is a token for one before whom so many others go. Reservations count as spent now.
func (b *Bucket) tokenAt(l Limit, before int, now time.Time) time.Time {
	at := now
	if b.FullAt.After(at) {
		at = b.FullAt
	}
	at = at.Add(time.Duration(int64(len(b.Holds)+before+1)-l.Capacity) * l.interval())
	if b.ClosedUntil.After(at) {
		at = b.ClosedUntil
	}
	if least := now.Add(turnPause); at.Before(least) {
		at = least
	}
	return at
}

// tokens is how many tokens a time is worth, begun ones counted as whole.
func tokens(d, interval time.Duration) int64 { return int64((d + interval - 1) / interval) }

// Refusal is why the ledger does not admit an order now.
type Refusal struct {
	IssuerID string
	Claim    Claim
	Until    time.Time
	Before   int // more urgent orders that wait for the same bucket
	Closed   bool
}

// what names the scope of a claim as people know it.
func (c Claim) what() string {
	switch {
	case c.Limit.Kind == OrdersPerAccount:
		return "the account"
	case len(c.Names) > 3:
		return fmt.Sprintf("%s and %d more names", strings.Join(c.Names[:3], ", "), len(c.Names)-3)
	}
	return strings.Join(c.Names, ", ")
}

// Problem says what is spent, what is allowed, until when, and where to look.
func (r Refusal) Problem() *Problem {
	p := &Problem{Reason: "BUDGET_EXHAUSTED", Retrying: true}
	p.Detail = fmt.Sprintf("%s of %s: the CA allows %d in %s and no more may go before %s", r.Claim.Limit.Kind, r.Claim.what(), r.Claim.Limit.Capacity,
		r.Claim.Limit.Period, r.Until.UTC().Format(time.RFC3339))
	if r.Closed {
		p.Detail += " by the CA's own word (429)"
	}
	if r.Before > 0 {
		p.Detail += fmt.Sprintf(", with %d more urgent orders waiting", r.Before)
	}
	p.Detail += "; it is ordered then by itself. To see the buckets: certwright issuers budget " + r.IssuerID
	return p
}

// Reservation is what an attempt holds in the ledger until newOrder was answered.
type Reservation struct {
	Buckets []string  `bson:"buckets"`
	Until   time.Time `bson:"until"` // newOrder is not sent later; zero: it needs no reservation
}

// Refused notes that the ledger does not admit the next attempt before a moment.
func (o *Order) Refused(r Refusal, now time.Time) []Fact {
	o.RetryAt = r.Until
	if again := now.Add(bareAgain); o.Retries > 0 && o.RetryAt.After(again) { // tried without "replaces"; with it, it may be exempt
		o.RetryAt = again
	}
	o.Retries = 0
	return o.Block(r.Problem(), o.RetryAt)
}

// bareAgain is after which time an order that was to be tried without "replaces", and was not admitted so, is tried with it again.
const bareAgain = 10 * time.Minute

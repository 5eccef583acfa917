package domain

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	"github.com/certwright/certwright/shared/errs"
)

// ValueState says how far a value is on its way into the zone or out of it.
type ValueState string

// The states of a value. Only facts of challenges move it to Wanted or Leaving; only the worker moves it on.
const (
	Wanted  ValueState = "wanted"  // has to be written
	Written ValueState = "written" // written, to be seen
	Present ValueState = "present" // seen
	Leaving ValueState = "leaving" // has to be deleted; it is or may be in the zone
	Deleted ValueState = "deleted" // deleted, to be seen gone
)

// Action is the next thing that a set needs.
type Action string

// The actions.
const (
	Rest  Action = "rest"
	Bind  Action = "bind"  // choose the account
	Write Action = "write" // bring the union into the zone
	Await Action = "await" // ask whether the provider's servers all have the write
	Read  Action = "read"  // see what is in the zone
)

const (
	firstRetry = 5 * time.Second
	lastRetry  = 10 * time.Minute
	firstLook  = 500 * time.Millisecond
	lastLook   = time.Minute
	// looksBeforeProblem is how often a value may be missing after it was written before anybody is told.
	looksBeforeProblem = 3
	// asksBeforeProblem is how often the servers of a provider may not all have a write before anybody is told: after about a minute.
	asksBeforeProblem = 8
	// longestPause bounds what a provider that limits its callers may ask for.
	longestPause = time.Hour
	// rememberEnded is how long it is remembered that a challenge is through with a value: as long as the bus keeps facts.
	rememberEnded = 7 * 24 * time.Hour
	// leaveBehind is when the removal of a value is given up, so that the sagas that wait for it end. A stale value does no harm.
	leaveBehind = 7 * 24 * time.Hour
)

// Value is one TXT value of ours.
type Value struct {
	Text       string     `bson:"text"`
	State      ValueState `bson:"state"`
	Challenges []string   `bson:"challenges"` // that want it
	Awaiting   []string   `bson:"awaiting"`   // challenges that wait for its removal
	LeavingAt  time.Time  `bson:"leaving_at"`
	Told       string     `bson:"told"` // the reason last told as record_failed
}

// Ended remembers that a challenge is through with a value.
type Ended struct {
	Challenge string    `bson:"challenge"`
	Value     string    `bson:"value"`
	At        time.Time `bson:"at"`
}

// RecordSet is the set of TXT values of ours that one name should have. Values of others at the name are left alone.
// The account is bound before the first write and stays until nothing of ours can be in the zone, so that nothing is left at an account that
// does not serve the name any more.
type RecordSet struct {
	FQDN      string    `bson:"fqdn"`
	AccountID string    `bson:"account_id"`
	Zone      string    `bson:"zone"`
	Only      string    `bson:"only"` // the account that a challenge's route names, while none is bound; empty: any
	Values    []Value   `bson:"values"`
	Ended     []Ended   `bson:"ended"`
	Problem   Problem   `bson:"problem"`
	Troubled  bool      `bson:"troubled"`  // Problem is set; for the index
	Idle      bool      `bson:"idle"`      // no values; for the index
	Uncertain bool      `bson:"uncertain"` // a write ended without an answer since the account was bound
	Change    string    `bson:"change"`    // the provider's name of the last write, while its servers do not all have it
	Asks      int       `bson:"asks"`      // how often the provider was asked about Change
	Tries     int       `bson:"tries"`     // consecutive writes or looks that did not do
	RetryAt   time.Time `bson:"retry_at"`  // zero: at once
}

// Fact is an answer that the write of the set makes true, kept under its natural key.
type Fact struct {
	Natural string
	Msg     proto.Message
}

// Outcome is what a step of the set's life comes to, besides the changed set.
type Outcome struct {
	Facts  []Fact
	Forget []string // natural keys of facts that are void now
	// Changed is false when the fact was known already; Again is then the natural key of the answer to be told again, if there is one.
	Changed bool
	Again   string
	// LeftBehind are values whose removal was given up.
	LeftBehind []string
}

// RecordSetID is the id of the set of a name.
func RecordSetID(team, fqdn string) string {
	sum := sha256.Sum256([]byte(team + "\x00" + fqdn))
	return "rrs_" + base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
}

// NewRecordSet makes the empty set of a name. Invalid when it is no DNS name.
func NewRecordSet(fqdn string) (RecordSet, error) {
	name, why := Name(fqdn)
	if why != "" {
		return RecordSet{}, errs.New(errs.Invalid, "BAD_RECORD_NAME", "%q %s", fqdn, why)
	}
	return RecordSet{FQDN: name, Idle: true}, nil
}

// Want adds a challenge's wish for a value. A wish that has ended is not taken up again.
func (s *RecordSet) Want(challenge, value string, now time.Time) Outcome {
	if s.ended(challenge, value) {
		return Outcome{Again: removedKey(challenge, value)}
	}
	v := s.value(value)
	if v == nil {
		s.Values = append(s.Values, Value{Text: value, State: Wanted, Challenges: []string{challenge}})
		s.stir()
		return Outcome{Changed: true}
	}
	if slices.Contains(v.Awaiting, challenge) {
		return Outcome{} // a late repeat of a wish that has ended
	}
	if slices.Contains(v.Challenges, challenge) {
		switch {
		case v.State == Present:
			return Outcome{Again: presentedKey(challenge, value)}
		case v.Told != "":
			return Outcome{Again: failedKey(challenge, value)}
		}
		return Outcome{}
	}
	v.Challenges = append(slices.Clone(v.Challenges), challenge)
	v.Told = ""
	out := Outcome{Changed: true}
	switch v.State {
	case Present:
		s.present(&out, *v, challenge)
	case Leaving, Deleted:
		// It stays for another challenge. Who waited for its removal is through with it all the same.
		v.State, v.LeavingAt = Wanted, time.Time{}
		for _, c := range v.Awaiting {
			s.remove(&out, c, value, now)
		}
		v.Awaiting = nil
	case Wanted, Written:
	}
	s.stir()
	return out
}

// Unwant ends a challenge's wish for a value, also one that was never heard of: its wish may still be on the way.
func (s *RecordSet) Unwant(challenge, value string, now time.Time) Outcome {
	if s.ended(challenge, value) {
		return Outcome{Again: removedKey(challenge, value)}
	}
	v := s.value(value)
	out := Outcome{Changed: true}
	switch {
	case v != nil && slices.Contains(v.Awaiting, challenge):
		return Outcome{}
	case v == nil || !slices.Contains(v.Challenges, challenge):
		s.remove(&out, challenge, value, now)
	case len(v.Challenges) > 1:
		v.Challenges = without(v.Challenges, challenge)
		s.remove(&out, challenge, value, now)
	case s.AccountID == "": // nothing was ever sent
		s.Values = slices.DeleteFunc(slices.Clone(s.Values), func(v Value) bool { return v.Text == value })
		s.remove(&out, challenge, value, now)
		if len(s.Values) == 0 {
			s.settle()
		}
	default:
		v.State, v.LeavingAt, v.Told = Leaving, now, ""
		v.Awaiting, v.Challenges = []string{challenge}, nil
	}
	s.stir()
	return out
}

// Next says what the set needs, whenever its time has come.
func (s *RecordSet) Next() Action {
	switch {
	case s.any(Wanted, Leaving) && s.AccountID == "":
		return Bind
	case s.any(Wanted, Leaving):
		return Write
	case s.any(Written, Deleted) && s.Change != "":
		return Await
	case s.any(Written, Deleted):
		return Read
	}
	return Rest
}

// WorkAt is when the worker has something to do; false when it has nothing.
func (s *RecordSet) WorkAt(now time.Time) (time.Time, bool) {
	if s.Next() == Rest {
		return time.Time{}, false
	}
	if s.RetryAt.After(now) {
		return s.RetryAt, true
	}
	return now, true
}

// BindTo stores where the values go, before the first of them is sent.
func (s *RecordSet) BindTo(c Choice) {
	s.AccountID, s.Zone, s.Uncertain, s.Change = c.AccountID, c.Zone, false, ""
}

// Loose reports whether nothing of ours can be in the zone, so that another account may be chosen.
func (s *RecordSet) Loose() bool { return !s.Uncertain && !s.any(Written, Present, Leaving, Deleted) }

// Unbind forgets the account; only a loose set may.
func (s *RecordSet) Unbind() { s.AccountID, s.Zone, s.Uncertain, s.Change = "", "", false, "" }

// Union is what one write brings into the zone, and what it takes out.
func (s *RecordSet) Union() (want, drop []string) {
	for _, v := range s.Values {
		if v.State == Leaving || v.State == Deleted {
			drop = append(drop, v.Text)
		} else {
			want = append(want, v.Text)
		}
	}
	return want, drop
}

// Wrote notes that the zone took a write of this union. What was wanted or unwanted since then is left to the next write.
func (s *RecordSet) Wrote(want, drop []string) {
	s.own()
	for i := range s.Values {
		v := &s.Values[i]
		switch {
		case v.State == Wanted && slices.Contains(want, v.Text):
			v.State = Written
		case v.State == Leaving && slices.Contains(drop, v.Text):
			v.State = Deleted
		}
	}
	s.RetryAt, s.Change, s.Asks = time.Time{}, "", 0
}

// Await notes that the provider brings what was written to its servers later, and calls that change by a name.
func (s *RecordSet) Await(change string) { s.Change, s.Asks = change, 0 }

// Settled judges the answer to the question whether the provider's servers all have a change; server names who answered.
func (s *RecordSet) Settled(change string, done bool, server string, now time.Time) Outcome {
	s.own()
	out := Outcome{Changed: true}
	switch {
	case s.Change != change: // a later write took its place
	case done:
		s.Change, s.Asks, s.RetryAt = "", 0, time.Time{}
	default:
		s.Asks++
		s.RetryAt = now.Add(backoff(s.Asks, firstLook, lastLook))
		if s.Asks >= asksBeforeProblem {
			s.trouble(&out, Problem{Reason: ReasonChangePending, Retrying: true, Detail: fmt.Sprintf(
				"%s took the change of %s, but its servers do not all have it yet; it is asked again", server, s.FQDN)})
		}
	}
	return out
}

// Pause puts the next try off for as long as the provider asked for, up to an hour.
func (s *RecordSet) Pause(d time.Duration, now time.Time) {
	if at := now.Add(min(d, longestPause)); s.RetryAt.Before(at) {
		s.RetryAt = at
	}
}

// Saw judges what was found in the zone after a write.
func (s *RecordSet) Saw(found []string, server string, now time.Time) Outcome {
	s.own()
	out := Outcome{Changed: true}
	var stay []Value
	var missing, lingering []string
	for _, v := range s.Values {
		there := slices.Contains(found, v.Text)
		switch {
		case v.State == Written && there:
			v.State, v.Told = Present, ""
			for _, c := range v.Challenges {
				s.present(&out, v, c)
			}
		case v.State == Written:
			v.State = Wanted // written once more when the time comes
			missing = append(missing, v.Text)
		case v.State == Deleted && !there:
			for _, c := range v.Awaiting {
				s.remove(&out, c, v.Text, now)
			}
			continue
		case v.State == Deleted:
			v.State = Leaving
			lingering = append(lingering, v.Text)
		}
		stay = append(stay, v)
	}
	s.Values = stay
	if len(missing)+len(lingering) == 0 {
		s.settle()
		return out
	}
	s.Tries++
	s.RetryAt = now.Add(backoff(s.Tries, firstLook, lastLook))
	if s.Tries >= looksBeforeProblem {
		s.trouble(&out, Problem{Reason: ReasonNotVisible, Retrying: true, Detail: notVisible(s.FQDN, server, missing, lingering, found)})
	}
	return out
}

func notVisible(fqdn, server string, missing, lingering, found []string) string {
	says := "has no TXT value there"
	if len(found) > 0 {
		says = "has " + quoted(found)
	}
	if len(missing) == 0 {
		return fmt.Sprintf("the name server took the removal of %s from %s, but %s still %s; it is removed again", quoted(lingering), fqdn, server, says)
	}
	return fmt.Sprintf("the name server took the TXT value %s for %s, but %s %s; it is written again. Is that server the primary of the zone?",
		quoted(missing), fqdn, server, says)
}

func quoted(values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(all, ", ")
}

// Failed notes that the zone could not be written or read. unknown says that the write may have happened all the same.
func (s *RecordSet) Failed(p Problem, unknown bool, now time.Time) Outcome {
	s.own()
	out := Outcome{Changed: true}
	s.Uncertain = s.Uncertain || unknown
	s.Tries++
	s.RetryAt = now.Add(backoff(s.Tries, firstRetry, lastRetry))
	s.trouble(&out, p)

	var stay []Value
	for _, v := range s.Values {
		leaving := v.State == Leaving || v.State == Deleted
		if leaving && now.Sub(v.LeavingAt) >= leaveBehind {
			for _, c := range v.Awaiting {
				s.remove(&out, c, v.Text, now)
			}
			out.LeftBehind = append(out.LeftBehind, v.Text)
			continue
		}
		stay = append(stay, v)
	}
	s.Values = stay
	switch {
	case len(s.Values) == 0:
		s.settle()
	case s.AccountID != "" && s.Loose():
		s.Unbind() // another account may serve the name by now
	}
	return out
}

// Retry makes the set try at once: something was mended.
func (s *RecordSet) Retry() { s.RetryAt = time.Time{} }

// trouble stores the problem and tells it to every challenge that waits for a value, once for each reason.
func (s *RecordSet) trouble(out *Outcome, p Problem) {
	s.Problem, s.Troubled = p, true
	for i := range s.Values {
		v := &s.Values[i]
		if (v.State != Wanted && v.State != Written) || v.Told == p.Reason {
			continue
		}
		v.Told = p.Reason
		for _, c := range v.Challenges {
			out.Facts = append(out.Facts, Fact{Natural: failedKey(c, v.Text), Msg: &dnseventsv1.RecordFailed{
				ChallengeId: c, Fqdn: s.FQDN, Value: v.Text, Problem: p.Proto(),
			}})
		}
	}
}

func (s *RecordSet) present(out *Outcome, v Value, challenge string) {
	out.Facts = append(out.Facts, Fact{Natural: presentedKey(challenge, v.Text), Msg: &dnseventsv1.RecordPresented{
		ChallengeId: challenge, Fqdn: s.FQDN, Value: v.Text,
	}})
	out.Forget = append(out.Forget, failedKey(challenge, v.Text))
}

func (s *RecordSet) remove(out *Outcome, challenge, value string, now time.Time) {
	kept := make([]Ended, 0, len(s.Ended)+1)
	for _, e := range s.Ended {
		if now.Sub(e.At) < rememberEnded {
			kept = append(kept, e)
		} else {
			out.Forget = append(out.Forget, removedKey(e.Challenge, e.Value))
		}
	}
	s.Ended = append(kept, Ended{Challenge: challenge, Value: value, At: now})
	out.Facts = append(out.Facts, Fact{Natural: removedKey(challenge, value), Msg: &dnseventsv1.RecordRemoved{
		ChallengeId: challenge, Fqdn: s.FQDN, Value: value,
	}})
	out.Forget = append(out.Forget, presentedKey(challenge, value), failedKey(challenge, value))
}

// settle ends the trouble; an empty set lets its account go.
func (s *RecordSet) settle() {
	s.Tries, s.RetryAt = 0, time.Time{}
	s.Problem, s.Troubled = Problem{}, false
	s.Idle = len(s.Values) == 0
	if s.Idle {
		s.Unbind()
	}
}

// stir makes a changed set due at once.
func (s *RecordSet) stir() {
	s.RetryAt = time.Time{}
	s.Idle = len(s.Values) == 0
}

// own unshares the values before they are changed in place.
func (s *RecordSet) own() { s.Values = slices.Clone(s.Values) }

func (s *RecordSet) value(text string) *Value {
	s.own()
	for i := range s.Values {
		if s.Values[i].Text == text {
			return &s.Values[i]
		}
	}
	return nil
}

func (s *RecordSet) ended(challenge, value string) bool {
	return slices.ContainsFunc(s.Ended, func(e Ended) bool { return e.Challenge == challenge && e.Value == value })
}

func (s *RecordSet) any(states ...ValueState) bool {
	return slices.ContainsFunc(s.Values, func(v Value) bool { return slices.Contains(states, v.State) })
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

func backoff(n int, first, last time.Duration) time.Duration {
	return min(first<<min(n-1, 16), last)
}

func presentedKey(challenge, value string) string { return "presented/" + challenge + "/" + value }
func failedKey(challenge, value string) string    { return "failed/" + challenge + "/" + value }
func removedKey(challenge, value string) string   { return "removed/" + challenge + "/" + value }

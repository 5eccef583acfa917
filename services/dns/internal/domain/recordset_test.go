package domain_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certwright/certwright/services/dns/internal/domain"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// inState builds a set with the value "v" of challenge "a" in a state.
func inState(t *testing.T, state domain.ValueState) domain.RecordSet {
	t.Helper()
	s, err := domain.NewRecordSet("_acme-challenge.example.org")
	require.NoError(t, err)
	s.Want("a", "v", now)
	if state == domain.Wanted {
		return s
	}
	s.BindTo(domain.Choice{AccountID: "dac_1", Zone: "example.org"})
	s.Wrote([]string{"v"}, nil)
	if state == domain.Written {
		return s
	}
	s.Saw([]string{"v"}, "ns", now)
	if state == domain.Present {
		return s
	}
	s.Unwant("a", "v", now)
	if state == domain.Leaving {
		return s
	}
	s.Wrote(nil, []string{"v"})
	require.Equal(t, state, s.Values[0].State)
	return s
}

func keys(o domain.Outcome) []string {
	out := []string{}
	for _, f := range o.Facts {
		out = append(out, f.Natural)
	}
	return out
}

const gone = domain.ValueState("gone")

func TestEveryEventInEveryStateOfAValue(t *testing.T) {
	type want struct {
		state domain.ValueState
		facts []string
		again string
	}
	failed := domain.Problem{Reason: "DNS_TSIG_REFUSED", Detail: "no", Retrying: true}
	events := map[string]func(s *domain.RecordSet) domain.Outcome{
		"the same challenge wants it":        func(s *domain.RecordSet) domain.Outcome { return s.Want("a", "v", now) },
		"another challenge wants it":         func(s *domain.RecordSet) domain.Outcome { return s.Want("b", "v", now) },
		"its challenge wants it no more":     func(s *domain.RecordSet) domain.Outcome { return s.Unwant("a", "v", now) },
		"a stranger wants it no more":        func(s *domain.RecordSet) domain.Outcome { return s.Unwant("b", "v", now) },
		"a write of it succeeded":            func(s *domain.RecordSet) domain.Outcome { s.Wrote([]string{"v"}, nil); return domain.Outcome{} },
		"a removal of it succeeded":          func(s *domain.RecordSet) domain.Outcome { s.Wrote(nil, []string{"v"}); return domain.Outcome{} },
		"it is seen in the zone":             func(s *domain.RecordSet) domain.Outcome { return s.Saw([]string{"other", "v"}, "ns", now) },
		"it is not seen in the zone":         func(s *domain.RecordSet) domain.Outcome { return s.Saw([]string{"other"}, "ns", now) },
		"the server refuses":                 func(s *domain.RecordSet) domain.Outcome { return s.Failed(failed, false, now) },
		"the server refuses for eight days":  func(s *domain.RecordSet) domain.Outcome { return s.Failed(failed, false, now.Add(8*24*time.Hour)) },
		"the server does not answer a write": func(s *domain.RecordSet) domain.Outcome { return s.Failed(failed, true, now) },
	}
	presented, removed, told := []string{"presented/a/v"}, []string{"removed/a/v"}, []string{"failed/a/v"}
	stranger := []string{"removed/b/v"}
	table := map[domain.ValueState]map[string]want{
		domain.Wanted: {
			"the same challenge wants it": {state: domain.Wanted}, "another challenge wants it": {state: domain.Wanted},
			"its challenge wants it no more": {state: gone, facts: removed}, "a stranger wants it no more": {state: domain.Wanted, facts: stranger},
			"a write of it succeeded": {state: domain.Written}, "a removal of it succeeded": {state: domain.Wanted},
			"it is seen in the zone": {state: domain.Wanted}, "it is not seen in the zone": {state: domain.Wanted},
			"the server refuses": {state: domain.Wanted, facts: told}, "the server refuses for eight days": {state: domain.Wanted, facts: told},
			"the server does not answer a write": {state: domain.Wanted, facts: told},
		},
		domain.Written: {
			"the same challenge wants it": {state: domain.Written}, "another challenge wants it": {state: domain.Written},
			"its challenge wants it no more": {state: domain.Leaving}, "a stranger wants it no more": {state: domain.Written, facts: stranger},
			"a write of it succeeded": {state: domain.Written}, "a removal of it succeeded": {state: domain.Written},
			"it is seen in the zone": {state: domain.Present, facts: presented}, "it is not seen in the zone": {state: domain.Wanted},
			"the server refuses": {state: domain.Written, facts: told}, "the server refuses for eight days": {state: domain.Written, facts: told},
			"the server does not answer a write": {state: domain.Written, facts: told},
		},
		domain.Present: {
			"the same challenge wants it":    {state: domain.Present, again: "presented/a/v"},
			"another challenge wants it":     {state: domain.Present, facts: []string{"presented/b/v"}},
			"its challenge wants it no more": {state: domain.Leaving}, "a stranger wants it no more": {state: domain.Present, facts: stranger},
			"a write of it succeeded": {state: domain.Present}, "a removal of it succeeded": {state: domain.Present},
			"it is seen in the zone": {state: domain.Present}, "it is not seen in the zone": {state: domain.Present},
			"the server refuses": {state: domain.Present}, "the server refuses for eight days": {state: domain.Present},
			"the server does not answer a write": {state: domain.Present},
		},
		domain.Leaving: {
			"the same challenge wants it":    {state: domain.Leaving},
			"another challenge wants it":     {state: domain.Wanted, facts: removed},
			"its challenge wants it no more": {state: domain.Leaving}, "a stranger wants it no more": {state: domain.Leaving, facts: stranger},
			"a write of it succeeded": {state: domain.Leaving}, "a removal of it succeeded": {state: domain.Deleted},
			"it is seen in the zone": {state: domain.Leaving}, "it is not seen in the zone": {state: domain.Leaving},
			"the server refuses": {state: domain.Leaving}, "the server refuses for eight days": {state: gone, facts: removed},
			"the server does not answer a write": {state: domain.Leaving},
		},
		domain.Deleted: {
			"the same challenge wants it":    {state: domain.Deleted},
			"another challenge wants it":     {state: domain.Wanted, facts: removed},
			"its challenge wants it no more": {state: domain.Deleted}, "a stranger wants it no more": {state: domain.Deleted, facts: stranger},
			"a write of it succeeded": {state: domain.Deleted}, "a removal of it succeeded": {state: domain.Deleted},
			"it is seen in the zone": {state: domain.Leaving}, "it is not seen in the zone": {state: gone, facts: removed},
			"the server refuses": {state: domain.Deleted}, "the server refuses for eight days": {state: gone, facts: removed},
			"the server does not answer a write": {state: domain.Deleted},
		},
	}
	for state, rows := range table {
		require.Len(t, rows, len(events), "every event has a row for %s", state)
		for name, w := range rows {
			t.Run(string(state)+": "+name, func(t *testing.T) {
				s := inState(t, state)
				out := events[name](&s)
				got := want{state: gone, again: out.Again}
				if len(s.Values) > 0 {
					got.state = s.Values[0].State
				}
				if k := keys(out); len(k) > 0 {
					got.facts = k
				}
				require.Empty(t, cmp.Diff(w, got, cmp.AllowUnexported(want{})))
				require.Equal(t, len(s.Values) == 0, s.Idle)
				if s.Idle {
					require.Empty(t, s.AccountID, "an empty set lets its account go")
				}
			})
		}
	}
}

func TestAWishThatArrivesAfterItsEndIsNotTakenUp(t *testing.T) {
	s, err := domain.NewRecordSet("_acme-challenge.example.org")
	require.NoError(t, err)
	out := s.Unwant("a", "v", now)
	require.Equal(t, []string{"removed/a/v"}, keys(out))
	out = s.Want("a", "v", now)
	require.False(t, out.Changed)
	require.Equal(t, "removed/a/v", out.Again)
	require.Equal(t, domain.Rest, s.Next())
}

func TestWhatChangedDuringAWriteIsLeftToTheNext(t *testing.T) {
	s := inState(t, domain.Wanted)
	s.BindTo(domain.Choice{AccountID: "dac_1", Zone: "example.org"})
	want, drop := s.Union() // the worker sends this …
	s.Unwant("a", "v", now) // … while both of these are heard
	s.Want("b", "w", now)
	s.Wrote(want, drop)
	require.Equal(t, domain.Write, s.Next())
	want, drop = s.Union()
	require.Equal(t, []string{"w"}, want)
	require.Equal(t, []string{"v"}, drop)
}

func TestAFailureIsToldOnceForEachReason(t *testing.T) {
	s := inState(t, domain.Wanted)
	require.Equal(t, []string{"failed/a/v"}, keys(s.Failed(domain.Problem{Reason: "X"}, false, now)))
	require.Empty(t, keys(s.Failed(domain.Problem{Reason: "X"}, false, now)))
	require.Equal(t, []string{"failed/a/v"}, keys(s.Failed(domain.Problem{Reason: "Y"}, false, now)))
	require.Equal(t, "failed/a/v", s.Want("a", "v", now).Again, "asked again, it answers again")
}

func TestARefusedSetChoosesItsAccountAnewUnlessSomethingMayBeInTheZone(t *testing.T) {
	s := inState(t, domain.Wanted)
	s.BindTo(domain.Choice{AccountID: "dac_1", Zone: "example.org"})
	s.Failed(domain.Problem{Reason: "DNS_TSIG_REFUSED"}, false, now)
	require.Equal(t, domain.Bind, s.Next())

	s.BindTo(domain.Choice{AccountID: "dac_1", Zone: "example.org"})
	s.Failed(domain.Problem{Reason: "DNS_SERVER_NO_ANSWER"}, true, now)
	require.Equal(t, domain.Write, s.Next())
	require.Equal(t, "dac_1", s.AccountID)
}

func TestWaitsGrowToTenMinutesAndANewWishEndsThem(t *testing.T) {
	s := inState(t, domain.Wanted)
	for range 20 {
		s.Failed(domain.Problem{Reason: "X"}, false, now)
	}
	at, due := s.WorkAt(now)
	require.True(t, due)
	require.Equal(t, now.Add(10*time.Minute), at)
	s.Want("b", "w", now)
	at, _ = s.WorkAt(now)
	require.Equal(t, now, at)
}

// A zone that does exactly what it is told ends with exactly what is wanted, whatever the order of facts, writes and repeats.
func TestTheZoneEndsWithWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := domain.NewRecordSet("_acme-challenge.example.org")
		if err != nil {
			t.Fatal(err)
		}
		zone := map[string]bool{"foreign": true}
		wanted := map[[2]string]bool{}
		over := map[[2]string]bool{}
		found := func() (all []string) {
			for v := range zone {
				all = append(all, v)
			}
			return all
		}
		step := func() {
			switch s.Next() {
			case domain.Bind:
				s.BindTo(domain.Choice{AccountID: "dac_1", Zone: "example.org"})
			case domain.Write:
				want, drop := s.Union()
				for _, v := range want {
					zone[v] = true
				}
				for _, v := range drop {
					delete(zone, v)
				}
				if rapid.Bool().Draw(t, "answered") {
					s.Wrote(want, drop)
					s.Await(rapid.SampledFrom([]string{"", "change"}).Draw(t, "change"))
				} else {
					s.Failed(domain.Problem{Reason: "DNS_SERVER_NO_ANSWER"}, true, now)
				}
			case domain.Await:
				s.Settled("change", rapid.Bool().Draw(t, "settled"), "ns", now)
			case domain.Read:
				s.Saw(found(), "ns", now)
			case domain.Rest:
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			pair := [2]string{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "challenge"), rapid.SampledFrom([]string{"v", "w"}).Draw(t, "value")}
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				s.Want(pair[0], pair[1], now)
				if !over[pair] {
					wanted[pair] = true
				}
			case 1:
				s.Unwant(pair[0], pair[1], now)
				delete(wanted, pair)
				over[pair] = true
			default:
				step()
			}
		}
		for range 200 {
			step()
		}
		if s.Next() != domain.Rest {
			t.Fatalf("the set does not come to rest: %+v", s)
		}
		want := map[string]bool{"foreign": true}
		for p := range wanted {
			want[p[1]] = true
		}
		if d := cmp.Diff(want, zone); d != "" {
			t.Fatalf("zone: %s", d)
		}
	})
}

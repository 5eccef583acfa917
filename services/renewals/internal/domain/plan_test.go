package domain

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	"github.com/certwright/certwright/shared/clock"
)

var start = time.Date(2026, 3, 1, 12, 34, 56, 0, time.UTC)

// at is a moment at which every draw falls into the middle.
func at(now time.Time) Moment {
	return Moment{ID: "crt_1", Now: now, Policy: Defaults(), Draw: func() float64 { return 0.5 }}
}

func ver(n int64, from time.Time, life time.Duration) Version {
	return Version{
		ID: fmt.Sprintf("ver_%d", n), Number: n, Names: []string{"a.example"}, NotBefore: from, NotAfter: from.Add(life), IssuerID: "iss_1", ARICertID: "aki.serial",
	}
}

func intent(n int64, cause string) Intent {
	return Intent{Number: n, OrderID: fmt.Sprintf("ord_%d", n), Cause: cause}
}

// fresh is a settled plan whose only version was issued at start.
func fresh(life time.Duration) Plan {
	m := at(start)
	p := New(m)
	p.Opened(intent(1, "created"), m)
	p.Take(ver(1, start, life), false, m)
	p.Closed(1, "issued", nil, false, "", m)
	p.Settle()
	return p
}

func TestNeverIsTheClocksNever(t *testing.T) { require.Equal(t, clock.Never, Never) }

func TestDecisions(t *testing.T) {
	const life = 90 * day
	safe := start.Add(life - 9*day)
	window := func(from, to time.Duration) func(p *Plan, m Moment) {
		return func(p *Plan, m Moment) {
			p.ReadARI("ver_1", Info{Supported: true, Start: start.Add(from), End: start.Add(to)}, m)
		}
	}
	tests := []struct {
		name    string
		life    time.Duration
		now     time.Duration // since the issuance
		prepare func(p *Plan, m Moment)
		state   State
		basis   Basis
		reason  string
		due     time.Time
	}{
		{"a certificate without ARI is renewed when a third of its life is left, give or take the jitter", life, 0, nil, Waiting, BasisLife, FindingLifeLeft, start.Add(60*day + 12*time.Hour)},
		{"a short-lived one is renewed when half is left", 6 * day, 0, nil, Waiting, BasisLife, FindingLifeLeft, start.Add(3*day + part(6*day/50, 0.5))},
		{
			"a CA that says it has no ARI leaves the life to decide", life, 0, func(p *Plan, m Moment) { p.ReadARI("ver_1", Info{}, m) },
			Waiting, BasisLife, FindingLifeLeft, start.Add(60*day + 12*time.Hour),
		},
		{"an ARI window decides with a moment inside it", life, 0, window(50*day, 52*day), Waiting, BasisARI, FindingARI, start.Add(51 * day)},
		{"a window in the past means now", life, 10 * day, window(1*day, 2*day), Waiting, BasisARI, FindingARI, start.Add(10 * day)},
		{"a window that reaches beyond the safe limit is cut there", life, 0, window(79*day, 89*day), Waiting, BasisARI, FindingARI, start.Add(80 * day)},
		{"a window behind the safe limit gives way to the limit", life, 0, window(85*day, 89*day), Waiting, BasisARI, FindingARIPastSafe, safe},
		{
			"an ARI that cannot be read leaves the life to decide", life, 0, func(p *Plan, m Moment) { p.ReadARI("ver_1", Info{Problem: &Problem{Reason: "CA_UNREACHABLE"}}, m) },
			Waiting, BasisLife, FindingLifeLeft, start.Add(60*day + 12*time.Hour),
		},
		{
			"a window stays good while ARI cannot be read any more", life, 0, func(p *Plan, m Moment) {
				window(50*day, 52*day)(p, m)
				p.ReadARI("ver_1", Info{Problem: &Problem{Reason: "CA_UNREACHABLE"}}, m)
			}, Waiting, BasisARI, FindingARI, start.Add(51 * day),
		},
		{"a revoked version is replaced at once", life, day, func(p *Plan, m Moment) { p.Revoked("ver_1", m) }, Waiting, BasisRevoked, FindingRevoked, start.Add(day)},
		{"the revocation of another version changes nothing", life, day, func(p *Plan, m Moment) { p.Revoked("ver_0", m) }, Waiting, BasisLife, FindingLifeLeft, start.Add(60*day + 12*time.Hour)},
		{"an open order decides everything", life, day, func(p *Plan, m Moment) {
			p.Revoked("ver_1", m)
			p.Opened(intent(2, "revocation"), m)
		}, Ordered, BasisOrdered, FindingOrderOpen, start.Add(day)},
		{"a failed order is tried again after a minute", life, 60 * day, func(p *Plan, m Moment) {
			p.Opened(intent(2, causeSchedule), m)
			p.Closed(2, "failed", &Problem{Reason: "CAA_FORBIDS"}, false, "", m)
		}, Waiting, BasisBackoff, FindingFailed, start.Add(60*day + time.Minute)},
		{"even a revoked version waits after a failure", life, day, func(p *Plan, m Moment) {
			p.Revoked("ver_1", m)
			p.Opened(intent(2, causeRevocation), m)
			p.Closed(2, "failed", nil, false, "", m)
		}, Waiting, BasisBackoff, FindingFailed, start.Add(day + time.Minute)},
		{"the fourth failure waits a day", life, 60 * day, failTimes(4), Waiting, BasisBackoff, FindingFailed, start.Add(61 * day)},
		{"a wait does not reach over the safe limit", life, 80*day + 12*time.Hour, failTimes(4), Waiting, BasisBackoff, FindingFailed, safe},
		{"past the safe limit no wait is longer than 100 minutes", life, 85 * day, failTimes(9), Waiting, BasisBackoff, FindingFailed, start.Add(85*day + 100*time.Minute)},
		{"what a person rejected is held until the safe limit", life, 60 * day, closeWith("rejected", ""), Held, BasisHeld, FindingHeld, safe},
		{"what a user cancelled is held until the safe limit", life, 60 * day, closeWith("cancelled", "user"), Held, BasisHeld, FindingHeld, safe},
		{"past the safe limit a rejection holds for a day", life, 85 * day, closeWith("rejected", ""), Held, BasisHeld, FindingHeld, start.Add(86 * day)},
		{"what the system cancelled is tried again", life, 60 * day, closeWith("cancelled", "system"), Waiting, BasisBackoff, FindingFailed, start.Add(60*day + time.Minute)},
		{"an approval that expired is held", life, 60 * day, func(p *Plan, m Moment) {
			p.Opened(intent(2, causeSchedule), m)
			p.Closed(2, "failed", &Problem{Reason: "APPROVAL_EXPIRED"}, false, "", m)
		}, Held, BasisHeld, FindingHeld, safe},
		{"a plan stays ordered when the next intent follows", life, 60 * day, func(p *Plan, m Moment) {
			p.Opened(intent(2, causeSchedule), m)
			p.Closed(2, "cancelled", nil, true, "system", m)
		}, Ordered, BasisOrdered, FindingOrderOpen, start.Add(60 * day)},
		{"nothing to do holds, with what the inventory says", life, 60*day + 13*time.Hour, func(p *Plan, m Moment) {
			p.Asked(p.Asking(), Answer{NothingToDo: true, Number: 1, Explanation: "revoked without replacement"}, m)
		}, Held, BasisHeld, FindingHeld, safe},
		{"nothing to do because of news that are on their way waits for them", life, 60*day + 13*time.Hour, func(p *Plan, m Moment) {
			p.Asked(p.Asking(), Answer{NothingToDo: true, Number: 2, Explanation: "version ver_2 is current"}, m)
		}, Waiting, BasisLife, FindingLifeLeft, start.Add(60*day + 12*time.Hour)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, m := fresh(tt.life), at(start.Add(tt.now))
			if tt.prepare != nil {
				tt.prepare(&p, m)
			}
			p.Settle()
			require.Equal(t, tt.state, p.State, p.Explanation)
			require.Equal(t, tt.basis, p.Basis)
			require.Equal(t, tt.due.String(), p.DueAt.String(), p.Explanation)
			decisive := 0
			for _, f := range p.Findings() {
				require.NotEmpty(t, f.Sentence)
				if f.Decisive {
					decisive++
					require.Equal(t, tt.reason, f.Reason)
					require.Equal(t, p.Explanation, f.Sentence)
				}
			}
			require.Equal(t, 1, decisive)
		})
	}
}

func failTimes(n int64) func(p *Plan, m Moment) {
	return func(p *Plan, m Moment) {
		for i := range n {
			p.Opened(intent(2+i, causeSchedule), m)
			p.Closed(2+i, "failed", nil, false, "", m)
		}
	}
}

func closeWith(outcome, by string) func(p *Plan, m Moment) {
	return func(p *Plan, m Moment) {
		p.Opened(intent(2, causeSchedule), m)
		p.Closed(2, outcome, nil, false, by, m)
	}
}

func TestDecisionsWithoutAVersion(t *testing.T) {
	m := at(start)
	p := New(m)
	p.Settle()
	require.Equal(t, BasisBackoff, p.Basis)
	require.Equal(t, start, p.DueAt, "a certificate without anything asks at once")
	require.Equal(t, Ask{First: true, Cause: causeRetry}, p.Asking())

	p.Opened(intent(1, "created"), m)
	p.Closed(1, "rejected", &Problem{Reason: "ORDER_REJECTED", Detail: "not now"}, false, "", m)
	p.Settle()
	require.Equal(t, Held, p.State)
	require.Equal(t, start.Add(7*day), p.DueAt)
	require.Contains(t, p.Explanation, "ORDER_REJECTED: not now")
	later := at(start.Add(7 * day))
	require.Equal(t, Review, p.Next(later), "a rejected first version is not ordered against that will")
	p.Remind(later)
	p.Settle()
	require.Equal(t, start.Add(14*day), p.DueAt)
}

func TestSafeLimit(t *testing.T) {
	for life, left := range map[time.Duration]time.Duration{
		365 * day: 36*day + 12*time.Hour, 90 * day: 9 * day, 10 * day: day, 6 * day: day, 4 * day: day, 2 * day: 12 * time.Hour, time.Hour: 15 * time.Minute,
	} {
		require.Equal(t, start.Add(life-left), ver(1, start, life).SafeLimit(), life)
	}
	require.Equal(t, Never, Version{}.SafeLimit())
}

func TestTheMomentInAWindowIsDrawnOnce(t *testing.T) {
	p := fresh(90 * day)
	draws := 0
	m := at(start)
	m.Draw = func() float64 { draws++; return float64(draws) / 10 }
	info := Info{Supported: true, Start: start.Add(50 * day), End: start.Add(60 * day), RetryAt: start.Add(6 * time.Hour)}
	require.Empty(t, p.ReadARI("ver_1", info, m), "a first window has not moved")
	first := p.ARI.MomentAt
	require.Equal(t, start.Add(51*day), first)
	for range 5 {
		require.Empty(t, p.ReadARI("ver_1", info, m))
	}
	require.Empty(t, p.ReadARI("ver_1", Info{Problem: &Problem{Reason: "CA_UNREACHABLE"}}, m))
	require.Empty(t, p.ReadARI("ver_1", info, m))
	require.Equal(t, first, p.ARI.MomentAt)
	require.Equal(t, 1, draws)

	info.Start, info.End, info.ExplanationURL = start.Add(-2*day), start.Add(-day), "https://ca.example/why"
	facts := p.ReadARI("ver_1", info, m)
	require.Len(t, facts, 1)
	moved, ok := facts[0].(*renewaleventsv1.WindowMoved)
	require.True(t, ok)
	require.Equal(t, "https://ca.example/why", moved.GetExplanationUrl())
	require.Equal(t, start, moved.GetDueAt().AsTime(), "a window in the past is now")
	p.Settle()
	require.Equal(t, AskDoor, p.Next(m))

	before := p.ARI
	require.Empty(t, p.ReadARI("ver_0", Info{Supported: true, Start: start, End: start.Add(day)}, m))
	require.Equal(t, before, p.ARI, "an answer about a replaced version is nothing")
}

func TestARIIsReadAsOftenAsIsRight(t *testing.T) {
	for name, tt := range map[string]struct{ retry, want time.Duration }{
		"when the CA says so":                    {6 * time.Hour, 6 * time.Hour},
		"at least twice a day":                   {40 * day, 12 * time.Hour},
		"not more than once a minute":            {time.Second, time.Minute},
		"not at once when the moment has passed": {-time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			p := fresh(90 * day)
			p.ReadARI("ver_1", Info{RetryAt: start.Add(tt.retry)}, at(start))
			require.Equal(t, start.Add(tt.want), p.ARIAt())
		})
	}
	p := fresh(90 * day)
	p.ReadARI("ver_1", Info{}, at(start))
	require.Equal(t, start.Add(12*time.Hour), p.ARIAt(), "when nothing is said")
	p.ReadARI("ver_1", Info{Supported: true, Start: start, End: start}, at(start))
	require.Equal(t, "ARI_INVALID", p.ARI.Problem.Reason)
	p.Opened(intent(2, causeARI), at(start))
	p.Settle()
	require.Equal(t, Never, p.ARIAt(), "not while an order is open")
}

func TestAWindowStuckInThePastDoesNotOrderForEver(t *testing.T) {
	p, now := fresh(90*day), start
	var orders int
	for now.Before(start.Add(30 * day)) {
		m := at(now)
		p.Settle()
		switch p.Next(m) {
		case Reread:
			p.ReadARI(p.Version.ID, Info{Supported: true, Start: start.Add(-2 * day), End: start.Add(-day)}, m)
		case AskDoor:
			orders++
			n := p.Intent.Number + 1
			p.Opened(intent(n, p.Asking().Cause), m)
			p.Take(ver(n, now, 90*day), false, m)
			p.Closed(n, "issued", nil, false, "", m)
		case Alarm:
			p.Alarms(m)
		case Rest, Review:
			now = p.WorkAt(m.Policy)
		}
	}
	require.LessOrEqual(t, orders, 35)
	require.Greater(t, orders, 3)
}

func TestWhatIsPastItsSafeLimitWhenItComesWaitsLongerEachTime(t *testing.T) {
	p := fresh(90 * day)
	now := start
	for _, wait := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, day, day} {
		m := at(now)
		n := p.Version.Number + 1
		p.Take(ver(n, now.Add(-90*day), 90*day), false, m)
		p.Settle()
		require.Equal(t, now.Add(wait), p.DueAt)
		now = p.DueAt
	}
}

func TestEveryStateTakesEveryEvent(t *testing.T) {
	mid := start.Add(61 * day)
	m := at(mid)
	states := map[string]func() Plan{
		"waiting for its life": func() Plan { return fresh(90 * day) },
		"waiting after a failure": func() Plan {
			p := fresh(90 * day)
			closeWith("failed", "")(&p, m)
			return p
		},
		"ordered": func() Plan {
			p := fresh(90 * day)
			p.Opened(intent(2, causeSchedule), m)
			return p
		},
		"held": func() Plan {
			p := fresh(90 * day)
			closeWith("rejected", "")(&p, m)
			return p
		},
	}
	events := []struct {
		name string
		do   func(p *Plan)
		want map[string]State // where it is not the state before
	}{
		{"a stale intent is heard of again", func(p *Plan) { p.Opened(intent(1, "created"), m) }, nil},
		{"a stale outcome is heard of again", func(p *Plan) { p.Closed(1, "failed", nil, false, "", m) }, nil},
		{"a stale version is heard of again", func(p *Plan) { p.Take(ver(1, start, 90*day), false, m) }, nil},
		{"the next intent is opened", func(p *Plan) { p.Opened(intent(3, "manual"), m) }, map[string]State{
			"waiting for its life": Ordered, "waiting after a failure": Ordered, "held": Ordered,
		}},
		{"the next intent failed", func(p *Plan) { p.Closed(3, "failed", nil, false, "", m) }, map[string]State{"ordered": Waiting, "held": Waiting}},
		{"intent 2 is rejected", func(p *Plan) { p.Closed(2, "rejected", nil, false, "", m) }, map[string]State{"waiting for its life": Held, "ordered": Held}},
		{"intent 2 is replaced by the next", func(p *Plan) { p.Closed(2, "cancelled", nil, true, "system", m) }, map[string]State{"waiting for its life": Ordered}},
		{"intent 2 brought version 2", func(p *Plan) {
			p.Take(ver(2, mid, 90*day), false, m)
			p.Closed(2, "issued", nil, false, "", m)
		}, map[string]State{"waiting after a failure": Waiting, "ordered": Waiting, "held": Waiting}},
		{"the version is revoked", func(p *Plan) { p.Revoked("ver_1", m) }, nil},
		{"ARI is read", func(p *Plan) { p.ReadARI("ver_1", Info{Supported: true, Start: mid, End: mid.Add(day)}, m) }, nil},
		{"the inventory names an open order", func(p *Plan) { p.Asked(p.Asking(), Answer{OrderID: "ord_9", Number: 9}, m) }, map[string]State{
			"waiting for its life": Ordered, "waiting after a failure": Ordered, "held": Ordered,
		}},
	}
	for name, make := range states {
		for _, e := range events {
			t.Run(name+": "+e.name, func(t *testing.T) {
				p := make()
				p.Settle()
				want := p.State
				if w, ok := e.want[name]; ok {
					want = w
				}
				e.do(&p)
				p.Settle()
				require.Equal(t, want, p.State, p.Explanation)
				again := p
				e.do(&p)
				p.Settle()
				if !p.Intent.Open { // asked again about an open order, the next question moves
					require.Equal(t, again, p, "the same once more changes nothing")
				}
				require.True(t, p.WorkAt(m.Policy).Before(Never))
				p.Drop(m)
				require.Equal(t, Rest, p.Next(m), "a dropped plan does nothing")
				require.Equal(t, Never, p.WorkAt(m.Policy))
			})
		}
	}
}

func TestAnAnswerClaimsOnlyEndsThatAreKnown(t *testing.T) {
	p := fresh(90 * day)
	require.EqualValues(t, 1, p.Ended())
	p.Opened(intent(2, "manual"), at(start))
	require.EqualValues(t, 1, p.Ended(), "that intent 2 is open says nothing of its end")
	p.Closed(2, "cancelled", nil, true, "system", at(start))
	require.EqualValues(t, 2, p.Ended())
	p.Settle()
	planned, ok := p.Message("crt_1").(*renewaleventsv1.Planned)
	require.True(t, ok)
	require.EqualValues(t, 2, planned.GetIntentNumber())
	require.Equal(t, "ordered", planned.GetBasis())
}

func TestAskingAgainNamesWhatTheOpenOrderReplaces(t *testing.T) {
	p := fresh(90 * day)
	i := intent(2, causeSchedule)
	i.Replaces = "ver_1"
	p.Opened(i, at(start))
	p.Take(ver(2, start, 90*day), false, at(start)) // its end is not heard of yet
	require.Equal(t, Ask{Replaces: "ver_1", Cause: causeRetry}, p.Asking(), "naming version 2 would open another order")
}

func TestARecoveredInventoryCountsAnew(t *testing.T) {
	p := fresh(90 * day)
	fresh, past := p.Hear(Source{Epoch: "01A", Revision: 90})
	require.Equal(t, []bool{true, false}, []bool{fresh, past})
	fresh, past = p.Hear(Source{Epoch: "01A", Revision: 80})
	require.Equal(t, []bool{false, false}, []bool{fresh, past})
	fresh, past = p.Hear(Source{Epoch: "01B", Revision: 3})
	require.Equal(t, []bool{true, false}, []bool{fresh, past})
	p.Opened(intent(1, "manual"), at(start))
	require.True(t, p.Intent.Open, "number 1 is given a second time")
	fresh, past = p.Hear(Source{Epoch: "01A", Revision: 99})
	require.Equal(t, []bool{false, true}, []bool{fresh, past})
}

func TestAlarms(t *testing.T) {
	tests := []struct {
		name string
		life time.Duration
		do   func(p *Plan)
		at   time.Duration
		want []string
	}{
		{"nothing is wrong right before a renewal", 90 * day, nil, 60 * day, nil},
		{"a renewal a tenth of the life late is overdue", 90 * day, nil, 70 * day, []string{"overdue"}},
		{"a third failure is overdue all the same", 90 * day, func(p *Plan) {
			m := at(start.Add(61 * day))
			failTimes(3)(p, m)
		}, 71 * day, []string{"overdue"}},
		{"an order that does not end is overdue", 90 * day, func(p *Plan) { p.Opened(intent(2, causeSchedule), at(start.Add(61*day))) }, 71 * day, []string{"overdue"}},
		{"what a person holds is not overdue", 90 * day, func(p *Plan) { closeWith("rejected", "")(p, at(start.Add(61*day))) }, 75 * day, nil},
		{"but it expires", 90 * day, func(p *Plan) { closeWith("rejected", "")(p, at(start.Add(61*day))) }, 76*day + 1, []string{"expiring P14D"}},
		{"after a long suspend only the last threshold is told", 90 * day, nil, 89*day + 12*time.Hour, []string{"overdue", "expiring P1D"}},
		{"what has expired is told as that alone", 90 * day, nil, 100 * day, []string{"overdue", "expired"}},
		{"thresholds of a short life are parts of it", 6 * day, nil, 4*day + 20*time.Hour, []string{"overdue", "expiring PT28H48M"}},
		{"a revoked version does not expire any more", 90 * day, func(p *Plan) {
			p.Revoked("ver_1", at(start))
			p.OverdueTold = true
		}, 100 * day, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fresh(tt.life)
			if tt.do != nil {
				tt.do(&p)
			}
			p.Settle()
			m := at(start.Add(tt.at))
			require.Equal(t, len(tt.want) > 0, p.Next(m) == Alarm)
			var got []string
			for _, f := range p.Alarms(m) {
				switch f := f.(type) {
				case *renewaleventsv1.Overdue:
					got = append(got, "overdue")
				case *renewaleventsv1.Expiring:
					got = append(got, "expiring "+f.GetThreshold())
				case *renewaleventsv1.Expired:
					got = append(got, "expired")
				}
			}
			require.Equal(t, tt.want, got)
			require.Empty(t, p.Alarms(m), "each is told once")
			require.NotEqual(t, Alarm, p.Next(m))
		})
	}
	m := at(start.Add(25 * time.Hour))
	p := New(at(start))
	p.Opened(intent(1, "created"), at(start))
	p.Settle()
	require.Len(t, p.Alarms(m), 1, "a first version is overdue after a day")
}

func TestPeriod(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"P14D": 14 * day, "PT28H48M": 28*time.Hour + 48*time.Minute, "PT1M30S": 90 * time.Second, "PT0S": 0, "PT36H": 36 * time.Hour,
	} {
		require.Equal(t, want, period(d))
	}
}

// Whatever happens in whatever order, a living plan has a finite next step, what is due is done in a few steps, and one rule decides.
func TestEveryPlanHasANextStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := start
		m := func() Moment {
			return Moment{ID: "crt_1", Now: now, Policy: Defaults(), Draw: func() float64 { return rapid.Float64Range(0, 0.999999).Draw(t, "draw") }}
		}
		p := New(m())
		number := func() int64 { return rapid.Int64Range(0, 12).Draw(t, "number") }
		lives := rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour, day, 6 * day, 47 * day, 90 * day, 398 * day})
		span := rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, time.Hour, day, 10 * day, 100 * day})
		moment := func() time.Time { return now.Add(span.Draw(t, "span") - span.Draw(t, "back")) }
		outcome := rapid.SampledFrom([]string{"issued", "failed", "rejected", "cancelled"})
		intentOf := func() Intent {
			return intent(number(), rapid.SampledFrom([]string{"created", "manual", causeARI, causeSchedule, causeRetry, causeRevocation}).Draw(t, "cause"))
		}
		versionOf := func() Version { return ver(number(), moment(), lives.Draw(t, "life")) }
		events := map[string]func(){
			"opened": func() { p.Opened(intentOf(), m()) },
			"closed": func() {
				p.Closed(number(), outcome.Draw(t, "outcome"), nil, rapid.Bool().Draw(t, "follows"), rapid.SampledFrom([]string{"", "user", "system"}).Draw(t, "by"), m())
			},
			"added": func() { p.Take(versionOf(), rapid.Bool().Draw(t, "spread"), m()) },
			"revoked": func() {
				p.Revoked(p.Version.ID, m())
			},
			"ari": func() {
				p.ReadARI(p.Version.ID, Info{Supported: rapid.Bool().Draw(t, "ari"), Start: moment(), End: moment(), RetryAt: moment()}, m())
			},
			"asked": func() {
				p.Asked(p.Asking(), Answer{OrderID: "ord", Number: number(), NothingToDo: rapid.Bool().Draw(t, "nothing"), Explanation: "no"}, m())
			},
			"observed": func() {
				p.Observe(Seen{Version: versionOf(), Revoked: rapid.Bool().Draw(t, "revoked"), Intent: intentOf(), Outcome: rapid.SampledFrom([]string{"open", "failed", "issued", "rejected", "cancelled"}).Draw(t, "seen")}, m())
			},
			"recovered": func() {
				p.Hear(Source{Epoch: rapid.SampledFrom([]string{"01A", "01B", "01C"}).Draw(t, "epoch"), Revision: number()})
			},
			"time": func() { now = now.Add(span.Draw(t, "passes")) },
			"work": func() { now = p.WorkAt(Defaults()) },
		}
		names := slices.Sorted(maps.Keys(events))
		p.Settle()
		for range rapid.IntRange(1, 40).Draw(t, "length") {
			events[rapid.SampledFrom(names).Draw(t, "event")]()
			p.Settle()
			require.True(t, p.WorkAt(Defaults()).Before(Never), "%+v", p)
			require.NotEmpty(t, p.Explanation)
			for i := 0; p.Next(m()) != Rest; i++ {
				require.Less(t, i, 8, "the worker turns in a circle: %s at %s, %+v", p.Next(m()), now, p)
				switch p.Next(m()) {
				case Alarm:
					p.Alarms(m())
				case Review:
					p.Remind(m())
				case Reread:
					p.ReadARI(p.Version.ID, Info{Supported: true, Start: start, End: start.Add(day)}, m())
				case AskDoor:
					p.Asked(p.Asking(), Answer{OrderID: "ord", Number: p.Intent.Number + 1}, m())
				case Rest:
				}
				p.Settle()
			}
			require.True(t, p.WorkAt(Defaults()).After(now))
		}
		p.Drop(m())
		require.Equal(t, Never, p.WorkAt(Defaults()))
	})
}

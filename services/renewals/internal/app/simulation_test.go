package app_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

// simCert is a certificate of the simulated inventory.
type simCert struct {
	id       string
	life     time.Duration
	ari      bool
	failing  func(intent int64) bool
	rev      int64
	number   int64 // of the last intent
	open     bool
	current  *typesv1.VersionFacts
	replaced map[string]int // how many orders were opened to replace a version
	late     []string       // versions that were asked to be replaced after their safe limit
	versions int
	failures int
	// waits is the fact that is told again until it is answered, as the real inventory does.
	waits     proto.Message
	waitsFor  int64
	repeatIn  time.Duration
	changedAt time.Time
}

type simFact struct {
	at time.Time
	do func()
}

// world is an inventory, CAs, and a bus that loses facts, on a fake clock.
type world struct {
	*fixture
	rnd   *rand.Rand
	certs map[string]*simCert
	queue []simFact
	lossy float64
	away  func(now time.Time) bool
}

func (w *world) later(in time.Duration, do func()) {
	w.queue = append(w.queue, simFact{at: w.clk.Now().Add(in), do: do})
}

// send has the bus deliver a fact once, twice, or not at all.
func (w *world) send(c *simCert, m proto.Message, rev int64) {
	e := testkit.Event(w.t, m, bus.Event{ID: fmt.Sprintf("%s-%d", c.id, rev), Source: "inventory", Subject: c.id, Team: "web", Epoch: "01A", Revision: rev})
	if w.rnd.Float64() < w.lossy {
		return
	}
	times := 1
	if w.rnd.Float64() < w.lossy {
		times = 2
	}
	for range times {
		w.later(time.Duration(w.rnd.IntN(2000))*time.Millisecond, func() { require.NoError(w.t, w.handle(w.t.Context(), e)) })
	}
}

func (w *world) openIntent(c *simCert, cause string) {
	require.False(w.t, c.open, "one intent at a time")
	c.number, c.open, c.rev, c.changedAt = c.number+1, true, c.rev+1, w.clk.Now()
	replaces := c.current
	if v := replaces.GetVersionId(); v != "" {
		c.replaced[v]++
		safe := domain.Version{ID: v, NotBefore: replaces.GetNotBefore().AsTime(), NotAfter: replaces.GetNotAfter().AsTime()}.SafeLimit()
		if c.replaced[v] == 1 && w.clk.Now().After(safe) {
			c.late = append(c.late, v)
		}
	}
	n := c.number
	w.send(c, &certev.Requested{CertificateId: c.id, IntentNumber: n, OrderId: fmt.Sprintf("ord_%s_%d", c.id, n), Cause: cause, Replaces: replaces, Owner: "o"}, c.rev)
	w.later(time.Duration(1+w.rnd.IntN(10))*time.Minute, func() { w.endIntent(c, n) })
}

func (w *world) endIntent(c *simCert, n int64) {
	now := w.clk.Now()
	c.open, c.rev, c.changedAt = false, c.rev+1, now
	closed := &certev.IntentClosed{CertificateId: c.id, IntentNumber: n, OrderId: fmt.Sprintf("ord_%s_%d", c.id, n), Owner: "o"}
	if c.failing != nil && c.failing(n) {
		c.failures++
		closed.Outcome, closed.Problem = "failed", &typesv1.Problem{Reason: "CA_ERROR"}
	} else {
		c.versions++
		closed.Outcome = "issued"
		c.current = &typesv1.VersionFacts{
			VersionId: fmt.Sprintf("ver_%s_%d", c.id, n), Number: n, IssuerId: "iss_1", Names: []string{c.id + ".example"}, AriCertId: c.id,
			NotBefore: timestamppb.New(now.Add(-c.life / 100)), NotAfter: timestamppb.New(now.Add(c.life - c.life/100)),
		}
	}
	closed.Current = c.current
	c.waits, c.waitsFor, c.repeatIn = closed, n, time.Minute
	w.repeat(c)
}

// repeat tells an intent's end until renewals has answered.
func (w *world) repeat(c *simCert) {
	if c.waits == nil {
		return
	}
	w.send(c, c.waits, c.rev)
	n := c.waitsFor
	w.later(c.repeatIn, func() {
		if c.waitsFor == n {
			w.repeat(c)
		}
	})
	c.repeatIn = min(3*c.repeatIn, time.Hour)
}

// answers takes what renewals told, unless the bus loses it.
func (w *world) answers() (expiring []string) {
	require.NoError(w.t, w.out.Flush(w.t.Context()))
	for _, e := range testkit.Events(w.t, w.pub.Take()) {
		switch e.Type {
		case renewaleventsv1.TypePlanned, renewaleventsv1.TypeHeld:
			var m renewaleventsv1.Planned
			if e.Type == renewaleventsv1.TypePlanned {
				require.NoError(w.t, e.Decode(&m))
			}
			if c := w.certs[e.Subject]; w.rnd.Float64() >= w.lossy && m.GetIntentNumber() >= c.waitsFor {
				c.waits = nil
			}
		case renewaleventsv1.TypeExpired, renewaleventsv1.TypeExpiring, renewaleventsv1.TypeOverdue:
			expiring = append(expiring, e.Type+" "+e.Subject)
		}
	}
	return expiring
}

func (w *world) request(r *inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
	if w.away(w.clk.Now()) {
		return nil, errs.New(errs.Unavailable, "", "the inventory is away")
	}
	c := w.certs[r.GetCertificateId()]
	out := &inventoryv1.RequestVersionResponse{CertificateId: c.id}
	switch current := c.current.GetVersionId(); {
	case c.open:
	case r.GetFirst() && current != "", r.GetReplacesVersionId() != "" && r.GetReplacesVersionId() != current:
		out.NothingToDo, out.IntentNumber, out.Explanation = true, c.number, "not current any more"
		return out, nil
	default:
		w.openIntent(c, r.GetCause())
	}
	out.OrderId, out.IntentNumber = fmt.Sprintf("ord_%s_%d", c.id, c.number), c.number
	if w.rnd.Float64() < w.lossy { // the answer is lost on its way
		return nil, errs.New(errs.Timeout, "", "no answer in time")
	}
	return out, nil
}

// heals reads what changed at the inventory in the last quarter of an hour, as the reader of the platform does with its overlap.
func (w *world) heals() {
	w.door.changes = nil
	for _, c := range w.certs {
		if w.clk.Now().Sub(c.changedAt) > 15*time.Minute {
			continue
		}
		i := &inventoryv1.Intent{Number: c.number, OrderId: fmt.Sprintf("ord_%s_%d", c.id, c.number), Outcome: "open"}
		if !c.open {
			i.Outcome = "issued"
			if m, ok := c.waits.(*certev.IntentClosed); ok {
				i.Outcome = m.GetOutcome()
			}
		}
		crt := &inventoryv1.Certificate{Id: c.id, Team: "web", Owner: "o", Intent: i}
		if c.current != nil {
			crt.CurrentVersion = &inventoryv1.Version{Facts: c.current, State: "current"}
		}
		w.door.changes = append(w.door.changes, &inventoryv1.CertificateChange{Certificate: crt, Revision: c.rev})
	}
	if !w.away(w.clk.Now()) {
		_, err := w.ReadInventory(w.t.Context(), "")
		require.NoError(w.t, err)
	}
}

// next is the next moment at which something happens.
func (w *world) next() time.Time {
	at := clock.Never
	for _, f := range w.queue {
		if f.at.Before(at) {
			at = f.at
		}
	}
	page, err := w.Plans.Find(w.t.Context(), docstore.Query{Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lt, Value: at}}, Limit: 1})
	require.NoError(w.t, err)
	if len(page.Docs) > 0 {
		at = page.Docs[0].DueAt
	}
	return at
}

func (w *world) run(until time.Time, healing bool) (alarms []string) {
	for w.clk.Now().Before(until) {
		if d := w.next().Sub(w.clk.Now()); d > 0 {
			w.clk.Advance(d)
		}
		for i := 0; i < len(w.queue); i++ {
			if f := w.queue[i]; !f.at.After(w.clk.Now()) {
				w.queue = slices.Delete(w.queue, i, i+1)
				i = -1
				f.do()
			}
		}
		if healing {
			w.heals()
		}
		w.work()
		alarms = append(alarms, w.answers()...)
	}
	return alarms
}

func newWorld(t *testing.T, lossy float64, certs ...*simCert) *world {
	f := setup(t)
	seed := uint64(7) // the run is the same each time
	w := &world{fixture: f, rnd: rand.New(rand.NewPCG(seed, seed)), certs: map[string]*simCert{}, lossy: lossy, away: func(time.Time) bool { return false }}
	f.Draw = w.rnd.Float64
	f.door.answer = w.request
	f.ca.info = func(q *ordersv1.RenewalInfoQuery) (*ordersv1.RenewalInfo, error) {
		c := w.certs[q.GetAriCertId()]
		out := &ordersv1.RenewalInfo{AriCertId: c.id, Supported: c.ari, RetryAt: timestamppb.New(f.clk.Now().Add(6 * time.Hour))}
		if c.ari {
			end := c.current.GetNotAfter().AsTime().Add(-c.life / 4)
			out.WindowStart, out.WindowEnd = timestamppb.New(end.Add(-c.life/20)), timestamppb.New(end)
		}
		return out, nil
	}
	for _, c := range certs {
		c.replaced = map[string]int{}
		w.certs[c.id] = c
		w.openIntent(c, "created")
	}
	return w
}

// check compares the plan with the certificate, unless news are on their way: it is of the current version, which is not past its safe limit.
func (w *world) check(c *simCert) {
	w.t.Helper()
	if c.open || c.waits != nil || len(w.queue) > 0 {
		return
	}
	plan, err := w.Plans.Get(w.t.Context(), c.id)
	require.NoError(w.t, err)
	require.Equal(w.t, c.current.GetVersionId(), plan.Body.Version.ID)
	require.True(w.t, w.clk.Now().Before(plan.Body.Version.SafeLimit()), "%s was not renewed by its safe limit %s", c.id, plan.Body.Version.SafeLimit())
}

func fleet() []*simCert {
	return []*simCert{
		{id: "ninety", life: 90 * day}, {id: "ninety-ari", life: 90 * day, ari: true}, {id: "six", life: 6 * day}, {id: "six-ari", life: 6 * day, ari: true},
		{id: "fortyseven-ari", life: 47 * day, ari: true}, {id: "year", life: 398 * day}, {id: "day", life: day},
	}
}

func TestAYearOnAGoodBus(t *testing.T) {
	w := newWorld(t, 0, fleet()...)
	for d := 1; d <= 365; d++ {
		require.Empty(t, w.run(start.Add(time.Duration(d)*day), false), "day %d is without alarm", d)
		for _, c := range w.certs {
			w.check(c)
		}
	}
	for _, c := range w.certs {
		require.Empty(t, c.late)
		for v, n := range c.replaced {
			require.Equal(t, 1, n, "%s is replaced by one order", v)
		}
		require.EqualValues(t, c.number, c.versions+boolInt(c.open))
	}
	require.Equal(t, 365/60+1, w.certs["ninety"].versions)
	require.InDelta(t, 365.0/3, w.certs["six"].versions, 6)
	require.Equal(t, 2, w.certs["year"].versions)
	require.Less(t, w.ca.asked, 7*365*5, "ARI is read some four times a day at most")
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestMonthsOnABusThatLosesFacts(t *testing.T) {
	for name, healing := range map[string]bool{"with healing": true, "by telling again alone": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0.2, fleet()...)
			w.away = func(now time.Time) bool { return now.Sub(start)%(10*day) < 5*time.Hour } // half a night now and then
			for _, c := range w.certs {
				if c.id != "day" {
					c.failing = func(n int64) bool { return n%5 == 2 }
				}
			}
			for _, a := range w.run(start.Add(150*day), healing) {
				require.NotContains(t, a, "expired", "nothing expires")
			}
			for _, c := range w.certs {
				require.Empty(t, c.late, "each is asked to be replaced by its safe limit")
				if c.failing == nil {
					for v, n := range c.replaced {
						require.Equal(t, 1, n, "%s is replaced by one order, whatever was lost", v)
					}
				}
				require.Equal(t, c.number, int64(c.versions+c.failures+boolInt(c.open)), "an intent has one outcome")
			}
			require.Greater(t, w.certs["six"].failures, 5)
		})
	}
}

func TestACAThatIsAwayForWeeksIsAskedSlowlyAndAlarms(t *testing.T) {
	c := &simCert{id: "ninety", life: 90 * day}
	w := newWorld(t, 0, c)
	c.failing = func(int64) bool { return w.clk.Now().After(start.Add(40 * day)) }
	var alarms []string
	alarms = append(alarms, w.run(start.Add(100*day), false)...)
	require.Equal(t, []string{
		renewaleventsv1.TypeOverdue + " ninety", renewaleventsv1.TypeExpiring + " ninety", renewaleventsv1.TypeExpiring + " ninety", renewaleventsv1.TypeExpiring + " ninety",
		renewaleventsv1.TypeExpired + " ninety",
	}, alarms)
	require.Greater(t, c.failures, 20, "it never gives up")
	require.Less(t, c.failures, 25+20*24*60/90, "daily, and every 100 minutes past the safe limit")
	c.failing = nil
	w.run(w.clk.Now().Add(3*time.Hour), false)
	require.Equal(t, 2, c.versions, "and recovers by itself")
}

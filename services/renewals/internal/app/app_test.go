package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/renewals/internal/app"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/services/renewals/internal/transport/consumer"
	transport "github.com/certwright/certwright/services/renewals/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

var start = time.Date(2026, 3, 1, 12, 34, 56, 0, time.UTC)

// door is an inventory that answers what a test says.
type door struct {
	asked   []*inventoryv1.RequestVersionRequest
	answer  func(*inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error)
	changes []*inventoryv1.CertificateChange
}

func (d *door) RequestVersion(_ context.Context, r *inventoryv1.RequestVersionRequest, _ ...grpc.CallOption) (*inventoryv1.RequestVersionResponse, error) {
	d.asked = append(d.asked, r)
	return d.answer(r)
}

func (d *door) ListChanges(context.Context, *inventoryv1.ListChangesRequest, ...grpc.CallOption) (*inventoryv1.ListChangesResponse, error) {
	return &inventoryv1.ListChangesResponse{Changes: d.changes, NextCursor: "next"}, nil
}

// authority is orders as the way to a CA's ARI.
type authority struct {
	asked int
	info  func(q *ordersv1.RenewalInfoQuery) (*ordersv1.RenewalInfo, error)
}

func (a *authority) GetRenewalInfo(_ context.Context, r *ordersv1.GetRenewalInfoRequest, _ ...grpc.CallOption) (*ordersv1.GetRenewalInfoResponse, error) {
	a.asked++
	i, err := a.info(r.GetQueries()[0])
	if err != nil {
		return nil, err
	}
	return &ordersv1.GetRenewalInfoResponse{Infos: []*ordersv1.RenewalInfo{i}}, nil
}

type fixture struct {
	*app.App
	t      *testing.T
	clk    *clock.Fake
	pub    testkit.Recorder
	out    *outbox.Outbox
	door   *door
	ca     *authority
	handle func(ctx context.Context, e bus.Event) error
	n      int64
}

func setup(t *testing.T) *fixture {
	t.Helper()
	clk := clock.NewFake(start)
	f := &fixture{t: t, clk: clk, door: &door{}, ca: &authority{}}
	f.ca.info = func(q *ordersv1.RenewalInfoQuery) (*ordersv1.RenewalInfo, error) {
		return &ordersv1.RenewalInfo{AriCertId: q.GetAriCertId(), RetryAt: timestamppb.New(clk.Now().Add(6 * time.Hour))}, nil
	}
	f.door.answer = func(*inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
		return nil, errs.New(errs.Unavailable, "", "the inventory is away")
	}
	f.out = outbox.New(outbox.Config{Store: memory.New(clk), Bus: &f.pub, Source: "renewals", Clock: clk, Logger: slog.New(slog.DiscardHandler)})
	testkit.Run(t, f.out.Run)
	f.App = &app.App{
		Plans: testkit.Open[domain.Plan](t, f.out, app.Spec()), Inventory: f.door, Orders: f.ca, Clock: clk, Logger: slog.New(slog.DiscardHandler),
		Policy: domain.Defaults(), Draw: func() float64 { return 0.5 },
	}
	f.handle = consumer.New(f.App).Handle
	return f
}

func (f *fixture) event(m proto.Message) bus.Event {
	f.t.Helper()
	f.n++
	return testkit.Event(f.t, m, bus.Event{ID: fmt.Sprintf("x-%d", f.n), Source: "inventory", Subject: "crt_1", Team: "web", Epoch: "01A", Revision: f.n})
}

func (f *fixture) tell(messages ...proto.Message) {
	f.t.Helper()
	for _, m := range messages {
		require.NoError(f.t, f.handle(f.t.Context(), f.event(m)))
	}
}

// told returns the facts told since it was asked last, by their type.
func (f *fixture) told() []string {
	f.t.Helper()
	require.NoError(f.t, f.out.Flush(f.t.Context()))
	return testkit.Types(f.t, f.pub.Take())
}

func (f *fixture) last(m proto.Message) {
	f.t.Helper()
	require.NoError(f.t, f.out.Flush(f.t.Context()))
	all := testkit.Events(f.t, f.pub.Entries())
	require.NoError(f.t, all[len(all)-1].Decode(m))
}

func (f *fixture) plan() app.Plan {
	f.t.Helper()
	d, err := f.Plans.Get(f.t.Context(), "crt_1")
	require.NoError(f.t, err)
	return d
}

// work does what is due as a worker would, without its goroutines, and returns how many steps that took.
func (f *fixture) work() (steps int) {
	f.t.Helper()
	ctx := f.t.Context()
	page, err := f.Plans.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: f.clk.Now()}}, Limit: 1000})
	require.NoError(f.t, err)
	for _, d := range page.Docs {
		for now := f.clk.Now(); !d.WorkAt.After(now); steps++ {
			require.Less(f.t, steps, 100, "the worker turns in a circle")
			res, err := f.Step(ctx, d)
			var facts []outbox.Fact
			if err != nil {
				d.WorkAt = now.Add(time.Minute)
			} else if facts, err = res.Apply(&d); err != nil {
				f.t.Fatal(err)
			}
			require.NoError(f.t, f.Plans.Save(ctx, &d, facts...))
		}
	}
	return steps
}

func version(n int64, from time.Time, life time.Duration) *typesv1.VersionFacts {
	return &typesv1.VersionFacts{
		VersionId: fmt.Sprintf("ver_%d", n), Number: n, OrderId: fmt.Sprintf("ord_%d", n), IssuerId: "iss_1", Names: []string{"a.example"},
		NotBefore: timestamppb.New(from), NotAfter: timestamppb.New(from.Add(life)), AriCertId: fmt.Sprintf("aki.%d", n),
	}
}

func requested(n int64, cause string, replaces *typesv1.VersionFacts) *certev.Requested {
	return &certev.Requested{CertificateId: "crt_1", IntentNumber: n, OrderId: fmt.Sprintf("ord_%d", n), Cause: cause, Owner: "ops@a.example", Replaces: replaces}
}

func closed(n int64, outcome string, current *typesv1.VersionFacts) *certev.IntentClosed {
	m := &certev.IntentClosed{CertificateId: "crt_1", IntentNumber: n, OrderId: fmt.Sprintf("ord_%d", n), Outcome: outcome, Current: current, Owner: "ops@a.example"}
	if outcome != "issued" {
		m.Problem = &typesv1.Problem{Reason: "CAA_FORBIDS", Detail: "the CAA record names another CA"}
	}
	return m
}

// issue brings the plan to its first version.
func (f *fixture) issue() {
	f.t.Helper()
	f.tell(requested(1, "created", nil), closed(1, "issued", version(1, start, 90*day)))
	f.work()
	f.told()
}

// opens answers as a door that opens intent n.
func (f *fixture) opens(n int64) {
	f.door.answer = func(*inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
		return &inventoryv1.RequestVersionResponse{CertificateId: "crt_1", OrderId: fmt.Sprintf("ord_%d", n), IntentNumber: n}, nil
	}
}

func TestFromCreationToRenewal(t *testing.T) {
	f := setup(t)
	f.tell(requested(1, "created", nil))
	require.Equal(t, []string{renewaleventsv1.TypePlanned}, f.told(), "a plan exists from the creation on")
	var planned renewaleventsv1.Planned
	f.last(&planned)
	require.Equal(t, "ordered", planned.GetBasis())
	require.Zero(t, planned.GetIntentNumber(), "the first intent has not ended")
	require.Equal(t, "web", f.plan().Team)

	f.tell(closed(1, "issued", version(1, start, 90*day)))
	f.last(&planned)
	require.Equal(t, "life", planned.GetBasis())
	require.EqualValues(t, 1, planned.GetIntentNumber())
	require.Equal(t, start.Add(60*day+12*time.Hour), planned.GetDueAt().AsTime())

	window := []time.Time{start.Add(50 * day), start.Add(52 * day)}
	f.ca.info = func(q *ordersv1.RenewalInfoQuery) (*ordersv1.RenewalInfo, error) {
		require.Equal(t, "iss_1", q.GetIssuerId())
		require.Equal(t, "aki.1", q.GetAriCertId())
		return &ordersv1.RenewalInfo{
			Supported: true, WindowStart: timestamppb.New(window[0]), WindowEnd: timestamppb.New(window[1]), RetryAt: timestamppb.New(f.clk.Now().Add(6 * time.Hour)),
		}, nil
	}
	f.told()
	require.Equal(t, 1, f.work())
	require.Equal(t, []string{renewaleventsv1.TypePlanned}, f.told())
	f.last(&planned)
	require.Equal(t, "ari", planned.GetBasis())
	require.Equal(t, start.Add(51*day), planned.GetDueAt().AsTime())
	require.Zero(t, f.work(), "until Retry-After")
	f.clk.Advance(6 * time.Hour)
	require.Equal(t, 1, f.work())
	require.Empty(t, f.told(), "the same window says nothing new")

	window = []time.Time{start.Add(-2 * day), start.Add(-day)}
	f.opens(2)
	f.clk.Advance(6 * time.Hour)
	require.Equal(t, 2, f.work())
	require.Equal(t, []string{
		renewaleventsv1.TypePlanned, renewaleventsv1.TypeWindowMoved, // due now
		renewaleventsv1.TypePlanned, renewaleventsv1.TypeDue, // ordered
	}, f.told())
	require.Len(t, f.door.asked, 1)
	require.True(t, proto.Equal(&inventoryv1.RequestVersionRequest{CertificateId: "crt_1", ReplacesVersionId: "ver_1", Cause: "ari"}, f.door.asked[0]))

	f.tell(requested(2, "ari", version(1, start, 90*day)))
	require.Equal(t, []string{renewaleventsv1.TypePlanned}, f.told(), "known already: the present answer again")
	f.tell(closed(2, "issued", version(2, f.clk.Now(), 90*day)))
	require.Equal(t, "ver_2", f.plan().Body.Version.ID)
	require.Equal(t, domain.Waiting, f.plan().Body.State)
	require.Zero(t, f.plan().Body.WantedAt)
}

func TestEveryFactToldTwiceAndOutOfOrderChangesNothing(t *testing.T) {
	f := setup(t)
	now := start.Add(61 * day)
	facts := []bus.Event{
		f.event(requested(1, "created", nil)), f.event(closed(1, "issued", version(1, start, 90*day))),
		f.event(requested(2, "manual", version(1, start, 90*day))), f.event(closed(2, "failed", version(1, start, 90*day))),
		f.event(requested(3, "manual", version(1, start, 90*day))), f.event(closed(3, "issued", version(3, now, 90*day))),
		f.event(closed(4, "rejected", version(3, now, 90*day))),
	}
	f.clk.Advance(61 * day)
	for _, e := range facts {
		require.NoError(t, f.handle(t.Context(), e))
	}
	want := f.plan()
	require.Equal(t, domain.Held, want.Body.State)
	f.told()
	for i := range facts {
		e := facts[len(facts)-1-i]
		require.NoError(t, f.handle(t.Context(), e))
		require.Equal(t, want, f.plan(), e.Type)
		waits := e.Type == certev.TypeRequested || e.Type == certev.TypeIntentClosed
		require.Equal(t, waits, slices.Equal(f.told(), []string{renewaleventsv1.TypeHeld}), "%s is answered if somebody waits", e.Type)
	}

	// In any order the end is the same, but for the moments of hearing.
	other := setup(t)
	other.clk.Advance(61 * day)
	for _, i := range []int{6, 3, 0, 5, 1, 4, 2} {
		require.NoError(t, other.handle(t.Context(), facts[i]))
	}
	got := other.plan()
	require.Equal(t, want.Body.State, got.Body.State)
	require.Equal(t, want.Body.DueAt, got.Body.DueAt)
	require.Equal(t, want.Body.Version.ID, got.Body.Version.ID)
	require.Equal(t, want.Body.Ended(), got.Body.Ended())
}

func TestAFailureBacksOffAndIsAskedForAgain(t *testing.T) {
	f := setup(t)
	f.issue()
	f.opens(2)
	f.clk.Advance(60*day + 12*time.Hour)
	f.work()
	require.Equal(t, "schedule", f.door.asked[0].GetCause())
	f.told()
	f.tell(closed(2, "failed", version(1, start, 90*day)))
	var planned renewaleventsv1.Planned
	f.last(&planned)
	require.Equal(t, "backoff", planned.GetBasis())
	require.EqualValues(t, 2, planned.GetIntentNumber())
	require.Contains(t, planned.GetExplanation(), "CAA_FORBIDS")
	f.opens(3)
	f.clk.Advance(59 * time.Second)
	require.Zero(t, len(f.asksAt("retry")))
	f.work()
	f.clk.Advance(time.Second)
	f.work()
	require.Len(t, f.asksAt("retry"), 1)
	require.EqualValues(t, 1, f.plan().Body.Failed)
	f.tell(closed(3, "failed", version(1, start, 90*day)))
	require.Equal(t, f.clk.Now().Add(10*time.Minute), f.plan().Body.DueAt)
}

func (f *fixture) asksAt(cause string) (out []*inventoryv1.RequestVersionRequest) {
	for _, r := range f.door.asked {
		if r.GetCause() == cause {
			out = append(out, r)
		}
	}
	return out
}

func TestWhatAPersonHoldsIsAskedForAtTheSafeLimit(t *testing.T) {
	f := setup(t)
	f.issue()
	f.clk.Advance(55 * day)
	f.work()
	f.tell(requested(2, "manual", version(1, start, 90*day)))
	cancelled := closed(2, "cancelled", version(1, start, 90*day))
	cancelled.CancelledBy = "user"
	f.tell(cancelled)
	var held renewaleventsv1.Held
	f.last(&held)
	require.EqualValues(t, 2, held.GetIntentNumber())
	require.Equal(t, start.Add(81*day), held.GetReviewAt().AsTime())
	require.Equal(t, "ops@a.example", held.GetOwner())
	f.opens(3)
	for f.clk.Now().Before(start.Add(81 * day)) {
		require.Empty(t, f.door.asked)
		f.clk.Advance(12 * time.Hour)
		f.work()
	}
	require.Len(t, f.asksAt("retry"), 1)
	require.Equal(t, domain.Ordered, f.plan().Body.State)
}

func TestRevocationIsDueAtOnce(t *testing.T) {
	f := setup(t)
	f.issue()
	f.opens(2)
	f.tell(&certev.VersionRevoked{CertificateId: "crt_1", Version: version(1, start, 90*day), Current: true})
	f.work()
	require.Len(t, f.asksAt("revocation"), 1)
	require.Equal(t, domain.Ordered, f.plan().Body.State)

	g := setup(t)
	g.issue()
	g.door.answer = func(*inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
		return &inventoryv1.RequestVersionResponse{NothingToDo: true, IntentNumber: 1, Explanation: "the current version was revoked without replacement"}, nil
	}
	g.tell(&certev.VersionRevoked{CertificateId: "crt_1", Version: version(1, start, 90*day), Current: true})
	g.work()
	require.Equal(t, domain.Held, g.plan().Body.State)
	require.Contains(t, g.plan().Body.Explanation, "RENEWAL_DECLINED: the current version was revoked without replacement")
	for range 400 {
		g.clk.Advance(6 * time.Hour)
		g.work()
	}
	require.Less(t, len(g.door.asked), 17, "weekly")
	require.NotContains(t, g.told(), renewaleventsv1.TypeExpired)
}

func TestASilentOrderIsAskedForAgainAndOverdueIsTold(t *testing.T) {
	f := setup(t)
	f.issue()
	f.opens(2)
	f.clk.Advance(60*day + 12*time.Hour)
	f.work()
	require.Equal(t, []string{renewaleventsv1.TypePlanned, renewaleventsv1.TypeDue}, f.told())
	f.clk.Advance(time.Hour)
	require.Equal(t, 1, f.work())
	require.Equal(t, "ver_1", f.door.asked[1].GetReplacesVersionId())
	require.Empty(t, f.told(), "the open order is the answer")
	for range 10 * 24 {
		f.clk.Advance(time.Hour)
		f.work()
	}
	require.Equal(t, []string{renewaleventsv1.TypeOverdue}, f.told())
	var overdue renewaleventsv1.Overdue
	f.last(&overdue)
	require.Equal(t, start.Add(60*day+12*time.Hour), overdue.GetWasDueAt().AsTime())
}

func TestAfterALongSuspendEverythingStillFires(t *testing.T) {
	f := setup(t)
	f.issue()
	f.clk.Advance(200 * day)
	f.work() // the inventory is away
	told := f.told()
	require.Contains(t, told, renewaleventsv1.TypeOverdue)
	require.Contains(t, told, renewaleventsv1.TypeExpired)
	require.NotContains(t, told, renewaleventsv1.TypeExpiring)
	f.opens(2)
	f.clk.Advance(time.Minute)
	f.work()
	require.Equal(t, domain.Ordered, f.plan().Body.State)
	require.Equal(t, []string{renewaleventsv1.TypePlanned, renewaleventsv1.TypeDue}, f.told(), "no alarm twice")
}

func TestADeletedCertificateIsDropped(t *testing.T) {
	f := setup(t)
	f.issue()
	f.tell(&certev.Deleted{CertificateId: "crt_1"})
	require.True(t, f.plan().Tombstone)
	require.Equal(t, clock.Never, f.plan().DueAt)
	before := f.plan()
	f.tell(closed(2, "cancelled", nil), requested(3, "manual", nil), closed(3, "issued", version(3, start, 90*day)), &certev.VersionRevoked{CertificateId: "crt_1", Current: true}, &certev.Deleted{CertificateId: "crt_1"})
	require.Equal(t, before, f.plan(), "nothing revives it")
	require.Empty(t, f.told())

	g := setup(t)
	g.tell(&certev.Deleted{CertificateId: "crt_1"}, requested(1, "created", nil))
	require.True(t, g.plan().Tombstone, "a deletion before the creation")
	require.Empty(t, g.told())

	require.NoError(t, f.Sweep(t.Context()))
	require.True(t, f.plan().Tombstone)
	require.NoError(t, f.out.Flush(t.Context()))
	f.clk.Advance(31 * day)
	testkit.Eventually(t, func() bool {
		require.NoError(t, f.Sweep(t.Context()))
		_, err := f.Plans.Get(t.Context(), "crt_1")
		f.clk.Advance(5 * time.Second) // the outbox is cleared by its own pass
		return errs.KindOf(err) == errs.NotFound && err != nil
	}, "the tombstone is removed after a month")
}

func TestACertificateThatTheInventoryDoesNotKnowIsDropped(t *testing.T) {
	f := setup(t)
	f.issue()
	f.door.answer = func(*inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
		return nil, errs.New(errs.NotFound, "NOT_FOUND", "there is no certificate")
	}
	f.clk.Advance(61 * day)
	f.work()
	require.True(t, f.plan().Tombstone)
}

func change(rev int64, c *inventoryv1.Certificate) *inventoryv1.CertificateChange {
	c.Id, c.Team, c.Owner = "crt_1", "web", "ops@a.example"
	return &inventoryv1.CertificateChange{Certificate: c, Revision: rev}
}

func TestHealing(t *testing.T) {
	current := func(n int64) *inventoryv1.Version {
		return &inventoryv1.Version{Facts: version(n, start, 90*day), State: "current"}
	}
	f := setup(t)
	heal := func(c *inventoryv1.CertificateChange) {
		t.Helper()
		f.door.changes = []*inventoryv1.CertificateChange{c}
		page, err := f.ReadInventory(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, "next", page.Next)
	}
	heal(change(7, &inventoryv1.Certificate{CurrentVersion: current(3), Intent: &inventoryv1.Intent{Number: 3, Outcome: "issued"}}))
	require.Equal(t, "ver_3", f.plan().Body.Version.ID, "a version without a plan gets one")
	require.True(t, f.plan().Body.ARI.CheckAt.After(f.clk.Now()), "many at once do not all ask their CA at once")
	healed := f.plan()
	require.EqualValues(t, 3, healed.Body.Ended())
	require.Equal(t, []string{renewaleventsv1.TypePlanned}, f.told())

	heal(change(8, &inventoryv1.Certificate{CurrentVersion: current(3), Intent: &inventoryv1.Intent{Number: 4, OrderId: "ord_4", Outcome: "open", Cause: "manual"}}))
	require.Equal(t, domain.Ordered, f.plan().Body.State, "an order that was not heard of")
	heal(change(9, &inventoryv1.Certificate{CurrentVersion: current(3), Intent: &inventoryv1.Intent{Number: 4, Outcome: "failed", Problem: &typesv1.Problem{Reason: "X"}}}))
	require.Equal(t, domain.BasisBackoff, f.plan().Body.Basis, "an outcome that was not heard of")
	f.told()

	c := change(10, &inventoryv1.Certificate{CurrentVersion: current(3), Intent: &inventoryv1.Intent{Number: 4, Outcome: "failed"}})
	heal(c)
	require.Empty(t, f.told(), "just now the answer may be on its way")
	f.clk.Advance(2 * time.Minute)
	heal(c)
	require.Equal(t, []string{renewaleventsv1.TypePlanned}, f.told(), "an answer that did not arrive is told again")
	c.Certificate.Renewal = &inventoryv1.RenewalStatus{State: "planned", DueAt: timestamppb.New(f.plan().Body.DueAt)}
	heal(c)
	require.Empty(t, f.told())

	revoked := current(3)
	revoked.State = "revoked"
	heal(change(11, &inventoryv1.Certificate{CurrentVersion: revoked, Intent: &inventoryv1.Intent{Number: 4, Outcome: "failed"}}))
	require.False(t, f.plan().Body.Version.RevokedAt.IsZero())
	f.n = 20
	f.tell(closed(21, "issued", version(21, f.clk.Now(), 90*day)))
	heal(change(12, &inventoryv1.Certificate{CurrentVersion: current(3), Intent: &inventoryv1.Intent{Number: 4, Outcome: "failed"}}))
	require.Equal(t, "ver_21", f.plan().Body.Version.ID, "an old answer takes nothing back")
	gone := change(30, &inventoryv1.Certificate{})
	gone.Deleted = true
	heal(gone)
	require.True(t, f.plan().Tombstone)
	heal(change(31, &inventoryv1.Certificate{CurrentVersion: current(22), Intent: &inventoryv1.Intent{Number: 22, Outcome: "issued"}}))
	require.False(t, f.plan().Tombstone, "the inventory was recovered and has it again")
	require.True(t, f.plan().DueAt.Before(clock.Never))
}

func TestARIThatCannotBeReadIsAProblemAndNotAnEnd(t *testing.T) {
	f := setup(t)
	f.issue()
	f.ca.info = func(*ordersv1.RenewalInfoQuery) (*ordersv1.RenewalInfo, error) {
		return nil, errs.New(errs.Unavailable, "", "orders is away")
	}
	f.clk.Advance(6 * time.Hour)
	f.work()
	require.Equal(t, "ARI_UNREADABLE", f.plan().Body.ARI.Problem.Reason)
	require.Equal(t, domain.BasisLife, f.plan().Body.Basis)
	require.Equal(t, f.clk.Now().Add(15*time.Minute), f.plan().DueAt)
	require.Empty(t, f.told())
	res, err := (&transport.Server{App: f.App}).ExplainRenewal(t.Context(), &renewalsv1.ExplainRenewalRequest{CertificateId: "crt_1"})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(res.GetFindings(), func(f *renewalsv1.RenewalFinding) bool { return f.GetReason() == "ARI_TROUBLE" }))
}

func TestCalls(t *testing.T) {
	f := setup(t)
	f.issue()
	s := &transport.Server{App: f.App}
	as := func(team string) context.Context {
		return authz.NewContext(t.Context(), authz.Principal{Subject: "token:x", Team: team})
	}
	r, err := s.GetRenewal(as("web"), &renewalsv1.GetRenewalRequest{CertificateId: "crt_1"})
	require.NoError(t, err)
	require.Equal(t, "waiting", r.GetState())
	require.Equal(t, "life", r.GetBasis())
	require.Equal(t, []string{"a.example"}, r.GetNames())
	require.NotNil(t, r.GetAriCheckAt())
	_, err = s.GetRenewal(as("other"), &renewalsv1.GetRenewalRequest{CertificateId: "crt_1"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	_, err = s.ExplainRenewal(as("web"), &renewalsv1.ExplainRenewalRequest{CertificateId: "crt_9"})
	require.ErrorContains(t, err, `no renewal plan of a certificate "crt_9"`)
	explained, err := s.ExplainRenewal(as("web"), &renewalsv1.ExplainRenewalRequest{CertificateId: "crt_1"})
	require.NoError(t, err)
	var decisive []string
	for _, f := range explained.GetFindings() {
		if f.GetDecisive() {
			decisive = append(decisive, f.GetReason())
		}
	}
	require.Equal(t, []string{"LIFE_LEFT"}, decisive)

	for filter, want := range map[string]int{
		"": 1, "state=waiting": 1, "state=held": 0, "owner=ops@a.example": 1, "owner=x": 0, "due_before=2026-03-02T00:00:00Z": 0,
		"due_before=2027-01-01T00:00:00Z AND state=waiting AND owner=ops@a.example": 1,
	} {
		l, err := s.ListRenewals(as("web"), &renewalsv1.ListRenewalsRequest{Filter: filter})
		require.NoError(t, err, filter)
		require.Len(t, l.GetRenewals(), want, filter)
	}
	l, err := s.ListRenewals(as("other"), &renewalsv1.ListRenewalsRequest{})
	require.NoError(t, err)
	require.Empty(t, l.GetRenewals())
	for filter, want := range map[string]string{
		"state=sleeping": `state is "sleeping"; allowed are [waiting ordered held]`, "due_before=soon": `due_before is "soon"; give a moment as RFC 3339 has it`, "x=1": "allowed are state, owner, due_before",
	} {
		_, err := s.ListRenewals(as("web"), &renewalsv1.ListRenewalsRequest{Filter: filter})
		require.Equal(t, errs.Invalid, errs.KindOf(err))
		require.ErrorContains(t, err, want)
	}
}

func TestTheRealWorkerStepsPlans(t *testing.T) {
	f := setup(t)
	f.opens(2)
	testkit.Run(t, worker.New(worker.Config[domain.Plan]{Name: "renewals", Coll: f.Plans, Clock: f.clk, Logger: f.Logger, Step: f.Step}).Run)
	f.tell(requested(1, "created", nil), closed(1, "issued", version(1, start, 90*day)))
	testkit.Eventually(t, func() bool { return f.plan().Body.ARI.Read }, "ARI is read at once")
	f.clk.Advance(61 * day)
	testkit.Passes(t, f.clk, time.Second, func() bool { return f.plan().Body.State == domain.Ordered }, "the inventory is asked")
	require.Len(t, f.door.asked, 1)
}

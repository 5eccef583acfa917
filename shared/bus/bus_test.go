package bus_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

// TestMain looks for goroutines left over. The embedded server now and then forgets two of its own when it is shut down while a
// stream is being made.
func TestMain(m *testing.M) {
	const server = "github.com/nats-io/nats-server/v2/server"
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction(server+"/ats.Register.func1"),
		goleak.IgnoreTopFunction(server+".(*fileStore).flushStreamStateLoop"))
}

// recorder is a handler that remembers.
type recorder struct {
	mu     sync.Mutex
	events []bus.Event
	answer func(ctx context.Context, e bus.Event, nth int) error // nth: how often this id came, from 1
	times  map[string]int
}

func (r *recorder) handle(ctx context.Context, e bus.Event) error {
	r.mu.Lock()
	r.events = append(r.events, e)
	if r.times == nil {
		r.times = map[string]int{}
	}
	r.times[e.ID]++
	nth := r.times[e.ID]
	r.mu.Unlock()
	if r.answer == nil {
		return nil
	}
	return r.answer(ctx, e, nth)
}

func (r *recorder) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, len(r.events))
	for i, e := range r.events {
		ids[i] = e.ID
	}
	return ids
}

func (r *recorder) count(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times[id]
}

func (r *recorder) has(ids ...string) func() bool {
	return func() bool {
		for _, id := range ids {
			if r.count(id) == 0 {
				return false
			}
		}
		return true
	}
}

func open(t *testing.T, s *testkit.Server, change ...func(*bus.Config)) *bus.Bus {
	t.Helper()
	cfg := bus.Config{
		Source: "orders", Logger: testkit.Logger(t), HealthInterval: 100 * time.Millisecond, SyncInterval: time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Conn == nil {
		cfg.Conn = s.Conn()
	}
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Deadline)
	defer cancel()
	b, err := bus.New(ctx, cfg)
	require.NoError(t, err)
	return b
}

// run runs the bus until stop is called, or the test ends, and waits until it is ready.
func run(t *testing.T, b *bus.Bus) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(testkit.Deadline):
				t.Error("the bus does not stop")
			}
		})
	}
	t.Cleanup(stop)
	testkit.Eventually(t, func() bool { return b.Ready() == nil }, "the bus is not ready")
	return stop
}

func hear(t *testing.T, b *bus.Bus, c bus.Consumer, r *recorder) {
	t.Helper()
	if c.Name == "" {
		c.Name = "orders-test"
	}
	if c.Handle == nil {
		c.Handle = r.handle
	}
	require.NoError(t, b.Consume(c))
}

func publish(t *testing.T, b *bus.Bus, entries ...docstore.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Deadline)
	defer cancel()
	require.NoError(t, b.Publish(ctx, entries...))
}

// publishSoon publishes like the relay does: again and again until it succeeds.
func publishSoon(t *testing.T, b *bus.Bus, entries ...docstore.Entry) {
	t.Helper()
	testkit.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := b.Publish(ctx, entries...)
		if err != nil {
			require.True(t, errs.Transient(err), "%v", err)
		}
		return err == nil
	}, "cannot publish")
}

func jsOf(t *testing.T, s *testkit.Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(s.Conn())
	require.NoError(t, err)
	return js
}

func TestFactsOfOneAggregateAreHandledInOrderAndOthersAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	const aggregates, each = 20, 30
	var mu sync.Mutex
	seen := map[string][]int64{}
	var now, most atomic.Int32
	meeting := make(chan struct{})
	var once sync.Once
	hear(t, b, bus.Consumer{Workers: 4, Types: []string{"certificate.deleted"}, Handle: func(ctx context.Context, e bus.Event) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		if now.Load() > 1 {
			once.Do(func() { close(meeting) })
		}
		select { // whoever comes first waits for a second one
		case <-meeting:
		case <-ctx.Done():
		}
		mu.Lock()
		seen[e.Subject] = append(seen[e.Subject], e.Revision)
		mu.Unlock()
		now.Add(-1)
		return nil
	}}, nil)
	var entries []docstore.Entry
	for n := range int64(each) {
		for a := range aggregates {
			e := deleted(t, fmt.Sprintf("crt_%d-%d", a, n), fmt.Sprintf("crt_%d", a))
			e.Revision = n + 1
			entries = append(entries, e.Entry())
		}
	}
	publish(t, b, entries...)
	stop := run(t, b)
	total := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, revisions := range seen {
			n += len(revisions)
		}
		return n
	}
	testkit.Eventually(t, func() bool { return total() == aggregates*each }, "not all facts came")
	stop()
	for a, revisions := range seen {
		for i, r := range revisions {
			require.Equal(t, int64(i+1), r, "aggregate %s: %v", a, revisions)
		}
	}
	require.Greater(t, most.Load(), int32(1), "different aggregates are handled at the same time")
	require.LessOrEqual(t, most.Load(), int32(4), "no more than Workers")
}

func TestAConsumerHearsOnlyItsTypes(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	var one, all recorder
	hear(t, b, bus.Consumer{Types: []string{"order.issued", "order.failed"}}, &one)
	hear(t, b, bus.Consumer{Name: "orders-all"}, &all)
	run(t, b)
	other := deleted(t, "other", "crt_1")
	issued := deleted(t, "issued", "ord_1")
	issued.Type = "order.issued"
	longer := deleted(t, "longer", "ord_1")
	longer.Type = "order.issued_longer"
	publish(t, b, other.Entry(), longer.Entry(), issued.Entry())
	testkit.Eventually(t, all.has("other", "longer", "issued"), "the consumer of all types did not hear all")
	testkit.Eventually(t, one.has("issued"), "issued did not come")
	require.Equal(t, []string{"issued"}, one.ids())
}

func TestAFailedFactComesAgainAfterADelay(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	var times []time.Time
	var redelivered []int
	r := recorder{}
	r.answer = func(_ context.Context, e bus.Event, nth int) error {
		r.mu.Lock()
		times = append(times, time.Now())
		redelivered = append(redelivered, e.Redelivered)
		r.mu.Unlock()
		switch nth {
		case 1:
			return errs.New(errs.Unavailable, "", "not now").WithRetryAfter(1500 * time.Millisecond)
		case 2:
			return errs.New(errs.Conflict, "", "somebody else wrote")
		}
		return nil
	}
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	publish(t, b, deleted(t, "one", "crt_1").Entry(), deleted(t, "two", "crt_2").Entry())
	testkit.Eventually(t, func() bool { return r.count("one") == 3 && r.count("two") == 3 }, "the facts did not come three times")
	r.mu.Lock()
	defer r.mu.Unlock()
	require.GreaterOrEqual(t, times[len(times)-1].Sub(times[0]), 1500*time.Millisecond+90*time.Millisecond)
	require.Contains(t, redelivered, 2)
	letters, err := b.DeadLetters(t.Context(), 0)
	require.NoError(t, err)
	require.Empty(t, letters)
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		answer     func() error
		maxDeliver int
		deliveries int
		reason     string
		text       string
	}{
		{"an invalid fact is dead at once", func() error {
			return errs.New(errs.Invalid, "NO_SUCH_PROFILE", "no such\nprofile")
		}, 0, 1, "NO_SUCH_PROFILE", "no such profile"},
		{"a fact that fails too often is dead", func() error { return errs.New(errs.Conflict, "", "again") }, 3, 3, "CONFLICT", "again"},
		{"a handler that panics fails with Internal", func() error { panic("oops") }, 1, 1, "PANIC", "handler panicked: oops"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := testkit.NATS(t)
			b := open(t, s)
			var healthy atomic.Bool
			r := recorder{answer: func(context.Context, bus.Event, int) error {
				if healthy.Load() {
					return nil
				}
				return row.answer()
			}}
			var other recorder
			hear(t, b, bus.Consumer{MaxDeliver: row.maxDeliver}, &r)
			hear(t, b, bus.Consumer{Name: "orders-other"}, &other)
			run(t, b)
			sent := deleted(t, "evt", "crt_1")
			publish(t, b, sent.Entry())
			var letters []bus.DeadLetter
			testkit.Eventually(t, func() bool {
				var err error
				letters, err = b.DeadLetters(t.Context(), 10)
				require.NoError(t, err)
				return len(letters) == 1
			}, "there is no dead letter")
			l := letters[0]
			require.Equal(t, "orders-test", l.Consumer)
			require.Equal(t, row.reason, l.Reason)
			require.Equal(t, row.text, l.Error)
			require.Equal(t, row.deliveries, l.Deliveries)
			require.NotZero(t, l.At)
			require.Equal(t, uint64(1), l.Event.Sequence)
			l.Event.Sequence = 0
			require.Equal(t, sent, l.Event)
			testkit.Eventually(t, func() bool { return pending(t, s, "orders-test") == 0 }, "the fact is still pending")
			require.Equal(t, row.deliveries, r.count("evt"))

			require.Error(t, b.Redrive(t.Context(), "orders-test", l.Sequence), "the handler fails still")
			require.Equal(t, errs.Invalid, errs.KindOf(b.Redrive(t.Context(), "orders-other", l.Sequence)), "not its letter")
			require.Equal(t, errs.NotFound, errs.KindOf(b.Redrive(t.Context(), "orders-test", 99)))

			healthy.Store(true)
			elsewhere := open(t, s, func(c *bus.Config) { c.Source = "gateway" })
			require.NoError(t, elsewhere.Redrive(t.Context(), "orders-test", l.Sequence), "another process may ask for it")
			require.Equal(t, row.deliveries+2, r.count("evt"))
			require.Equal(t, 1, other.count("evt"), "nobody else hears it again")
			letters, err := b.DeadLetters(t.Context(), 10)
			require.NoError(t, err)
			require.Empty(t, letters, "a success removes the letter")

			err = elsewhere.Redrive(t.Context(), "keys-nobody", 1)
			require.Equal(t, errs.Unavailable, errs.KindOf(err), "%v", err)
		})
	}
}

func TestARedriveElsewhereKeepsTheKindOfTheError(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	r := recorder{answer: func(context.Context, bus.Event, int) error {
		return errs.New(errs.Precondition, "WRONG_STATE", "it is closed")
	}}
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	publish(t, b, deleted(t, "evt", "crt_1").Entry())
	testkit.Eventually(t, func() bool {
		letters, err := b.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		return len(letters) == 1
	}, "there is no dead letter")
	err := open(t, s, func(c *bus.Config) { c.Source = "gateway" }).Redrive(t.Context(), "orders-test", 1)
	require.ErrorIs(t, err, errs.New(errs.Precondition, "WRONG_STATE", "x"))
	require.ErrorContains(t, err, "it is closed")
}

func pending(t *testing.T, s *testkit.Server, consumer string) int {
	t.Helper()
	c, err := jsOf(t, s).Consumer(t.Context(), bus.Stream, consumer)
	require.NoError(t, err)
	return c.CachedInfo().NumAckPending + int(c.CachedInfo().NumPending) //nolint:gosec // small
}

func TestAMalformedFactIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	entry := deleted(t, "evt", "crt_1").Entry()
	delete(entry.Headers, "ce-type")
	publish(t, b, entry)
	testkit.Eventually(t, func() bool {
		letters, err := b.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		return len(letters) == 1 && letters[0].Reason == "EVENT_MALFORMED"
	}, "there is no dead letter")
	require.Empty(t, r.ids())
}

func TestAFactWhoseHandlingNeverEndedIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	var r recorder
	hear(t, b, bus.Consumer{MaxDeliver: 2}, &r)
	stop := run(t, b) // makes the consumer
	stop()
	publish(t, b, deleted(t, "evt", "crt_1").Entry())
	// What a process does that dies twice before it answers.
	c, err := jsOf(t, s).Consumer(t.Context(), bus.Stream, "orders-test")
	require.NoError(t, err)
	for range 2 {
		m, err := c.Next()
		require.NoError(t, err)
		require.NoError(t, m.NakWithDelay(time.Millisecond))
	}
	b = open(t, s)
	hear(t, b, bus.Consumer{MaxDeliver: 2}, &r)
	run(t, b)
	testkit.Eventually(t, func() bool {
		letters, err := b.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		return len(letters) == 1 && letters[0].Reason == "MAX_DELIVER"
	}, "there is no dead letter")
	require.Empty(t, r.ids(), "it is not tried once more")
}

func TestWhatTheServerGaveUpIsADeadLetter(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	// An existing consumer is never altered: this one leaves no delivery to the handler loop.
	js := jsOf(t, s)
	c, err := js.CreateConsumer(t.Context(), bus.Stream, jetstream.ConsumerConfig{
		Durable: "orders-test", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1, AckWait: 50 * time.Millisecond,
		FilterSubjects: []string{"certwright.events.>"},
	})
	require.NoError(t, err)
	publish(t, b, deleted(t, "evt", "crt_1").Entry())
	_, err = c.Next()
	require.NoError(t, err)
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	testkit.Eventually(t, func() bool {
		letters, err := b.DeadLetters(t.Context(), 10)
		require.NoError(t, err)
		return len(letters) == 1 && letters[0].Reason == "MAX_DELIVER" && letters[0].Event.ID == "evt"
	}, "there is no dead letter")
	again, err := js.Consumer(t.Context(), bus.Stream, "orders-test")
	require.NoError(t, err)
	require.Equal(t, 1, again.CachedInfo().Config.MaxDeliver, "the existing consumer was altered")
	require.NoError(t, b.Upgrade(t.Context()))
	again, err = js.Consumer(t.Context(), bus.Stream, "orders-test")
	require.NoError(t, err)
	require.Greater(t, again.CachedInfo().Config.MaxDeliver, 1, "an upgrade does alter it")
}

func TestDuplicatesAreDroppedByMessageID(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	entry := deleted(t, "evt", "crt_1").Entry()
	publish(t, b, entry, entry)
	publish(t, b, entry)
	again := entry
	again.MsgID = "evt~1" // told again
	publish(t, b, again, deleted(t, "end", "crt_1").Entry())
	testkit.Eventually(t, r.has("end"), "the last did not come")
	require.Equal(t, []string{"evt", "evt", "end"}, r.ids())
}

func TestTheTraceAndTheCauseReachTheHandler(t *testing.T) {
	t.Parallel()
	provider := sdktrace.NewTracerProvider()
	b := open(t, testkit.NATS(t), func(c *bus.Config) { c.Tracer = provider.Tracer("test") })
	type saw struct {
		traceID, parent string
		cause           string
	}
	got := make(chan saw, 10)
	hear(t, b, bus.Consumer{Handle: func(ctx context.Context, e bus.Event) error {
		cause, _ := bus.Cause(ctx)
		span, _ := trace.SpanFromContext(ctx).(sdktrace.ReadOnlySpan)
		got <- saw{span.SpanContext().TraceID().String(), span.Parent().SpanID().String(), cause.ID}
		if e.Redelivered == 0 {
			return errs.New(errs.Conflict, "", "once more")
		}
		return nil
	}}, nil)
	run(t, b)
	publish(t, b, deleted(t, "evt", "crt_1").Entry())
	for range 2 { // also when redelivered
		select {
		case s := <-got:
			require.Equal(t, saw{"0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "evt"}, s)
		case <-time.After(testkit.Deadline):
			t.Fatal("nothing came")
		}
	}
}

func TestAHandlerThatTakesLongIsNotDeliveredTwice(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	r := recorder{answer: func(ctx context.Context, e bus.Event, _ int) error {
		if e.ID == "slow" {
			select {
			case <-time.After(1200 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}}
	// The second fact waits in the queue of the first for longer than AckWait allows since its delivery.
	hear(t, b, bus.Consumer{Workers: 1, AckWait: 1500 * time.Millisecond}, &r)
	run(t, b)
	slow2 := deleted(t, "queued", "crt_1")
	publish(t, b, deleted(t, "slow", "crt_1").Entry(), slow2.Entry())
	second := deleted(t, "slow", "crt_1")
	entry := second.Entry()
	entry.MsgID = "slow~1"
	publish(t, b, entry, deleted(t, "end", "crt_1").Entry())
	testkit.Eventually(t, r.has("end"), "the last did not come")
	require.Equal(t, []string{"slow", "queued", "slow", "end"}, r.ids())
}

func TestAHandlerOutOfTimeIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	r := recorder{answer: func(ctx context.Context, _ bus.Event, nth int) error {
		if nth == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	hear(t, b, bus.Consumer{AckWait: 300 * time.Millisecond}, &r)
	run(t, b)
	publish(t, b, deleted(t, "evt", "crt_1").Entry())
	testkit.Eventually(t, func() bool { return r.count("evt") == 2 }, "it did not come again")
}

func TestStoppingLetsWhatWasTakenFinish(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := recorder{answer: func(ctx context.Context, _ bus.Event, _ int) error {
		once.Do(func() { close(begun) })
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	hear(t, b, bus.Consumer{Workers: 1}, &r)
	stop := run(t, b)
	publish(t, b, deleted(t, "one", "crt_1").Entry(), deleted(t, "two", "crt_1").Entry())
	<-begun
	testkit.Eventually(t, func() bool {
		c, err := jsOf(t, s).Consumer(t.Context(), bus.Stream, "orders-test")
		require.NoError(t, err)
		return c.CachedInfo().NumAckPending == 2
	}, "the second fact was not taken")
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	testkit.Eventually(t, func() bool {
		c, err := jsOf(t, s).Consumer(t.Context(), bus.Stream, "orders-test")
		require.NoError(t, err)
		return c.CachedInfo().NumWaiting == 0
	}, "it still asks for more")
	publish(t, b, deleted(t, "three", "crt_1").Entry())
	select {
	case <-stopped:
		t.Fatal("it did not wait for its handler")
	default:
	}
	close(release)
	<-stopped
	require.Equal(t, []string{"one", "two"}, r.ids())
	require.Equal(t, 1, pending(t, s, "orders-test"), "what was handled is acknowledged, the rest is left")
	require.Error(t, b.Ready())
}

func TestAHandlerThatDoesNotEndInTimeIsCancelledAndItsFactComesAgain(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	b.SetDrainTimeout(200 * time.Millisecond)
	begun := make(chan struct{})
	var once sync.Once
	r := recorder{answer: func(ctx context.Context, _ bus.Event, _ int) error {
		once.Do(func() { close(begun) })
		<-ctx.Done()
		return ctx.Err()
	}}
	hear(t, b, bus.Consumer{}, &r)
	stop := run(t, b)
	publish(t, b, deleted(t, "one", "crt_1").Entry(), deleted(t, "two", "crt_1").Entry())
	<-begun
	stop()
	require.Equal(t, []string{"one"}, r.ids(), "what waited behind it is not begun any more")

	var next recorder
	b = open(t, s)
	hear(t, b, bus.Consumer{}, &next)
	run(t, b)
	testkit.Eventually(t, next.has("one", "two"), "the facts did not come again")
}

// TestNothingStopsTheBusForGood deletes and restarts what it can while facts are told, and told again like the hand-overs do,
// until each was heard.
func TestNothingStopsTheBusForGood(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	const facts = 300
	var over atomic.Bool
	missing := func() (ids []string) {
		for n := range facts {
			if id := fmt.Sprintf("evt-%d", n); r.count(id) == 0 || !over.Load() {
				ids = append(ids, id)
			}
		}
		return ids
	}
	told := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		<-told
	}()
	go func() {
		defer close(told)
		for round := 0; ctx.Err() == nil; round++ {
			for n, id := range missing() {
				entry := deleted(t, id, fmt.Sprintf("crt_%d", n%7)).Entry()
				entry.MsgID = fmt.Sprintf("%s~%d", id, round)
				patience, cancel := context.WithTimeout(ctx, time.Second)
				_ = b.Publish(patience, entry) // the next round tells it again
				cancel()
			}
		}
	}()
	js := jsOf(t, s)
	for _, row := range []struct {
		name string
		do   func()
	}{
		{"all streams are deleted", func() { s.DeleteAll(ctx) }},
		{"the server restarts", s.Restart},
		{"the consumer is deleted", func() { _ = js.DeleteConsumer(ctx, bus.Stream, "orders-test") }},
		{"the server restarts without its files", func() {
			s.Stop()
			require.NoError(t, os.RemoveAll(s.StoreDir))
			s.Start()
		}},
		{"all streams are deleted and the server restarts", func() {
			s.DeleteAll(ctx)
			s.Restart()
		}},
	} {
		before := len(r.ids())
		testkit.Eventually(t, func() bool { return len(r.ids()) > before }, "nothing comes before %s", row.name)
		row.do()
		after := len(r.ids())
		testkit.Eventually(t, func() bool { return len(r.ids()) > after+facts/10 }, "nothing comes after %s", row.name)
	}
	over.Store(true)
	testkit.Eventually(t, func() bool { return len(missing()) == 0 }, "not every fact came")
}

func TestADeletedStreamHeals(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	renewed := make(chan struct{}, 10)
	b.OnNewStream(func() { renewed <- struct{}{} })
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	publish(t, b, deleted(t, "before", "crt_1").Entry())
	testkit.Eventually(t, r.has("before"), "nothing came")
	epoch := b.StreamEpoch()
	require.NotEmpty(t, epoch)

	s.DeleteAll(t.Context())
	publishSoon(t, b, deleted(t, "after", "crt_1").Entry())
	testkit.Eventually(t, r.has("after"), "the consumer did not heal")
	select {
	case <-renewed:
	case <-time.After(testkit.Deadline):
		t.Fatal("nobody was told about the new stream")
	}
	require.NotEqual(t, epoch, b.StreamEpoch())
	testkit.Eventually(t, func() bool { return b.Ready() == nil }, "not ready again")
}

func TestADeletedConsumerHeals(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	publish(t, b, deleted(t, "before", "crt_1").Entry())
	testkit.Eventually(t, r.has("before"), "nothing came")
	require.NoError(t, jsOf(t, s).DeleteConsumer(t.Context(), bus.Stream, "orders-test"))
	publish(t, b, deleted(t, "after", "crt_1").Entry())
	testkit.Eventually(t, r.has("after"), "the consumer did not heal")
	require.Equal(t, []string{"before", "before", "after"}, r.ids(), "a new consumer hears everything that is kept")
}

func TestARestartedServerHeals(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	var news atomic.Int32
	b.OnNewStream(func() { news.Add(1) })
	var r recorder
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	publish(t, b, deleted(t, "before", "crt_1").Entry())
	testkit.Eventually(t, r.has("before"), "nothing came")

	s.Stop()
	testkit.Eventually(t, func() bool { return b.Ready() != nil }, "it is ready without a server")
	err := b.Publish(t.Context(), deleted(t, "during", "crt_1").Entry())
	require.Equal(t, errs.Unavailable, errs.KindOf(err), "%v", err)
	s.Start()
	publishSoon(t, b, deleted(t, "after", "crt_1").Entry())
	testkit.Eventually(t, r.has("after"), "the consumer did not heal")
	require.Zero(t, r.count("during"), "what was refused must not be sent behind the caller's back")
	testkit.Eventually(t, func() bool { return b.Ready() == nil }, "not ready again")
	require.Zero(t, news.Load(), "the stream is the same")
}

func TestABusWaitsForItsServer(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	conn := s.Conn()
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := bus.New(ctx, bus.Config{Conn: conn, Source: "orders"})
	require.Equal(t, errs.Unavailable, errs.KindOf(err), "%v", err)

	made := make(chan error, 1)
	go func() {
		_, err := bus.New(t.Context(), bus.Config{Conn: conn, Source: "orders"})
		made <- err
	}()
	s.Start()
	select {
	case err := <-made:
		require.NoError(t, err)
	case <-time.After(testkit.Deadline):
		t.Fatal("it waits for ever")
	}
}

func TestAnExistingStreamIsNotAltered(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	open(t, s, func(c *bus.Config) { c.MaxAge = time.Hour })
	open(t, s, func(c *bus.Config) { c.MaxAge = 2 * time.Hour })
	stream, err := jsOf(t, s).Stream(t.Context(), bus.Stream)
	require.NoError(t, err)
	require.Equal(t, time.Hour, stream.CachedInfo().Config.MaxAge)
	require.Equal(t, 10*time.Minute, stream.CachedInfo().Config.Duplicates)
	require.Equal(t, jetstream.LimitsPolicy, stream.CachedInfo().Config.Retention)
	require.Equal(t, jetstream.FileStorage, stream.CachedInfo().Config.Storage)
}

func TestPublishRefusesWhatIsNoEventOrTooLarge(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	require.NoError(t, b.Publish(t.Context()))
	require.Equal(t, errs.Invalid, errs.KindOf(b.Publish(t.Context(), docstore.Entry{ID: "a", Kind: docstore.EntryAudit})))
	large := deleted(t, "evt", "crt_1")
	large.Data = make([]byte, 2<<20)
	require.Equal(t, errs.Invalid, errs.KindOf(b.Publish(t.Context(), large.Entry())))
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	s := testkit.NATS(t)
	b := open(t, s, func(c *bus.Config) { c.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test") })
	release := make(chan struct{})
	r := recorder{answer: func(ctx context.Context, e bus.Event, nth int) error {
		switch {
		case e.ID == "bad":
			return errs.New(errs.Invalid, "BAD", "bad")
		case e.ID == "again" && nth == 1:
			return errs.New(errs.Conflict, "", "again")
		case e.ID == "waits":
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil
	}}
	hear(t, b, bus.Consumer{}, &r)
	run(t, b)
	for i, id := range []string{"good", "bad", "again", "waits"} {
		publish(t, b, deleted(t, id, fmt.Sprint("crt_", i)).Entry())
	}
	value := func(name string, attributes ...attribute.KeyValue) int64 {
		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &all))
		want := attribute.NewSet(attributes...)
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				var points []metricdata.DataPoint[int64]
				switch data := m.Data.(type) {
				case metricdata.Sum[int64]:
					points = data.DataPoints
				case metricdata.Gauge[int64]:
					points = data.DataPoints
				}
				for _, p := range points {
					if m.Name == name && p.Attributes.Equals(&want) {
						return p.Value
					}
				}
			}
		}
		return -1
	}
	consumer, kind := attribute.String("consumer", "orders-test"), attribute.String("type", "certificate.deleted")
	outcome := func(o string) int64 {
		return value("certwright.bus.handled", consumer, kind, attribute.String("outcome", o))
	}
	testkit.Eventually(t, func() bool { return outcome("ack") == 2 && outcome("retry") == 1 && outcome("dead") == 1 }, "the outcomes are wrong")
	require.Equal(t, int64(4), value("certwright.bus.published", kind))
	require.Equal(t, int64(1), value("certwright.bus.dead_letters", consumer, kind, attribute.String("reason", "BAD")))
	testkit.Eventually(t, func() bool { return value("certwright.bus.consumer.lag", consumer) == 1 }, "one fact waits")
	close(release)
	testkit.Eventually(t, func() bool { return value("certwright.bus.consumer.lag", consumer) == 0 }, "no fact waits")
}

func TestSafeAfter(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	require.Equal(t, 3*time.Second, open(t, s).SafeAfter())
	require.Equal(t, 6*time.Minute, open(t, s, func(c *bus.Config) { c.SyncInterval = 0 }).SafeAfter())
	require.Zero(t, open(t, s, func(c *bus.Config) { c.Replicas = 3 }).SafeAfter())
}

func TestConsumeRefuses(t *testing.T) {
	t.Parallel()
	b := open(t, testkit.NATS(t))
	ok := func(context.Context, bus.Event) error { return nil }
	for _, row := range []struct {
		name     string
		consumer bus.Consumer
	}{
		{"a name of another service", bus.Consumer{Name: "keys-orders", Handle: ok}},
		{"a name without purpose", bus.Consumer{Name: "orders", Handle: ok}},
		{"a name that is no subject token", bus.Consumer{Name: "orders-a.b", Handle: ok}},
		{"a consumer without handler", bus.Consumer{Name: "orders-a"}},
		{"a type that is none", bus.Consumer{Name: "orders-a", Handle: ok, Types: []string{"order.>"}}},
		{"a type twice", bus.Consumer{Name: "orders-a", Handle: ok, Types: []string{"order.issued", "order.issued"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, errs.Invalid, errs.KindOf(b.Consume(row.consumer)))
		})
	}
	require.NoError(t, b.Consume(bus.Consumer{Name: "orders-a", Handle: ok}))
	require.Equal(t, errs.Invalid, errs.KindOf(b.Consume(bus.Consumer{Name: "orders-a", Handle: ok})), "twice")
	run(t, b)
	require.Equal(t, errs.Precondition, errs.KindOf(b.Consume(bus.Consumer{Name: "orders-b", Handle: ok})), "too late")
	require.Equal(t, errs.Precondition, errs.KindOf(b.Run(t.Context())), "twice")
}

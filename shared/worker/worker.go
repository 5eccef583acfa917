// Package worker steps documents that have something to do outside. It is the only way in which Certwright calls a CA, a
// DNS server, a host or a sibling service because of a fact: claim the document, make one outside call, write what came of it.
//
// A document is due when its DueAt has passed. Who writes it pokes the worker of its own process; a sweep finds the rest, such as what a
// crashed replica left. Replicas share the work without a leader: a claim is a write under the revision guard, with a lease.
package worker

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/failpoint"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// Result is what a step found out, not yet written. Apply is a pure function of the document as it is now, which may be newer than the one
// the step was given; it runs again when another write came first.
type Result[T any] struct {
	Apply func(doc *docstore.Doc[T]) ([]outbox.Fact, error)
	// Orphan names what the step created outside, if anything: recorded when the lease was lost meanwhile, for the janitor.
	Orphan *docstore.Orphan
}

// Config of a worker. Zero values of the durations and numbers get their defaults.
type Config[T any] struct {
	Name   string
	Coll   *outbox.Collection[T]
	Clock  clock.Clock
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
	// Step does the next thing for a document whose WorkAt has passed: at most one outside call, through Call. It must not write documents of this collection.
	// An error is unexpected trouble: the step is tried again after a growing wait. Trouble that users should see belongs into Apply.
	Step func(ctx context.Context, doc docstore.Doc[T]) (Result[T], error)
	// Lease is how long a claim lasts, default 60 s. A step's context ends after half of it.
	Lease time.Duration
	// Concurrency is how many documents are stepped at once, default 64.
	Concurrency int
	// Sweep is how often the store is asked for due documents, default 5 s.
	Sweep time.Duration
}

// Worker steps the documents of one collection.
type Worker[T any] struct {
	cfg   Config[T]
	steps metric.Int64Counter

	mu      sync.Mutex
	timers  timerHeap
	flying  map[string]bool // in hand; true: poked again meanwhile
	ready   []string
	changed chan struct{}
}

// New makes a worker and registers it with its collection.
func New[T any](cfg Config[T]) *Worker[T] {
	if cfg.Lease == 0 {
		cfg.Lease = time.Minute
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 64
	}
	if cfg.Sweep == 0 {
		cfg.Sweep = 5 * time.Second
	}
	w := &Worker[T]{cfg: cfg, flying: map[string]bool{}, changed: make(chan struct{}, 1)}
	if cfg.Meter != nil {
		w.steps, _ = cfg.Meter.Int64Counter("certwright_worker_steps_total",
			metric.WithDescription("Steps of workers by outcome"))
	}
	cfg.Coll.Watch(w.at)
	return w
}

// Run steps documents until ctx ends, and returns when the steps in hand have ended.
func (w *Worker[T]) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, w.cfg.Concurrency)
	next := w.cfg.Clock.Now()
	for ctx.Err() == nil {
		now := w.cfg.Clock.Now()
		if !now.Before(next) {
			w.sweep(ctx)
			next = now.Add(w.cfg.Sweep)
		}
		for {
			doc, ok := w.take(now)
			if !ok {
				break
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer func() { <-slots }()
				w.run(ctx, doc)
				w.done(doc)
			}()
		}
		wake, stop := w.cfg.Clock.After(w.wait(next))
		select {
		case <-ctx.Done():
		case <-wake:
		case <-w.changed:
		}
		stop()
	}
	return nil
}

// Poke makes the worker look at a document soon. It is a hint and may be lost.
func (w *Worker[T]) Poke(id string) { w.at(id, time.Time{}) }

func (w *Worker[T]) at(id string, due time.Time) {
	w.mu.Lock()
	now := w.cfg.Clock.Now()
	switch {
	case due.After(now.Add(2 * w.cfg.Sweep)):
		w.mu.Unlock()
		return // a sweep will find it
	case due.After(now):
		heap.Push(&w.timers, timer{at: due, id: id})
	default:
		w.push(id)
	}
	w.mu.Unlock()
	w.wake()
}

func (w *Worker[T]) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// push queues id unless it is in hand; the caller holds mu.
func (w *Worker[T]) push(id string) {
	if _, ok := w.flying[id]; ok {
		w.flying[id] = true
		return
	}
	w.flying[id] = false
	w.ready = append(w.ready, id)
}

func (w *Worker[T]) take(now time.Time) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.timers) > 0 && !w.timers[0].at.After(now) {
		t, _ := heap.Pop(&w.timers).(timer)
		w.push(t.id)
	}
	if len(w.ready) == 0 {
		return "", false
	}
	doc := w.ready[0]
	w.ready = w.ready[1:]
	return doc, true
}

func (w *Worker[T]) done(id string) {
	w.mu.Lock()
	again := w.flying[id]
	delete(w.flying, id)
	if again {
		w.push(id)
	}
	w.mu.Unlock()
	if again {
		w.wake()
	}
}

func (w *Worker[T]) wait(sweep time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.timers) > 0 && w.timers[0].at.Before(sweep) {
		sweep = w.timers[0].at
	}
	return max(sweep.Sub(w.cfg.Clock.Now()), time.Millisecond)
}

func (w *Worker[T]) sweep(ctx context.Context) {
	now := w.cfg.Clock.Now()
	page, err := w.cfg.Coll.Find(ctx, docstore.Query{
		Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: now}}, Limit: 1000,
	})
	if err != nil {
		if ctx.Err() == nil {
			w.cfg.Logger.WarnContext(ctx, "due documents cannot be read", "worker", w.cfg.Name, "error", err)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range page.Docs {
		if !d.LeaseUntil.After(now) {
			w.push(d.ID)
		} else if d.LeaseUntil.Before(now.Add(w.cfg.Sweep)) {
			heap.Push(&w.timers, timer{at: d.LeaseUntil, id: d.ID})
		}
	}
}

// run claims the document and steps it for as long as something is due.
func (w *Worker[T]) run(ctx context.Context, docID string) {
	token := id.New("lse", w.cfg.Clock.Now())
	var doc docstore.Doc[T]
	for {
		var err error
		doc, err = w.cfg.Coll.Get(ctx, docID)
		if err != nil {
			if errs.KindOf(err) != errs.NotFound && ctx.Err() == nil {
				w.cfg.Logger.WarnContext(ctx, "a due document cannot be read", "worker", w.cfg.Name, "id", docID, "error", err)
			}
			return
		}
		claimed, err := w.cfg.Coll.Claim(ctx, &doc, token, w.cfg.Lease)
		if errs.KindOf(err) == errs.Conflict && err != nil {
			continue
		}
		if err != nil {
			if ctx.Err() == nil {
				w.cfg.Logger.WarnContext(ctx, "a due document cannot be claimed", "worker", w.cfg.Name, "id", docID, "error", err)
			}
			return
		}
		if !claimed {
			return
		}
		break
	}
	for ctx.Err() == nil {
		var more bool
		doc, more = w.step(ctx, doc)
		if !more {
			return
		}
	}
	w.release(context.WithoutCancel(ctx), doc, token)
}

// step does one step of a claimed document and reports whether the lease is still held for another.
func (w *Worker[T]) step(ctx context.Context, doc docstore.Doc[T]) (docstore.Doc[T], bool) {
	claimed := doc.LeaseUntil.Add(-w.cfg.Lease)
	deadline := claimed.Add(w.cfg.Lease / 2)
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": doc.Trace})
	ctx, span := w.cfg.Tracer.Start(ctx, w.cfg.Name+" step", trace.WithAttributes(attribute.String("document.id", doc.ID)))
	defer span.End()
	ctx = context.WithValue(ctx, leaseKey{}, lease{clock: w.cfg.Clock, sendBy: deadline, tracer: w.cfg.Tracer})

	stepCtx, cancel := context.WithCancel(ctx)
	timeout, stop := w.cfg.Clock.After(deadline.Sub(w.cfg.Clock.Now()))
	go func() {
		select {
		case <-timeout:
			cancel()
		case <-stepCtx.Done():
		}
	}()
	res, err := w.protect(stepCtx, doc)
	cancel()
	stop()
	if err == nil && res.Apply == nil {
		err = errs.New(errs.Internal, "", "a step of %s answered nothing", w.cfg.Name)
	}
	if err != nil {
		if ctx.Err() != nil { // shutting down: give the document back as it is
			w.release(context.WithoutCancel(ctx), doc, doc.LeaseToken)
			return doc, false
		}
		w.trouble(ctx, span, doc, err)
		res.Apply = w.backoff(err)
	} else {
		w.count(ctx, "done")
	}
	return w.write(context.WithoutCancel(ctx), doc, res)
}

func (w *Worker[T]) protect(ctx context.Context, doc docstore.Doc[T]) (res Result[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "", "panic: %v\n%s", p, debug.Stack())
		}
	}()
	return w.cfg.Step(ctx, doc)
}

func (w *Worker[T]) trouble(ctx context.Context, span trace.Span, doc docstore.Doc[T], err error) {
	w.count(ctx, errs.KindOf(err).String())
	span.RecordError(err)
	span.SetStatus(codes.Error, errs.ReasonOf(err))
	level := slog.LevelWarn
	if errs.KindOf(err) == errs.Internal {
		level = slog.LevelError
	}
	w.cfg.Logger.Log(ctx, level, "a step is tried again", "worker", w.cfg.Name, "id", doc.ID, "failures", doc.Failures+1, "error", err)
}

// backoff waits 1 s, 2 s, 4 s … up to 5 min, or as long as the error says.
func (w *Worker[T]) backoff(err error) func(*docstore.Doc[T]) ([]outbox.Fact, error) {
	return func(doc *docstore.Doc[T]) ([]outbox.Fact, error) {
		doc.Failures++
		wait := min(time.Second<<min(doc.Failures-1, 10), 5*time.Minute)
		if e := errs.As(err); e != nil && e.RetryAfter > wait {
			wait = e.RetryAfter
		}
		doc.WorkAt = w.cfg.Clock.Now().Add(wait)
		return nil, nil
	}
}

// write applies the result to the newest document as long as the lease is ours.
func (w *Worker[T]) write(ctx context.Context, doc docstore.Doc[T], res Result[T]) (docstore.Doc[T], bool) {
	token := doc.LeaseToken
	for {
		next := doc
		failures := next.Failures
		facts, err := res.Apply(&next)
		if err != nil && !errors.Is(err, outbox.ErrUnchanged) {
			w.cfg.Logger.ErrorContext(ctx, "what a step found out does not fit the document any more", "worker", w.cfg.Name, "id", doc.ID, "error", err)
			next = doc
			facts, _ = w.backoff(err)(&next)
		}
		if next.Failures == failures {
			next.Failures = 0
		}
		now := w.cfg.Clock.Now()
		more := !next.WorkAt.IsZero() && !next.WorkAt.After(now)
		if more {
			next.LeaseUntil = now.Add(w.cfg.Lease)
		} else {
			next.LeaseUntil, next.LeaseToken = now, ""
		}
		err = w.cfg.Coll.Save(ctx, &next, facts...)
		if err == nil {
			return next, more
		}
		if errs.KindOf(err) != errs.Conflict {
			w.cfg.Logger.WarnContext(ctx, "a step cannot be written; the lease runs out and it is done again",
				"worker", w.cfg.Name, "id", doc.ID, "error", err)
			return doc, false
		}
		if doc, err = w.cfg.Coll.Get(ctx, doc.ID); err != nil {
			w.cfg.Logger.WarnContext(ctx, "a step cannot be written", "worker", w.cfg.Name, "id", doc.ID, "error", err)
			return doc, false
		}
		if doc.LeaseToken != token {
			w.lost(ctx, doc, res.Orphan)
			return doc, false
		}
	}
}

// lost records what was created outside without a lease, and nothing else.
func (w *Worker[T]) lost(ctx context.Context, doc docstore.Doc[T], orphan *docstore.Orphan) {
	w.count(ctx, "lease_lost")
	w.cfg.Logger.WarnContext(ctx, "the lease was lost during a step", "worker", w.cfg.Name, "id", doc.ID)
	if orphan == nil {
		return
	}
	_, err := w.cfg.Coll.Change(ctx, doc.ID, func(d *docstore.Doc[T]) ([]outbox.Fact, error) {
		o := *orphan
		o.At = w.cfg.Clock.Now()
		d.Orphans = append(append([]docstore.Orphan(nil), d.Orphans...), o)
		return nil, nil
	})
	if err != nil {
		w.cfg.Logger.ErrorContext(ctx, "something created outside is not recorded", "worker", w.cfg.Name, "id", doc.ID,
			"kind", orphan.Kind, "ref", orphan.Ref, "error", err)
	}
}

// release gives an unfinished document back at once, so that the next start need not wait for the lease to end.
func (w *Worker[T]) release(ctx context.Context, doc docstore.Doc[T], token string) {
	_, err := w.cfg.Coll.Change(ctx, doc.ID, func(d *docstore.Doc[T]) ([]outbox.Fact, error) {
		if d.LeaseToken != token {
			return nil, outbox.ErrUnchanged
		}
		d.LeaseUntil, d.LeaseToken = w.cfg.Clock.Now(), ""
		return nil, nil
	})
	if err != nil {
		w.cfg.Logger.WarnContext(ctx, "a lease is left to run out", "worker", w.cfg.Name, "id", doc.ID, "error", err)
	}
}

func (w *Worker[T]) count(ctx context.Context, outcome string) {
	if w.steps != nil {
		w.steps.Add(ctx, 1, metric.WithAttributes(attribute.String("worker", w.cfg.Name), attribute.String("outcome", outcome)))
	}
}

type leaseKey struct{}

type lease struct {
	clock  clock.Clock
	sendBy time.Time
	tracer trace.Tracer
}

// Call makes the one outside call of a step under a span named what. It reads the wall clock right before and does not send past half the lease:
// a process that was stopped and goes on finds its lease gone. Outside of a worker's step it just calls.
func Call(ctx context.Context, what string, f func(ctx context.Context) error) error {
	failpoint.Hit("call." + what + ".before")
	l, ok := ctx.Value(leaseKey{}).(lease)
	if ok && !l.clock.Now().Before(l.sendBy) {
		return errs.New(errs.Timeout, "LEASE_ENDED", "%s was not called: half the lease has passed", what)
	}
	if ok {
		var span trace.Span
		ctx, span = l.tracer.Start(ctx, what, trace.WithSpanKind(trace.SpanKindClient))
		defer span.End()
	}
	err := f(ctx)
	failpoint.Hit("call." + what + ".after")
	return err
}

type timer struct {
	at time.Time
	id string
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) } //nolint:forcetypeassert // heap.Interface
func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

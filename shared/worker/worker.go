// Package worker steps documents that have something to do outside. It is the only way in which Certwright calls a CA, a
// DNS server, a host or a sibling service because of a fact: claim the document, make one outside call, write what came of it.
//
// A document is due when its DueAt has passed. Who writes it pokes the worker of its own process; a sweep finds the rest, such as what a
// crashed replica left. Replicas share the work without a leader: a claim is a write under the revision guard, with a lease. The process whose write
// makes a document due claims it with that write if its worker has a place free.
package worker

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/failpoint"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// Result is what a step found out, not yet written.
type Result[T any] struct {
	// Apply is a pure function of the document as it is now, which may be newer than the one the step was given; it runs again when another
	// write came first. It must not take for granted that WorkAt is as the step saw it: a handler that poked the document meanwhile set it to now, and
	// an Apply that puts it off must first look whether there is anything new. An error, or ErrUnchanged with WorkAt still due, puts the document off
	// like an error of Step; ErrUnchanged otherwise writes nothing but the end of the lease.
	Apply func(doc *docstore.Doc[T]) ([]outbox.Fact, error)
	// Orphan names what the step created outside, if anything: recorded when the lease was lost meanwhile, for the janitor.
	Orphan *docstore.Orphan
}

// Config of a worker. Coll, Clock, Logger and Step are needed; zero values of the rest get their defaults.
type Config[T any] struct {
	Name   string
	Coll   *outbox.Collection[T]
	Clock  clock.Clock
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
	// Step does the next thing for a document whose WorkAt has passed: at most one outside call, through Call. It must not write documents of this
	// collection, nor change what doc points to (slices, maps): Apply does. An error is unexpected trouble: the step is tried again after a growing
	// wait, or after the error's RetryAfter when that is longer. Trouble that users should see belongs into Apply.
	Step func(ctx context.Context, doc docstore.Doc[T]) (Result[T], error)
	// Lease is how long a claim lasts, default 60 s. A step's context ends after half of it.
	Lease time.Duration
	// Concurrency is how many documents are stepped at once, default 64.
	Concurrency int
	// Sweep is how often the store is asked for due documents, default 5 s.
	Sweep time.Duration
	// Grace is how long, by the machine's clock, a step in hand, and then the writing of its result, may go on when Run has to end; default 5 s.
	Grace time.Duration
}

const (
	sweepLimit = 1000
	maxChain   = 1000                   // steps under one claim; a document that is due at once again after so many is put off
	writeTries = 100 * time.Millisecond // first pause before a write is tried again
)

// What ends the context of a step.
var (
	errHalfLease = errs.New(errs.Timeout, "STEP_TIMEOUT", "half the lease has passed")
	errStopping  = errs.New(errs.Canceled, "STOPPING", "the worker is being stopped")
)

// Worker steps the documents of one collection. It is safe for concurrent use.
type Worker[T any] struct {
	cfg   Config[T]
	steps metric.Int64Counter
	// progress: a claim was written since the last sweep. Without, what fills a sweep's page cannot be claimed, and sweeping on would only burn time.
	progress atomic.Bool

	slots chan struct{} // one for each document that is being stepped

	mu      sync.Mutex                             // guards what follows
	hand    func(id string) func(*docstore.Doc[T]) // takes a document into a slot; nil while the worker does not run
	timers  timerHeap
	timerOf map[string]time.Time // the timer of a document; others in the heap are void
	known   map[string]state     // documents queued or in hand
	ready   []string
	changed chan struct{}
}

// state of a document that the worker looks after.
type state uint8

const (
	queued  state = iota // in ready
	inHand               // being looked at
	stepped              // in hand, and to be looked at once more
)

// New makes a worker and registers it with its collection.
func New[T any](cfg Config[T]) *Worker[T] {
	lease, sweep := cfg.Coll.Patience()
	cfg.Lease, cfg.Sweep, cfg.Grace = cmp.Or(cfg.Lease, lease), cmp.Or(cfg.Sweep, sweep), cmp.Or(cfg.Grace, 5*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 64)
	if cfg.Tracer == nil {
		cfg.Tracer = noop.NewTracerProvider().Tracer("worker")
	}
	w := &Worker[T]{
		cfg: cfg, slots: make(chan struct{}, cfg.Concurrency), timerOf: map[string]time.Time{}, known: map[string]state{}, changed: make(chan struct{}, 1),
	}
	if cfg.Meter != nil {
		w.steps, _ = cfg.Meter.Int64Counter("certwright_worker_steps_total",
			metric.WithDescription("Steps of workers by outcome"))
	}
	cfg.Coll.Watch(w.at, w.adopt)
	return w
}

// Run steps documents until ctx ends. Then it starts nothing new, gives steps in hand Grace to end, gives the leases back, and returns nil.
func (w *Worker[T]) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	w.hands(func(docID string) func(*docstore.Doc[T]) {
		wg.Add(1)
		return func(doc *docstore.Doc[T]) {
			go func() {
				defer wg.Done()
				if doc != nil {
					w.chain(ctx, *doc)
				}
				w.done(docID)
				<-w.slots
			}()
		}
	})
	defer w.hands(nil)
	sweepAt, full := w.cfg.Clock.Now(), false
	for ctx.Err() == nil {
		now := w.cfg.Clock.Now()
		if !now.Before(sweepAt) || full && w.idle() && w.progress.Swap(false) {
			full = w.sweep(ctx, now)
			sweepAt = now.Add(w.cfg.Sweep)
		}
		if doc, ok := w.take(now); ok {
			select {
			case w.slots <- struct{}{}:
				wg.Go(func() {
					if claimed, ok := w.claim(ctx, doc, w.token()); ok {
						w.chain(ctx, claimed)
					}
					w.done(doc)
					<-w.slots
				})
			case <-ctx.Done():
			}
			continue
		}
		next := w.next(sweepAt)
		wake, stop := w.cfg.Clock.After(max(next.Sub(w.cfg.Clock.Now()), time.Millisecond))
		if !w.cfg.Clock.Now().Before(next) { // a clock that was moved meanwhile does not wake who comes too late
			stop()
			continue
		}
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

// at makes the worker look at a document when it is due.
func (w *Worker[T]) at(id string, due time.Time) {
	now := w.cfg.Clock.Now()
	if due.After(now.Add(2 * w.cfg.Sweep)) {
		return // a sweep will find it
	}
	w.mu.Lock()
	var changed bool
	if due.After(now) {
		changed = w.timer(id, due)
	} else {
		changed = w.push(id)
	}
	w.mu.Unlock()
	if changed {
		w.wake()
	}
}

func (w *Worker[T]) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// timer sets the document's timer unless an earlier one is set, and reports whether it is the next to go off; the caller holds mu.
// Who comes too early finds out when to look again.
func (w *Worker[T]) timer(id string, at time.Time) bool {
	if old, ok := w.timerOf[id]; ok && !at.Before(old) {
		return false
	}
	w.timerOf[id] = at
	heap.Push(&w.timers, timer{at: at, id: id})
	return w.timers[0].id == id
}

// push queues id unless it is queued, and reports whether it did; the caller holds mu.
func (w *Worker[T]) push(id string) bool {
	switch s, ok := w.known[id]; {
	case !ok:
		w.known[id] = queued
		w.ready = append(w.ready, id)
		return true
	case s == inHand:
		w.known[id] = stepped
	}
	return false
}

func (w *Worker[T]) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ready) == 0
}

func (w *Worker[T]) take(now time.Time) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.timers) > 0 && !w.timers[0].at.After(now) {
		t, _ := heap.Pop(&w.timers).(timer)
		if at, ok := w.timerOf[t.id]; ok && at.Equal(t.at) {
			delete(w.timerOf, t.id)
			w.push(t.id)
		}
	}
	if len(w.ready) == 0 {
		return "", false
	}
	doc := w.ready[0]
	if w.ready = w.ready[1:]; len(w.ready) == 0 {
		w.ready = nil
	}
	w.known[doc] = inHand
	return doc, true
}

func (w *Worker[T]) done(id string) {
	w.mu.Lock()
	again := w.known[id] == stepped
	delete(w.known, id)
	if again {
		w.push(id)
	}
	w.mu.Unlock()
	if again {
		w.wake()
	}
}

// next is when to look again: at the sweep, or when the first timer goes off.
func (w *Worker[T]) next(sweep time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.timers) > 0 && w.timers[0].at.Before(sweep) {
		return w.timers[0].at
	}
	return sweep
}

// sweep queues what is due and free, and reports whether there may be more.
func (w *Worker[T]) sweep(ctx context.Context, now time.Time) (more bool) {
	found, err := w.cfg.Coll.Due(ctx, now, sweepLimit)
	if err != nil {
		if ctx.Err() == nil {
			w.cfg.Logger.WarnContext(ctx, "due documents cannot be read", "worker", w.cfg.Name, "error", err)
		}
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	added := 0
	for _, d := range found {
		_, known := w.known[d.ID]
		switch {
		case known: // queued, or in hand and as new as what was found
		case !d.LeaseUntil.After(now):
			w.push(d.ID)
			added++
		case d.LeaseUntil.Before(now.Add(w.cfg.Sweep)):
			w.timer(d.ID, d.LeaseUntil)
		}
	}
	return len(found) == sweepLimit && added > 0
}

// hands sets or ends the taking of documents by the writes that make them due.
func (w *Worker[T]) hands(f func(id string) func(*docstore.Doc[T])) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hand = f
}

// adopt takes a document that is about to be written, if a slot is free and nobody looks after it yet.
func (w *Worker[T]) adopt(docID string) (token string, lease time.Duration, stored func(*docstore.Doc[T])) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.known[docID]; known || w.hand == nil {
		return "", 0, nil
	}
	select {
	case w.slots <- struct{}{}:
	default:
		return "", 0, nil
	}
	w.known[docID] = inHand
	return w.token(), w.cfg.Lease, w.hand(docID)
}

func (w *Worker[T]) token() string { return id.New("lse", w.cfg.Clock.Now()) }

// chain steps a claimed document for as long as something is due.
func (w *Worker[T]) chain(ctx context.Context, doc docstore.Doc[T]) {
	for n, ok := 1, true; ok; n++ {
		doc, ok = w.step(ctx, doc, n)
	}
}

// claim takes the lease, and reports whether there is work to do under it.
func (w *Worker[T]) claim(ctx context.Context, docID, token string) (doc docstore.Doc[T], ok bool) {
	for tries := 0; ; tries++ {
		if ctx.Err() != nil {
			return doc, false
		}
		var err error
		if doc, err = w.cfg.Coll.Get(ctx, docID); err != nil {
			if errs.KindOf(err) != errs.NotFound && ctx.Err() == nil {
				w.cfg.Logger.WarnContext(ctx, "a due document cannot be read", "worker", w.cfg.Name, "id", docID, "error", err)
			}
			return doc, false
		}
		revision := doc.Revision
		claimed, err := w.cfg.Coll.Claim(ctx, &doc, token, w.cfg.Lease)
		switch kind := errs.KindOf(err); {
		case err == nil:
			if doc.Revision != revision {
				w.progress.Store(true)
			}
			if !claimed {
				w.later(doc)
			}
			return doc, claimed
		case kind == errs.Conflict:
		case (kind == errs.Unavailable || kind == errs.Timeout) && tries < 3: // it may have been written: the next look knows the token
		default:
			if ctx.Err() == nil {
				w.cfg.Logger.WarnContext(ctx, "a due document cannot be claimed", "worker", w.cfg.Name, "id", docID, "error", err)
			}
			return doc, false
		}
	}
}

// later sets the timer of a document that was looked at too early.
func (w *Worker[T]) later(doc docstore.Doc[T]) {
	at, now := doc.DueAt, w.cfg.Clock.Now()
	if doc.LeaseUntil.After(now) && doc.LeaseUntil.After(at) {
		at = doc.LeaseUntil
	}
	if at.After(now) {
		w.at(doc.ID, at)
	}
}

// step does one step of a claimed document and reports whether the lease is still held for another.
func (w *Worker[T]) step(ctx context.Context, doc docstore.Doc[T], chain int) (docstore.Doc[T], bool) {
	if ctx.Err() != nil {
		writeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(w.cfg.Grace, time.Second))
		defer cancel()
		w.release(writeCtx, doc)
		return doc, false
	}
	deadline := doc.LeaseUntil.Add(-w.cfg.Lease / 2)
	stepCtx := propagation.TraceContext{}.Extract(context.WithoutCancel(ctx), propagation.MapCarrier{"traceparent": doc.Trace})
	stepCtx, span := w.cfg.Tracer.Start(stepCtx, w.cfg.Name+" step", trace.WithAttributes(attribute.String("document.id", doc.ID)))
	defer span.End()
	res, err := w.call(context.WithValue(stepCtx, leaseKey{}, lease{clock: w.cfg.Clock, sendBy: deadline, tracer: w.cfg.Tracer}), doc, deadline, ctx.Done())
	// What was found out is written whatever ended the step, but a stop does not wait for ever.
	writeCtx, cancelWrite := context.WithTimeout(stepCtx, w.cfg.Lease)
	defer cancelWrite()
	defer context.AfterFunc(ctx, func() {
		grace, end := context.WithTimeout(writeCtx, max(w.cfg.Grace, time.Second))
		defer end()
		<-grace.Done()
		cancelWrite()
	})()
	stop := ctx.Err() != nil
	if err != nil && stop { // give the document back as it is
		w.release(writeCtx, doc)
		return doc, false
	}
	if err == nil && res.Apply == nil {
		err = errs.New(errs.Internal, "", "a step of %s answered nothing", w.cfg.Name)
	}
	if err != nil {
		w.trouble(writeCtx, span, doc, err)
		res.Apply = w.backoff(err)
	} else {
		w.count(writeCtx, "done")
	}
	return w.write(writeCtx, doc, res, stop, chain)
}

// call runs Step with a context that ends at half the lease, or Grace after the worker was told to stop.
func (w *Worker[T]) call(ctx context.Context, doc docstore.Doc[T], deadline time.Time, stopping <-chan struct{}) (Result[T], error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timeout, stopTimer := w.cfg.Clock.After(deadline.Sub(w.cfg.Clock.Now()))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer stopTimer()
		select {
		case <-ctx.Done():
			return
		case <-timeout:
			cancel(errHalfLease)
			return
		case <-stopping:
		}
		grace, end := context.WithTimeout(ctx, w.cfg.Grace)
		defer end()
		select {
		case <-timeout:
			cancel(errHalfLease)
		case <-grace.Done():
			cancel(errStopping)
		}
	}()
	res, err := protect(func() (Result[T], error) { return w.cfg.Step(ctx, doc) })
	cause := context.Cause(ctx)
	cancel(nil)
	<-watched
	if err != nil && errors.Is(cause, errHalfLease) && errs.As(err) == nil { // nobody classified the end of the context
		err = errs.New(errs.Timeout, "STEP_TIMEOUT", "half the lease has passed: %w", err)
	}
	return res, err
}

func protect[R any](f func() (R, error)) (res R, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "", "panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
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
func (w *Worker[T]) write(ctx context.Context, doc docstore.Doc[T], res Result[T], stop bool, chain int) (docstore.Doc[T], bool) {
	token, refused := doc.LeaseToken, false
	for {
		next, conflict := doc, false
		facts, err := protect(func() ([]outbox.Fact, error) { return res.Apply(&next) })
		now := w.cfg.Clock.Now()
		due := !next.WorkAt.IsZero() && !next.WorkAt.After(now)
		switch {
		case errors.Is(err, outbox.ErrUnchanged):
			next, facts, err = doc, nil, nil
			if due = !doc.WorkAt.After(now); due {
				err = errs.New(errs.Internal, "", "a step of %s changed nothing and left the document due", w.cfg.Name)
			}
		case err == nil && due && chain >= maxChain:
			err = errs.New(errs.Internal, "", "%d steps of %s left the document due", chain, w.cfg.Name)
		}
		if err == nil {
			if next.Failures == doc.Failures {
				next.Failures = 0
			}
			more := due && !stop
			if more {
				next.LeaseUntil = now.Add(w.cfg.Lease)
			} else {
				next.LeaseUntil, next.LeaseToken = now, ""
			}
			if err = w.save(ctx, doc, &next, facts); err == nil {
				return next, more
			}
			if errs.KindOf(err) == errs.Unavailable || errs.KindOf(err) == errs.Timeout || errs.KindOf(err) == errs.Canceled {
				w.cfg.Logger.ErrorContext(ctx, "what a step found out is perhaps not written; the lease runs out and the step is done again",
					"worker", w.cfg.Name, "id", doc.ID, "orphan", orphanName(res.Orphan), "error", err)
				return doc, false
			}
			conflict = errs.KindOf(err) == errs.Conflict
		}
		if !conflict { // neither this result nor the next try of it fits the document
			w.cfg.Logger.ErrorContext(ctx, "what a step found out cannot be written; the step is done again later",
				"worker", w.cfg.Name, "id", doc.ID, "orphan", orphanName(res.Orphan), "error", err)
			if refused {
				return doc, false
			}
			refused = true
			res.Apply = w.backoff(err) // that of the newest error, should others follow
		}
		if doc, err = w.cfg.Coll.Get(ctx, doc.ID); err != nil {
			w.cfg.Logger.ErrorContext(ctx, "what a step found out cannot be written: the document cannot be read",
				"worker", w.cfg.Name, "orphan", orphanName(res.Orphan), "error", err)
			return doc, false
		}
		if doc.LeaseToken != token {
			w.lost(ctx, doc, res.Orphan)
			return doc, false
		}
	}
}

// save writes next, which was made of old. When the store does not answer it looks whether the write was done, and tries again until the lease ends:
// what came of an outside call is worth some patience. Conflict: another write came first, and certainly not this one.
func (w *Worker[T]) save(ctx context.Context, old docstore.Doc[T], next *docstore.Doc[T], facts []outbox.Fact) error {
	var unknown error
	for pause := writeTries; ; pause = min(2*pause, 5*time.Second) {
		attempt := *next
		err := w.cfg.Coll.Save(ctx, &attempt, facts...)
		kind := errs.KindOf(err)
		switch {
		case err == nil:
			*next = attempt
			return nil
		case kind == errs.Unavailable, kind == errs.Timeout:
			unknown = err
		case kind != errs.Conflict || unknown == nil:
			return err
		}
		if !w.cfg.Clock.Now().Before(old.LeaseUntil) || w.cfg.Clock.Sleep(ctx, pause) != nil {
			return unknown
		}
		stored, err := w.cfg.Coll.Get(ctx, old.ID)
		switch {
		case err != nil || stored.Revision == old.Revision:
		case stored.LeaseToken == old.LeaseToken && next.LeaseToken == "": // ours would have ended the lease
			return errs.New(errs.Conflict, "REVISION_CONFLICT", "another write came first")
		default:
			return unknown // ours, or on top of ours: to apply it twice would be worse than to look again
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
		d.Orphans = append(slices.Clone(d.Orphans), o)
		return nil, nil
	})
	if err != nil {
		w.cfg.Logger.ErrorContext(ctx, "something created outside is not recorded", "worker", w.cfg.Name, "id", doc.ID,
			"orphan", orphanName(orphan), "error", err)
	}
}

func orphanName(o *docstore.Orphan) string {
	if o == nil {
		return ""
	}
	return o.Kind + " " + o.Ref
}

// release gives an unfinished document back at once, so that the next start need not wait for the lease to end.
func (w *Worker[T]) release(ctx context.Context, doc docstore.Doc[T]) {
	_, err := w.cfg.Coll.Change(ctx, doc.ID, func(d *docstore.Doc[T]) ([]outbox.Fact, error) {
		if d.LeaseToken != doc.LeaseToken {
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

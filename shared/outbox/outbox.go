// Package outbox is the write path: a document is saved under its revision guard together with the facts that the
// write made true, and a relay brings those facts to the bus (and audit entries to identity) whatever crashes in between.
//
// Use one Outbox per store, and open each collection through it. Nothing else may write to the store.
//
// What is promised: a fact whose write succeeded reaches the bus at least once; facts of one document leave one process in the order of their
// revisions. What is not: that a fact comes only once, or in order when several replicas write, a crash or a failure came between, or more waits
// than memory holds.
package outbox

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
)

// Publisher is what the relay needs of the bus; *bus.Bus is one.
type Publisher interface {
	// Publish sends the entries in order and returns when the bus has stored them all. Invalid: one of them never can be.
	Publish(ctx context.Context, entries ...docstore.Entry) error
	// SafeAfter is how long after Publish an entry must be kept, since the bus may still lose it in a power cut.
	SafeAfter() time.Duration
	// OnNewStream registers a function that is called when the bus has lost its stream and made a new one.
	OnNewStream(f func())
}

// Config of an Outbox. Store, Bus, Source, Clock and Logger are needed.
type Config struct {
	Store  docstore.Store
	Bus    Publisher
	Source string // the service's name; ce-source
	Clock  clock.Clock
	Logger *slog.Logger
	Meter  metric.Meter // nil: no metrics
	// Audit hands audit entries to identity; it must be idempotent by entry id. Invalid: one of them never can be taken. Nil: this service makes none.
	Audit func(ctx context.Context, entries []docstore.Entry) error
	// Sweep is how often entries that a crash left are looked for, and the longest pause after a failure, default 5 s.
	Sweep time.Duration
	// Abandoned is how old an entry is before a sweep takes it for left behind, default 10 s.
	Abandoned time.Duration
	// FirstRepeat is when an awaited fact is told again for the first time, default 60 s; then three times as long each time up to MaxRepeat.
	FirstRepeat time.Duration
	// MaxRepeat is the longest wait between two repeats, default 1 h.
	MaxRepeat time.Duration
	// Lease and WorkerSweep are what the workers of its collections use where nothing else is configured; defaults 60 s and 5 s.
	Lease, WorkerSweep time.Duration
}

// Outbox relays what the collections of one store told. It is safe for concurrent use.
type Outbox struct {
	cfg   Config
	locks locks
	met   metrics

	events, audits *lane

	mu       sync.Mutex // guards what follows, and the lanes
	seq      uint64     // of the entry last queued
	items    map[key]*item
	progress *sync.Cond // something left a queue
	streams  int        // how often the bus made a new stream

	watching sync.RWMutex // guards what follows
	watch    map[string]func(id string, at time.Time)
	missing  map[string]bool // collections without a worker that was already complained about
}

// New makes an Outbox. Call Run to start its relay.
func New(cfg Config) *Outbox {
	cfg.Sweep, cfg.Abandoned = cmp.Or(cfg.Sweep, 5*time.Second), cmp.Or(cfg.Abandoned, 10*time.Second)
	cfg.FirstRepeat, cfg.MaxRepeat = cmp.Or(cfg.FirstRepeat, time.Minute), cmp.Or(cfg.MaxRepeat, time.Hour)
	cfg.Lease, cfg.WorkerSweep = cmp.Or(cfg.Lease, time.Minute), cmp.Or(cfg.WorkerSweep, 5*time.Second)
	o := &Outbox{
		cfg:     cfg,
		locks:   locks{held: map[string]*docLock{}},
		met:     newMetrics(cfg.Meter),
		items:   map[key]*item{},
		watch:   map[string]func(string, time.Time){},
		missing: map[string]bool{},
	}
	o.progress = sync.NewCond(&o.mu)
	o.events = newLane("events", func(ctx context.Context, entries []docstore.Entry) error { return cfg.Bus.Publish(ctx, entries...) })
	o.events.safeAfter = cfg.Bus.SafeAfter
	o.audits = newLane("audit", cfg.Audit)
	cfg.Bus.OnNewStream(o.resend)
	return o
}

// Clock returns the clock that every collection of the outbox uses.
func (o *Outbox) Clock() clock.Clock { return o.cfg.Clock }

// Epoch returns the epoch of the store.
func (o *Outbox) Epoch() string { return o.cfg.Store.Epoch() }

// Run relays until ctx ends, then sends what is waiting for at most five seconds (audit entries two). What is left is found in the store by the next
// start.
func (o *Outbox) Run(ctx context.Context) error {
	var lanes sync.WaitGroup
	lanes.Go(func() { o.relay(ctx, o.events, 5*time.Second) })
	if o.cfg.Audit != nil {
		lanes.Go(func() { o.relay(ctx, o.audits, 2*time.Second) })
	}
	o.keep(ctx)
	lanes.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	o.clear(last)
	return nil
}

// Flush waits until every fact and audit entry saved before the call has been sent or set aside as impossible to send, or ctx ends. Run must be running.
func (o *Outbox) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.progress.Broadcast()
	})
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	last := o.seq
	for (o.events.oldest() <= last || o.audits.oldest() <= last) && ctx.Err() == nil {
		o.progress.Wait()
	}
	return ctx.Err()
}

// Fact is an event to be told by a write. Make it with Tell, Keep or Await.
type Fact struct {
	msg   proto.Message
	keep  string
	await bool
}

// Tell is a fact that nobody waits for: a projection's or an effect's food.
func Tell(m proto.Message) Fact { return Fact{msg: m} }

// Keep is an answer that may be asked for again: the document keeps it under its natural key.
func Keep(natural string, m proto.Message) Fact { return Fact{msg: m, keep: natural} }

// Await is a fact that hands work on: it is told again until Answered(natural) is called on the document. It is the worker of the collection that
// tells again: a collection that awaits needs one, even with a Step that never has anything to do.
func Await(natural string, m proto.Message) Fact { return Fact{msg: m, keep: natural, await: true} }

// String names the fact for logs.
func (f Fact) String() string { return fmt.Sprintf("%T(%s)", f.msg, f.keep) }

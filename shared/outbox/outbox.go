// Package outbox is the write path: a document is saved under its revision guard together with the facts that the
// write made true, and a relay brings those facts to the bus (and audit entries to identity) whatever crashes in between.
//
// Use one Outbox per store, and open each collection through it. Nothing else may write to the store.
package outbox

import (
	"context"
	"errors"
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
	// Publish sends the entries in order and returns when the bus has stored them all.
	Publish(ctx context.Context, entries ...docstore.Entry) error
	// SafeAfter is how long after Publish an entry must be kept, since the bus may still lose it in a power cut.
	SafeAfter() time.Duration
	// OnNewStream registers a function that is called when the bus has lost its stream and made a new one.
	OnNewStream(f func())
}

// Config of an Outbox. All fields but Audit and Meter are needed.
type Config struct {
	Store  docstore.Store
	Bus    Publisher
	Source string // the service's name; ce-source
	Clock  clock.Clock
	Logger *slog.Logger
	Meter  metric.Meter
	// Audit hands audit entries to identity; it must be idempotent by entry id. Nil: this service makes none.
	Audit func(ctx context.Context, entries []docstore.Entry) error
	// Sweep is how often entries that a crash left are looked for, default 5 s.
	Sweep time.Duration
	// Abandoned is how old an entry is before a sweep takes it for left behind, default 10 s.
	Abandoned time.Duration
	// FirstRepeat is when an awaited fact is told again for the first time, default 60 s; then three times as long each time up to MaxRepeat.
	FirstRepeat time.Duration
	// MaxRepeat is the longest wait between two repeats, default 1 h.
	MaxRepeat time.Duration
}

// Outbox relays what the collections of one store told.
type Outbox struct {
	cfg   Config
	queue chan struct{}

	mu      sync.Mutex
	waiting []docstore.Pending   // saved, not yet sent
	sent    map[string]sentEntry // sent, not yet cleared, by document and message id
	flushed *sync.Cond           // signalled when waiting and the batch in hand are empty
	busy    bool                 // a batch is being sent
	watch   map[string]func(due) // the worker of a collection, by name
	unacked map[string]struct{}  // audit entries on their way
	counter map[string]metric.Int64Counter
}

type sentEntry struct {
	pending docstore.Pending
	at      time.Time
}

type due struct {
	id string
	at time.Time
}

// New makes an Outbox. Call Run to start its relay.
func New(cfg Config) *Outbox {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Sweep, 5*time.Second)
	def(&cfg.Abandoned, 10*time.Second)
	def(&cfg.FirstRepeat, time.Minute)
	def(&cfg.MaxRepeat, time.Hour)
	o := &Outbox{
		cfg:   cfg,
		queue: make(chan struct{}, 1),
		sent:  map[string]sentEntry{},
		watch: map[string]func(due){},
	}
	o.flushed = sync.NewCond(&o.mu)
	cfg.Bus.OnNewStream(o.resend)
	return o
}

// Clock returns the clock that every collection of the outbox uses.
func (o *Outbox) Clock() clock.Clock { return o.cfg.Clock }

// Epoch returns the epoch of the store.
func (o *Outbox) Epoch() string { return o.cfg.Store.Epoch() }

// Run relays until ctx ends, then flushes what is waiting for at most five seconds.
func (o *Outbox) Run(ctx context.Context) error {
	for {
		o.relay(ctx)
		wake, stop := o.cfg.Clock.After(o.nextPass())
		select {
		case <-ctx.Done():
			stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			o.relay(last)
			o.clear(last)
			cancel()
			return nil
		case <-o.queue:
		case <-wake:
			o.sweep(ctx)
			o.clear(ctx)
		}
		stop()
	}
}

// Flush waits until everything saved so far has been sent, or ctx ends. Run must be running.
func (o *Outbox) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, o.flushed.Broadcast)
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for (len(o.waiting) > 0 || o.busy) && ctx.Err() == nil {
		o.flushed.Wait()
	}
	return ctx.Err()
}

func (o *Outbox) nextPass() time.Duration {
	if safe := o.cfg.Bus.SafeAfter(); safe > 0 && safe < o.cfg.Sweep {
		return safe
	}
	return o.cfg.Sweep
}

func (o *Outbox) enqueue(pending []docstore.Pending) {
	if len(pending) == 0 {
		return
	}
	o.mu.Lock()
	o.waiting = append(o.waiting, pending...)
	o.mu.Unlock()
	select {
	case o.queue <- struct{}{}:
	default:
	}
}

// relay sends what is waiting. What cannot be sent is put back, in front.
func (o *Outbox) relay(ctx context.Context) {
	for {
		o.mu.Lock()
		batch := o.waiting
		o.waiting = nil
		o.busy = len(batch) > 0
		if !o.busy {
			o.flushed.Broadcast()
		}
		o.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		left := o.send(ctx, batch)
		o.mu.Lock()
		o.waiting = append(left, o.waiting...)
		o.busy = false
		o.mu.Unlock()
		if len(left) > 0 {
			return // the next sweep or save tries again
		}
	}
}

func (o *Outbox) send(ctx context.Context, batch []docstore.Pending) (left []docstore.Pending) {
	var events, audits []docstore.Pending
	for _, p := range batch {
		if p.Entry.Kind == docstore.EntryAudit {
			audits = append(audits, p)
		} else {
			events = append(events, p)
		}
	}
	if len(events) > 0 {
		if err := o.cfg.Bus.Publish(ctx, entries(events)...); err != nil {
			o.cfg.Logger.WarnContext(ctx, "publishing is delayed", "error", err, "entries", len(events))
			left = append(left, events...)
		} else {
			o.markSent(events)
		}
	}
	if len(audits) > 0 {
		if err := o.audit(ctx, audits); err != nil {
			o.cfg.Logger.WarnContext(ctx, "audit entries are delayed", "error", err, "entries", len(audits))
			left = append(left, audits...)
		}
	}
	return left
}

func (o *Outbox) audit(ctx context.Context, audits []docstore.Pending) error {
	if o.cfg.Audit == nil {
		return errors.New("this service has no audit sink")
	}
	if err := o.cfg.Audit(ctx, entries(audits)); err != nil {
		return err
	}
	o.mu.Lock()
	for _, p := range audits { // identity has them for good: clear with the next batch
		o.sent[key(p)] = sentEntry{pending: p}
	}
	o.mu.Unlock()
	return nil
}

func (o *Outbox) markSent(events []docstore.Pending) {
	now := o.cfg.Clock.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range events {
		o.sent[key(p)] = sentEntry{pending: p, at: now}
	}
}

// resend puts everything sent but not cleared back into the queue: the bus has forgotten it.
func (o *Outbox) resend() {
	o.mu.Lock()
	var again []docstore.Pending
	for k, s := range o.sent {
		if s.pending.Entry.Kind == docstore.EntryEvent {
			again = append(again, s.pending)
			delete(o.sent, k)
		}
	}
	o.mu.Unlock()
	o.enqueue(again)
}

// sweep finds entries that a crash, or another replica's crash, left behind.
func (o *Outbox) sweep(ctx context.Context) {
	pending, err := o.cfg.Store.Outbox(ctx, o.cfg.Clock.Now().Add(-o.cfg.Abandoned), 1000)
	if err != nil {
		if ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "the outbox cannot be read", "error", err)
		}
		return
	}
	o.mu.Lock()
	known := make(map[string]struct{}, len(o.waiting))
	for _, p := range o.waiting {
		known[key(p)] = struct{}{}
	}
	var found []docstore.Pending
	for _, p := range pending {
		_, isWaiting := known[key(p)]
		_, isSent := o.sent[key(p)]
		if !isWaiting && !isSent {
			found = append(found, p)
		}
	}
	o.mu.Unlock()
	o.enqueue(found)
	o.relay(ctx)
}

// clear removes from the store what the bus cannot lose any more.
func (o *Outbox) clear(ctx context.Context) {
	safe := o.cfg.Clock.Now().Add(-o.cfg.Bus.SafeAfter())
	o.mu.Lock()
	var done []docstore.Pending
	for _, s := range o.sent {
		if !s.at.After(safe) {
			done = append(done, s.pending)
		}
	}
	o.mu.Unlock()
	if len(done) == 0 {
		return
	}
	if err := o.cfg.Store.Clear(ctx, done); err != nil {
		if ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "sent outbox entries cannot be cleared yet", "error", err)
		}
		return
	}
	o.mu.Lock()
	for _, p := range done {
		delete(o.sent, key(p))
	}
	o.mu.Unlock()
}

func key(p docstore.Pending) string { return p.Collection + "/" + p.Entry.MsgID }

func entries(pending []docstore.Pending) []docstore.Entry {
	out := make([]docstore.Entry, len(pending))
	for i, p := range pending {
		out[i] = p.Entry
	}
	return out
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

// Await is a fact that hands work on: it is told again until Answered(natural) is called on the document.
func Await(natural string, m proto.Message) Fact { return Fact{msg: m, keep: natural, await: true} }

// String names the fact for logs.
func (f Fact) String() string { return fmt.Sprintf("%T(%s)", f.msg, f.keep) }

package outbox

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

const (
	batchSize  = 500                    // entries sent, or cleared, together
	firstPause = 250 * time.Millisecond // after a failure; doubles up to Config.Sweep
	sweepLimit = 1000                   // entries that a sweep looks at, at first
	sweepMost  = 64 * sweepLimit
	maxWaiting = 100_000 // entries of a lane held in memory; the rest stays in the store for a sweep
	maxWhole   = 50_000  // sent entries held with their content; of the rest only the name is
)

// key names an entry: MsgID has the document's id in it.
type key struct{ collection, msgID string }

type state uint8

const (
	waiting state = iota // in a lane, to be sent
	sending              // in hand
	sent                 // to be cleared when it is safe
	parked               // never can be sent; stays in the store, is tried again after a restart
)

// item is an entry that this process takes care of. Its fields are guarded by Outbox.mu.
type item struct {
	docstore.Pending
	seq     uint64 // the order in which entries were queued
	state   state
	at      time.Time // when it was sent
	hollow  bool      // the content was dropped
	streams int       // Outbox.streams when it was taken in hand
}

func (i *item) key() key { return key{i.Collection, i.Entry.MsgID} }

// lane is one way out: entries go in order, and one that is shut does not hold up the other. Its fields below wake are guarded by Outbox.mu.
type lane struct {
	name      string
	send      func(ctx context.Context, entries []docstore.Entry) error
	safeAfter func() time.Duration
	wake      chan struct{}

	queue    []*item // by seq
	inHand   []*item
	done     []*item // sent, by time
	whole    int     // items of done that are not hollow
	failures int     // in a row
	retryAt  time.Time
}

func newLane(name string, send func(context.Context, []docstore.Entry) error) *lane {
	return &lane{name: name, send: send, safeAfter: func() time.Duration { return 0 }, wake: make(chan struct{}, 1)}
}

// oldest is the seq of the first entry not sent yet.
func (l *lane) oldest() uint64 {
	first := uint64(math.MaxUint64)
	if len(l.inHand) > 0 {
		first = l.inHand[0].seq
	}
	if len(l.queue) > 0 {
		first = min(first, l.queue[0].seq)
	}
	return first
}

// putBack queues items again, in their place.
func (l *lane) putBack(items []*item) {
	if len(items) == 0 {
		return
	}
	for _, i := range items {
		i.state = waiting
	}
	l.queue = append(slices.Clone(items), l.queue...)
	slices.SortStableFunc(l.queue, func(a, b *item) int { return cmp.Compare(a.seq, b.seq) })
}

func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (o *Outbox) laneOf(kind docstore.EntryKind) *lane {
	if kind == docstore.EntryAudit {
		return o.audits
	}
	return o.events
}

// enqueue takes entries that are in the store over for sending, unless that is known already. It returns how many were new.
func (o *Outbox) enqueue(pending []docstore.Pending) (added int) {
	if len(pending) == 0 {
		return 0
	}
	var poked [2]*lane
	o.mu.Lock()
	for _, p := range pending {
		l := o.laneOf(p.Entry.Kind)
		k := key{p.Collection, p.Entry.MsgID}
		if o.items[k] != nil || len(l.queue) >= maxWaiting || l.send == nil {
			continue
		}
		o.seq++
		i := &item{Pending: p, seq: o.seq}
		o.items[k] = i
		l.queue = append(l.queue, i)
		added++
		if l == o.events {
			poked[0] = l
		} else {
			poked[1] = l
		}
	}
	o.mu.Unlock()
	for _, l := range poked {
		if l != nil {
			l.poke()
		}
	}
	return added
}

// relay empties one lane until ctx ends, and then once more for at most grace.
func (o *Outbox) relay(ctx context.Context, l *lane, grace time.Duration) {
	for {
		o.drain(ctx, l)
		o.mu.Lock()
		again, pause := len(l.queue) > 0, l.retryAt
		o.mu.Unlock()
		var retry <-chan time.Time
		stop := func() {}
		if again {
			retry, stop = o.cfg.Clock.After(pause.Sub(o.cfg.Clock.Now()))
		}
		select {
		case <-l.wake:
		case <-retry:
		case <-ctx.Done():
			stop()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			o.mu.Lock()
			l.retryAt = time.Time{}
			o.mu.Unlock()
			o.drain(last, l)
			return
		}
		stop()
	}
}

// drain sends what is waiting until nothing is left or the way is shut.
func (o *Outbox) drain(ctx context.Context, l *lane) {
	for {
		batch := o.take(l)
		if len(batch) == 0 {
			return
		}
		left, err := o.deliver(ctx, l, batch)
		o.mu.Lock()
		l.inHand = nil
		l.putBack(left)
		if err == nil {
			l.failures = 0
		} else {
			l.retryAt = o.cfg.Clock.Now().Add(min(firstPause<<min(l.failures, 16), o.cfg.Sweep))
			l.failures++
		}
		failures, length := l.failures, len(l.queue)
		o.progress.Broadcast()
		o.mu.Unlock()
		o.met.waiting.Record(ctx, int64(length), metric.WithAttributes(attribute.String("lane", l.name)))
		if err != nil {
			if ctx.Err() == nil && (failures == 1 || failures%20 == 0) {
				o.cfg.Logger.WarnContext(ctx, "telling is delayed; it is tried again", "lane", l.name, "error", err, "entries", length, "failures", failures)
			}
			return
		}
	}
}

// take takes the next batch in hand, none while the lane pauses.
func (o *Outbox) take(l *lane) []*item {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.failures > 0 && l.retryAt.After(o.cfg.Clock.Now()) {
		return nil
	}
	n := min(len(l.queue), batchSize)
	l.inHand = slices.Clone(l.queue[:n])
	clear(l.queue[:n])
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	for _, i := range l.inHand {
		i.state, i.streams = sending, o.streams
	}
	return l.inHand
}

// deliver sends a batch. An entry that can never be sent must not hold up the others: it is looked for by halving. left is what is to be sent again.
func (o *Outbox) deliver(ctx context.Context, l *lane, batch []*item) (left []*item, err error) {
	entries := make([]docstore.Entry, len(batch))
	for n, i := range batch {
		entries[n] = i.Entry
	}
	err = l.send(ctx, entries)
	switch {
	case err == nil:
		return o.markSent(l, batch), nil
	case errs.KindOf(err) != errs.Invalid:
		return batch, err
	case len(batch) == 1:
		o.park(ctx, l, batch[0], err)
		return nil, nil
	}
	half := len(batch) / 2
	first, err := o.deliver(ctx, l, batch[:half])
	if err != nil {
		return append(slices.Clone(first), batch[half:]...), err
	}
	second, err := o.deliver(ctx, l, batch[half:])
	return append(slices.Clone(first), second...), err
}

// markSent notes what was sent, and returns what has to be sent again because the bus lost its stream meanwhile.
func (o *Outbox) markSent(l *lane, batch []*item) (again []*item) {
	now := o.cfg.Clock.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range batch {
		if l == o.events && i.streams != o.streams {
			again = append(again, i)
			continue
		}
		i.state, i.at = sent, now
		if l.whole++; l.whole > maxWhole {
			l.whole--
			i.hollow, i.Entry.Data, i.Entry.Headers = true, nil, nil
		}
		l.done = append(l.done, i)
	}
	return again
}

func (o *Outbox) park(ctx context.Context, l *lane, i *item, err error) {
	o.mu.Lock()
	i.state = parked
	o.mu.Unlock()
	o.met.parked.Add(ctx, 1, metric.WithAttributes(attribute.String("lane", l.name)))
	o.cfg.Logger.ErrorContext(ctx, "an outbox entry can never be sent; it stays in the store", "lane", l.name, "collection", i.Collection, "id", i.DocID,
		"entry", i.Entry.MsgID, "error", err)
}

// resend queues everything sent but not cleared again: the bus has forgotten it.
func (o *Outbox) resend() {
	o.mu.Lock()
	l := o.events
	o.streams++
	var again []*item
	for _, i := range l.done {
		if i.hollow {
			delete(o.items, i.key()) // a sweep reads it from the store
		} else {
			again = append(again, i)
		}
	}
	l.done, l.whole, l.failures, l.retryAt = nil, 0, 0, time.Time{}
	l.putBack(again)
	o.mu.Unlock()
	l.poke()
}

// keep sweeps and clears until ctx ends.
func (o *Outbox) keep(ctx context.Context) {
	limit := sweepLimit
	for {
		every := o.cfg.Sweep
		if safe := o.cfg.Bus.SafeAfter(); safe > 0 {
			every = min(every, safe)
		}
		if o.cfg.Clock.Sleep(ctx, every) != nil {
			return
		}
		limit = o.sweep(ctx, limit)
		o.clear(ctx)
	}
}

// sweep finds entries that a crash, or another replica's crash, left behind. It returns how many the next sweep should look at: more when what is
// stuck at the front hides the rest.
func (o *Outbox) sweep(ctx context.Context, limit int) int {
	pending, err := o.cfg.Store.Outbox(ctx, o.cfg.Clock.Now().Add(-o.cfg.Abandoned), limit)
	if err != nil {
		if ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "the outbox cannot be read", "error", err)
		}
		return limit
	}
	added := o.enqueue(pending)
	if len(pending) < limit {
		return sweepLimit
	}
	o.mu.Lock()
	stuck := 0
	for _, p := range pending {
		if i := o.items[key{p.Collection, p.Entry.MsgID}]; i == nil || i.state != sent {
			stuck++
		}
	}
	o.mu.Unlock()
	if added == 0 && stuck > limit/2 {
		return min(2*limit, sweepMost)
	}
	return limit
}

// clear removes from the store what the bus cannot lose any more, and audit entries that identity has.
func (o *Outbox) clear(ctx context.Context) {
	for _, l := range []*lane{o.events, o.audits} {
		safe := o.cfg.Clock.Now().Add(-l.safeAfter())
		for o.clearSome(ctx, l, safe) {
			continue
		}
	}
}

// clearSome clears one batch and reports whether there may be more.
func (o *Outbox) clearSome(ctx context.Context, l *lane, safe time.Time) bool {
	var batch []*item
	var pending []docstore.Pending
	o.mu.Lock()
	for _, i := range l.done[:min(len(l.done), batchSize)] {
		if i.at.After(safe) {
			break
		}
		batch, pending = append(batch, i), append(pending, i.Pending)
	}
	o.mu.Unlock()
	if len(batch) == 0 {
		return false
	}
	if err := o.cfg.Store.Clear(ctx, pending); err != nil {
		if ctx.Err() == nil {
			o.cfg.Logger.WarnContext(ctx, "sent outbox entries cannot be cleared yet", "error", err)
		}
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(l.done) == 0 || l.done[0] != batch[0] {
		return false // the stream was lost meanwhile: they are sent once more
	}
	for _, i := range batch {
		delete(o.items, i.key())
		if !i.hollow {
			l.whole--
		}
	}
	clear(l.done[:len(batch)])
	if l.done = l.done[len(batch):]; len(l.done) == 0 {
		l.done = nil
	}
	return len(batch) == batchSize
}

type metrics struct {
	waiting metric.Int64Gauge
	parked  metric.Int64Counter
	again   metric.Int64Counter
	silent  metric.Int64Counter
}

// newMetrics makes the instruments. An SDK that refuses a name still gives a usable one, and says so itself.
func newMetrics(m metric.Meter) (met metrics) {
	if m == nil {
		m = noop.NewMeterProvider().Meter("")
	}
	met.waiting, _ = m.Int64Gauge("certwright.outbox.waiting", metric.WithDescription("Entries not sent yet, by lane: events or audit."))
	met.parked, _ = m.Int64Counter("certwright.outbox.parked", metric.WithDescription("Entries that can never be sent."))
	met.again, _ = m.Int64Counter("certwright.outbox.told_again", metric.WithDescription("Facts told again because nobody answered, by collection."))
	met.silent, _ = m.Int64Counter("certwright.outbox.unanswered",
		metric.WithDescription("Repeats of facts that three repeats before brought no answer to, by collection."))
	return met
}

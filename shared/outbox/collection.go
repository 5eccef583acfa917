package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// ErrUnchanged is returned by a Change function that found nothing to do; Change then writes nothing and succeeds.
var ErrUnchanged = errors.New("unchanged")

// removePage is how many documents RemoveAll reads at once.
const removePage = 500

// maxConflicts is how often Change loads again when others write the same document.
const maxConflicts = 50

// Collection is a typed collection whose writes carry facts. It is safe for concurrent use.
type Collection[T any] struct {
	out  *Outbox
	name string
	take Take[T] // of its worker; guarded by out.watching
}

// Open declares the collection and returns it. It waits for nothing but the store.
func Open[T any](ctx context.Context, o *Outbox, spec docstore.Spec) (*Collection[T], error) {
	if err := docstore.Check[T](spec); err != nil {
		return nil, err
	}
	if err := o.cfg.Store.Ensure(ctx, spec); err != nil {
		return nil, fmt.Errorf("collection %s: %w", spec.Name, err)
	}
	return &Collection[T]{out: o, name: spec.Name}, nil
}

// Name of the collection.
func (c *Collection[T]) Name() string { return c.name }

// Clock is the clock of the outbox.
func (c *Collection[T]) Clock() clock.Clock { return c.out.cfg.Clock }

// Patience is how long a worker's claim lasts and how often it sweeps, where nothing else is configured.
func (c *Collection[T]) Patience() (lease, sweep time.Duration) {
	return c.out.cfg.Lease, c.out.cfg.WorkerSweep
}

// Get returns the document, tombstones included. NotFound when there is none.
func (c *Collection[T]) Get(ctx context.Context, id string) (docstore.Doc[T], error) {
	raw, err := c.out.cfg.Store.Get(ctx, c.name, id)
	if err != nil {
		return docstore.Doc[T]{}, err
	}
	return docstore.Decode[T](raw)
}

// Find returns a page of documents, tombstones included.
func (c *Collection[T]) Find(ctx context.Context, q docstore.Query) (docstore.Page[T], error) {
	raw, err := c.out.cfg.Store.Find(ctx, c.name, q)
	if err != nil {
		return docstore.Page[T]{}, err
	}
	page := docstore.Page[T]{Next: raw.Next, Docs: make([]docstore.Doc[T], len(raw.Docs))}
	for i, r := range raw.Docs {
		if page.Docs[i], err = docstore.Decode[T](r); err != nil {
			return docstore.Page[T]{}, err
		}
	}
	return page, nil
}

// Due is a document that the worker has to look at, without its body.
type Due struct {
	ID         string
	LeaseUntil time.Time
}

// Due returns at most limit documents that are due at the moment given, the longest due first. One that cannot be decoded does not hide the others.
func (c *Collection[T]) Due(ctx context.Context, at time.Time, limit int) ([]Due, error) {
	page, err := c.out.cfg.Store.Find(ctx, c.name, docstore.Query{
		Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: at}}, Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	found := make([]Due, 0, len(page.Docs))
	for _, raw := range page.Docs {
		var d Due
		if id, ok := docstore.Field(raw, "_id"); ok {
			d.ID, _ = id.(string)
		}
		if until, ok := docstore.Field(raw, "lease_until"); ok {
			d.LeaseUntil, _ = until.(time.Time)
		}
		found = append(found, d)
	}
	return found, nil
}

// Count returns how many documents match, looking at no more than limit.
func (c *Collection[T]) Count(ctx context.Context, q docstore.Query, limit int) (int, error) {
	return c.out.cfg.Store.Count(ctx, c.name, q, limit)
}

// Insert stores a new document with the facts that it makes true. ID and Team must be set; WorkAt zero means never.
// AlreadyExists when the id or a unique key is taken.
func (c *Collection[T]) Insert(ctx context.Context, doc *docstore.Doc[T], facts ...Fact) error {
	if doc.ID == "" || doc.Team == "" {
		return errs.New(errs.Internal, "", "a document of %s needs an id and a team", c.name)
	}
	now := c.out.cfg.Clock.Now()
	doc.CreatedAt = now
	if doc.Trace == "" {
		doc.Trace = traceparent(ctx)
	}
	return c.write(ctx, doc, now, facts, nil, func(next docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Insert(ctx, c.name, next, entries)
	})
}

// Save stores the document under its revision guard with the facts that the write makes true, and raises doc.Revision.
// Conflict when somebody else wrote first; doc is then unchanged.
func (c *Collection[T]) Save(ctx context.Context, doc *docstore.Doc[T], facts ...Fact) error {
	guard := doc.Revision
	return c.write(ctx, doc, c.out.cfg.Clock.Now(), facts, nil, func(next docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Update(ctx, c.name, guard, next, entries)
	})
}

// Change loads the document, applies f, and saves; on a conflict it loads again and calls f again. f must be a pure function of the
// document that it is given, and may return ErrUnchanged to write nothing. It returns the document as stored; with an error what it returns is not
// stored. After Unavailable or Timeout it is unknown whether the change was written: f must find out when it is called anew.
func (c *Collection[T]) Change(ctx context.Context, id string, f func(doc *docstore.Doc[T]) ([]Fact, error)) (docstore.Doc[T], error) {
	for range maxConflicts {
		doc, err := c.Get(ctx, id)
		if err != nil {
			return doc, err
		}
		facts, err := f(&doc)
		if errors.Is(err, ErrUnchanged) {
			return doc, nil
		}
		if err != nil {
			return doc, err
		}
		err = c.Save(ctx, &doc, facts...)
		if err == nil || errs.KindOf(err) != errs.Conflict {
			return doc, err
		}
	}
	return docstore.Doc[T]{}, errs.New(errs.Conflict, "TOO_BUSY", "%s %s is being changed by too many at once; try again", c.name, id)
}

// Remove deletes the document for good; Conflict when it changed or its outbox is not empty yet.
func (c *Collection[T]) Remove(ctx context.Context, doc docstore.Doc[T]) error {
	return c.out.cfg.Store.Remove(ctx, c.name, doc.ID, doc.Revision)
}

// RemoveAll removes for good what matches, page by page. What changed meanwhile, or has something in its outbox, stays for the next time.
func (c *Collection[T]) RemoveAll(ctx context.Context, where ...docstore.Cond) error {
	for after := ""; ; {
		page, err := c.Find(ctx, docstore.Query{Where: where, After: after, Limit: removePage})
		if err != nil {
			return err
		}
		for _, doc := range page.Docs {
			if err := c.Remove(ctx, doc); err != nil && errs.KindOf(err) != errs.Conflict && errs.KindOf(err) != errs.NotFound {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// TellAgain tells a fact that the document keeps under its natural key once more, because somebody asked again. It reports whether there was one.
// Nothing is written: who waits asks again if this one is lost too.
func (c *Collection[T]) TellAgain(ctx context.Context, doc docstore.Doc[T], natural string) (bool, error) {
	for _, k := range doc.Kept {
		if k.Key == natural {
			e := k.Entry
			e.MsgID = e.ID + "~a" + strconv.FormatInt(c.out.cfg.Clock.Now().UnixMilli(), 36)
			return true, c.out.cfg.Bus.Publish(ctx, e)
		}
	}
	return false, nil
}

// write stores what doc is to become by store, with its facts, the entries told again and the call's audit entry, and hands those to the relay.
func (c *Collection[T]) write(
	ctx context.Context, doc *docstore.Doc[T], now time.Time, facts []Fact, again []docstore.Entry, store func(docstore.Raw, []docstore.Entry) error,
) error {
	next := *doc
	next.Revision++
	next.ChangedAt = now
	next.Kept = slices.Clone(doc.Kept)
	if next.WorkAt.IsZero() {
		next.WorkAt = clock.Never
	}
	entries, err := c.entries(ctx, &next, now, facts)
	if err != nil {
		return err
	}
	next.DueAt = next.WorkAt
	awaits := false
	for _, k := range next.Kept {
		awaits = awaits || k.Await
		if k.Await && k.NextAt.Before(next.DueAt) {
			next.DueAt = k.NextAt
		}
	}
	var taken *docstore.Doc[T]
	if stored := c.offer(&next, now); stored != nil {
		defer func() { stored(taken) }()
	}
	raw, err := docstore.Encode(&next)
	if err != nil {
		return err
	}
	entries = append(entries, again...)
	call := callOf(ctx)
	if call != nil && c.out.cfg.Audit != nil && !call.written.Load() {
		entries = append(entries, call.entry(next.ID, next.Team, c.out.cfg.Store.Epoch(), next.Revision, now))
	}
	if err := c.store(ctx, next.ID, raw, entries, store); err != nil {
		return err
	}
	if call != nil {
		call.written.Store(true)
	}
	*doc = next
	if own, err := docstore.Decode[T](raw); err == nil { // a copy, since the caller goes on with doc
		taken = &own
	}
	at := next.DueAt
	if next.LeaseUntil.After(now) && next.LeaseUntil.After(at) {
		at = next.LeaseUntil // who holds the lease looks at it anyway
	}
	c.out.notify(c.name, next.ID, at, awaits)
	return nil
}

// store writes and queues as one step as far as other writes of the same document are concerned.
func (c *Collection[T]) store(ctx context.Context, docID string, raw docstore.Raw, entries []docstore.Entry, store func(docstore.Raw, []docstore.Entry) error) error {
	if len(entries) == 0 {
		return store(raw, nil)
	}
	unlock, err := c.out.locks.lock(ctx, c.name+"/"+docID)
	if err != nil {
		return errs.New(errs.Canceled, "", "waiting to write %s %s: %w", c.name, docID, err)
	}
	defer unlock()
	if err := store(raw, entries); err != nil {
		return err
	}
	pending := make([]docstore.Pending, len(entries))
	for i, e := range entries {
		pending[i] = docstore.Pending{Collection: c.name, DocID: docID, Entry: e}
	}
	c.out.enqueue(pending)
	return nil
}

// entries encodes the facts of the write that makes doc's revision, and keeps those that are to be kept.
func (c *Collection[T]) entries(ctx context.Context, doc *docstore.Doc[T], now time.Time, facts []Fact) ([]docstore.Entry, error) {
	if len(facts) == 0 {
		return nil, nil
	}
	out := make([]docstore.Entry, 0, len(facts)+1)
	epoch := c.out.cfg.Store.Epoch()
	cause, caused := bus.Cause(ctx)
	trace := traceparent(ctx)
	if trace == "" {
		trace = doc.Trace
	}
	for n, f := range facts {
		typ := bus.TypeOf(f.msg)
		if typ == "" {
			return nil, errs.New(errs.Internal, "", "%T is not an event", f.msg)
		}
		data, err := protojson.Marshal(f.msg)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", typ, err)
		}
		event := bus.Event{
			ID:   fmt.Sprintf("%s-%s-%d-%d", doc.ID, epoch, doc.Revision, n),
			Type: typ, Source: c.out.cfg.Source, Subject: doc.ID, Time: now, Revision: doc.Revision, Epoch: epoch,
			Team: doc.Team, Traceparent: trace, Data: data,
		}
		event.CorrelationID = event.ID
		if caused {
			event.CausationID, event.CorrelationID = cause.ID, cause.CorrelationID
		}
		e := event.Entry()
		out = append(out, e)
		if f.keep != "" {
			k := docstore.Kept{Key: f.keep, Entry: e, Await: f.await, NextAt: clock.Never}
			if f.await {
				k.NextAt = now.Add(c.out.cfg.FirstRepeat)
			}
			put(&doc.Kept, k)
		}
	}
	return out, nil
}

// repeat makes the entries of the facts that have waited long enough, and moves their next moment.
func (o *Outbox) repeat(kept []docstore.Kept, now time.Time) (again []docstore.Entry) {
	for i := range kept {
		k := &kept[i]
		if !k.Await || k.NextAt.After(now) {
			continue
		}
		k.Times++
		wait := o.cfg.FirstRepeat
		for n := 0; n < k.Times && wait < o.cfg.MaxRepeat; n++ {
			wait *= 3
		}
		k.NextAt = now.Add(min(wait, o.cfg.MaxRepeat))
		e := k.Entry
		e.MsgID = fmt.Sprintf("%s~%d", e.ID, k.Times)
		e.At = now
		again = append(again, e)
	}
	return again
}

// Claim takes the lease of a document whose WorkAt has passed, tells again what has waited too long for its answer, and saves. The worker calls it.
// True: the lease is token's, until doc.LeaseUntil. False: there is nothing to do now, or somebody else holds the lease; doc.DueAt and
// doc.LeaseUntil say when to look again. Conflict: doc is old. While a lease is held nothing is told again.
func (c *Collection[T]) Claim(ctx context.Context, doc *docstore.Doc[T], token string, lease time.Duration) (bool, error) {
	now := c.out.cfg.Clock.Now()
	if doc.LeaseUntil.After(now) {
		return doc.LeaseToken == token, nil
	}
	if doc.DueAt.After(now) {
		return false, nil
	}
	next := *doc
	next.Kept = slices.Clone(doc.Kept)
	again := c.out.repeat(next.Kept, now)
	claimed := !next.WorkAt.After(now)
	if claimed {
		next.LeaseToken, next.LeaseUntil = token, now.Add(lease)
	}
	guard := doc.Revision
	err := c.write(ctx, &next, now, nil, again, func(raw docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Update(ctx, c.name, guard, raw, entries)
	})
	if err != nil {
		return false, err
	}
	*doc = next
	c.told(ctx, next.Meta, len(again))
	return claimed, nil
}

// told counts repeats, and complains of answers that do not come.
func (c *Collection[T]) told(ctx context.Context, m docstore.Meta, again int) {
	if again == 0 {
		return
	}
	attrs := metric.WithAttributes(attribute.String("collection", c.name))
	c.out.met.again.Add(ctx, int64(again), attrs)
	for _, k := range m.Kept {
		if k.Await && k.Times >= unansweredAfter {
			c.out.met.silent.Add(ctx, 1, attrs)
			c.out.cfg.Logger.WarnContext(ctx, "a fact was told again and again without an answer",
				"collection", c.name, "id", m.ID, "fact", k.Entry.Subject, "key", k.Key, "times", k.Times)
		}
	}
}

// Take is asked before a write that makes a document due at once while nobody holds it: the worker of this process may take it with that write, which
// saves the claim. A nil function means no. Otherwise the write gives the lease to token, and stored is called once: with the document, or with
// nil when it was not (or not certainly) written.
type Take[T any] func(id string) (token string, lease time.Duration, stored func(*docstore.Doc[T]))

// Watch registers the worker of this collection: due is told of every document that a write made due, and when; take may be nil. A later worker
// replaces it.
func (c *Collection[T]) Watch(due func(id string, at time.Time), take Take[T]) {
	c.out.watching.Lock()
	defer c.out.watching.Unlock()
	c.out.watch[c.name], c.take = due, take
}

// offer offers the document that is about to be written to the worker.
func (c *Collection[T]) offer(next *docstore.Doc[T], now time.Time) (stored func(*docstore.Doc[T])) {
	if next.WorkAt.After(now) || next.LeaseUntil.After(now) {
		return nil
	}
	c.out.watching.RLock()
	take := c.take
	c.out.watching.RUnlock()
	if take == nil {
		return nil
	}
	token, lease, stored := take(next.ID)
	if stored != nil {
		next.LeaseToken, next.LeaseUntil = token, now.Add(lease)
	}
	return stored
}

func (o *Outbox) notify(collection, id string, at time.Time, awaits bool) {
	if at.Equal(clock.Never) {
		return
	}
	o.watching.RLock()
	f, complained := o.watch[collection], o.missing[collection]
	o.watching.RUnlock()
	if f != nil {
		f(id, at)
		return
	}
	if awaits && !complained {
		o.watching.Lock()
		o.missing[collection] = true
		o.watching.Unlock()
		o.cfg.Logger.Error("documents await answers, but their collection has no worker that would tell their facts again", "collection", collection)
	}
}

// Answered ends the waiting for the answer to the fact kept under natural. It reports whether somebody waited. The fact is kept: it may be asked for again.
func Answered(m *docstore.Meta, natural string) bool {
	for i := range m.Kept {
		if m.Kept[i].Key == natural && m.Kept[i].Await {
			kept := slices.Clone(m.Kept)
			kept[i].Await, kept[i].NextAt = false, clock.Never
			m.Kept = kept
			return true
		}
	}
	return false
}

// Awaits reports whether the document waits for the answer to the fact kept under natural.
func Awaits(m docstore.Meta, natural string) bool {
	for _, k := range m.Kept {
		if k.Key == natural {
			return k.Await
		}
	}
	return false
}

// unansweredAfter is how many repeats without an answer are an alarm.
const unansweredAfter = 3

// Unanswered returns how many facts were told again at least three times without an answer: an alarm.
func Unanswered(m docstore.Meta) (n int) {
	for _, k := range m.Kept {
		if k.Await && k.Times >= unansweredAfter {
			n++
		}
	}
	return n
}

// Forget drops the facts kept under the keys that drop names.
func Forget(m *docstore.Meta, drop func(natural string) bool) {
	kept := make([]docstore.Kept, 0, len(m.Kept))
	for _, k := range m.Kept {
		if !drop(k.Key) {
			kept = append(kept, k)
		}
	}
	m.Kept = kept
}

func put(kept *[]docstore.Kept, k docstore.Kept) {
	for i := range *kept {
		if (*kept)[i].Key == k.Key {
			(*kept)[i] = k
			return
		}
	}
	*kept = append(*kept, k)
}

func traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// Postpone moves the next repeat of the fact kept under natural to the moment given, if it is awaited: somebody said that the answer takes long.
func Postpone(m *docstore.Meta, natural string, until time.Time) {
	for i := range m.Kept {
		if m.Kept[i].Key == natural && m.Kept[i].Await {
			kept := slices.Clone(m.Kept)
			kept[i].NextAt = until
			m.Kept = kept
		}
	}
}

// Rest says that the receiver has the fact kept under natural and needs time for its answer: the next repeat comes after the longest wait, and
// repeats are counted anew. It reports whether that changes anything.
func (c *Collection[T]) Rest(m *docstore.Meta, natural string) bool {
	until := c.out.cfg.Clock.Now().Add(c.out.cfg.MaxRepeat)
	for i := range m.Kept {
		if k := m.Kept[i]; k.Key == natural && k.Await && (k.Times > 0 || k.NextAt.Before(until.Add(-c.out.cfg.MaxRepeat/2))) {
			kept := slices.Clone(m.Kept)
			kept[i].NextAt, kept[i].Times = until, 0
			m.Kept = kept
			return true
		}
	}
	return false
}

package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// ErrUnchanged is returned by a Change function that found nothing to do; Change then writes nothing and succeeds.
var ErrUnchanged = errors.New("unchanged")

// maxConflicts is how often Change loads again when others write the same document.
const maxConflicts = 50

// Collection is a typed collection whose writes carry facts. It is safe for concurrent use.
type Collection[T any] struct {
	out  *Outbox
	name string
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
	return c.write(ctx, doc, now, facts, func(next docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Insert(ctx, c.name, next, entries)
	})
}

// Save stores the document under its revision guard with the facts that the write makes true, and raises doc.Revision.
// Conflict when somebody else wrote first; doc is then unchanged.
func (c *Collection[T]) Save(ctx context.Context, doc *docstore.Doc[T], facts ...Fact) error {
	guard := doc.Revision
	return c.write(ctx, doc, c.out.cfg.Clock.Now(), facts, func(next docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Update(ctx, c.name, guard, next, entries)
	})
}

// Change loads the document, applies f, and saves; on a conflict it starts over. f must be a pure function of the
// document that it is given. It returns the document as stored.
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
		if errs.KindOf(err) != errs.Conflict || err == nil {
			return doc, err
		}
	}
	return docstore.Doc[T]{}, errs.New(errs.Conflict, "TOO_BUSY", "%s %s is being changed by too many at once; try again", c.name, id)
}

// Remove deletes the document for good; Conflict when it changed or its outbox is not empty yet.
func (c *Collection[T]) Remove(ctx context.Context, doc docstore.Doc[T]) error {
	return c.out.cfg.Store.Remove(ctx, c.name, doc.ID, doc.Revision)
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

func (c *Collection[T]) write(ctx context.Context, doc *docstore.Doc[T], now time.Time, facts []Fact, store func(docstore.Raw, []docstore.Entry) error) error {
	next := *doc
	next.Revision++
	next.ChangedAt = now
	next.Kept = append([]docstore.Kept(nil), doc.Kept...)
	if next.WorkAt.IsZero() {
		next.WorkAt = clock.Never
	}
	entries, err := c.entries(ctx, &next, now, facts)
	if err != nil {
		return err
	}
	next.DueAt = next.WorkAt
	for _, k := range next.Kept {
		if k.Await && k.NextAt.Before(next.DueAt) {
			next.DueAt = k.NextAt
		}
	}
	raw, err := docstore.Encode(&next)
	if err != nil {
		return err
	}
	call := callOf(ctx)
	if call != nil && !call.written.Load() {
		entries = append(entries, call.entry(next.ID, next.Team, c.out.cfg.Store.Epoch(), next.Revision, now))
	}
	if err := store(raw, entries); err != nil {
		return err
	}
	if call != nil {
		call.written.Store(true)
	}
	*doc = next
	pending := make([]docstore.Pending, len(entries))
	for i, e := range entries {
		pending[i] = docstore.Pending{Collection: c.name, DocID: next.ID, Entry: e}
	}
	c.out.enqueue(pending)
	c.out.notify(c.name, next.ID, next.DueAt)
	return nil
}

// entries encodes the facts of the write that makes doc's revision, and keeps those that are to be kept.
func (c *Collection[T]) entries(ctx context.Context, doc *docstore.Doc[T], now time.Time, facts []Fact) ([]docstore.Entry, error) {
	var out []docstore.Entry
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
		epoch := c.out.cfg.Store.Epoch()
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

// Repeat makes the entries of the facts that have waited long enough, and moves their next moment. The worker calls it when it claims.
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

// Claim takes the lease of a document that is due, tells again what has waited too long for its answer, and saves. The worker calls it.
// It returns false when nothing is due or somebody else holds the lease.
func (c *Collection[T]) Claim(ctx context.Context, doc *docstore.Doc[T], token string, lease time.Duration) (bool, error) {
	now := c.out.cfg.Clock.Now()
	if doc.DueAt.After(now) || doc.LeaseUntil.After(now) {
		return false, nil
	}
	next := *doc
	next.Kept = append([]docstore.Kept(nil), doc.Kept...)
	again := c.out.repeat(next.Kept, now)
	if !next.WorkAt.After(now) {
		next.LeaseToken, next.LeaseUntil = token, now.Add(lease)
	}
	guard := doc.Revision
	err := c.write(ctx, &next, now, nil, func(raw docstore.Raw, entries []docstore.Entry) error {
		return c.out.cfg.Store.Update(ctx, c.name, guard, raw, append(entries, again...))
	})
	if err != nil {
		return false, err
	}
	pending := make([]docstore.Pending, len(again))
	for i, e := range again {
		pending[i] = docstore.Pending{Collection: c.name, DocID: next.ID, Entry: e}
	}
	c.out.enqueue(pending)
	*doc = next
	return doc.LeaseToken == token, nil
}

// Watch registers the worker of this collection: f is told of every document that a write made due, and when.
func (c *Collection[T]) Watch(f func(id string, at time.Time)) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.watch[c.name] = func(d due) { f(d.id, d.at) }
}

func (o *Outbox) notify(collection, id string, at time.Time) {
	if at.Equal(clock.Never) {
		return
	}
	o.mu.Lock()
	f := o.watch[collection]
	o.mu.Unlock()
	if f != nil {
		f(due{id: id, at: at})
	}
}

// Answered ends the waiting for the answer to the fact kept under natural. It reports whether somebody waited. The fact is kept: it may be asked for again.
func Answered(m *docstore.Meta, natural string) bool {
	for i := range m.Kept {
		if m.Kept[i].Key == natural && m.Kept[i].Await {
			kept := append([]docstore.Kept(nil), m.Kept...)
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

// Unanswered returns how many facts were told again at least three times without an answer: an alarm.
func Unanswered(m docstore.Meta) (n int) {
	for _, k := range m.Kept {
		if k.Await && k.Times >= 3 {
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
			kept := append([]docstore.Kept(nil), m.Kept...)
			kept[i].NextAt = until
			m.Kept = kept
		}
	}
}

// AnsweredAll ends the waiting for every fact whose natural key done names.
func AnsweredAll(m *docstore.Meta, done func(natural string) bool) {
	for _, k := range m.Kept {
		if k.Await && done(k.Key) {
			Answered(m, k.Key)
		}
	}
}

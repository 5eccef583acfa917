// Package memory is the docstore adapter for simulation and tests: everything is gone when the process ends. It keeps the
// declared indexes in order, so that a sweep costs what is due, as in the durable adapters.
package memory

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
)

// Store is an in-memory docstore.Store, safe for concurrent use.
type Store struct {
	epoch string

	mu          sync.RWMutex // guards everything below
	collections map[string]*collection
	outbox      []pending // in the order in which they were added
	closed      bool
}

var _ docstore.Store = (*Store)(nil)

type collection struct {
	schema  *plan.Schema
	records map[string]*record
	primary index
	indexes []*index
}

type record struct {
	doc     *plan.Doc
	pending int // entries in the outbox
}

// pending is an entry in encoded form, so that nobody shares its maps and bytes.
type pending struct {
	collection, doc string
	at              time.Time
	id, msgID       string
	entry           []byte
}

// New makes an empty store. The clock gives the moment in its epoch.
func New(c clock.Clock) *Store {
	epoch := ulid.MustNew(ulid.Timestamp(c.Now()), ulid.DefaultEntropy()).String()
	return &Store{epoch: epoch, collections: map[string]*collection{}}
}

// Ensure implements docstore.Store.
func (s *Store) Ensure(_ context.Context, spec docstore.Spec) error {
	schema, err := plan.New(spec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return plan.Closed()
	}
	c := &collection{schema: schema, records: map[string]*record{}}
	if old := s.collections[spec.Name]; old != nil {
		for _, ix := range old.schema.Indexes {
			if now := schema.Index(ix.Name); now != nil && (now.Unique != ix.Unique || now.Array != ix.Array) {
				return plan.IndexChanged(spec.Name, ix.Name)
			}
		}
		c.records = old.records
	}
	for i := range schema.Indexes {
		c.indexes = append(c.indexes, &index{Index: schema.Indexes[i]})
	}
	for id, r := range c.records {
		for _, ix := range c.indexes {
			if ix.taken(r.doc) {
				return plan.DuplicateKey(spec.Name, ix.Name)
			}
		}
		c.put(id, nil, r)
	}
	s.collections[spec.Name] = c
	return nil
}

// of returns the collection; the lock must be held.
func (s *Store) of(ctx context.Context, name string) (*collection, error) {
	if ctx.Err() != nil {
		return nil, plan.Ctx(ctx, ctx.Err())
	}
	if s.closed {
		return nil, plan.Closed()
	}
	c := s.collections[name]
	if c == nil {
		return nil, plan.UnknownCollection(name)
	}
	return c, nil
}

// Get implements docstore.Store.
func (s *Store) Get(ctx context.Context, collection, id string) (docstore.Raw, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return nil, err
	}
	r := c.records[id]
	if r == nil {
		return nil, plan.NotFound(collection, id)
	}
	return bytes.Clone(r.doc.Raw), nil
}

// Insert implements docstore.Store.
func (s *Store) Insert(ctx context.Context, collection string, raw docstore.Raw, entries []docstore.Entry) error {
	doc, err := plan.Parse(bytes.Clone(raw))
	if err != nil {
		return err
	}
	added, err := encode(collection, doc, entries)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return err
	}
	if c.records[doc.ID] != nil {
		return plan.DuplicateID(collection, doc.ID)
	}
	if err := c.check(doc); err != nil {
		return err
	}
	r := &record{doc: doc, pending: len(added)}
	c.records[doc.ID] = r
	c.put(doc.ID, nil, r)
	s.outbox = append(s.outbox, added...)
	return nil
}

// Update implements docstore.Store.
func (s *Store) Update(ctx context.Context, collection string, guard int64, raw docstore.Raw, entries []docstore.Entry) error {
	doc, err := plan.Parse(bytes.Clone(raw))
	if err != nil {
		return err
	}
	if err := plan.CheckUpdate(doc, guard); err != nil {
		return err
	}
	added, err := encode(collection, doc, entries)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return err
	}
	r := c.records[doc.ID]
	if r == nil {
		return plan.NotFound(collection, doc.ID)
	}
	if r.doc.Revision != guard {
		return plan.Moved(collection, doc.ID, guard)
	}
	doc = plan.Merge(r.doc, doc)
	if err := c.check(doc); err != nil {
		return err
	}
	old := r.doc
	r.doc = doc
	r.pending += len(added)
	c.put(doc.ID, old, r)
	s.outbox = append(s.outbox, added...)
	return nil
}

// Remove implements docstore.Store.
func (s *Store) Remove(ctx context.Context, collection, id string, guard int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return err
	}
	r := c.records[id]
	switch {
	case r == nil:
		return plan.NotFound(collection, id)
	case r.doc.Revision != guard:
		return plan.Moved(collection, id, guard)
	case r.pending > 0:
		return plan.OutboxPending(collection, id)
	}
	delete(c.records, id)
	c.put(id, r.doc, nil)
	return nil
}

// Find implements docstore.Store.
func (s *Store) Find(ctx context.Context, collection string, q docstore.Query) (docstore.RawPage, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return docstore.RawPage{}, err
	}
	p, err := c.schema.Plan(q)
	if err != nil {
		return docstore.RawPage{}, err
	}
	page, err := p.Collect(c.rows(p))
	for i := range page.Docs {
		page.Docs[i] = bytes.Clone(page.Docs[i])
	}
	return page, err
}

// Count implements docstore.Store.
func (s *Store) Count(ctx context.Context, collection string, q docstore.Query, limit int) (int, error) {
	q, err := plan.ForCount(q, limit)
	if err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.of(ctx, collection)
	if err != nil {
		return 0, err
	}
	p, err := c.schema.Plan(q)
	if err != nil {
		return 0, err
	}
	return p.Count(c.rows(p), limit)
}

// Outbox implements docstore.Store.
func (s *Store) Outbox(ctx context.Context, before time.Time, limit int) ([]docstore.Pending, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ctx.Err() != nil {
		return nil, plan.Ctx(ctx, ctx.Err())
	}
	if s.closed {
		return nil, plan.Closed()
	}
	g := plan.NewGather(before, limit)
	for _, e := range s.outbox {
		more, err := g.Offer(e.collection, e.doc, e.at, func() (docstore.Entry, error) { return plan.DecodeEntry(e.entry) })
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	return g.Pending(), nil
}

// Clear implements docstore.Store.
func (s *Store) Clear(ctx context.Context, sent []docstore.Pending) error {
	type key struct{ collection, doc, id, msgID string }
	gone := make(map[key]bool, len(sent))
	for _, p := range sent {
		gone[key{p.Collection, p.DocID, p.Entry.ID, p.Entry.MsgID}] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return plan.Ctx(ctx, ctx.Err())
	}
	if s.closed {
		return plan.Closed()
	}
	s.outbox = slices.DeleteFunc(s.outbox, func(e pending) bool {
		if !gone[key{e.collection, e.doc, e.id, e.msgID}] {
			return false
		}
		s.collections[e.collection].records[e.doc].pending--
		return true
	})
	return nil
}

// Epoch implements docstore.Store.
func (s *Store) Epoch() string { return s.epoch }

// Close implements docstore.Store. Every later call answers Unavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func encode(collection string, doc *plan.Doc, entries []docstore.Entry) ([]pending, error) {
	added := make([]pending, 0, len(entries))
	for _, e := range entries {
		raw, err := plan.EncodeEntry(e)
		if err != nil {
			return nil, err
		}
		added = append(added, pending{collection: collection, doc: doc.ID, at: doc.ChangedAt, id: e.ID, msgID: e.MsgID, entry: raw})
	}
	return added, nil
}

// check refuses a document that lacks a unique field or has another's values in it.
func (c *collection) check(doc *plan.Doc) error {
	if err := c.schema.CheckUnique(doc); err != nil {
		return err
	}
	for _, ix := range c.indexes {
		if ix.taken(doc) {
			return plan.DuplicateKey(c.schema.Name, ix.Name)
		}
	}
	return nil
}

// put moves the record in every index from where the old document had it; a nil record removes it.
func (c *collection) put(id string, old *plan.Doc, r *record) {
	if old == nil && r != nil {
		c.primary.insert(entry{key: encodeValue(id), record: r})
	}
	if r == nil {
		c.primary.remove(encodeValue(id))
	}
	for _, ix := range c.indexes {
		var before, after []string
		if old != nil {
			before = ix.keys(old)
		}
		if r != nil {
			after = ix.keys(r.doc)
		}
		for _, k := range before {
			if !slices.Contains(after, k) {
				ix.remove(k)
			}
		}
		for _, k := range after {
			if !slices.Contains(before, k) {
				ix.insert(entry{key: k, record: r})
			}
		}
	}
}

// rows offers the documents of a plan in its order.
func (c *collection) rows(p *plan.Plan) iter.Seq2[docstore.Raw, error] {
	ix := &c.primary
	if p.Index != nil {
		ix = c.indexes[slices.IndexFunc(c.indexes, func(i *index) bool { return i.Name == p.Index.Name })]
	}
	spans := ix.spans(p)
	return func(yield func(docstore.Raw, error) bool) {
		if len(spans) == 1 && spans[0].exact {
			for e := range spans[0].walk(p.Desc) {
				if !yield(e.record.doc.Raw, nil) {
					return
				}
			}
			return
		}
		for _, e := range sorted(spans, p) {
			if !yield(e.record.doc.Raw, nil) {
				return
			}
		}
	}
}

// Package faulty decorates a docstore: it names the instants around every write for crash tests, fails calls on demand, and counts
// writes. It stores nothing itself. The failpoints do nothing unless package failpoint was asked to by the environment.
package faulty

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/failpoint"
)

// Op names a method of the store.
type Op string

// The operations a fault can be injected in.
const (
	Ensure Op = "ensure"
	Get    Op = "get"
	Insert Op = "insert"
	Update Op = "update"
	Remove Op = "remove"
	Find   Op = "find"
	Count  Op = "count"
	Outbox Op = "outbox"
	Clear  Op = "clear"
)

// Fault decides whether a call fails: it returns the error to answer, or nil. It may be called from many goroutines. The collection is empty for
// Outbox.
type Fault func(op Op, collection string) error

// Faults says when to fail. Before fails the call instead of doing it; After does it and fails all the same, like an
// answer that was lost. Either may be nil.
type Faults struct {
	Before, After Fault
}

// Store is a decorated docstore.Store.
type Store struct {
	docstore.Store
	faults Faults

	mu     sync.Mutex // guards writes
	writes map[string]int
}

// New decorates s with failpoints, faults and counters.
func New(s docstore.Store, f Faults) *Store {
	return &Store{Store: s, faults: f, writes: map[string]int{}}
}

// Writes returns how many inserts, updates, removals and clearings succeeded, by collection.
func (s *Store) Writes() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.writes)
}

func (s *Store) call(op Op, collection string, f func() error) error {
	if s.faults.Before != nil {
		if err := s.faults.Before(op, collection); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	if s.faults.After != nil {
		return s.faults.After(op, collection)
	}
	return nil
}

func (s *Store) write(op Op, collection string, f func() error) error {
	return s.call(op, collection, func() error {
		err := failpoint.Around("store."+collection+"."+string(op), f)
		if err == nil {
			s.mu.Lock()
			s.writes[collection]++
			s.mu.Unlock()
		}
		return err
	})
}

// Ensure implements docstore.Store.
func (s *Store) Ensure(ctx context.Context, spec docstore.Spec) error {
	return s.call(Ensure, spec.Name, func() error { return s.Store.Ensure(ctx, spec) })
}

// Get implements docstore.Store.
func (s *Store) Get(ctx context.Context, collection, id string) (raw docstore.Raw, err error) {
	err = s.call(Get, collection, func() error {
		raw, err = s.Store.Get(ctx, collection, id)
		return err
	})
	return raw, err
}

// Insert implements docstore.Store.
func (s *Store) Insert(ctx context.Context, collection string, doc docstore.Raw, entries []docstore.Entry) error {
	return s.write(Insert, collection, func() error { return s.Store.Insert(ctx, collection, doc, entries) })
}

// Update implements docstore.Store.
func (s *Store) Update(ctx context.Context, collection string, guard int64, doc docstore.Raw, entries []docstore.Entry) error {
	return s.write(Update, collection, func() error { return s.Store.Update(ctx, collection, guard, doc, entries) })
}

// Remove implements docstore.Store.
func (s *Store) Remove(ctx context.Context, collection, id string, guard int64) error {
	return s.write(Remove, collection, func() error { return s.Store.Remove(ctx, collection, id, guard) })
}

// Find implements docstore.Store.
func (s *Store) Find(ctx context.Context, collection string, q docstore.Query) (page docstore.RawPage, err error) {
	err = s.call(Find, collection, func() error {
		page, err = s.Store.Find(ctx, collection, q)
		return err
	})
	return page, err
}

// Count implements docstore.Store.
func (s *Store) Count(ctx context.Context, collection string, q docstore.Query, limit int) (n int, err error) {
	err = s.call(Count, collection, func() error {
		n, err = s.Store.Count(ctx, collection, q, limit)
		return err
	})
	return n, err
}

// Outbox implements docstore.Store.
func (s *Store) Outbox(ctx context.Context, before time.Time, limit int) (pending []docstore.Pending, err error) {
	err = s.call(Outbox, "", func() error {
		pending, err = s.Store.Outbox(ctx, before, limit)
		return err
	})
	return pending, err
}

// Clear implements docstore.Store. The failpoint, the fault and the counter are those of each collection that it touches, the first
// one named being the outermost.
func (s *Store) Clear(ctx context.Context, sent []docstore.Pending) error {
	var names []string
	seen := map[string]bool{}
	for _, p := range sent {
		if !seen[p.Collection] {
			seen[p.Collection] = true
			names = append(names, p.Collection)
		}
	}
	return s.clear(names, func() error { return s.Store.Clear(ctx, sent) })
}

func (s *Store) clear(names []string, f func() error) error {
	if len(names) == 0 {
		return f()
	}
	return s.write(Clear, names[0], func() error { return s.clear(names[1:], f) })
}

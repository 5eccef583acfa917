package testkit

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
)

// Silent is a bus for an outbox: it takes everything at once, keeps nothing, and never loses its stream.
type Silent struct{}

// Publish implements outbox.Publisher.
func (Silent) Publish(context.Context, ...docstore.Entry) error { return nil }

// SafeAfter implements outbox.Publisher.
func (Silent) SafeAfter() time.Duration { return 0 }

// OnNewStream implements outbox.Publisher.
func (Silent) OnNewStream(func()) {}

// Recorder is a Silent bus that remembers what was published, doubles included. The zero value is ready; it is safe for concurrent use.
type Recorder struct {
	Silent
	mu      sync.Mutex // guards what follows
	entries []docstore.Entry
	taken   int // of entries
}

// Publish implements outbox.Publisher.
func (r *Recorder) Publish(_ context.Context, entries ...docstore.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entries...)
	return nil
}

// Entries are all that were published, in order.
func (r *Recorder) Entries() []docstore.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.entries)
}

// Take returns the entries that were published since the last Take.
func (r *Recorder) Take() []docstore.Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.taken
	r.taken = len(r.entries)
	return slices.Clone(r.entries[before:])
}

// Events are the facts in entries.
func Events(t require.TestingT, entries []docstore.Entry) []bus.Event {
	var all []bus.Event
	for _, entry := range entries {
		e, err := bus.FromEntry(entry)
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

// Types are the types of the facts in entries.
func Types(t require.TestingT, entries []docstore.Entry) []string {
	var types []string
	for _, e := range Events(t, entries) {
		types = append(types, e.Type)
	}
	return types
}

// Event is e with the type and the data of m.
func Event(t require.TestingT, m proto.Message, e bus.Event) bus.Event {
	data, err := protojson.Marshal(m)
	require.NoError(t, err)
	e.Type, e.Data = bus.TypeOf(m), data
	return e
}

// Message is what e carries.
func Message(t require.TestingT, e bus.Event) proto.Message {
	m, known := events.New(e.Type)
	require.True(t, known, "no contract knows the event type %s", e.Type)
	require.NoError(t, e.Decode(m))
	return m
}

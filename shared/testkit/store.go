package testkit

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/outbox"
)

// Store opens an empty SQLite store, as the product's default is, in a directory of the test. It is closed when the test ends.
func Store(t testing.TB) docstore.Store {
	t.Helper()
	return StoreAt(t, filepath.Join(t.TempDir(), "store.db"))
}

// StoreAt opens the SQLite store at path, which may exist already. It is closed when the test ends.
func StoreAt(t testing.TB, path string) docstore.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return s
}

// MemoryStore is an empty store in memory.
func MemoryStore(t testing.TB, c clock.Clock) docstore.Store {
	t.Helper()
	s := memory.New(c)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Open opens a collection through out.
func Open[T any](t require.TestingT, out *outbox.Outbox, spec docstore.Spec) *outbox.Collection[T] {
	coll, err := outbox.Open[T](context.Background(), out, spec)
	require.NoError(t, err)
	return coll
}

package seal

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal/localkek"
)

// guards is the part of a store that OpenKEK uses. beforeInsert, when set, runs once before the first insert: another process being faster.
type guards struct {
	docstore.Store
	mu           sync.Mutex
	docs         map[string][]byte
	inserts      int
	beforeInsert func()
	down         bool
}

func newGuards() *guards { return &guards{docs: map[string][]byte{}} }

func (g *guards) Ensure(context.Context, docstore.Spec) error { return nil }

func (g *guards) Get(_ context.Context, _, id string) (docstore.Raw, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d, ok := g.docs[id]; ok {
		return d, nil
	}
	return nil, errs.New(errs.NotFound, "", "no guard")
}

func (g *guards) Insert(_ context.Context, _ string, doc docstore.Raw, _ []docstore.Entry) error {
	if f := g.beforeInsert; f != nil {
		g.beforeInsert = nil
		f()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return errs.New(errs.Unavailable, "", "down")
	}
	id, _ := bson.Raw(doc).Lookup("_id").StringValueOK()
	if _, ok := g.docs[id]; ok {
		return errs.New(errs.AlreadyExists, "DUPLICATE_ID", "taken")
	}
	g.docs[id] = doc
	g.inserts++
	return nil
}

func newKEK(t *testing.T) *localkek.Key {
	t.Helper()
	k, err := localkek.Create(filepath.Join(t.TempDir(), "kek.pem"))
	require.NoError(t, err)
	return k
}

func TestSealedValuesOpenOnlyWhereTheyBelong(t *testing.T) {
	ctx := t.Context()
	s, other := New(newKEK(t), clock.System()), New(newKEK(t), clock.System())
	sealed, err := s.Seal(ctx, []byte("token"), []byte("acc_1"))
	require.NoError(t, err)
	require.NotContains(t, string(sealed.Ciphertext), "token")

	// As it comes back from a store.
	raw, err := bson.Marshal(sealed)
	require.NoError(t, err)
	var stored Sealed
	require.NoError(t, bson.Unmarshal(raw, &stored))

	flip := func(b []byte, i int) []byte {
		c := append([]byte(nil), b...)
		c[i] ^= 1
		return c
	}
	for _, c := range []struct {
		name   string
		sealer *Sealer
		sealed Sealed
		aad    string
		reason string
	}{
		{"in its own document it opens", s, stored, "acc_1", ""},
		{"in another document it does not", s, stored, "acc_2", "SEAL_BROKEN"},
		{"under another key it does not", other, stored, "acc_1", "KEK_FOREIGN"},
		{"another key's name does not help", other, Sealed{KEK: other.KEK(), DEK: stored.DEK, Ciphertext: stored.Ciphertext}, "acc_1", "SEAL_BROKEN"},
		{"a changed ciphertext does not", s, Sealed{KEK: stored.KEK, DEK: stored.DEK, Ciphertext: flip(stored.Ciphertext, 14)}, "acc_1", "SEAL_BROKEN"},
		{"a changed data key does not", s, Sealed{KEK: stored.KEK, DEK: flip(stored.DEK, 20), Ciphertext: stored.Ciphertext}, "acc_1", "SEAL_BROKEN"},
		{"nothing sealed does not", s, Sealed{KEK: stored.KEK}, "acc_1", "SEAL_BROKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.sealer.Open(ctx, c.sealed, []byte(c.aad))
			if c.reason != "" {
				require.Equal(t, c.reason, errs.ReasonOf(err))
				require.Equal(t, errs.Precondition, errs.KindOf(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, "token", string(got))
		})
	}
	require.True(t, Sealed{}.IsZero())
	require.False(t, stored.IsZero())
}

func TestADataKeyIsReusedWithinItsBounds(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := New(newKEK(t), clk)
	seal := func() Sealed {
		out, err := s.Seal(ctx, []byte("x"), nil)
		require.NoError(t, err)
		return out
	}
	first, second := seal(), seal()
	require.Equal(t, first.DEK, second.DEK)
	require.NotEqual(t, first.Ciphertext, second.Ciphertext)

	clk.Advance(maxDEKAge)
	third := seal()
	require.NotEqual(t, first.DEK, third.DEK, "the age is bounded")

	for range maxSealsPerDEK - 1 {
		require.Equal(t, third.DEK, seal().DEK)
	}
	require.NotEqual(t, third.DEK, seal().DEK, "the number of seals is bounded")

	got, err := s.Open(ctx, first, nil)
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}

func TestOpenKEK(t *testing.T) {
	ctx := t.Context()
	t.Run("a fresh store gets a key file of mode 0600, and the next start opens what the first sealed", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "state", "orders.kek")
		s, err := OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		sealed, err := s.Seal(ctx, []byte("x"), nil)
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			fi, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode())
		}
		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, left, 1, "no temporary file stays")

		s, err = OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		got, err := s.Open(ctx, sealed, nil)
		require.NoError(t, err)
		require.Equal(t, "x", string(got))
	})

	t.Run("a missing key of a store in use is named and none is made", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "kek")
		s, err := OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))

		_, err = OpenKEK(ctx, store, path, "orders")
		e := errs.As(err)
		require.Equal(t, "KEK_MISSING", errs.ReasonOf(err))
		require.Equal(t, map[string]string{"wanted": s.KEK(), "path": path}, e.Meta)
		require.ErrorContains(t, err, s.KEK())
		require.ErrorContains(t, err, path)
		require.NoFileExists(t, path)
	})

	t.Run("a foreign key is named beside the one wanted and stays as it is", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "kek")
		s, err := OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
		foreign, err := localkek.Create(path)
		require.NoError(t, err)
		before, err := os.ReadFile(path)
		require.NoError(t, err)

		_, err = OpenKEK(ctx, store, path, "orders")
		require.Equal(t, "KEK_FOREIGN", errs.ReasonOf(err))
		require.Equal(t, errs.Precondition, errs.KindOf(err))
		require.Equal(t, map[string]string{"wanted": s.KEK(), "found": foreign.ID(), "path": path}, errs.As(err).Meta)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, before, after)
	})

	t.Run("a key file that waits for a fresh store is used", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "kek")
		k, err := localkek.Create(path)
		require.NoError(t, err)
		s, err := OpenKEK(ctx, newGuards(), path, "orders")
		require.NoError(t, err)
		require.Equal(t, k.ID(), s.KEK())
	})

	t.Run("services of one store have guards of their own", func(t *testing.T) {
		store, dir := newGuards(), t.TempDir()
		a, err := OpenKEK(ctx, store, filepath.Join(dir, "a"), "orders")
		require.NoError(t, err)
		b, err := OpenKEK(ctx, store, filepath.Join(dir, "b"), "dns")
		require.NoError(t, err)
		require.NotEqual(t, a.KEK(), b.KEK())
	})

	t.Run("a guard copied from another service does not open", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "kek")
		_, err := OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		store.docs["dns"] = store.docs["orders"]
		_, err = OpenKEK(ctx, store, path, "dns")
		require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err))
	})

	t.Run("of many processes starting at once on one host all have the same key", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "kek")
		const n = 16
		ids, failures := make([]string, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				s, err := OpenKEK(ctx, store, path, "orders")
				if failures[i] = err; err == nil {
					ids[i] = s.KEK()
				}
			})
		}
		wg.Wait()
		for i := range n {
			require.NoError(t, failures[i])
			require.Equal(t, ids[0], ids[i])
		}
		require.Equal(t, 1, store.inserts)
	})

	t.Run("of two hosts starting at once the second gives up its key and asks for the first's", func(t *testing.T) {
		store, here, there := newGuards(), filepath.Join(t.TempDir(), "kek"), filepath.Join(t.TempDir(), "kek")
		var winner *Sealer
		store.beforeInsert = func() {
			s, err := OpenKEK(ctx, store, there, "orders")
			require.NoError(t, err)
			winner = s
		}
		_, err := OpenKEK(ctx, store, here, "orders")
		require.Equal(t, "KEK_MISSING", errs.ReasonOf(err))
		require.Equal(t, winner.KEK(), errs.As(err).Meta["wanted"])
		require.NoFileExists(t, here)

		text, err := os.ReadFile(there)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(here, text, 0o600))
		s, err := OpenKEK(ctx, store, here, "orders")
		require.NoError(t, err, "the way out that the error names works")
		require.Equal(t, winner.KEK(), s.KEK())
	})

	t.Run("a key that the operator put there is never removed", func(t *testing.T) {
		store, here, there := newGuards(), filepath.Join(t.TempDir(), "kek"), filepath.Join(t.TempDir(), "kek")
		_, err := localkek.Create(here)
		require.NoError(t, err)
		store.beforeInsert = func() {
			_, err := OpenKEK(ctx, store, there, "orders")
			require.NoError(t, err)
		}
		_, err = OpenKEK(ctx, store, here, "orders")
		require.Equal(t, "KEK_FOREIGN", errs.ReasonOf(err))
		require.FileExists(t, here)
	})

	t.Run("a store that fails in between keeps the key for the next start", func(t *testing.T) {
		store, path := newGuards(), filepath.Join(t.TempDir(), "kek")
		store.down = true
		_, err := OpenKEK(ctx, store, path, "orders")
		require.Equal(t, errs.Unavailable, errs.KindOf(err))
		k, err := localkek.Load(path)
		require.NoError(t, err)
		store.down = false
		s, err := OpenKEK(ctx, store, path, "orders")
		require.NoError(t, err)
		require.Equal(t, k.ID(), s.KEK())
	})
}

func TestReceiver(t *testing.T) {
	r, err := NewReceiver()
	require.NoError(t, err)
	other, err := NewReceiver()
	require.NoError(t, err)
	require.Len(t, r.Public(), 32)
	sealed, err := SealTo(r.Public(), []byte("private key"), []byte("dep_1"))
	require.NoError(t, err)
	require.NotContains(t, string(sealed), "private key")

	got, err := r.Open(sealed, []byte("dep_1"))
	require.NoError(t, err)
	require.Equal(t, "private key", string(got))

	_, err = other.Open(sealed, []byte("dep_1"))
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err), "another receiver")
	_, err = r.Open(sealed, []byte("dep_2"))
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err), "another purpose")
	sealed[40] ^= 1
	_, err = r.Open(sealed, []byte("dep_1"))
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err), "changed on the way")
	_, err = r.Open(nil, nil)
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err), "nothing")
	_, err = SealTo([]byte("short"), nil, nil)
	require.Equal(t, "RECEIVER_KEY", errs.ReasonOf(err))
	_, err = SealTo(make([]byte, 32), []byte("x"), nil)
	require.Equal(t, "RECEIVER_KEY", errs.ReasonOf(err), "a point of low order")
}

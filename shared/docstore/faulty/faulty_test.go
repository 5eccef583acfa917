package faulty_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
)

func TestADecoratedStoreConforms(t *testing.T) {
	docstoretest.Run(t, func(t *testing.T) docstore.Store {
		t.Helper()
		s := faulty.New(memory.New(clock.System()), faulty.Faults{})
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}, docstoretest.Capabilities{Concurrent: true})
}

func document(t *testing.T, id string, revision int64) docstore.Raw {
	t.Helper()
	raw, err := docstore.Encode(&docstore.Doc[struct{}]{Meta: docstore.Meta{ID: id, Revision: revision}})
	require.NoError(t, err)
	return raw
}

// life goes through every kind of write once.
func life(t *testing.T, s docstore.Store) {
	t.Helper()
	ctx := context.Background()
	require.NoError(t, s.Ensure(ctx, docstore.Spec{Name: "things"}))
	entry := docstore.Entry{ID: "e", MsgID: "e"}
	require.NoError(t, s.Insert(ctx, "things", document(t, "a", 1), nil))
	require.NoError(t, s.Update(ctx, "things", 1, document(t, "a", 2), []docstore.Entry{entry}))
	require.NoError(t, s.Clear(ctx, []docstore.Pending{{Collection: "things", DocID: "a", Entry: entry}}))
	require.NoError(t, s.Remove(ctx, "things", "a", 2))
}

func TestWritesAreCountedByCollection(t *testing.T) {
	s := faulty.New(memory.New(clock.System()), faulty.Faults{})
	life(t, s)
	require.Error(t, s.Remove(context.Background(), "things", "a", 2))
	require.Equal(t, map[string]int{"things": 4}, s.Writes())
}

func TestACallFailsBeforeOrAfterItIsDone(t *testing.T) {
	ctx := context.Background()
	lost := errs.New(errs.Unavailable, "LOST", "the answer was lost")
	var before, after faulty.Op
	s := faulty.New(memory.New(clock.System()), faulty.Faults{
		Before: func(op faulty.Op, _ string) error {
			if op == before {
				return lost
			}
			return nil
		},
		After: func(op faulty.Op, collection string) error {
			if op == after && collection == "things" {
				return lost
			}
			return nil
		},
	})
	require.NoError(t, s.Ensure(ctx, docstore.Spec{Name: "things"}))
	before = faulty.Insert
	require.ErrorIs(t, s.Insert(ctx, "things", document(t, "a", 1), nil), lost)
	before = ""
	_, err := s.Get(ctx, "things", "a")
	require.Equal(t, errs.NotFound, errs.KindOf(err), "it was not done")
	after = faulty.Insert
	require.ErrorIs(t, s.Insert(ctx, "things", document(t, "a", 1), nil), lost)
	_, err = s.Get(ctx, "things", "a")
	require.NoError(t, err, "it was done")
}

const logEnv = "CERTWRIGHT_FAILPOINT_LOG"

func TestEveryWriteHasItsFailpoints(t *testing.T) {
	if os.Getenv(logEnv) != "" {
		life(t, faulty.New(memory.New(clock.System()), faulty.Faults{}))
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	log := filepath.Join(t.TempDir(), "points")
	cmd := exec.Command(self, "-test.run=^TestEveryWriteHasItsFailpoints$")
	cmd.Env = append(os.Environ(), logEnv+"="+log)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	points, err := os.ReadFile(log) //nolint:gosec // made above
	require.NoError(t, err)
	var want []string
	for _, op := range []string{"insert", "update", "clear", "remove"} {
		want = append(want, "store.things."+op+".before", "store.things."+op+".after")
	}
	require.Equal(t, want, strings.Fields(string(points)))
}

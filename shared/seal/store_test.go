package seal

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
)

func TestTheGuardIsADocumentLikeAnyOther(t *testing.T) {
	ctx := t.Context()
	store := memory.New(clock.System())
	path := filepath.Join(t.TempDir(), "kek")
	first, err := OpenKEK(ctx, store, path, "orders")
	require.NoError(t, err)
	again, err := OpenKEK(ctx, store, path, "orders")
	require.NoError(t, err)
	require.Equal(t, first.KEK(), again.KEK())

	page, err := store.Find(ctx, GuardCollection, docstore.Query{})
	require.NoError(t, err)
	require.Len(t, page.Docs, 1)
	_, err = OpenKEK(ctx, store, filepath.Join(t.TempDir(), "elsewhere"), "orders")
	require.Equal(t, "KEK_MISSING", errs.ReasonOf(err))
}

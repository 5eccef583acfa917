package keys_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/keys"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
)

func TestServiceStopsWithoutItsKeyEncryptionKey(t *testing.T) {
	clk := clock.NewFake(time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC))
	store := memory.New(clk)
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.kek")
	mine, err := seal.OpenKEK(t.Context(), store, path, "keys")
	require.NoError(t, err)
	run := func() error {
		return keys.Run(context.Background(), &service.Platform{Name: "keys", Clock: clk, Logger: slog.New(slog.DiscardHandler), Store: store, DataDir: dir}, keys.Defaults())
	}

	require.NoError(t, os.Remove(path))
	err = run()
	require.Equal(t, "KEK_MISSING", errs.ReasonOf(err))
	require.ErrorContains(t, err, mine.KEK())
	_, statErr := os.Stat(path)
	require.ErrorIs(t, statErr, os.ErrNotExist, "no new key is made over sealed ones")

	foreign, err := seal.OpenKEK(t.Context(), memory.New(clk), path, "keys")
	require.NoError(t, err)
	err = run()
	require.Equal(t, "KEK_FOREIGN", errs.ReasonOf(err))
	require.ErrorContains(t, err, mine.KEK())
	require.ErrorContains(t, err, foreign.KEK())
}

package localkek_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/seal/localkek"
)

func TestAKeyFileIsMadeOnceAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "kek")
	made, err := localkek.Create(path)
	require.NoError(t, err)
	wrapped, err := made.Wrap(t.Context(), []byte("dek"), []byte("aad"))
	require.NoError(t, err)

	read, err := localkek.Load(path)
	require.NoError(t, err)
	require.Equal(t, made.ID(), read.ID())
	dek, err := read.Unwrap(t.Context(), wrapped, []byte("aad"))
	require.NoError(t, err)
	require.Equal(t, "dek", string(dek))
	_, err = read.Unwrap(t.Context(), wrapped, []byte("other"))
	require.Equal(t, "SEAL_BROKEN", errs.ReasonOf(err))

	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = localkek.Create(path)
	require.ErrorIs(t, err, fs.ErrExist)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestAKeyFileThatCannotBeTrustedIsRefused(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	_, err := localkek.Create(good)
	require.NoError(t, err)
	text, err := os.ReadFile(good)
	require.NoError(t, err)
	other := filepath.Join(t.TempDir(), "other")
	_, err = localkek.Create(other)
	require.NoError(t, err)
	foreign, err := os.ReadFile(other)
	require.NoError(t, err)
	lines, foreignLines := strings.Split(string(text), "\n"), strings.Split(string(foreign), "\n")
	exchanged := strings.Replace(string(text), lines[3], foreignLines[3], 1)
	require.NotEqual(t, string(text), exchanged)

	for _, c := range []struct {
		name, text string
		mode       fs.FileMode
		reason     string
		says       string
	}{
		{"a file that the group may read", string(text), 0o640, localkek.ReasonMode, "chmod 600"},
		{"a file that all may read", string(text), 0o644, localkek.ReasonMode, "chmod 600"},
		{"an empty file", "", 0o600, localkek.ReasonUnreadable, "backup"},
		{"a file that is not PEM", "key", 0o600, localkek.ReasonUnreadable, "backup"},
		{"a cut file", string(text[:len(text)/2]), 0o600, localkek.ReasonUnreadable, "backup"},
		{"a key exchanged under its id", exchanged, 0o600, localkek.ReasonUnreadable, "was changed"},
		{"a huge file", strings.Repeat("x", 5000), 0o600, localkek.ReasonUnreadable, "not a key file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.reason == localkek.ReasonMode && runtime.GOOS == "windows" {
				t.Skip("Windows has no such mode bits")
			}
			path := filepath.Join(t.TempDir(), "kek")
			require.NoError(t, os.WriteFile(path, []byte(c.text), c.mode))
			require.NoError(t, os.Chmod(path, c.mode)) // whatever the umask is
			_, err := localkek.Load(path)
			require.Equal(t, c.reason, errs.ReasonOf(err))
			require.Equal(t, errs.Precondition, errs.KindOf(err))
			require.ErrorContains(t, err, c.says)
			require.Equal(t, path, errs.As(err).Meta["path"])
		})
	}

	_, err = localkek.Load(filepath.Join(t.TempDir(), "none"))
	require.Equal(t, localkek.ReasonMissing, errs.ReasonOf(err))
	_, err = localkek.Load(t.TempDir())
	require.Equal(t, localkek.ReasonUnreadable, errs.ReasonOf(err))
}

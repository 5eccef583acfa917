package edgecert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func shown(t *testing.T, s Source) *tls.Certificate {
	t.Helper()
	c, err := s.Get(nil)
	require.NoError(t, err)
	return c
}

func openLocal(t *testing.T, dir string, clk clock.Clock, hosts ...string) (*Local, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	l, err := OpenLocal(t.Context(), dir, hosts, clk, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	return l, log
}

func requireTrusted(t *testing.T, dir string, c *tls.Certificate, host string, now time.Time) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, RootFile))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	_, err = c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now})
	require.NoError(t, err)
}

func TestTheLocalCAIsMadeOnceAndItsCertificateRenewed(t *testing.T) {
	dir, clk := t.TempDir(), clock.NewFake(start)
	l, _ := openLocal(t, dir, clk, "localhost", "127.0.0.1", "::1")
	first := shown(t, l)
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		requireTrusted(t, dir, first, host, start)
	}
	for _, key := range []string{rootKeyFile, leafKeyFile} {
		info, err := os.Stat(filepath.Join(dir, key))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), key)
	}
	root, err := os.ReadFile(filepath.Join(dir, RootFile))
	require.NoError(t, err)

	again, log := openLocal(t, dir, clk, "localhost", "127.0.0.1", "::1")
	require.Equal(t, first.Certificate, shown(t, again).Certificate, "a restart shows the same certificate")
	require.Empty(t, log.String())

	clk.Advance(59 * 24 * time.Hour)
	require.NoError(t, l.Refresh(t.Context()))
	require.Equal(t, first.Certificate, shown(t, l).Certificate, "more than 30 days are left")
	clk.Advance(2 * 24 * time.Hour)
	require.NoError(t, l.Refresh(t.Context()))
	require.NotEqual(t, first.Certificate, shown(t, l).Certificate, "renewed without a restart")
	requireTrusted(t, dir, shown(t, l), "localhost", clk.Now())
	now, err := os.ReadFile(filepath.Join(dir, RootFile))
	require.NoError(t, err)
	require.Equal(t, root, now, "by the same CA")

	more, _ := openLocal(t, dir, clk, "localhost", "edge.test")
	requireTrusted(t, dir, shown(t, more), "edge.test", clk.Now())
}

func TestATornPairIsMadeAnew(t *testing.T) {
	for _, row := range []struct {
		name, file string
		remove     bool
		newRoot    bool
	}{
		{"a certificate without its key", leafKeyFile, true, false},
		{"a key that is garbage", leafKeyFile, false, false},
		{"a CA without its key", rootKeyFile, true, true},
		{"a CA's certificate that is missing", RootFile, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir, clk := t.TempDir(), clock.NewFake(start)
			openLocal(t, dir, clk, "localhost")
			before, err := os.ReadFile(filepath.Join(dir, RootFile))
			require.NoError(t, err)
			path := filepath.Join(dir, row.file)
			if row.remove {
				require.NoError(t, os.Remove(path))
			} else {
				require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
			}
			l, _ := openLocal(t, dir, clk, "localhost")
			requireTrusted(t, dir, shown(t, l), "localhost", start)
			after, err := os.ReadFile(filepath.Join(dir, RootFile))
			require.NoError(t, err)
			require.Equal(t, row.newRoot, !bytes.Equal(before, after))
		})
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	clk := clock.NewFake(start)
	a, _ := openLocal(t, one, clk, "localhost")
	b, _ := openLocal(t, two, clk, "localhost")
	cert, key := filepath.Join(one, leafFile), filepath.Join(one, leafKeyFile)
	f, err := OpenFiles(t.Context(), cert, key, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, shown(t, a).Certificate, shown(t, f).Certificate)

	require.NoError(t, os.Rename(filepath.Join(two, leafFile), cert))
	require.Error(t, f.Refresh(t.Context()), "the pair does not match yet")
	require.Equal(t, shown(t, a).Certificate, shown(t, f).Certificate, "the one of before is shown")
	require.NoError(t, os.Rename(filepath.Join(two, leafKeyFile), key))
	require.NoError(t, f.Refresh(t.Context()))
	require.Equal(t, shown(t, b).Certificate, shown(t, f).Certificate)

	_, err = OpenFiles(t.Context(), filepath.Join(one, "none"), key, slog.New(slog.DiscardHandler))
	require.Equal(t, "EDGE_FILES_UNUSABLE", errs.ReasonOf(err))
	require.ErrorContains(t, err, "none")
}

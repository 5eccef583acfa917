package site_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/deployments/lab/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "www.lab.test"

// bench is a site under a hammer that trusts its first root and one more.
type bench struct {
	site     *site.Site
	hammer   *hammer.Hammer
	issuer   *pki.Authority
	certFile string
	keyFile  string
}

func newBench(t *testing.T) bench {
	t.Helper()
	dir := t.TempDir()
	b := bench{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	b.site = labtest.Site(t, site.Options{CertFile: b.certFile, KeyFile: b.keyFile, Names: []string{name}})
	var err error
	b.issuer, err = pki.New("issuer")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.site.FallbackRootPEM())
	roots.AppendCertsFromPEM(b.issuer.RootPEM())
	b.hammer = labtest.Hammer(t, hammer.Options{
		Addr: b.site.Addr(), ServerName: name, Roots: roots, Pause: time.Millisecond, Path: "/",
	})
	require.NoError(t, b.hammer.WaitServed(labtest.Deadline(t, 10*time.Second), b.site.Fingerprint()))
	return b
}

// install writes a new certificate into the files and returns its fingerprint.
func (b bench) install(t *testing.T) string {
	t.Helper()
	pair, err := b.issuer.Issue(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(b.certFile, pair.CertPEM, 0o600))
	require.NoError(t, os.WriteFile(b.keyFile, pair.KeyPEM, 0o600))
	return pki.FingerprintPEM(pair.CertPEM)
}

func TestReloadsServeTheNewCertificateWithoutAFailedHandshake(t *testing.T) {
	b := newBench(t)
	want := []string{b.site.Fingerprint()}
	for range 5 {
		next := b.install(t)
		want = append(want, next)
		got, err := site.Control(t.Context(), "reload", b.site.ControlAddr())
		require.NoError(t, err)
		require.Equal(t, next, got)
		require.NoError(t, b.hammer.WaitServed(labtest.Deadline(t, 10*time.Second), next))
	}
	report := b.hammer.Stop()
	require.NoError(t, report.Err())
	require.Equal(t, want, report.Fingerprints())
	require.Equal(t, 5, b.site.Reloads())
}

func TestABrokenFileIsRefusedAndTheOldCertificateStays(t *testing.T) {
	b := newBench(t)
	before := b.site.Fingerprint()
	require.NoError(t, os.WriteFile(b.certFile, []byte("no certificate"), 0o600))
	_, err := site.Control(t.Context(), "reload", b.site.ControlAddr())
	require.ErrorContains(t, err, "load certificate")
	got, err := site.Control(t.Context(), "fingerprint", b.site.ControlAddr())
	require.NoError(t, err)
	require.Equal(t, before, got)
	require.NoError(t, b.hammer.Stop().Err())
}

func TestASiteCanRefuseOrIgnoreReloads(t *testing.T) {
	b := newBench(t)
	before := b.site.Fingerprint()
	next := b.install(t)
	b.site.SetMode(site.Refusing)
	require.Error(t, b.site.Reload())
	b.site.SetMode(site.Ignoring)
	require.NoError(t, b.site.Reload())
	require.Equal(t, before, b.site.Fingerprint())
	b.site.SetMode(site.Honest)
	require.NoError(t, b.site.Reload())
	require.Equal(t, next, b.site.Fingerprint())
}

func TestMissingFilesAreAnErrorWithoutNames(t *testing.T) {
	_, err := site.Start(site.Options{CertFile: filepath.Join(t.TempDir(), "none"), KeyFile: "none"})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTheSitectlCommandReloadsAndSaysWhyNot(t *testing.T) {
	b := newBench(t)
	sitectl := labtest.Sitectl(t)
	next := b.install(t)
	out, err := exec.CommandContext(t.Context(), sitectl, "reload", b.site.ControlAddr()).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, next, strings.TrimSpace(string(out)))

	b.site.SetMode(site.Refusing)
	out, err = exec.CommandContext(t.Context(), sitectl, "reload", b.site.ControlAddr()).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, string(out), "refuses to reload")
}

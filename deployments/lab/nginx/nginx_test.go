package nginx_test

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/nginx"
	"github.com/certwright/certwright/deployments/lab/pki"
)

func TestNginxReloadsANewCertificateAndRefusesABrokenOne(t *testing.T) {
	s := labtest.Nginx(t, nginx.Options{Names: []string{"www.lab.test"}})
	issuer, err := pki.New("issuer")
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.FallbackRootPEM())
	roots.AppendCertsFromPEM(issuer.RootPEM())
	h := labtest.Hammer(t, hammer.Options{Addr: s.Addr(), ServerName: "www.lab.test", Roots: roots})
	first, err := os.ReadFile(s.CertFile)
	require.NoError(t, err)
	ctx := labtest.Deadline(t, 20*time.Second)
	require.NoError(t, h.WaitServed(ctx, pki.FingerprintPEM(first)), s.Log())

	pair, err := issuer.Issue("www.lab.test")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.CertFile, pair.CertPEM, 0o600))
	require.NoError(t, os.WriteFile(s.KeyFile, pair.KeyPEM, 0o600))
	for _, command := range [][]string{s.TestCommand(), s.ReloadCommand()} {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	require.NoError(t, h.WaitServed(ctx, pki.FingerprintPEM(pair.CertPEM)), s.Log())
	require.Equal(t, []string{pki.FingerprintPEM(first), pki.FingerprintPEM(pair.CertPEM)}, h.Stop().Fingerprints())

	require.NoError(t, os.WriteFile(s.CertFile, []byte("broken"), 0o600))
	for _, command := range [][]string{s.TestCommand(), s.ReloadCommand()} {
		require.Error(t, exec.CommandContext(ctx, command[0], command[1:]...).Run(), command)
	}
	still := labtest.Hammer(t, hammer.Options{Addr: s.Addr(), ServerName: "www.lab.test", Roots: roots})
	require.NoError(t, still.WaitServed(ctx, pki.FingerprintPEM(pair.CertPEM)))
}

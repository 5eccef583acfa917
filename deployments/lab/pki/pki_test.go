package pki_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/pki"
)

func TestIssueMakesACertificateThatItsRootVerifies(t *testing.T) {
	a, err := pki.New("lab root")
	require.NoError(t, err)
	other, err := pki.New("another root")
	require.NoError(t, err)
	pair, err := a.Issue("localhost", "127.0.0.1")
	require.NoError(t, err)

	for _, name := range []string{"localhost", "127.0.0.1"} {
		_, err = pair.TLS.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name})
		require.NoError(t, err, name)
	}
	_, err = pair.TLS.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "elsewhere"})
	require.Error(t, err)
	_, err = pair.TLS.Leaf.Verify(x509.VerifyOptions{Roots: other.Pool(), DNSName: "localhost"})
	require.Error(t, err)
	require.Equal(t, pki.Fingerprint(pair.TLS.Leaf.Raw), pki.FingerprintPEM(pair.CertPEM))
	require.Empty(t, pki.FingerprintPEM(pair.KeyPEM))
}

func TestACertificateWithoutANameIsRefused(t *testing.T) {
	a, err := pki.New("lab root")
	require.NoError(t, err)
	_, err = a.Issue()
	require.ErrorContains(t, err, "at least one name")
}

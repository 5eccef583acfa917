//go:debug x509usefallbackroots=1

package service_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPublicRootsAreThereWithoutAnyOfTheMachine(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "/nonexistent")
	t.Setenv("SSL_CERT_DIR", "/nonexistent")
	pool, err := x509.SystemCertPool()
	require.NoError(t, err)
	require.False(t, pool.Equal(x509.NewCertPool()))
}

package tlsprobe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
)

func selfSigned(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	sum := sha256.Sum256(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, hex.EncodeToString(sum[:])
}

// listen handles each connection with f.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				f(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestServed(t *testing.T) {
	one, first := selfSigned(t, "one.example")
	two, second := selfSigned(t, "two.example")
	byName := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "two.example" {
			return &two, nil
		}
		return &one, nil
	}}
	handshake := func(c *tls.Config) func(net.Conn) {
		return func(conn net.Conn) { _ = tls.Server(conn, c).HandshakeContext(t.Context()) }
	}
	site := listen(t, handshake(byName))
	strict := listen(t, handshake(&tls.Config{Certificates: []tls.Certificate{one}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}))
	mute := listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1<<16)); <-t.Context().Done() })
	plain := listen(t, func(conn net.Conn) { _, _ = conn.Write([]byte("220 mail.example ESMTP\r\n")) })
	tests := map[string]struct {
		address, name, want string
	}{
		"the certificate of the name asked for":                    {site, "two.example", second},
		"the default of another name":                              {site, "one.example", first},
		"a server that then wants a client certificate":            {strict, "one.example", first},
		"a server that answers nothing is not waited for for long": {mute, "one.example", ""},
		"a server without TLS":                                     {plain, "one.example", ""},
		"no server":                                                {"127.0.0.1:1", "one.example", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			limit := 20 * time.Second
			if tt.address == mute {
				limit = 200 * time.Millisecond
			}
			got, err := Probe{Timeout: limit}.Served(t.Context(), tt.address, tt.name)
			require.Equal(t, tt.want, got)
			if tt.want != "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, "DEPLOY_PROBE_UNREACHABLE", errs.ReasonOf(err))
			require.ErrorContains(t, err, "no certificate was seen at "+tt.address+` (server name "one.example")`)
		})
	}
}

package alpn_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/adapters/alpn"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

// start runs the responder and returns its address.
func start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &alpn.Responder{Clock: clock.System(), Logger: testkit.Logger(t), Answers: func(_ context.Context, identifier string) (string, error) {
		switch identifier {
		case "example.org", "192.0.2.1", "2001:db8::1":
			return "token.key of " + identifier, nil
		case "broken.test":
			return "", errs.New(errs.Unavailable, "", "the store is away")
		}
		return "", errs.New(errs.NotFound, "", "none")
	}}
	testkit.Run(t, func(ctx context.Context) error { return r.Serve(ctx, l) })
	return l.Addr().String()
}

func TestTheResponderIsSeenAsACASeesIt(t *testing.T) {
	addr := start(t)
	table := []struct{ name, identifier, value, want string }{
		{"a name", "example.org", "token.key of example.org", ""},
		{"an IPv4 address", "192.0.2.1", "token.key of 192.0.2.1", ""},
		{"an IPv6 address", "2001:db8::1", "token.key of 2001:db8::1", ""},
		{"another value", "example.org", "other", "of another key authorization"},
		{"a name that nobody asked to prove", "other.test", "v", "there is no answer to a handshake for other.test by acme-tls/1 (remote error: tls: "},
		{"a store that is away", "broken.test", "v", "there is no answer to a handshake"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			wrong, err := alpn.Look(t.Context(), &net.Dialer{}, addr, row.identifier, row.value, 5*time.Second)
			require.NoError(t, err)
			if row.want == "" {
				require.Empty(t, wrong)
			}
			require.Contains(t, wrong, row.want)
		})
	}
	t.Run("another protocol gets nothing", func(t *testing.T) {
		for _, protos := range [][]string{nil, {"h2", "http/1.1"}} {
			_, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "example.org", NextProtos: protos, InsecureSkipVerify: true}) //nolint:gosec,noctx // a test
			require.Error(t, err)
		}
	})
	t.Run("a closed port", func(t *testing.T) {
		wrong, err := alpn.Look(t.Context(), &net.Dialer{}, "127.0.0.1:1", "example.org", "v", time.Second)
		require.NoError(t, err)
		require.Contains(t, wrong, "connection refused")
	})
	t.Run("the end of the step is no verdict", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := alpn.Look(ctx, &net.Dialer{}, addr, "example.org", "v", time.Second)
		require.Equal(t, errs.Canceled, errs.KindOf(err))
	})
}

// serve shows a certificate to everybody who speaks the protocols.
func serve(t *testing.T, cert tls.Certificate, protos ...string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protos, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() //nolint:forcetypeassert,noctx // a test
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestWhatACAWouldRefuseIsNamed(t *testing.T) {
	octets := []byte{0x04, 0x01, 0x00}
	proof := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}
	make := func(t *testing.T, names []string, extensions ...pkix.Extension) tls.Certificate {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, ExtraExtensions: extensions}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		require.NoError(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	good, err := alpn.Certificate("example.org", "v", time.Now())
	require.NoError(t, err)
	table := []struct {
		name  string
		cert  tls.Certificate
		proto string
		want  string
	}{
		{"an ordinary server", *good, "", "it answers without acme-tls/1: an ordinary TLS server has the port"},
		{"two names", make(t, []string{"example.org", "www.example.org"}), alpn.Protocol, `its certificate is for ["example.org" "www.example.org"]; it has to be for example.org alone`},
		{"no extension", make(t, []string{"example.org"}), alpn.Protocol, "its certificate has no acmeIdentifier extension (1.3.6.1.5.5.7.1.31)"},
		{"an extension that is not critical", make(t, []string{"example.org"}, pkix.Extension{Id: proof, Value: octets}), alpn.Protocol,
			"the acmeIdentifier extension of its certificate is not critical"},
		{"an extension of another form", make(t, []string{"example.org"}, pkix.Extension{Id: proof, Critical: true, Value: []byte{0x05, 0x00}}), alpn.Protocol,
			"the acmeIdentifier extension of its certificate is not an OCTET STRING"},
		{"another digest", make(t, []string{"example.org"}, pkix.Extension{Id: proof, Critical: true, Value: octets}), alpn.Protocol,
			"its certificate has the digest 00 of another key authorization"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			var protos []string
			if row.proto != "" {
				protos = []string{row.proto}
			}
			wrong, err := alpn.Look(t.Context(), &net.Dialer{}, serve(t, row.cert, protos...), "example.org", "v", 5*time.Second)
			require.NoError(t, err)
			require.Equal(t, row.want, wrong)
		})
	}
}

// What a person is told to do works.
func TestACertificateMadeAsThePersonIsTold(t *testing.T) {
	openssl := testkit.RequireBinary(t, "openssl", "openssl")
	for _, identifier := range []string{"example.org", "192.0.2.1", "2001:db8::1"} {
		told := domain.Instructions(domain.TLSALPN01, identifier, "", "token.key")
		_, command, ok := strings.Cut(told, "openssl ")
		require.True(t, ok, told)
		command, _, _ = strings.Cut(command, "\n")
		cmd := exec.CommandContext(t.Context(), "sh", "-c", openssl+" "+command)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, out)
		cert, err := tls.LoadX509KeyPair(filepath.Join(cmd.Dir, "acme.crt"), filepath.Join(cmd.Dir, "acme.key"))
		require.NoError(t, err)
		wrong, err := alpn.Look(t.Context(), &net.Dialer{}, serve(t, cert, alpn.Protocol), identifier, "token.key", 5*time.Second)
		require.NoError(t, err)
		require.Empty(t, wrong)
		key, err := os.ReadFile(filepath.Join(cmd.Dir, "acme.key"))
		require.NoError(t, err)
		require.True(t, bytes.Contains(key, []byte("PRIVATE KEY")))
	}
}

func TestServerNames(t *testing.T) {
	for identifier, name := range map[string]string{
		"example.org": "example.org", "192.0.2.1": "1.2.0.192.in-addr.arpa",
		"2001:db8::1": "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		require.Equal(t, name, alpn.ServerName(identifier))
		got, ok := alpn.Identifier(strings.ToUpper(name))
		require.True(t, ok)
		require.Equal(t, identifier, got)
	}
	for _, name := range []string{"", "a b", "1.2.3.in-addr.arpa", "x.2.0.192.in-addr.arpa", "1.ip6.arpa", strings.Repeat("00.", 32) + "ip6.arpa", strings.Repeat("a", 254), "é.test"} {
		_, ok := alpn.Identifier(name)
		require.False(t, ok, name)
	}
}

func FuzzIdentifier(f *testing.F) {
	f.Add("example.org")
	f.Add("1.2.0.192.in-addr.arpa")
	f.Add("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		identifier, ok := alpn.Identifier(name)
		if !ok {
			return
		}
		again, ok := alpn.Identifier(alpn.ServerName(identifier))
		if !ok || again != identifier {
			t.Fatalf("%q asks about %q, which is asked for as %q", name, identifier, alpn.ServerName(identifier))
		}
	})
}

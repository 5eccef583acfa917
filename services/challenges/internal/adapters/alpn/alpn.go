// Package alpn answers tls-alpn-01 challenges (RFC 8737, for addresses RFC 8738) and looks whether somebody does. Its responder is reachable
// from the whole internet: it speaks no protocol but acme-tls/1, and closes the connection after the handshake.
package alpn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// Protocol is what client and server agree on by ALPN (RFC 8737 section 6.2).
const Protocol = "acme-tls/1"

const (
	patience = 5 * time.Second
	// atOnce bounds the handshakes in hand; further connections wait.
	atOnce = 512
	// validity of the certificates around now. No CA looks at it, but clocks differ.
	validity = 24 * time.Hour
)

// acmeIdentifier is id-pe-acmeIdentifier (RFC 8737 section 6.1).
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// Answers finds the key authorization for an identifier, a DNS name or an address; NotFound when there is none.
type Answers func(ctx context.Context, identifier string) (string, error)

// Responder answers handshakes.
type Responder struct {
	Answers Answers
	Clock   clock.Clock
	Logger  *slog.Logger
}

// Serve answers on l until ctx ends, and lets handshakes in hand finish.
func (r *Responder) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	slots := make(chan struct{}, atOnce)
	var hands sync.WaitGroup
	defer hands.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of file descriptors, or a connection that is gone already
			r.Logger.WarnContext(ctx, "a connection to the tls-alpn-01 responder is not taken", "error", err)
			if r.Clock.Sleep(ctx, 100*time.Millisecond) != nil {
				return nil
			}
			continue
		}
		slots <- struct{}{}
		hands.Go(func() {
			defer func() { <-slots; _ = conn.Close() }()
			r.handshake(context.WithoutCancel(ctx), conn)
		})
	}
}

// handshake is the whole conversation: the CA looks at the certificate and goes.
func (r *Responder) handshake(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// An error is the internet's affair: scanners, and whoever speaks something else.
	_ = tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{Protocol}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return r.certificate(ctx, hello) },
	}).HandshakeContext(ctx)
}

var errNotAsked = errors.New("this server answers acme-tls/1 alone")

func (r *Responder) certificate(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	identifier, ok := Identifier(hello.ServerName)
	if !ok || !slices.Contains(hello.SupportedProtos, Protocol) {
		return nil, errNotAsked
	}
	keyAuthorization, err := r.Answers(ctx, identifier)
	if err != nil {
		if errs.KindOf(err) != errs.NotFound {
			r.Logger.WarnContext(ctx, "a challenge cannot be looked up", "error", err)
		}
		return nil, err
	}
	return Certificate(identifier, keyAuthorization, r.Clock.Now())
}

// ServerName is what a CA asks for by SNI: the name itself, or the reverse name of an address (RFC 8738 section 6).
func ServerName(identifier string) string {
	if ip, err := netip.ParseAddr(identifier); err == nil {
		reverse, _ := mdns.ReverseAddr(ip.Unmap().String()) // an address has one
		return strings.TrimSuffix(reverse, ".")
	}
	return identifier
}

// Identifier is what a server name asks about. False when it is neither a DNS name nor the reverse name of an address.
func Identifier(serverName string) (string, bool) {
	name := strings.TrimSuffix(strings.ToLower(serverName), ".")
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(labels, ".")
		slices.Reverse(parts)
		ip, err := netip.ParseAddr(strings.Join(parts, "."))
		return ip.String(), err == nil && ip.Is4()
	}
	if labels, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		digits := strings.Split(labels, ".")
		if len(digits) != 32 {
			return "", false
		}
		slices.Reverse(digits)
		var text strings.Builder
		for i, d := range digits {
			if i > 0 && i%4 == 0 {
				text.WriteByte(':')
			}
			text.WriteString(d)
		}
		ip, err := netip.ParseAddr(text.String())
		return ip.String(), err == nil && ip.Is6() && !ip.Is4In6() && text.Len() == 39
	}
	if name == "" || len(name) > 253 {
		return "", false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return name, true
}

// Certificate makes the self-signed certificate that proves control of the identifier (RFC 8737 section 3), with a key of its own.
func Certificate(identifier, keyAuthorization string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(keyAuthorization))
	value, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ACME challenge"}, NotBefore: now.Add(-validity), NotAfter: now.Add(validity),
		ExtraExtensions: []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: value}},
	}
	if ip := net.ParseIP(identifier); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{identifier}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Look asks the server at address as a CA does. wrong says what is not as it should be, empty when all is; err is the end of ctx.
func Look(ctx context.Context, dialer *net.Dialer, address, identifier, keyAuthorization string, timeout time.Duration) (wrong string, err error) {
	ask, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := tls.Dialer{NetDialer: dialer, Config: &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: ServerName(identifier), NextProtos: []string{Protocol},
		InsecureSkipVerify: true, //nolint:gosec // the certificate is self-signed by design; its extension is what proves
	}}
	conn, err := d.DialContext(ask, "tcp", address)
	if ctx.Err() != nil {
		return "", errs.New(errs.Canceled, "", "looking at %s was given up: %w", address, ctx.Err())
	}
	if err != nil {
		return fmt.Sprintf("there is no answer to a handshake for %s by %s (%v)", ServerName(identifier), Protocol, err), nil
	}
	defer func() { _ = conn.Close() }()
	state := conn.(*tls.Conn).ConnectionState() //nolint:forcetypeassert // what the dialer makes
	if state.NegotiatedProtocol != Protocol {
		return fmt.Sprintf("it answers without %s: an ordinary TLS server has the port", Protocol), nil
	}
	return judge(state.PeerCertificates[0], identifier, keyAuthorization), nil
}

// judge checks a certificate as RFC 8737 section 3 wants it.
func judge(cert *x509.Certificate, identifier, keyAuthorization string) string {
	want := []string{identifier}
	if ip := net.ParseIP(identifier); ip != nil {
		want = []string{ip.String()}
	}
	var names []string
	for _, n := range cert.DNSNames {
		names = append(names, strings.ToLower(n))
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if !slices.Equal(names, want) {
		return fmt.Sprintf("its certificate is for %q; it has to be for %s alone", names, identifier)
	}
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(acmeIdentifier) })
	if i < 0 {
		return "its certificate has no acmeIdentifier extension (1.3.6.1.5.5.7.1.31)"
	}
	var digest []byte
	rest, err := asn1.Unmarshal(cert.Extensions[i].Value, &digest)
	sum := sha256.Sum256([]byte(keyAuthorization))
	switch {
	case !cert.Extensions[i].Critical:
		return "the acmeIdentifier extension of its certificate is not critical"
	case err != nil || len(rest) > 0:
		return "the acmeIdentifier extension of its certificate is not an OCTET STRING"
	case !slices.Equal(digest, sum[:]):
		return fmt.Sprintf("its certificate has the digest %x of another key authorization", digest)
	}
	return ""
}

package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/shared/clock"
)

// libraryHost is where the bare client answers http-01: the port of the platform's responder on another loopback address.
const libraryHost = "127.0.0.2"

// library is the ACME library without anything around it: raw calls, everything in memory, nothing stored.
type library struct {
	core   *api.Core
	server *http.Server

	mu      sync.Mutex
	answers map[string]string // by token
}

func newLibrary(s *ca.Server, port int) (*library, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	first, err := api.New(s.HTTPClient(), "bench", s.DirectoryURL(), "", key)
	if err != nil {
		return nil, err
	}
	account, err := first.Accounts.New(acme.Account{TermsOfServiceAgreed: true})
	if err != nil {
		return nil, err
	}
	l := &library{answers: map[string]string{}}
	if l.core, err = api.New(s.HTTPClient(), "bench", s.DirectoryURL(), account.Location, key); err != nil {
		return nil, err
	}
	at, err := loopback.Listen(fmt.Sprintf("%s:%d", libraryHost, port))
	if err != nil {
		return nil, err
	}
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = l.server.Serve(at) }()
	return l, nil
}

func (l *library) close() { _ = l.server.Close() }

// ServeHTTP answers http-01 (RFC 8555 section 8.3).
func (l *library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	answer, ok := l.answers[strings.TrimPrefix(r.URL.Path, "/.well-known/acme-challenge/")]
	l.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(answer))
}

func (l *library) obtain(ctx context.Context, name string) error {
	order, err := l.core.Orders.New([]string{name})
	if err != nil {
		return err
	}
	for _, u := range order.Authorizations {
		if err := l.prove(u); err != nil {
			return err
		}
	}
	if _, err := l.until(ctx, order.Location, acme.StatusReady); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return err
	}
	if _, err := l.core.Orders.UpdateForCSR(order.Finalize, csr); err != nil {
		return err
	}
	done, err := l.until(ctx, order.Location, acme.StatusValid)
	if err != nil {
		return err
	}
	_, _, err = l.core.Certificates.Get(done.Certificate, true)
	return err
}

func (l *library) prove(authorization string) error {
	authz, err := l.core.Authorizations.Get(authorization)
	if err != nil {
		return err
	}
	for _, c := range authz.Challenges {
		if c.Type != "http-01" {
			continue
		}
		answer, err := l.core.GetKeyAuthorization(c.Token)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.answers[c.Token] = answer
		l.mu.Unlock()
		_, err = l.core.Challenges.New(c.URL)
		return err
	}
	return fmt.Errorf("the CA offers no http-01 for %s", authz.Identifier.Value)
}

// until polls tightly: first after 2 ms, then half as long again each time, up to 50 ms.
func (l *library) until(ctx context.Context, url, status string) (acme.ExtendedOrder, error) {
	for pause := 2 * time.Millisecond; ; pause = min(pause*3/2, 50*time.Millisecond) {
		order, err := l.core.Orders.Get(url)
		if err != nil || order.Status == status {
			return order, err
		}
		if order.Status == acme.StatusInvalid {
			return order, fmt.Errorf("the order became invalid: %w", order.Error)
		}
		if err := clock.System().Sleep(ctx, pause); err != nil {
			return order, fmt.Errorf("the order stays %s: %w", order.Status, err)
		}
	}
}

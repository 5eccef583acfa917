// Package ca runs an ACME certification authority for tests and the demo: Pebble inside this process, behind
// HTTPS with its own throw-away root, with controls to watch it and to make it misbehave.
//
// Two things of Pebble are fenced here. Its front end deadlocks when it is asked concurrently, so requests pass
// one at a time; and it reads settings from the process's environment, so construction is serialised.
package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pebbleca "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/pki"
)

// DefaultProfile is the one profile of a CA whose options name none.
const DefaultProfile = "default"

// defaultValidity is the life of a certificate whose profile does not say.
const defaultValidity = 90 * 24 * time.Hour

// Profile is one kind of certificate that an order may ask for by name.
type Profile struct {
	Description string
	Validity    time.Duration // whole seconds; zero: 90 days
	CommonName  bool          // the first name becomes the subject's common name
}

// Options of a CA. The zero value is a friendly CA on a free port with one profile: no nonce refused, no
// authorization reused, validation at once through the system's resolver on ports 5002 and 5001.
type Options struct {
	Addr        string // loopback address to listen on; empty: a free port
	Strict      bool   // Pebble's stricter reading of the RFC
	NonceReject int    // percent of good nonces refused, 0 to 99
	AuthzReuse  int    // percent of orders that reuse a valid authorization, 0 to 100
	Sleep       bool   // the validator waits 0 to 4 s before it asks
	AlwaysValid bool   // challenges are not validated at all
	DNSServer   string // host:port that the validator asks (over TCP); empty: the system's resolver
	HTTPPort    int    // http-01; zero: 5002
	TLSPort     int    // tls-alpn-01; zero: 5001

	// Profiles by name. With more than one, an order that names none gets a random one: that is Pebble.
	Profiles map[string]Profile

	OrderRetryAfter   time.Duration // on orders being processed, whole seconds; sent as seconds or as a date, at random
	AuthzRetryAfter   time.Duration // on authorizations being validated, likewise
	RenewalRetryAfter time.Duration // on renewal information, in seconds; zero: Pebble's six hours

	// EABKeys are external account keys by key id, base64url without padding. Not empty: binding is required.
	EABKeys map[string]string
	Blocked []string // domains (with all below) that are refused

	RSA            bool // the CA's own keys are RSA 2048 instead of P-256
	AlternateRoots int  // further chains, offered as alternates
	ChainLength    int  // intermediates; zero: 1

	WithoutRenewalInfo  bool // the directory offers no renewal information (RFC 9773)
	ReplacedWhenOrdered bool // a second replacing order is refused while the first is pending, as Boulder does; Pebble waits for its finalization

	Logger *slog.Logger // Pebble's own log at level debug, trouble at warn; nil: none
}

// Server is a running CA. Its methods may be called from any goroutine.
type Server struct {
	opts     Options
	log      *slog.Logger
	store    *db.MemoryStore
	issuer   *pebbleca.CAImpl
	inner    http.Handler
	listener net.Listener
	http     *http.Server
	served   chan struct{} // closed when the accept loop ended
	closed   chan struct{}
	closeFn  func() error
	root     *pki.Authority

	turn chan struct{} // holds one token: whoever is inside Pebble
	down atomic.Bool
	skew atomic.Int64 // nanoseconds added to the Date header

	mu         sync.Mutex
	counts     Counts
	orderIDs   []string                         // in the order of their making
	names      map[string][]string              // by order id
	finalizes  map[string]int                   // requests by order id
	bySerial   map[string]string                // order id by Pebble's hex serial
	authz      map[string][]*core.Authorization // ever made, by name
	injections []*Injection
}

// constructing serialises what Pebble reads from the process's environment.
var constructing sync.Mutex

// Start runs a CA until Close. The validator's own goroutine outlives it, as Pebble has no way to end it.
func Start(o Options) (*Server, error) {
	root, err := pki.New("Lab ACME endpoint root")
	if err != nil {
		return nil, err
	}
	pair, err := root.Issue("localhost", "127.0.0.1", "::1")
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, log: o.Logger, root: root,
		store: db.NewMemoryStore(), turn: make(chan struct{}, 1),
		served: make(chan struct{}), closed: make(chan struct{}),
		counts: newCounts(), names: map[string][]string{}, finalizes: map[string]int{}, bySerial: map[string]string{},
		authz: map[string][]*core.Authorization{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.construct(); err != nil {
		return nil, err
	}
	if s.listener, err = loopback.Listen(o.Addr); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // aborted connections are this package's trade
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair.TLS}, MinVersion: tls.VersionTLS12},
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1: a dropped answer is a dropped connection
	}
	s.closeFn = sync.OnceValue(func() error {
		close(s.closed)
		err := s.http.Close()
		<-s.served
		return err
	})
	go func() {
		defer close(s.served)
		if err := s.http.ServeTLS(&gate{Listener: s.listener, down: &s.down}, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.log.Warn("the CA stopped serving", "error", err)
		}
	}()
	return s, nil
}

func (s *Server) construct() error {
	o := s.opts
	logger := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	keys := "ecdsa"
	if o.RSA {
		keys = "rsa"
	}
	for id, key := range o.EABKeys {
		if err := s.store.AddExternalAccountKeyByID(id, key); err != nil {
			return fmt.Errorf("external account key %q: %w", id, err)
		}
	}
	for _, domain := range o.Blocked {
		if err := s.store.AddBlockedDomain(domain); err != nil {
			return fmt.Errorf("blocked domain %q: %w", domain, err)
		}
	}
	env := map[string]string{
		"PEBBLE_VA_NOSLEEP":      flag(!o.Sleep),
		"PEBBLE_VA_ALWAYS_VALID": flag(o.AlwaysValid),
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.NonceReject),
		"PEBBLE_AUTHZREUSE":      strconv.Itoa(o.AuthzReuse),
	}
	return withEnv(env, func() {
		s.issuer = pebbleca.New(logger, s.store, "", keys, o.AlternateRoots, max(o.ChainLength, 1), profiles(o.Profiles))
		validator := va.New(logger, orDefault(o.HTTPPort, 5002), orDefault(o.TLSPort, 5001), o.Strict, o.DNSServer, s.store)
		front := wfe.New(logger, s.store, validator, s.issuer, []string{"lab.invalid"}, o.Strict, len(o.EABKeys) > 0,
			int(o.AuthzRetryAfter/time.Second), int(o.OrderRetryAfter/time.Second))
		s.inner = front.Handler()
	})
}

func profiles(in map[string]Profile) map[string]pebbleca.Profile {
	if len(in) == 0 {
		in = map[string]Profile{DefaultProfile: {Description: "The lab's only profile"}}
	}
	out := make(map[string]pebbleca.Profile, len(in))
	for name, p := range in {
		validity := p.Validity
		if validity <= 0 {
			validity = defaultValidity
		}
		out[name] = pebbleca.Profile{
			Description: p.Description, PromoteCommonName: p.CommonName,
			ValidityPeriod: uint64(validity / time.Second), //nolint:gosec // positive
		}
	}
	return out
}

// withEnv runs f with the given environment and puts back what was there.
func withEnv(env map[string]string, f func()) error {
	constructing.Lock()
	defer constructing.Unlock()
	for name, value := range env {
		before, was := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		defer func() {
			if was {
				_ = os.Setenv(name, before)
			} else {
				_ = os.Unsetenv(name)
			}
		}()
	}
	f()
	return nil
}

// Close ends the CA and every connection to it. It is safe to call more than once.
func (s *Server) Close() error { return s.closeFn() }

// Addr is the host:port that the CA listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// DirectoryURL is where an ACME client begins.
func (s *Server) DirectoryURL() string { return "https://" + s.Addr() + wfe.DirectoryPath }

// TLSRootPEM is the root that the CA's own HTTPS endpoint chains to. It never signs what the CA issues.
func (s *Server) TLSRootPEM() []byte { return s.root.RootPEM() }

// HTTPClient is a fresh client that trusts the CA's endpoint and nothing else. It has no timeout over all, since
// lego leaves some bodies open, whose timers would live on.
func (s *Server) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: s.root.Pool(), MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost:   64,
		ResponseHeaderTimeout: time.Minute,
	}}
}

// RootsPEM are the roots that issued certificates chain to, the default one first.
func (s *Server) RootsPEM() []byte {
	var all []byte
	for i := range s.issuer.GetNumberOfRootCerts() {
		all = append(all, s.issuer.GetRootCert(i).PEM()...)
	}
	return all
}

// Roots is RootsPEM as a pool.
func (s *Server) Roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(s.RootsPEM())
	return p
}

// SetDown makes the CA unreachable, or reachable again: connections are accepted by the system and closed at
// once, and requests on open ones are cut off.
func (s *Server) SetDown(down bool) { s.down.Store(down) }

// SetDateSkew moves the Date header of every answer by d: the CA's clock runs ahead (positive) or behind.
func (s *Server) SetDateSkew(d time.Duration) { s.skew.Store(int64(d)) }

// enter waits for the turn inside Pebble and returns how to leave it.
func (s *Server) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, http.ErrServerClosed
	}
}

// gate closes what it accepts while the CA is down.
type gate struct {
	net.Listener
	down *atomic.Bool
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil || !g.down.Load() {
			return c, err
		}
		_ = c.Close()
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return ""
}

func orDefault(port, otherwise int) int {
	if port == 0 {
		return otherwise
	}
	return port
}

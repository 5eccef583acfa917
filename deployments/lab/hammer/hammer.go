// Package hammer makes TLS handshakes against one address without pause, each on a new connection, and keeps what
// it saw: which certificates were served, in which order, and every failure. It proves that a reload lost nothing.
package hammer

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/shared/clock"
)

const (
	defaultWorkers = 4
	defaultPause   = 10 * time.Millisecond
	dialTimeout    = 5 * time.Second
	keptFailures   = 100
)

// Options of a hammer.
type Options struct {
	Addr       string         // host:port
	ServerName string         // sent as SNI and verified; empty: the host of Addr
	Roots      *x509.CertPool // what is trusted; nil: nothing is verified, the fingerprints are all one gets
	Workers    int            // zero: 4
	Pause      time.Duration  // of each worker between handshakes; zero: 10 ms; negative: none
	Path       string         // requested with GET after the handshake, which must answer 200; empty: handshake only
}

// Failure is one handshake or request that did not succeed.
type Failure struct {
	At  time.Time
	Err error
}

// Served is one distinct certificate.
type Served struct {
	Fingerprint string // SHA-256, lower-case hex
	Names       []string
	First, Last time.Time // first and last seen
	Handshakes  int
}

// Report is what was seen.
type Report struct {
	Handshakes int       // successful ones
	Failed     int       // unsuccessful ones
	Failures   []Failure // the first 100 of them
	Served     []Served  // in the order of their first appearance
}

// Fingerprints are the distinct certificates in the order of their first appearance.
func (r Report) Fingerprints() []string {
	out := make([]string, len(r.Served))
	for i, s := range r.Served {
		out[i] = s.Fingerprint
	}
	return out
}

// Err is nil when no handshake failed, else the first failures.
func (r Report) Err() error {
	if r.Failed == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d of %d handshakes failed", r.Failed, r.Failed+r.Handshakes)}
	for _, f := range r.Failures[:min(3, len(r.Failures))] {
		errs = append(errs, f.Err)
	}
	return errors.Join(errs...)
}

// Hammer is at work until Stop.
type Hammer struct {
	opts   Options
	tls    *tls.Config
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	report  Report
	changed chan struct{} // closed and renewed after every attempt
}

// Start begins hammering. ctx ends it as Stop does.
func Start(ctx context.Context, o Options) (*Hammer, error) {
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", o.Addr, err)
	}
	if o.ServerName == "" {
		o.ServerName = host
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.Pause == 0 {
		o.Pause = defaultPause
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &Hammer{
		opts: o, cancel: cancel, changed: make(chan struct{}),
		tls: &tls.Config{
			ServerName: o.ServerName, RootCAs: o.Roots, MinVersion: tls.VersionTLS12,
			InsecureSkipVerify: o.Roots == nil, //nolint:gosec // asked for by giving no roots
		},
	}
	for range o.Workers {
		h.ended.Go(func() { h.work(ctx) })
	}
	return h, nil
}

// Stop ends the hammering and returns what was seen. It may be called again.
func (h *Hammer) Stop() Report {
	h.cancel()
	h.ended.Wait()
	return h.Report()
}

// Report is what was seen so far.
func (h *Hammer) Report() Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.report
	r.Failures = append([]Failure(nil), r.Failures...)
	r.Served = append([]Served(nil), r.Served...)
	return r
}

// Wait returns when the condition holds of the report, checked after every attempt, or with ctx's error.
func (h *Hammer) Wait(ctx context.Context, condition func(Report) bool) error {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if condition(h.Report()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("hammering %s: %w", h.opts.Addr, ctx.Err())
		}
	}
}

// WaitServed returns when the certificate with this fingerprint was served.
func (h *Hammer) WaitServed(ctx context.Context, fingerprint string) error {
	return h.Wait(ctx, func(r Report) bool {
		for _, s := range r.Served {
			if s.Fingerprint == fingerprint {
				return true
			}
		}
		return false
	})
}

func (h *Hammer) work(ctx context.Context) {
	for ctx.Err() == nil {
		leaf, err := h.strike(ctx)
		if ctx.Err() != nil {
			return // cut off by Stop: no failure of the server's
		}
		h.book(leaf, err)
		if h.opts.Pause > 0 && clock.System().Sleep(ctx, h.opts.Pause) != nil {
			return
		}
	}
}

func (h *Hammer) book(leaf *x509.Certificate, err error) {
	now := clock.System().Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.changed)
	h.changed = make(chan struct{})
	if err != nil {
		h.report.Failed++
		if len(h.report.Failures) < keptFailures {
			h.report.Failures = append(h.report.Failures, Failure{At: now, Err: err})
		}
		return
	}
	h.report.Handshakes++
	fingerprint := pki.Fingerprint(leaf.Raw)
	for i := range h.report.Served {
		if s := &h.report.Served[i]; s.Fingerprint == fingerprint {
			s.Handshakes++
			s.Last = now
			return
		}
	}
	h.report.Served = append(h.report.Served, Served{
		Fingerprint: fingerprint, Names: leaf.DNSNames, First: now, Last: now, Handshakes: 1,
	})
}

// strike makes one connection, with one request if wanted, and returns the certificate served.
func (h *Hammer) strike(ctx context.Context) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = raw.Close() }()
	if t, ok := raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // thousands of connections would otherwise use up the local ports
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	c := tls.Client(raw, h.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	leaf := c.ConnectionState().PeerCertificates[0]
	if h.opts.Path == "" {
		return leaf, nil
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", h.opts.Path, h.opts.ServerName); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, fmt.Errorf("response: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("response: %s", resp.Status)
	}
	return leaf, nil
}

package ca

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/shared/clock"
)

// Match decides whether a request meets a fault. It is called from the requests' goroutines.
type Match func(Request) bool

// On matches the given endpoints.
func On(endpoints ...Endpoint) Match {
	return func(q Request) bool { return slices.Contains(endpoints, q.Endpoint) }
}

// Naming matches requests about an order that has this identifier: newOrder, order, finalize and certificate.
func Naming(name string) Match {
	return func(q Request) bool { return slices.Contains(q.Names, strings.ToLower(name)) }
}

// All matches what every one of ms matches.
func All(ms ...Match) Match {
	return func(q Request) bool {
		for _, m := range ms {
			if !m(q) {
				return false
			}
		}
		return true
	}
}

// Fault changes what becomes of matching requests. Faults are tried in the order of their injection; the first
// that matches and is not used up decides alone.
type Fault struct {
	Match Match // nil: every request
	Skip  int   // let that many matching requests pass first
	Times int   // then act that often; zero: until lifted
	Do    Action
}

// Injection is a fault at work.
type Injection struct {
	match  Match
	do     Action
	lifted chan struct{}
	lift   func()
	server *Server

	// guarded by Server.mu
	skip, hits, times int
}

// Inject puts a fault in front of Pebble.
func (s *Server) Inject(f Fault) *Injection {
	i := &Injection{match: f.Match, do: f.Do, skip: f.Skip, times: f.Times, lifted: make(chan struct{}), server: s}
	if i.match == nil {
		i.match = func(Request) bool { return true }
	}
	i.lift = sync.OnceFunc(func() { close(i.lifted) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.injections = append(s.injections, i)
	return i
}

// Hits is how many requests the fault has met.
func (i *Injection) Hits() int {
	i.server.mu.Lock()
	defer i.server.mu.Unlock()
	return i.hits
}

// Lift ends the fault; requests that it holds go on.
func (i *Injection) Lift() {
	i.server.mu.Lock()
	i.server.injections = slices.DeleteFunc(i.server.injections, func(other *Injection) bool { return other == i })
	i.server.mu.Unlock()
	i.lift()
}

// LiftAll ends every fault.
func (s *Server) LiftAll() {
	s.mu.Lock()
	all := slices.Clone(s.injections)
	s.mu.Unlock()
	for _, i := range all {
		i.Lift()
	}
}

func (s *Server) pick(q Request) *Injection {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.injections {
		if i.times > 0 && i.hits >= i.times || !i.match(q) {
			continue
		}
		if i.skip > 0 {
			i.skip--
			continue
		}
		i.hits++
		return i
	}
	return nil
}

// Action answers one request in place of Pebble, with or without asking it.
type Action func(x *Exchange)

// Exchange is one request under a fault. An action calls Reply or Drop last.
type Exchange struct {
	Request Request

	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	lifted <-chan struct{}
}

// Forward asks Pebble; what is asked happens. It may be called once.
func (x *Exchange) Forward() *Answer { return x.s.forward(x.r, x.Request) }

// Reply sends an answer to the client.
func (x *Exchange) Reply(a *Answer) {
	x.s.countAnswer(x.Request, a)
	h := x.w.Header()
	for name, values := range a.Header() {
		h[name] = values
	}
	if skew := time.Duration(x.s.skew.Load()); skew != 0 {
		h.Set("Date", clock.System().Now().Add(skew).Format(http.TimeFormat))
	}
	x.w.WriteHeader(a.Status)
	_, _ = x.w.Write(a.Body) // the client may be gone
}

// Drop closes the connection without an answer. It does not return.
func (x *Exchange) Drop() { panic(http.ErrAbortHandler) }

// Problem makes an answer with an ACME error type, for instance "rateLimited", and a fresh nonce.
func (x *Exchange) Problem(status int, kind, detail string) *Answer {
	a := problem(status, kind, detail)
	if x.Request.Method != http.MethodPost {
		return a
	}
	leave, err := x.s.enter(x.r.Context())
	if err != nil {
		x.Drop()
	}
	defer leave()
	return x.s.withNonce(a)
}

// hold waits for d (zero: for ever), until the fault is lifted, the CA closed or the client gone.
func (x *Exchange) hold(d time.Duration) {
	var late <-chan time.Time
	if d > 0 {
		c, stop := clock.System().After(d)
		defer stop()
		late = c
	}
	select {
	case <-late:
	case <-x.lifted:
	case <-x.s.closed:
		x.Drop()
	case <-x.r.Context().Done():
		x.Drop()
	}
}

// Refuse answers with an ACME problem. A retryAfter of zero sends no such header.
func Refuse(status int, kind, detail string, retryAfter time.Duration) Action {
	return func(x *Exchange) {
		a := x.Problem(status, kind, detail)
		if retryAfter > 0 {
			a.Header().Set("Retry-After", seconds(retryAfter))
		}
		x.Reply(a)
	}
}

// RateLimited answers 429 with the ACME problem rateLimited.
func RateLimited(retryAfter time.Duration) Action {
	return Refuse(http.StatusTooManyRequests, "rateLimited", "too many requests of this kind", retryAfter)
}

// Unavailable answers 503, as a CA in maintenance does: with a page of HTML instead of a problem.
func Unavailable(retryAfter time.Duration) Action {
	return func(x *Exchange) {
		a := &Answer{Status: http.StatusServiceUnavailable, Body: []byte("<html><h1>Down for maintenance</h1></html>")}
		a.Header().Set("Content-Type", "text/html")
		if retryAfter > 0 {
			a.Header().Set("Retry-After", seconds(retryAfter))
		}
		x.Reply(a)
	}
}

// Hang holds the request until the fault is lifted, and then lets it through.
func Hang() Action { return Delay(0) }

// Delay holds the request for d (zero: until the fault is lifted) before it is let through.
func Delay(d time.Duration) Action {
	return func(x *Exchange) {
		x.hold(d)
		x.Reply(x.Forward())
	}
}

// DropRequest closes the connection; the CA never hears the request.
func DropRequest() Action { return func(x *Exchange) { x.Drop() } }

// LoseAnswer lets the CA do what it was asked and closes the connection instead of answering.
func LoseAnswer() Action {
	return func(x *Exchange) {
		x.Forward()
		x.Drop()
	}
}

// Rewrite changes Pebble's own answer before it is sent.
func Rewrite(change func(*Answer)) Action {
	return func(x *Exchange) {
		a := x.Forward()
		change(a)
		x.Reply(a)
	}
}

// SwapCertificate replaces a chain in PEM that the CA hands out (endpoint Certificate): a CA that returns another
// certificate than was asked for. Errors reach the client as they are.
func SwapCertificate(swap func(original []byte) []byte) Action {
	return Rewrite(func(a *Answer) {
		if a.Status == http.StatusOK {
			a.Body = swap(a.Body)
		}
	})
}

// ForeignChain makes a chain in PEM with the names and the public key of the original's first certificate, signed
// by a root that belongs to nobody.
func ForeignChain(original []byte) ([]byte, error) {
	block, _ := pem.Decode(original)
	if block == nil {
		return nil, fmt.Errorf("no certificate in PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	foreign, err := pki.New("Nobody's root")
	if err != nil {
		return nil, err
	}
	pair, err := foreign.IssueFor(leaf.PublicKey, leaf.DNSNames...)
	return pair.CertPEM, err
}

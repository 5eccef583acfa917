package ca

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"

	"github.com/certwright/certwright/shared/clock"
)

const (
	// stuckAfter is how long one request may hold the turn. Pebble leaks a few read locks on rare paths; the
	// request that meets one is given up, so that the others go on.
	stuckAfter = 10 * time.Second
	// settleWithin is how long a finalized order may take to become a certificate.
	settleWithin = 5 * time.Second
)

// ServeHTTP answers one request of an ACME client, or lets a fault decide.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.down.Load() {
		panic(http.ErrAbortHandler)
	}
	q, err := s.read(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.countRequest(q)
	x := &Exchange{Request: q, s: s, w: w, r: r}
	if i := s.pick(q); i != nil {
		x.lifted = i.lifted
		i.do(x)
		return
	}
	x.Reply(x.Forward())
}

// forward asks Pebble, one request at a time, and books what came of it.
func (s *Server) forward(r *http.Request, q Request) *Answer {
	leave, err := s.enter(r.Context())
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer leave()
	if a := s.refuse(q); a != nil {
		return a
	}
	if q.Endpoint == NewOrder && s.opts.AuthzReuse == 0 {
		defer s.hideValid(q.Names)()
	}
	a := s.ask(r)
	s.book(q, a)
	return a
}

// ask runs Pebble's handler; the caller has the turn.
func (s *Server) ask(r *http.Request) *Answer {
	done := make(chan *Answer, 1)
	go func() {
		a := &Answer{}
		defer func() {
			if p := recover(); p != nil {
				s.log.Warn("Pebble panicked", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				a = problem(http.StatusInternalServerError, "serverInternal", "Pebble panicked")
			}
			done <- a
		}()
		s.inner.ServeHTTP(a, r)
		a.WriteHeader(http.StatusOK)
	}()
	late, stop := clock.System().After(stuckAfter)
	defer stop()
	select {
	case a := <-done:
		return a
	case <-late:
		s.log.Warn("Pebble is stuck on a request", "path", r.URL.Path)
		return problem(http.StatusInternalServerError, "serverInternal", "Pebble is stuck on this request")
	}
}

// refuse answers what Pebble must not be asked, or what the options make stricter.
func (s *Server) refuse(q Request) *Answer {
	switch q.Endpoint {
	case Challenge:
		// A challenge that was left aside when its authorization closed keeps a leaked read lock in Pebble.
		if c := s.store.GetChallengeByID(q.ID); c != nil && len(q.Payload) > 0 {
			c.Authz.RLock()
			status := c.Authz.Status
			c.Authz.RUnlock()
			if status != acme.StatusPending {
				return s.withNonce(problem(http.StatusBadRequest, "malformed", "The authorization is "+status))
			}
		}
	case NewOrder:
		if s.opts.ReplacedWhenOrdered && q.Replaces != "" {
			for _, o := range s.orders() {
				if o.Replaces == q.Replaces && o.Status != acme.StatusInvalid {
					return s.withNonce(problem(http.StatusConflict, "alreadyReplaced",
						"certificate "+q.Replaces+" already has a replacement order"))
				}
			}
		}
	}
	return nil
}

// hideValid keeps Pebble from reusing the names' valid authorizations until the returned function is called.
// Pebble's own setting of 0 percent would still reuse one in a hundred. The caller has the turn, and Pebble's
// goroutines leave valid authorizations alone.
func (s *Server) hideValid(names []string) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hidden []*core.Authorization
	for _, n := range names {
		for _, a := range s.authz[n] {
			a.Lock()
			if a.Status == acme.StatusValid && !slices.Contains(hidden, a) {
				a.Status = "hidden"
				hidden = append(hidden, a)
			}
			a.Unlock()
		}
	}
	return func() {
		for _, a := range hidden {
			a.Lock()
			a.Status = acme.StatusValid
			a.Unlock()
		}
	}
}

// book records a successful answer and gives it the last touch; the caller has the turn.
func (s *Server) book(q Request, a *Answer) {
	if a.Status >= http.StatusMultipleChoices {
		return
	}
	switch q.Endpoint {
	case NewOrder:
		id := path.Base(a.Header().Get("Location"))
		o := s.store.GetOrderByID(id)
		if o == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.orderIDs = append(s.orderIDs, id)
		for i, ident := range o.Identifiers {
			s.names[id] = append(s.names[id], ident.Value)
			s.authz[ident.Value] = append(s.authz[ident.Value], o.AuthorizationObjects[i])
		}
	case Finalize:
		s.settle(q.ID)
	case RenewalInfo:
		if d := s.opts.RenewalRetryAfter; d > 0 {
			a.Header().Set("Retry-After", seconds(d))
		}
	case Directory:
		if s.opts.WithoutRenewalInfo {
			a.Body = without(a.Body, "renewalInfo")
		}
	}
}

// settle waits until the certificate of a finalized order exists and is booked everywhere in Pebble. Pebble does
// that in the background, where it races and can deadlock with the next request.
func (s *Server) settle(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	o := s.store.GetOrderByID(id)
	for o != nil && !settled(s.store, o) {
		if clock.System().Sleep(ctx, 100*time.Microsecond) != nil {
			s.log.Warn("a finalized order did not become a certificate", "order", id)
			return
		}
	}
	if o == nil {
		return
	}
	aliasLeadingZero(s.store, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bySerial[o.CertificateObject.ID] = id
}

func settled(store *db.MemoryStore, o *core.Order) bool {
	o.RLock()
	cert, replaces := o.CertificateObject, o.Replaces
	o.RUnlock()
	if cert == nil {
		return false
	}
	if _, err := store.GetOrderByIssuedSerial(cert.ID); err != nil {
		return false
	}
	return replaces == "" || replaced(store, hexOfCertID(replaces))
}

// replaced reports whether Pebble has marked the certificate with this hex serial as replaced.
func replaced(store *db.MemoryStore, serial string) bool {
	o, err := store.GetOrderByIssuedSerial(serial)
	if err != nil {
		return false
	}
	o.RLock()
	defer o.RUnlock()
	return o.IsReplaced
}

// aliasLeadingZero makes an order known under its serial's DER form too. RFC 9773 puts the DER bytes of the serial
// into the CertID, with a zero in front when the highest bit is set; Pebble looks orders up by the bytes without
// it, and so would refuse one replacement in 256.
func aliasLeadingZero(store *db.MemoryStore, o *core.Order) {
	o.RLock()
	defer o.RUnlock()
	serial := derSerial(o.CertificateObject.Cert.SerialNumber)
	if id := hex.EncodeToString(serial); id != o.CertificateObject.ID {
		alias := &core.Order{
			Order: o.Order, ID: o.ID, AccountID: o.AccountID,
			CertificateObject: &core.Certificate{ID: id, Cert: o.CertificateObject.Cert},
		}
		_ = store.AddOrderByIssuedSerial(alias) // fails only without a certificate
	}
}

// hexOfCertID is the serial of a CertID in hex, as Pebble keys its orders; "" when it cannot be decoded.
func hexOfCertID(certID string) string {
	_, serial, _ := strings.Cut(certID, ".")
	raw, err := base64.RawURLEncoding.DecodeString(serial)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(raw)
}

// withNonce gives an answer made here the fresh nonce that an ACME server adds to it; the caller has the turn.
func (s *Server) withNonce(a *Answer) *Answer {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodHead, "https://"+s.Addr()+noncePath, http.NoBody)
	if err == nil {
		r.Header.Set("User-Agent", "lab")
		if nonce := s.ask(r).Header().Get("Replay-Nonce"); nonce != "" {
			a.Header().Set("Replay-Nonce", nonce)
		}
	}
	return a
}

// problem makes an RFC 7807 answer of an ACME error type.
func problem(status int, kind, detail string) *Answer {
	body, err := json.Marshal(map[string]any{
		"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status,
	})
	if err != nil {
		body = []byte(fmt.Sprintf("{%q:%q}", "detail", detail))
	}
	a := &Answer{Status: status, Body: body}
	a.Header().Set("Content-Type", "application/problem+json")
	return a
}

// without removes one member of a JSON object.
func without(object []byte, member string) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(object, &m) != nil {
		return object
	}
	delete(m, member)
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return object
	}
	return out
}

func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }

package ca

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/letsencrypt/pebble/v2/core"
)

// Tally counts one endpoint.
type Tally struct {
	Requests  int // that reached the CA's door, whatever became of them
	Succeeded int // answered 2xx to the client
}

// Counts are totals since the start.
type Counts struct {
	Endpoints map[Endpoint]Tally
	Paths     map[string]int // requests by path
	Problems  map[string]int // answers by the last part of the problem's type: badNonce, rateLimited, alreadyReplaced …
	Nonces    int            // handed out
}

func newCounts() Counts {
	return Counts{Endpoints: map[Endpoint]Tally{}, Paths: map[string]int{}, Problems: map[string]int{}}
}

// Of is the tally of one endpoint.
func (c Counts) Of(e Endpoint) Tally { return c.Endpoints[e] }

// Counts is a copy of the totals.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counts{
		Endpoints: maps.Clone(s.counts.Endpoints), Paths: maps.Clone(s.counts.Paths),
		Problems: maps.Clone(s.counts.Problems), Nonces: s.counts.Nonces,
	}
}

func (s *Server) countRequest(q Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.counts.Endpoints[q.Endpoint]
	t.Requests++
	s.counts.Endpoints[q.Endpoint] = t
	s.counts.Paths[q.Path]++
	if q.Endpoint == Finalize {
		s.finalizes[q.ID]++
	}
}

func (s *Server) countAnswer(q Request, a *Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Status < http.StatusMultipleChoices {
		t := s.counts.Endpoints[q.Endpoint]
		t.Succeeded++
		s.counts.Endpoints[q.Endpoint] = t
	}
	if kind := a.problemType(); kind != "" {
		s.counts.Problems[kind]++
	}
	if a.Header().Get("Replay-Nonce") != "" {
		s.counts.Nonces++
	}
}

// OrderState is an order as the CA has it.
type OrderState struct {
	ID               string
	URL              string
	AccountID        string   // the last part of the account's URL
	Names            []string // sorted
	Status           string   // RFC 8555 §7.1.6
	Profile          string
	Replaces         string // the CertID given with newOrder
	Error            string // detail of the order's problem
	Finalized        bool   // a finalize was accepted
	FinalizeRequests int    // that reached the CA's door, refused ones included
	Serial           string // hex, of the certificate; empty until issued
	CertID           string // RFC 9773 §4.1, of the certificate
	Chain            []byte // PEM, leaf first, without the root
	Replaced         bool   // a replacing order was finalized
	Revoked          bool
}

// Orders are all orders in the order of their making, also those whose answer was lost.
func (s *Server) Orders() []OrderState {
	leave, err := s.enter(context.Background())
	if err != nil {
		return nil
	}
	defer leave()
	return s.orders()
}

// orders needs the turn.
func (s *Server) orders() []OrderState {
	s.mu.Lock()
	ids, finalizes := slices.Clone(s.orderIDs), maps.Clone(s.finalizes)
	s.mu.Unlock()
	all := make([]OrderState, 0, len(ids))
	for _, id := range ids {
		if o := s.store.GetOrderByID(id); o != nil {
			state := s.state(o)
			state.FinalizeRequests = finalizes[id]
			all = append(all, state)
		}
	}
	return all
}

func (s *Server) state(o *core.Order) OrderState {
	o.RLock()
	defer o.RUnlock()
	state := OrderState{
		ID: o.ID, URL: "https://" + s.Addr() + "/my-order/" + o.ID, AccountID: o.AccountID, Status: o.Status,
		Profile: o.Profile, Replaces: o.Replaces, Finalized: o.BeganProcessing, Replaced: o.IsReplaced,
	}
	for _, i := range o.Identifiers {
		state.Names = append(state.Names, i.Value)
	}
	slices.Sort(state.Names)
	if o.Error != nil {
		state.Error = o.Error.Detail
	}
	if c := o.CertificateObject; c != nil {
		state.Serial, state.CertID, state.Chain = c.Cert.SerialNumber.Text(16), CertID(c.Cert), c.Chain(0)
		state.Replaced = state.Replaced || replaced(s.store, hexOfCertID(state.CertID))
		state.Revoked = s.store.GetRevokedCertificateBySerial(c.Cert.SerialNumber) != nil
	}
	return state
}

// Revocation is what the CA knows of a revoked certificate.
type Revocation struct {
	At     time.Time
	Reason uint // RFC 5280 §5.3.1; 0 also when none was given
}

// Revoked tells whether a certificate is revoked. The reference is a CertID, a serial in hex or a chain in PEM.
func (s *Server) Revoked(ref string) (Revocation, bool, error) {
	serial, err := serialOf(ref)
	if err != nil {
		return Revocation{}, false, err
	}
	leave, err := s.enter(context.Background())
	if err != nil {
		return Revocation{}, false, err
	}
	defer leave()
	if s.store.GetCertificateBySerial(serial) == nil {
		return Revocation{}, false, fmt.Errorf("the CA knows no certificate with serial %s", serial.Text(16))
	}
	r := s.store.GetRevokedCertificateBySerial(serial)
	if r == nil {
		return Revocation{}, false, nil
	}
	out := Revocation{At: r.RevokedAt.UTC()}
	if r.Reason != nil {
		out.Reason = *r.Reason
	}
	return out, true, nil
}

// Window is a suggestion when to renew (RFC 9773 §4.2).
type Window struct {
	Start, End  time.Time
	Explanation string // URL; empty: none
}

// SetRenewalInfo replaces the CA's suggestion for one certificate, named by CertID, serial in hex or chain in PEM.
func (s *Server) SetRenewalInfo(ref string, w Window) error {
	body, err := w.body()
	if err != nil {
		return err
	}
	return s.SetRenewalInfoBody(ref, body)
}

// SetRenewalInfoBody sets the literal answer, which may be malformed on purpose; empty restores Pebble's own.
func (s *Server) SetRenewalInfoBody(ref, body string) error {
	serial, err := serialOf(ref)
	if err != nil {
		return err
	}
	leave, err := s.enter(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	if err := s.store.SetARIResponse(serial, body); err != nil {
		return fmt.Errorf("set renewal information: %w", err)
	}
	return nil
}

// SetRenewalInfoAll sets one suggestion for every certificate issued so far, as before a mass revocation, and
// returns how many there are.
func (s *Server) SetRenewalInfoAll(w Window) (int, error) {
	n := 0
	for _, o := range s.Orders() {
		if o.Serial == "" {
			continue
		}
		if err := s.SetRenewalInfo(o.Serial, w); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (w Window) body() (string, error) {
	doc := map[string]any{"suggestedWindow": map[string]string{
		"start": w.Start.UTC().Format(time.RFC3339), "end": w.End.UTC().Format(time.RFC3339),
	}}
	if w.Explanation != "" {
		doc["explanationURL"] = w.Explanation
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("encode renewal information: %w", err)
	}
	return string(b), nil
}

// CertID is the certificate's identifier in renewal information (RFC 9773 §4.1).
func CertID(c *x509.Certificate) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString(c.AuthorityKeyId) + "." + enc.EncodeToString(derSerial(c.SerialNumber))
}

// derSerial are the content bytes of the serial's DER form: with a zero in front when the highest bit is set.
func derSerial(serial *big.Int) []byte {
	der, err := asn1.Marshal(serial)
	if err != nil || len(der) < 3 {
		return serial.Bytes()
	}
	return der[2:] // a serial is far shorter than 128 bytes: tag and length are one byte each
}

func serialOf(ref string) (*big.Int, error) {
	if block, _ := pem.Decode([]byte(ref)); block != nil {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		return c.SerialNumber, nil
	}
	digits := ref
	if strings.Contains(ref, ".") {
		digits = hexOfCertID(ref)
	}
	serial, ok := new(big.Int).SetString(digits, 16)
	if !ok {
		return nil, fmt.Errorf("%q is neither a CertID nor a serial in hex nor a certificate in PEM", ref)
	}
	return serial, nil
}

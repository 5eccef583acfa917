package ca

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Endpoint is one kind of request of RFC 8555 or RFC 9773.
type Endpoint string

// The endpoints. Other is whatever Pebble does not know.
const (
	Directory   Endpoint = "directory"
	NewNonce    Endpoint = "newNonce"
	NewAccount  Endpoint = "newAccount"
	Account     Endpoint = "account"
	NewOrder    Endpoint = "newOrder"
	Order       Endpoint = "order"
	Finalize    Endpoint = "finalize"
	Authz       Endpoint = "authz"
	Challenge   Endpoint = "challenge"
	Certificate Endpoint = "certificate"
	RevokeCert  Endpoint = "revokeCert"
	KeyChange   Endpoint = "keyChange"
	RenewalInfo Endpoint = "renewalInfo"
	Other       Endpoint = "other"
)

const noncePath = "/nonce-plz"

// paths are Pebble's, which differ from every other CA's on purpose.
var paths = []struct {
	prefix   string
	endpoint Endpoint
}{
	{"/dir", Directory},
	{noncePath, NewNonce},
	{"/sign-me-up", NewAccount},
	{"/my-account/", Account},
	{"/order-plz", NewOrder},
	{"/my-order/", Order},
	{"/finalize-order/", Finalize},
	{"/authZ/", Authz},
	{"/chalZ/", Challenge},
	{"/certZ/", Certificate},
	{"/revoke-cert", RevokeCert},
	{"/rollover-account-key", KeyChange},
	{"/draft-ietf-acme-ari-03/renewalInfo/", RenewalInfo},
}

// Request is what the CA was asked, decoded as far as it goes without checking the signature.
type Request struct {
	Endpoint Endpoint
	Method   string
	Path     string
	ID       string   // the last part of the path of an order, finalize, authz, challenge, certificate or renewal information
	Names    []string // of newOrder, order, finalize and certificate: the order's identifiers
	Replaces string   // of newOrder: the CertID
	Payload  []byte   // of the JWS; empty for GET and POST-as-GET
}

// read decodes r and leaves its body readable again.
func (s *Server) read(r *http.Request) (Request, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 1<<20))
	if err != nil {
		return Request{}, fmt.Errorf("read request body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	q := Request{Endpoint: Other, Method: r.Method, Path: r.URL.Path}
	for _, p := range paths {
		if r.URL.Path == p.prefix || strings.HasSuffix(p.prefix, "/") && strings.HasPrefix(r.URL.Path, p.prefix) {
			q.Endpoint, q.ID = p.endpoint, strings.TrimPrefix(r.URL.Path, p.prefix)
		}
	}
	var jws struct{ Payload string }
	if json.Unmarshal(body, &jws) == nil {
		q.Payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch q.Endpoint {
	case NewOrder:
		var order struct {
			Identifiers []struct{ Value string }
			Replaces    string
		}
		if json.Unmarshal(q.Payload, &order) == nil {
			for _, i := range order.Identifiers {
				q.Names = append(q.Names, strings.ToLower(i.Value))
			}
			q.Replaces = order.Replaces
		}
	case Order, Finalize:
		q.Names = s.names[q.ID]
	case Certificate:
		serial, _, _ := strings.Cut(q.ID, "/")
		q.Names = s.names[s.bySerial[serial]]
	}
	return q, nil
}

// Answer is a response held back until it is known what becomes of it. It is an http.ResponseWriter.
type Answer struct {
	Status int
	Body   []byte
	header http.Header
}

// Header are the answer's headers, to be changed at will.
func (a *Answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader keeps the first status.
func (a *Answer) WriteHeader(status int) {
	if a.Status == 0 {
		a.Status = status
	}
}

// Write appends to the body.
func (a *Answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.Body = append(a.Body, p...)
	return len(p), nil
}

// problemType is the last part of an ACME problem's type, or "".
func (a *Answer) problemType() string {
	if a.Status < http.StatusBadRequest {
		return ""
	}
	var p struct{ Type string }
	if json.Unmarshal(a.Body, &p) != nil {
		return ""
	}
	return p.Type[strings.LastIndexByte(p.Type, ':')+1:]
}

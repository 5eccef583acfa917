package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.RS256, jose.HS256}

// server is an HTTPS server that speaks as much ACME as a test needs: handlers by path get the payload of the JWS.
type server struct {
	*httptest.Server
	t     *testing.T
	clock *clock.Fake

	mu     sync.Mutex
	handle map[string]func(w http.ResponseWriter, payload []byte)
	calls  map[string]int
	last   map[string][]byte
	jws    map[string]*jose.JSONWebSignature
	meta   map[string]any // of the directory
}

func serve(t *testing.T) (*server, *Client, Account) {
	t.Helper()
	s := &server{t: t, clock: clock.NewFake(t0), handle: map[string]func(http.ResponseWriter, []byte){}, calls: map[string]int{}, last: map[string][]byte{}, jws: map[string]*jose.JSONWebSignature{},
		meta: map[string]any{"termsOfService": "https://ca/terms", "profiles": map[string]string{"shortlived": "x"}}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	roots := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	acc := Account{ID: "acc_1", URL: s.URL + "/acct/1", Key: key, Issuer: domain.Issuer{DirectoryURL: s.URL + "/dir", TrustRootsPEM: roots}}
	return s, New(s.clock, "certwright/test"), acc
}

func (s *server) on(path string, f func(w http.ResponseWriter, payload []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle[path] = f
}

func (s *server) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var jws struct{ Payload string }
	_ = json.Unmarshal(body, &jws)
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	s.mu.Lock()
	s.calls[r.URL.Path]++
	s.last[r.URL.Path] = payload
	if signed, err := jose.ParseSigned(string(body), algorithms); err == nil {
		s.jws[r.URL.Path] = signed
	}
	f := s.handle[r.URL.Path]
	s.mu.Unlock()
	w.Header().Set("Replay-Nonce", "nonce")
	if w.Header().Get("Date") == "" {
		w.Header().Set("Date", s.clock.Now().Format(http.TimeFormat))
	}
	switch {
	case f != nil:
		f(w, payload)
	case r.URL.Path == "/dir":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"newNonce": s.URL + "/nonce", "newAccount": s.URL + "/new-account", "newOrder": s.URL + "/new-order", "revokeCert": s.URL + "/revoke",
			"renewalInfo": s.URL + "/ari", "keyChange": s.URL + "/key-change", "meta": s.meta,
		})
	case r.URL.Path != "/nonce":
		http.NotFound(w, r)
	}
}

// answers writes a status, headers (name, value …) and a body.
func answers(status int, body string, headers ...string) func(http.ResponseWriter, []byte) {
	return func(w http.ResponseWriter, _ []byte) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func problemDoc(kind, detail string) string {
	return fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":%q}`, kind, detail)
}

func pending(s *server) string {
	return fmt.Sprintf(`{"status":"pending","expires":"2026-03-08T12:00:00Z","identifiers":[{"type":"dns","value":"www.example.org"}],"authorizations":["%s/authz/1"],"finalize":"%s/order/1/finalize"}`, s.URL, s.URL)
}

var spec = domain.Spec{Names: []string{"www.example.org"}}

func failure(t *testing.T, err error) domain.Failure {
	t.Helper()
	var f *domain.Failure
	require.ErrorAs(t, err, &f)
	return *f
}

func TestWhatAnAnswerMeans(t *testing.T) {
	rows := []struct {
		name   string
		status int
		body   string
		header []string
		want   domain.Failure // Detail of its problem is not compared
	}{
		{"a refused name is final", 400, problemDoc("rejectedIdentifier", "no"), nil, domain.Failure{Problem: domain.Problem{Reason: "NAME_REJECTED", Type: ns + "rejectedIdentifier"}}},
		{"CAA is final", 403, problemDoc("caa", "no"), nil, domain.Failure{Problem: domain.Problem{Reason: "CAA_FORBIDS", Type: ns + "caa"}}},
		{"an unauthorized request is final", 403, problemDoc("unauthorized", "no"), nil, domain.Failure{Problem: domain.Problem{Reason: "CA_REFUSED", Type: ns + "unauthorized"}}},
		{"an account that is gone can be registered anew", 400, problemDoc("accountDoesNotExist", "who"), nil, domain.Failure{Gone: true, AccountGone: true, Problem: domain.Problem{Reason: "ACCOUNT_UNKNOWN", Type: ns + "accountDoesNotExist"}}},
		{
			"a rate limit is waited for as long as the CA says", 429, problemDoc("rateLimited", "slowly"), []string{"Retry-After", "3600"},
			domain.Failure{RetryAfter: time.Hour, Problem: domain.Problem{Reason: "RATE_LIMITED", Type: ns + "rateLimited", Retrying: true}},
		},
		{"a rate limit without Retry-After is waited for at least a minute", 429, "slow down", nil, domain.Failure{RetryAfter: time.Minute, Problem: domain.Problem{Reason: "RATE_LIMITED", Retrying: true}}},
		{"5xx says nothing of what was done", 500, problemDoc("serverInternal", "oops"), nil, domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Type: ns + "serverInternal", Retrying: true}}},
		{"a proxy's HTML with 502 says nothing either", 502, "<html>bad gateway</html>", []string{"Retry-After", "7"}, domain.Failure{Unknown: true, RetryAfter: 7 * time.Second, Problem: domain.Problem{Reason: "CA_ERROR", Retrying: true}}},
		{"null instead of a problem document is read", 503, "null", nil, domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Retrying: true}}},
		{"404 is gone", 404, problemDoc("malformed", "no such order"), nil, domain.Failure{Gone: true, Problem: domain.Problem{Reason: "CA_REFUSED", Type: ns + "malformed"}}},
		{"404 without a problem document is gone too", 404, "not found", nil, domain.Failure{Gone: true, Problem: domain.Problem{Reason: "CA_REFUSED"}}},
		{"an order that is not ready will be asked for", 403, problemDoc("orderNotReady", "wait"), nil, domain.Failure{Problem: domain.Problem{Reason: "CA_REFUSED", Type: ns + "orderNotReady", Retrying: true}}},
		{"the status that was answered counts, not the one in the document", 503, `{"type":"x","status":400,"detail":"d"}`, nil, domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Type: "x", Retrying: true}}},
		{"an answer that is no JSON says nothing", 200, "hello", nil, domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Retrying: true}}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s, c, acc := serve(t)
			s.on("/order/1", answers(r.status, r.body, r.header...))
			_, err := c.Order(t.Context(), acc, s.URL+"/order/1")
			got := failure(t, err)
			require.NotEmpty(t, got.Problem.Detail)
			got.Problem.Detail = ""
			require.Empty(t, cmp.Diff(r.want, got))
		})
	}
}

func TestWhatTheNetworkMeans(t *testing.T) {
	s, c, acc := serve(t)
	t.Run("a CA whose certificate is not trusted got nothing", func(t *testing.T) {
		a := acc
		a.Issuer.TrustRootsPEM = ""
		_, err := c.NewOrder(t.Context(), a, spec, "", "")
		f := failure(t, err)
		require.Equal(t, "CA_UNTRUSTED", f.Problem.Reason)
		require.True(t, f.Problem.Retrying)
		require.False(t, f.Unknown)
	})
	t.Run("a CA that does not listen got nothing", func(t *testing.T) {
		a := acc
		a.Issuer.DirectoryURL = "https://127.0.0.1:1/dir"
		_, err := c.NewOrder(t.Context(), a, spec, "", "")
		f := failure(t, err)
		require.Equal(t, "CA_UNREACHABLE", f.Problem.Reason)
		require.False(t, f.Unknown)
	})
	t.Run("nothing is sent without https", func(t *testing.T) {
		a := acc
		a.Issuer.DirectoryURL = "http://127.0.0.1:1/dir"
		_, err := c.NewOrder(t.Context(), a, spec, "", "")
		f := failure(t, err)
		require.Equal(t, "CA_INSECURE", f.Problem.Reason)
		require.False(t, f.Problem.Retrying)
	})
	t.Run("a connection that breaks during newOrder leaves it unknown", func(t *testing.T) {
		s.on("/new-order", func(http.ResponseWriter, []byte) { panic(http.ErrAbortHandler) })
		_, err := c.NewOrder(t.Context(), acc, spec, "", "")
		f := failure(t, err)
		require.Equal(t, "CA_UNREACHABLE", f.Problem.Reason)
		require.True(t, f.Unknown)
		require.Equal(t, 1, s.count("/new-order"))
	})
	t.Run("the end of the context ends the call on the wire", func(t *testing.T) {
		entered, left := make(chan struct{}), make(chan struct{})
		release := make(chan struct{})
		s.on("/order/1", func(http.ResponseWriter, []byte) { close(entered); <-release; close(left) })
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-entered; cancel() }()
		_, err := c.Order(ctx, acc, s.URL+"/order/1")
		close(release)
		<-left
		f := failure(t, err)
		require.Equal(t, "CA_TIMEOUT", f.Problem.Reason)
		require.True(t, f.Unknown)
	})
}

func TestARefusedReplacementIsNotOrderedWithoutItInSilence(t *testing.T) {
	s, c, acc := serve(t)
	s.on("/new-order", answers(409, problemDoc("alreadyReplaced", "gone"), "Content-Type", "application/problem+json"))
	_, err := c.NewOrder(t.Context(), acc, spec, "", "a.b")
	f := failure(t, err)
	require.Equal(t, "REPLACES_REFUSED", f.Problem.Reason)
	require.False(t, f.Problem.Retrying)
	require.False(t, f.Unknown)
	require.Equal(t, 1, s.count("/new-order"), "lego would have sent it again without replaces")

	s.on("/new-order", answers(201, pending(s), "Location", s.URL+"/order/1"))
	o, err := c.NewOrder(t.Context(), acc, spec, "", "")
	require.NoError(t, err)
	require.Equal(t, s.URL+"/order/1", o.URL)
	require.NotContains(t, string(s.last["/new-order"]), "replaces")
}

func TestAnOrderThatNothingCanBeDoneWithIsRefused(t *testing.T) {
	for name, answer := range map[string]func(s *server) func(http.ResponseWriter, []byte){
		"its URL": func(s *server) func(http.ResponseWriter, []byte) { return answers(201, pending(s)) },
		"its finalize URL": func(s *server) func(http.ResponseWriter, []byte) {
			return answers(201, `{"status":"pending","identifiers":[{"type":"dns","value":"www.example.org"}],"authorizations":["`+s.URL+`/a"]}`, "Location", s.URL+"/order/1")
		},
		"an authorization": func(s *server) func(http.ResponseWriter, []byte) {
			return answers(201, `{"status":"pending","identifiers":[{"type":"dns","value":"www.example.org"}],"finalize":"`+s.URL+`/f"}`, "Location", s.URL+"/order/1")
		},
	} {
		s, c, acc := serve(t)
		s.on("/new-order", answer(s))
		_, err := c.NewOrder(t.Context(), acc, spec, "", "")
		f := failure(t, err)
		require.True(t, f.Unknown)
		require.Contains(t, f.Problem.Detail, "did not name "+name)
	}
	s, c, acc := serve(t)
	s.on("/new-order", answers(201, `{"status":"pending","identifiers":[{"type":"dns","value":"evil.example.org"}],"authorizations":["`+s.URL+`/a"],"finalize":"`+s.URL+`/f"}`, "Location", s.URL+"/order/1"))
	_, err := c.NewOrder(t.Context(), acc, spec, "", "")
	f := failure(t, err)
	require.Equal(t, "CA_REFUSED", f.Problem.Reason)
	require.False(t, f.Problem.Retrying, "other names are not asked for again and again")
}

func TestNothingIsOrderedWithAWrongClock(t *testing.T) {
	s, _, acc := serve(t)
	c := New(clock.NewFake(t0.Add(-3*time.Minute)), "certwright/test")
	_, err := c.NewOrder(t.Context(), acc, spec, "", "")
	require.Equal(t, "CLOCK_SKEW", failure(t, err).Problem.Reason)
	require.Zero(t, s.count("/new-order"))
}

func TestTheDirectoryIsReadEveryTenMinutes(t *testing.T) {
	s, c, acc := serve(t)
	s.on("/order/1", answers(200, pending(s)))
	for range 5 {
		_, err := c.Order(t.Context(), acc, s.URL+"/order/1")
		require.NoError(t, err)
	}
	require.Equal(t, 1, s.count("/dir"))
	require.Equal(t, 1, s.count("/nonce"), "a nonce that an answer brought is used for the next call")
	s.clock.Advance(directoryAge)
	_, err := c.Order(t.Context(), acc, s.URL+"/order/1")
	require.NoError(t, err)
	require.Equal(t, 2, s.count("/dir"), "an idle session does not keep an old directory alive")
	d, err := c.Directory(t.Context(), acc.Issuer)
	require.NoError(t, err)
	require.Equal(t, []string{"shortlived"}, d.Profiles)
	require.Equal(t, 3, s.count("/dir"), "who asks for the directory reads it afresh")
}

func TestEveryAnswerIsToldWhateverBecomesOfOne(t *testing.T) {
	s, c, acc := serve(t)
	var urls []string
	for i := range 12 {
		path := fmt.Sprintf("/chall/%d", i)
		s.on(path, answers(200, `{"status":"processing"}`))
		urls = append(urls, s.URL+path)
	}
	s.on("/chall/0", answers(400, problemDoc("malformed", "decided already")))
	err := c.Respond(t.Context(), acc, urls)
	require.False(t, failure(t, err).Problem.Retrying)
	for i := range 12 {
		require.Equal(t, 1, s.count(fmt.Sprintf("/chall/%d", i)))
	}
	s.on("/chall/5", answers(503, ""))
	require.True(t, failure(t, c.Respond(t.Context(), acc, urls)).Problem.Retrying, "what can be retried counts more than what was refused")
}

func TestAuthorizationsAreReadAsTheCAHasThem(t *testing.T) {
	s, c, acc := serve(t)
	for i, status := range []string{"pending", "valid", "invalid", "expired", "deactivated", "revoked"} {
		s.on(fmt.Sprintf("/authz/%d", i), answers(200, fmt.Sprintf(
			`{"status":%q,"identifier":{"type":"dns","value":"n%d"},"challenges":[{"type":"http-01","url":"%s/c","token":"tok","error":{"type":"urn:ietf:params:acme:error:dns","detail":"NXDOMAIN"}}]}`, status, i, s.URL)))
	}
	var urls []string
	for i := range 6 {
		urls = append(urls, fmt.Sprintf("%s/authz/%d", s.URL, i))
	}
	zs, err := c.Authorizations(t.Context(), acc, urls)
	require.NoError(t, err)
	var states []domain.AuthzState
	for i, z := range zs {
		require.Equal(t, fmt.Sprintf("n%d", i), z.Identifier)
		states = append(states, z.State)
	}
	require.Equal(t, []domain.AuthzState{domain.AuthzPending, domain.AuthzValid, domain.AuthzInvalid, domain.AuthzExpired, domain.AuthzExpired, domain.AuthzExpired}, states)
	require.Equal(t, "NXDOMAIN", zs[2].Problem.Detail)
	require.Nil(t, zs[0].Problem)
	require.Regexp(t, `^tok\.[A-Za-z0-9_-]{43}$`, zs[0].Offered[0].KeyAuthorization)
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "soon": 0, "1.5": 0, "99999999999999999": domain.Longest, "99999999999999999999999": 0,
		t0.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second, t0.Add(-time.Hour).Format(http.TimeFormat): 0,
		t0.AddDate(50, 0, 0).Format(http.TimeFormat): domain.Longest,
	} {
		require.Equal(t, want, retryAfter(http.Header{"Retry-After": {value}}, t0), "Retry-After: %q", value)
	}
}

func TestARevokedCertificateIsASuccess(t *testing.T) {
	s, c, acc := serve(t)
	s.on("/revoke", answers(400, problemDoc("alreadyRevoked", "done")))
	already, err := c.Revoke(t.Context(), acc, []byte{1}, 1)
	require.NoError(t, err)
	require.True(t, already)
	s.on("/revoke", answers(200, ""))
	already, err = c.Revoke(t.Context(), acc, []byte{1}, 1)
	require.NoError(t, err)
	require.False(t, already)
	require.JSONEq(t, `{"certificate":"AQ","reason":1}`, string(s.last["/revoke"]))
}

func TestAnInvalidOrderAfterFinalizeIsClassifiedByItsProblem(t *testing.T) {
	s, c, acc := serve(t)
	s.on("/order/1/finalize", answers(200, `{"status":"invalid","error":`+problemDoc("caa", "forbidden")+`}`))
	_, err := c.Finalize(t.Context(), acc, s.URL+"/order/1", s.URL+"/order/1/finalize", []byte{1})
	f := failure(t, err)
	require.Equal(t, "CAA_FORBIDS", f.Problem.Reason)
	require.False(t, f.Problem.Retrying)
}

func TestTermsAreAgreedToByTheOwnerOnly(t *testing.T) {
	s, c, acc := serve(t)
	acc.URL = ""
	s.on("/new-account", answers(201, `{"status":"valid"}`, "Location", s.URL+"/acct/7"))
	_, err := c.Register(t.Context(), acc)
	require.Equal(t, "TERMS_NOT_AGREED", failure(t, err).Problem.Reason)
	require.Zero(t, s.count("/new-account"))
	acc.Issuer.TermsAgreed, acc.Issuer.Contacts = true, []string{"ops@example.org"}
	u, err := c.Register(t.Context(), acc)
	require.NoError(t, err)
	require.Equal(t, s.URL+"/acct/7", u)
	require.JSONEq(t, `{"contact":["mailto:ops@example.org"],"termsOfServiceAgreed":true}`, string(s.last["/new-account"]))
}

func TestAChainIsReadToItsEnd(t *testing.T) {
	s, c, acc := serve(t)
	block := func(b ...byte) string { return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})) }
	s.on("/cert", answers(200, block(1)+block(2)+block(3)))
	chains, err := c.Chains(t.Context(), acc, s.URL+"/cert", false)
	require.NoError(t, err)
	require.Equal(t, [][][]byte{{{1}, {2}, {3}}}, chains)

	s.on("/cert", answers(200, block(1)+block(2), "Link", "<"+s.URL+"/cert/1>;rel=\"alternate\""))
	s.on("/cert/1", answers(200, block(1)+block(9)))
	chains, err = c.Chains(t.Context(), acc, s.URL+"/cert", true)
	require.NoError(t, err)
	require.Equal(t, [][][]byte{{{1}, {2}}, {{1}, {9}}}, chains, "the CA's default is the first")

	s.on("/cert", answers(200, string(make([]byte, maxAnswer+1))))
	_, err = c.Chains(t.Context(), acc, s.URL+"/cert", false)
	require.Error(t, err, "an answer without end is not read to its end")
	require.False(t, errors.Is(err, io.EOF))
}

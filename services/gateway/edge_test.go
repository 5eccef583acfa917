package gateway

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/telemetry"
	"github.com/certwright/certwright/shared/testkit"
)

// identityFake knows tokens by their secret.
type identityFake struct {
	identityv1.UnimplementedIdentityServiceServer
	mu     sync.Mutex
	tokens map[string]*identityv1.Token
	asked  int
}

func (f *identityFake) Authenticate(_ context.Context, r *identityv1.AuthenticateRequest) (*identityv1.AuthenticateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	t, ok := f.tokens[r.GetToken()]
	switch {
	case !ok:
		return nil, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the token is not known here")
	case t.GetRevoked():
		return nil, errs.New(errs.Unauthenticated, "TOKEN_INVALID", "the token %s was revoked", t.GetId())
	}
	return &identityv1.AuthenticateResponse{Token: t}, nil
}

// revoke revokes a token if there is one, and returns how often identity was asked.
func (f *identityFake) revoke(secret string) (asked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tokens[secret]; t != nil {
		f.tokens[secret] = &identityv1.Token{Id: t.GetId(), Revoked: true}
	}
	return f.asked
}

// inventoryFake answers what a test tells it to, and notes the last call.
type inventoryFake struct {
	inventoryv1.UnimplementedInventoryServiceServer
	mu     sync.Mutex
	caller authz.Principal
	made   *inventoryv1.CreateCertificateRequest
	err    error
}

func (f *inventoryFake) CreateCertificate(ctx context.Context, r *inventoryv1.CreateCertificateRequest) (*inventoryv1.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.caller, _ = authz.FromContext(ctx)
	f.made = r
	if f.err != nil {
		return nil, f.err
	}
	return &inventoryv1.Certificate{Id: "crt_1", DisplayName: r.GetCertificate().GetDisplayName()}, nil
}

func (f *inventoryFake) ListCertificates(_ context.Context, r *inventoryv1.ListCertificatesRequest) (*inventoryv1.ListCertificatesResponse, error) {
	return &inventoryv1.ListCertificatesResponse{NextPageToken: r.GetFilter()}, nil
}

func (f *inventoryFake) answers(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

type world struct {
	t         *testing.T
	url       string
	client    *http.Client
	identity  *identityFake
	inventory *inventoryFake
	nats      *testkit.Server
	platform  *service.Platform
	clk       *clock.Fake

	plain string // URL without TLS
	stop  func() // ends the edge and waits for it

	mu      sync.Mutex
	missing []string
	panics  bool
}

const (
	adminToken  = "cwt_admin"
	readerToken = "cwt_reader"
	webToken    = "cwt_web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, nats: testkit.NATS(t), clk: clock.NewFake(clock.System().Now()), inventory: &inventoryFake{},
		identity: &identityFake{tokens: map[string]*identityv1.Token{
			adminToken:  {Id: "tok_admin", DisplayName: "admin", Team: "*", Permissions: []string{"*"}},
			readerToken: {Id: "tok_reader", Team: "web", Permissions: []string{"certificates.read"}},
			webToken:    {Id: "tok_web", Team: "web", Permissions: []string{"events.read"}, ExpireTime: timestamppb.New(clock.System().Now().Add(time.Hour))},
		}},
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test", Output: io.Discard, SampleRatio: 1})
	require.NoError(t, err)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	dir := t.TempDir()
	network := service.NewInProcess()
	pr := &service.Process{
		Clock: w.clk, Telemetry: tel, NATS: w.nats.Conn(), SyncInterval: time.Second, Network: network,
		Verifier: authz.NewVerifier("test", public), Signer: authz.NewSigner(private, "test"), DataDir: dir,
		OpenStore: func(context.Context, string) (docstore.Store, error) { return testkit.MemoryStore(t, w.clk), nil },
	}
	guard := &authz.Server{Verifier: pr.Verifier, Clock: w.clk}
	for name, register := range map[string]func(*grpc.Server){
		"identity":  func(s *grpc.Server) { identityv1.RegisterIdentityServiceServer(s, w.identity) },
		"inventory": func(s *grpc.Server) { inventoryv1.RegisterInventoryServiceServer(s, w.inventory) },
	} {
		s := rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler), Unary: []grpc.UnaryServerInterceptor{guard.Unary}})
		register(s)
		testkit.Run(t, func(ctx context.Context) error { return network.Serve(ctx, name, s) })
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	cfg := Defaults()
	cfg.Listener = l
	cfg.HTTP = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	w.plain = "http://" + cfg.HTTP
	cfg.Metrics = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "a_metric 1\n") })
	cfg.Ready = func() []string {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.panics {
			panic("a secret cause")
		}
		return w.missing
	}
	p, closeAll, err := pr.Platform(t.Context(), "gateway")
	require.NoError(t, err)
	w.platform = p
	w.stop = testkit.Run(t, func(ctx context.Context) error {
		defer closeAll()
		return Run(ctx, p, cfg)
	})
	w.url = cfg.URL()
	roots := x509.NewCertPool()
	testkit.Eventually(t, func() bool { return roots.AppendCertsFromPEM(cfg.Roots(filepath.Join(dir, "gateway"))) }, "no CA was made")
	w.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}}
	t.Cleanup(w.client.CloseIdleConnections)
	testkit.Eventually(t, func() bool {
		resp, err := w.client.Get(w.url + "/readyz")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, "the edge did not become ready")
	return w
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// problem reads a google.rpc.Status.
func (a answer) problem(t *testing.T) (code int, message, reason string, fields map[string]string, retry string) {
	t.Helper()
	var s struct {
		Code    int
		Message string
		Details []struct {
			Type            string `json:"@type"`
			Reason          string
			RetryDelay      string
			FieldViolations []struct{ Field, Description string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &s), a.body)
	fields = map[string]string{}
	for _, d := range s.Details {
		if d.Reason != "" {
			reason = d.Reason
		}
		if d.RetryDelay != "" {
			retry = d.RetryDelay
		}
		for _, f := range d.FieldViolations {
			fields[f.Field] = f.Description
		}
	}
	return s.Code, s.Message, reason, fields, retry
}

func (w *world) do(verb, path, token, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), verb, w.url+path, strings.NewReader(body))
	require.NoError(w.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	require.NoError(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func TestACallReachesItsOwnerWithTheCallersIdentity(t *testing.T) {
	w := newWorld(t)
	a := w.do("POST", "/v1/certificates", adminToken, `{"certificate":{"displayName":"shop","spec":{"names":["a.test"]}}}`, "Idempotency-Key", `"k1"`,
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-Id", "mine-1", "Grpc-Metadata-Certwright-Principal", "forged", "Grpc-Timeout", "1n")
	require.Equal(t, http.StatusOK, a.status, a.body)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &got))
	require.Equal(t, map[string]any{"id": "crt_1", "displayName": "shop"}, got, "camelCase, without what is not set")
	require.Empty(t, cmp.Diff(authz.Principal{Subject: "token:tok_admin", Name: "admin", Team: "*", Permissions: []string{"*"}}, w.inventory.caller))
	require.Equal(t, "k1", w.inventory.made.GetRequestId(), "the Idempotency-Key is the requestId")
	require.Equal(t, "mine-1", a.header.Get("X-Request-Id"))
	require.Contains(t, a.header.Get("Traceparent"), "0af7651916cd43dd8448eb211c80319c")
	require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))

	a = w.do("POST", "/v1/certificates", adminToken, `{"requestId":"own","certificate":{}}`, "Idempotency-Key", "k2")
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "own", w.inventory.made.GetRequestId(), "the body's own requestId counts")

	a = w.do("GET", "/v1/certificates?filter=owner%3Dme&pageSize=5", readerToken, "")
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.JSONEq(t, `{"nextPageToken":"owner=me"}`, a.body)

	a = w.do("POST", "/v1/certificates", readerToken, `{}`)
	require.Equal(t, http.StatusForbidden, a.status)
	_, message, reason, _, _ := a.problem(t)
	require.Equal(t, "PERMISSION_DENIED", reason)
	require.Contains(t, message, "certificates.request")
}

func TestWhoIsNotKnownIsTurnedAway(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct{ name, header, reason, challenge string }{
		{"no token", "", "TOKEN_MISSING", `Bearer realm="certwright"`},
		{"a wrong token", "Bearer cwt_wrong", "TOKEN_INVALID", `Bearer realm="certwright", error="invalid_token"`},
		{"another scheme", "Basic abc", "TOKEN_INVALID", `Bearer realm="certwright", error="invalid_token"`},
		{"an empty token", "Bearer ", "TOKEN_INVALID", `Bearer realm="certwright", error="invalid_token"`},
		{"a huge token", "Bearer " + strings.Repeat("x", 600), "TOKEN_INVALID", `Bearer realm="certwright", error="invalid_token"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := w.do("GET", "/v1/certificates", "", "", "Authorization", row.header)
			if row.header == "" {
				a = w.do("GET", "/v1/certificates", "", "")
			}
			require.Equal(t, http.StatusUnauthorized, a.status)
			code, message, reason, _, _ := a.problem(t)
			require.Equal(t, 16, code)
			require.Equal(t, row.reason, reason)
			require.NotEmpty(t, message)
			require.Equal(t, row.challenge, a.header.Get("WWW-Authenticate"))
		})
	}

	require.Equal(t, http.StatusOK, w.do("GET", "/v1/certificates", readerToken, "").status)
	before := w.identity.revoke(readerToken)
	require.Equal(t, http.StatusOK, w.do("GET", "/v1/certificates", readerToken, "").status, "remembered for a moment")
	require.Equal(t, before, w.identity.revoke(""), "identity was not asked again")
	w.clk.Advance(tokenTTL)
	a := w.do("GET", "/v1/certificates", readerToken, "")
	require.Equal(t, http.StatusUnauthorized, a.status)
	require.Contains(t, a.body, "revoked")
}

func TestARequestThatIsNotRightSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name, verb, path, body string
		headers                []string
		status                 int
		reason                 string
		says                   string
		field                  string
	}{
		{"an unknown field", "POST", "/v1/certificates", "{\"certificate\":{\"spec\":\n {\"names\":[\"a\"],\"keyAlgoritm\":\"x\"}}}", nil, 400, "UNKNOWN_FIELD", "certificate.spec.keyAlgoritm", "certificate.spec.keyAlgoritm"},
		{"an unknown field at the top", "POST", "/v1/certificates", ` {"cert":{}}`, nil, 400, "UNKNOWN_FIELD", "cert", "cert"},
		{"a value of another type", "POST", "/v1/certificates", `{"certificate":{"spec":{"names":["a",7]}}}`, nil, 400, "INVALID_ARGUMENT", "line 1, column", "certificate.spec.names[1]"},
		{"a body that is no JSON", "POST", "/v1/certificates", "{\n \"a\": }", nil, 400, "MALFORMED_JSON", "line 2, column 7", ""},
		{"a body with more behind it", "POST", "/v1/certificates", `{} {}`, nil, 400, "MALFORMED_JSON", "line 1, column 4", ""},
		{"a body that is no object", "POST", "/v1/certificates", `[]`, nil, 400, "MALFORMED_JSON", "object", ""},
		{"a body of 10 MB", "POST", "/v1/certificates", `{"x":"` + strings.Repeat("a", 10<<20) + `"}`, nil, 413, "BODY_TOO_LARGE", "1 MiB", ""},
		{"a form", "POST", "/v1/certificates", `a=b`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json", ""},
		{"a compressed body", "POST", "/v1/certificates", `{}`, []string{"Content-Encoding", "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Encoding", ""},
		{"an unknown path", "GET", "/v1/certificats", "", nil, 404, "ROUTE_NOT_FOUND", "/v1/certificats", ""},
		{"an unknown verb of a resource", "POST", "/v1/certificates/crt_1:explode", `{}`, nil, 404, "ROUTE_NOT_FOUND", "explode", ""},
		{"a path outside of the API", "GET", "/admin", "", nil, 404, "ROUTE_NOT_FOUND", "/v1", ""},
		{"a method that the path does not have", "PUT", "/v1/certificates", `{}`, nil, 405, "METHOD_NOT_ALLOWED", "GET, POST", ""},
		{"a method override", "POST", "/v1/certificates/crt_1", `{}`, []string{"X-HTTP-Method-Override", "DELETE"}, 405, "METHOD_NOT_ALLOWED", "DELETE", ""},
		{"a mistyped parameter", "GET", "/v1/certificates?filtr=x", "", nil, 400, "UNKNOWN_PARAMETER", "parameter", "filtr"},
		{"a parameter beside a body", "POST", "/v1/certificates?requestId=x", `{}`, nil, 400, "UNKNOWN_PARAMETER", "parameter", "requestId"},
		{"a parameter of another type", "GET", "/v1/certificates?pageSize=many", "", nil, 400, "INVALID_ARGUMENT", "many", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := w.do(row.verb, row.path, adminToken, row.body, row.headers...)
			require.Equal(t, row.status, a.status, a.body)
			require.Equal(t, "application/json", a.header.Get("Content-Type"))
			_, message, reason, fields, _ := a.problem(t)
			require.Equal(t, row.reason, reason)
			require.Contains(t, message, row.says)
			require.NotContains(t, message, "\u00a0")
			if row.field != "" {
				require.Contains(t, fields, row.field)
			}
			if row.status == 405 {
				require.NotEmpty(t, a.header.Get("Allow"))
			}
		})
	}
	a := w.do("POST", "/v1/certificates", adminToken, `{"certificate":{"spec":{"keyAlgoritm":"x"}}}`)
	_, _, _, fields, _ := a.problem(t)
	require.Contains(t, fields["certificate.spec.keyAlgoritm"], "keyAlgorithm", "what would be right is listed")
}

func TestWhatAnOwnerAnswersComesThrough(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name   string
		err    error
		status int
		reason string
		says   string
		retry  string
	}{
		{"a violation of a field", errs.New(errs.Invalid, "NAME_INVALID", "bad").WithField("spec.names[3]", "no"), 400, "NAME_INVALID", "bad", ""},
		{"not found", errs.New(errs.NotFound, "", "certificate crt_9 does not exist"), 404, "NOT_FOUND", "crt_9", ""},
		{"a repeat with another body", errs.New(errs.AlreadyExists, "REQUEST_ID_REUSED", "reused"), 409, "REQUEST_ID_REUSED", "reused", ""},
		{"a conflict", errs.New(errs.Conflict, "REVISION_CONFLICT", "changed"), 409, "REVISION_CONFLICT", "changed", ""},
		{"a precondition", errs.New(errs.Precondition, "NOT_NOW", "not now"), 400, "NOT_NOW", "not now", ""},
		{"a limit", errs.New(errs.RateLimited, "BUDGET", "later").WithRetryAfter(90 * time.Second), 429, "BUDGET", "later", "90"},
		{"somebody away", errs.New(errs.Unavailable, "CA_DOWN", "down").WithRetryAfter(300 * time.Millisecond), 503, "CA_DOWN", "down", "1"},
		{"too slow", errs.New(errs.Timeout, "SLOW", "slow"), 504, "SLOW", "slow", ""},
		{"not made yet", errs.New(errs.Unimplemented, "LATER", "later"), 501, "LATER", "later", ""},
		{"a fault inside", fmt.Errorf("password is hunter2"), 500, "INTERNAL", "internal error", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w.inventory.answers(row.err)
			a := w.do("POST", "/v1/certificates", adminToken, `{}`)
			require.Equal(t, row.status, a.status, a.body)
			_, message, reason, _, _ := a.problem(t)
			require.Equal(t, row.reason, reason)
			require.Contains(t, message, row.says)
			require.Equal(t, row.retry, a.header.Get("Retry-After"))
			require.NotContains(t, a.body, "hunter2")
		})
	}
}

func TestWhatNeedsNoToken(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, "ok\n", w.do("GET", "/healthz", "", "").body)
	w.mu.Lock()
	w.missing = []string{"orders", "keys"}
	w.mu.Unlock()
	a := w.do("GET", "/readyz", "", "")
	require.Equal(t, http.StatusServiceUnavailable, a.status)
	require.Equal(t, "waiting for: orders, keys\n", a.body)

	a = w.do("GET", "/openapi.json", "", "")
	var doc struct{ Paths map[string]any }
	require.NoError(t, json.Unmarshal([]byte(a.body), &doc))
	require.Contains(t, doc.Paths, "/v1/certificates")
	a = w.do("GET", "/docs", "", "")
	require.Contains(t, a.body, "POST /v1/certificates/{id}:renew")
	require.NotContains(t, a.body, "://", "nothing comes from elsewhere")
	require.Equal(t, http.StatusMethodNotAllowed, w.do("POST", "/healthz", "", "").status)

	require.Contains(t, w.do("GET", "/metrics", "", "").body, "a_metric")
	require.Equal(t, http.StatusUnauthorized, w.do("GET", "/metrics", "", "", "X-Forwarded-For", "192.0.2.1").status, "a proxy on this host is not this host")
	require.Equal(t, http.StatusForbidden, w.do("GET", "/metrics", readerToken, "", "X-Forwarded-For", "192.0.2.1").status)
	require.Contains(t, w.do("GET", "/metrics", adminToken, "", "X-Forwarded-For", "192.0.2.1").body, "a_metric")
}

func TestEveryRouteOfTheOpenAPIDocumentIsKnown(t *testing.T) {
	routes, err := routesOf(siblings())
	require.NoError(t, err)
	w := newWorld(t)
	var doc struct{ Paths map[string]map[string]any }
	require.NoError(t, json.Unmarshal([]byte(w.do("GET", "/openapi.json", "", "").body), &doc))
	n := 0
	for path, verbs := range doc.Paths {
		for verb := range verbs {
			n++
			_, _, err := find(routes, strings.ToUpper(verb), strings.NewReplacer("{", "", "}", "").Replace(path))
			require.NoError(t, err, "%s %s", verb, path)
		}
	}
	require.Equal(t, n, len(routes))
}

func (w *world) tell(n int, team string) {
	w.t.Helper()
	e := bus.Event{
		ID: fmt.Sprintf("crt_1-epoch-%d-0", n), Type: "certificate.issued", Source: "inventory", Subject: "crt_1", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Revision: int64(n), Epoch: "epoch", Team: team, Data: []byte(`{"certificateId": "crt_1"}`),
	}
	require.NoError(w.t, w.platform.Bus.Publish(w.t.Context(), e.Entry()))
}

// sse is one event as a client sees it.
type sse struct{ id, event, data string }

// follow opens the feed; what comes is read by calling next.
func (w *world) follow(token, query string, headers ...string) (next func() sse, closeFeed func()) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), testkit.Deadline)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/v1/events"+query, nil)
	require.NoError(w.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	require.NoError(w.t, err)
	require.Equal(w.t, http.StatusOK, resp.StatusCode)
	require.Equal(w.t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	w.t.Cleanup(func() { cancel(); _ = resp.Body.Close() })
	return func() sse {
		var e sse
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.event = value
			case "data":
				e.data = value
			case "":
				if e.event != "" {
					return e
				}
				e = sse{}
			}
		}
		w.t.Fatalf("the feed ended: %v", lines.Err())
		return e
	}, cancel
}

func TestTheFeedShowsFactsAndGoesOnWhereItWasLeft(t *testing.T) {
	w := newWorld(t)
	epoch := w.platform.Bus.StreamEpoch()
	w.tell(1, "web")
	w.tell(2, "mail")
	w.tell(3, "web")

	next, leave := w.follow(webToken, "?since="+epoch+"-0&types=certificate.issued,certificate.renewed")
	got := next()
	require.Equal(t, epoch+"-1", got.id)
	require.Equal(t, "certificate.issued", got.event)
	require.JSONEq(t, `{"id":"crt_1-epoch-1-0","type":"certificate.issued","subject":"crt_1","time":"2026-01-02T03:04:05.000Z","team":"web","revision":1,"data":{"certificateId":"crt_1"}}`, got.data)
	require.Equal(t, epoch+"-3", next().id, "another team's fact is not shown")
	leave()

	w.tell(4, "web")
	next, _ = w.follow(webToken, "?since=ignored", "Last-Event-ID", epoch+"-3")
	require.Equal(t, epoch+"-4", next().id, "from the last position on")
	w.tell(5, "web")
	require.Equal(t, epoch+"-5", next().id, "and live")

	for i, row := range []struct{ name, since string }{
		{"a position of another stream", "12345-1"},
		{"a position that the stream has not reached", epoch + "-99"},
		{"something that is no position", "yesterday"},
	} {
		t.Run(row.name, func(t *testing.T) {
			next, leave := w.follow(webToken, "?since="+row.since)
			defer leave()
			require.Equal(t, sse{event: "resync", data: "{}"}, next())
			w.tell(6+i, "web")
			require.NotEmpty(t, next().id, "facts follow")
		})
	}
}

func TestTheFeedSaysWhenTheStreamWasLost(t *testing.T) {
	w := newWorld(t)
	old := w.platform.Bus.StreamEpoch()
	w.tell(1, "web")
	next, _ := w.follow(webToken, "?since="+old+"-0")
	require.Equal(t, old+"-1", next().id)
	w.nats.DeleteAll(t.Context())
	testkit.Eventually(t, func() bool { return w.platform.Bus.StreamEpoch() != old }, "no new stream")
	w.tell(2, "web")
	require.Equal(t, "resync", next().event)
	require.Equal(t, w.platform.Bus.StreamEpoch()+"-1", next().id, "everything of the new stream is shown")
}

func TestAPanicIsAnErrorAndNotTheEnd(t *testing.T) {
	w := newWorld(t)
	w.mu.Lock()
	w.panics = true
	w.mu.Unlock()
	a := w.do("GET", "/readyz", "", "")
	require.Equal(t, http.StatusInternalServerError, a.status)
	_, message, _, _, _ := a.problem(t)
	require.Contains(t, message, "internal error")
	require.NotContains(t, a.body, "secret cause")
	require.Equal(t, http.StatusOK, w.do("GET", "/healthz", "", "").status)
}

func TestAStopEndsTheFeeds(t *testing.T) {
	w := newWorld(t)
	w.url = w.plain // HTTP/1.1
	_, leave := w.follow(webToken, "")
	defer leave()
	w.client.Transport = &http.Transport{}
	stopped := make(chan struct{})
	go func() { w.stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(stopTimeout - time.Second):
		t.Fatal("the edge waits for a feed that never ends")
	}
}

func TestTheFeedIsForWhoMayReadIt(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, http.StatusUnauthorized, w.do("GET", "/v1/events", "", "").status)
	a := w.do("GET", "/v1/events", readerToken, "")
	require.Equal(t, http.StatusForbidden, a.status)
	require.Contains(t, a.body, "events.read")
	a = w.do("GET", "/v1/events?types=certificate.eaten", webToken, "")
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Contains(t, a.body, "certificate.eaten")
	require.Equal(t, http.StatusBadRequest, w.do("GET", "/v1/events?typ=x", webToken, "").status)
}

package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/api/openapi"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/service"
)

// callTimeout is the deadline of one REST call.
const callTimeout = 30 * time.Second

// edge answers HTTP requests.
type edge struct {
	logger  *slog.Logger
	clk     clock.Clock
	tracer  trace.Tracer
	seconds metric.Float64Histogram
	auth    *authenticator
	mux     *runtime.ServeMux
	routes  []route
	feed    *feed
	docs    docsPage
	ready   func() []string
	metrics http.Handler
}

func newEdge(ctx context.Context, p *service.Platform, cfg Config) (*edge, error) {
	all := siblings()
	routes, err := routesOf(all)
	if err != nil {
		return nil, err
	}
	histogram, err := p.Meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"), metric.WithDescription("How long requests at the edge took."))
	if err != nil {
		return nil, err
	}
	docs, err := newDocsPage(openapi.JSON)
	if err != nil {
		return nil, err
	}
	e := &edge{
		logger: p.Logger, clk: p.Clock, tracer: p.Tracer, seconds: histogram, routes: routes, docs: docs, metrics: cfg.Metrics,
		auth: newAuthenticator(identityv1.NewIdentityServiceClient(p.Peer("identity")), p.Clock),
		ready: func() (missing []string) {
			if cfg.Ready != nil {
				missing = cfg.Ready()
			}
			if p.Bus.Ready() != nil {
				missing = append(missing, "bus")
			}
			return missing
		},
	}
	e.feed = newFeed(p.Bus, e.auth, p.Logger)
	e.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: false}, UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}),
		runtime.WithErrorHandler(e.onError), runtime.WithRoutingErrorHandler(e.onRoutingError), runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(),
		// No header becomes gRPC metadata, or the other way round: who calls travels in the signed principal alone.
		runtime.WithIncomingHeaderMatcher(noHeader), runtime.WithOutgoingHeaderMatcher(noHeader), runtime.WithOutgoingTrailerMatcher(noHeader),
	)
	for _, s := range all {
		if err := s.register(ctx, e.mux, peer{p.Peer(s.name)}); err != nil {
			return nil, fmt.Errorf("routes of %s: %w", s.name, err)
		}
	}
	return e, nil
}

func noHeader(string) (string, bool) { return "", false }

// call is what the edge knows about a request on its way.
type call struct {
	route          route
	body           []byte
	idempotencyKey string
	subject        string // who, for the log
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{route: route{input: (&identityv1.AuthenticateRequest{}).ProtoReflect().Descriptor()}}
}

// peer is a connection to a sibling that gives a creating request the Idempotency-Key as its requestId when it has none.
type peer struct{ grpc.ClientConnInterface }

// Invoke implements grpc.ClientConnInterface.
func (p peer) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if key := callOf(ctx).idempotencyKey; key != "" {
		if m, ok := args.(proto.Message); ok {
			setRequestID(m.ProtoReflect(), key)
		}
	}
	return p.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

func setRequestID(m protoreflect.Message, key string) {
	f := m.Descriptor().Fields().ByName("request_id")
	if f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() && m.Get(f).String() == "" {
		m.Set(f, protoreflect.ValueOfString(key))
	}
}

var requestID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// ServeHTTP implements http.Handler: it observes; serve decides.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := e.clk.Now()
	carrier := propagation.TraceContext{}
	ctx, span := e.tracer.Start(carrier.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), "HTTP "+r.Method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("url.path", r.URL.Path)))
	defer span.End()
	c := &call{}
	ctx = context.WithValue(ctx, callKey{}, c)
	r = r.WithContext(ctx)

	h := w.Header()
	carrier.Inject(ctx, propagation.HeaderCarrier(h))
	rid := r.Header.Get("X-Request-Id")
	if !requestID.MatchString(rid) {
		if s := span.SpanContext(); s.HasTraceID() {
			rid = s.TraceID().String()
		} else {
			rid = id.New("req", begun)
		}
	}
	h.Set("X-Request-Id", rid)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

	out := &recorder{ResponseWriter: w}
	defer func() {
		if cause := recover(); cause != nil {
			if cause == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it like this
				panic(cause)
			}
			e.logger.ErrorContext(ctx, "request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			if out.status != 0 { // half an answer is out: the client must see that it is not whole
				panic(http.ErrAbortHandler)
			}
			e.fail(out, r, 0, errs.New(errs.Internal, "PANIC", "internal error; the log of the service has the details"))
		}
		e.observed(ctx, span, r, c, out, begun, rid)
	}()
	e.serve(out, r, c)
}

func (e *edge) observed(ctx context.Context, span trace.Span, r *http.Request, c *call, out *recorder, begun time.Time, rid string) {
	status := out.status
	if status == 0 {
		status = http.StatusOK
	}
	name := c.route.template
	if name == "" {
		name = "other"
	}
	took := e.clk.Now().Sub(begun)
	span.SetName("HTTP " + r.Method + " " + name)
	span.SetAttributes(attribute.String("http.route", name), attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(otelcodes.Error, http.StatusText(status))
	}
	e.seconds.Record(ctx, took.Seconds(), metric.WithAttributes(
		attribute.String("http.request.method", verbOf(r.Method)), attribute.String("http.route", name), attribute.Int("http.response.status_code", status)))
	e.logger.DebugContext(ctx, "request", "method", r.Method, "path", r.URL.Path, "status", status, "bytes", out.bytes, "duration", took, "subject", c.subject, "request_id", rid)
}

// verbOf keeps made-up methods from becoming metrics.
func verbOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

func (e *edge) serve(w http.ResponseWriter, r *http.Request, c *call) {
	fixed := map[string]http.HandlerFunc{
		"/healthz": e.healthz, "/readyz": e.readyz, "/openapi.json": e.openAPI, "/docs": e.docs.serve, "/metrics": e.serveMetrics, "/v1/events": e.events,
	}
	if handle, ok := fixed[r.URL.Path]; ok {
		c.route.template = r.URL.Path
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			e.fail(w, r, http.StatusMethodNotAllowed, errs.New(errs.Unimplemented, "METHOD_NOT_ALLOWED", "%s is not possible at %q; allowed: GET, HEAD", r.Method, r.URL.Path))
			return
		}
		handle(w, r)
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		e.fail(w, r, 0, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no %q here; the API is below /v1, and /docs lists every path", r.URL.Path))
		return
	}
	e.serveAPI(w, r, c)
}

func (e *edge) serveAPI(w http.ResponseWriter, r *http.Request, c *call) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	principal, err := e.auth.of(ctx, r.Header)
	if err != nil {
		e.fail(w, r, 0, err)
		return
	}
	c.subject = principal.Subject
	found, allowed, err := find(e.routes, r.Method, r.URL.Path)
	if err != nil {
		status := 0
		if allowed != nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			status = http.StatusMethodNotAllowed
		}
		e.fail(w, r, status, err)
		return
	}
	c.route = found
	if err := found.checkQuery(r.URL.Query()); err != nil {
		e.fail(w, r, 0, err)
		return
	}
	if found.body != "" {
		body, status, err := readBody(w, r)
		if err != nil {
			e.fail(w, r, status, err)
			return
		}
		c.body = body
	}
	if r.Method == http.MethodPost {
		c.idempotencyKey = strings.Trim(r.Header.Get("Idempotency-Key"), `" `)
	}
	inner := r.Clone(authz.NewContext(ctx, principal))
	inner.Body = io.NopCloser(bytes.NewReader(c.body))
	inner.Header.Del("Authorization") // grpc-gateway would pass the token on
	inner.Header.Del("Grpc-Timeout")
	inner.Header.Set("Content-Type", "application/json")
	e.mux.ServeHTTP(w, inner)
}

func (e *edge) healthz(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") }

func (e *edge) readyz(w http.ResponseWriter, _ *http.Request) {
	if missing := e.ready(); len(missing) > 0 {
		w.Header().Set("Retry-After", "1")
		text(w, http.StatusServiceUnavailable, "waiting for: "+strings.Join(missing, ", ")+"\n")
		return
	}
	text(w, http.StatusOK, "ready\n")
}

func (e *edge) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi.JSON)
}

// serveMetrics answers scrapers on this host, and holders of the permission platform.read.
func (e *edge) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if e.metrics == nil {
		e.fail(w, r, 0, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "this process has no metrics"))
		return
	}
	if !local(r) {
		principal, err := e.auth.of(r.Context(), r.Header)
		if err == nil && !principal.Has("platform.read") {
			err = errs.New(errs.Forbidden, authz.ReasonDenied, "the permission platform.read is wanted, or a connection from this host")
		}
		if err != nil {
			e.fail(w, r, 0, err)
			return
		}
	}
	e.metrics.ServeHTTP(w, r)
}

// local reports whether the client itself is on this host. What a proxy on this host passes on is not.
func local(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && loopback(host)
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, s)
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

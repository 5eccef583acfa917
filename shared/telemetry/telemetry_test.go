package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/telemetry"
)

var at = time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)

func start(t *testing.T, c telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tel.Shutdown(ctx)
	})
	return tel
}

func TestALogLineCarriesTraceContextAndTheClocksTime(t *testing.T) {
	var out bytes.Buffer
	tel := start(t, telemetry.Config{Service: "orders", SampleRatio: 1, Output: &out, Clock: clock.NewFake(at)})
	ctx, span := tel.Tracer("test").Start(t.Context(), "step")
	defer span.End()
	tel.Logger.With("a", 1).InfoContext(ctx, "moved", "b", 2)
	tel.Logger.DebugContext(ctx, "below the level")

	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), "one line, in JSON")
	require.Equal(t, map[string]any{
		"time": "2026-03-04T05:06:07.008Z", "level": "INFO", "msg": "moved", "a": 1.0, "b": 2.0,
		"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
	}, line)
}

func TestALineWithoutSpanHasNoTrace(t *testing.T) {
	var out bytes.Buffer
	tel := start(t, telemetry.Config{LogFormat: "text", LogLevel: "debug", Output: &out, Clock: clock.NewFake(at)})
	tel.Logger.DebugContext(t.Context(), "x")
	require.Equal(t, "time=2026-03-04T05:06:07.008Z level=DEBUG msg=x\n", out.String())
}

func TestMetricsAreServedFromAnOwnRegistryWithBucketsInSeconds(t *testing.T) {
	one, two := start(t, telemetry.Config{Service: "orders"}), start(t, telemetry.Config{Service: "keys"})
	seconds, err := one.Meter("test").Float64Histogram("step.duration", metric.WithUnit("s"))
	require.NoError(t, err)
	seconds.Record(t.Context(), 0.3)
	other, err := one.Meter("test").Float64Histogram("size", metric.WithUnit("By"))
	require.NoError(t, err)
	other.Record(t.Context(), 3)

	scrape := func(tel *telemetry.Telemetry) string {
		w := httptest.NewRecorder()
		tel.MetricsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		require.Equal(t, http.StatusOK, w.Code)
		return w.Body.String()
	}
	text := scrape(one)
	require.Regexp(t, `step_duration_seconds_bucket\{[^}]*le="0.25"\} 0`, text)
	require.Regexp(t, `step_duration_seconds_bucket\{[^}]*le="0.5"\} 1`, text)
	require.Regexp(t, `step_duration_seconds_bucket\{[^}]*le="600"\} 1`, text)
	require.NotRegexp(t, `size_bytes_bucket\{[^}]*le="0.25"\}`, text)
	require.Contains(t, text, `service_name="orders"`)
	require.Contains(t, text, "go_goroutines")
	require.NotContains(t, scrape(two), "step_duration")
}

func TestSamplingFollowsTheRatioAndTheParent(t *testing.T) {
	tel := start(t, telemetry.Config{SampleRatio: 0})
	_, span := tel.Tracer("test").Start(t.Context(), "x")
	require.False(t, span.SpanContext().IsSampled())
	require.True(t, span.SpanContext().IsValid(), "ids are there for the logs")
	parent := propagation.MapCarrier{"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
	_, span = tel.Tracer("test").Start(propagation.TraceContext{}.Extract(t.Context(), parent), "x")
	require.True(t, span.SpanContext().IsSampled())
}

func TestNoGlobalIsSet(t *testing.T) {
	before, beforeMeter, beforeLog := otel.GetTracerProvider(), otel.GetMeterProvider(), slog.Default()
	tel := start(t, telemetry.Config{SampleRatio: 1})
	require.Equal(t, before, otel.GetTracerProvider())
	require.Equal(t, beforeMeter, otel.GetMeterProvider())
	require.Same(t, beforeLog, slog.Default())
	require.NotEqual(t, before, tel.TracerProvider())
}

// spans receives what an OTLP exporter sends.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu    sync.Mutex
	names []string
}

func (s *spans) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range r.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, sp := range ss.GetSpans() {
				s.names = append(s.names, sp.GetName())
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestShutdownExportsWhatIsLeft(t *testing.T) {
	for _, scheme := range []string{"http://", ""} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server, got := grpc.NewServer(), &spans{}
		collector.RegisterTraceServiceServer(server, got)
		go func() { _ = server.Serve(l) }()
		tel := start(t, telemetry.Config{SampleRatio: 1, OTLPEndpoint: scheme + l.Addr().String()})
		_, span := tel.Tracer("test").Start(t.Context(), "last")
		span.End()
		_ = tel.Shutdown(t.Context()) // the receiver takes traces alone, so the metrics fail
		server.Stop()
		require.Equal(t, []string{"last"}, got.names)
	}
}

func TestAProcessorSeesEverySpan(t *testing.T) {
	seen := &recorder{}
	tel := start(t, telemetry.Config{SampleRatio: 1, SpanProcessors: []sdktrace.SpanProcessor{seen}})
	_, span := tel.Tracer("test").Start(t.Context(), "x")
	span.End()
	require.Equal(t, []string{"x"}, seen.names)
}

type recorder struct{ names []string }

func (*recorder) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (r *recorder) OnEnd(s sdktrace.ReadOnlySpan)                 { r.names = append(r.names, s.Name()) }
func (*recorder) Shutdown(context.Context) error                  { return nil }
func (*recorder) ForceFlush(context.Context) error                { return nil }

func TestBadSettingsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  telemetry.Config
		says string
	}{
		{"an unknown level", telemetry.Config{LogLevel: "loud"}, `"loud" given`},
		{"an unknown format", telemetry.Config{LogFormat: "xml"}, `"xml" given`},
		{"a ratio above one", telemetry.Config{SampleRatio: 2}, "0 to 1"},
		{"an endpoint without port", telemetry.Config{OTLPEndpoint: "collector"}, `"collector" given`},
		{"an endpoint of another scheme", telemetry.Config{OTLPEndpoint: "ftp://x:1"}, "ftp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := telemetry.New(t.Context(), c.cfg)
			require.Equal(t, errs.Invalid, errs.KindOf(err))
			require.ErrorContains(t, err, c.says)
		})
	}
}

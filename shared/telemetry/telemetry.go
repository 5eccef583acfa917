// Package telemetry gives a process its traces, metrics and logs. Everything is injected: no OpenTelemetry, slog or Prometheus global is read
// or set, so that several services in one process, and tests side by side, do not see each other's.
package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// Config says what to record and where it goes.
type Config struct {
	// Service is the resource attribute service.name. Log lines get their "service" from package service, since one process may run several.
	Service string
	// Version is the resource attribute service.version; may be empty.
	Version string
	// OTLPEndpoint is the OTLP/gRPC receiver: "http://host:4317" (plain), "https://host:4317" (TLS), or "host:4317" (plain). Empty: nothing is
	// exported; spans still get ids, so that logs can be joined.
	OTLPEndpoint string
	// SampleRatio is the part of the traces begun here that is recorded, 0 to 1. A trace begun elsewhere follows its parent.
	SampleRatio float64
	// LogLevel is debug, info, warn or error; empty means info.
	LogLevel string
	// LogFormat is json or text; empty means json.
	LogFormat string
	// Output is where logs go; nil means standard error.
	Output io.Writer
	// Clock times the log lines; nil means the system's.
	Clock clock.Clock
	// SpanProcessors see every recorded span besides the exporter, e.g. a recorder in a test.
	SpanProcessors []sdktrace.SpanProcessor
}

// Telemetry holds the providers of one process or service. It is safe for concurrent use.
type Telemetry struct {
	Logger   *slog.Logger
	traces   *sdktrace.TracerProvider
	metrics  *sdkmetric.MeterProvider
	registry *prometheus.Registry
}

// secondsBuckets are the bounds of every histogram whose unit is "s": from a fast store (1 ms) to a slow CA (10 min).
var secondsBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// New makes the providers. Errors are Invalid (a bad value in c) or Unavailable (an exporter cannot be made; a receiver that is down is
// no error, exporters retry).
func New(ctx context.Context, c Config) (*Telemetry, error) {
	log, err := newLogger(c)
	if err != nil {
		return nil, err
	}
	if c.SampleRatio < 0 || c.SampleRatio > 1 {
		return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "sample ratio: %v given, allowed: 0 to 1", c.SampleRatio)
	}
	attrs := []attribute.KeyValue{attribute.String("service.name", c.Service), attribute.String("service.namespace", "certwright")}
	if c.Version != "" {
		attrs = append(attrs, attribute.String("service.version", c.Version))
	}
	res := resource.NewSchemaless(attrs...)

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	prom, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		return nil, errs.New(errs.Internal, "", "making the Prometheus exporter: %w", err)
	}
	metricOptions := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(prom), sdkmetric.WithView(sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram, Unit: "s"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: secondsBuckets}},
	))}
	traceOptions := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.SampleRatio))),
	}
	for _, p := range c.SpanProcessors {
		traceOptions = append(traceOptions, sdktrace.WithSpanProcessor(p))
	}

	if c.OTLPEndpoint != "" {
		host, plain, err := endpoint(c.OTLPEndpoint)
		if err != nil {
			return nil, err
		}
		to := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(host)}
		mo := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(host)}
		if plain {
			to, mo = append(to, otlptracegrpc.WithInsecure()), append(mo, otlpmetricgrpc.WithInsecure())
		}
		spans, err := otlptracegrpc.New(ctx, to...)
		if err != nil {
			return nil, errs.New(errs.Unavailable, "", "making the trace exporter: %w", err)
		}
		points, err := otlpmetricgrpc.New(ctx, mo...)
		if err != nil {
			return nil, errors.Join(errs.New(errs.Unavailable, "", "making the metric exporter: %w", err), spans.Shutdown(ctx))
		}
		traceOptions = append(traceOptions, sdktrace.WithBatcher(spans))
		metricOptions = append(metricOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(points, sdkmetric.WithInterval(30*time.Second))))
	}
	return &Telemetry{
		Logger:   log,
		traces:   sdktrace.NewTracerProvider(traceOptions...),
		metrics:  sdkmetric.NewMeterProvider(metricOptions...),
		registry: registry,
	}, nil
}

// endpoint splits an OTLP endpoint into host:port and whether it is without TLS.
func endpoint(s string) (host string, plain bool, err error) {
	u, err := url.Parse(s)
	if err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		return u.Host, u.Scheme == "http", nil
	}
	if u, err = url.Parse("http://" + s); err == nil && u.Host == s && u.Port() != "" {
		return s, true, nil
	}
	return "", false, errs.New(errs.Invalid, "CONFIG_INVALID", "OTLP endpoint: %q given, wanted http://host:port, https://host:port or host:port", s)
}

// Tracer returns the tracer of a package, named by its import path or short name.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.traces.Tracer(name) }

// Meter returns the meter of a package. Durations are Float64Histograms with the unit "s".
func (t *Telemetry) Meter(name string) metric.Meter { return t.metrics.Meter(name) }

// TracerProvider is for libraries that want one, e.g. otelgrpc.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.traces }

// MeterProvider is for libraries that want one, e.g. otelgrpc.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.metrics }

// MetricsHandler answers /metrics in the Prometheus and OpenMetrics text formats.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Registry is where a library that only knows Prometheus may register.
func (t *Telemetry) Registry() *prometheus.Registry { return t.registry }

// Shutdown exports what is left and ends the providers; it is the last thing that a process stops.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	return errors.Join(t.traces.Shutdown(ctx), t.metrics.Shutdown(ctx))
}

func newLogger(c Config) (*slog.Logger, error) {
	var level slog.Level
	if c.LogLevel != "" {
		if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
			return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "log level: %q given, allowed: debug, info, warn, error", c.LogLevel)
		}
	}
	out := c.Output
	if out == nil {
		out = os.Stderr
	}
	clk := c.Clock
	if clk == nil {
		clk = clock.System()
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch c.LogFormat {
	case "", "json":
		h = slog.NewJSONHandler(out, options)
	case "text":
		h = slog.NewTextHandler(out, options)
	default:
		return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "log format: %q given, allowed: json, text", c.LogFormat)
	}
	return slog.New(handler{h, clk}), nil
}

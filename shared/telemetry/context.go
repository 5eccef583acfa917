package telemetry

import (
	"context"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/clock"
)

// TraceParent is the key of the W3C trace context in headers and carriers.
const TraceParent = "traceparent"

// Carrier is a set of headers with lower-case keys, such as the headers of an event.
type Carrier = propagation.MapCarrier

// Propagator reads and writes W3C trace context (traceparent, tracestate).
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Inject returns the traceparent of the span in ctx, or "" when there is none.
func Inject(ctx context.Context) string {
	c := Carrier{}
	Propagator().Inject(ctx, c)
	return c[TraceParent]
}

// Extract returns ctx with the remote parent that traceparent names; a value that is empty or not well formed changes nothing.
func Extract(ctx context.Context, traceparent string) context.Context {
	return Propagator().Extract(ctx, Carrier{TraceParent: traceparent})
}

// Link returns the link to the span that traceparent names, for work that goes on after a long wait in a span of its own. It reports false
// when traceparent is empty or not well formed.
func Link(traceparent string) (trace.Link, bool) {
	sc := trace.SpanContextFromContext(Extract(context.Background(), traceparent))
	return trace.Link{SpanContext: sc}, sc.IsValid()
}

type attrsKey struct{}

// With returns ctx with attributes that every log line written with it carries, e.g. the ids of the event and the aggregate at hand. An
// attribute with a key that is there already replaces it.
func With(ctx context.Context, attrs ...slog.Attr) context.Context {
	var all []slog.Attr
	for _, a := range attrsOf(ctx) {
		if !slices.ContainsFunc(attrs, func(b slog.Attr) bool { return a.Key == b.Key }) {
			all = append(all, a)
		}
	}
	return context.WithValue(ctx, attrsKey{}, append(all, attrs...))
}

func attrsOf(ctx context.Context) []slog.Attr {
	attrs, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	return attrs
}

// handler adds what ctx knows to each record.
type handler struct {
	slog.Handler
	clk clock.Clock
}

// NewHandler wraps h: records get the time of clk, trace_id and span_id of the span in ctx, and the attributes of With.
func NewHandler(h slog.Handler, clk clock.Clock) slog.Handler { return handler{h, clk} }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	out := r.Clone()
	out.Time = h.clk.Now()
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		out.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	out.AddAttrs(attrsOf(ctx)...)
	return h.Handler.Handle(ctx, out)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.clk}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.clk}
}

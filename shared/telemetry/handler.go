package telemetry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/clock"
)

// handler gives records the time of clk, and trace_id and span_id of the span in ctx.
type handler struct {
	slog.Handler
	clk clock.Clock
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	out := r.Clone()
	out.Time = h.clk.Now()
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		out.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, out)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.clk}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.clk}
}

package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/certwright/certwright/shared/errs"
)

// MaxMessageBytes bounds a message in either direction.
const MaxMessageBytes = 16 << 20

// ServerOptions says how a server is made. Logger is required, the rest may be zero.
type ServerOptions struct {
	Logger         *slog.Logger
	TracerProvider trace.TracerProvider // nil: no traces
	MeterProvider  metric.MeterProvider // nil: no metrics
	TLS            *tls.Config          // nil: no transport security, for InProcess only
	// Unary and Stream run inside error mapping and recovery, in this order: authz first.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor
}

// NewServer makes a server whose handlers may return any error: a typed one goes to the caller by the mapping table, an untyped one or a panic is
// hidden from the caller and logged in full, once. Calls are traced and counted by the given providers.
func NewServer(o ServerOptions) *grpc.Server {
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	edge := serverEdge{o.Logger}
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.StatsHandler(otelgrpc.NewServerHandler(telemetryOptions(o.TracerProvider, o.MeterProvider)...)),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{edge.unary}, o.Unary...)...),
		grpc.ChainStreamInterceptor(append([]grpc.StreamServerInterceptor{edge.stream}, o.Stream...)...),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	)
}

const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

func telemetryOptions(t trace.TracerProvider, m metric.MeterProvider) []otelgrpc.Option {
	if t == nil {
		t = noTraces
	}
	if m == nil {
		m = noMetrics
	}
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t), otelgrpc.WithMeterProvider(m), otelgrpc.WithPropagators(propagation.TraceContext{}),
	}
}

// Stop stops s: it takes no new call, waits for those in flight until ctx ends, and then cuts them off.
func Stop(ctx context.Context, s *grpc.Server) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.Stop()
		<-done
		return errs.New(errs.Timeout, "STOP_TIMEOUT", "calls were still in flight and were cut off: %w", ctx.Err())
	}
}

// serverEdge is the outermost interceptor: what passes it is a gRPC status.
type serverEdge struct{ log *slog.Logger }

func (s serverEdge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		if err != nil {
			resp, err = nil, s.end(ctx, info.FullMethod, err)
		}
	}()
	return next(ctx, req)
}

func (s serverEdge) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		if err != nil {
			err = s.end(stream.Context(), info.FullMethod, err)
		}
	}()
	return next(srv, stream)
}

// panicError keeps the stack for the log; it is untyped, so callers do not see it.
type panicError struct{ text string }

func (p panicError) Error() string { return p.text }

func panicked(p any) error { return panicError{fmt.Sprintf("panic: %v\n%s", p, debug.Stack())} }

// end logs err once and turns it into a status.
func (s serverEdge) end(ctx context.Context, method string, err error) error {
	e := Classify(err)
	if ctx.Err() != nil && e.Kind == errs.Internal { // a consequence of the caller being gone, not a fault of ours
		e = Classify(ctx.Err())
	}
	attrs := []slog.Attr{slog.String("method", method), slog.String("reason", errs.ReasonOf(e)), slog.String("error", err.Error())}
	level := slog.LevelDebug // the caller's fault, and the caller is told
	switch e.Kind {
	case errs.Internal:
		level = slog.LevelError
	case errs.Unavailable, errs.Timeout:
		level = slog.LevelWarn
	case errs.Invalid, errs.NotFound, errs.AlreadyExists, errs.Conflict, errs.Precondition, errs.Unauthenticated, errs.Forbidden,
		errs.RateLimited, errs.Canceled, errs.Unimplemented:
	}
	s.log.LogAttrs(ctx, level, "call failed", attrs...)
	return ToStatus(e).Err()
}

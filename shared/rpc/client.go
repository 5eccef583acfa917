package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/certwright/certwright/shared/errs"
)

var (
	noTraces  trace.TracerProvider = tracenoop.NewTracerProvider()
	noMetrics metric.MeterProvider = metricnoop.NewMeterProvider()
)

// ClientOptions says how a connection is made. All of it may be zero.
type ClientOptions struct {
	// Service is the name of the service at the other end ("orders"). With TLS its certificate has to be for "<service>.certwright".
	Service        string
	TLS            *tls.Config // nil: no transport security, for InProcess and loopback tests only
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	// Unary and Stream run inside the error mapping, in this order.
	Unary  []grpc.UnaryClientInterceptor
	Stream []grpc.StreamClientInterceptor
}

// ServerName is the name in the certificate of a service, and in its own calls as the client's.
func ServerName(service string) string { return service + ".certwright" }

// Dial makes a connection to target ("host:port", or any gRPC target; a DNS name with several addresses is balanced). It does not connect
// yet: the first call does. Errors of calls are *errs.Error; a server that is down is Unavailable at once, and retrying is up to the caller.
func Dial(target string, o ClientOptions) (*grpc.ClientConn, error) {
	return dial(target, o)
}

func dial(target string, o ClientOptions, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		c := o.TLS.Clone()
		if o.Service != "" {
			c.ServerName = ServerName(o.Service)
		}
		creds = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(telemetryOptions(o.TracerProvider, o.MeterProvider)...)),
		grpc.WithChainUnaryInterceptor(append([]grpc.UnaryClientInterceptor{clientUnary}, o.Unary...)...),
		grpc.WithChainStreamInterceptor(append([]grpc.StreamClientInterceptor{clientStream}, o.Stream...)...),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, more...)...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "%q is not an address to call: %w", target, err)
	}
	return conn, nil
}

func clientUnary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return FromError(invoke(ctx, method, req, reply, cc, opts...))
}

func clientStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := stream(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, FromError(err)
	}
	return mappedStream{s}, nil
}

// mappedStream maps the errors of a stream; io.EOF, its regular end, stays.
type mappedStream struct{ grpc.ClientStream }

func (s mappedStream) SendMsg(m any) error { return mapped(s.ClientStream.SendMsg(m)) }
func (s mappedStream) RecvMsg(m any) error { return mapped(s.ClientStream.RecvMsg(m)) }
func (s mappedStream) CloseSend() error    { return mapped(s.ClientStream.CloseSend()) }

func mapped(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return FromError(err)
}

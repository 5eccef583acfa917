// Package servicetest runs one service on a real bus and a real store, among siblings that its test plays. It is never linked into the product.
package servicetest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/testkit"
)

// Network is where the service and those whom the test plays meet: a NATS server for facts, and pipes for calls.
type Network struct {
	t     testing.TB
	log   *slog.Logger
	nats  *testkit.Server
	calls service.InProcess

	mu    sync.Mutex
	conns []*grpc.ClientConn
}

// New makes a network that ends with the test.
func New(t testing.TB) *Network {
	t.Helper()
	n := &Network{t: t, log: testkit.Logger(t), nats: testkit.NATS(t), calls: service.NewInProcess()}
	t.Cleanup(n.close)
	return n
}

func (n *Network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}

// Bus connects the service called name to the bus. What it consumes it hears as soon as the test runs it.
func (n *Network) Bus(name string) *bus.Bus {
	n.t.Helper()
	b, err := bus.New(n.t.Context(), bus.Config{
		Conn: n.nats.Conn(), Source: name, Logger: n.log, SyncInterval: time.Second, HealthInterval: 100 * time.Millisecond,
	})
	require.NoError(n.t, err)
	return b
}

// Conn connects to the service called name, which need not listen yet.
func (n *Network) Conn(name string) *grpc.ClientConn {
	n.t.Helper()
	c, err := n.calls.Conn("test", name, rpc.ClientOptions{})
	require.NoError(n.t, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return c
}

// Play answers the calls of one gRPC service of the sibling called name, as the generated descriptor says, by the methods of impl.
func (n *Network) Play(name string, api *grpc.ServiceDesc, impl any) {
	s := rpc.NewServer(rpc.ServerOptions{Logger: n.log})
	s.RegisterService(api, impl)
	testkit.Run(n.t, func(ctx context.Context) error { return n.calls.Serve(ctx, name, s) })
}

// Platform is what the composition root would give the service called name, with the system's clock and an empty SQLite store. Its server takes
// every call for one of caller.
func (n *Network) Platform(name string, caller authz.Principal) *service.Platform {
	n.t.Helper()
	b, store := n.Bus(name), testkit.Store(n.t)
	return &service.Platform{
		Name: name, Clock: clock.System(), Logger: n.log, Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: metricnoop.NewMeterProvider().Meter(""),
		Store: store, Bus: b, Outbox: outbox.New(outbox.Config{Store: store, Bus: b, Source: name, Clock: clock.System(), Logger: n.log}),
		Server: rpc.NewServer(rpc.ServerOptions{Logger: n.log, Unary: []grpc.UnaryServerInterceptor{
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				return next(authz.NewContext(ctx, caller), req)
			},
		}}),
		Peer:    func(sibling string) grpc.ClientConnInterface { return n.Conn(sibling) },
		DataDir: n.t.TempDir(),
		Listen:  func(ctx context.Context, s *grpc.Server) error { return n.calls.Serve(ctx, name, s) },
	}
}

package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server is an embedded NATS server with JetStream on a loopback port.
type Server struct {
	// URL has the form nats://127.0.0.1:PORT and stays the same over a Restart.
	URL string
	// StoreDir is where JetStream keeps its files.
	StoreDir string

	t    testing.TB
	opts *server.Options
	srv  *server.Server
}

// NATS starts a server that ends with the test.
func NATS(t testing.TB) *Server {
	t.Helper()
	return natsServer(t, nil)
}

// NATSUsers starts a server that knows exactly these users, so that their permissions can be tested.
func NATSUsers(t testing.TB, users ...*server.User) *Server {
	t.Helper()
	return natsServer(t, users)
}

func natsServer(t testing.TB, users []*server.User) *Server {
	t.Helper()
	s := &Server{t: t, StoreDir: t.TempDir()}
	s.opts = &server.Options{
		ServerName: "testkit", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: s.StoreDir, SyncInterval: time.Second, Users: users,
	}
	s.start()
	s.opts.Port = s.srv.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
	s.URL = fmt.Sprintf("nats://127.0.0.1:%d", s.opts.Port)
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) start() {
	s.t.Helper()
	srv, err := server.NewServer(s.opts.Clone())
	if err != nil {
		s.t.Fatalf("nats server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(Deadline) {
		s.t.Fatal("nats server: not ready for connections")
	}
	s.srv = srv
}

// Stop shuts the server down and waits until it is down. Stopping twice is harmless.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Start starts a stopped server on the same port with the same files.
func (s *Server) Start() {
	s.t.Helper()
	s.start()
}

// Restart stops the server and starts it again; connections of Conn reconnect by themselves.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Conn returns a new connection that reconnects for ever and is closed when the test ends. Options add to that.
func (s *Server) Conn(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	all := append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.Timeout(5 * time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, opts...)
	nc, err := nats.Connect(s.URL, all...)
	if err != nil {
		s.t.Fatalf("connect to nats: %v", err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// DeleteAll deletes every stream with its consumers, as an operator's accident would.
func (s *Server) DeleteAll(ctx context.Context) {
	s.t.Helper()
	js, err := jetstream.New(s.Conn())
	if err != nil {
		s.t.Fatalf("jetstream: %v", err)
	}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			s.t.Fatalf("delete stream %s: %v", name, err)
		}
	}
	if err := names.Err(); err != nil {
		s.t.Fatalf("list streams: %v", err)
	}
}

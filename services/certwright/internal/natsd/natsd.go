// Package natsd embeds a NATS server with JetStream for the one-process form. It listens on nothing: connections are in-process.
package natsd

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// SyncInterval is how often the server syncs its files; the outbox keeps sent entries three times as long.
const SyncInterval = time.Second

// Server is a running server.
type Server struct{ srv *server.Server }

// Start starts a server whose JetStream files are in dir.
func Start(ctx context.Context, dir string) (*Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "certwright", DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, SyncInterval: SyncInterval,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 8 << 30, MaxPayload: 4 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server in %s: %w", dir, err)
	}
	go srv.Start()
	for deadline := 100; !srv.ReadyForConnections(100 * time.Millisecond); deadline-- {
		if ctx.Err() != nil || deadline == 0 {
			srv.Shutdown()
			return nil, fmt.Errorf("the embedded NATS server in %s did not start within 10 s", dir)
		}
	}
	return &Server{srv: srv}, nil
}

// Connect returns an in-process connection that never gives up.
func (s *Server) Connect(name string) (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s.srv), nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
}

// Stop shuts the server down and waits for it.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

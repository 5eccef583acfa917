// Package nats runs a NATS server with JetStream inside the process, as the external bus that several processes of
// the platform share, and can lose what is on it.
package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certwright/certwright/deployments/lab/loopback"
)

const startTimeout = 10 * time.Second

// Options of a server.
type Options struct {
	Dir          string        // JetStream's directory; it is kept
	SyncInterval time.Duration // between fsyncs; zero: the server's default of two minutes
	SyncAlways   bool          // fsync every write
	Username     string        // with Password: required of every client; empty: none
	Password     string
}

// Server is a NATS server that can be ended and started again on the same port and directory.
type Server struct {
	opts Options

	mu   sync.Mutex
	port int
	ns   *server.Server // nil while down
}

// Start runs a server on a free loopback port until Close.
func Start(o Options) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("a NATS server needs a directory")
	}
	s := &Server{opts: o, port: server.RANDOM_PORT}
	return s, s.Up()
}

// Up starts the server again after Down. It does nothing when it runs.
func (s *Server) Up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ns != nil {
		return nil
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: "lab", Host: "127.0.0.1", Port: s.port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: s.opts.Dir, SyncInterval: s.opts.SyncInterval, SyncAlways: s.opts.SyncAlways,
		Username: s.opts.Username, Password: s.opts.Password,
	})
	if err != nil {
		return fmt.Errorf("make NATS server: %w", err)
	}
	ns.Start()
	if !ns.ReadyForConnections(startTimeout) {
		ns.Shutdown()
		ns.WaitForShutdown()
		return fmt.Errorf("the NATS server was not ready within %s", startTimeout)
	}
	s.ns = ns
	s.port = loopback.PortOf(ns.Addr())
	return nil
}

// Down ends the server and keeps its directory; clients see a broken connection.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ns == nil {
		return
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	s.ns = nil
}

// Close ends the server. It is safe to call more than once.
func (s *Server) Close() error {
	s.Down()
	return nil
}

// URL is what clients connect to, with the credentials in it when there are any.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Username != "" {
		return fmt.Sprintf("nats://%s:%s@127.0.0.1:%d", s.opts.Username, s.opts.Password, s.port)
	}
	return fmt.Sprintf("nats://127.0.0.1:%d", s.port)
}

// Streams are the names of all streams, key-value buckets and object stores included.
func (s *Server) Streams(ctx context.Context) ([]string, error) {
	var names []string
	err := s.with(func(js jetstream.JetStream) error {
		list := js.StreamNames(ctx)
		for name := range list.Name() {
			names = append(names, name)
		}
		return list.Err()
	})
	return names, err
}

// DeleteStreams deletes every stream with all that is in it, consumers included: a bus that was wiped. It returns
// how many there were.
func (s *Server) DeleteStreams(ctx context.Context) (int, error) {
	names, err := s.Streams(ctx)
	if err != nil {
		return 0, err
	}
	return len(names), s.with(func(js jetstream.JetStream) error {
		for _, name := range names {
			if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				return fmt.Errorf("delete stream %s: %w", name, err)
			}
		}
		return nil
	})
}

// DeleteConsumers deletes every consumer of every stream and leaves the messages. It returns how many there were.
func (s *Server) DeleteConsumers(ctx context.Context) (int, error) {
	names, err := s.Streams(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	err = s.with(func(js jetstream.JetStream) error {
		for _, name := range names {
			stream, err := js.Stream(ctx, name)
			if err != nil {
				return fmt.Errorf("open stream %s: %w", name, err)
			}
			list := stream.ConsumerNames(ctx)
			var consumers []string
			for c := range list.Name() {
				consumers = append(consumers, c)
			}
			if err := list.Err(); err != nil {
				return fmt.Errorf("list consumers of %s: %w", name, err)
			}
			for _, c := range consumers {
				if err := stream.DeleteConsumer(ctx, c); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
					return fmt.Errorf("delete consumer %s of %s: %w", c, name, err)
				}
				n++
			}
		}
		return nil
	})
	return n, err
}

// with runs f on a connection of its own.
func (s *Server) with(f func(jetstream.JetStream) error) error {
	nc, err := natsgo.Connect(s.URL(), natsgo.Name("lab"), natsgo.NoReconnect())
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	return f(js)
}

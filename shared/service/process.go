package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/telemetry"
)

// Network is how services reach each other: pipes in one process, mutual TLS in many.
type Network interface {
	// Conn connects the service named from to the one named to.
	Conn(from, to string, o rpc.ClientOptions) (*grpc.ClientConn, error)
	// Serve answers calls to the service until ctx ends.
	Serve(ctx context.Context, name string, s *grpc.Server) error
	// ServerOptions completes the options of a service's server.
	ServerOptions(o rpc.ServerOptions) rpc.ServerOptions
}

// Timing is how patient the platform is. Zero values are the defaults; tests and simulations shorten them.
type Timing struct {
	FirstRepeat time.Duration `yaml:"first_repeat" doc:"When a fact that waits for its answer is told again for the first time; default 60s, then three times as long up to max_repeat"`
	MaxRepeat   time.Duration `yaml:"max_repeat" doc:"The longest wait between two repeats; default 1h"`
	OutboxSweep time.Duration `yaml:"outbox_sweep" doc:"How often outboxes that a crash left are looked for; default 5s"`
	Abandoned   time.Duration `yaml:"abandoned" doc:"How old an outbox entry is before it counts as left behind; default 10s"`
	Heal        time.Duration `yaml:"heal" doc:"How often projections read what changed at the owners; default 3m"`
	Lease       time.Duration `yaml:"lease" validate:"omitempty,min=2s" doc:"How long a worker's claim lasts, at least four times the clock skew between replicas; default 60s"`
	WorkerSweep time.Duration `yaml:"worker_sweep" doc:"How often workers ask the store for due documents; default 5s"`
}

// Process is what the services of one process share.
type Process struct {
	Clock     clock.Clock
	Telemetry *telemetry.Telemetry
	NATS      *nats.Conn
	// SyncInterval of the NATS server's files, see bus.Config.
	SyncInterval time.Duration
	Replicas     int
	Network      Network
	Verifier     *authz.Verifier
	// Signer signs the services' own identities (one process) and people's (gateway); nil elsewhere.
	Signer  *authz.Signer
	DataDir string
	Timing  Timing
	// OpenStore opens the store of a service.
	OpenStore func(ctx context.Context, service string) (docstore.Store, error)
	// Ready is told when a service becomes ready or stops being so; may be nil.
	Ready func(service string, ready bool)
	// Publisher stands between a service's outbox and the bus; nil: nothing does. Tests lose, double and delay facts there.
	Publisher func(service string, next outbox.Publisher) outbox.Publisher
}

// Platform makes a service's share. close ends what it opened; call it after the service's Run has returned. It is never nil.
func (pr *Process) Platform(ctx context.Context, name string) (p *Platform, closeAll func(), err error) {
	var opened closers
	p, err = pr.platform(ctx, name, &opened)
	if err != nil {
		opened.close()
		return nil, func() {}, err
	}
	return p, opened.close, nil
}

// closers ends what was opened, the last first, once.
type closers struct {
	mu     sync.Mutex
	all    []func()
	closed bool
}

// add returns false when everything has been closed already.
func (c *closers) add(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.all = append(c.all, f)
	}
	return !c.closed
}

func (c *closers) close() {
	c.mu.Lock()
	all := c.all
	c.all, c.closed = nil, true
	c.mu.Unlock()
	for _, f := range slices.Backward(all) {
		f()
	}
}

func (pr *Process) platform(ctx context.Context, name string, opened *closers) (*Platform, error) {
	logger := pr.Telemetry.Logger.With("service", name)
	dir := filepath.Join(pr.DataDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory of %s: %w", name, err)
	}
	store, err := pr.OpenStore(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("store of %s: %w", name, err)
	}
	opened.add(func() {
		if err := store.Close(); err != nil {
			logger.WarnContext(context.WithoutCancel(ctx), "store not closed cleanly", "error", err)
		}
	})
	store = faulty.New(store, faulty.Faults{})

	meter, tracer := pr.Telemetry.Meter(name), pr.Telemetry.Tracer(name)
	b, err := bus.New(ctx, bus.Config{
		Conn: pr.NATS, Source: name, Clock: pr.Clock, Logger: logger, Tracer: tracer, Meter: meter, SyncInterval: pr.SyncInterval, Replicas: pr.Replicas,
	})
	if err != nil {
		return nil, fmt.Errorf("bus of %s: %w", name, err)
	}
	var publisher outbox.Publisher = b
	if pr.Publisher != nil {
		publisher = pr.Publisher(name, b)
	}
	peers := &peers{process: pr, name: name, opened: opened, conns: map[string]*grpc.ClientConn{}}
	out := outbox.New(outbox.Config{
		Store: store, Bus: publisher, Source: name, Clock: pr.Clock, Logger: logger, Meter: meter, Audit: auditTo(identityv1.NewIdentityServiceClient(peers.to("identity"))),
		Sweep: pr.Timing.OutboxSweep, Abandoned: pr.Timing.Abandoned, FirstRepeat: pr.Timing.FirstRepeat, MaxRepeat: pr.Timing.MaxRepeat,
		Lease: pr.Timing.Lease, WorkerSweep: pr.Timing.WorkerSweep,
	})
	guard := &authz.Server{Verifier: pr.Verifier, Clock: pr.Clock}
	server := rpc.NewServer(pr.Network.ServerOptions(rpc.ServerOptions{
		Logger: logger, TracerProvider: pr.Telemetry.TracerProvider(), MeterProvider: pr.Telemetry.MeterProvider(),
		Unary: []grpc.UnaryServerInterceptor{guard.Unary, audited}, Stream: []grpc.StreamServerInterceptor{guard.Stream},
	}))
	return &Platform{
		Name: name, Clock: pr.Clock, Logger: logger, Tracer: tracer, Meter: meter, Store: store, Bus: b, Outbox: out, Server: server, Peer: peers.to,
		DataDir: dir, HealEvery: pr.Timing.Heal,
		Listen: func(ctx context.Context, s *grpc.Server) error {
			if err := authz.CheckServer(s); err != nil {
				return err
			}
			return pr.Network.Serve(ctx, name, s)
		},
		Ready: func(ready bool) {
			if pr.Ready != nil {
				pr.Ready(name, ready)
			}
		},
	}, nil
}

// peers are the connections of one service to its siblings, one each.
type peers struct {
	process *Process
	name    string
	opened  *closers

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (ps *peers) to(sibling string) grpc.ClientConnInterface {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if c, ok := ps.conns[sibling]; ok {
		return c
	}
	pr := ps.process
	id := &authz.Client{Service: ps.name, Signer: pr.Signer, Clock: pr.Clock}
	c, err := pr.Network.Conn(ps.name, sibling, rpc.ClientOptions{
		Service: sibling, TracerProvider: pr.Telemetry.TracerProvider(), MeterProvider: pr.Telemetry.MeterProvider(),
		Unary: []grpc.UnaryClientInterceptor{id.Unary}, Stream: []grpc.StreamClientInterceptor{id.Stream},
	})
	if err != nil {
		return unreachable{err}
	}
	ps.conns[sibling] = c
	if !ps.opened.add(func() { _ = c.Close() }) {
		_ = c.Close()
	}
	return c
}

// audited makes the first write under a mutating call carry the audit entry.
func audited(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if authz.RuleOf(info.FullMethod).GetMutating() {
		if p, ok := authz.FromContext(ctx); ok {
			ctx = outbox.WithCall(ctx, p.Subject, info.FullMethod)
		}
	}
	return next(ctx, req)
}

// auditTo hands audit entries to identity, which stores each id once. An entry that cannot be read is Invalid.
func auditTo(identity identityv1.IdentityServiceClient) func(context.Context, []docstore.Entry) error {
	return func(ctx context.Context, entries []docstore.Entry) error {
		records, err := outbox.Records(entries)
		if err != nil {
			return errs.New(errs.Invalid, "AUDIT_MALFORMED", "%w", err)
		}
		req := &identityv1.AppendRequest{}
		for _, r := range records {
			req.Entries = append(req.Entries, &identityv1.AuditEntry{
				Id: r.ID, Time: timestamppb.New(r.Time), Actor: r.Actor, Method: r.Method, Subject: r.Subject, Team: r.Team, TraceId: r.TraceID,
			})
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err = identity.Append(ctx, req)
		return err
	}
}

// unreachable is a peer whose address cannot be used.
type unreachable struct{ err error }

func (u unreachable) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return u.err
}

func (u unreachable) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, u.err
}

// InProcess is the network of one process: pipes.
type InProcess struct{ pipes *rpc.InProcess }

// NewInProcess makes the network of one process.
func NewInProcess() InProcess { return InProcess{pipes: rpc.NewInProcess()} }

// Conn implements Network.
func (n InProcess) Conn(_, to string, o rpc.ClientOptions) (*grpc.ClientConn, error) {
	return n.pipes.Conn(to, o)
}

// Serve implements Network.
func (n InProcess) Serve(ctx context.Context, name string, s *grpc.Server) error {
	return serveUntil(ctx, func() error { return s.Serve(n.pipes.Listen(name)) }, s)
}

// ServerOptions implements Network.
func (n InProcess) ServerOptions(o rpc.ServerOptions) rpc.ServerOptions { return o }

func serveUntil(ctx context.Context, serve func() error, s *grpc.Server) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- serve()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := rpc.Stop(grace, s)
	for range done {
		continue // that it was stopped
	}
	return err
}

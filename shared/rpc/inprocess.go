package rpc

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/test/bufconn"
)

// pipeBytes is the buffer of one in-process connection, per direction.
const pipeBytes = 256 << 10

// InProcess connects the services of one process without sockets: each listens under its name and is called by its name. A service may be
// called before it listens; the call waits until it does, or until its own deadline. A service may listen again after its server stopped.
// It is safe for concurrent use.
type InProcess struct {
	mu        sync.Mutex
	listeners map[string]*pipe
	changed   chan struct{} // closed and replaced when a listener comes
}

// NewInProcess makes an empty registry.
func NewInProcess() *InProcess {
	return &InProcess{listeners: map[string]*pipe{}, changed: make(chan struct{})}
}

// pipe is a listener that takes itself out of the registry when closed.
type pipe struct {
	*bufconn.Listener
	close func()
}

func (p *pipe) Close() error {
	p.close()
	return p.Listener.Close()
}

// Listen returns the listener of a service, to be given to (*grpc.Server).Serve, which closes it. It replaces one that was there before.
func (r *InProcess) Listen(service string) net.Listener {
	p := &pipe{Listener: bufconn.Listen(pipeBytes)}
	p.close = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.listeners[service] == p {
			delete(r.listeners, service)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners[service] = p
	close(r.changed)
	r.changed = make(chan struct{})
	return p
}

// Conn returns a connection to a service. Of o only the providers and the interceptors matter. The caller closes it.
func (r *InProcess) Conn(service string, o ClientOptions) (*grpc.ClientConn, error) {
	o.Service, o.TLS = service, nil
	return dial("passthrough:///"+service, o, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		for {
			r.mu.Lock()
			p, changed := r.listeners[service], r.changed
			r.mu.Unlock()
			if p != nil {
				return p.DialContext(ctx)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}), grpc.WithIdleTimeout(0), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second},
		MinConnectTimeout: time.Hour, // the dialer above waits; calls have deadlines of their own
	}))
}

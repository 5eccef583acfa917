package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"google.golang.org/grpc"

	"github.com/certwright/certwright/shared/rpc"
)

// Remote is the network of many processes: mutual TLS 1.3, each service known by its certificate's name "<service>.certwright".
type Remote struct {
	// Listen is the address of this process's service, host:port.
	Listen string
	// Address of every sibling, host:port.
	Address map[string]string
	Server  *tls.Config
	Client  *tls.Config
}

// Conn implements Network.
func (n *Remote) Conn(_, to string, o rpc.ClientOptions) (*grpc.ClientConn, error) {
	target, ok := n.Address[to]
	if !ok {
		return nil, fmt.Errorf("no address is configured for the service %q: set peers.%s to host:port", to, to)
	}
	o.Service, o.TLS = to, n.Client
	return rpc.Dial(target, o)
}

// Serve implements Network.
func (n *Remote) Serve(ctx context.Context, _ string, s *grpc.Server) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", n.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", n.Listen, err)
	}
	return serveUntil(ctx, func() error { return s.Serve(l) }, s)
}

// ServerOptions implements Network.
func (n *Remote) ServerOptions(o rpc.ServerOptions) rpc.ServerOptions {
	o.TLS = n.Server
	return o
}

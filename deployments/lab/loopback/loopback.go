// Package loopback hands out free ports of 127.0.0.1 to the peers of the lab.
package loopback

import (
	"fmt"
	"net"
)

// attempts is how often a port is drawn again when its other half (UDP beside TCP) is taken.
const attempts = 50

// Listen opens a TCP listener on 127.0.0.1. An empty addr draws a free port; any other must be a loopback
// address with a port.
func Listen(addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen address %q is not a loopback address", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// ListenBoth opens TCP and UDP on one and the same port, as a DNS server needs it.
func ListenBoth(addr string) (net.Listener, net.PacketConn, error) {
	var last error
	for range attempts {
		l, err := Listen(addr)
		if err != nil {
			return nil, nil, err
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, p, nil
		}
		_ = l.Close()
		last = fmt.Errorf("listen on udp %s: %w", l.Addr(), err)
		if addr != "" {
			break
		}
	}
	return nil, nil, last
}

// Port returns a port that was free for TCP and UDP a moment ago. It is for programs that can only be told a
// number; whoever can pass a listener uses Listen, which nobody can snatch.
func Port() (int, error) {
	l, p, err := ListenBoth("")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	defer func() { _ = p.Close() }()
	return PortOf(l.Addr()), nil
}

// PortOf returns the port of a TCP or UDP address, or 0.
func PortOf(a net.Addr) int {
	switch t := a.(type) {
	case *net.TCPAddr:
		return t.Port
	case *net.UDPAddr:
		return t.Port
	}
	return 0
}

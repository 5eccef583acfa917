// Package platform runs the whole product, as users do, beside the lab's CA, DNS and servers: in this process for the demo and most
// tests, or as a child process that a test may kill.
package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/telemetry"
)

// Options of a platform.
type Options struct {
	Dir string // data directory
	// HTTP01Port is where the built-in responder listens; zero: a free port.
	HTTP01Port int
	Logger     *slog.Logger // nil: warnings to standard error
	Sample     float64
	// Change edits the configuration before the start; may be nil.
	Change func(*certwright.Config)
}

// Platform is a running platform.
type Platform struct {
	*client.Client
	Running    certwright.Running
	HTTP01Port int

	stop func()
	done chan error
}

// Start starts the platform in this process and returns when every service is ready.
func Start(ctx context.Context, o Options) (*Platform, error) {
	if o.HTTP01Port == 0 {
		port, err := loopback.Port()
		if err != nil {
			return nil, err
		}
		o.HTTP01Port = port
	}
	tlsPort, err := loopback.Port()
	if err != nil {
		return nil, err
	}
	edge, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	cfg := certwright.Defaults()
	cfg.DataDir = o.Dir
	cfg.Version = "lab"
	cfg.Log.Level = "warn"
	cfg.Trace.Sample = o.Sample
	cfg.Gateway.Listener = edge
	cfg.Challenges.HTTP01Addr = fmt.Sprintf("127.0.0.1:%d", o.HTTP01Port)
	cfg.Challenges.TLSALPN01.Listen = fmt.Sprintf("127.0.0.1:%d", tlsPort)
	ready := make(chan certwright.Running, 1)
	cfg.Started = func(r certwright.Running) { ready <- r }
	if o.Change != nil {
		o.Change(&cfg)
	}
	if o.Logger != nil && cfg.Telemetry == nil {
		cfg.Telemetry, err = telemetry.New(ctx, telemetry.Config{Service: "certwright", SampleRatio: o.Sample})
		if err != nil {
			return nil, err
		}
		cfg.Telemetry.Logger = o.Logger
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &Platform{HTTP01Port: o.HTTP01Port, stop: stop, done: make(chan error, 1)}
	go func() { p.done <- certwright.Serve(running, cfg) }()
	select {
	case p.Running = <-ready:
	case err := <-p.done:
		stop()
		return nil, fmt.Errorf("the platform did not start: %w", err)
	case <-ctx.Done():
		stop()
		return nil, errors.Join(ctx.Err(), <-p.done)
	}
	p.Client, err = client.New(p.Running.Edge, p.Running.EdgeRoots, p.Running.AdminTokenFile)
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// Close stops the platform and returns what went wrong while it ran.
func (p *Platform) Close() error {
	p.stop()
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(30 * time.Second): //nolint:forbidigo // a real process stops in real time
		return fmt.Errorf("the platform did not stop within 30 s")
	}
}

// Free returns a directory under the system's temporary one, and a function that removes it.
func Free() (string, func(), error) {
	dir, err := os.MkdirTemp("", "certwright-")
	if err != nil {
		return "", nil, err
	}
	dir, err = filepath.EvalSymlinks(dir)
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// Package service is what a composition root gives every service, and how a service runs on it. The same Run function of a service is
// called by its own program and by the one-process composition.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/outbox"
)

// Platform is one service's share of the platform. Register consumers, servers and background work, then call Serve.
type Platform struct {
	Name   string
	Clock  clock.Clock
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
	Store  docstore.Store
	Bus    *bus.Bus
	Outbox *outbox.Outbox
	// Server takes the service's gRPC registrations. Listening is the composition's business, from Serve on.
	Server *grpc.Server
	// Peer connects to a sibling service under this service's own identity. It never blocks; calls fail with Unavailable while the sibling is away.
	Peer func(name string) grpc.ClientConnInterface
	// DataDir is the service's own directory for keys and the like, mode 0700.
	DataDir string
	// HealEvery is how often projections read what changed at the owners; zero: 3 min.
	HealEvery time.Duration
	// Listen starts answering on Server, and is called by Serve when everything is registered. It ends when ctx does.
	Listen func(ctx context.Context, s *grpc.Server) error
	// Ready is told whether the service works; nil is allowed.
	Ready func(ready bool)

	tasks []task
}

type task struct {
	name string
	run  func(ctx context.Context) error
}

// Go adds background work that runs from Serve on until its context ends. An error of it stops the service.
func (p *Platform) Go(name string, run func(ctx context.Context) error) {
	p.tasks = append(p.tasks, task{name: name, run: run})
}

// Heal adds a reader of an owner's changes, which reads at once whenever the bus lost its stream.
func (p *Platform) Heal(name string, read func(ctx context.Context, cursor string) (heal.Page, error)) {
	r := &heal.Reader{Name: name, Clock: p.Clock, Logger: p.Logger, Every: p.HealEvery, Read: read, Now: make(chan struct{}, 1)}
	p.Bus.OnNewStream(r.Poke)
	p.Go("heal "+name, r.Run)
}

// Serve runs the service until ctx ends or a part of it fails (a panic is a failure), and stops it in order: readiness; then intake (bus and gRPC) and
// work, each finishing what is in hand; then the outbox, which sends what those wrote. It returns the errors of what failed, joined, and when it returns
// nothing of the service runs any more. A second call is not possible.
func (p *Platform) Serve(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	relay, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()

	failed := make(chan error, len(p.tasks)+3)
	var working, relaying sync.WaitGroup
	start := func(wg *sync.WaitGroup, name string, runCtx context.Context, run func(context.Context) error) {
		wg.Go(func() {
			err := guarded(func() error { return run(runCtx) })
			if err != nil && runCtx.Err() == nil {
				failed <- fmt.Errorf("%s: %s: %w", p.Name, name, err)
			}
		})
	}
	start(&relaying, "outbox", relay, p.Outbox.Run)
	for _, t := range p.tasks {
		start(&working, t.name, work, t.run)
	}
	start(&working, "bus", work, p.Bus.Run)
	if p.Listen != nil {
		start(&working, "grpc", work, func(ctx context.Context) error { return p.Listen(ctx, p.Server) })
	}
	if p.Ready != nil {
		p.Ready(true)
	}
	p.Logger.InfoContext(ctx, "service started")

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	if p.Ready != nil {
		p.Ready(false)
	}
	stopWork()
	working.Wait()
	stopRelay()
	relaying.Wait()
	close(failed)
	for more := range failed {
		err = errors.Join(err, more)
	}
	p.Logger.InfoContext(context.WithoutCancel(ctx), "service stopped")
	return err
}

// guarded turns a panic into an error, so that the rest still stops in order.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "PANIC", "panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

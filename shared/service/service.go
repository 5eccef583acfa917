// Package service is what a composition root gives every service, and how a service runs on it. The same Run function of a service is
// called by its own program and by the one-process composition.
package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/lifecycle"
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

	tasks []lifecycle.Part
}

// Go adds background work that runs from Serve on until its context ends. An error of it stops the service.
func (p *Platform) Go(name string, run func(ctx context.Context) error) {
	p.tasks = append(p.tasks, lifecycle.Part{Name: name, Run: run})
}

// Every adds background work that is done at once and then with this pause in between. An error of it is logged, and it is done again after the pause.
func (p *Platform) Every(name string, pause time.Duration, work func(ctx context.Context) error) {
	p.Go(name, func(ctx context.Context) error {
		for {
			if err := work(ctx); err != nil && ctx.Err() == nil {
				p.Logger.WarnContext(ctx, "background work is done again later", "work", name, "error", err)
			}
			if p.Clock.Sleep(ctx, pause) != nil {
				return nil //nolint:nilerr // the service stops
			}
		}
	})
}

// Heal adds a reader of an owner's changes, which reads at once whenever the bus lost its stream.
func (p *Platform) Heal(name string, read func(ctx context.Context, cursor string) (heal.Page, error)) {
	r := &heal.Reader{Name: name, Clock: p.Clock, Logger: p.Logger, Every: p.HealEvery, Read: read, Now: make(chan struct{}, 1)}
	p.Bus.OnNewStream(r.Poke)
	p.Go("heal "+name, r.Run)
}

// Serve runs the service until ctx ends or a part of it fails (a panic is a failure), and stops it in order: readiness; then intake (bus and gRPC) and
// work, each finishing what is in hand; then the outbox, which sends what those wrote. It returns the errors of what failed, joined, and when it returns
// nothing of the service runs any more, unless the error says so. A second call is not possible.
func (p *Platform) Serve(ctx context.Context) error {
	work := append(p.tasks, lifecycle.Part{Name: "bus", Run: p.Bus.Run})
	if p.Listen != nil {
		work = append(work, lifecycle.Part{Name: "grpc", Run: func(ctx context.Context) error { return p.Listen(ctx, p.Server) }})
	}
	g := lifecycle.Group{Ready: p.Ready}
	g.Add(lifecycle.Part{Name: "outbox", Run: p.Outbox.Run})
	g.Add(work...)
	p.Logger.InfoContext(ctx, "service started")
	err := g.Run(ctx)
	p.Logger.InfoContext(context.WithoutCancel(ctx), "service stopped")
	if err != nil {
		err = fmt.Errorf("%s: %w", p.Name, err)
	}
	return err
}

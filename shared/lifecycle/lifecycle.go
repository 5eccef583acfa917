// Package lifecycle runs the parts of a service until it is told to stop or one of them fails, and then stops them in order. It never ends the
// process; main does, with the error that Run returns.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// Part works until its context ends. Before that, an error or a panic of it is a failure; to return nil is not.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
}

// Group is an ordered set of parts. Add them, then call Run once.
type Group struct {
	// Ready is told when everything was started and, before anything is stopped, that this is about to happen; may be nil.
	Ready func(ready bool)
	// StopTimeout is how long one layer may take to stop; zero means 30 s. What has not ended by then is left behind, and named in the error.
	StopTimeout time.Duration

	layers [][]Part
}

// Add adds parts that are started after those added before, and stopped, all at once, before them.
func (g *Group) Add(parts ...Part) { g.layers = append(g.layers, parts) }

// Run starts the parts, waits until ctx ends or a part fails, and stops the layers in reverse, each after the one above has ended. It returns nil after
// a clean stop that ctx asked for, else the errors of what failed, joined, the cause first.
func (g *Group) Run(ctx context.Context) (err error) {
	failed := make(chan error, len(slices.Concat(g.layers...))) // one at most from each, so no sender waits
	running := make([]*layer, 0, len(g.layers))
	for _, parts := range g.layers {
		running = append(running, start(context.WithoutCancel(ctx), parts, failed))
	}
	g.ready(true)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	g.ready(false)
	limit := g.StopTimeout
	if limit == 0 {
		limit = 30 * time.Second
	}
	for _, l := range slices.Backward(running) {
		err = errors.Join(err, l.stop(limit))
	}
	for range len(failed) {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (g *Group) ready(ready bool) {
	if g.Ready != nil {
		g.Ready(ready)
	}
}

// layer is parts that run.
type layer struct {
	cancel context.CancelFunc

	mu      sync.Mutex
	running []string
	ended   chan struct{} // closed when none is left
}

func start(ctx context.Context, parts []Part, failed chan<- error) *layer {
	ctx, cancel := context.WithCancel(ctx)
	l := &layer{cancel: cancel, ended: make(chan struct{})}
	for _, p := range parts {
		l.running = append(l.running, p.Name)
	}
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			if err := guarded(func() error { return p.Run(ctx) }); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", p.Name, err)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.running = slices.DeleteFunc(l.running, func(name string) bool { return name == p.Name })
		})
	}
	go func() {
		defer close(l.ended)
		wg.Wait()
	}()
	return l
}

func (l *layer) stop(limit time.Duration) error {
	l.cancel()
	timeout, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case <-l.ended:
		return nil
	case <-timeout.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return errs.New(errs.Timeout, "STOP_TIMEOUT", "%q had not stopped after %s", l.running, limit)
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

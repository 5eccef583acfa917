// Package lifecycle runs the parts of a process: it starts them in order, watches them, and stops them in reverse order with a
// deadline for each. It never ends the process; main does, with the error that Run returns.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// DefaultStopTimeout is how long a part may take to stop when it does not say otherwise.
const DefaultStopTimeout = 10 * time.Second

// Part is one thing with a life of its own: a store, a listener, a worker. Every function may be nil.
type Part struct {
	// Name is shown by /readyz and in errors, e.g. "store".
	Name string
	// Start returns when the part can be used by those after it. Its ctx ends only when the group gives up starting.
	Start func(ctx context.Context) error
	// Run works until its ctx ends, which happens in the part's turn to stop. Returning before that, with or without an error, is a
	// failure and stops the group.
	Run func(ctx context.Context) error
	// Stop ends the part: it returns when nothing is in flight any more, or when its ctx ends at the deadline. It is called once, and only
	// after Start returned nil. After it the ctx of Run is ended.
	Stop func(ctx context.Context) error
	// StopTimeout is the deadline for Stop and for Run to return, together. Zero means DefaultStopTimeout.
	StopTimeout time.Duration
	// Ready returns nil while the part can serve. It is asked for each /readyz and has to be quick.
	Ready func(ctx context.Context) error
}

// Group is an ordered set of parts. Add them, then call Run once. Ready and Handler may be used at any time.
type Group struct {
	log   *slog.Logger
	grace time.Duration
	clk   clock.Clock

	mu       sync.Mutex
	parts    []Part
	started  int // how many of parts have started
	stopping bool
}

// New makes an empty group. grace is how long it goes on serving after readiness went false, so that a load balancer notices; zero for
// one process on its own.
func New(log *slog.Logger, clk clock.Clock, grace time.Duration) *Group {
	return &Group{log: log, clk: clk, grace: grace}
}

// Add appends a part. It has no effect on a group that runs already.
func (g *Group) Add(p Part) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts = append(g.parts, p)
}

// failure is the end of a part's Run.
type failure struct {
	part string
	err  error
}

// running is a started part.
type running struct {
	Part
	end  context.CancelFunc // ends the ctx of Run
	done chan struct{}      // closed when Run has returned; nil without Run
}

// Run starts the parts in order, waits until ctx ends or a part fails, and stops what was started, in reverse. It returns nil after a clean
// stop that ctx asked for, else all errors joined, the cause first.
func (g *Group) Run(ctx context.Context) error {
	g.mu.Lock()
	parts := slices.Clone(g.parts)
	g.mu.Unlock()

	// Parts outlive ctx: they end in their turn, not all at once.
	base := context.WithoutCancel(ctx)
	failed := make(chan failure, len(parts))    // one at most from each, so no sender waits
	starting, giveUp := context.WithCancel(ctx) // ends also when a part fails while a later one still waits to start
	defer giveUp()
	var up []running
	var all []error

	for _, p := range parts {
		if err := g.start(starting, p); err != nil {
			if starting.Err() == nil { // else it is a consequence: of the stop that was asked for, or of a part that failed
				all = append(all, fmt.Errorf("starting %s: %w", p.Name, err))
				giveUp()
			}
			break
		}
		up = append(up, g.launch(base, p, failed, giveUp))
		g.mu.Lock()
		g.started++
		g.mu.Unlock()
		if starting.Err() != nil {
			break
		}
	}
	if len(up) == len(parts) && starting.Err() == nil {
		g.log.InfoContext(ctx, "started")
	}
	<-starting.Done()
	select {
	case f := <-failed:
		all = append(all, fmt.Errorf("%s failed: %w", f.part, f.err))
		g.log.ErrorContext(ctx, "a part failed, stopping", "part", f.part, "error", f.err.Error())
	default:
	}

	g.mu.Lock()
	g.stopping = true
	g.mu.Unlock()
	if ctx.Err() != nil && len(all) == 0 && g.grace > 0 {
		_ = g.clk.Sleep(base, g.grace)
	}
	for _, r := range slices.Backward(up) {
		if err := stop(base, r); err != nil {
			all = append(all, fmt.Errorf("stopping %s: %w", r.Name, err))
			g.log.WarnContext(base, "a part did not stop cleanly", "part", r.Name, "error", err.Error())
		}
	}
	for range len(failed) { // failures that came while stopping
		if f := <-failed; !slices.ContainsFunc(all, func(e error) bool { return errors.Is(e, f.err) }) {
			all = append(all, fmt.Errorf("%s failed: %w", f.part, f.err))
		}
	}
	g.log.InfoContext(base, "stopped")
	return errors.Join(all...)
}

func (g *Group) start(ctx context.Context, p Part) error {
	if p.Start == nil {
		return nil
	}
	return guarded(func() error { return p.Start(ctx) })
}

// launch starts the Run of a part. A failure is put into failed before giveUp is called.
func (g *Group) launch(base context.Context, p Part, failed chan<- failure, giveUp func()) running {
	r := running{Part: p, end: func() {}}
	if p.Run == nil {
		return r
	}
	ctx, end := context.WithCancel(base)
	r.end, r.done = end, make(chan struct{})
	go func() {
		defer close(r.done)
		err := guarded(func() error { return p.Run(ctx) })
		switch {
		case ctx.Err() == nil && err == nil:
			failed <- failure{p.Name, errs.New(errs.Internal, "", "it ended without being asked to")}
			giveUp()
		case err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())):
			failed <- failure{p.Name, err}
			giveUp()
		}
	}()
	return r
}

// stop ends one part and waits for it, until its deadline. A part that ignores the deadline is left behind.
func stop(base context.Context, r running) error {
	limit := r.StopTimeout
	if limit <= 0 {
		limit = DefaultStopTimeout
	}
	ctx, cancel := context.WithTimeout(base, limit)
	defer cancel()
	defer r.end()
	late := errs.New(errs.Timeout, "STOP_TIMEOUT", "it had not stopped after %s", limit)

	if r.Stop != nil {
		stopped := make(chan error, 1)
		go func() { stopped <- guarded(func() error { return r.Stop(ctx) }) }()
		select {
		case err := <-stopped:
			if err != nil {
				r.end()
				return err
			}
		case <-ctx.Done():
			return late
		}
	}
	r.end()
	if r.done == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return late
	}
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

// Ready reports whether everything has started, nothing is stopping, and every part says it is ready; else the names still waited for, with
// what they say. A group that stops waits for "(stopping)".
func (g *Group) Ready(ctx context.Context) (ready bool, waiting []string) {
	g.mu.Lock()
	parts, started, stopping := slices.Clone(g.parts), g.started, g.stopping
	g.mu.Unlock()
	if stopping {
		return false, []string{"(stopping)"}
	}
	for i, p := range parts {
		if i >= started {
			waiting = append(waiting, p.Name)
			continue
		}
		if p.Ready == nil {
			continue
		}
		if err := guarded(func() error { return p.Ready(ctx) }); err != nil {
			line, _, _ := strings.Cut(err.Error(), "\n")
			waiting = append(waiting, p.Name+": "+line)
		}
	}
	return len(waiting) == 0, waiting
}

// Handler answers /readyz: 200 "ready", or 503 and a line for each name still waited for.
func (g *Group) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		ready, waiting := g.Ready(r.Context())
		if ready {
			_, _ = w.Write([]byte("ready\n"))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("waiting for:\n  " + strings.Join(waiting, "\n  ") + "\n"))
	})
}

// Await calls probe until it returns nil, ever less often (200 ms to 5 s), and says once what it waits for and once that it came. It returns
// nil, ctx's error, or an error of probe that trying again cannot mend (errs.Transient). It is what a Start uses to wait for another part
// of the system that may come later.
func Await(ctx context.Context, clk clock.Clock, log *slog.Logger, what string, probe func(context.Context) error) error {
	said := false
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := probe(ctx)
		switch {
		case err == nil:
			if said {
				log.InfoContext(ctx, "what was waited for is there", "waiting_for", what)
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errs.Transient(err):
			return err
		}
		if !said {
			log.WarnContext(ctx, "waiting", "waiting_for", what, "error", err.Error())
			said = true
		}
		if err := clk.Sleep(ctx, pause); err != nil {
			return err
		}
	}
}

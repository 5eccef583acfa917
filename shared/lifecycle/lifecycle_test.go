package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// journal is an ordered list of what happened.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name:  name,
		Start: func(context.Context) error { j.add("start " + name); return nil },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			j.add("end " + name)
			return ctx.Err()
		},
		Stop: func(context.Context) error { j.add("stop " + name); return nil },
	}
}

func run(ctx context.Context, g *lifecycle.Group) <-chan error {
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	return done
}

func isReady(g *lifecycle.Group) func() bool {
	return func() bool { ok, _ := g.Ready(context.Background()); return ok }
}

const deadline, tick = 5 * time.Second, time.Millisecond

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	var j journal
	g := lifecycle.New(quiet, clock.System(), 0)
	for _, n := range []string{"store", "bus", "edge"} {
		g.Add(j.part(n))
	}
	ready, waiting := g.Ready(t.Context())
	require.False(t, ready)
	require.Equal(t, []string{"store", "bus", "edge"}, waiting)

	ctx, cancel := context.WithCancel(t.Context())
	done := run(ctx, g)
	require.Eventually(t, isReady(g), deadline, tick)
	cancel()
	require.NoError(t, <-done)
	require.Equal(t, []string{
		"start store", "start bus", "start edge",
		"stop edge", "end edge", "stop bus", "end bus", "stop store", "end store",
	}, j.all())
	ready, waiting = g.Ready(t.Context())
	require.False(t, ready)
	require.Equal(t, []string{"(stopping)"}, waiting)
}

func TestReadinessGoesFalseBeforeAnythingStopsAndTheGraceIsKept(t *testing.T) {
	var j journal
	clk := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	g := lifecycle.New(quiet, clk, 5*time.Second)
	g.Add(j.part("edge"))
	ctx, cancel := context.WithCancel(t.Context())
	done := run(ctx, g)
	require.Eventually(t, isReady(g), deadline, tick)
	cancel()
	require.Eventually(t, func() bool { return !isReady(g)() }, deadline, tick)
	require.Equal(t, []string{"start edge"}, j.all(), "still serving")
	require.Eventually(t, func() bool {
		clk.Advance(time.Second)
		select {
		case err := <-done:
			done = nil
			return err == nil
		default:
			return false
		}
	}, deadline, tick)
	require.Contains(t, j.all(), "stop edge")
}

func TestTheFirstFailureStopsAll(t *testing.T) {
	broken, dirty := errors.New("broken"), errors.New("dirty")
	for _, c := range []struct {
		name  string
		bad   func(*lifecycle.Part)
		want  []error
		says  string
		order []string
	}{
		{
			name: "a part that cannot start stops those before it and starts none after it",
			bad:  func(p *lifecycle.Part) { p.Start = func(context.Context) error { return broken } },
			want: []error{broken}, says: "starting bad", order: []string{"start store", "stop store", "end store"},
		},
		{
			name: "a part that fails later stops all",
			bad:  func(p *lifecycle.Part) { p.Run = func(context.Context) error { return broken } },
			want: []error{broken}, says: "bad failed",
		},
		{
			name: "a part that ends unasked stops all",
			bad:  func(p *lifecycle.Part) { p.Run = func(context.Context) error { return nil } },
			says: "ended without being asked",
		},
		{
			name: "a panic is an error, and the rest stops in order",
			bad:  func(p *lifecycle.Part) { p.Run = func(context.Context) error { panic("oh") } },
			says: "panic: oh",
		},
		{
			name: "a panic at start is an error",
			bad:  func(p *lifecycle.Part) { p.Start = func(context.Context) error { panic("oh") } },
			says: "panic: oh",
		},
		{
			name: "the errors of stopping are joined to the cause",
			bad: func(p *lifecycle.Part) {
				p.Run = func(context.Context) error { return broken }
				p.Stop = func(context.Context) error { return dirty }
			},
			want: []error{broken, dirty}, says: "stopping bad",
		},
		{
			name: "a part that does not stop is left behind at its deadline",
			bad: func(p *lifecycle.Part) {
				p.Start = func(context.Context) error { return nil }
				p.Run = func(context.Context) error { return broken }
				p.Stop = func(ctx context.Context) error { <-ctx.Done(); <-t.Context().Done(); return nil }
				p.StopTimeout = 10 * time.Millisecond
			},
			want: []error{broken}, says: "had not stopped after 10ms",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j journal
			g := lifecycle.New(quiet, clock.System(), time.Hour) // no grace for a failure
			g.Add(j.part("store"))
			bad := j.part("bad")
			c.bad(&bad)
			g.Add(bad)
			g.Add(j.part("edge"))
			err := <-run(t.Context(), g)
			require.Error(t, err)
			for _, w := range c.want {
				require.ErrorIs(t, err, w)
			}
			require.ErrorContains(t, err, c.says)
			if c.order != nil {
				require.Equal(t, c.order, j.all())
			}
			require.Contains(t, j.all(), "stop store")
		})
	}
}

func TestAStopDuringTheStartIsClean(t *testing.T) {
	var j journal
	g := lifecycle.New(quiet, clock.System(), 0)
	g.Add(j.part("store"))
	g.Add(lifecycle.Part{Name: "bus", Start: func(ctx context.Context) error {
		j.add("waiting")
		<-ctx.Done()
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := run(ctx, g)
	require.Eventually(t, func() bool { return slices.Contains(j.all(), "waiting") }, deadline, tick)
	_, waiting := g.Ready(t.Context())
	require.Equal(t, []string{"bus"}, waiting)
	cancel()
	require.NoError(t, <-done)
	require.Contains(t, j.all(), "stop store")
}

func TestAFailureEndsTheStartOfThePartsAfterIt(t *testing.T) {
	broken := errors.New("broken")
	g := lifecycle.New(quiet, clock.System(), 0)
	waiting := make(chan struct{})
	g.Add(lifecycle.Part{Name: "store", Run: func(context.Context) error { <-waiting; return broken }})
	g.Add(lifecycle.Part{Name: "bus", Start: func(ctx context.Context) error {
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	}})
	err := <-run(t.Context(), g)
	require.EqualError(t, err, "store failed: broken")
}

func TestReadyzNamesWhatIsWaitedFor(t *testing.T) {
	g := lifecycle.New(quiet, clock.System(), 0)
	var mu sync.Mutex
	err := errors.New("no connection\ndetails")
	g.Add(lifecycle.Part{Name: "bus", Ready: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := run(ctx, g)
	get := func() (int, string) {
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	require.Eventually(t, func() bool { _, text := get(); return text == "waiting for:\n  bus: no connection\n" }, deadline, tick)
	code, _ := get()
	require.Equal(t, http.StatusServiceUnavailable, code)
	mu.Lock()
	err = nil
	mu.Unlock()
	code, text := get()
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", text)
	cancel()
	require.NoError(t, <-done)
}

func TestAwait(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	clk := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	tries := 0
	probe := func(context.Context) error {
		tries++
		if tries < 4 {
			return errs.New(errs.Unavailable, "", "refused")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- lifecycle.Await(ctx, clk, log, "nats", probe) }()
	var got error
	require.Eventually(t, func() bool {
		clk.Advance(10 * time.Second)
		select {
		case got = <-done:
			return true
		default:
			return false
		}
	}, deadline, tick)
	require.NoError(t, got)
	require.Equal(t, 4, tries)
	require.Equal(t, 1, bytes.Count(out.Bytes(), []byte("msg=waiting")), "said once")
	require.Contains(t, out.String(), "waiting_for=nats")

	final := errs.New(errs.Precondition, "KEK_FOREIGN", "no")
	require.ErrorIs(t, lifecycle.Await(ctx, clk, quiet, "x", func(context.Context) error { return final }), final)
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, lifecycle.Await(ended, clk, quiet, "x", func(context.Context) error { return errors.New("x") }), context.Canceled)
}

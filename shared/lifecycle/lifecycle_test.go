package lifecycle_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal records what happened in which order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// part works until it is stopped.
func (j *journal) part(name string) lifecycle.Part {
	return lifecycle.Part{Name: name, Run: func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " stopped")
		return ctx.Err() // of a stop that was asked for: no failure
	}}
}

func TestALayerStopsAfterThoseAboveIt(t *testing.T) {
	var j journal
	ctx, stop := context.WithCancel(t.Context())
	g := lifecycle.Group{Ready: func(ready bool) {
		if ready {
			j.add("ready")
			stop()
		} else {
			j.add("not ready")
		}
	}}
	g.Add(j.part("relay"))
	g.Add(j.part("work"), lifecycle.Part{Name: "once", Run: func(context.Context) error { return nil }})
	g.Add(j.part("intake"))
	require.NoError(t, g.Run(ctx))
	require.Equal(t, []string{"ready", "not ready", "intake stopped", "work stopped", "relay stopped"}, j.lines)
}

func TestAFailureStopsTheRestAndErrorsAreJoined(t *testing.T) {
	cause := errors.New("the disk is full")
	for name, fail := range map[string]func() error{
		"an error": func() error { return cause },
		"a panic":  func() error { panic(cause) },
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			var g lifecycle.Group
			g.Add(j.part("relay"))
			g.Add(lifecycle.Part{Name: "writer", Run: func(context.Context) error { return fail() }})
			err := g.Run(t.Context())
			require.ErrorContains(t, err, "writer: ")
			require.ErrorContains(t, err, cause.Error())
			require.Equal(t, []string{"relay stopped"}, j.lines)
		})
	}
}

func TestAPartThatDoesNotStopIsNamedAndLeftBehind(t *testing.T) {
	release := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var j journal
	g := lifecycle.Group{StopTimeout: 10 * time.Millisecond}
	g.Add(j.part("relay"))
	g.Add(j.part("quick"), lifecycle.Part{Name: "deaf", Run: func(context.Context) error { <-release; return nil }})
	err := g.Run(ctx)
	close(release)
	require.Equal(t, "STOP_TIMEOUT", errs.ReasonOf(err))
	require.ErrorContains(t, err, `["deaf"] had not stopped after 10ms`)
	require.Equal(t, []string{"quick stopped", "relay stopped"}, j.lines)
}

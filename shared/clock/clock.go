// Package clock is the only place that reads the time or waits. Everything else is given a Clock, so that a
// year of a fleet can be simulated in a second.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and waits. Now is UTC, truncated to milliseconds, so that it survives every store unchanged.
type Clock interface {
	Now() time.Time
	// Sleep waits for d or until ctx ends, whichever is first, and returns ctx's error in the second case.
	Sleep(ctx context.Context, d time.Duration) error
	// After sends once when d has passed. Stop releases the timer; it is safe to call it more than once.
	After(d time.Duration) (c <-chan time.Time, stop func())
}

// Never is the due time of a document with nothing due.
var Never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// System is the machine's wall clock.
func System() Clock { return system{} }

type system struct{}

func (system) Now() time.Time { return Normal(time.Now()) }

func (s system) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, s, d) }

func (system) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Normal brings t to the form that is stored: UTC, milliseconds, no monotonic reading.
func Normal(t time.Time) time.Time { return t.Round(0).UTC().Truncate(time.Millisecond) }

func sleep(ctx context.Context, c Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	done, stop := c.After(d)
	defer stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

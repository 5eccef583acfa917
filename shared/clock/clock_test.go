package clock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)

func TestNormalIsWhatEveryStoreKeeps(t *testing.T) {
	local := time.Date(2026, 1, 2, 3, 4, 5, 6_789_012, time.FixedZone("x", 3600))
	require.Equal(t, time.Date(2026, 1, 2, 2, 4, 5, 6_000_000, time.UTC), clock.Normal(local))
	now := clock.System().Now()
	require.Equal(t, clock.Normal(now), now)
	require.Equal(t, time.UTC, now.Location())
	require.WithinDuration(t, time.Now(), now, time.Minute)
}

func TestSleepEndsWithTheTimeOrTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended, end := context.WithCancel(t.Context())
	end()
	for name, c := range map[string]clock.Clock{"system": clock.System(), "fake": clock.NewFake(start)} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, c.Sleep(ctx, 0))
			require.NoError(t, c.Sleep(ctx, -time.Second))
			require.ErrorIs(t, c.Sleep(ended, 0), context.Canceled)
			require.ErrorIs(t, c.Sleep(ended, time.Hour), context.Canceled)
		})
	}
	require.NoError(t, clock.System().Sleep(ctx, time.Millisecond))
}

func TestAfterSendsOnceAndStopIsSafeTwice(t *testing.T) {
	done, stop := clock.System().After(time.Millisecond)
	select {
	case <-done:
	case <-t.Context().Done():
	}
	stop()
	stop()
}

func fired(c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTheFakeMovesOnlyWhenTold(t *testing.T) {
	f := clock.NewFake(start)
	require.Equal(t, start, f.Now())
	soon, _ := f.After(time.Second)
	late, stop := f.After(time.Minute)
	never, stopNever := f.After(time.Minute)
	at, stopAt := f.After(0)
	require.True(t, fired(at))
	stopAt()
	stopNever()
	stopNever()

	f.Advance(time.Second - time.Millisecond)
	require.False(t, fired(soon))
	f.Advance(time.Millisecond)
	require.True(t, fired(soon))
	require.False(t, fired(late))
	require.Equal(t, start.Add(time.Second), f.Now())

	f.Advance(time.Hour)
	require.True(t, fired(late))
	require.False(t, fired(never), "stopped")
	stop()
	f.Advance(time.Hour)
	require.False(t, fired(soon), "once")
}

func TestAFakeSleeperWakesWhenTheTimeCame(t *testing.T) {
	f := clock.NewFake(start)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	woken := make(chan error, 1)
	go func() { woken <- f.Sleep(ctx, time.Hour) }()
	require.Eventually(t, func() bool {
		f.Advance(time.Hour)
		select {
		case err := <-woken:
			return err == nil
		default:
			return false
		}
	}, 10*time.Second, time.Millisecond)
}

func TestNeverIsAfterEverything(t *testing.T) {
	require.Equal(t, clock.Normal(clock.Never), clock.Never)
	require.True(t, clock.Never.After(start.AddDate(1000, 0, 0)))
}

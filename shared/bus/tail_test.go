package bus_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

// tailing runs Tail in the background.
type tailing struct {
	recorder
	cancel context.CancelFunc
	done   chan error
}

func startTail(t *testing.T, b *bus.Bus, o bus.TailOptions) *tailing {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tl := &tailing{cancel: cancel, done: make(chan error, 1)}
	go func() { tl.done <- b.Tail(ctx, o, func(e bus.Event) error { return tl.handle(ctx, e) }) }()
	t.Cleanup(cancel)
	return tl
}

func TestTail(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	other := deleted(t, "three", "ord_1")
	other.Type = "order.issued"
	publish(t, b, deleted(t, "one", "crt_1").Entry(), deleted(t, "two", "crt_1").Entry(), other.Entry())
	for _, row := range []struct {
		name    string
		options bus.TailOptions
		want    []string
	}{
		{"everything from the beginning", bus.TailOptions{}, []string{"one", "two", "three"}},
		{"from a sequence on", bus.TailOptions{FromSequence: 2}, []string{"two", "three"}},
		{"one type", bus.TailOptions{Types: []string{"order.issued"}}, []string{"three"}},
		{"two types", bus.TailOptions{Types: []string{"order.issued", "certificate.deleted"}, FromSequence: 2}, []string{"two", "three"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tl := startTail(t, b, row.options)
			testkit.Eventually(t, tl.has(row.want...), "not all came")
			tl.cancel()
			require.NoError(t, <-tl.done)
			require.Equal(t, row.want, tl.ids())
			require.Equal(t, b.StreamEpoch(), tl.events[0].StreamEpoch)
			require.Equal(t, uint64(3), tl.events[len(tl.events)-1].Sequence)
		})
	}
	t.Run("a position that the stream never had is unknown", func(t *testing.T) {
		err := b.Tail(t.Context(), bus.TailOptions{FromSequence: 5}, func(bus.Event) error { return nil })
		require.ErrorIs(t, err, errs.New(errs.Precondition, "EVENT_POSITION_UNKNOWN", "x"))
	})
	t.Run("a position that the stream dropped is unknown", func(t *testing.T) {
		stream, err := jsOf(t, s).Stream(t.Context(), bus.Stream)
		require.NoError(t, err)
		require.NoError(t, stream.DeleteMsg(t.Context(), 1))
		err = b.Tail(t.Context(), bus.TailOptions{FromSequence: 1}, func(bus.Event) error { return nil })
		require.ErrorIs(t, err, errs.New(errs.Precondition, "EVENT_POSITION_UNKNOWN", "x"))
	})
	t.Run("an error of the callback ends it", func(t *testing.T) {
		full := errs.New(errs.Unavailable, "FULL", "full")
		require.ErrorIs(t, b.Tail(t.Context(), bus.TailOptions{}, func(bus.Event) error { return full }), full)
	})
}

func TestTailSinceNowSurvivesARestartAndEndsWithTheStream(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	b := open(t, s)
	run(t, b)
	publish(t, b, deleted(t, "old", "crt_1").Entry())
	tl := startTail(t, b, bus.TailOptions{SinceNow: true})
	// Publish until the tail hears, since nobody says when it began.
	var n int
	testkit.Eventually(t, func() bool {
		n++
		publish(t, b, deleted(t, "tick"+string(rune('a'+n%26))+"-"+t.Name()+string(rune('0'+n/26)), "crt_1").Entry())
		return len(tl.ids()) > 0
	}, "it hears nothing")
	require.Zero(t, tl.count("old"))

	s.Restart()
	publishSoon(t, b, deleted(t, "after", "crt_1").Entry())
	testkit.Eventually(t, tl.has("after"), "it did not survive")
	require.Equal(t, 1, tl.count("after"))

	s.DeleteAll(t.Context())
	require.ErrorIs(t, <-tl.done, errs.New(errs.Precondition, "STREAM_RENEWED", "x"))
}

package bus

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/errs"
)

func TestEveryKindHasAnOutcome(t *testing.T) {
	require.Len(t, outcomes, len(errs.Kinds()))
	for _, kind := range errs.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			row, ok := outcomes[kind]
			require.True(t, ok, "no row")
			require.NotEqual(t, ack, row.act, "an error is never acknowledged")
			if errs.Transient(errs.New(kind, "", "x")) {
				require.Equal(t, retry, row.act, "what another try may mend is tried again")
			}
			act, delay := decide(errs.New(kind, "", "x"), 1, 20)
			require.Equal(t, row.act, act)
			if act == retry {
				require.Positive(t, delay, "a retry is never immediate")
				require.LessOrEqual(t, row.first, row.most)
			}
			act, _ = decide(errs.New(kind, "", "x"), 20, 20)
			require.Equal(t, dead, act, "the last delivery ends as a dead letter")
		})
	}
}

func TestDecide(t *testing.T) {
	unavailable := errs.New(errs.Unavailable, "", "x")
	for _, row := range []struct {
		name      string
		err       error
		delivered int
		act       action
		delay     time.Duration
	}{
		{"no error is acknowledged", nil, 1, ack, 0},
		{"the first retry waits the first delay", unavailable, 1, retry, time.Second},
		{"each further retry waits twice as long", unavailable, 4, retry, 8 * time.Second},
		{"the delay has a ceiling", unavailable, 19, retry, 5 * time.Minute},
		{"a longer RetryAfter is honoured", unavailable.WithRetryAfter(time.Hour), 1, retry, time.Hour},
		{"a shorter RetryAfter does not shorten the delay", unavailable.WithRetryAfter(time.Second), 4, retry, 8 * time.Second},
		{"an untyped error is Internal and retried", errors.New("boom"), 1, retry, time.Second},
		{"what is not found is retried a short while", errs.New(errs.NotFound, "", "x"), 6, retry, 30 * time.Second},
		{"what is not found is then given up", errs.New(errs.NotFound, "", "x"), 7, dead, 0},
		{"an invalid fact is given up at once", errs.New(errs.Invalid, "", "x"), 1, dead, 0},
		{"the last delivery is given up", unavailable, 20, dead, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			act, delay := decide(row.err, row.delivered, 20)
			require.Equal(t, row.act, act)
			require.Equal(t, row.delay, delay)
		})
	}
}

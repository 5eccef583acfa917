package app_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/shared/clock"
)

// An account may be enabled, or a value wanted, right while a step is about to fail: the failure must not put that off.
func TestWhatWasMendedDuringAStepIsNotPutOffByIt(t *testing.T) {
	b := newBench(t)
	b.tell(wanted("chl_a", "v"))
	var rests app.SetDoc
	for rests = b.rest(); !rests.Body.Troubled; rests = b.rest() {
	}
	step, err := b.app.Step(t.Context(), rests) // there is no account
	require.NoError(t, err)

	same := rests
	_, err = step.Apply(&same)
	require.NoError(t, err)
	require.True(t, same.WorkAt.After(b.clock.Now()) && same.WorkAt.Before(clock.Never))

	woken := rests
	woken.Revision++
	_, err = step.Apply(&woken)
	require.NoError(t, err)
	require.Equal(t, b.clock.Now(), woken.WorkAt)
	require.True(t, woken.Body.Troubled)
}

package rpc_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/rpc"
)

func TestAMomentThatIsNoneDoesNotTravel(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, at, rpc.Stamp(at).AsTime())
	require.Nil(t, rpc.Stamp(time.Time{}))
	require.Nil(t, rpc.Stamp(clock.Never))
}

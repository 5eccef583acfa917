package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/certwright/certwright/shared/clock"
)

// Stamp is a moment as it travels: nil for the zero one and for clock.Never.
func Stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Equal(clock.Never) {
		return nil
	}
	return timestamppb.New(t)
}

package bus_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
)

func TestARoutedConsumerGetsItsFactsDecoded(t *testing.T) {
	var heard []string
	c := bus.Routed("keys-outcomes",
		bus.On(func(_ context.Context, e bus.Event, m *certificateeventsv1.Deleted) error {
			heard = append(heard, e.Team+" "+m.GetCertificateId())
			return nil
		}),
		bus.On(func(context.Context, bus.Event, *ordereventsv1.Failed) error {
			return errs.New(errs.Conflict, "", "busy")
		}),
	)
	require.Equal(t, "keys-outcomes", c.Name)
	require.Equal(t, []string{certificateeventsv1.TypeDeleted, ordereventsv1.TypeFailed}, c.Types)
	for _, row := range []struct {
		name, eventType, data string
		kind                  errs.Kind
	}{
		{"a fact goes to its route", certificateeventsv1.TypeDeleted, `{"certificateId":"crt_1"}`, 0},
		{"what a route says is the answer", ordereventsv1.TypeFailed, `{}`, errs.Conflict},
		{"a fact that cannot be read reaches no route", certificateeventsv1.TypeDeleted, `[]`, errs.Invalid},
		{"a fact that an older version asked for is taken and left", certificateeventsv1.TypeIssued, `{}`, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := c.Handle(t.Context(), bus.Event{Type: row.eventType, Team: "web", Data: []byte(row.data)})
			if row.kind == 0 {
				require.NoError(t, err)
				return
			}
			require.Equal(t, row.kind, errs.KindOf(err))
		})
	}
	require.Equal(t, []string{"web crt_1"}, heard)
}

// Package consumer hears the facts that the dns service acts on. It decodes and calls; it has no rules.
package consumer

import (
	"context"

	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/shared/bus"
)

// Records hears what challenges want in the DNS.
func Records(a *app.App) bus.Consumer {
	return bus.Routed("dns-records",
		bus.On(func(ctx context.Context, e bus.Event, m *challengeeventsv1.RecordWanted) error {
			return a.RecordWanted(ctx, e.Team, m.GetChallengeId(), m.GetFqdn(), m.GetValue(), m.GetDnsAccountId())
		}),
		bus.On(func(ctx context.Context, e bus.Event, m *challengeeventsv1.RecordUnwanted) error {
			return a.RecordUnwanted(ctx, e.Team, m.GetChallengeId(), m.GetFqdn(), m.GetValue())
		}),
	)
}

// Package consumer brings the facts that orders hears to its use cases.
package consumer

import (
	"cmp"
	"context"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	chalev "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
)

// New returns the consumer of the saga's inputs.
func New(a *app.App) bus.Consumer {
	return bus.Routed("orders-saga",
		bus.On(func(ctx context.Context, e bus.Event, m *certev.Requested) error { return a.Requested(ctx, m, team(e)) }),
		bus.On(func(ctx context.Context, e bus.Event, m *certev.SpecChanged) error {
			return a.Unwanted(ctx, m.GetCertificateId(), m.GetOrderId(), team(e), "spec_changed")
		}),
		bus.On(func(ctx context.Context, e bus.Event, m *certev.Deleted) error {
			return a.Unwanted(ctx, m.GetCertificateId(), m.GetOrderId(), team(e), "deleted")
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *certev.VersionAdded) error {
			return a.Answered(ctx, m.GetVersion().GetOrderId(), m.GetVersion().GetVersionId())
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *certev.VersionRefused) error {
			return a.Answered(ctx, m.GetOrderId(), "")
		}),
		bus.On(func(ctx context.Context, e bus.Event, m *certev.RevocationRequested) error {
			return a.RevocationRequested(ctx, m, e.ID, team(e))
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *chalev.Presented) error { return a.Presented(ctx, m) }),
		bus.On(func(ctx context.Context, _ bus.Event, m *chalev.ActionRequired) error {
			return a.ActionRequired(ctx, m)
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *chalev.Failed) error { return a.ChallengeFailed(ctx, m) }),
	)
}

func team(e bus.Event) string { return cmp.Or(e.Team, authz.DefaultTeam) }

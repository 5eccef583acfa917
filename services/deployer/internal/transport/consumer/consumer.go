// Package consumer takes the facts that deployer acts on from the bus to the use cases.
package consumer

import (
	"context"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/services/deployer/internal/app"
	"github.com/certwright/certwright/shared/bus"
)

// New returns the consumer of the facts that change what is to be served.
func New(a *app.App) bus.Consumer {
	return bus.Routed("deployer-versions",
		bus.On(func(ctx context.Context, e bus.Event, m *certificateeventsv1.VersionAdded) error {
			if m.GetState() != "current" {
				return nil
			}
			return a.VersionCurrent(ctx, m.GetCertificateId(), e.Team, m.GetVersion().GetVersionId(), m.GetVersion().GetNumber())
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *certificateeventsv1.VersionRevoked) error {
			return a.VersionRevoked(ctx, m.GetVersion().GetVersionId())
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *certificateeventsv1.Deleted) error {
			return a.CertificateDeleted(ctx, m.GetCertificateId())
		}),
	)
}

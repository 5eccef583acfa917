// Package consumer takes the facts that keys acts on from the bus to the use cases.
package consumer

import (
	"context"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/keys/internal/app"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/bus"
)

// New returns the consumer of the facts that decide a key's life.
func New(a *app.App) bus.Consumer {
	return bus.Routed("keys-outcomes",
		bus.On(func(ctx context.Context, _ bus.Event, m *certificateeventsv1.VersionAdded) error {
			return a.VersionAdded(ctx, keyOf(m.GetVersion()), domain.Version{
				ID: m.GetVersion().GetVersionId(), Number: m.GetVersion().GetNumber(), Unneeded: m.GetState() == "unneeded",
			})
		}),
		ended[certificateeventsv1.VersionRefused](a, domain.VersionRefused),
		bus.On(func(ctx context.Context, _ bus.Event, m *certificateeventsv1.VersionRevoked) error {
			return a.VersionRevoked(ctx, keyOf(m.GetVersion()), m.GetReason())
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *certificateeventsv1.Deleted) error {
			return a.CertificateDeleted(ctx, m.GetCertificateId())
		}),
		ended[ordereventsv1.Failed](a, domain.OrderEnded),
		ended[ordereventsv1.Rejected](a, domain.OrderEnded),
		ended[ordereventsv1.Cancelled](a, domain.OrderEnded),
	)
}

// ended takes a fact that says that an order ended without a version.
func ended[M any, P interface {
	bus.Message[M]
	GetOrderId() string
	GetCertificateId() string
}](a *app.App, reason string) bus.Route {
	return bus.On(func(ctx context.Context, e bus.Event, m P) error {
		return a.OrderEnded(ctx, app.Outcome{OrderID: m.GetOrderId(), CertificateID: m.GetCertificateId(), Team: e.Team, Reason: reason})
	})
}

// keyOf is the key of a version: the one it names, else the one its order would have.
func keyOf(v *typesv1.VersionFacts) string {
	if v.GetKeyId() != "" {
		return v.GetKeyId()
	}
	return app.KeyID(v.GetOrderId())
}

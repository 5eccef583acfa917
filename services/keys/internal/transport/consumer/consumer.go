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
	return bus.Consumer{
		Name: "keys-outcomes",
		Types: []string{
			certificateeventsv1.TypeVersionAdded, certificateeventsv1.TypeVersionRefused, certificateeventsv1.TypeVersionRevoked,
			certificateeventsv1.TypeDeleted, ordereventsv1.TypeFailed, ordereventsv1.TypeRejected, ordereventsv1.TypeCancelled,
		},
		Handle: func(ctx context.Context, e bus.Event) error { return handle(ctx, a, e) },
	}
}

func handle(ctx context.Context, a *app.App, e bus.Event) error {
	ended := func(orderID, certificateID, reason string) error {
		return a.OrderEnded(ctx, app.Outcome{OrderID: orderID, CertificateID: certificateID, Team: e.Team, Reason: reason})
	}
	switch e.Type {
	case certificateeventsv1.TypeVersionAdded:
		var m certificateeventsv1.VersionAdded
		if err := e.Decode(&m); err != nil {
			return err
		}
		return a.VersionAdded(ctx, keyOf(m.GetVersion()), domain.Version{
			ID: m.GetVersion().GetVersionId(), Number: m.GetVersion().GetNumber(), Unneeded: m.GetState() == "unneeded",
		})
	case certificateeventsv1.TypeVersionRefused:
		var m certificateeventsv1.VersionRefused
		if err := e.Decode(&m); err != nil {
			return err
		}
		return ended(m.GetOrderId(), m.GetCertificateId(), domain.VersionRefused)
	case certificateeventsv1.TypeVersionRevoked:
		var m certificateeventsv1.VersionRevoked
		if err := e.Decode(&m); err != nil {
			return err
		}
		return a.VersionRevoked(ctx, keyOf(m.GetVersion()), m.GetReason())
	case certificateeventsv1.TypeDeleted:
		var m certificateeventsv1.Deleted
		if err := e.Decode(&m); err != nil {
			return err
		}
		return a.CertificateDeleted(ctx, m.GetCertificateId())
	case ordereventsv1.TypeFailed:
		var m ordereventsv1.Failed
		if err := e.Decode(&m); err != nil {
			return err
		}
		return ended(m.GetOrderId(), m.GetCertificateId(), domain.OrderEnded)
	case ordereventsv1.TypeRejected:
		var m ordereventsv1.Rejected
		if err := e.Decode(&m); err != nil {
			return err
		}
		return ended(m.GetOrderId(), m.GetCertificateId(), domain.OrderEnded)
	case ordereventsv1.TypeCancelled:
		var m ordereventsv1.Cancelled
		if err := e.Decode(&m); err != nil {
			return err
		}
		return ended(m.GetOrderId(), m.GetCertificateId(), domain.OrderEnded)
	}
	return nil
}

// keyOf is the key of a version: the one it names, else the one its order would have.
func keyOf(v *typesv1.VersionFacts) string {
	if v.GetKeyId() != "" {
		return v.GetKeyId()
	}
	return app.KeyID(v.GetOrderId())
}

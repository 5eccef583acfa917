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
	return bus.Consumer{
		Name:   "deployer-versions",
		Types:  []string{certificateeventsv1.TypeVersionAdded, certificateeventsv1.TypeVersionRevoked, certificateeventsv1.TypeDeleted},
		Handle: func(ctx context.Context, e bus.Event) error { return handle(ctx, a, e) },
	}
}

func handle(ctx context.Context, a *app.App, e bus.Event) error {
	switch e.Type {
	case certificateeventsv1.TypeVersionAdded:
		var m certificateeventsv1.VersionAdded
		if err := e.Decode(&m); err != nil {
			return err
		}
		if m.GetState() != "current" {
			return nil
		}
		return a.VersionCurrent(ctx, m.GetCertificateId(), e.Team, m.GetVersion().GetVersionId(), m.GetVersion().GetNumber())
	case certificateeventsv1.TypeVersionRevoked:
		var m certificateeventsv1.VersionRevoked
		if err := e.Decode(&m); err != nil {
			return err
		}
		return a.VersionRevoked(ctx, m.GetVersion().GetVersionId())
	case certificateeventsv1.TypeDeleted:
		var m certificateeventsv1.Deleted
		if err := e.Decode(&m); err != nil {
			return err
		}
		return a.CertificateDeleted(ctx, m.GetCertificateId())
	}
	return nil
}

// Package consumer brings the facts that renewals hears to its use cases.
package consumer

import (
	"cmp"
	"context"

	"github.com/certwright/certwright/services/renewals/internal/app"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
)

// New returns the consumer of what happens to certificates.
func New(a *app.App) bus.Consumer {
	return bus.Routed("renewals-saga", on(a.Requested), on(a.IntentClosed), on(a.VersionRevoked), on(a.Deleted))
}

func on[M any, P bus.Message[M]](f func(ctx context.Context, h app.Heard, m P) error) bus.Route {
	return bus.On(func(ctx context.Context, e bus.Event, m P) error {
		return f(ctx, app.Heard{Source: domain.Source{Epoch: e.Epoch, Revision: e.Revision}, Team: cmp.Or(e.Team, authz.DefaultTeam)}, m)
	})
}

// Package consumer brings the facts that renewals hears to its use cases.
package consumer

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/services/renewals/internal/app"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/bus"
)

type handler func(ctx context.Context, e bus.Event) error

// New returns the consumer of what happens to certificates.
func New(a *app.App) bus.Consumer {
	routes := map[string]handler{
		certev.TypeRequested:      on(a.Requested),
		certev.TypeIntentClosed:   on(a.IntentClosed),
		certev.TypeVersionRevoked: on(a.VersionRevoked),
		certev.TypeDeleted:        on(a.Deleted),
		// The version is what it was, and so is its plan.
		certev.TypeRevocationFailed: func(context.Context, bus.Event) error { return nil },
	}
	c := bus.Consumer{Name: "renewals-saga", Handle: func(ctx context.Context, e bus.Event) error {
		if h, ok := routes[e.Type]; ok {
			return h(ctx, e)
		}
		return nil
	}}
	for t := range routes {
		c.Types = append(c.Types, t)
	}
	slices.Sort(c.Types)
	return c
}

func on[M any, P interface {
	*M
	proto.Message
}](f func(ctx context.Context, h app.Heard, m P) error) handler {
	return func(ctx context.Context, e bus.Event) error {
		m := P(new(M))
		if err := e.Decode(m); err != nil {
			return err
		}
		team := e.Team
		if team == "" {
			team = "default"
		}
		return f(ctx, app.Heard{Source: domain.Source{Epoch: e.Epoch, Revision: e.Revision}, Team: team}, m)
	}
}

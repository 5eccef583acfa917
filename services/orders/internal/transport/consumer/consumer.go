// Package consumer brings the facts that orders hears to its use cases.
package consumer

import (
	"context"

	"google.golang.org/protobuf/proto"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	chalev "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
)

// New returns the consumer of the saga's inputs.
func New(a *app.App) bus.Consumer {
	routes := map[string]func(ctx context.Context, e bus.Event) error{
		bus.TypeOf(&certev.Requested{}): on(func(ctx context.Context, e bus.Event, m *certev.Requested) error {
			return a.Requested(ctx, m, e.Team)
		}),
		bus.TypeOf(&certev.SpecChanged{}): on(func(ctx context.Context, e bus.Event, m *certev.SpecChanged) error {
			return a.Unwanted(ctx, m.GetCertificateId(), m.GetOrderId(), e.Team, "spec_changed")
		}),
		bus.TypeOf(&certev.Deleted{}): on(func(ctx context.Context, e bus.Event, m *certev.Deleted) error {
			return a.Unwanted(ctx, m.GetCertificateId(), m.GetOrderId(), e.Team, "deleted")
		}),
		bus.TypeOf(&certev.VersionAdded{}): on(func(ctx context.Context, _ bus.Event, m *certev.VersionAdded) error {
			return a.Answered(ctx, m.GetVersion().GetOrderId(), m.GetVersion().GetVersionId())
		}),
		bus.TypeOf(&certev.VersionRefused{}): on(func(ctx context.Context, _ bus.Event, m *certev.VersionRefused) error {
			return a.Answered(ctx, m.GetOrderId(), "")
		}),
		bus.TypeOf(&certev.RevocationRequested{}): on(func(ctx context.Context, e bus.Event, m *certev.RevocationRequested) error {
			return a.RevocationRequested(ctx, m, e.ID, e.Team)
		}),
		bus.TypeOf(&chalev.Presented{}): on(func(ctx context.Context, _ bus.Event, m *chalev.Presented) error { return a.Presented(ctx, m) }),
		bus.TypeOf(&chalev.ActionRequired{}): on(func(ctx context.Context, _ bus.Event, m *chalev.ActionRequired) error {
			return a.ActionRequired(ctx, m)
		}),
		bus.TypeOf(&chalev.Failed{}): on(func(ctx context.Context, _ bus.Event, m *chalev.Failed) error { return a.ChallengeFailed(ctx, m) }),
	}
	c := bus.Consumer{Name: "orders-saga"}
	for t := range routes {
		c.Types = append(c.Types, t)
	}
	c.Handle = func(ctx context.Context, e bus.Event) error {
		if e.Team == "" {
			e.Team = "default"
		}
		route, ok := routes[e.Type]
		if !ok {
			return errs.New(errs.Invalid, "UNKNOWN_EVENT", "orders does not act on %s", e.Type)
		}
		return route(ctx, e)
	}
	return c
}

func on[M any, P interface {
	*M
	proto.Message
}](f func(ctx context.Context, e bus.Event, m P) error) func(context.Context, bus.Event) error {
	return func(ctx context.Context, e bus.Event) error {
		m := P(new(M))
		if err := e.Decode(m); err != nil {
			return err
		}
		return f(ctx, e, m)
	}
}

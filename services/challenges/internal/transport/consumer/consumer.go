// Package consumer hears the facts that the challenges service acts on. It decodes and calls; it has no rules.
package consumer

import (
	"context"

	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
)

// Orders hears what has to be proven, and what is over.
func Orders(a *app.App) bus.Consumer {
	return bus.Routed("challenges-orders",
		bus.On(func(ctx context.Context, e bus.Event, m *ordereventsv1.AuthorizationRequired) error {
			return a.AuthorizationRequired(ctx, e.Team, challenge(m))
		}),
		bus.On(func(ctx context.Context, e bus.Event, m *ordereventsv1.AuthorizationClosed) error {
			return a.AuthorizationClosed(ctx, e.Team, m.GetOrderId(), m.GetAttempt(), m.GetAuthorization(), m.GetOutcome())
		}),
		over[ordereventsv1.Issued](a, domain.Valid),
		over[ordereventsv1.Failed](a, domain.Cancelled),
		over[ordereventsv1.Cancelled](a, domain.Cancelled),
		over[ordereventsv1.Rejected](a, domain.Cancelled),
	)
}

func challenge(m *ordereventsv1.AuthorizationRequired) domain.Challenge {
	c := domain.Challenge{
		OrderID: m.GetOrderId(), CertificateID: m.GetCertificateId(), Attempt: m.GetAttempt(), Authorization: m.GetAuthorization(),
		Identifier: m.GetIdentifier(), Wildcard: m.GetWildcard(), WantedType: m.GetChallenge().GetType(), Manual: m.GetChallenge().GetManual(), Owner: m.GetOwner(),
	}
	if t := m.GetExpires(); t != nil {
		c.Expires = clock.Normal(t.AsTime())
	}
	for _, o := range m.GetOffered() {
		c.Offered = append(c.Offered, domain.Offer{Type: o.GetType(), Token: o.GetToken(), KeyAuthorization: o.GetKeyAuthorization()})
	}
	return c
}

// over takes a fact that says that an order ended.
func over[M any, P interface {
	bus.Message[M]
	GetOrderId() string
}](a *app.App, outcome string) bus.Route {
	return bus.On(func(ctx context.Context, e bus.Event, m P) error {
		return a.OrderClosed(ctx, e.Team, m.GetOrderId(), outcome)
	})
}

// Records hears the answers of the dns service.
func Records(a *app.App) bus.Consumer {
	return bus.Routed("challenges-dns",
		bus.On(func(ctx context.Context, _ bus.Event, m *dnseventsv1.RecordPresented) error {
			return a.RecordPresented(ctx, m.GetChallengeId(), m.GetValue())
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *dnseventsv1.RecordFailed) error {
			return a.RecordFailed(ctx, m.GetChallengeId(), m.GetValue(), problem(m.GetProblem()))
		}),
		bus.On(func(ctx context.Context, _ bus.Event, m *dnseventsv1.RecordRemoved) error {
			return a.RecordRemoved(ctx, m.GetChallengeId(), m.GetValue())
		}),
	)
}

func problem(p *typesv1.Problem) domain.Problem {
	return domain.Problem{Reason: p.GetReason(), Detail: p.GetDetail(), Retrying: p.GetRetrying()}
}

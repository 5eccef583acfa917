// Package consumer hears the facts that the challenges service acts on. It decodes and calls; it has no rules.
package consumer

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

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
	return bus.Consumer{
		Name: "challenges-orders",
		Types: []string{
			ordereventsv1.TypeAuthorizationRequired, ordereventsv1.TypeAuthorizationClosed, ordereventsv1.TypeIssued,
			ordereventsv1.TypeFailed, ordereventsv1.TypeCancelled, ordereventsv1.TypeRejected,
		},
		Handle: func(ctx context.Context, e bus.Event) error {
			switch e.Type {
			case ordereventsv1.TypeAuthorizationRequired:
				return required(ctx, a, e)
			case ordereventsv1.TypeAuthorizationClosed:
				var m ordereventsv1.AuthorizationClosed
				if err := e.Decode(&m); err != nil {
					return err
				}
				return a.AuthorizationClosed(ctx, e.Team, m.GetOrderId(), m.GetAttempt(), m.GetAuthorization(), m.GetOutcome())
			case ordereventsv1.TypeIssued:
				return over(ctx, a, e, &ordereventsv1.Issued{}, domain.Valid)
			case ordereventsv1.TypeFailed:
				return over(ctx, a, e, &ordereventsv1.Failed{}, domain.Cancelled)
			case ordereventsv1.TypeCancelled:
				return over(ctx, a, e, &ordereventsv1.Cancelled{}, domain.Cancelled)
			case ordereventsv1.TypeRejected:
				return over(ctx, a, e, &ordereventsv1.Rejected{}, domain.Cancelled)
			}
			return nil
		},
	}
}

func required(ctx context.Context, a *app.App, e bus.Event) error {
	var m ordereventsv1.AuthorizationRequired
	if err := e.Decode(&m); err != nil {
		return err
	}
	c := domain.Challenge{
		OrderID: m.GetOrderId(), CertificateID: m.GetCertificateId(), Attempt: m.GetAttempt(), Authorization: m.GetAuthorization(),
		Identifier: m.GetIdentifier(), Wildcard: m.GetWildcard(), WantedType: m.GetChallenge().GetType(), Manual: m.GetChallenge().GetManual(), Owner: m.GetOwner(),
	}
	if t := m.GetExpires(); t != nil {
		c.Expires = clock.Normal(t.AsTime())
	} else {
		c.Expires = time.Time{}
	}
	for _, o := range m.GetOffered() {
		c.Offered = append(c.Offered, domain.Offer{Type: o.GetType(), Token: o.GetToken(), KeyAuthorization: o.GetKeyAuthorization()})
	}
	return a.AuthorizationRequired(ctx, e.Team, c)
}

// ended is an event that ends an order.
type ended interface {
	proto.Message
	GetOrderId() string
}

func over(ctx context.Context, a *app.App, e bus.Event, m ended, outcome string) error {
	if err := e.Decode(m); err != nil {
		return err
	}
	return a.OrderClosed(ctx, e.Team, m.GetOrderId(), outcome)
}

// Records hears the answers of the dns service.
func Records(a *app.App) bus.Consumer {
	return bus.Consumer{
		Name:  "challenges-dns",
		Types: []string{dnseventsv1.TypeRecordPresented, dnseventsv1.TypeRecordFailed, dnseventsv1.TypeRecordRemoved},
		Handle: func(ctx context.Context, e bus.Event) error {
			switch e.Type {
			case dnseventsv1.TypeRecordPresented:
				var m dnseventsv1.RecordPresented
				if err := e.Decode(&m); err != nil {
					return err
				}
				return a.RecordPresented(ctx, m.GetChallengeId(), m.GetValue())
			case dnseventsv1.TypeRecordFailed:
				var m dnseventsv1.RecordFailed
				if err := e.Decode(&m); err != nil {
					return err
				}
				return a.RecordFailed(ctx, m.GetChallengeId(), m.GetValue(), problem(m.GetProblem()))
			case dnseventsv1.TypeRecordRemoved:
				var m dnseventsv1.RecordRemoved
				if err := e.Decode(&m); err != nil {
					return err
				}
				return a.RecordRemoved(ctx, m.GetChallengeId(), m.GetValue())
			}
			return nil
		},
	}
}

func problem(p *typesv1.Problem) domain.Problem {
	return domain.Problem{Reason: p.GetReason(), Detail: p.GetDetail(), Retrying: p.GetRetrying()}
}

// Package consumer hears the facts that inventory acts on. It decodes and hands on; it decides nothing.
package consumer

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	revocationeventsv1 "github.com/certwright/certwright/api/certwright/events/revocation/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/bus"
)

// handler takes a decoded fact.
type handler func(ctx context.Context, a *app.App, e bus.Event) error

// on decodes the event into a new message of M's type before f sees it.
func on[M any, P interface {
	*M
	proto.Message
}](f func(ctx context.Context, a *app.App, e bus.Event, m P) error) handler {
	return func(ctx context.Context, a *app.App, e bus.Event) error {
		m := P(new(M))
		if err := e.Decode(m); err != nil {
			return err
		}
		return f(ctx, a, e, m)
	}
}

// handlers is the whole list of what inventory hears.
func handlers() map[string]handler {
	return map[string]handler{
		ordereventsv1.TypeAccepted: on(func(ctx context.Context, a *app.App, _ bus.Event, m *ordereventsv1.Accepted) error {
			return a.OrderAccepted(ctx, m.GetCertificateId(), m.GetOrderId())
		}),
		ordereventsv1.TypeIssued: on(func(ctx context.Context, a *app.App, e bus.Event, m *ordereventsv1.Issued) error {
			return a.OrderIssued(ctx, app.IssuedOrder{
				OrderID: m.GetOrderId(), CertificateID: m.GetCertificateId(), IntentNumber: m.GetIntentNumber(), Chain: m.GetChainDer(),
				IssuerID: m.GetIssuerId(), AccountID: m.GetAccountId(), KeyID: m.GetKeyId(), Team: e.Team,
			})
		}),
		ordereventsv1.TypeFailed: on(func(ctx context.Context, a *app.App, _ bus.Event, m *ordereventsv1.Failed) error {
			return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Failed, domain.ProblemOf(m.GetProblem()), false)
		}),
		ordereventsv1.TypeRejected: on(func(ctx context.Context, a *app.App, _ bus.Event, m *ordereventsv1.Rejected) error {
			detail := "rejected by " + m.GetBy()
			if m.GetComment() != "" {
				detail += ": " + m.GetComment()
			}
			return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Rejected, &domain.Problem{Reason: "ORDER_REJECTED", Detail: detail}, false)
		}),
		ordereventsv1.TypeCancelled: on(func(ctx context.Context, a *app.App, _ bus.Event, m *ordereventsv1.Cancelled) error {
			problem := &domain.Problem{Reason: "ORDER_CANCELLED", Detail: "the order was cancelled: " + m.GetReason()}
			return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Cancelled, problem, m.GetReason() == "user")
		}),
		renewaleventsv1.TypePlanned: on(func(ctx context.Context, a *app.App, e bus.Event, m *renewaleventsv1.Planned) error {
			return a.RenewalTold(ctx, m.GetCertificateId(), domain.Renewal{
				State: "planned", DueAt: m.GetDueAt().AsTime(), Basis: m.GetBasis(), Explanation: m.GetExplanation(), Epoch: e.Epoch, Revision: e.Revision,
			}, m.GetIntentNumber())
		}),
		renewaleventsv1.TypeHeld: on(func(ctx context.Context, a *app.App, e bus.Event, m *renewaleventsv1.Held) error {
			return a.RenewalTold(ctx, m.GetCertificateId(), domain.Renewal{
				State: "held", DueAt: m.GetReviewAt().AsTime(), Basis: "held", Explanation: m.GetReason(), Epoch: e.Epoch, Revision: e.Revision,
			}, m.GetIntentNumber())
		}),
		revocationeventsv1.TypeDone: on(func(ctx context.Context, a *app.App, _ bus.Event, m *revocationeventsv1.Done) error {
			return a.RevocationEnded(ctx, m.GetCertificateId(), m.GetVersionId(), m.GetAlreadyRevoked(), nil)
		}),
		revocationeventsv1.TypeFailed: on(func(ctx context.Context, a *app.App, _ bus.Event, m *revocationeventsv1.Failed) error {
			problem := domain.ProblemOf(m.GetProblem())
			if problem == nil {
				problem = &domain.Problem{Reason: "REVOCATION_REFUSED", Detail: "no reason was given"}
			}
			return a.RevocationEnded(ctx, m.GetCertificateId(), m.GetVersionId(), false, problem)
		}),
		deploymenteventsv1.TypeStarted: on(func(ctx context.Context, a *app.App, e bus.Event, m *deploymenteventsv1.Started) error {
			return deployment(ctx, a, e, m.GetSubject(), "", nil)
		}),
		deploymenteventsv1.TypeSucceeded: on(func(ctx context.Context, a *app.App, e bus.Event, m *deploymenteventsv1.Succeeded) error {
			return deployment(ctx, a, e, m.GetSubject(), "", nil)
		}),
		deploymenteventsv1.TypeFailed: on(func(ctx context.Context, a *app.App, e bus.Event, m *deploymenteventsv1.Failed) error {
			return deployment(ctx, a, e, m.GetSubject(), "DEPLOYMENT_FAILED", m.GetProblem())
		}),
		deploymenteventsv1.TypeRolledBack: on(func(ctx context.Context, a *app.App, e bus.Event, m *deploymenteventsv1.RolledBack) error {
			return deployment(ctx, a, e, m.GetSubject(), "DEPLOYMENT_ROLLED_BACK", m.GetProblem())
		}),
		deploymenteventsv1.TypeStuck: on(func(ctx context.Context, a *app.App, e bus.Event, m *deploymenteventsv1.Stuck) error {
			return deployment(ctx, a, e, m.GetSubject(), "DEPLOYMENT_STUCK", m.GetProblem())
		}),
	}
}

func deployment(ctx context.Context, a *app.App, e bus.Event, s *deploymenteventsv1.Subject, reason string, p *typesv1.Problem) error {
	b := domain.Binding{
		ID: s.GetBindingId(), TargetID: s.GetTargetId(), VersionID: s.GetVersionId(), Served: e.Type == deploymenteventsv1.TypeSucceeded,
		DeploymentID: s.GetDeploymentId(), Generation: s.GetGeneration(), Epoch: e.Epoch, Revision: e.Revision,
	}
	return a.DeploymentTold(ctx, s.GetCertificateId(), b, reason, p.GetDetail())
}

// Consumers are the durable consumers to register, one a context, so that a flood of one does not hold up the others.
func Consumers(a *app.App) []bus.Consumer {
	names := []string{"order", "renewal", "revocation", "deployment"}
	out := make([]bus.Consumer, len(names))
	all := handlers()
	for i, name := range names {
		out[i] = bus.Consumer{Name: "inventory-" + name + "s", Handle: func(ctx context.Context, e bus.Event) error { return Handle(ctx, a, e) }}
		for t := range all {
			if strings.HasPrefix(t, name+".") {
				out[i].Types = append(out[i].Types, t)
			}
		}
	}
	return out
}

// Handle takes one fact; a type that inventory does not hear is no error.
func Handle(ctx context.Context, a *app.App, e bus.Event) error {
	h, ok := handlers()[e.Type]
	if !ok {
		return nil
	}
	return h(ctx, a, e)
}

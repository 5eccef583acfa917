// Package consumer hears the facts that inventory acts on. It decodes and hands on; it decides nothing.
package consumer

import (
	"context"

	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	revocationeventsv1 "github.com/certwright/certwright/api/certwright/events/revocation/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/bus"
)

// Consumers are the durable consumers to register, one a context, so that a flood of one does not hold up the others.
func Consumers(a *app.App) []bus.Consumer {
	return []bus.Consumer{
		bus.Routed("inventory-orders",
			bus.On(func(ctx context.Context, _ bus.Event, m *ordereventsv1.Accepted) error {
				return a.OrderAccepted(ctx, m.GetCertificateId(), m.GetOrderId())
			}),
			bus.On(func(ctx context.Context, e bus.Event, m *ordereventsv1.Issued) error {
				return a.OrderIssued(ctx, app.IssuedOrder{
					OrderID: m.GetOrderId(), CertificateID: m.GetCertificateId(), IntentNumber: m.GetIntentNumber(), Chain: m.GetChainDer(),
					IssuerID: m.GetIssuerId(), AccountID: m.GetAccountId(), KeyID: m.GetKeyId(), Team: e.Team,
				})
			}),
			bus.On(func(ctx context.Context, _ bus.Event, m *ordereventsv1.Failed) error {
				return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Failed, domain.ProblemOf(m.GetProblem()), false)
			}),
			bus.On(func(ctx context.Context, _ bus.Event, m *ordereventsv1.Rejected) error {
				detail := "rejected by " + m.GetBy()
				if m.GetComment() != "" {
					detail += ": " + m.GetComment()
				}
				return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Rejected, &domain.Problem{Reason: "ORDER_REJECTED", Detail: detail}, false)
			}),
			bus.On(func(ctx context.Context, _ bus.Event, m *ordereventsv1.Cancelled) error {
				problem := &domain.Problem{Reason: "ORDER_CANCELLED", Detail: "the order was cancelled: " + m.GetReason()}
				return a.OrderEnded(ctx, m.GetCertificateId(), m.GetOrderId(), domain.Cancelled, problem, m.GetReason() == "user")
			}),
		),
		bus.Routed("inventory-renewals",
			bus.On(func(ctx context.Context, e bus.Event, m *renewaleventsv1.Planned) error {
				return a.RenewalTold(ctx, m.GetCertificateId(), domain.Renewal{
					State: "planned", DueAt: m.GetDueAt().AsTime(), Basis: m.GetBasis(), Explanation: m.GetExplanation(), Epoch: e.Epoch, Revision: e.Revision,
				}, m.GetIntentNumber())
			}),
			bus.On(func(ctx context.Context, e bus.Event, m *renewaleventsv1.Held) error {
				return a.RenewalTold(ctx, m.GetCertificateId(), domain.Renewal{
					State: "held", DueAt: m.GetReviewAt().AsTime(), Basis: "held", Explanation: m.GetReason(), Epoch: e.Epoch, Revision: e.Revision,
				}, m.GetIntentNumber())
			}),
		),
		bus.Routed("inventory-revocations",
			bus.On(func(ctx context.Context, _ bus.Event, m *revocationeventsv1.Done) error {
				return a.RevocationEnded(ctx, m.GetCertificateId(), m.GetVersionId(), m.GetAlreadyRevoked(), nil)
			}),
			bus.On(func(ctx context.Context, _ bus.Event, m *revocationeventsv1.Failed) error {
				problem := domain.ProblemOf(m.GetProblem())
				if problem == nil {
					problem = &domain.Problem{Reason: "REVOCATION_REFUSED", Detail: "no reason was given"}
				}
				return a.RevocationEnded(ctx, m.GetCertificateId(), m.GetVersionId(), false, problem)
			}),
		),
		bus.Routed("inventory-deployments",
			deployment[deploymenteventsv1.Started](a, ""), deployment[deploymenteventsv1.Succeeded](a, ""),
			deployment[deploymenteventsv1.Failed](a, "DEPLOYMENT_FAILED"),
			deployment[deploymenteventsv1.RolledBack](a, "DEPLOYMENT_ROLLED_BACK"),
			deployment[deploymenteventsv1.Stuck](a, "DEPLOYMENT_STUCK"),
		),
	}
}

// deployment takes a fact of a deployment; reason is that of the finding that stays while it is the last one, empty for none.
func deployment[M any, P interface {
	bus.Message[M]
	GetSubject() *deploymenteventsv1.Subject
}](a *app.App, reason string) bus.Route {
	return bus.On(func(ctx context.Context, e bus.Event, m P) error {
		s, detail := m.GetSubject(), ""
		if f, ok := any(m).(interface{ GetProblem() *typesv1.Problem }); ok {
			detail = f.GetProblem().GetDetail()
		}
		return a.DeploymentTold(ctx, s.GetCertificateId(), domain.Binding{
			ID: s.GetBindingId(), TargetID: s.GetTargetId(), VersionID: s.GetVersionId(), Served: e.Type == deploymenteventsv1.TypeSucceeded,
			DeploymentID: s.GetDeploymentId(), Generation: s.GetGeneration(), Epoch: e.Epoch, Revision: e.Revision,
		}, reason, detail)
	})
}

package app

import (
	"context"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// Step does the next thing for a plan that is due: tell an alarm, ask the inventory for a version, or read ARI.
func (a *App) Step(ctx context.Context, doc Plan) (worker.Result[domain.Plan], error) {
	switch doc.Body.Next(a.moment(doc.ID)) {
	case domain.AskDoor:
		return a.askDoor(ctx, doc)
	case domain.Reread:
		return a.readARI(ctx, doc)
	case domain.Review:
		return a.result(func(p *domain.Plan, m domain.Moment) []domain.Fact {
			if p.Next(m) == domain.Review {
				p.Remind(m)
			}
			return nil
		}), nil
	case domain.Alarm, domain.Rest:
	}
	return a.result(func(*domain.Plan, domain.Moment) []domain.Fact { return nil }), nil
}

// result applies what was found out to the plan as it is when it is written, and tells the alarms that are due.
func (a *App) result(f func(p *domain.Plan, m domain.Moment) []domain.Fact) worker.Result[domain.Plan] {
	return worker.Result[domain.Plan]{Apply: func(doc *Plan) ([]outbox.Fact, error) {
		m := a.moment(doc.ID)
		gist := doc.Body.Gist()
		var caused []domain.Fact
		if !doc.Body.Dropped() {
			caused = f(&doc.Body, m)
			doc.Body.Settle()
			caused = append(caused, doc.Body.Alarms(m)...)
		}
		return settle(doc, gist, m, caused), nil
	}}
}

func (a *App) askDoor(ctx context.Context, doc Plan) (worker.Result[domain.Plan], error) {
	ask := doc.Body.Asking()
	var res *inventoryv1.RequestVersionResponse
	err := worker.Call(ctx, "inventory.RequestVersion", func(ctx context.Context) (err error) {
		res, err = a.Inventory.RequestVersion(ctx, &inventoryv1.RequestVersionRequest{
			CertificateId: doc.ID, ReplacesVersionId: ask.Replaces, First: ask.First, Cause: ask.Cause,
		})
		return err
	})
	if errs.KindOf(err) == errs.NotFound {
		a.Logger.WarnContext(ctx, "the plan of a certificate that the inventory does not know is dropped", "certificate_id", doc.ID)
		return a.result(func(p *domain.Plan, m domain.Moment) []domain.Fact {
			p.Drop(m)
			return nil
		}), nil
	}
	if err != nil {
		return worker.Result[domain.Plan]{}, err
	}
	answer := domain.Answer{
		OrderID: res.GetOrderId(), Number: res.GetIntentNumber(), NothingToDo: res.GetNothingToDo(), Explanation: res.GetExplanation(),
	}
	return a.result(func(p *domain.Plan, m domain.Moment) []domain.Fact { return p.Asked(ask, answer, m) }), nil
}

func (a *App) readARI(ctx context.Context, doc Plan) (worker.Result[domain.Plan], error) {
	v := doc.Body.Version
	var res *ordersv1.GetRenewalInfoResponse
	err := worker.Call(ctx, "orders.GetRenewalInfo", func(ctx context.Context) (err error) {
		res, err = a.Orders.GetRenewalInfo(ctx, &ordersv1.GetRenewalInfoRequest{
			Queries: []*ordersv1.RenewalInfoQuery{{IssuerId: v.IssuerID, AriCertId: v.ARICertID}},
		})
		return err
	})
	if ctx.Err() != nil {
		return worker.Result[domain.Plan]{}, ctx.Err()
	}
	now := a.Clock.Now()
	info := domain.Info{RetryAt: now.Add(ariRetry)}
	switch {
	case err != nil:
		a.Logger.WarnContext(ctx, "ARI cannot be read; it is tried again", "certificate_id", doc.ID, "error", err)
		info.Problem = &domain.Problem{Reason: domain.ReasonUnreachable, Detail: errs.ReasonOf(err) + " when orders was asked", Retrying: true}
	case len(res.GetInfos()) == 0:
		info.Problem = &domain.Problem{Reason: domain.ReasonUnreachable, Detail: "orders gave no answer for this certificate", Retrying: true}
	default:
		i := res.GetInfos()[0]
		info = domain.Info{Supported: i.GetSupported(), ExplanationURL: i.GetExplanationUrl(), Problem: problem(i.GetProblem())}
		if i.GetRetryAt() != nil {
			info.RetryAt = clock.Normal(i.GetRetryAt().AsTime())
		}
		if i.GetSupported() {
			info.Start, info.End = clock.Normal(i.GetWindowStart().AsTime()), clock.Normal(i.GetWindowEnd().AsTime())
		}
	}
	return a.result(func(p *domain.Plan, m domain.Moment) []domain.Fact { return p.ReadARI(v.ID, info, m) }), nil
}

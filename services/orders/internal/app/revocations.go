package app

import (
	"context"
	"errors"

	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// StepRevocation asks the CA to revoke, until it has done so or refuses for good.
func (a *App) StepRevocation(ctx context.Context, doc docstore.Doc[domain.Revocation]) (worker.Result[domain.Revocation], error) {
	r := doc.Body
	if r.State != domain.RevocationPending {
		return ended(nil), nil
	}
	acc, _, err := a.existing(ctx, r.IssuerID, r.AccountID)
	if errs.KindOf(err) == errs.NotFound {
		return ended(func(r *domain.Revocation) domain.Fact {
			return r.Refused(&domain.Problem{Reason: "ISSUER_GONE", Detail: "the issuer " + r.IssuerID + " or its account does not exist any more; revoke the certificate at the CA itself"})
		}), nil
	}
	if err != nil {
		return worker.Result[domain.Revocation]{}, err
	}
	code, ok := domain.ReasonCode(r.Reason)
	if !ok {
		return ended(func(r *domain.Revocation) domain.Fact {
			return r.Refused(&domain.Problem{Reason: "BAD_REVOCATION_REASON", Detail: "no ACME CA takes the reason " + r.Reason})
		}), nil
	}
	var already bool
	err = worker.Call(ctx, "acme.revoke", func(ctx context.Context) (err error) {
		already, err = a.CA.Revoke(ctx, acc, r.DER, code)
		return err
	})
	if err == nil {
		return ended(func(r *domain.Revocation) domain.Fact { return r.Done(already) }), nil
	}
	var f *domain.Failure
	if !errors.As(err, &f) || stopping(ctx) {
		return worker.Result[domain.Revocation]{}, err
	}
	if err := a.forget(ctx, f, acc); err != nil {
		return worker.Result[domain.Revocation]{}, err
	}
	if !f.Problem.Retrying && !f.AccountGone {
		return ended(func(r *domain.Revocation) domain.Fact { return r.Refused(f.Problem.Clone()) }), nil
	}
	return worker.Result[domain.Revocation]{Apply: func(doc *docstore.Doc[domain.Revocation]) ([]outbox.Fact, error) {
		doc.Body.Problem = f.Problem.Clone()
		doc.Body.Retries++
		doc.WorkAt = a.Clock.Now().Add(max(domain.Backoff(doc.Body.Retries), f.RetryAfter))
		return nil, nil
	}}, nil
}

// ended takes the outcome, made by f, of a revocation that is still pending.
func ended(f func(r *domain.Revocation) domain.Fact) worker.Result[domain.Revocation] {
	return worker.Result[domain.Revocation]{Apply: func(doc *docstore.Doc[domain.Revocation]) ([]outbox.Fact, error) {
		doc.WorkAt = clock.Never
		if doc.Body.State != domain.RevocationPending {
			return nil, nil
		}
		return facts([]domain.Fact{f(&doc.Body)}), nil
	}}
}

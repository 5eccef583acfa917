package app

import (
	"context"
	"errors"
	"strings"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/authz"
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
	code, ok := domain.ReasonCode(r.Reason)
	if !ok {
		return ended(func(r *domain.Revocation) domain.Fact {
			return r.Refused(&domain.Problem{Reason: "BAD_REVOCATION_REASON", Detail: "no ACME CA takes the reason " + r.Reason})
		}), nil
	}
	issuer, err := a.issuer(ctx, r.IssuerID)
	if errs.KindOf(err) == errs.NotFound {
		return ended(func(r *domain.Revocation) domain.Fact {
			return r.Refused(&domain.Problem{Reason: "ISSUER_GONE", Detail: "the issuer " + r.IssuerID + " does not exist any more; revoke the certificate at the CA itself"})
		}), nil
	}
	if err != nil {
		return worker.Result[domain.Revocation]{}, err
	}
	if r.ByKey {
		return a.revokeByKey(ctx, r, issuer.Body, code)
	}
	acc, _, err := a.existing(ctx, r.IssuerID, r.AccountID)
	var f *domain.Failure
	if errs.KindOf(err) == errs.NotFound || (errors.As(err, &f) && f.Problem.Reason == "ACCOUNT_DEACTIVATED") {
		return a.revokeByKey(ctx, r, issuer.Body, code)
	}
	var already bool
	if err == nil {
		err = worker.Call(ctx, "acme.revoke", func(ctx context.Context) (err error) {
			already, err = a.CA.Revoke(ctx, acc, r.DER, code)
			return err
		})
	}
	if err == nil {
		return ended(func(r *domain.Revocation) domain.Fact { return r.Done(already) }), nil
	}
	if !errors.As(err, &f) || stopping(ctx) {
		return worker.Result[domain.Revocation]{}, err
	}
	if err := a.reconsider(ctx, f, acc); err != nil {
		return worker.Result[domain.Revocation]{}, err
	}
	if strings.HasSuffix(f.Problem.Type, ":unauthorized") && !f.Problem.Retrying { // another account ordered it
		return worker.Result[domain.Revocation]{Apply: func(doc *docstore.Doc[domain.Revocation]) ([]outbox.Fact, error) {
			doc.Body.ByKey, doc.Body.Problem = true, f.Problem.Clone()
			return nil, nil // it is still due
		}}, nil
	}
	return a.notRevoked(f, f.Problem.Retrying || f.AccountGone), nil
}

// revokeByKey asks with the certificate's own key, which keys has.
func (a *App) revokeByKey(ctx context.Context, r domain.Revocation, issuer domain.Issuer, code uint) (worker.Result[domain.Revocation], error) {
	if r.KeyID == "" {
		return ended(func(r *domain.Revocation) domain.Fact {
			return r.Refused(&domain.Problem{Reason: "REVOCATION_KEY_MISSING", Detail: "the account that ordered the certificate cannot revoke it, and its private key is not kept here; " +
				"revoke it at the CA itself, or with an ACME client where the key is"})
		}), nil
	}
	sign := func(ctx context.Context, input []byte) (acme.Signature, error) {
		s, err := a.Keys.SignRevocation(authz.AsService(ctx), &keysv1.SignRevocationRequest{KeyId: r.KeyID, SigningInput: input})
		return acme.Signature{Bytes: s.GetSignature(), Algorithm: s.GetAlgorithm(), JWK: s.GetJwk()}, err
	}
	var already bool
	err := worker.Call(ctx, "acme.revokeByKey", func(ctx context.Context) (err error) {
		already, err = a.CA.RevokeByKey(ctx, issuer, sign, r.DER, code)
		return err
	})
	if err == nil {
		return ended(func(r *domain.Revocation) domain.Fact { return r.Done(already) }), nil
	}
	f := failureOf(err)
	if f == nil || stopping(ctx) {
		return worker.Result[domain.Revocation]{}, err
	}
	return a.notRevoked(f, f.Problem.Retrying), nil
}

// notRevoked tries again later, or takes the refusal.
func (a *App) notRevoked(f *domain.Failure, again bool) worker.Result[domain.Revocation] {
	if !again {
		return ended(func(r *domain.Revocation) domain.Fact { return r.Refused(f.Problem.Clone()) })
	}
	return worker.Result[domain.Revocation]{Apply: func(doc *docstore.Doc[domain.Revocation]) ([]outbox.Fact, error) {
		doc.Body.Problem = f.Problem.Clone()
		doc.Body.Retries++
		doc.WorkAt = a.Clock.Now().Add(max(domain.Backoff(doc.Body.Retries), f.RetryAfter))
		return nil, nil
	}}
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

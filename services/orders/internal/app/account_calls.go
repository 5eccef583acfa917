package app

import (
	"context"

	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
)

// AccountSeen is an account with what the CA says of it.
type AccountSeen struct {
	Doc     docstore.Doc[Account]
	CA      acme.AccountState // empty when the CA was not asked
	Problem *domain.Problem   // why the CA could not be asked
}

// GetAccount returns an account and asks its CA about it. A CA that cannot be asked is an answer, not an error.
func (a *App) GetAccount(ctx context.Context, accID string) (AccountSeen, error) {
	d, err := a.findAccount(ctx, accID)
	if err != nil || d.Body.State != AccountValid {
		return AccountSeen{Doc: d}, err
	}
	out := AccountSeen{Doc: d}
	acc, _, err := a.existing(ctx, d.Body.IssuerID, accID)
	if err == nil {
		out.CA, err = a.CA.Account(ctx, acc)
	}
	if f := failureOf(err); f != nil {
		out.Problem = f.Problem.Clone()
		return out, nil
	}
	return out, err
}

func (a *App) findAccount(ctx context.Context, accID string) (docstore.Doc[Account], error) {
	d, err := a.Accounts.Get(ctx, accID)
	if errs.KindOf(err) == errs.NotFound {
		return d, errs.New(errs.NotFound, "NOT_FOUND", "there is no account %q; an issuer's account is made with its first order", accID)
	}
	if err != nil {
		return d, err
	}
	return d, visible(ctx, d.Team, "account", accID)
}

// freshKey makes another key for an account that the caller may see.
func (a *App) freshKey(ctx context.Context, accID string) (seal.Sealed, string, error) {
	d, err := a.findAccount(ctx, accID)
	if err != nil {
		return seal.Sealed{}, "", err
	}
	issuer, err := a.Issuers.Get(ctx, d.Body.IssuerID)
	if err != nil {
		return seal.Sealed{}, "", err
	}
	return a.sealedKey(ctx, issuer.Body.AccountKeyAlgorithm, accID)
}

// RotateKey stores the key that is to follow; the worker has the CA change it. While it does, another call changes nothing.
func (a *App) RotateKey(ctx context.Context, accID string) (docstore.Doc[Account], error) {
	key, thumbprint, err := a.freshKey(ctx, accID)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	return a.Accounts.Change(ctx, accID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		x := &d.Body
		switch {
		case x.State != AccountValid:
			return nil, errs.New(errs.Precondition, "ACCOUNT_STATE", "the account %s is %s; only the key of a valid one can be changed", accID, x.State)
		case x.NextThumbprint != "":
			return nil, outbox.ErrUnchanged
		}
		x.NextKey, x.NextThumbprint, x.Retries, x.Problem = key, thumbprint, 0, nil
		x.Asked++
		d.WorkAt = a.Clock.Now()
		return nil, nil
	})
}

// DeactivateAccount ends an account for good. The worker tells the CA.
func (a *App) DeactivateAccount(ctx context.Context, accID string) (docstore.Doc[Account], error) {
	if d, err := a.findAccount(ctx, accID); err != nil {
		return d, err
	}
	return a.Accounts.Change(ctx, accID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		x := &d.Body
		switch {
		case x.State == AccountDeactivating || x.State == AccountDeactivated:
			return nil, outbox.ErrUnchanged
		case x.NextThumbprint != "":
			return nil, errs.New(errs.Precondition, "ACCOUNT_STATE", "the key of the account %s is being changed; deactivate it when that is over", accID)
		case x.URL == "": // the CA may have heard of it, but nobody uses it
			x.State = AccountDeactivated
			return nil, nil
		}
		x.State, x.Retries, x.Problem = AccountDeactivating, 0, nil
		x.Asked++
		d.WorkAt = a.Clock.Now()
		return nil, nil
	})
}

// ActivateAccount lets the next order register a new account, with a new key: no CA takes a deactivated one back.
func (a *App) ActivateAccount(ctx context.Context, accID string) (docstore.Doc[Account], error) {
	key, thumbprint, err := a.freshKey(ctx, accID)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	return a.Accounts.Change(ctx, accID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		x := &d.Body
		switch x.State {
		case AccountRegistering, AccountValid:
			return nil, outbox.ErrUnchanged
		case AccountDeactivating:
			return nil, errs.New(errs.Precondition, "ACCOUNT_STATE", "the account %s is being deactivated; activate it when the CA has taken that", accID)
		case AccountDeactivated:
		}
		x.State, x.URL, x.Problem, x.Retries = AccountRegistering, "", nil, 0
		x.Key, x.Thumbprint, x.KeyAt = key, thumbprint, a.Clock.Now()
		x.NextKey, x.NextThumbprint = seal.Sealed{}, ""
		x.SpareKey, x.SpareThumbprint = seal.Sealed{}, ""
		return nil, nil
	})
}

package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/worker"
)

// changeTries is how often a CA that does not answer is asked to change a key, before it is only asked what became of it.
const changeTries = 5

// StepAccount tells the CA what was asked of an account since: to end it, to change its key, to take the issuer's contacts. First finding wins.
func (a *App) StepAccount(ctx context.Context, doc docstore.Doc[Account]) (worker.Result[Account], error) {
	issuer, err := a.Issuers.Get(ctx, doc.Body.IssuerID)
	if err != nil {
		return worker.Result[Account]{}, err
	}
	x := doc.Body
	switch {
	case x.State == AccountDeactivating:
		return a.accountCall(ctx, issuer, doc, "acme.deactivate", a.CA.Deactivate, func(d *Account) { d.State = AccountDeactivated })
	case x.State == AccountValid && x.NextThumbprint != "":
		return a.rotate(ctx, issuer, doc)
	case x.State == AccountValid && !slices.Equal(x.Contacts, issuer.Body.Contacts):
		return a.accountCall(ctx, issuer, doc, "acme.updateContacts", a.CA.UpdateContacts, func(d *Account) { d.Contacts = issuer.Body.Contacts })
	}
	return accountDone(x, nil), nil
}

func (a *App) rotate(ctx context.Context, issuer docstore.Doc[domain.Issuer], doc docstore.Doc[Account]) (worker.Result[Account], error) {
	x := doc.Body
	next, err := a.signer(ctx, doc.ID, x.NextKey, x.NextThumbprint)
	if err != nil {
		return worker.Result[Account]{}, err
	}
	change := func(ctx context.Context, acc acme.Account) error {
		return a.CA.RotateKey(ctx, acc, next, x.Retries >= changeTries)
	}
	return a.accountCall(ctx, issuer, doc, "acme.keyChange", change, func(d *Account) {
		if d.NextThumbprint != x.NextThumbprint {
			return
		}
		a.lay(d.Thumbprint)
		d.Key, d.Thumbprint, d.KeyAt = d.NextKey, d.NextThumbprint, a.Clock.Now()
		d.NextKey, d.NextThumbprint = seal.Sealed{}, ""
		d.SpareKey, d.SpareThumbprint = seal.Sealed{}, ""
	})
}

// lay forgets an opened key.
func (a *App) lay(thumbprint string) {
	a.mu.Lock()
	delete(a.signers, thumbprint)
	a.mu.Unlock()
}

// accountCall makes one call about an account and writes what came of it; done is for a success.
func (a *App) accountCall(
	ctx context.Context, issuer docstore.Doc[domain.Issuer], doc docstore.Doc[Account], what string, call func(context.Context, acme.Account) error, done func(d *Account),
) (worker.Result[Account], error) {
	acc, err := a.open(ctx, issuer, doc)
	if err == nil {
		err = worker.Call(ctx, what, func(ctx context.Context) error { return call(ctx, acc) })
	}
	if err == nil {
		return accountDone(doc.Body, done), nil
	}
	var f *domain.Failure
	if !errors.As(err, &f) || stopping(ctx) { // a lease that ended says nothing about the CA
		return worker.Result[Account]{}, err
	}
	return a.accountTrouble(doc.Body, f), nil
}

// accountDone writes a success, and has the account looked at once more when more was asked for meanwhile, or something was done.
func accountDone(seen Account, done func(d *Account)) worker.Result[Account] {
	return worker.Result[Account]{Apply: func(doc *docstore.Doc[Account]) ([]outbox.Fact, error) {
		if done != nil {
			done(&doc.Body)
			doc.Body.Problem, doc.Body.Retries = nil, 0
			return nil, nil // it is still due
		}
		if doc.Body.Asked == seen.Asked {
			doc.WorkAt = clock.Never
		}
		return nil, nil
	}}
}

// accountTrouble writes why the CA did not do it. What is uncertain or may pass is tried again. A key change that has certainly not happened is given up instead:
// while one is open no order can go on.
func (a *App) accountTrouble(seen Account, f *domain.Failure) worker.Result[Account] {
	return worker.Result[Account]{Apply: func(doc *docstore.Doc[Account]) ([]outbox.Fact, error) {
		x := &doc.Body
		x.Problem = f.Problem.Clone()
		x.Retries++
		changing := x.State == AccountValid && x.NextThumbprint != "" && x.NextThumbprint == seen.NextThumbprint
		if f.AccountGone && x.State == AccountValid && x.URL == seen.URL {
			x.State = AccountRegistering
		}
		switch {
		case f.Problem.Retrying && (!changing || f.Unknown) && !f.AccountGone:
			doc.WorkAt = a.Clock.Now().Add(max(domain.Backoff(x.Retries), f.RetryAfter))
			return nil, nil
		case changing:
			if x.SpareThumbprint == x.NextThumbprint { // it was asked about before
				x.SpareKey, x.SpareThumbprint = seal.Sealed{}, ""
			} else {
				x.SpareKey, x.SpareThumbprint = x.NextKey, x.NextThumbprint
			}
			x.NextKey, x.NextThumbprint = seal.Sealed{}, ""
			x.Problem.Retrying = false
		case x.State == AccountDeactivating:
			x.State, x.Problem.Retrying = AccountValid, false
		}
		x.Retries = 0
		if x.Asked == seen.Asked {
			doc.WorkAt = clock.Never
		}
		return nil, nil
	}}
}

// poke has the worker look at an account of an issuer, at the latest in a while. An account that does not exist has nothing to do.
func (a *App) poke(ctx context.Context, issuerID string, in time.Duration) error {
	at := a.Clock.Now().Add(in)
	_, err := a.Accounts.Change(ctx, AccountID(issuerID), func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		d.Body.Asked++
		if d.WorkAt.After(at) {
			d.WorkAt = at
		}
		return nil, nil
	})
	return unknownIsFine(err)
}

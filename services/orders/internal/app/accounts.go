package app

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// account returns the issuer's account ready for use, registering it at the CA when it is new. The account's id follows from the issuer's, and its
// key is stored before the CA hears of it: whoever crashes where, the CA is asked with the same key again and answers with the same account.
func (a *App) account(ctx context.Context, issuer docstore.Doc[domain.Issuer]) (acme.Account, error) {
	accID := AccountID(issuer.ID)
	doc, err := a.Accounts.Get(ctx, accID)
	if err == nil && doc.Body.State == AccountValid {
		return a.open(ctx, issuer, doc)
	}
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return acme.Account{}, err
	}
	_, err, _ = a.registering.Do(accID, func() (any, error) { return nil, a.register(ctx, issuer, accID) })
	if err != nil {
		return acme.Account{}, err
	}
	if doc, err = a.Accounts.Get(ctx, accID); err != nil {
		return acme.Account{}, err
	}
	return a.open(ctx, issuer, doc)
}

// existing returns an account that was used before, without registering.
func (a *App) existing(ctx context.Context, issuerID, accountID string) (acme.Account, docstore.Doc[domain.Issuer], error) {
	issuer, err := a.issuer(ctx, issuerID)
	if err != nil {
		return acme.Account{}, issuer, err
	}
	doc, err := a.Accounts.Get(ctx, accountID)
	if err != nil {
		return acme.Account{}, issuer, err
	}
	if doc.Body.State != AccountValid && accountID == AccountID(issuerID) { // the CA had forgotten it
		acc, err := a.account(ctx, issuer)
		return acc, issuer, err
	}
	acc, err := a.open(ctx, issuer, doc)
	return acc, issuer, err
}

// forget makes an account that the CA does not know any more be registered anew, with the key that it has.
func (a *App) forget(ctx context.Context, f *domain.Failure, acc acme.Account) error {
	if !f.AccountGone || acc.ID == "" {
		return nil
	}
	_, err := a.Accounts.Change(ctx, acc.ID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		if d.Body.State != AccountValid || d.Body.URL != acc.URL {
			return nil, outbox.ErrUnchanged
		}
		d.Body.State, d.Body.Problem = AccountRegistering, f.Problem.Clone()
		return nil, nil
	})
	return err
}

func (a *App) open(ctx context.Context, issuer docstore.Doc[domain.Issuer], doc docstore.Doc[Account]) (acme.Account, error) {
	a.mu.Lock()
	key := a.signers[doc.ID]
	a.mu.Unlock()
	if key == nil {
		der, err := a.Sealer.Open(ctx, doc.Body.Key, []byte(doc.ID))
		if err != nil { // our own trouble: the order waits for it, visibly
			return acme.Account{}, &domain.Failure{Problem: domain.Problem{Reason: errs.ReasonOf(err), Detail: "the key of the ACME account " + doc.ID + " cannot be opened: " + err.Error(), Retrying: true}}
		}
		parsed, err := x509.ParsePKCS8PrivateKey(der)
		clear(der)
		if err != nil {
			return acme.Account{}, errs.New(errs.Internal, "", "the key of account %s cannot be parsed", doc.ID)
		}
		signer, ok := parsed.(crypto.Signer)
		if !ok {
			return acme.Account{}, errs.New(errs.Internal, "", "the key of account %s is of type %T", doc.ID, parsed)
		}
		key = signer
		a.mu.Lock()
		if a.signers == nil {
			a.signers = map[string]crypto.Signer{}
		}
		a.signers[doc.ID] = key
		a.mu.Unlock()
	}
	return acme.Account{ID: doc.ID, Issuer: issuer.Body, URL: doc.Body.URL, Key: key}, nil
}

func (a *App) register(ctx context.Context, issuer docstore.Doc[domain.Issuer], accID string) error {
	doc, err := a.Accounts.Get(ctx, accID)
	if errs.KindOf(err) == errs.NotFound {
		doc, err = a.newAccount(ctx, issuer, accID)
	}
	if err != nil {
		return err
	}
	if doc.Body.State == AccountValid {
		return nil
	}
	acc, err := a.open(ctx, issuer, doc)
	if err != nil {
		return err
	}
	var url string
	err = worker.Call(ctx, "acme.newAccount", func(ctx context.Context) (err error) {
		url, err = a.CA.Register(ctx, acc)
		return err
	})
	_, saveErr := a.Accounts.Change(context.WithoutCancel(ctx), accID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		if err != nil {
			f := failureOf(err)
			if f == nil || d.Body.State == AccountValid || (d.Body.Problem != nil && d.Body.Problem.Detail == f.Problem.Detail) {
				return nil, outbox.ErrUnchanged
			}
			d.Body.Problem = f.Problem.Clone()
			return nil, nil
		}
		d.Body.State, d.Body.URL, d.Body.Problem = AccountValid, url, nil
		return nil, nil
	})
	if err != nil {
		return err
	}
	return saveErr
}

func (a *App) newAccount(ctx context.Context, issuer docstore.Doc[domain.Issuer], accID string) (docstore.Doc[Account], error) {
	key, err := newKey(issuer.Body.AccountKeyAlgorithm)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	sealed, err := a.Sealer.Seal(ctx, der, []byte(accID))
	clear(der)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	sum := sha256.Sum256(public)
	doc := docstore.Doc[Account]{
		Meta: docstore.Meta{ID: accID, Team: issuer.Team},
		Body: Account{IssuerID: issuer.ID, State: AccountRegistering, Contacts: issuer.Body.Contacts, Key: sealed, Thumbprint: hex.EncodeToString(sum[:])},
	}
	if err = a.Accounts.Insert(ctx, &doc); err == nil {
		return doc, nil
	}
	if errs.KindOf(err) != errs.AlreadyExists {
		return doc, err
	}
	return a.Accounts.Get(ctx, accID) // another replica was first: its key counts
}

// newKey makes an account key (RFC 8555 section 6.2; lego takes RSA and ECDSA P-256/P-384).
func newKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "", "ECDSA_P256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSA_P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RSA_2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "RSA_3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA_4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, errs.New(errs.Internal, "", "unknown account key algorithm %q", algorithm)
}

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
	"strings"
	"time"

	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/worker"
)

// AccountState is the state of an ACME account.
type AccountState string

// The states of an account.
const (
	AccountRegistering  AccountState = "registering"
	AccountValid        AccountState = "valid"
	AccountDeactivating AccountState = "deactivating" // the CA has yet to be told
	AccountDeactivated  AccountState = "deactivated"
)

// Account is an ACME account. Its key is stored sealed before the CA hears of it, so that a crash never makes a second account, and so is the key that
// is to follow it, so that none is lost whose change the CA has carried out.
type Account struct {
	IssuerID       string       `bson:"issuer_id"`
	State          AccountState `bson:"state"`
	URL            string       `bson:"url"`
	Contacts       []string     `bson:"contacts"` // as the CA was told
	Key            seal.Sealed  `bson:"key"`      // PKCS#8
	Thumbprint     string       `bson:"thumbprint"`
	NextKey        seal.Sealed  `bson:"next_key"` // PKCS#8; set while the key is being changed
	NextThumbprint string       `bson:"next_thumbprint"`
	// SpareKey is the next key of a change that was given up. A request that was late may have changed it after all: it is asked about when the CA refuses Key.
	SpareKey        seal.Sealed `bson:"spare_key"`
	SpareThumbprint string      `bson:"spare_thumbprint"`

	KeyAt   time.Time       `bson:"key_at"` // when Key took over; zero for the first
	Asked   int64           `bson:"asked"`  // grows whenever the worker is asked to look
	Retries int             `bson:"retries"`
	Problem *domain.Problem `bson:"problem"`
}

// usable says why nothing can be asked of a CA by the account; nil when it can.
func (x *Account) usable(accID string) *domain.Failure {
	switch {
	case x.State == AccountDeactivating || x.State == AccountDeactivated:
		return &domain.Failure{Problem: domain.Problem{Reason: "ACCOUNT_DEACTIVATED", Detail: "the ACME account " + accID +
			" was deactivated; activate it to have a new one registered, or choose another issuer for the certificate"}}
	case x.NextThumbprint != "":
		return keyChanging(accID)
	}
	return nil
}

func keyChanging(accID string) *domain.Failure {
	return &domain.Failure{Problem: domain.Problem{Reason: "ACCOUNT_KEY_CHANGING", Detail: "the key of the ACME account " + accID + " is being changed", Retrying: true}}
}

// account returns the issuer's account ready for use, registering it at the CA when it is new. The account's id follows from the issuer's, and its
// key is stored before the CA hears of it: whoever crashes where, the CA is asked with the same key again and answers with the same account.
func (a *App) account(ctx context.Context, issuer docstore.Doc[domain.Issuer]) (acme.Account, error) {
	accID := AccountID(issuer.ID)
	doc, err := a.Accounts.Get(ctx, accID)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return acme.Account{}, err
	}
	if err != nil || doc.Body.State == AccountRegistering {
		if _, err, _ = a.registering.Do(accID, func() (any, error) { return nil, a.register(ctx, issuer, accID) }); err != nil {
			return acme.Account{}, err
		}
		if doc, err = a.Accounts.Get(ctx, accID); err != nil {
			return acme.Account{}, err
		}
	}
	if f := doc.Body.usable(accID); f != nil {
		return acme.Account{}, f
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
	if doc.Body.State == AccountRegistering && accountID == AccountID(issuerID) { // the CA had forgotten it
		acc, err := a.account(ctx, issuer)
		return acc, issuer, err
	}
	if f := doc.Body.usable(accountID); f != nil {
		return acme.Account{}, issuer, f
	}
	acc, err := a.open(ctx, issuer, doc)
	return acc, issuer, err
}

// reconsider takes what a CA's failure says of the account that it was asked with. One that the CA does not know any more is registered anew, with the key that
// it has. A refusal of a key that is being replaced, or was, is no refusal of what was asked.
func (a *App) reconsider(ctx context.Context, f *domain.Failure, acc acme.Account) error {
	if acc.ID == "" {
		return nil
	}
	if f.AccountGone {
		_, err := a.Accounts.Change(ctx, acc.ID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
			if d.Body.State != AccountValid || d.Body.URL != acc.URL {
				return nil, outbox.ErrUnchanged
			}
			d.Body.State, d.Body.Problem = AccountRegistering, f.Problem.Clone()
			d.Body.NextKey, d.Body.NextThumbprint = seal.Sealed{}, ""
			return nil, nil
		})
		return err
	}
	if f.Problem.Retrying || (!strings.HasSuffix(f.Problem.Type, ":unauthorized") && !strings.HasSuffix(f.Problem.Type, ":malformed")) {
		return nil
	}
	d, err := a.Accounts.Change(ctx, acc.ID, func(d *docstore.Doc[Account]) ([]outbox.Fact, error) {
		x := &d.Body
		if x.State != AccountValid || x.NextThumbprint != "" || x.Thumbprint != acc.Thumbprint || x.SpareThumbprint == "" {
			return nil, outbox.ErrUnchanged
		}
		x.NextKey, x.NextThumbprint, x.Retries = x.SpareKey, x.SpareThumbprint, changeTries
		x.Asked++
		d.WorkAt = a.Clock.Now()
		return nil, nil
	})
	if err == nil && (d.Body.NextThumbprint != "" || d.Body.Thumbprint != acc.Thumbprint) && d.Body.State == AccountValid {
		*f = *keyChanging(acc.ID)
	}
	return err
}

func (a *App) open(ctx context.Context, issuer docstore.Doc[domain.Issuer], doc docstore.Doc[Account]) (acme.Account, error) {
	key, err := a.signer(ctx, doc.ID, doc.Body.Key, doc.Body.Thumbprint)
	return acme.Account{ID: doc.ID, Issuer: issuer.Body, URL: doc.Body.URL, Key: key, Thumbprint: doc.Body.Thumbprint}, err
}

// signer opens a key of an account.
func (a *App) signer(ctx context.Context, accID string, sealed seal.Sealed, thumbprint string) (crypto.Signer, error) {
	a.mu.Lock()
	key := a.signers[thumbprint]
	a.mu.Unlock()
	if key != nil {
		return key, nil
	}
	der, err := a.Sealer.Open(ctx, sealed, []byte(accID))
	if err != nil { // our own trouble: the order waits for it, visibly
		return nil, cannotOpen("the key of the ACME account "+accID, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	clear(der)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "the key of account %s cannot be parsed", accID)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errs.New(errs.Internal, "", "the key of account %s is of type %T", accID, parsed)
	}
	a.mu.Lock()
	if a.signers == nil {
		a.signers = map[string]crypto.Signer{}
	}
	a.signers[thumbprint] = key
	a.mu.Unlock()
	return key, nil
}

func cannotOpen(what string, err error) *domain.Failure {
	return &domain.Failure{Problem: domain.Problem{Reason: errs.ReasonOf(err), Detail: what + " cannot be opened: " + err.Error(), Retrying: true}}
}

func (a *App) register(ctx context.Context, issuer docstore.Doc[domain.Issuer], accID string) error {
	doc, err := a.Accounts.Get(ctx, accID)
	if errs.KindOf(err) == errs.NotFound {
		doc, err = a.newAccount(ctx, issuer, accID)
	}
	if err != nil {
		return err
	}
	if doc.Body.State != AccountRegistering {
		return nil
	}
	acc, err := a.open(ctx, issuer, doc)
	if err != nil {
		return err
	}
	if acc.EABKey, err = a.externalKey(ctx, issuer); err != nil {
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
			if f == nil || d.Body.State != AccountRegistering || (d.Body.Problem != nil && d.Body.Problem.Detail == f.Problem.Detail) {
				return nil, outbox.ErrUnchanged
			}
			d.Body.Problem = f.Problem.Clone()
			return nil, nil
		}
		if d.Body.State != AccountRegistering || d.Body.Thumbprint != doc.Body.Thumbprint {
			return nil, outbox.ErrUnchanged
		}
		d.Body.State, d.Body.URL, d.Body.Problem, d.Body.Contacts = AccountValid, url, nil, acc.Issuer.Contacts
		return nil, nil
	})
	if err != nil {
		return err
	}
	return saveErr
}

func (a *App) newAccount(ctx context.Context, issuer docstore.Doc[domain.Issuer], accID string) (docstore.Doc[Account], error) {
	key, thumbprint, err := a.sealedKey(ctx, issuer.Body.AccountKeyAlgorithm, accID)
	if err != nil {
		return docstore.Doc[Account]{}, err
	}
	doc := docstore.Doc[Account]{
		Meta: docstore.Meta{ID: accID, Team: issuer.Team},
		Body: Account{IssuerID: issuer.ID, State: AccountRegistering, Contacts: issuer.Body.Contacts, Key: key, Thumbprint: thumbprint},
	}
	if err = a.Accounts.Insert(ctx, &doc); err == nil {
		return doc, nil
	}
	if errs.KindOf(err) != errs.AlreadyExists {
		return doc, err
	}
	return a.Accounts.Get(ctx, accID) // another replica was first: its key counts
}

// sealedKey makes a key for an account.
func (a *App) sealedKey(ctx context.Context, algorithm, accID string) (sealed seal.Sealed, thumbprint string, err error) {
	key, err := newKey(algorithm)
	if err != nil {
		return sealed, "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return sealed, "", err
	}
	defer clear(der)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return sealed, "", err
	}
	sum := sha256.Sum256(public)
	sealed, err = a.Sealer.Seal(ctx, der, []byte(accID))
	return sealed, hex.EncodeToString(sum[:]), err
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

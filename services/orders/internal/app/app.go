// Package app is the use cases of orders: what a fact heard, a call, or a due document makes of the aggregates.
package app

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
)

// Stores are the collections of the service.
type Stores struct {
	Orders      *outbox.Collection[domain.Order]
	Issuers     *outbox.Collection[domain.Issuer]
	Accounts    *outbox.Collection[Account]
	Revocations *outbox.Collection[domain.Revocation]
	Requests    *once.Requests
	Budgets     *outbox.Collection[domain.Bucket]
}

// CA is the port to certificate authorities; adapters/acme implements it.
type CA interface {
	Directory(ctx context.Context, i domain.Issuer) (acme.Directory, error)
	Register(ctx context.Context, a acme.Account) (url string, err error)
	Account(ctx context.Context, a acme.Account) (acme.AccountState, error)
	UpdateContacts(ctx context.Context, a acme.Account) error
	RotateKey(ctx context.Context, a acme.Account, next crypto.Signer, askOnly bool) error
	Deactivate(ctx context.Context, a acme.Account) error
	NewOrder(ctx context.Context, a acme.Account, spec domain.Spec, profile, replaces string) (domain.CAOrder, error)
	Order(ctx context.Context, a acme.Account, orderURL string) (domain.CAOrder, error)
	Authorizations(ctx context.Context, a acme.Account, urls []string) ([]domain.Authorization, error)
	Respond(ctx context.Context, a acme.Account, challengeURLs []string) error
	Finalize(ctx context.Context, a acme.Account, orderURL, finalizeURL string, csr []byte) (domain.CAOrder, error)
	Chains(ctx context.Context, a acme.Account, certificateURL string, alternates bool) ([][][]byte, error)
	Revoke(ctx context.Context, a acme.Account, der []byte, reason uint) (already bool, err error)
	RevokeByKey(ctx context.Context, i domain.Issuer, key acme.RemoteKey, der []byte, reason uint) (already bool, err error)
	RenewalInfo(ctx context.Context, i domain.Issuer, certID string) (acme.RenewalInfo, error)
}

// App holds what the use cases need.
type App struct {
	Stores
	CA        CA
	Keys      keysv1.KeysServiceClient
	Inventory inventoryv1.InventoryServiceClient
	Sealer    *seal.Sealer
	Clock     clock.Clock
	Logger    *slog.Logger
	Epoch     string // of the store
	// ARIMinRetry is the shortest Retry-After of a CA's renewal information that is believed.
	ARIMinRetry time.Duration
	// Metrics of the ledger.
	Metrics Metrics

	ledger      ledgerLocks
	registering singleflight.Group
	mu          sync.Mutex
	signers     map[string]crypto.Signer // opened account keys, by thumbprint
	issuers     map[string]cachedIssuer
}

type cachedIssuer struct {
	doc  docstore.Doc[domain.Issuer]
	read time.Time
}

// issuerAge is how long a worker takes an issuer from memory; an edit shows at the latest then.
const issuerAge = 5 * time.Second

// Specs of the collections.
func Specs() (orders, issuers, accounts, revocations docstore.Spec) {
	return docstore.Spec{Name: "orders", Indexes: []docstore.Index{
			{Fields: []string{"certificate_id"}}, {Fields: []string{"state"}}, {Fields: []string{"owner"}}, {Fields: []string{"issuer_id"}}, {Fields: []string{"open"}},
		}},
		docstore.Spec{Name: "issuers", Indexes: []docstore.Index{{Fields: []string{"unique_name"}, Unique: true}}},
		docstore.Spec{Name: "accounts", Indexes: []docstore.Index{{Fields: []string{"issuer_id"}}}},
		docstore.Spec{Name: "revocations", Indexes: []docstore.Index{{Fields: []string{"certificate_id"}}}}
}

// facts turns the domain's facts into the outbox's.
func facts(in []domain.Fact) []outbox.Fact {
	out := make([]outbox.Fact, len(in))
	for i, f := range in {
		switch {
		case f.Await:
			out[i] = outbox.Await(f.Keep, f.Msg)
		case f.Keep != "":
			out[i] = outbox.Keep(f.Keep, f.Msg)
		default:
			out[i] = outbox.Tell(f.Msg)
		}
	}
	return out
}

// settle derives from the order what its document waits for and keeps, and when its worker has something to do. Every write of an order ends with it.
func settle(doc *docstore.Doc[domain.Order], now time.Time) {
	o := &doc.Body
	outbox.Forget(&doc.Meta, func(natural string) bool {
		var attempt, number int64
		switch {
		case scan(natural, "required/%d/%d", &attempt, &number): // nobody asks for it once it is answered
			z := o.Authorization(attempt, number)
			return z == nil || z.State != domain.AuthzPending
		case scan(natural, "closed/%d/%d", &attempt, &number):
			return o.Authorization(attempt, number) == nil
		}
		return false
	})
	next := o.Decide(doc.LeaseToken, now)
	switch {
	case o.State.Final():
		doc.WorkAt = clock.Never
	case next.At.IsZero():
		doc.WorkAt = now
	default:
		doc.WorkAt = next.At
	}
}

// changeOrder applies a pure function of the domain to an order.
func (a *App) changeOrder(ctx context.Context, id string, f func(o *domain.Order) ([]domain.Fact, bool, error)) (docstore.Doc[domain.Order], error) {
	return a.Orders.Change(ctx, id, func(doc *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		o := doc.Body.Clone()
		fs, changed, err := f(&o)
		if err != nil {
			return nil, err
		}
		if !changed {
			return nil, outbox.ErrUnchanged
		}
		doc.Body = o
		settle(doc, a.Clock.Now())
		return facts(fs), nil
	})
}

// issuer reads an issuer, from memory for a few seconds.
func (a *App) issuer(ctx context.Context, id string) (docstore.Doc[domain.Issuer], error) {
	now := a.Clock.Now()
	a.mu.Lock()
	c, ok := a.issuers[id]
	a.mu.Unlock()
	if ok && now.Sub(c.read) < issuerAge {
		return c.doc, nil
	}
	doc, err := a.Issuers.Get(ctx, id)
	if err != nil {
		return doc, err
	}
	a.mu.Lock()
	if a.issuers == nil {
		a.issuers = map[string]cachedIssuer{}
	}
	a.issuers[id] = cachedIssuer{doc: doc, read: now}
	a.mu.Unlock()
	return doc, nil
}

// edited makes an edit of an issuer show here at once.
func (a *App) edited(id string) {
	a.mu.Lock()
	delete(a.issuers, id)
	a.mu.Unlock()
}

// roots of an issuer's chains; nil when none are configured.
func roots(i domain.Issuer) *x509.CertPool {
	if i.IssuedRootsPEM == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(i.IssuedRootsPEM))
	return pool
}

func scan(natural, format string, attempt, number *int64) bool {
	n, _ := fmt.Sscanf(natural, format, attempt, number)
	return n == 2
}

func notFound(what, id string) error {
	return errs.New(errs.NotFound, "NOT_FOUND", "there is no %s %q", what, id)
}

// Package app has the use cases of the dns service: accounts, and sets of TXT records brought into zones and seen there.
//
// It must never let a credential out: they are sealed when stored and opened only to talk to the provider.
package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

// Kind is a provider of DNS. A new one is a folder under adapters, a message in the contract, and a line in the composition root.
type Kind interface {
	// Check completes the settings of an account and names what is wrong with them; the names of fields are those of the provider's message. The
	// credential is what is sealed and given to Open, in a form of the provider's own.
	Check(in domain.Account, secrets Secrets) (settings map[string]string, credential secret.Value, wrong []errs.Field)
	// Open makes the access of one account. It calls nobody.
	Open(settings map[string]string, credential secret.Value) (Provider, error)
}

// ZoneChecker is a Kind whose settings and zones have to fit each other.
type ZoneChecker interface {
	CheckZones(in domain.Account) []errs.Field
}

// Provider is one account's access to its zones. Each method is one step of few requests, ends with ctx, and classifies its errors: Timeout
// means that the change, or a part of it, may have happened, any other kind that it did not.
type Provider interface {
	// Apply makes every value of want, and no value of drop, a TXT record of fqdn. Other values at the name stay as they are. It is idempotent.
	// A change that is not empty is to be asked about by Settled before Read is believed.
	Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (change string, err error)
	// Read asks the provider for all TXT values at fqdn, ours and others'.
	Read(ctx context.Context, zone, fqdn string) ([]string, error)
	// Server names where Read looks, for messages.
	Server() string
}

// Settler is a Provider whose servers take up a change some time after it was accepted.
type Settler interface {
	// Settled reports whether all of them have the change that Apply named.
	Settled(ctx context.Context, change string) (bool, error)
}

// StoredAccount is the document of an account.
type StoredAccount struct {
	domain.Account `bson:",inline"`
	Credential     seal.Sealed `bson:"credential"` // additional data: the account's id
}

// App is the dns service's use cases.
type App struct {
	Accounts *outbox.Collection[StoredAccount]
	Sets     *outbox.Collection[domain.RecordSet]
	Requests *once.Requests
	Sealer   *seal.Sealer
	Kinds    map[string]Kind
	Clock    clock.Clock
	Logger   *slog.Logger
	// Timeout bounds each call to a provider.
	Timeout time.Duration
}

// AccountsSpec declares the collection of accounts.
func AccountsSpec() docstore.Spec {
	return docstore.Spec{Name: "dns_accounts", Indexes: []docstore.Index{
		{Fields: []string{"team"}},
		{Fields: []string{"tombstone", "changed_at"}}, // the janitor's
	}}
}

// SetsSpec declares the collection of record sets.
func SetsSpec() docstore.Spec {
	return docstore.Spec{Name: "record_sets", Indexes: []docstore.Index{
		{Fields: []string{"team", "idle"}},
		{Fields: []string{"idle"}},
		{Fields: []string{"idle", "changed_at"}}, // the janitor's
		{Fields: []string{"account_id"}},
		{Fields: []string{"troubled"}},
	}}
}

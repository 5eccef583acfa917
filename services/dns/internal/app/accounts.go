package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

// AccountDoc is a stored account.
type AccountDoc = docstore.Doc[StoredAccount]

// CheckAccount completes what a user gave, and makes the credential that is sealed. Invalid INVALID_ARGUMENT names the fields.
func (a *App) CheckAccount(in domain.Account, secrets Secrets) (domain.Account, secret.Value, error) {
	var credential secret.Value
	account, wrong := domain.NewAccount(in, "dnsAccount")
	kind, known := a.Kinds[in.Provider]
	if !known {
		wrong = append(wrong, errs.Field{Name: "dnsAccount.provider", Msg: fmt.Sprintf("%q given, allowed: %s", in.Provider, a.providers())})
	} else {
		var more []errs.Field
		account.Settings, credential, more = kind.Check(account, secrets)
		more = append(more, zonesFit(kind, account)...)
		for _, f := range more {
			wrong = append(wrong, errs.Field{Name: "dnsAccount." + in.Provider + "." + f.Name, Msg: f.Msg})
		}
	}
	if len(wrong) == 0 {
		return account, credential, nil
	}
	e := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the DNS account is not valid")
	e.Fields = wrong
	return account, secret.Value{}, e
}

func zonesFit(kind Kind, account domain.Account) []errs.Field {
	if c, ok := kind.(ZoneChecker); ok {
		return c.CheckZones(account)
	}
	return nil
}

// CreateAccount stores a checked account under id; when the id exists already the call is a repeat and answers what is stored.
func (a *App) CreateAccount(ctx context.Context, id, team string, account domain.Account, credential secret.Value) (AccountDoc, error) {
	sealed, err := a.seal(ctx, id, credential)
	if err != nil {
		return AccountDoc{}, err
	}
	doc := AccountDoc{
		Meta: docstore.Meta{ID: id, Team: team, WorkAt: clock.Never},
		Body: StoredAccount{Account: account, Credential: sealed},
	}
	err = a.Accounts.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		return a.Accounts.Get(ctx, id)
	}
	if err != nil {
		return AccountDoc{}, err
	}
	a.wake(ctx, team, account)
	return doc, nil
}

func (a *App) seal(ctx context.Context, id string, credential secret.Value) (seal.Sealed, error) {
	return a.Sealer.Seal(ctx, credential.RevealBytes(), []byte(id))
}

func (a *App) providers() string { return strings.Join(slices.Sorted(maps.Keys(a.Kinds)), ", ") }

// Account returns an account that is not deleted.
func (a *App) Account(ctx context.Context, id string) (AccountDoc, error) {
	doc, err := a.Accounts.Get(ctx, id)
	if err == nil && doc.Tombstone || errs.KindOf(err) == errs.NotFound {
		return AccountDoc{}, errs.New(errs.NotFound, "", "DNS account %s does not exist", id)
	}
	return doc, err
}

// ListAccounts returns a page of accounts by id, of all teams when team is empty.
func (a *App) ListAccounts(ctx context.Context, team string, size int, after string) (docstore.Page[StoredAccount], error) {
	q := docstore.Query{Limit: size, After: after, Filter: []docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}}
	return a.Accounts.Find(ctx, listing.By(q, listing.Term{"team", team}))
}

// SetDisabled enables or disables an account. A disabled one takes up no further names; what it wrote it still removes. Either may mend what is in trouble:
// the account itself is back, or another takes the name up.
func (a *App) SetDisabled(ctx context.Context, id string, disabled bool) (AccountDoc, error) {
	if _, err := a.Account(ctx, id); err != nil {
		return AccountDoc{}, err
	}
	doc, err := a.Accounts.Change(ctx, id, func(doc *AccountDoc) ([]outbox.Fact, error) {
		if doc.Body.Disabled == disabled {
			return nil, outbox.ErrUnchanged
		}
		doc.Body.Disabled = disabled
		return nil, nil
	})
	if err == nil {
		a.wake(ctx, doc.Team, doc.Body.Account)
	}
	return doc, err
}

// DeleteAccount deletes an account; a deleted one is deleted again with success. Precondition DNS_ACCOUNT_IN_USE while records of it are or may be in a zone.
func (a *App) DeleteAccount(ctx context.Context, id string) error {
	page, err := a.Sets.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "account_id", Op: docstore.Eq, Value: id}}, Limit: 5})
	if err != nil {
		return err
	}
	if len(page.Docs) > 0 {
		names := make([]string, len(page.Docs))
		for i, d := range page.Docs {
			names[i] = d.Body.FQDN
		}
		more := ""
		if page.Next != "" {
			more = " and more"
		}
		return errs.New(errs.Precondition, domain.ReasonAccountInUse,
			"the DNS account %s has records in its zones: %s%s; disable it, and delete it when the challenges at these names are over", id, strings.Join(names, ", "), more)
	}
	_, err = a.Accounts.Change(ctx, id, func(doc *AccountDoc) ([]outbox.Fact, error) {
		if doc.Tombstone {
			return nil, outbox.ErrUnchanged
		}
		doc.Tombstone = true
		return nil, nil
	})
	return err
}

// Resolve says which account would write the TXT record of this name for a team. only names the one that will do; empty: any.
func (a *App) Resolve(ctx context.Context, team, record, only string) (domain.Choice, bool, error) {
	var all []domain.Candidate
	for _, t := range domain.MayServe(team) {
		for after := ""; ; {
			page, err := a.ListAccounts(ctx, t, 1000, after)
			if err != nil {
				return domain.Choice{}, false, err
			}
			for _, d := range page.Docs {
				all = append(all, domain.Candidate{ID: d.ID, Team: d.Team, Account: d.Body.Account})
			}
			if after = page.Next; after == "" {
				break
			}
		}
	}
	if only != "" {
		choice, ok := domain.ChooseOnly(all, team, record, only)
		return choice, ok, nil
	}
	choice, ok := domain.Choose(all, team, record)
	return choice, ok, nil
}

// open makes the access of an account. Tombstones are opened too: what they wrote has to be removed.
func (a *App) open(ctx context.Context, doc AccountDoc) (Provider, error) {
	kind, ok := a.Kinds[doc.Body.Provider]
	if !ok {
		return nil, errs.New(errs.Precondition, domain.ReasonProviderUnknown, "the DNS account %s wants the provider %q, which this version does not have; known are %s",
			doc.ID, doc.Body.Provider, a.providers())
	}
	plain, err := a.Sealer.Open(ctx, doc.Body.Credential, []byte(doc.ID))
	if err != nil {
		return nil, errs.New(errs.Precondition, domain.ReasonCredentialsSealed, "the credentials of the DNS account %s cannot be opened: %w", doc.ID, err)
	}
	defer clear(plain)
	return kind.Open(doc.Body.Settings, secret.NewBytes(plain))
}

// wake makes the sets that are in trouble try again, now that something was mended. It is a courtesy: each tries again by itself later.
func (a *App) wake(ctx context.Context, team string, account domain.Account) {
	ctx = outbox.WithoutCall(ctx)
	page, err := a.Sets.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "troubled", Op: docstore.Eq, Value: true}}, Limit: 1000})
	if err != nil {
		a.Logger.WarnContext(ctx, "record sets in trouble cannot be read", "error", err)
		return
	}
	for _, d := range page.Docs {
		if !account.Covers(d.Body.FQDN) || !slices.Contains(domain.MayServe(d.Team), team) {
			continue
		}
		if _, ok, err := a.Resolve(ctx, d.Team, d.Body.FQDN, d.Body.Only); err != nil || !ok {
			continue // no account is left that could serve it
		}
		_, err := a.Sets.Change(ctx, d.ID, func(doc *SetDoc) ([]outbox.Fact, error) {
			if !doc.Body.Troubled {
				return nil, outbox.ErrUnchanged
			}
			doc.Body.Retry()
			a.schedule(doc)
			return nil, nil
		})
		if err != nil {
			a.Logger.WarnContext(ctx, "a record set is left to try again by itself", "id", d.ID, "error", err)
		}
	}
}

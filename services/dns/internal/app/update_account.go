package app

import (
	"context"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// Edit is what a user wants to change of an account.
type Edit struct {
	Account domain.Account
	Secrets Secrets
	// What is changed: the name, the zones, and what the provider wants to know, all of it with its secrets.
	Name, Zones, Provider bool
}

// UpdateAccount changes an account; what is in trouble tries again with it at once. Invalid INVALID_ARGUMENT names the fields.
func (a *App) UpdateAccount(ctx context.Context, id string, edit Edit) (AccountDoc, error) {
	doc, err := a.Accounts.Change(ctx, id, func(doc *AccountDoc) ([]outbox.Fact, error) {
		if doc.Tombstone {
			return nil, errs.New(errs.NotFound, "", "DNS account %s does not exist", id)
		}
		merged := doc.Body.Account
		if edit.Name {
			merged.DisplayName = edit.Account.DisplayName
		}
		if edit.Zones {
			merged.Zones = edit.Account.Zones
		}
		if !edit.Provider {
			checked, wrong := domain.NewAccount(merged, "dnsAccount")
			if kind, ok := a.Kinds[merged.Provider]; ok {
				for _, f := range zonesFit(kind, checked) {
					wrong = append(wrong, errs.Field{Name: "dnsAccount." + merged.Provider + "." + f.Name, Msg: f.Msg})
				}
			}
			if len(wrong) > 0 {
				e := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the DNS account is not valid")
				e.Fields = wrong
				return nil, e
			}
			doc.Body.Account = checked
			return nil, nil
		}

		merged.Settings, merged.TTL = edit.Account.Settings, edit.Account.TTL
		checked, credential, err := a.CheckAccount(merged, edit.Secrets)
		if err != nil {
			return nil, err
		}
		if doc.Body.Credential, err = a.seal(ctx, id, credential); err != nil {
			return nil, err
		}
		doc.Body.Account = checked
		return nil, nil
	})
	if err == nil {
		a.wake(ctx, doc.Team, doc.Body.Account)
	}
	return doc, err
}

package app

import (
	"cmp"
	"context"
	"slices"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// EnsureCSR makes the key and the CSR of an order at the first call, and answers the same document at every further one, also when calls race.
// Precondition ORDER_ENDED when the order has ended meanwhile; Conflict KEY_REQUEST_DIFFERS when the order asked for another key before.
func (a *App) EnsureCSR(ctx context.Context, r domain.Request) (docstore.Doc[domain.Key], error) {
	if err := r.Validate(); err != nil {
		return doc{}, err
	}
	keyID := KeyID(r.OrderID)
	if d, err := a.Keys.Get(ctx, keyID); errs.KindOf(err) != errs.NotFound {
		return ensured(d, r, err)
	}
	d, err := a.make(ctx, keyID, r)
	if errs.KindOf(err) == errs.AlreadyExists {
		d, err = a.Keys.Get(ctx, keyID)
		return ensured(d, r, err)
	}
	return d, err
}

func ensured(d doc, r domain.Request, err error) (doc, error) {
	switch k := d.Body; {
	case err != nil:
		return doc{}, err
	case k.State == domain.Destroyed:
		return doc{}, errs.New(errs.Precondition, "ORDER_ENDED", "the order %s has ended (%s): it gets no key", r.OrderID, k.DestroyReason)
	case k.CertificateID != r.CertificateID || k.Algorithm != r.Algorithm || !slices.Equal(k.Names, r.Names):
		return doc{}, errs.New(errs.Conflict, "KEY_REQUEST_DIFFERS",
			"the order %s has a key of %s for other names, certificate or algorithm; an order has one key", r.OrderID, k.Algorithm)
	}
	return d, nil
}

func (a *App) make(ctx context.Context, keyID string, r domain.Request) (doc, error) {
	key, err := material.Generate(r.Algorithm)
	if err != nil {
		return doc{}, err
	}
	csr, err := material.CSR(key, r.Names)
	if err != nil {
		return doc{}, err
	}
	spki, err := material.SPKI(key.Public())
	if err != nil {
		return doc{}, err
	}
	pkcs8, err := material.PKCS8(key)
	if err != nil {
		return doc{}, err
	}
	defer clear(pkcs8)
	sealed, err := a.Sealer.Seal(ctx, pkcs8, []byte(keyID))
	if err != nil {
		return doc{}, err
	}
	body, events := domain.New(keyID, r, csr, spki, domain.Sealed(sealed), a.Clock.Now(), a.Times)
	d := doc{Meta: docstore.Meta{ID: keyID, Team: cmp.Or(r.Team, authz.DefaultTeam)}, Body: body}
	facts := stored(&d, events)
	return d, a.Keys.Insert(ctx, &d, facts...)
}

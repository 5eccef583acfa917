package app

import (
	"context"
	"slices"
	"strings"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
)

// Revoke is the wish to have a version revoked.
type Revoke struct {
	ID            string
	VersionID     string // empty: the current one
	Reason        string // empty: unspecified
	NoReplacement bool
	Now           bool
}

// RevokeCertificate moves a version to revoking; orders is told at once, or when its replacement is served. A deleted certificate's versions can be revoked as
// long as the tombstone stays.
func (a *App) RevokeCertificate(ctx context.Context, r Revoke) (Certificate, Version, error) {
	who, err := authz.Require(ctx)
	if err != nil {
		return Certificate{}, Version{}, err
	}
	if r.Reason == "" {
		r.Reason = domain.RevocationReasons()[0]
	}
	if !slices.Contains(domain.RevocationReasons(), r.Reason) {
		return Certificate{}, Version{}, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the reason is not valid").
			WithField("reason", "%q given, allowed: %s", r.Reason, strings.Join(domain.RevocationReasons(), ", "))
	}
	doc, v, err := a.GetVersion(ctx, r.ID, r.VersionID)
	if err != nil {
		return doc, v, err
	}
	m := a.moment(ctx, r.ID)
	ask := domain.RevokeAsk{
		Version: v.Body.Facts, DER: v.Body.Chain[0], Reason: r.Reason, By: who.Subject, NoReplacement: r.NoReplacement, Now: r.Now,
		Wait: a.Config.RevokeWait,
	}
	doc, err = a.change(ctx, m, func(doc *Certificate) (domain.Outcome, error) { return doc.Body.Revoke(ask, m) })
	return doc, v, err
}

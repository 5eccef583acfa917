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
	doc, v, err := a.version(ctx, r.ID, r.VersionID)
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

// version loads a certificate that the caller may see and one of its versions, by default the current one.
func (a *App) version(ctx context.Context, certificate, version string) (Certificate, Version, error) {
	doc, err := a.visible(ctx, certificate)
	if err != nil {
		return doc, Version{}, err
	}
	if version == "" {
		if doc.Body.Current == nil {
			return doc, Version{}, errs.New(errs.Precondition, "NO_VERSION", "certificate %s has no version yet", certificate)
		}
		version = doc.Body.Current.VersionID
	}
	v, err := a.Versions.Get(ctx, version)
	if isNotFound(err) || err == nil && v.Body.CertificateID != certificate {
		return doc, v, errs.New(errs.NotFound, "", "certificate %s has no version %s", certificate, version)
	}
	if err != nil {
		return doc, v, err
	}
	if state, _ := doc.Body.VersionState(v.Body); state == "" {
		return doc, v, errs.New(errs.NotFound, "", "certificate %s has no version %s yet", certificate, version)
	}
	return doc, v, nil
}

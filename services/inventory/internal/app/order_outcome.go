package app

import (
	"cmp"
	"context"
	"errors"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// OrderAccepted records that orders has the order, which may take its time from now on.
func (a *App) OrderAccepted(ctx context.Context, certificate, order string) error {
	m := a.moment(ctx, certificate)
	return a.heard(ctx, m, func(doc *Certificate) domain.Outcome {
		out := doc.Body.Accept(order)
		if i := doc.Body.Intent; i.IsOpen() && i.OrderID == order && a.Certs.Rest(&doc.Meta, domain.RequestedKey(i.Number)) {
			out.Changed = true
		}
		return out
	})
}

// OrderEnded closes the intent of an order that ended without a certificate.
func (a *App) OrderEnded(ctx context.Context, certificate, order, outcome string, problem *domain.Problem, byUser bool) error {
	m := a.moment(ctx, certificate)
	return a.heard(ctx, m, func(doc *Certificate) domain.Outcome { return doc.Body.CloseIntent(order, outcome, problem, byUser, m) })
}

// heard applies a fact to its certificate. A certificate that is gone needs it no more.
func (a *App) heard(ctx context.Context, m domain.Moment, f func(doc *Certificate) domain.Outcome) error {
	_, err := a.change(ctx, m, func(doc *Certificate) (domain.Outcome, error) { return f(doc), nil })
	if isNotFound(err) {
		a.Logger.DebugContext(ctx, "a fact of a certificate that is gone", "certificate_id", m.ID)
		return nil
	}
	return err
}

// IssuedOrder is an order that brought a certificate.
type IssuedOrder struct {
	OrderID, CertificateID     string
	IntentNumber               int64
	Chain                      [][]byte
	IssuerID, AccountID, KeyID string
	Team                       string
}

// OrderIssued makes a version of an issued order, or refuses to, and answers orders with exactly one of version_added and version_refused: the same each time.
//
// The version is stored first and the certificate then pointed to it. A crash in between is healed by orders, which tells the order again until it is answered.
func (a *App) OrderIssued(ctx context.Context, o IssuedOrder) error {
	facts, err := domain.ReadLeaf(domain.Facts{
		VersionID: id.Derive("ver", o.OrderID), Number: o.IntentNumber, OrderID: o.OrderID, IssuerID: o.IssuerID, AccountID: o.AccountID, KeyID: o.KeyID,
	}, o.Chain)
	if err != nil {
		return err
	}
	for range 10 {
		err = a.orderIssued(ctx, o, facts)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	return errs.New(errs.Conflict, "TOO_BUSY", "certificate %s is being changed by too many at once", o.CertificateID)
}

func (a *App) orderIssued(ctx context.Context, o IssuedOrder, facts domain.Facts) error {
	doc, err := a.Certs.Get(ctx, o.CertificateID)
	if isNotFound(err) {
		return a.refuseUnknown(ctx, o)
	}
	if err != nil {
		return err
	}
	if told, err := a.Certs.TellAgain(ctx, doc, domain.VersionKey(o.OrderID)); told || err != nil {
		return err
	}
	stored, err := a.Versions.Get(ctx, facts.VersionID)
	if err != nil && !isNotFound(err) {
		return err
	}
	isStored := err == nil
	verdict := doc.Body.Judge(o.OrderID, o.IntentNumber, isStored)
	switch {
	case verdict.Refused() && isStored: // deleted between the version and the pointer to it
		if err := a.Versions.Remove(ctx, stored); err != nil && !isNotFound(err) {
			return err
		}
	case !isStored && !verdict.Refused():
		if stored, err = a.storeVersion(ctx, doc, o, facts, verdict); err != nil {
			return err
		}
	}
	m := a.moment(ctx, o.CertificateID)
	_, err = a.change(ctx, m, func(now *Certificate) (domain.Outcome, error) {
		if now.Revision != doc.Revision { // judge the certificate that is written, not the one that was read
			return domain.Outcome{}, errMoved
		}
		if verdict.Refused() {
			return now.Body.Refuse(o.OrderID, verdict, m), nil
		}
		return now.Body.AddVersion(stored.Body, verdict, m), nil
	})
	return err
}

// storeVersion inserts the version; a replica that was quicker is fine, and what it stored counts.
func (a *App) storeVersion(ctx context.Context, doc Certificate, o IssuedOrder, facts domain.Facts, verdict domain.Verdict) (Version, error) {
	v := Version{Meta: docstore.Meta{ID: facts.VersionID, Team: doc.Team}, Body: domain.Version{
		CertificateID: doc.ID, Facts: facts, Chain: o.Chain, Unneeded: verdict == domain.TakenAsUnneeded,
	}}
	if doc.Body.Current != nil {
		v.Body.Replaces = doc.Body.Current.VersionID
	}
	err := a.Versions.Insert(ctx, &v)
	if isExists(err) {
		return a.Versions.Get(ctx, facts.VersionID)
	}
	return v, err
}

// refuseUnknown answers an order of a certificate that this store does not have (any more): a tombstone by its id keeps the answer.
func (a *App) refuseUnknown(ctx context.Context, o IssuedOrder) error {
	m := a.moment(ctx, o.CertificateID)
	doc := Certificate{Meta: docstore.Meta{ID: o.CertificateID, Team: cmp.Or(o.Team, authz.DefaultTeam)}, Body: domain.Unknown(m)}
	facts, _ := settle(&doc, doc.Body.Refuse(o.OrderID, domain.RefusedDeleted, m))
	err := a.Certs.Insert(outbox.WithoutCall(ctx), &doc, facts...)
	if isExists(err) {
		return errMoved
	}
	return err
}

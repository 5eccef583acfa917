package app

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Outcome is what became of an order.
type Outcome struct {
	OrderID       string
	CertificateID string
	Team          string
	Reason        string // domain.OrderEnded or domain.VersionRefused
}

// OrderEnded destroys the key of an order that ended without a version. An order whose key is not known leaves a record, so that a CSR asked for
// too late is refused.
func (a *App) OrderEnded(ctx context.Context, o Outcome) error {
	if o.OrderID == "" {
		return nil
	}
	keyID := KeyID(o.OrderID)
	for {
		err := a.orderEnded(ctx, keyID, o.Reason)
		if errs.KindOf(err) != errs.NotFound {
			return err
		}
		d := doc{
			Meta: docstore.Meta{ID: keyID, Team: cmp.Or(o.Team, authz.DefaultTeam)},
			Body: domain.Ended(o.OrderID, o.CertificateID, o.Reason, a.Clock.Now(), a.Times),
		}
		if err = a.Keys.Insert(ctx, &d); errs.KindOf(err) != errs.AlreadyExists {
			return err
		}
	}
}

func (a *App) orderEnded(ctx context.Context, keyID, reason string) error {
	_, err := a.change(ctx, keyID, func(k *domain.Key, now time.Time) ([]proto.Message, bool) {
		return k.OrderEnded(keyID, reason, now, a.Times)
	})
	return err
}

// VersionAdded activates the key of a new version and settles the older keys of its certificate. A key that this service does not have (it was
// made by the user or on a host) is no business of its.
func (a *App) VersionAdded(ctx context.Context, keyID string, v domain.Version) error {
	d, err := a.change(ctx, keyID, func(k *domain.Key, now time.Time) ([]proto.Message, bool) {
		return k.VersionAdded(keyID, v, now, a.Times)
	})
	if err != nil {
		return ignoreNotFound(err)
	}
	return a.settle(ctx, d.Body.CertificateID)
}

// VersionRevoked marks the key of a version that was revoked because its key is known to others.
func (a *App) VersionRevoked(ctx context.Context, keyID, reason string) error {
	if reason != "keyCompromise" {
		return nil
	}
	d, err := a.change(ctx, keyID, func(k *domain.Key, _ time.Time) ([]proto.Message, bool) { return nil, k.Compromise() })
	if err != nil {
		return ignoreNotFound(err)
	}
	return a.settle(ctx, d.Body.CertificateID)
}

// CertificateDeleted plans the destruction of all keys of a certificate.
func (a *App) CertificateDeleted(ctx context.Context, certificateID string) error {
	return a.living(ctx, certificateID, func(d doc) error {
		_, err := a.change(ctx, d.ID, func(k *domain.Key, now time.Time) ([]proto.Message, bool) {
			return nil, k.CertificateGone(now, a.Times)
		})
		return ignoreNotFound(err)
	})
}

// settle deactivates and destroys the keys that a newer version has made old. Doing it again changes nothing.
func (a *App) settle(ctx context.Context, certificateID string) error {
	keys := map[string]domain.Key{}
	err := a.living(ctx, certificateID, func(d doc) error {
		keys[d.ID] = d.Body
		return nil
	})
	if err != nil {
		return err
	}
	for _, v := range domain.Judge(keys, a.KeepPrevious) {
		_, err := a.change(ctx, v.KeyID, func(k *domain.Key, now time.Time) ([]proto.Message, bool) {
			if v.Destroy {
				return k.Destroy(v.KeyID, domain.Superseded, now, a.Times)
			}
			return nil, k.Supersede()
		})
		if ignoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

// living calls f for each key of the certificate that is not destroyed.
func (a *App) living(ctx context.Context, certificateID string, f func(d doc) error) error {
	if certificateID == "" {
		return nil
	}
	q := docstore.Query{Where: []docstore.Cond{
		{Field: "certificate_id", Op: docstore.Eq, Value: certificateID}, {Field: "live", Op: docstore.Eq, Value: true},
	}, Limit: 1000}
	for {
		page, err := a.Keys.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range page.Docs {
			if err := f(d); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.After = page.Next
	}
}

func ignoreNotFound(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}

package app

import (
	"context"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// Review is the worker's step: it asks inventory whether the key is still needed, so that no key outlives what it was made for, whatever facts were lost, and
// none is destroyed on the word of a lost certificate alone.
func (a *App) Review(ctx context.Context, d docstore.Doc[domain.Key]) (worker.Result[domain.Key], error) {
	s, err := a.status(ctx, d.Body)
	if err != nil {
		return worker.Result[domain.Key]{}, err
	}
	return worker.Result[domain.Key]{Apply: func(d *doc) ([]outbox.Fact, error) {
		return stored(d, d.Body.Reviewed(d.ID, s, a.Clock.Now(), a.Times)), nil
	}}, nil
}

func (a *App) status(ctx context.Context, k domain.Key) (domain.Status, error) {
	versionID := k.VersionID
	if versionID == "" {
		versionID = id.Derive("ver", k.OrderID)
	}
	var v *inventoryv1.VersionStatus
	err := worker.Call(ctx, "inventory.GetVersionStatus", func(ctx context.Context) (err error) {
		v, err = a.Inventory.GetVersionStatus(ctx, &inventoryv1.GetVersionStatusRequest{VersionId: versionID})
		return err
	})
	if err != nil {
		return domain.Status{}, ignoreNotFound(err)
	}
	facts := v.GetVersion().GetFacts()
	if facts.GetOrderId() != "" && facts.GetOrderId() != k.OrderID {
		return domain.Status{}, errs.New(errs.Internal, "", "inventory says that the version %s is of the order %s, not of %s", versionID, facts.GetOrderId(), k.OrderID)
	}
	return domain.Status{Known: true, Gone: v.GetCertificateDeleted(), Version: domain.Version{
		ID: versionID, Number: facts.GetNumber(), Unneeded: v.GetVersion().GetState() == "unneeded",
	}}, nil
}

// Forget removes the records of keys destroyed long ago.
func (a *App) Forget(ctx context.Context) error {
	return a.Keys.RemoveAll(ctx, docstore.Cond{Field: "forget_at", Op: docstore.Lte, Value: a.Clock.Now()})
}

package app

import (
	"context"
	"slices"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Sweep removes what has served its time: notes of requests, and tombstones whose order has ended and whose facts are told and answered.
func (a *App) Sweep(ctx context.Context) error {
	if err := a.Requests.Sweep(ctx); err != nil {
		return err
	}
	cutoff := a.Clock.Now().Add(-a.Config.TombstoneKeep)
	after := ""
	for {
		page, err := a.Certs.Find(ctx, docstore.Query{
			Where: []docstore.Cond{{Field: "deleted_at", Op: docstore.Lte, Value: cutoff}}, Limit: 200, After: after,
		})
		if err != nil {
			return err
		}
		for _, doc := range page.Docs {
			if err := a.bury(ctx, doc); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// bury removes a tombstone and its versions, versions first: who finds a version finds its certificate.
func (a *App) bury(ctx context.Context, doc Certificate) error {
	awaits := slices.ContainsFunc(doc.Kept, func(k docstore.Kept) bool { return k.Await })
	if awaits || doc.Body.Intent.IsOpen() || doc.Body.Revoking() {
		return nil
	}
	if err := a.Versions.RemoveAll(ctx, docstore.Cond{Field: "certificate_id", Op: docstore.Eq, Value: doc.ID}); err != nil {
		return err
	}
	return ignoreBusy(a.Certs.Remove(ctx, doc)) // not yet while its outbox has something: the next sweep tries again
}

func ignoreBusy(err error) error {
	if k := errs.KindOf(err); k == errs.Conflict || k == errs.NotFound {
		return nil
	}
	return err
}

package app

import (
	"context"
	"time"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
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
	if doc.Body.Intent.IsOpen() || doc.Body.Revoking() {
		return nil
	}
	for _, k := range doc.Kept {
		if outbox.Awaits(doc.Meta, k.Key) {
			return nil
		}
	}
	for after := ""; ; {
		page, err := a.Versions.Find(ctx, docstore.Query{
			Where: []docstore.Cond{{Field: "certificate_id", Op: docstore.Eq, Value: doc.ID}}, After: after,
		})
		if err != nil {
			return err
		}
		for _, v := range page.Docs {
			if err := ignoreBusy(a.Versions.Remove(ctx, v)); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	return ignoreBusy(a.Certs.Remove(ctx, doc)) // not yet while its outbox has something: the next sweep tries again
}

func ignoreBusy(err error) error {
	if k := errs.KindOf(err); err != nil && (k == errs.Conflict || k == errs.NotFound) {
		return nil
	}
	return err
}

// Janitor sweeps every so often until ctx ends.
func (a *App) Janitor(every time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		for a.Clock.Sleep(ctx, every) == nil {
			if err := a.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.Logger.WarnContext(ctx, "sweeping is tried again", "error", err)
			}
		}
		return nil
	}
}

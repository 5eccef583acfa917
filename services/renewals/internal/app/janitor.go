package app

import (
	"context"
	"time"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// tombstoneKeep is how long a dropped plan stays: longer than any fact about its certificate can still arrive.
const tombstoneKeep = 30 * 24 * time.Hour

// Sweep removes the tombstones that have served their time.
func (a *App) Sweep(ctx context.Context) error {
	cutoff := a.Clock.Now().Add(-tombstoneKeep)
	for after := ""; ; {
		page, err := a.Plans.Find(ctx, docstore.Query{
			Where: []docstore.Cond{{Field: "dropped_at", Op: docstore.Lte, Value: cutoff}}, Limit: 500, After: after,
		})
		if err != nil {
			return err
		}
		for _, d := range page.Docs {
			if err := a.Plans.Remove(ctx, d); err != nil && errs.KindOf(err) != errs.Conflict && errs.KindOf(err) != errs.NotFound {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// Janitor sweeps every hour until ctx ends.
func (a *App) Janitor(ctx context.Context) error {
	for a.Clock.Sleep(ctx, time.Hour) == nil {
		if err := a.Sweep(ctx); err != nil && ctx.Err() == nil {
			a.Logger.WarnContext(ctx, "sweeping is tried again", "error", err)
		}
	}
	return nil
}

package app

import (
	"context"
	"time"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// keepEmpty is how long a set without values, and a deleted account, are kept.
const keepEmpty = 24 * time.Hour

// Janitor removes what is over, every hour until ctx ends.
func (a *App) Janitor(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := a.Tidy(ctx); err != nil && ctx.Err() == nil {
			a.Logger.WarnContext(ctx, "tidying is put off", "error", err)
		}
		if a.Clock.Sleep(ctx, time.Hour) != nil {
			return nil
		}
	}
	return nil
}

// Tidy removes empty record sets, deleted accounts that nothing uses, and old requests, once.
func (a *App) Tidy(ctx context.Context) error {
	before := docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: a.Clock.Now().Add(-keepEmpty)}
	if err := sweep(ctx, a.Sets, docstore.Cond{Field: "idle", Op: docstore.Eq, Value: true}, before); err != nil {
		return err
	}
	if err := sweep(ctx, a.Accounts, docstore.Cond{Field: "tombstone", Op: docstore.Eq, Value: true}, before); err != nil {
		return err
	}
	return a.Requests.Sweep(ctx)
}

func sweep[T any](ctx context.Context, c *outbox.Collection[T], where ...docstore.Cond) error {
	page, err := c.Find(ctx, docstore.Query{Where: where, Limit: 1000})
	if err != nil {
		return err
	}
	for _, d := range page.Docs {
		if err := c.Remove(ctx, d); err != nil && errs.KindOf(err) != errs.Conflict && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

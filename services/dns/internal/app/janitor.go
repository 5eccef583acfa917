package app

import (
	"context"
	"errors"
	"time"

	"github.com/certwright/certwright/shared/docstore"
)

// keepEmpty is how long a set without values, and a deleted account, are kept.
const keepEmpty = 24 * time.Hour

// Tidy removes empty record sets, deleted accounts that nothing uses, and old requests.
func (a *App) Tidy(ctx context.Context) error {
	before := docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: a.Clock.Now().Add(-keepEmpty)}
	return errors.Join(
		a.Sets.RemoveAll(ctx, docstore.Cond{Field: "idle", Op: docstore.Eq, Value: true}, before),
		a.Accounts.RemoveAll(ctx, docstore.Cond{Field: "tombstone", Op: docstore.Eq, Value: true}, before),
		a.Requests.Sweep(ctx),
	)
}

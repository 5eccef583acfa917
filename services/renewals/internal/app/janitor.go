package app

import (
	"context"
	"time"

	"github.com/certwright/certwright/shared/docstore"
)

// tombstoneKeep is how long a dropped plan stays: longer than any fact about its certificate can still arrive.
const tombstoneKeep = 30 * 24 * time.Hour

// Sweep removes the tombstones that have served their time.
func (a *App) Sweep(ctx context.Context) error {
	return a.Plans.RemoveAll(ctx, docstore.Cond{Field: "dropped_at", Op: docstore.Lte, Value: a.Clock.Now().Add(-tombstoneKeep)})
}

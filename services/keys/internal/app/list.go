package app

import (
	"context"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/listing"
)

// List returns a page of keys by their order's id. filter takes certificate and state; team "" is all teams. Records of orders that ended without a key are left out.
func (a *App) List(ctx context.Context, filter, team string, size int32, after string) (docstore.Page[domain.Key], error) {
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Page[domain.Key]{}, err
	}
	terms, err := listing.Filter(filter, "certificate", "state")
	if err != nil {
		return docstore.Page[domain.Key]{}, err
	}
	return a.Keys.Find(ctx, listing.By(docstore.Query{Limit: limit, After: after},
		listing.Term{"certificate_id", terms["certificate"]}, listing.Term{"state", terms["state"]}, listing.Term{"team", team}))
}

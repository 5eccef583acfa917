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
	q := docstore.Query{Limit: limit, After: after}
	for _, c := range []docstore.Cond{
		{Field: "certificate_id", Op: docstore.Eq, Value: terms["certificate"]},
		{Field: "state", Op: docstore.Eq, Value: terms["state"]},
		{Field: "team", Op: docstore.Eq, Value: team},
	} {
		switch {
		case c.Value == "":
		case len(q.Where) == 0:
			q.Where = append(q.Where, c)
		default:
			q.Filter = append(q.Filter, c)
		}
	}
	return a.Keys.Find(ctx, q)
}

package app

import (
	"context"
	"slices"
	"time"

	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
)

// List returns a page of the plans that match the filter.
func (a *App) List(ctx context.Context, filter string, size int32, after string) (docstore.Page[domain.Plan], error) {
	var none docstore.Page[domain.Plan]
	terms, err := listing.Filter(filter, "state", "owner", "due_before")
	if err != nil {
		return none, err
	}
	limit, err := listing.Size(size)
	if err != nil {
		return none, err
	}
	q := docstore.Query{Limit: limit, After: after, Filter: []docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}}
	var conds []docstore.Cond
	if owner, ok := terms["owner"]; ok {
		conds = append(conds, docstore.Cond{Field: "owner", Op: docstore.Eq, Value: owner})
	}
	if before, ok := terms["due_before"]; ok {
		at, err := time.Parse(time.RFC3339, before)
		if err != nil {
			return none, errs.New(errs.Invalid, "BAD_FILTER", "due_before is %q; give a moment as RFC 3339 has it, e.g. 2026-03-01T00:00:00Z", before)
		}
		conds = append(conds, docstore.Cond{Field: "plan_due_at", Op: docstore.Lt, Value: at.UTC()})
	}
	if state, ok := terms["state"]; ok {
		if !slices.Contains(domain.States(), domain.State(state)) {
			return none, errs.New(errs.Invalid, "BAD_FILTER", "state is %q; allowed are %v", state, domain.States())
		}
		conds = append(conds, docstore.Cond{Field: "state", Op: docstore.Eq, Value: state})
	}
	if len(conds) > 0 {
		q.Where, q.Filter = conds[:1], append(q.Filter, conds[1:]...)
	}
	if p, ok := authz.FromContext(ctx); ok && p.Team != authz.AllTeams {
		q.Filter = append(q.Filter, docstore.Cond{Field: "team", Op: docstore.Eq, Value: authz.TeamOf(p)})
	}
	return a.Plans.Find(ctx, q)
}

// Get returns the plan of a certificate. NotFound when there is none, the certificate is gone, or it belongs to another team.
func (a *App) Get(ctx context.Context, certificate string) (Plan, error) {
	missing := errs.New(errs.NotFound, "NOT_FOUND", "there is no renewal plan of a certificate %q", certificate)
	doc, err := a.Plans.Get(ctx, certificate)
	if errs.KindOf(err) == errs.NotFound {
		return Plan{}, missing
	}
	if err != nil {
		return Plan{}, err
	}
	if p, ok := authz.FromContext(ctx); doc.Tombstone || ok && !authz.InTeam(p, doc.Team) {
		return Plan{}, missing
	}
	return doc, nil
}

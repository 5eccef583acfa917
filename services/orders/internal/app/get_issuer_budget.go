package app

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
)

// Budget is a bucket with the limit that it is of.
type Budget struct {
	domain.Bucket
	Limit domain.Limit
	Now   time.Time
}

// IssuerBudget is what is left of an issuer's limits.
type IssuerBudget struct {
	Limits  []domain.Limit
	Budgets []Budget
	Next    string // token of the next page
}

// GetIssuerBudget returns a page of the issuer's buckets that are not full, the one that takes longest to be full first. That of the account is always there.
func (a *App) GetIssuerBudget(ctx context.Context, r *ordersv1.GetIssuerBudgetRequest) (out IssuerBudget, err error) {
	issuer, err := a.GetIssuer(ctx, r.GetId())
	if err != nil {
		return out, err
	}
	size, err := listing.Size(r.GetPageSize())
	if err != nil {
		return out, err
	}
	kind, name := domain.LimitKind(r.GetKind()), strings.ToLower(r.GetName())
	if kind != "" && !slices.Contains(domain.LimitKinds(), kind) {
		return out, errs.New(errs.Invalid, "BAD_FILTER", "kind is %q; allowed are %v", r.GetKind(), domain.LimitKinds())
	}
	out.Limits = issuer.Body.EffectiveLimits()
	now := a.Clock.Now()
	account, limited := issuer.Body.LimitOf(domain.OrdersPerAccount)
	if limited && r.GetPageToken() == "" && (kind == "" || kind == domain.OrdersPerAccount) {
		d, err := a.Budgets.Get(ctx, bucketID(issuer.ID, domain.OrdersPerAccount, ""))
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return out, err
		}
		d.Body.Kind = domain.OrdersPerAccount
		out.Budgets = append(out.Budgets, Budget{d.Body, account, now})
	}
	found, err := a.findBudgets(ctx, issuer.ID, kind, name, size, r.GetPageToken())
	if err != nil {
		return out, err
	}
	out.Next = found.Next
	for _, d := range found.Docs {
		l, limited := issuer.Body.LimitOf(d.Body.Kind)
		if !d.Body.IdleAt.After(now) {
			if name == "" {
				out.Next = "" // and so are all that follow
			}
			continue
		}
		if limited && d.Body.Kind != domain.OrdersPerAccount {
			out.Budgets = append(out.Budgets, Budget{d.Body, l, now})
		}
	}
	return out, nil
}

func (a *App) findBudgets(ctx context.Context, issuerID string, kind domain.LimitKind, name string, size int, after string) (docstore.Page[domain.Bucket], error) {
	if name == "" {
		return a.Budgets.Find(ctx, docstore.Query{Where: budgetsOf(issuerID, kind), Desc: true, Limit: size, After: after})
	}
	var all docstore.Page[domain.Bucket]
	names := []string{name, domain.Identifier(name), domain.RegisteredDomain(name)} // a bucket goes by one of them
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		page, err := a.Budgets.Find(ctx, docstore.Query{
			Where: []docstore.Cond{{Field: "issuer_id", Op: docstore.Eq, Value: issuerID}, {Field: "names", Op: docstore.Has, Value: n}}, Limit: 1000,
		})
		if err != nil {
			return all, err
		}
		for _, d := range page.Docs {
			set := d.Body.Kind == domain.PerExactSet
			if (kind == "" || d.Body.Kind == kind) && (!set || n == name) && !slices.ContainsFunc(all.Docs, func(have docstore.Doc[domain.Bucket]) bool { return have.ID == d.ID }) {
				all.Docs = append(all.Docs, d)
			}
		}
	}
	slices.SortFunc(all.Docs, func(x, y docstore.Doc[domain.Bucket]) int {
		return cmp.Or(y.Body.IdleAt.Compare(x.Body.IdleAt), cmp.Compare(x.ID, y.ID))
	})
	return all, nil
}

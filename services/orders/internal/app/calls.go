package app

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/listing"
)

// AccountID is the account that an issuer's orders use.
func AccountID(issuerID string) string { return id.Derive("acc", issuerID) }

// visible answers NotFound for what belongs to a team that the caller does not.
func visible(ctx context.Context, team, what, id string) error {
	if p, ok := authz.FromContext(ctx); ok && !authz.InTeam(p, team) {
		return notFound(what, id)
	}
	return nil
}

// ListOrders returns a page of the orders that match the filter.
func (a *App) ListOrders(ctx context.Context, filter string, size int32, after string) (docstore.Page[domain.Order], error) {
	terms, err := listing.Filter(filter, "certificate", "state", "issuer", "owner", "open")
	if err != nil {
		return docstore.Page[domain.Order]{}, err
	}
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Page[domain.Order]{}, err
	}
	q := docstore.Query{Limit: limit, After: after}
	fields := []struct{ term, field string }{
		{"certificate", "certificate_id"}, {"open", "open"}, {"state", "state"}, {"issuer", "issuer_id"}, {"owner", "owner"},
	}
	for _, f := range fields {
		v, ok := terms[f.term]
		if !ok {
			continue
		}
		c := docstore.Cond{Field: f.field, Op: docstore.Eq, Value: v}
		switch {
		case f.term == "open":
			if v != "true" && v != "false" {
				return docstore.Page[domain.Order]{}, errs.New(errs.Invalid, "BAD_FILTER", "open is %q; it may be true or false", v)
			}
			c.Value = v == "true"
		case f.term == "state" && !slices.Contains(domain.States(), domain.State(v)):
			return docstore.Page[domain.Order]{}, errs.New(errs.Invalid, "BAD_FILTER", "state is %q; allowed are %v", v, domain.States())
		}
		if len(q.Where) == 0 {
			q.Where = []docstore.Cond{c}
		} else {
			q.Filter = append(q.Filter, c)
		}
	}
	q.Filter = append(q.Filter, visibleTo(ctx)...)
	return a.Orders.Find(ctx, q)
}

// GetOrder returns an order.
func (a *App) GetOrder(ctx context.Context, orderID string) (docstore.Doc[domain.Order], error) {
	d, err := a.Orders.Get(ctx, orderID)
	if errs.KindOf(err) == errs.NotFound {
		return d, notFound("order", orderID)
	}
	if err != nil {
		return d, err
	}
	return d, visible(ctx, d.Team, "order", orderID)
}

// RetryOrder makes an open order due now; for a final one it asks inventory for a new version.
func (a *App) RetryOrder(ctx context.Context, orderID string) (*ordersv1.RetryOrderResponse, error) {
	d, err := a.GetOrder(ctx, orderID)
	if err != nil {
		return nil, err
	}
	if !d.Body.State.Final() {
		_, err := a.changeOrder(ctx, orderID, func(o *domain.Order) ([]domain.Fact, bool, error) {
			if o.State.Final() {
				return nil, false, nil
			}
			o.RetryAt, o.Retries = time.Time{}, 0
			return nil, true, nil
		})
		return &ordersv1.RetryOrderResponse{OrderId: orderID, Explanation: "the order is open; its next step is done now"}, err
	}
	// The right to retry an order is enough; the one door lets orders ask.
	resp, err := a.Inventory.RequestVersion(authz.AsService(ctx), &inventoryv1.RequestVersionRequest{CertificateId: d.Body.CertificateID, Cause: "manual"})
	if err != nil {
		return nil, err
	}
	return &ordersv1.RetryOrderResponse{OrderId: resp.GetOrderId(), NewOrder: resp.GetOrderId() != orderID, Explanation: resp.GetExplanation()}, nil
}

// CancelOrder cancels an order that is not yet finalizing.
func (a *App) CancelOrder(ctx context.Context, orderID string) (docstore.Doc[domain.Order], error) {
	if _, err := a.GetOrder(ctx, orderID); err != nil {
		return docstore.Doc[domain.Order]{}, err
	}
	return a.changeOrder(ctx, orderID, func(o *domain.Order) ([]domain.Fact, bool, error) {
		if o.State == domain.Cancelled {
			return nil, false, nil
		}
		fs, ok := o.Cancel("user", a.Clock.Now())
		if !ok {
			return nil, false, errs.New(errs.Precondition, "ORDER_STATE", "the order is %s and cannot be cancelled any more; a certificate that it brings can be revoked", o.State)
		}
		return fs, true, nil
	})
}

// GetIssuer returns an issuer by its id or its team's display name.
func (a *App) GetIssuer(ctx context.Context, ref string) (docstore.Doc[domain.Issuer], error) {
	d, err := a.findIssuer(ctx, ref)
	if errs.KindOf(err) == errs.NotFound || (err == nil && d.Tombstone) {
		return d, notFound("issuer", ref)
	}
	if err != nil {
		return d, err
	}
	return d, visible(ctx, d.Team, "issuer", ref)
}

func (a *App) findIssuer(ctx context.Context, ref string) (docstore.Doc[domain.Issuer], error) {
	if id.Valid("iss", ref) {
		return a.Issuers.Get(ctx, ref)
	}
	p, _ := authz.FromContext(ctx)
	page, err := a.Issuers.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "unique_name", Op: docstore.Eq, Value: uniqueName(authz.TeamOf(p), ref)}}, Limit: 1})
	if err != nil {
		return docstore.Doc[domain.Issuer]{}, err
	}
	if len(page.Docs) == 0 {
		return docstore.Doc[domain.Issuer]{}, notFound("issuer", ref)
	}
	return page.Docs[0], nil
}

// ListIssuers returns a page of the caller's issuers.
func (a *App) ListIssuers(ctx context.Context, size int32, after string) (docstore.Page[domain.Issuer], error) {
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Page[domain.Issuer]{}, err
	}
	return a.Issuers.Find(ctx, docstore.Query{Limit: limit, After: after, Filter: mine(ctx)})
}

// mine is the filter to what exists and what the caller may see.
func mine(ctx context.Context) []docstore.Cond {
	return append([]docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}, visibleTo(ctx)...)
}

// visibleTo is the filter to what the caller may see; empty: all.
func visibleTo(ctx context.Context) []docstore.Cond {
	if p, ok := authz.FromContext(ctx); ok && !authz.InTeam(p, "*") && p.Service == "" {
		return []docstore.Cond{{Field: "team", Op: docstore.Eq, Value: authz.TeamOf(p)}}
	}
	return nil
}

// ListAccounts returns a page of the caller's accounts.
func (a *App) ListAccounts(ctx context.Context, size int32, after string) (docstore.Page[Account], error) {
	limit, err := listing.Size(size)
	if err != nil {
		return docstore.Page[Account]{}, err
	}
	return a.Accounts.Find(ctx, docstore.Query{Limit: limit, After: after, Filter: mine(ctx)})
}

// ariParallel is how many certificates of one issuer are asked about at once (RFC 9773 section 4.3: be gentle).
const ariParallel = 4

// GetRenewalInfo asks the CAs for their suggested windows. One CA's trouble is its own queries' problem.
func (a *App) GetRenewalInfo(ctx context.Context, r *ordersv1.GetRenewalInfoRequest) (*ordersv1.GetRenewalInfoResponse, error) {
	out := &ordersv1.GetRenewalInfoResponse{Infos: make([]*ordersv1.RenewalInfo, len(r.GetQueries()))}
	slots := map[string]chan struct{}{}
	for _, q := range r.GetQueries() {
		if slots[q.GetIssuerId()] == nil {
			slots[q.GetIssuerId()] = make(chan struct{}, ariParallel)
		}
	}
	var wg sync.WaitGroup
	for i, q := range r.GetQueries() {
		wg.Go(func() {
			slot := slots[q.GetIssuerId()]
			slot <- struct{}{}
			defer func() { <-slot }()
			out.Infos[i] = a.renewalInfo(ctx, q)
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

func (a *App) renewalInfo(ctx context.Context, q *ordersv1.RenewalInfoQuery) *ordersv1.RenewalInfo {
	out := &ordersv1.RenewalInfo{AriCertId: q.GetAriCertId()}
	now := a.Clock.Now()
	issuer, err := a.issuer(ctx, q.GetIssuerId())
	var info acme.RenewalInfo
	if err == nil {
		info, err = a.CA.RenewalInfo(ctx, issuer.Body, q.GetAriCertId())
	}
	if err != nil {
		f := failureOf(err)
		if f == nil {
			f = &domain.Failure{Problem: domain.Problem{Reason: "CA_ERROR", Detail: err.Error(), Retrying: true}}
		}
		out.Problem = f.Problem.Message()
		out.RetryAt = timestamppb.New(now.Add(max(f.RetryAfter, time.Hour)))
		return out
	}
	out.Supported = info.Supported
	wait := info.RetryAfter
	if wait <= 0 {
		wait = 6 * time.Hour // RFC 9773 section 4.3.2
	}
	wait = min(max(wait, a.ARIMinRetry), 24*time.Hour) // RFC 9773 section 4.3.2: clients SHOULD set reasonable limits
	if info.Supported {
		out.WindowStart, out.WindowEnd, out.ExplanationUrl = timestamppb.New(info.Start), timestamppb.New(info.End), info.ExplanationURL
	}
	out.RetryAt = timestamppb.New(now.Add(wait))
	return out
}

// Changes returns the orders changed since the cursor.
func (a *App) Changes(ctx context.Context, cursor string, limit int) ([]docstore.Doc[domain.Order], string, bool, bool, error) {
	return heal.Changes(ctx, a.Orders, a.Epoch, cursor, limit)
}

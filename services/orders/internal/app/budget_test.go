package app_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/domain"
	transport "github.com/certwright/certwright/services/orders/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// allow gives the issuer limits, past the faults.
func (u *universe) allow(l ...domain.Limit) {
	u.issuer(func(i *domain.Issuer) { i.Limits = l })
}

func (u *universe) issuer(change func(i *domain.Issuer)) {
	raw, err := u.memory.Get(context.Background(), "issuers", issuerID)
	require.NoError(u.t, err)
	d, err := docstore.Decode[domain.Issuer](raw)
	require.NoError(u.t, err)
	guard := d.Revision
	change(&d.Body)
	d.Revision++
	raw, err = docstore.Encode(&d)
	require.NoError(u.t, err)
	require.NoError(u.t, u.memory.Update(context.Background(), "issuers", guard, raw, nil))
}

// oversteps fails when newOrder came more often than the CA allows, counted as a CA does it: evenly refilled, per account, domain and set.
func (c *authority) oversteps(t require.TestingT, allowed []domain.Limit) {
	for _, l := range allowed {
		full := map[string]time.Time{}
		for _, o := range c.orders {
			spec := domain.Order{Spec: domain.Spec{Names: o.names}}
			for _, claim := range spec.Claims([]domain.Limit{l}, o.at) {
				if full[claim.Scope].Before(o.at) {
					full[claim.Scope] = o.at
				}
				full[claim.Scope] = full[claim.Scope].Add(l.Period / time.Duration(l.Capacity))
				require.LessOrEqual(t, full[claim.Scope].Sub(o.at), l.Period, "%s %s: newOrder %s came at %s, before it was allowed", l.Kind, claim.Scope, o.url, o.at)
			}
		}
	}
}

func TestReplicasShareOneBudget(t *testing.T) {
	u := newUniverse(t, t, 7, 0, 0)
	defer u.end()
	allowed := domain.Limit{Kind: domain.OrdersPerAccount, Capacity: 2, Period: time.Minute}
	u.allow(allowed)
	u.past = append(u.past, u.now)
	u.start() // a second replica beside the first
	for n := range 9 {
		u.hear(u.request(n, []string{fmt.Sprintf("a%d.example.org", n)}, ""), fmt.Sprint("crt_", n))
	}
	u.run(0)
	for _, p := range u.past {
		p.cancel()
	}
	attempts := 0
	for _, d := range u.all() {
		require.Equal(t, domain.Issued, d.Body.State)
		require.Nil(t, d.Body.Blocked)
		attempts += len(d.Body.Attempts) // more than one: time went by before an answer was written
	}
	require.GreaterOrEqual(t, len(u.ca.orders), 9)
	require.LessOrEqual(t, len(u.ca.orders), attempts, "newOrder is sent once for an attempt")
	u.ca.oversteps(t, []domain.Limit{allowed})
	require.Greater(t, u.ca.orders[8].at.Sub(u.ca.orders[0].at), 3*time.Minute)
	require.Less(t, u.ca.orders[8].at.Sub(u.ca.orders[0].at), 10*time.Minute, "nobody waits much longer than needed")
}

// ready is a universe without workers, with one order that has its CSR.
func ready(t *testing.T, l ...domain.Limit) *universe {
	t.Helper()
	u := calm(t, func(o *domain.Order) { o.CSR = []byte{1} })
	u.allow(l...)
	return u
}

// step does the next step of an order under a lease, and stores what it makes of it unless it is lost.
func (u *universe) step(t *testing.T, order, lease string, lost bool) *domain.Order {
	t.Helper()
	doc, err := u.now.app.Orders.Get(t.Context(), order)
	require.NoError(t, err)
	doc.LeaseToken = lease
	res, err := u.now.app.StepOrder(t.Context(), doc)
	require.NoError(t, err)
	if lost {
		return &doc.Body
	}
	doc, err = u.now.app.Orders.Change(t.Context(), order, func(d *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		d.LeaseToken = lease
		return res.Apply(d)
	})
	require.NoError(t, err)
	return &doc.Body
}

// another is one more order, with its CSR, as it was asked for now.
func (u *universe) another(t *testing.T, n int, change func(o *domain.Order)) string {
	t.Helper()
	r := u.request(n, []string{fmt.Sprintf("x%d.example.net", n)}, "")
	o := domain.FromRequested(r, u.clock.Now())
	o.CSR = []byte{1}
	change(&o)
	require.NoError(t, u.now.app.Orders.Insert(t.Context(), &docstore.Doc[domain.Order]{Meta: docstore.Meta{ID: r.GetOrderId(), Team: "default", WorkAt: u.clock.Now()}, Body: o}))
	return r.GetOrderId()
}

// buckets returns what is stored of the ledger, by kind and scope (that of a set: its first name).
func (u *universe) buckets(t *testing.T) map[string]domain.Bucket {
	t.Helper()
	page, err := u.now.app.Budgets.Find(t.Context(), docstore.Query{})
	require.NoError(t, err)
	out := map[string]domain.Bucket{}
	for _, d := range page.Docs {
		scope := d.Body.Scope
		if d.Body.Kind == domain.PerExactSet {
			scope = d.Body.Names[0]
		}
		out[string(d.Body.Kind)+" "+scope] = d.Body
	}
	return out
}

var (
	oneOrder  = domain.Limit{Kind: domain.OrdersPerAccount, Capacity: 1, Period: time.Hour}
	oneSet    = domain.Limit{Kind: domain.PerExactSet, Capacity: 1, Period: 2 * time.Hour}
	oneDomain = domain.Limit{Kind: domain.PerRegisteredDomain, Capacity: 1, Period: 3 * time.Hour}
)

func TestAnIssuerWithoutLimitsCostsNothing(t *testing.T) {
	u := ready(t)
	o := u.step(t, "ord_1", "l1", false)
	require.NotNil(t, o.Attempt())
	require.Zero(t, o.Attempt().Reservation.Until)
	u.step(t, "ord_1", "l1", false)
	require.Empty(t, u.buckets(t))
}

func TestAnOrderHasItsTokensBeforeNewOrderIsSent(t *testing.T) {
	u := ready(t, oneOrder, oneSet, oneDomain)
	o := u.step(t, "ord_1", "l1", false)
	require.Empty(t, u.ca.orders)
	require.Len(t, o.Attempt().Reservation.Buckets, 3)
	require.Equal(t, t0.Add(domain.HoldFor), o.Attempt().Reservation.Until)
	for name, b := range u.buckets(t) {
		require.Equal(t, []domain.Hold{{Order: "ord_1", Attempt: 1, Until: t0.Add(domain.HoldFor)}}, b.Holds, name)
	}
	u.clock.Advance(time.Second)
	u.step(t, "ord_1", "l1", false)
	require.Len(t, u.ca.orders, 1)
	got := u.buckets(t)
	require.Len(t, got, 3)
	require.Equal(t, t0.Add(time.Hour+time.Second), got["orders_per_account "].FullAt)
	require.Equal(t, t0.Add(2*time.Hour+time.Second), got["certificates_per_exact_set a.example.org"].FullAt)
	require.Equal(t, t0.Add(3*time.Hour+time.Second), got["certificates_per_registered_domain example.org"].FullAt)
	for name, b := range got {
		require.Empty(t, b.Holds, name)
	}
}

func TestAnOrderThatIsNotAdmittedWaitsAndTakesNothing(t *testing.T) {
	u := ready(t, oneOrder, oneSet, oneDomain)
	second := u.another(t, 2, func(o *domain.Order) { o.Spec.Names = []string{"b.example.org"} })
	u.step(t, "ord_1", "l1", false)
	u.step(t, "ord_1", "l1", false)

	o := u.step(t, second, "l2", false)
	require.Nil(t, o.Attempt())
	require.Equal(t, domain.Queued, o.State)
	require.Equal(t, "BUDGET_EXHAUSTED", o.Blocked.Reason)
	require.Contains(t, o.Blocked.Detail, "the CA allows 1 in ")
	told, err := u.memory.Outbox(t.Context(), t0.Add(time.Hour), 100)
	require.NoError(t, err)
	require.Contains(t, told[len(told)-1].Entry.Subject, "order.blocked."+second)
	require.Len(t, u.ca.orders, 1, "the CA was not asked")
	for name, b := range u.buckets(t) {
		require.Empty(t, b.Holds, "%s: what was reserved before the refusal is given back", name)
	}
	doc, err := u.now.app.Orders.Get(t.Context(), second)
	require.NoError(t, err)
	require.Equal(t, o.RetryAt, doc.WorkAt, "the worker comes when there is a token")

	for range 5 { // each refusal may come from the next bucket
		if u.clock.Advance(doc.WorkAt.Sub(u.clock.Now())); u.step(t, second, "l3", false).Attempt() != nil {
			break
		}
		doc, err = u.now.app.Orders.Get(t.Context(), second)
		require.NoError(t, err)
	}
	require.Equal(t, t0.Add(3*time.Hour), u.clock.Now(), "as soon as the last bucket allows it")
	u.step(t, second, "l3", false)
	require.Len(t, u.ca.orders, 2)
}

func TestACrashAnywhereErrsTowardsLess(t *testing.T) {
	two := domain.Limit{Kind: domain.OrdersPerAccount, Capacity: 2, Period: 2 * time.Hour}
	for _, r := range []struct {
		name  string
		crash func(u *universe)
		holds int   // reservations when the order goes on
		left  int64 // tokens right after newOrder was answered
	}{
		{"no crash", func(*universe) {}, 1, 1},
		{"after the first bucket: the reservation is found again", func(u *universe) {
			u.allow(two, oneSet)
			u.step(t, "ord_1", "l0", true)
			page, err := u.now.app.Budgets.Find(t.Context(), docstore.Query{Where: []docstore.Cond{
				{Field: "issuer_id", Op: docstore.Eq, Value: issuerID}, {Field: "kind", Op: docstore.Eq, Value: string(domain.PerExactSet)},
			}})
			require.NoError(t, err)
			require.Len(t, page.Docs, 1)
			require.NoError(t, u.now.app.Budgets.Remove(t.Context(), page.Docs[0]))
		}, 1, 1},
		{"before the attempt is stored: the reservation is found again", func(u *universe) { u.step(t, "ord_1", "l0", true) }, 1, 1},
		{"before newOrder is sent: nobody knows that it was not", func(u *universe) {
			u.step(t, "ord_1", "l0", false)
			require.Equal(t, "NEW_ORDER_UNANSWERED", u.step(t, "ord_1", "l1", false).Attempts[0].Problem.Reason)
		}, 2, 0},
		{"after newOrder, before its URL is stored: both are spent", func(u *universe) {
			u.step(t, "ord_1", "l0", false)
			u.step(t, "ord_1", "l0", true)
			require.Len(t, u.ca.orders, 1)
			u.step(t, "ord_1", "l1", false)
		}, 1, 0},
	} {
		t.Run(r.name, func(t *testing.T) {
			u := ready(t, two)
			r.crash(u)
			require.NotNil(t, u.step(t, "ord_1", "l9", false).Attempt())
			require.Len(t, u.buckets(t)["orders_per_account "].Holds, r.holds)
			u.step(t, "ord_1", "l9", false)
			require.Equal(t, r.left, u.buckets(t)["orders_per_account "].Left(two, u.clock.Now()))
		})
	}
}

func TestAReservationThatRunsOutIsNotUsed(t *testing.T) {
	u := ready(t, domain.Limit{Kind: domain.OrdersPerAccount, Capacity: 2, Period: time.Hour})
	require.NotNil(t, u.step(t, "ord_1", "l1", false).Attempt())
	u.clock.Advance(domain.HoldFor - domain.SendMargin + time.Millisecond) // the process stood still
	require.Nil(t, u.step(t, "ord_1", "l1", false).Attempt())
	require.Empty(t, u.ca.orders)
	o := u.step(t, "ord_1", "l1", false)
	require.EqualValues(t, 1, o.Attempt().Number)
	require.Equal(t, u.clock.Now().Add(domain.HoldFor), o.Attempt().Reservation.Until)
	require.Len(t, u.buckets(t)["orders_per_account "].Holds, 1, "it is the same reservation")
}

func TestARenewalByARIPassesAnEmptyBucket(t *testing.T) {
	u := ready(t)
	u.issuer(func(i *domain.Issuer) { i.DirectoryURL = letsEncrypt })
	replacing := func(o *domain.Order) {
		o.Replaces = &domain.Replaced{VersionID: "ver_1", IssuerID: issuerID, ARICertID: "known", NotAfter: t0.Add(24 * time.Hour), Names: o.Spec.Names}
	}
	ari := u.another(t, 2, replacing)
	bare := u.another(t, 3, func(o *domain.Order) { replacing(o); o.NoReplaces = true })
	u.step(t, "ord_1", "l1", false)
	for _, d := range []string{"certificates_per_exact_set " + "x2.example.net", "certificates_per_exact_set " + "x3.example.net"} {
		require.NotContains(t, u.buckets(t), d)
	}
	u.step(t, ari, "l2", false)
	u.step(t, ari, "l2", false)
	require.NotContains(t, u.buckets(t), "certificates_per_exact_set x2.example.net", "exempt from all")
	o := u.step(t, bare, "l3", false)
	require.Len(t, o.Attempt().Reservation.Buckets, 1, "exempt from the first two alone")
	require.Contains(t, u.buckets(t), "certificates_per_exact_set x3.example.net")
}

func TestA429EmptiesTheBucketItIsAbout(t *testing.T) {
	wide := []domain.Limit{{Kind: domain.OrdersPerAccount, Capacity: 100, Period: time.Hour}, {Kind: domain.PerRegisteredDomain, Capacity: 100, Period: time.Hour}}
	u := ready(t, wide...)
	same := u.another(t, 2, func(o *domain.Order) { o.Spec.Names = []string{"c.example.org"} })
	other := u.another(t, 3, func(*domain.Order) {})
	u.ca.refuses = func(domain.Spec, string) error {
		return &domain.Failure{RetryAfter: 5 * time.Hour, Problem: domain.Problem{
			Reason: "RATE_LIMITED", Retrying: true, Type: "urn:ietf:params:acme:error:rateLimited", Detail: `too many certificates (50) already issued for "example.org" in the last 168h0m0s, retry after`,
		}}
	}
	u.step(t, "ord_1", "l1", false)
	o := u.step(t, "ord_1", "l1", false)
	require.Equal(t, "RATE_LIMITED", o.Blocked.Reason)
	require.Equal(t, t0.Add(5*time.Hour), o.RetryAt)
	require.EqualValues(t, 100, u.buckets(t)["orders_per_account "].Left(wide[0], t0), "the CA counted nothing: the tokens are back")
	u.ca.refuses = nil

	o = u.step(t, same, "l2", false)
	require.Nil(t, o.Attempt())
	require.Equal(t, t0.Add(5*time.Hour), o.RetryAt)
	require.Contains(t, o.Blocked.Detail, "certificates_per_registered_domain of example.org: the CA allows 100 in 1h0m0s and no more may go before "+t0.Add(5*time.Hour).Format(time.RFC3339)+" by the CA's own word (429)")
	require.NotNil(t, u.step(t, other, "l3", false).Attempt(), "another domain goes on")
}

// disbelieving is a CA that finds every answer wrong.
type disbelieving struct{ *authority }

func (disbelieving) Order(context.Context, acme.Account, string) (domain.CAOrder, error) {
	return domain.CAOrder{Status: "invalid"}, nil
}

func (disbelieving) Authorizations(_ context.Context, _ acme.Account, urls []string) (zs []domain.Authorization, err error) {
	for _, u := range urls {
		zs = append(zs, domain.Authorization{URL: u, State: domain.AuthzInvalid, Problem: &domain.Problem{Reason: "VALIDATION_FAILED", Detail: "wrong"}})
	}
	return zs, nil
}

func TestFailedAuthorizationsAreCountedAndHoldTheNextOrderUp(t *testing.T) {
	u := calm(t, func(o *domain.Order) {
		authorizing(o)
		o.Attempts[0].Authorizations[0].State = domain.AuthzValidating
		o.Attempts[0].AccountID = "acc"
	})
	l := domain.Limit{Kind: domain.FailedAuthorizations, Capacity: 1, Period: time.Hour}
	u.allow(l)
	next := u.another(t, 2, func(o *domain.Order) { o.Spec.Names = []string{"*.a.example.org"} })
	free := u.another(t, 3, func(*domain.Order) {})
	u.step(t, free, "l3", false) // makes the account
	o, err := u.now.app.Orders.Get(t.Context(), free)
	require.NoError(t, err)
	require.Empty(t, u.buckets(t), "to look takes nothing")
	_, err = u.now.app.Orders.Change(t.Context(), "ord_1", func(d *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		d.Body = d.Body.Clone()
		d.Body.Attempts[0].AccountID = o.Body.Attempt().AccountID
		return nil, nil
	})
	require.NoError(t, err)
	u.now.app.CA = disbelieving{u.ca}
	require.Equal(t, domain.Failed, u.step(t, "ord_1", "l1", false).State)
	require.EqualValues(t, 0, u.buckets(t)["failed_authorizations_per_identifier a.example.org"].Left(l, t0))
	require.EqualValues(t, 0, u.buckets(t)["failed_authorizations_per_identifier b.example.org"].Left(l, t0))

	held := u.step(t, next, "l2", false)
	require.Equal(t, "BUDGET_EXHAUSTED", held.Blocked.Reason)
	require.Contains(t, held.Blocked.Detail, "failed_authorizations_per_identifier of a.example.org")
	require.Equal(t, t0.Add(time.Hour), held.RetryAt)
	u.clock.Advance(time.Hour)
	require.NotNil(t, u.step(t, next, "l2", false).Attempt())
}

func TestTheBudgetIsShown(t *testing.T) {
	u := ready(t, oneOrder, oneSet, oneDomain)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:joe", Team: "default"})
	ask := func(r *ordersv1.GetIssuerBudgetRequest) *ordersv1.GetIssuerBudgetResponse {
		r.Id = "lab"
		out, err := rpc.GetIssuerBudget(ctx, r)
		require.NoError(t, err)
		return out
	}
	full := ask(&ordersv1.GetIssuerBudgetRequest{})
	require.Len(t, full.GetLimits(), 3)
	require.Len(t, full.GetBudgets(), 1, "the account's is always there")
	require.EqualValues(t, 1, full.GetBudgets()[0].GetLeft())
	require.Nil(t, full.GetBudgets()[0].GetNextTime())

	u.step(t, "ord_1", "l1", false)
	u.step(t, "ord_1", "l1", false)
	all := ask(&ordersv1.GetIssuerBudgetRequest{}).GetBudgets()
	require.Len(t, all, 3)
	require.Equal(t, "orders_per_account", all[0].GetKind())
	require.Equal(t, "example.org", all[1].GetScope(), "the one that takes longest to be full")
	require.Equal(t, t0.Add(3*time.Hour), all[1].GetNextTime().AsTime())
	require.Equal(t, []string{"a.example.org", "b.example.org"}, all[2].GetNames())
	require.Len(t, ask(&ordersv1.GetIssuerBudgetRequest{Kind: "certificates_per_exact_set"}).GetBudgets(), 1)
	require.Len(t, ask(&ordersv1.GetIssuerBudgetRequest{Name: "B.example.org"}).GetBudgets(), 3)
	require.Len(t, ask(&ordersv1.GetIssuerBudgetRequest{Name: "c.example.org"}).GetBudgets(), 2, "its domain's, and the account's")
	require.Len(t, ask(&ordersv1.GetIssuerBudgetRequest{Name: "c.example.net", Kind: "certificates_per_registered_domain"}).GetBudgets(), 0)

	_, err := rpc.GetIssuerBudget(ctx, &ordersv1.GetIssuerBudgetRequest{Id: "lab", Kind: "tokens"})
	require.ErrorContains(t, err, `kind is "tokens"; allowed are [orders_per_account`)
	web := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	_, err = rpc.GetIssuerBudget(web, &ordersv1.GetIssuerBudgetRequest{Id: "lab"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))

	u.clock.Advance(5 * time.Hour)
	require.Len(t, ask(&ordersv1.GetIssuerBudgetRequest{}).GetBudgets(), 1, "what is full again is not shown")
	require.NoError(t, u.now.app.SweepBudgets(t.Context()))
	require.Empty(t, u.buckets(t), "and not kept")
}

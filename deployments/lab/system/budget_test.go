package system_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// An issuer that allows one order in a while: the second one waits, while another issuer's order and a renewal by ARI do not.
func TestAnOrderWaitsForTheBudgetAndNobodyElseDoes(t *testing.T) {
	const refill = 30 * time.Second
	s, free := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 2*time.Minute)
	tight := &ordersv1.Issuer{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{
		DisplayName: "tight", Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: s.CA.DirectoryURL(), TrustRootsPem: string(s.CA.TLSRootPEM()), IssuedRootsPem: string(s.CA.RootsPEM()), TermsAgreed: true,
			Limits: []*ordersv1.IssuerLimit{{Kind: "orders_per_account", Capacity: 1, Period: durationpb.New(refill), Exempt: []string{"ari"}}, {Kind: "certificates_per_registered_domain", Capacity: 100, Period: durationpb.New(time.Hour), Exempt: []string{"ari"}}},
		},
	}}, tight))
	issue := func(issuer, name string) *inventoryv1.Certificate {
		made, err := s.Request(ctx, issuer, "http-01", nil, name)
		require.NoError(t, err)
		return made
	}

	first := issue(tight.GetId(), "a.shop.test")
	got, err := s.Version(ctx, first.GetId(), "")
	require.NoError(t, err)
	second := issue(tight.GetId(), "b.shop.test")
	order := &ordersv1.Order{}
	require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+second.GetIntent().GetOrderId(), order, func(o *ordersv1.Order) bool { return o.GetBlocked() != nil }))
	require.Equal(t, "BUDGET_EXHAUSTED", order.GetBlocked().GetReason())
	require.Equal(t, "queued", order.GetState())
	require.Contains(t, order.GetBlocked().GetDetail(), "orders_per_account of the account: the CA allows 1 in 30s and no more may go before 20")
	require.NotNil(t, order.GetNextTime())

	budget := &ordersv1.GetIssuerBudgetResponse{}
	require.NoError(t, s.Call(ctx, http.MethodGet, "/v1/issuers/"+tight.GetId()+"/budget", nil, budget))
	require.Len(t, budget.GetBudgets(), 2)
	require.EqualValues(t, 0, budget.GetBudgets()[0].GetLeft())
	require.EqualValues(t, 1, budget.GetBudgets()[0].GetWaiting())
	require.WithinDuration(t, order.GetNextTime().AsTime(), budget.GetBudgets()[0].GetNextTime().AsTime(), time.Second)
	for query, rows := range map[string]int{"?name=a.shop.test": 2, "?kind=certificates_per_exact_set": 0} {
		budget = &ordersv1.GetIssuerBudgetResponse{}
		require.NoError(t, s.Call(ctx, http.MethodGet, "/v1/issuers/"+tight.GetId()+"/budget"+query, nil, budget))
		require.Len(t, budget.GetBudgets(), rows, query)
	}

	other := issue(free.GetId(), "c.shop.test")
	_, err = s.Version(ctx, other.GetId(), "")
	require.NoError(t, err)
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+first.GetId()+":renew", &inventoryv1.RenewCertificateRequest{}, &inventoryv1.RequestVersionResponse{}))
	_, err = s.Version(ctx, first.GetId(), got.GetCurrentVersion().GetFacts().GetVersionId())
	require.NoError(t, err)
	_, err = s.Version(ctx, second.GetId(), "")
	require.NoError(t, err)

	all := s.CA.Orders()
	require.Len(t, all, 4, "each was asked for once")
	names := make([]string, len(all))
	for i, o := range all {
		names[i] = o.Names[0]
	}
	require.Equal(t, []string{"a.shop.test", "c.shop.test", "a.shop.test", "b.shop.test"}, names, "who is not limited went first")
	renewal := all[slices.IndexFunc(all[1:], func(o ca.OrderState) bool { return o.Names[0] == "a.shop.test" })+1]
	require.NotEmpty(t, renewal.Replaces, "the renewal went by ARI")
	scrape, err := s.Raw(ctx, http.MethodGet, "/metrics", nil)
	require.NoError(t, err)
	require.Regexp(t, `certwright_orders_budget_refused_total\{[^}]*issuer="`+tight.GetId()+`"[^}]*kind="orders_per_account"`, string(scrape))
}

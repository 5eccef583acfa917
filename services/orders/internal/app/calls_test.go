package app_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	transport "github.com/certwright/certwright/services/orders/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
)

func TestABadIssuerIsRefusedFieldByField(t *testing.T) {
	u := calm(t, authorizing)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	good := func(change func(i *ordersv1.Issuer)) *ordersv1.CreateIssuerRequest {
		i := &ordersv1.Issuer{DisplayName: "lab", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca.example.org/dir"}}
		change(i)
		return &ordersv1.CreateIssuerRequest{Issuer: i}
	}
	for _, r := range []struct {
		name, field, says string
		change            func(i *ordersv1.Issuer)
	}{
		{"without a name", "issuer.displayName", "has 0 characters", func(i *ordersv1.Issuer) { i.DisplayName = "" }},
		{"with too long a name", "issuer.displayName", "has 101 characters", func(i *ordersv1.Issuer) { i.DisplayName = strings.Repeat("x", 101) }},
		{"of an unknown kind", "issuer.kind", `is "ejbca"`, func(i *ordersv1.Issuer) { i.Kind = "ejbca" }},
		{"without ACME", "issuer.acme.directoryUrl", `is ""`, func(i *ordersv1.Issuer) { i.Acme = nil }},
		{"with http", "issuer.acme.directoryUrl", "must be an https URL", func(i *ordersv1.Issuer) { i.Acme.DirectoryUrl = "http://ca.example.org/dir" }},
		{"with roots that are no PEM", "issuer.acme.trustRootsPem", "holds no PEM certificate", func(i *ordersv1.Issuer) { i.Acme.TrustRootsPem = "x" }},
		{"with a key instead of roots", "issuer.acme.issuedRootsPem", "of type PRIVATE KEY", func(i *ordersv1.Issuer) {
			i.Acme.IssuedRootsPem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		}},
		{"with a contact that is a URL", "issuer.acme.contacts[1]", "plain mail address", func(i *ordersv1.Issuer) { i.Acme.Contacts = []string{"a@example.org", "mailto:b@example.org"} }},
		{"with an unknown limit", "issuer.acme.limits[0].kind", `is "per_moon"; allowed are [orders_per_account`, func(i *ordersv1.Issuer) { i.Acme.Limits = one("per_moon", 1, time.Hour) }},
		{"with a limit of nothing", "issuer.acme.limits[0].capacity", "is 0; 1 to 1000000 are allowed", func(i *ordersv1.Issuer) { i.Acme.Limits = one("orders_per_account", 0, time.Hour) }},
		{"with a limit without a time", "issuer.acme.limits[0].period", "is 0s; 1s to 8784h0m0s are allowed", func(i *ordersv1.Issuer) { i.Acme.Limits = one("orders_per_account", 1, 0) }},
		{"with a limit given twice", "issuer.acme.limits[1].kind", "is given twice", func(i *ordersv1.Issuer) {
			i.Acme.Limits = append(one("orders_per_account", 1, time.Hour), one("orders_per_account", 2, time.Hour)...)
		}},
		{"with a limit that exempts what no CA does", "issuer.acme.limits[0].exempt", `holds "sundays"; allowed are ari and renewal`, func(i *ordersv1.Issuer) {
			i.Acme.Limits = one("orders_per_account", 1, time.Hour, "sundays")
		}},
		{"with an unknown account key", "issuer.acme.accountKeyAlgorithm", `is "ED25519"`, func(i *ordersv1.Issuer) { i.Acme.AccountKeyAlgorithm = "ED25519" }},
	} {
		t.Run(r.name, func(t *testing.T) {
			_, err := rpc.CreateIssuer(ctx, good(r.change))
			e := errs.As(err)
			require.NotNil(t, e)
			require.Equal(t, errs.Invalid, e.Kind)
			require.Len(t, e.Fields, 1)
			require.Equal(t, r.field, e.Fields[0].Name)
			require.Contains(t, e.Fields[0].Msg, r.says)
		})
	}
	_, err := rpc.CreateIssuer(ctx, &ordersv1.CreateIssuerRequest{})
	require.Equal(t, errs.Invalid, errs.KindOf(err))
	_, err = rpc.CreateIssuer(t.Context(), good(func(*ordersv1.Issuer) {}))
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
}

func one(kind string, capacity int64, period time.Duration, exempt ...string) []*ordersv1.IssuerLimit {
	return []*ordersv1.IssuerLimit{{Kind: kind, Capacity: capacity, Period: durationpb.New(period), Exempt: exempt}}
}

func TestATeamSeesItsOwnOnly(t *testing.T) {
	u := calm(t, authorizing) // its order and issuer belong to team default
	rpc := &transport.Server{App: u.now.app}
	web := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	all := authz.NewContext(t.Context(), authz.Principal{Subject: "user:root", Team: authz.AllTeams})

	_, err := rpc.GetOrder(web, &ordersv1.GetOrderRequest{Id: "ord_1"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	_, err = rpc.CancelOrder(web, &ordersv1.CancelOrderRequest{Id: "ord_1"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	_, err = rpc.RetryOrder(web, &ordersv1.RetryOrderRequest{Id: "ord_1"})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	list, err := rpc.ListOrders(web, &ordersv1.ListOrdersRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetOrders())
	issuers, err := rpc.ListIssuers(web, &ordersv1.ListIssuersRequest{})
	require.NoError(t, err)
	require.Empty(t, issuers.GetIssuers())
	_, err = rpc.CreateIssuer(web, &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{DisplayName: "x", Team: "default", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca/dir"}}})
	require.Equal(t, errs.Forbidden, errs.KindOf(err))

	o, err := rpc.GetOrder(all, &ordersv1.GetOrderRequest{Id: "ord_1"})
	require.NoError(t, err)
	require.Equal(t, "authorizing", o.GetState())
	list, err = rpc.ListOrders(all, &ordersv1.ListOrdersRequest{Filter: "open=true"})
	require.NoError(t, err)
	require.Len(t, list.GetOrders(), 1)
	_, err = rpc.ListOrders(all, &ordersv1.ListOrdersRequest{Filter: "state=dreaming"})
	require.Equal(t, errs.Invalid, errs.KindOf(err))
}

func TestARepeatedRequestMakesOneIssuer(t *testing.T) {
	u := calm(t, authorizing)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	r := &ordersv1.CreateIssuerRequest{RequestId: "r1", Issuer: &ordersv1.Issuer{DisplayName: "Lab", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca/dir"}}}
	first, err := rpc.CreateIssuer(ctx, r)
	require.NoError(t, err)
	second, err := rpc.CreateIssuer(ctx, r)
	require.NoError(t, err)
	require.Equal(t, first.GetId(), second.GetId())
	r.RequestId = "r2"
	r.Issuer.DisplayName = "LAB"
	_, err = rpc.CreateIssuer(ctx, r)
	require.Equal(t, "ISSUER_EXISTS", errs.ReasonOf(err))
	_, err = rpc.DeleteIssuer(ctx, &ordersv1.DeleteIssuerRequest{Id: first.GetId()})
	require.NoError(t, err)
	_, err = rpc.CreateIssuer(ctx, r)
	require.NoError(t, err, "the name of a deleted issuer is free")
}

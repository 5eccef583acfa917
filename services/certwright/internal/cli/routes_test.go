package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
)

func TestRoutes(t *testing.T) {
	e := newEdge(t)
	u := newUser(t, e)
	route := &challengesv1.Route{
		Id: "rte_1", DisplayName: "corp", Team: "web", Pattern: &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Suffix{Suffix: "corp.example.org"}},
		ChallengeType: "auto", Solver: "dns_account", DnsAccountId: "dac_1", Check: "wait", Wait: durationpb.New(2 * time.Minute),
	}
	e.on("POST /v1/routes", route)
	e.on("PATCH /v1/routes/rte_1", route)
	e.on("GET /v1/routes", &challengesv1.ListRoutesResponse{Routes: []*challengesv1.Route{route}})

	require.Equal(t, ExitOK, u.run("routes", "create", "corp", "--suffix", "corp.example.org", "--solver", "dns_account", "--dns-account", "dac_1", "--check", "wait", "--wait", "2m"), u.err.String())
	require.Contains(t, u.out.String(), "all below corp.example.org")
	require.Contains(t, u.out.String(), "2m0s")
	made := &challengesv1.CreateRouteRequest{}
	e.body(t, "POST /v1/routes", made)
	require.NotEmpty(t, made.GetRequestId())
	want := &challengesv1.Route{
		DisplayName: "corp", Pattern: route.GetPattern(), Solver: "dns_account", DnsAccountId: "dac_1", Check: "wait", Wait: durationpb.New(2 * time.Minute),
	}
	require.Empty(t, cmp.Diff(want, made.GetRoute(), protocmp.Transform()))

	require.Equal(t, ExitOK, u.run("routes", "update", "corp", "--check", "", "--wait", "0s", "--zone", "example.org"), u.err.String())
	changed := &challengesv1.UpdateRouteRequest{}
	e.body(t, "PATCH /v1/routes/rte_1", changed)
	require.ElementsMatch(t, []string{"check", "wait", "pattern"}, changed.GetUpdateMask().GetPaths())
	require.Equal(t, "example.org", changed.GetRoute().GetPattern().GetZone())
	require.Nil(t, changed.GetRoute().GetWait())

	require.Equal(t, ExitOK, u.run("routes", "list"), u.err.String())
	require.Contains(t, u.out.String(), "dns_account dac_1")

	for _, c := range []struct{ args, says string }{
		{"create x", "one of --exact, --suffix and --zone is missing"},
		{"create x --zone a.test --exact b.test", "--exact, --suffix and --zone exclude each other"},
		{"update corp", "nothing to change: give at least one flag"},
	} {
		require.Equal(t, ExitUsage, u.run(append([]string{"routes"}, strings.Fields(c.args)...)...))
		require.Contains(t, u.err.String(), c.says)
	}
}

func TestExplainingARoute(t *testing.T) {
	e := newEdge(t)
	u := newUser(t, e)
	e.on("POST /v1/routes:explain", &challengesv1.ExplainRouteResponse{
		ChallengeType: "dns-01", Solver: "dns", Location: "x.acme.test", Aliases: []string{"_acme-challenge.www.corp.test", "x.acme.test"}, Explanation: "an account serves it",
		Problem:    &typesv1.Problem{Reason: "ROUTE_DNS_ACCOUNT_UNUSABLE", Detail: "the DNS account dac_1 is disabled"},
		PassedOver: []*challengesv1.PassedRoute{{Id: "rte_2", DisplayName: "wide", Why: "the pattern of rte_1 is more specific"}},
	})
	require.Equal(t, ExitOK, u.run("routes", "explain", "www.corp.test", "--type", "dns-01"), u.err.String())
	for _, says := range []string{
		"none matches", "_acme-challenge.www.corp.test → x.acme.test", "the DNS account dac_1 is disabled", "passed over rte_2 (wide): the pattern of rte_1 is more specific",
	} {
		require.Contains(t, u.out.String(), says)
	}
	asked := &challengesv1.ExplainRouteRequest{}
	e.body(t, "POST /v1/routes:explain", asked)
	require.Equal(t, "www.corp.test", asked.GetName())
	require.Equal(t, "dns-01", asked.GetChallengeType())
}

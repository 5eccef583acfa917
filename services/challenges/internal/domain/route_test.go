package domain_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

func TestARouteIsCheckedAtTheDoor(t *testing.T) {
	table := []struct {
		name  string
		given domain.Route
		want  []errs.Field
	}{
		{"one that is right", domain.Route{DisplayName: "x", Zone: "Example.ORG.", Check: domain.Check{Resolvers: []string{"192.0.2.53", "[2001:db8::1]:5353"}}}, nil},
		{"nothing", domain.Route{}, []errs.Field{
			{Name: "route.displayName", Msg: "has 0 characters; give a name of 1 to 200 by which people know the route"},
			{Name: "route.pattern", Msg: "has 0 of exact, suffix and zone; give one: the exact name, the suffix that all names below have, or the zone that is both"},
		}},
		{"words that are none", domain.Route{DisplayName: "x", Exact: "a.test", Type: "dns-02", Solver: "magic", Check: domain.Check{How: "twice"}}, []errs.Field{
			{Name: "route.challengeType", Msg: `"dns-02" given, allowed: auto, http-01, tls-alpn-01, dns-01`},
			{Name: "route.solver", Msg: `"magic" given, allowed: dns_account, builtin, manual, or none to have it chosen`},
			{Name: "route.check", Msg: `"twice" given, allowed: authoritative, resolvers, wait, or none`},
		}},
		{"names that are none", domain.Route{DisplayName: "x", Zone: "*.a.test", DelegateTo: "a..b", Check: domain.Check{Resolvers: []string{"ns.test:53"}}}, []errs.Field{
			{Name: "route.pattern.zone", Msg: `"*.a.test" is a wildcard; give the name without "*.", which matches its wildcard too`},
			{Name: "route.delegateTo", Msg: `"a..b" is not a DNS name: each part between dots has 1 to 63 characters`},
			{Name: "route.resolvers[0]", Msg: `"ns.test:53" is not an address; give the resolver as address:port, e.g. 192.0.2.53:53 or [2001:db8::53]:53`},
		}},
		{"a DNS account for http-01", domain.Route{DisplayName: "x", Zone: "a.test", Solver: "dns_account", Type: "http-01"}, []errs.Field{
			{Name: "route.challengeType", Msg: `"http-01" given, but a DNS account answers dns-01 alone; leave it out, or choose another solver`},
		}},
		{"a responder for dns-01", domain.Route{DisplayName: "x", Zone: "a.test", Solver: "builtin", Type: "dns-01"}, []errs.Field{
			{Name: "route.challengeType", Msg: `"dns-01" given, but the built-in responder answers http-01 and tls-alpn-01; leave it out, or choose the solver dns_account`},
		}},
		{"an account without its solver", domain.Route{DisplayName: "x", Zone: "a.test", Solver: "manual", DNSAccountID: "dac_1"}, []errs.Field{
			{Name: "route.dnsAccountId", Msg: `is given, but the solver is "manual"; set the solver to dns_account, or leave it out`},
		}},
		{"a check that means nothing", domain.Route{DisplayName: "x", Zone: "a.test", Type: "http-01", Check: domain.Check{How: "authoritative"}}, []errs.Field{
			{Name: "route.solver", Msg: "the route is not for dns-01, so delegateTo, resolvers and check mean nothing; leave them out"},
		}},
		{"an address by dns-01", domain.Route{DisplayName: "x", Exact: "192.0.2.1", Solver: "dns_account"}, []errs.Field{
			{Name: "route.pattern.exact", Msg: `"192.0.2.1" is an address, which dns-01 cannot prove; use the solver builtin or manual`},
		}},
		{"a wait without its check", domain.Route{DisplayName: "x", Zone: "a.test", Check: domain.Check{Wait: time.Minute}}, []errs.Field{
			{Name: "route.wait", Msg: `is 1m0s, but the check is ""; set the check to wait, or leave it out`},
		}},
		{"a check without its wait", domain.Route{DisplayName: "x", Zone: "a.test", Priority: 1001, Check: domain.Check{How: "wait"}}, []errs.Field{
			{Name: "route.wait", Msg: "is 0s; with the check wait it has to be 1s to 1h0m0s"},
			{Name: "route.priority", Msg: "is 1001; it may be -1000 to 1000"},
		}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			r, wrong := domain.NewRoute(row.given)
			require.Empty(t, cmp.Diff(row.want, wrong))
			if row.want == nil {
				require.Equal(t, "example.org", r.Zone)
				require.Equal(t, "auto", r.Type)
				require.Equal(t, []string{"192.0.2.53:53", "[2001:db8::1]:5353"}, r.Check.Resolvers)
			}
		})
	}
}

func TestTheRouteForAName(t *testing.T) {
	route := func(id string, r domain.Route) domain.Candidate {
		r.DisplayName = strings.TrimPrefix(id, "rte_")
		team := "web"
		if strings.HasPrefix(id, "rte_mail") {
			team = "mail"
		} else if strings.HasPrefix(id, "rte_shared") {
			team = "default"
		}
		return domain.Candidate{ID: id, Team: team, Route: r}
	}
	zone := route("rte_zone", domain.Route{Zone: "example.org", Solver: "manual"})
	suffix := route("rte_suffix", domain.Route{Suffix: "example.org", Solver: "manual"})
	deep := route("rte_deep", domain.Route{Zone: "dev.example.org", Solver: "manual"})
	exact := route("rte_exact", domain.Route{Exact: "www.example.org", Solver: "manual"})
	builtin := route("rte_builtin", domain.Route{Zone: "example.org", Solver: "builtin"})
	account := route("rte_z_account", domain.Route{Zone: "example.org", Solver: "dns_account"})
	urgent := route("rte_urgent", domain.Route{Zone: "example.org", Solver: "manual", Priority: 5})
	settings := route("rte_settings", domain.Route{Zone: "example.org"})
	all := []string{"http-01", "dns-01", "tls-alpn-01"}
	table := []struct {
		name, ask string
		routes    []domain.Candidate
		change    func(*domain.Input)
		want      string
		passed    []string
	}{
		{"none matches", "example.net", []domain.Candidate{zone, suffix, deep, exact}, nil, "", nil},
		{"a part of a label is no suffix", "notexample.org", []domain.Candidate{zone, suffix}, nil, "", nil},
		{"a suffix leaves out the name itself", "example.org", []domain.Candidate{suffix, zone}, nil, "rte_zone", nil},
		{"a suffix is more specific than the zone", "a.example.org", []domain.Candidate{zone, suffix}, nil, "rte_suffix", []string{"zone: the pattern of rte_suffix is more specific"}},
		{"a longer zone is more specific", "a.dev.example.org", []domain.Candidate{suffix, deep}, nil, "rte_deep", []string{"suffix: the pattern of rte_deep is more specific"}},
		{"an exact name is the most specific", "www.example.org", []domain.Candidate{urgent, exact}, nil, "rte_exact", []string{"urgent: the pattern of rte_exact is more specific"}},
		{"a DNS account comes before the responder, and that before a person", "a.example.org", []domain.Candidate{zone, settings, builtin, account}, nil, "rte_z_account", []string{
			"zone: a DNS account (rte_z_account) comes before a person", "settings: a DNS account (rte_z_account) comes before a route without solver",
			"builtin: a DNS account (rte_z_account) comes before the built-in responder",
		}},
		{"a priority comes before the solvers", "a.example.org", []domain.Candidate{account, urgent}, nil, "rte_urgent", []string{"z_account: the priority of rte_urgent is higher (5)"}},
		{"the team's own comes before a shared one", "a.example.org", []domain.Candidate{route("rte_shared", domain.Route{Zone: "example.org", Solver: "manual"}), zone}, nil, "rte_zone",
			[]string{"shared: rte_zone is the team's own"}},
		{"a shared one serves every team", "a.example.org", []domain.Candidate{route("rte_shared", domain.Route{Zone: "example.org"})}, nil, "rte_shared", nil},
		{"another team's is not seen", "a.example.org", []domain.Candidate{route("rte_mail", domain.Route{Zone: "example.org"})}, nil, "", nil},
		{"of equals the older", "a.example.org", []domain.Candidate{route("rte_2", domain.Route{Zone: "example.org"}), route("rte_1", domain.Route{Zone: "example.org"})}, nil, "rte_1",
			[]string{"2: rte_1 is older"}},
		{"a wildcard needs dns-01", "example.org", []domain.Candidate{builtin, account}, func(in *domain.Input) { in.Wildcard = true }, "rte_z_account",
			[]string{"builtin: it is not for dns-01, which alone proves control of a wildcard"}},
		{"the certificate's type has to fit", "a.example.org", []domain.Candidate{account, builtin}, func(in *domain.Input) { in.WantedType = "http-01" }, "rte_builtin",
			[]string{"z_account: it is for dns-01, and the certificate's spec wants http-01"}},
		{"the certificate's dns-01 passes the responder over", "a.example.org", []domain.Candidate{builtin}, func(in *domain.Input) { in.WantedType = "dns-01" }, "",
			[]string{"builtin: it is for the built-in responder, and the certificate's spec wants dns-01"}},
		{"the certificate's person comes before a route", "a.example.org", []domain.Candidate{account, settings}, func(in *domain.Input) { in.Manual = true }, "rte_settings",
			[]string{"z_account: the certificate's spec wants a person to place the answer"}},
		{"what the CA does not offer is passed over", "a.example.org", []domain.Candidate{account}, func(in *domain.Input) { in.Offered = []string{"http-01"} }, "",
			[]string{"z_account: it is for dns-01, and the CA offers http-01"}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			in := domain.Input{Identifier: row.ask, Offered: all}
			if row.change != nil {
				row.change(&in)
			}
			for range 2 { // whatever the order of the routes
				got, ok, passed := domain.PickRoute(row.routes, "web", in)
				require.Equal(t, row.want, got.ID)
				require.Equal(t, row.want != "", ok)
				var why []string
				for _, p := range passed {
					why = append(why, p.Name+": "+p.Why)
				}
				require.ElementsMatch(t, row.passed, why)
				slices.Reverse(row.routes)
			}
		})
	}
}

func TestWhatARouteChanges(t *testing.T) {
	all := []string{"http-01", "dns-01", "tls-alpn-01"}
	both := domain.Responders{HTTP: true, TLS: true}
	route := func(r domain.Route) domain.Candidate {
		r.DisplayName = "corp"
		return domain.Candidate{ID: "rte_1", Route: r}
	}
	table := []struct {
		name                string
		in                  domain.Input
		route               domain.Route
		typ, solver, reason string
		why                 string
	}{
		{"a person", domain.Input{Offered: all}, domain.Route{Solver: "manual", Type: "dns-01"}, "dns-01", "manual", "", "the route rte_1 (corp) wants a person to place the answer"},
		{"the responder, by http-01 first", domain.Input{Offered: all, Responders: both}, domain.Route{Solver: "builtin"}, "http-01", "responder", "",
			"the route rte_1 (corp) wants http-01, answered by the built-in responder"},
		{"the responder that is on", domain.Input{Offered: all, Responders: domain.Responders{TLS: true}}, domain.Route{Solver: "builtin"}, "tls-alpn-01", "responder", "",
			"the route rte_1 (corp) wants tls-alpn-01, answered by the built-in responder"},
		{"the responder by tls-alpn-01, which is off", domain.Input{Offered: all, Responders: domain.Responders{HTTP: true}}, domain.Route{Solver: "builtin", Type: "tls-alpn-01"},
			"tls-alpn-01", "responder", "CHALLENGE_RESPONDER_OFF", "the route rte_1 (corp) wants tls-alpn-01, answered by the built-in responder"},
		{"a DNS account", domain.Input{Offered: all}, domain.Route{Solver: "dns_account"}, "dns-01", "dns", "", "the route rte_1 (corp) wants dns-01"},
		{"the certificate's own wish is told as its own", domain.Input{Offered: all, WantedType: "dns-01"}, domain.Route{}, "dns-01", "dns", "", "the certificate's spec wants dns-01"},
		{"settings alone change nothing else", domain.Input{Offered: all, Responders: both}, domain.Route{}, "http-01", "responder", "",
			"no DNS account covers the name, so the built-in responder answers http-01"},
		{"nothing but tls-alpn-01 is offered", domain.Input{Offered: []string{"tls-alpn-01"}, Responders: both}, domain.Route{}, "tls-alpn-01", "responder", "",
			"the CA offers tls-alpn-01 alone, so the built-in responder answers it"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			f := domain.Choose(domain.Under(row.in, route(row.route)))
			require.Equal(t, row.typ, f.Type)
			require.Equal(t, row.solver, string(f.Solver))
			require.Equal(t, row.reason, f.Trouble.Reason)
			require.Equal(t, row.why, f.Explanation)
			require.Equal(t, "rte_1", f.RouteID)
		})
	}
}

func TestACheckComesBetweenTheRecordAndTheCA(t *testing.T) {
	place := func(check domain.Check) domain.Challenge {
		c := pending(t)
		c.Place(id, domain.Finding{Solver: domain.ByDNS, Type: domain.DNS01, Record: "x.acme.test", Account: "dac_1", Check: check, RouteID: "rte_1"}, now)
		require.Equal(t, "x.acme.test", c.Location)
		action, _, _ := c.Next(now)
		require.Equal(t, domain.Expiry, action, "there is nothing to look at yet")
		return c
	}
	t.Run("servers are asked again until they have it", func(t *testing.T) {
		c := place(domain.Check{How: domain.CheckAuthoritative})
		e := c.RecordPresented(id, value)
		require.Equal(t, []string{domain.KeyRecord}, e.Answered)
		require.Empty(t, e.Facts)
		require.Empty(t, c.RecordPresented(id, value), "told again")
		action, at, _ := c.Next(now)
		require.Equal(t, domain.Look, action)
		require.Equal(t, now, at)
		e = c.Looked(id, 0, domain.Problem{Reason: "CHALLENGE_NOT_VISIBLE", Detail: "ns1 has none"}, []string{"ns1 has none"}, now)
		require.Equal(t, domain.KeyFailed, e.Facts[0].Natural)
		require.True(t, c.Problem.Retrying)
		_, at, _ = c.Next(now)
		require.Equal(t, now.Add(time.Second), at)
		e = c.Looked(id, 0, domain.Problem{}, []string{"ns1 has it"}, at)
		require.Equal(t, domain.KeyPresented, e.Facts[0].Natural)
		require.Equal(t, []string{"ns1 has it"}, c.Found)
	})
	t.Run("a wait is counted from the record, once", func(t *testing.T) {
		c := place(domain.Check{How: domain.CheckWait, Wait: time.Minute})
		require.Empty(t, c.Waited(id, now), "the record is not there")
		c.RecordPresented(id, value)
		require.True(t, c.Waited(id, now).Changed)
		require.Empty(t, c.Waited(id, now.Add(59*time.Second)))
		_, at, _ := c.Next(now)
		require.Equal(t, now.Add(time.Minute), at)
		require.Equal(t, domain.KeyPresented, c.Waited(id, at).Facts[0].Natural)
	})
}

func TestATroubleThatMayBeMendedIsTriedAgain(t *testing.T) {
	c := pending(t)
	trouble := domain.Problem{Reason: "ROUTE_DNS_ACCOUNT_UNUSABLE", Detail: "it is disabled", Retrying: true}
	e := c.Place(id, domain.Finding{Type: domain.DNS01, Solver: domain.ByDNS, Trouble: trouble}, now)
	require.Equal(t, domain.KeyFailed, e.Facts[0].Natural)
	action, at, _ := c.Next(now)
	require.Equal(t, domain.Solve, action)
	require.Equal(t, now.Add(time.Second), at)
	e = c.Place(id, domain.Finding{Type: domain.DNS01, Solver: domain.ByDNS, Trouble: trouble}, at)
	require.True(t, e.Changed)
	require.Empty(t, e.Facts, "told once")
	_, at, _ = c.Next(at)
	require.Equal(t, now.Add(3*time.Second), at)
	e = c.Place(id, byDNS, at)
	require.Equal(t, domain.KeyRecord, e.Facts[0].Natural)
	require.True(t, c.Problem.IsZero())
}

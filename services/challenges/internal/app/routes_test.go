package app_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
)

func (b *bench) route(r *challengesv1.Route) *challengesv1.Route {
	b.t.Helper()
	if r.GetDisplayName() == "" {
		r.DisplayName = "corp"
	}
	r.Team = "web"
	made, err := b.rpc.CreateRoute(b.admin, &challengesv1.CreateRouteRequest{RequestId: "r-" + r.GetDisplayName(), Route: r})
	require.NoError(b.t, err)
	return made
}

func zone(name string) *challengesv1.RoutePattern {
	return &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Zone{Zone: name}}
}

func TestTheLifeOfARoute(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	in := &challengesv1.Route{
		DisplayName: "corp", Pattern: zone("Example.org"), Solver: "dns_account", DnsAccountId: "dac_1", DelegateTo: "x.acme.test", Check: "wait", Wait: durationpb.New(time.Minute),
	}
	made := b.route(in)
	require.Equal(t, made.GetId(), b.route(in).GetId(), "a repeat of the request")
	want := &challengesv1.Route{
		Id: made.GetId(), DisplayName: "corp", Team: "web", Pattern: zone("example.org"), ChallengeType: "auto", Solver: "dns_account", DnsAccountId: "dac_1", DelegateTo: "x.acme.test",
		Check: "wait", Wait: durationpb.New(time.Minute),
	}
	times := protocmp.IgnoreFields(&challengesv1.Route{}, "create_time", "update_time")
	got, err := b.rpc.GetRoute(b.admin, &challengesv1.GetRouteRequest{Id: made.GetId()})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), times))

	got, err = b.rpc.UpdateRoute(b.admin, &challengesv1.UpdateRouteRequest{
		Id: made.GetId(), Route: &challengesv1.Route{Check: "resolvers", Resolvers: []string{"192.0.2.53"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"check", "wait", "resolvers"}},
	})
	require.NoError(t, err)
	want.Check, want.Wait, want.Resolvers = "resolvers", nil, []string{"192.0.2.53:53"}
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), times))

	// Whatever is changed, the whole has to be right.
	_, err = b.rpc.UpdateRoute(b.admin, &challengesv1.UpdateRouteRequest{Id: made.GetId(), Route: &challengesv1.Route{Solver: "builtin"}})
	require.Equal(t, "ROUTE_INVALID", errs.ReasonOf(err))
	require.ErrorContains(t, err, `route.dnsAccountId: is given, but the solver is "builtin"`)
	_, err = b.rpc.UpdateRoute(b.admin, &challengesv1.UpdateRouteRequest{Id: made.GetId(), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"team"}}})
	require.ErrorContains(t, err, `the field "team" cannot be changed; allowed: display_name, pattern,`)

	mail := authz.NewContext(t.Context(), authz.Principal{Subject: "user:mail", Team: "mail"})
	_, err = b.rpc.GetRoute(mail, &challengesv1.GetRouteRequest{Id: made.GetId()})
	require.EqualError(t, err, "route "+made.GetId()+" does not exist")
	_, err = b.rpc.DeleteRoute(mail, &challengesv1.DeleteRouteRequest{Id: made.GetId()})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	_, err = b.rpc.CreateRoute(mail, &challengesv1.CreateRouteRequest{Route: &challengesv1.Route{Team: "web"}})
	require.EqualError(t, err, `user:mail may not make routes for the team "web"; leave route.team out for "mail"`)
	list, err := b.rpc.ListRoutes(mail, &challengesv1.ListRoutesRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetRoutes())

	_, err = b.rpc.DeleteRoute(b.admin, &challengesv1.DeleteRouteRequest{Id: made.GetId()})
	require.NoError(t, err)
	list, err = b.rpc.ListRoutes(b.admin, &challengesv1.ListRoutesRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetRoutes())
	b.clock.Advance(8 * 24 * time.Hour)
	testkit.Eventually(t, func() bool {
		require.NoError(t, b.app.Tidy(t.Context()))
		_, err := b.app.Routes.Get(t.Context(), made.GetId())
		return err != nil && errs.KindOf(err) == errs.NotFound
	}, "it is removed")
}

func TestARouteToAnAccountThatCannotServeIsRefusedAndBlocks(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	_, err := b.rpc.CreateRoute(b.admin, &challengesv1.CreateRouteRequest{Route: &challengesv1.Route{
		DisplayName: "corp", Pattern: zone("example.org"), Solver: "dns_account", DnsAccountId: "dac_2",
	}})
	require.Equal(t, "ROUTE_DNS_ACCOUNT_UNUSABLE", errs.ReasonOf(err))
	require.EqualError(t, err, "the route cannot use the DNS account dac_2: the DNS account dac_2 is disabled")

	r := b.route(&challengesv1.Route{Pattern: zone("example.org"), Solver: "dns_account", DnsAccountId: "dac_1"})
	b.world.set(func() { b.world.account = "dac_3" }) // dac_1 is disabled
	b.tell(b.required())
	trouble := failed("ROUTE_DNS_ACCOUNT_UNUSABLE", "the route "+r.GetId()+" (corp) wants a DNS account, but the DNS account dac_1 is disabled", true)
	b.expect(trouble)
	b.world.set(func() { b.world.account = "dac_1" })
	b.clock.Advance(5 * time.Minute)
	b.expect(trouble, &challengeeventsv1.RecordWanted{ChallengeId: first, Fqdn: fqdn, Value: value, DnsAccountId: "dac_1"})
	require.Equal(t, r.GetId(), b.at(first).Body.RouteID)
}

func TestTheRecordIsWrittenWhereTheAliasLeads(t *testing.T) {
	b := newBench(t)
	b.world.account, b.world.aliases = "dac_1", []string{"hop.test", "x.acme.test"}
	b.tell(b.required())
	b.expect(&challengeeventsv1.RecordWanted{ChallengeId: first, Fqdn: "x.acme.test", Value: value})
	require.Equal(t, app.Ask{Name: "x.acme.test", Record: true, Team: "web"}, b.world.asked[len(b.world.asked)-1])
	require.Equal(t, "the DNS account dac_1 serves it; the record belongs where _acme-challenge.example.org → hop.test → x.acme.test leads", b.at(first).Body.Explanation)
	b.tell(closed)
	b.expect(&challengeeventsv1.RecordWanted{ChallengeId: first, Fqdn: "x.acme.test", Value: value},
		&challengeeventsv1.RecordUnwanted{ChallengeId: first, Fqdn: "x.acme.test", Value: value})
}

func TestDelegation(t *testing.T) {
	table := []struct {
		name    string
		aliases []string
		unsure  string
		check   string
		loop    domain.Problem
		reason  string
		record  string
	}{
		{"seen in the DNS", []string{"x.acme.test"}, "", "", domain.Problem{}, "", "x.acme.test"},
		{"not seen in the DNS", nil, "", "", domain.Problem{}, "CHALLENGE_NOT_DELEGATED", ""},
		{"the DNS leads elsewhere", []string{"y.acme.test"}, "", "", domain.Problem{}, "CHALLENGE_NOT_DELEGATED", ""},
		{"the DNS cannot be asked: the route's word counts", nil, "192.0.2.53:53: no answer", "", domain.Problem{}, "", "x.acme.test"},
		{"behind split DNS nobody is asked", []string{"y.acme.test"}, "", "wait", domain.Problem{}, "", "x.acme.test"},
		{"a loop", []string{"y.acme.test"}, "", "", domain.Problem{Reason: "CHALLENGE_ALIAS_LOOP", Detail: "round", Retrying: true}, "CHALLENGE_ALIAS_LOOP", ""},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.world.account, b.world.aliases, b.world.unsure, b.world.loop = "dac_1", row.aliases, row.unsure, row.loop
			r := &challengesv1.Route{Pattern: zone("example.org"), DelegateTo: "x.acme.test", ChallengeType: "dns-01", Check: row.check}
			if row.check == "wait" {
				r.Wait = durationpb.New(time.Minute)
			}
			b.route(r)
			b.tell(b.required())
			testkit.Eventually(t, func() bool { return len(b.told()) > 0 }, "a fact")
			switch m := b.told()[0].(type) {
			case *challengeeventsv1.RecordWanted:
				require.Equal(t, row.record, m.GetFqdn())
			case *challengeeventsv1.Failed:
				require.Equal(t, row.reason, m.GetProblem().GetReason())
				require.True(t, m.GetProblem().GetRetrying())
			}
			if row.reason != "" {
				return
			}
			b.tell(&ordereventsv1.AuthorizationClosed{OrderId: order, Attempt: 1, Outcome: "valid"})
		})
	}
}

func TestTheRoutesCheckIsPassedBeforeTheOrderIsTold(t *testing.T) {
	for _, check := range []string{"authoritative", "resolvers", "wait"} {
		t.Run(check, func(t *testing.T) {
			b := newBench(t)
			b.world.account, b.world.wrong = "dac_1", "ns1.example.org (192.0.2.1:53) has no TXT record there"
			r := &challengesv1.Route{Pattern: zone("example.org"), Check: check}
			if check == "wait" {
				r.Wait = durationpb.New(2 * time.Minute)
			}
			b.route(r)
			b.tell(b.required())
			b.expect(recWanted)
			b.tell(recThere, recThere)
			if check == "wait" {
				testkit.Eventually(t, func() bool { return !b.at(first).Body.RetryAt.IsZero() }, "the end of the wait is stored")
				b.clock.Advance(119 * time.Second)
				require.Len(t, b.told(), 1)
				testkit.Passes(t, b.clock, time.Second, func() bool { return len(b.told()) > 1 }, "the wait is over")
				b.expect(recWanted, presented("dns-01"))
				require.Zero(t, b.world.looks)
				return
			}
			trouble := failed("CHALLENGE_NOT_VISIBLE", b.world.wrong, true)
			b.expect(recWanted, trouble)
			b.world.set(func() { b.world.wrong = "" })
			b.clock.Advance(time.Minute)
			b.expect(recWanted, trouble, presented("dns-01"))
			require.Equal(t, []string{"looked"}, b.at(first).Body.Found)
		})
	}
}

func TestExplaining(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	wide := b.route(&challengesv1.Route{DisplayName: "wide", Pattern: zone("example.org"), Solver: "manual"})
	narrow := b.route(&challengesv1.Route{DisplayName: "narrow", Pattern: zone("dev.example.org"), Solver: "dns_account"})
	web := authz.NewContext(t.Context(), authz.Principal{Subject: "user:web", Team: "web"})
	explain := func(name, typ string) *challengesv1.ExplainRouteResponse {
		t.Helper()
		e, err := b.rpc.ExplainRoute(web, &challengesv1.ExplainRouteRequest{Name: name, ChallengeType: typ})
		require.NoError(t, err)
		return e
	}
	e := explain("*.A.dev.example.org", "")
	require.Equal(t, narrow.GetId(), e.GetRoute().GetId())
	require.Empty(t, cmp.Diff(&challengesv1.ExplainRouteResponse{
		ChallengeType: "dns-01", Solver: "dns", DnsAccountId: "dac_1", Location: "_acme-challenge.a.dev.example.org", Aliases: []string{"_acme-challenge.a.dev.example.org"},
		Explanation: "control of a wildcard can be proven by dns-01 only",
		PassedOver:  []*challengesv1.PassedRoute{{Id: wide.GetId(), DisplayName: "wide", Why: "the pattern of " + narrow.GetId() + " is more specific"}},
	}, e, protocmp.Transform(), protocmp.IgnoreFields(&challengesv1.ExplainRouteResponse{}, "route")))
	e = explain("www.example.org", "tls-alpn-01")
	require.Equal(t, "manual", e.GetSolver())
	require.Equal(t, "www.example.org:443", e.GetLocation())
	e = explain("other.test", "http-01")
	require.Nil(t, e.GetRoute())
	require.Equal(t, "http://other.test/.well-known/acme-challenge/TOKEN", e.GetLocation())
	_, err := b.rpc.ExplainRoute(web, &challengesv1.ExplainRouteRequest{Name: "a.test", ChallengeType: "dns-02"})
	require.ErrorContains(t, err, `challengeType: "dns-02" given, allowed: auto, http-01, tls-alpn-01, dns-01`)
	_, err = b.rpc.ExplainRoute(web, &challengesv1.ExplainRouteRequest{Name: "a..b"})
	require.ErrorContains(t, err, `"a..b" is not a DNS name`)
	_, err = b.rpc.ExplainRoute(web, &challengesv1.ExplainRouteRequest{Name: "a.test", Team: "mail"})
	require.EqualError(t, err, "team mail does not exist")
}

func TestOneOfSeveralHandshakesForANameIsAnsweredAtATime(t *testing.T) {
	b := newBench(t)
	b.world.wrong = "not yet"
	alpn := func(orderID, key string) *ordereventsv1.AuthorizationRequired {
		return b.required(func(m *ordereventsv1.AuthorizationRequired) {
			m.OrderId, m.Offered = orderID, []*ordereventsv1.OfferedChallenge{{Type: "tls-alpn-01", Token: key, KeyAuthorization: key}}
		})
	}
	b.tell(alpn("ord_1", "one"), alpn("ord_2", "two"))
	got, err := b.app.AnswerTLS(t.Context(), "example.org")
	require.NoError(t, err)
	require.Equal(t, "one", got, "the older")
	_, err = b.app.Challenges.Change(t.Context(), "chl_2-1-0", func(d *app.Doc) ([]outbox.Fact, error) { d.Body.State = domain.Presented; return nil, nil })
	require.NoError(t, err)
	got, err = b.app.AnswerTLS(t.Context(), "example.org")
	require.NoError(t, err)
	require.Equal(t, "two", got, "the one that the CA was told of")
	b.tell(&ordereventsv1.AuthorizationClosed{OrderId: "ord_2", Attempt: 1, Outcome: "valid"})
	got, err = b.app.AnswerTLS(t.Context(), "example.org")
	require.NoError(t, err)
	require.Equal(t, "one", got)
	_, err = b.app.AnswerTLS(t.Context(), "other.test")
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	_, err = b.app.Answer(t.Context(), "one")
	require.Equal(t, errs.NotFound, errs.KindOf(err), "http-01 does not answer for it")
}

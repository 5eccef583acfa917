package app_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/services/challenges/internal/transport/consumer"
	grpctransport "github.com/certwright/certwright/services/challenges/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

const (
	order = "ord_1"
	first = "chl_1-1-0"
	fqdn  = "_acme-challenge.example.org"
)

var value = domain.DNSValue("td.key")

// world is the DNS service and what can be seen outside.
type world struct {
	mu      sync.Mutex
	account string
	away    error
	wrong   string
	looks   int
	asked   []app.Ask
	aliases []string
	unsure  string
	loop    domain.Problem
}

func (w *world) Resolve(_ context.Context, ask app.Ask) (app.Account, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, ask)
	if ask.Only != "" && ask.Only != w.account {
		return app.Account{Explanation: "the DNS account " + ask.Only + " is disabled"}, w.away
	}
	return app.Account{ID: w.account, Explanation: "the DNS account " + w.account + " serves it", Any: w.account != ""}, w.away
}

func (w *world) look() (app.Sight, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	return app.Sight{Wrong: w.wrong, Found: []string{"looked"}}, nil
}
func (w *world) TXT(context.Context, string, string, domain.Check) (app.Sight, error) {
	return w.look()
}
func (w *world) HTTP(context.Context, string, string, string) (app.Sight, error) { return w.look() }
func (w *world) TLS(context.Context, string, string) (app.Sight, error)          { return w.look() }
func (w *world) Responder(context.Context, string, string, string, string) (app.Sight, error) {
	return w.look()
}

func (w *world) Follow(_ context.Context, name string, _ []string) ([]string, string, domain.Problem, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{name}, w.aliases...), w.unsure, w.loop, nil
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

type bench struct {
	t       *testing.T
	clock   *clock.Fake
	bus     testkit.Recorder
	world   *world
	app     *app.App
	rpc     *grpctransport.Server
	admin   context.Context
	orders  bus.Consumer
	records bus.Consumer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		t: t, clock: clock.NewFake(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)), world: &world{},
		admin: authz.NewContext(t.Context(), authz.Principal{Subject: "user:admin", Team: authz.AllTeams, Permissions: []string{"*"}}),
	}
	log := testkit.Logger(t)
	out := outbox.New(outbox.Config{Store: memory.New(b.clock), Bus: &b.bus, Source: "challenges", Clock: b.clock, Logger: log})
	coll, orders := testkit.Open[domain.Challenge](t, out, app.ChallengesSpec()), testkit.Open[app.ClosedOrder](t, out, app.OrdersSpec())
	b.app = &app.App{Challenges: coll, Orders: orders, DNS: b.world, Eyes: b.world, Clock: b.clock, Logger: log, VerifyWait: 10 * time.Second,
		Responders: domain.Responders{HTTP: true, TLS: true}, Routes: testkit.Open[domain.Route](t, out, app.RoutesSpec())}
	var err error
	b.app.Requests, err = once.Open(t.Context(), out)
	require.NoError(t, err)
	b.rpc = &grpctransport.Server{App: b.app}
	b.orders, b.records = consumer.Orders(b.app), consumer.Records(b.app)
	w := worker.New(worker.Config[domain.Challenge]{Name: "challenges", Coll: coll, Clock: b.clock, Logger: log, Step: b.app.Step})
	testkit.Run(t, w.Run, out.Run)
	return b
}

// tell delivers a fact as the bus does.
func (b *bench) tell(messages ...proto.Message) {
	b.t.Helper()
	for _, m := range messages {
		e := testkit.Event(b.t, m, bus.Event{ID: "x-e-1-0", Source: "test", Subject: "x", Time: b.clock.Now(), Revision: 1, Team: "web"})
		c := b.orders
		if strings.HasPrefix(e.Type, "dns.") {
			c = b.records
		}
		require.Contains(b.t, c.Types, e.Type)
		require.NoError(b.t, c.Handle(b.t.Context(), e))
	}
}

// told is what the bus has been told.
func (b *bench) told() (all []proto.Message) {
	b.t.Helper()
	for _, e := range testkit.Events(b.t, b.bus.Entries()) {
		all = append(all, testkit.Message(b.t, e))
	}
	return all
}

// expect waits until exactly this has been told, in this order.
func (b *bench) expect(want ...proto.Message) {
	b.t.Helper()
	testkit.Eventually(b.t, func() bool { return len(b.told()) >= len(want) }, "%d facts", len(want))
	require.Empty(b.t, cmp.Diff(want, b.told(), protocmp.Transform()))
}

func (b *bench) at(id string) app.Doc {
	b.t.Helper()
	doc, err := b.app.Challenges.Get(b.t.Context(), id)
	require.NoError(b.t, err)
	return doc
}

func (b *bench) eventually(id string, state domain.State) {
	b.t.Helper()
	testkit.Eventually(b.t, func() bool { d := b.at(id); return d.Body.State == state && !d.LeaseUntil.After(b.clock.Now()) }, "%s is %s", id, state)
}

func (b *bench) required(change ...func(*ordereventsv1.AuthorizationRequired)) *ordereventsv1.AuthorizationRequired {
	m := &ordereventsv1.AuthorizationRequired{
		OrderId: order, CertificateId: "crt_1", Attempt: 1, Identifier: "example.org", Owner: "ann@example.org",
		Offered: []*ordereventsv1.OfferedChallenge{
			{Type: "http-01", Token: "th", KeyAuthorization: "th.key"}, {Type: "dns-01", Token: "td", KeyAuthorization: "td.key"},
		},
		Challenge: &typesv1.ChallengeSpec{Type: "auto"}, Expires: timestamppb.New(b.clock.Now().Add(7 * 24 * time.Hour)),
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func manual(m *ordereventsv1.AuthorizationRequired) {
	m.Challenge = &typesv1.ChallengeSpec{Type: "dns-01", Manual: true}
}

var (
	closed      = &ordereventsv1.AuthorizationClosed{OrderId: order, Attempt: 1, Outcome: "valid"}
	recWanted   = &challengeeventsv1.RecordWanted{ChallengeId: first, Fqdn: fqdn, Value: value}
	recUnwanted = &challengeeventsv1.RecordUnwanted{ChallengeId: first, Fqdn: fqdn, Value: value}
	recThere    = &dnseventsv1.RecordPresented{ChallengeId: first, Fqdn: fqdn, Value: value}
	recGone     = &dnseventsv1.RecordRemoved{ChallengeId: first, Fqdn: fqdn, Value: value}
)

func presented(typ string) *challengeeventsv1.Presented {
	return &challengeeventsv1.Presented{ChallengeId: first, OrderId: order, Attempt: 1, Type: typ}
}

func failed(reason, detail string, retrying bool) *challengeeventsv1.Failed {
	return &challengeeventsv1.Failed{ChallengeId: first, OrderId: order, Attempt: 1, Problem: &typesv1.Problem{Reason: reason, Detail: detail, Retrying: retrying}}
}

func TestDNS01FromWishToCleanUpWithEveryFactTwice(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	b.tell(b.required(), b.required())
	b.expect(recWanted)
	b.eventually(first, domain.Presenting)
	require.Equal(t, "the DNS account dac_1 serves it", b.at(first).Body.Explanation)

	b.tell(recThere, recThere)
	b.expect(recWanted, presented("dns-01"))
	b.clock.Advance(time.Second)
	b.tell(b.required()) // the order missed it and asks again
	b.expect(recWanted, presented("dns-01"), presented("dns-01"))

	b.tell(closed, closed)
	b.expect(recWanted, presented("dns-01"), presented("dns-01"), recUnwanted)
	revision := b.at(first).Revision
	b.tell(recThere, b.required()) // late
	require.Equal(t, revision, b.at(first).Revision)
	b.tell(recGone, recGone)
	doc := b.at(first)
	require.Equal(t, domain.Cleaned, doc.Body.State)
	require.Equal(t, "valid", doc.Body.Outcome)
	require.Equal(t, clock.Never, doc.DueAt, "nothing is waited for any more")
	b.tell(b.required(), closed, recGone, &ordereventsv1.Issued{OrderId: order})
	require.Equal(t, doc.Revision, b.at(first).Revision)

	b.clock.Advance(time.Second)
	b.tell(recThere) // dns heard the wish late: it is told that it is over
	b.expect(recWanted, presented("dns-01"), presented("dns-01"), recUnwanted, recUnwanted)
}

func TestEachFactThatIsWaitedForIsToldAgain(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	b.tell(b.required())
	b.expect(recWanted)
	b.clock.Advance(time.Minute)
	b.expect(recWanted, recWanted)
	b.tell(recThere)
	b.expect(recWanted, recWanted, presented("dns-01"))
	b.clock.Advance(time.Minute)
	b.expect(recWanted, recWanted, presented("dns-01"), presented("dns-01"))
	b.tell(closed)
	b.expect(recWanted, recWanted, presented("dns-01"), presented("dns-01"), recUnwanted)
	b.clock.Advance(time.Minute)
	b.expect(recWanted, recWanted, presented("dns-01"), presented("dns-01"), recUnwanted, recUnwanted)
}

func TestHTTP01IsAnsweredCheckedAndToldOnlyThen(t *testing.T) {
	b := newBench(t)
	b.world.wrong = "http://127.0.0.1:5002/… answers 404"
	b.tell(b.required())
	trouble := failed("CHALLENGE_RESPONDER_NOT_ANSWERING", "http://127.0.0.1:5002/… answers 404", true)
	b.expect(trouble)
	answer, err := b.app.Answer(t.Context(), "th")
	require.NoError(t, err)
	require.Equal(t, "th.key", answer)
	_, err = b.app.Answer(t.Context(), "td")
	require.Equal(t, errs.NotFound, errs.KindOf(err))

	for range 3 { // the same trouble is told once
		looks := b.at(first).Body.Tries
		b.clock.Advance(5 * time.Minute)
		testkit.Eventually(t, func() bool { return b.at(first).Body.Tries > looks }, "another look")
	}
	b.expect(trouble)
	b.world.set(func() { b.world.wrong = "" })
	b.clock.Advance(5 * time.Minute)
	b.expect(trouble, presented("http-01"))
	require.True(t, b.at(first).Body.Problem.IsZero())

	b.tell(closed)
	require.Equal(t, domain.Cleaned, b.at(first).Body.State)
	_, err = b.app.Answer(t.Context(), "th")
	require.Equal(t, errs.NotFound, errs.KindOf(err), "what is over is not answered")
}

func TestADNSRefusalReachesTheOrderAndIsForgottenWhenMended(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	b.tell(b.required())
	b.expect(recWanted)
	refused := &dnseventsv1.RecordFailed{ChallengeId: first, Fqdn: fqdn, Value: value, Problem: &typesv1.Problem{Reason: "DNS_TSIG_REFUSED", Detail: "no", Retrying: true}}
	b.tell(refused, refused)
	b.expect(recWanted, failed("DNS_TSIG_REFUSED", "no", true))
	require.True(t, outbox.Awaits(b.at(first).Meta, domain.KeyRecord), "dns goes on trying, so its answer is waited for")
	b.tell(recThere)
	b.expect(recWanted, failed("DNS_TSIG_REFUSED", "no", true), presented("dns-01"))
	require.True(t, b.at(first).Body.Problem.IsZero())
}

func TestAManualChallengeIsPresentedOnlyWhenItWasSeen(t *testing.T) {
	b := newBench(t)
	b.tell(b.required(manual))
	asked := &challengeeventsv1.ActionRequired{
		ChallengeId: first, OrderId: order, Attempt: 1, Type: "dns-01", Location: fqdn, Value: value, Owner: "ann@example.org",
	}
	b.expect(asked)
	b.clock.Advance(24 * time.Hour)
	b.expect(asked, asked)
	b.eventually(first, domain.Presenting)
	require.Zero(t, b.world.looks, "nobody looks before a person asks")

	const wrong = `the TXT record _acme-challenge.example.org should have the value "…", but 192.0.2.53:53 has no TXT record there`
	b.world.set(func() { b.world.wrong = wrong })
	res := b.verify()
	require.Equal(t, "presenting", res.GetState())
	require.True(t, res.GetActionRequired())
	require.Empty(t, cmp.Diff(&typesv1.Problem{Reason: "CHALLENGE_NOT_VISIBLE", Detail: wrong}, res.GetProblem(), protocmp.Transform()))
	b.expect(asked, asked)

	b.world.set(func() { b.world.wrong = "" })
	res = b.verify()
	require.Equal(t, "presented", res.GetState())
	require.False(t, res.GetActionRequired())
	require.Nil(t, res.GetProblem())
	b.expect(asked, asked, presented("dns-01"))
	require.Equal(t, "presented", b.verify().GetState(), "verifying again changes nothing")

	b.tell(closed)
	require.Equal(t, domain.Cleaned, b.at(first).Body.State, "what a person placed a person removes")
	_, err := b.rpc.VerifyChallenge(b.admin, &challengesv1.VerifyChallengeRequest{Id: first})
	require.EqualError(t, err, "challenge chl_1-1-0 is over (valid); its value is void: look for a newer challenge of order ord_1")
}

// verify calls while the clock runs.
func (b *bench) verify() *challengesv1.Challenge {
	b.t.Helper()
	type answer struct {
		res *challengesv1.Challenge
		err error
	}
	done := make(chan answer, 1)
	go func() {
		res, err := b.rpc.VerifyChallenge(b.admin, &challengesv1.VerifyChallengeRequest{Id: first})
		done <- answer{res, err}
	}()
	var got answer
	testkit.Eventually(b.t, func() bool {
		select {
		case got = <-done:
			return true
		default:
			b.clock.Advance(10 * time.Millisecond)
			return false
		}
	}, "a verdict")
	require.NoError(b.t, got.err)
	return got.res
}

func TestACloseThatArrivesFirstLeavesAMark(t *testing.T) {
	b := newBench(t)
	b.tell(closed, b.required(), closed)
	doc := b.at(first)
	require.True(t, doc.Tombstone)
	require.Equal(t, int64(1), doc.Revision)
	require.Empty(t, b.told())
	_, err := b.rpc.GetChallenge(b.admin, &challengesv1.GetChallengeRequest{Id: first})
	require.EqualError(t, err, "challenge chl_1-1-0 does not exist")
}

func TestTheEndOfAnOrderClosesAllItsChallenges(t *testing.T) {
	ends := []struct {
		msg     proto.Message
		outcome string
	}{
		{&ordereventsv1.Issued{OrderId: order}, "valid"}, {&ordereventsv1.Failed{OrderId: order}, "cancelled"},
		{&ordereventsv1.Cancelled{OrderId: order}, "cancelled"}, {&ordereventsv1.Rejected{OrderId: order}, "cancelled"},
	}
	for _, end := range ends {
		t.Run(bus.TypeOf(end.msg), func(t *testing.T) {
			b := newBench(t)
			second := func(m *ordereventsv1.AuthorizationRequired) { m.Authorization = 1 }
			b.tell(b.required(manual), b.required(manual, second))
			b.eventually("chl_1-1-1", domain.Presenting)
			b.tell(end.msg, end.msg)
			for _, id := range []string{first, "chl_1-1-1"} {
				require.Equal(t, domain.Cleaned, b.at(id).Body.State)
				require.Equal(t, end.outcome, b.at(id).Body.Outcome)
			}
			// One that is heard of after the end is closed at once.
			b.tell(b.required(func(m *ordereventsv1.AuthorizationRequired) { m.Attempt = 2 }))
			require.Equal(t, domain.Cleaned, b.at("chl_1-2-0").Body.State)
		})
	}
}

func TestWhatTheCAForgetsIsClosedAndTheOrderIsTold(t *testing.T) {
	b := newBench(t)
	b.world.account = "dac_1"
	b.tell(b.required())
	b.expect(recWanted)
	b.tell(recThere)
	b.expect(recWanted, presented("dns-01"))
	b.clock.Advance(7 * 24 * time.Hour)
	b.eventually(first, domain.Cleaning)
	require.Equal(t, "expired", b.at(first).Body.Outcome)
	told := b.told()
	require.Empty(t, cmp.Diff(failed("CHALLENGE_EXPIRED",
		"the authorization of example.org expired at 2026-11-08T12:00:00Z before the CA had validated it; the value at _acme-challenge.example.org is void", false),
		told[len(told)-1], protocmp.Transform()))
	require.Empty(t, cmp.Diff(recUnwanted, told[len(told)-2], protocmp.Transform()))
}

func TestWithoutASolverTheOrderIsToldForGood(t *testing.T) {
	b := newBench(t)
	b.tell(b.required(func(m *ordereventsv1.AuthorizationRequired) { m.Offered = m.Offered[:1]; m.Challenge.Type = "dns-01" }))
	b.expect(failed("CHALLENGE_NOT_OFFERED",
		"the CA does not offer dns-01 for example.org, only http-01, but the certificate's spec wants dns-01; change the certificate's challenge type", false))
}

func TestADNSServiceThatIsAwayIsWaitedFor(t *testing.T) {
	b := newBench(t)
	b.world.set(func() { b.world.away = errs.New(errs.Unavailable, "", "away"); b.world.account = "dac_1" })
	b.tell(b.required())
	testkit.Eventually(t, func() bool { return b.at(first).Failures > 0 }, "a try")
	require.Empty(t, b.told())
	b.world.set(func() { b.world.away = nil })
	b.clock.Advance(time.Minute)
	b.expect(recWanted)
}

func TestListsShowTheTeamsOwnAndFilter(t *testing.T) {
	b := newBench(t)
	other := func(m *ordereventsv1.AuthorizationRequired) { m.OrderId = "ord_2"; m.Identifier = "other.test" }
	b.tell(b.required(manual), b.required(other), &ordereventsv1.AuthorizationClosed{OrderId: "ord_3", Attempt: 1, Outcome: "valid"})
	b.eventually(first, domain.Presenting)
	b.eventually("chl_2-1-0", domain.Presented)
	web := authz.NewContext(t.Context(), authz.Principal{Subject: "user:web", Team: "web"})
	mail := authz.NewContext(t.Context(), authz.Principal{Subject: "user:mail", Team: "mail"})
	table := []struct {
		name string
		ctx  context.Context //nolint:containedctx // a row of a table
		req  *challengesv1.ListChallengesRequest
		want []string
	}{
		{"an administrator sees all, and no marks", b.admin, &challengesv1.ListChallengesRequest{}, []string{first, "chl_2-1-0"}},
		{"the team sees its own", web, &challengesv1.ListChallengesRequest{}, []string{first, "chl_2-1-0"}},
		{"another team sees none", mail, &challengesv1.ListChallengesRequest{}, nil},
		{"of an order", web, &challengesv1.ListChallengesRequest{OrderId: "ord_2"}, []string{"chl_2-1-0"}},
		{"another team's order has none", mail, &challengesv1.ListChallengesRequest{OrderId: "ord_2"}, nil},
		{"those that wait for a person", web, &challengesv1.ListChallengesRequest{Filter: "action_required=true"}, []string{first}},
		{"of a name in a state", b.admin, &challengesv1.ListChallengesRequest{Filter: "identifier=other.test AND state=presented"}, []string{"chl_2-1-0"}},
		{"of a name in another state", web, &challengesv1.ListChallengesRequest{Filter: "identifier=other.test AND state=closed"}, nil},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			res, err := b.rpc.ListChallenges(row.ctx, row.req)
			require.NoError(t, err)
			var got []string
			for _, c := range res.GetChallenges() {
				got = append(got, c.GetId())
			}
			require.Equal(t, row.want, got)
		})
	}
	_, err := b.rpc.ListChallenges(web, &challengesv1.ListChallengesRequest{Filter: "name=x"})
	require.EqualError(t, err, `the filter names the field "name"; allowed are order, state, identifier, action_required`)
	_, err = b.rpc.GetChallenge(mail, &challengesv1.GetChallengeRequest{Id: first})
	require.EqualError(t, err, "challenge chl_1-1-0 does not exist")
	_, err = b.rpc.VerifyChallenge(mail, &challengesv1.VerifyChallengeRequest{Id: first})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}

func TestAnIssuedOrderLeavesAMarkOnlyWhereAChallengeMayStillCome(t *testing.T) {
	b := newBench(t)
	b.tell(b.required(manual), closed, &ordereventsv1.Issued{OrderId: order}, &ordereventsv1.Issued{OrderId: "ord_2"})
	_, err := b.app.Orders.Get(t.Context(), order)
	require.Equal(t, errs.NotFound, errs.KindOf(err), "its challenge is closed")
	mark, err := b.app.Orders.Get(t.Context(), "ord_2")
	require.NoError(t, err, "nothing was heard of its challenges")
	require.Equal(t, domain.Valid, mark.Body.Outcome)

	b.tell(b.required(manual, func(m *ordereventsv1.AuthorizationRequired) { m.Authorization = 1 }))
	late := domain.ID(order, 1, 1)
	b.eventually(late, domain.Presenting)
	b.tell(&ordereventsv1.AuthorizationClosed{OrderId: order, Attempt: 1, Authorization: 1, Outcome: "valid"})
	require.Equal(t, domain.Cleaned, b.at(late).Body.State, "the order's answer closes what came late")
}

func TestTheJanitorRemovesWhatWasCleanedAWeekAgo(t *testing.T) {
	b := newBench(t)
	b.tell(b.required(manual), closed, &ordereventsv1.Issued{OrderId: order}, b.required(func(m *ordereventsv1.AuthorizationRequired) { m.OrderId = "ord_2" }))
	b.eventually("chl_2-1-0", domain.Presented)
	b.clock.Advance(6 * 24 * time.Hour)
	require.NoError(t, b.app.Tidy(t.Context()))
	b.at(first)
	b.clock.Advance(25 * time.Hour)
	testkit.Eventually(t, func() bool {
		require.NoError(t, b.app.Tidy(t.Context()))
		_, err := b.app.Challenges.Get(t.Context(), first)
		_, orderErr := b.app.Orders.Get(t.Context(), order)
		return err != nil && errs.KindOf(err) == errs.NotFound && orderErr != nil && errs.KindOf(orderErr) == errs.NotFound
	}, "both are removed")
	b.at("chl_2-1-0")
}

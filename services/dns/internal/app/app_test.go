package app_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/dns/internal/adapters/rfc2136"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/services/dns/internal/transport/consumer"
	grpctransport "github.com/certwright/certwright/services/dns/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

const apex = "_acme-challenge.example.org"

// zone is a provider in memory that can fail.
type zone struct {
	mu     sync.Mutex
	values map[string][]string
	err    error
	writes int
	blind  bool // reads do not see what was written
	// pending is how often Settled is asked until all servers have what was written.
	pending int
}

func (z *zone) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	return in.Settings, secrets[rfc2136.SecretTSIG], nil
}
func (z *zone) Open(_ map[string]string, credential secret.Value) (app.Provider, error) {
	if credential.Reveal() != "c2VjcmV0" {
		return nil, errs.New(errs.Internal, "", "the credential was not opened")
	}
	return z, nil
}
func (z *zone) Server() string { return "ns.test" }

func (z *zone) Apply(_ context.Context, _, fqdn string, want, drop []string, _ time.Duration) (string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return "", z.err
	}
	z.writes++
	z.values[fqdn] = slices.DeleteFunc(slices.Clone(z.values[fqdn]), func(v string) bool { return slices.Contains(drop, v) || slices.Contains(want, v) })
	z.values[fqdn] = append(z.values[fqdn], want...)
	if z.pending == 0 {
		return "", nil
	}
	return "change of " + strings.Join(want, ","), nil
}

// Settled implements app.Settler.
func (z *zone) Settled(context.Context, string) (bool, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return false, z.err
	}
	z.pending--
	return z.pending <= 0, nil
}

func (z *zone) Read(_ context.Context, _, fqdn string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil || z.blind {
		return nil, z.err
	}
	return slices.Clone(z.values[fqdn]), nil
}

func (z *zone) set(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

func (z *zone) at(fqdn string) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	all := slices.Clone(z.values[fqdn])
	slices.Sort(all)
	return all
}

type bench struct {
	t     *testing.T
	clock *clock.Fake
	bus   testkit.Recorder
	zone  *zone
	app   *app.App
	rpc   *grpctransport.Server
	admin context.Context
	hear  bus.Consumer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		t: t, clock: clock.NewFake(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)),
		zone:  &zone{values: map[string][]string{}},
		admin: authz.NewContext(t.Context(), authz.Principal{Subject: "user:admin", Team: authz.AllTeams, Permissions: []string{"*"}}),
	}
	log := testkit.Logger(t)
	store := memory.New(b.clock)
	out := outbox.New(outbox.Config{Store: store, Bus: &b.bus, Source: "dns", Clock: b.clock, Logger: log})
	sealer, err := seal.OpenKEK(t.Context(), store, filepath.Join(t.TempDir(), "kek.pem"), "dns")
	require.NoError(t, err)
	requests, err := once.Open(t.Context(), out)
	require.NoError(t, err)
	sets := testkit.Open[domain.RecordSet](t, out, app.SetsSpec())
	b.app = &app.App{
		Accounts: testkit.Open[app.StoredAccount](t, out, app.AccountsSpec()), Sets: sets, Requests: requests,
		Sealer: sealer, Clock: b.clock, Logger: log, Timeout: 10 * time.Second,
		Kinds: map[string]app.Kind{rfc2136.Name: b.zone},
	}
	b.rpc = &grpctransport.Server{App: b.app}
	b.hear = consumer.Records(b.app)
	w := worker.New(worker.Config[domain.RecordSet]{Name: "dns-records", Coll: sets, Clock: b.clock, Logger: log, Step: b.app.Step})
	testkit.Run(t, w.Run, out.Run)
	return b
}

func (b *bench) account(change ...func(*dnsv1.DNSAccount)) *dnsv1.DNSAccount {
	b.t.Helper()
	in := &dnsv1.DNSAccount{
		DisplayName: "Lab", Provider: "rfc2136", Zones: []string{"example.org"},
		Rfc2136: &dnsv1.RFC2136{Server: "ns.test:53", TsigKeyName: "acme-key", TsigSecret: "c2VjcmV0"},
	}
	for _, f := range change {
		f(in)
	}
	out, err := b.rpc.CreateDNSAccount(b.admin, &dnsv1.CreateDNSAccountRequest{DnsAccount: in})
	require.NoError(b.t, err)
	return out
}

// tell delivers a fact as the bus does.
func (b *bench) tell(m proto.Message) {
	b.t.Helper()
	e := testkit.Event(b.t, m, bus.Event{ID: "chl-e-1-0", Source: "challenges", Subject: "chl", Time: b.clock.Now(), Revision: 1, Team: "default"})
	require.NoError(b.t, b.hear.Handle(b.t.Context(), e))
}

func wanted(challenge, value string) proto.Message {
	return &challengeeventsv1.RecordWanted{ChallengeId: challenge, Fqdn: apex, Value: value}
}

func unwanted(challenge, value string) proto.Message {
	return &challengeeventsv1.RecordUnwanted{ChallengeId: challenge, Fqdn: apex, Value: value}
}

func presented(challenge, value string) proto.Message {
	return &dnseventsv1.RecordPresented{ChallengeId: challenge, Fqdn: apex, Value: value}
}

func removed(challenge, value string) proto.Message {
	return &dnseventsv1.RecordRemoved{ChallengeId: challenge, Fqdn: apex, Value: value}
}

func failed(challenge, value, reason, detail string) proto.Message {
	return &dnseventsv1.RecordFailed{
		ChallengeId: challenge, Fqdn: apex, Value: value, Problem: &typesv1.Problem{Reason: reason, Detail: detail, Retrying: true},
	}
}

// told is what the bus keeps of what it was told: each message id once.
func (b *bench) told() (all []proto.Message) {
	b.t.Helper()
	seen := map[string]bool{}
	entries := slices.DeleteFunc(b.bus.Entries(), func(e docstore.Entry) bool {
		again := seen[e.MsgID]
		seen[e.MsgID] = true
		return again
	})
	for _, e := range testkit.Events(b.t, entries) {
		all = append(all, testkit.Message(b.t, e))
	}
	return all
}

// expect waits until exactly this has been told, in any order.
func (b *bench) expect(want ...proto.Message) {
	b.t.Helper()
	testkit.Eventually(b.t, func() bool { return len(b.told()) >= len(want) }, "%d facts", len(want))
	text := func(m proto.Message) string { return bus.TypeOf(m) + prototext.Format(m) }
	order := cmpopts.SortSlices(func(x, y proto.Message) bool { return text(x) < text(y) })
	require.Empty(b.t, cmp.Diff(want, b.told(), protocmp.Transform(), order))
}

// rest waits until the set has nothing to do before its next moment.
func (b *bench) rest() app.SetDoc {
	b.t.Helper()
	var doc app.SetDoc
	testkit.Eventually(b.t, func() bool {
		var err error
		doc, err = b.app.Sets.Get(b.t.Context(), domain.RecordSetID("default", apex))
		return err == nil && doc.WorkAt.After(b.clock.Now()) && !doc.LeaseUntil.After(b.clock.Now())
	}, "the set rests")
	return doc
}

func TestTwoChallengesAtOneNameAreBothThereAndLeaveOneByOne(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.values[apex] = []string{"foreign"}
	b.tell(wanted("chl_a", "apex"))
	b.tell(wanted("chl_b", "wildcard"))
	b.expect(presented("chl_a", "apex"), presented("chl_b", "wildcard"))
	require.Equal(t, []string{"apex", "foreign", "wildcard"}, b.zone.at(apex))

	b.tell(unwanted("chl_a", "apex"))
	b.expect(presented("chl_a", "apex"), presented("chl_b", "wildcard"), removed("chl_a", "apex"))
	require.Equal(t, []string{"foreign", "wildcard"}, b.zone.at(apex))

	b.tell(unwanted("chl_b", "wildcard"))
	b.expect(presented("chl_a", "apex"), presented("chl_b", "wildcard"), removed("chl_a", "apex"), removed("chl_b", "wildcard"))
	require.Equal(t, []string{"foreign"}, b.zone.at(apex))
}

func TestAFactToldAgainChangesNothingAndIsAnsweredAgain(t *testing.T) {
	b := newBench(t)
	b.account()
	b.tell(wanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"))
	doc := b.rest()

	b.clock.Advance(time.Second) // another moment, so that the repeat has a message id of its own
	b.tell(wanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"), presented("chl_a", "v"))
	require.Equal(t, doc.Revision, b.rest().Revision)

	b.tell(unwanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"), presented("chl_a", "v"), removed("chl_a", "v"))
	doc, writes := b.rest(), b.zone.writes
	b.clock.Advance(time.Second)
	b.tell(unwanted("chl_a", "v"))
	b.tell(wanted("chl_a", "v")) // late, out of order: answered with the end, not taken up
	b.expect(presented("chl_a", "v"), presented("chl_a", "v"), removed("chl_a", "v"), removed("chl_a", "v"))
	require.Equal(t, doc.Revision, b.rest().Revision)
	require.Equal(t, writes, b.zone.writes)
}

func TestARefusalIsToldOnceAndPresentedFollowsWhenItIsMended(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() {
		b.zone.err = errs.New(errs.Forbidden, "DNS_TSIG_REFUSED", "the name server ns.test refused the signature")
	})
	b.tell(wanted("chl_a", "v"))
	refused := failed("chl_a", "v", "DNS_TSIG_REFUSED", "the name server ns.test refused the signature")
	b.expect(refused)
	for range 3 { // it tries again and has nothing new to say
		doc := b.rest()
		b.clock.Advance(doc.WorkAt.Sub(b.clock.Now()))
		testkit.Eventually(t, func() bool { return b.rest().Body.Tries > doc.Body.Tries }, "another try")
	}
	b.expect(refused)
	list, err := b.rpc.ListRecordSets(b.admin, &dnsv1.ListRecordSetsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetRecordSets(), 1)
	require.Equal(t, "DNS_TSIG_REFUSED", list.GetRecordSets()[0].GetProblem().GetReason())
	require.Equal(t, []string{"v"}, list.GetRecordSets()[0].GetDesiredValues())
	require.Empty(t, list.GetRecordSets()[0].GetPresentValues())

	b.zone.set(func() { b.zone.err = nil })
	b.clock.Advance(10 * time.Minute)
	b.expect(refused, presented("chl_a", "v"))
	require.True(t, b.rest().Body.Problem.IsZero())
}

func TestWithoutAnAccountItSaysSoAndGoesOnAsSoonAsThereIsOne(t *testing.T) {
	b := newBench(t)
	b.tell(wanted("chl_a", "v"))
	none := failed("chl_a", "v", "DNS_NO_ACCOUNT", "no enabled DNS account covers _acme-challenge.example.org; create a DNS account for its zone")
	b.expect(none)
	b.account() // wakes the set: the clock stands still
	b.expect(none, presented("chl_a", "v"))
}

func TestAnAccountThatIsRefusedAndThenDisabledGivesWayToAnother(t *testing.T) {
	b := newBench(t)
	bad := b.account()
	b.zone.set(func() { b.zone.err = errs.New(errs.Forbidden, "DNS_TSIG_REFUSED", "no") })
	b.tell(wanted("chl_a", "v"))
	b.expect(failed("chl_a", "v", "DNS_TSIG_REFUSED", "no"))
	b.zone.set(func() { b.zone.err = nil })
	_, err := b.rpc.DisableDNSAccount(b.admin, &dnsv1.DisableDNSAccountRequest{Id: bad.GetId()})
	require.NoError(t, err)
	next := b.account()
	b.expect(failed("chl_a", "v", "DNS_TSIG_REFUSED", "no"), presented("chl_a", "v"))
	require.Equal(t, next.GetId(), b.rest().Body.AccountID)
}

func TestAServerThatDoesNotShowWhatItTookIsToldAfterThreeLooks(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() { b.zone.blind = true })
	b.tell(wanted("chl_a", "v"))
	for tries := 1; tries < 3; tries++ {
		testkit.Eventually(t, func() bool { return b.rest().Body.Tries == tries }, "look %d", tries)
		require.Empty(t, b.told())
		b.clock.Advance(time.Minute)
	}
	missing := failed("chl_a", "v", "DNS_RECORD_NOT_VISIBLE", `the name server took the TXT value "v" for _acme-challenge.example.org, but ns.test has no TXT value there; `+
		`it is written again. Is that server the primary of the zone?`)
	b.expect(missing)
	b.zone.set(func() { b.zone.blind = false })
	b.clock.Advance(time.Minute)
	b.expect(missing, presented("chl_a", "v"))
}

func TestAnAccountInUseIsNotDeleted(t *testing.T) {
	b := newBench(t)
	a := b.account()
	b.tell(wanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"))
	_, err := b.rpc.DeleteDNSAccount(b.admin, &dnsv1.DeleteDNSAccountRequest{Id: a.GetId()})
	require.Equal(t, errs.Precondition, errs.KindOf(err))
	require.EqualError(t, err, "the DNS account "+a.GetId()+" has records in its zones: _acme-challenge.example.org; disable it, and delete it when the challenges at these names are over")

	// A disabled account still removes what it wrote.
	_, err = b.rpc.DisableDNSAccount(b.admin, &dnsv1.DisableDNSAccountRequest{Id: a.GetId()})
	require.NoError(t, err)
	b.tell(unwanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"), removed("chl_a", "v"))
	b.rest()
	_, err = b.rpc.DeleteDNSAccount(b.admin, &dnsv1.DeleteDNSAccountRequest{Id: a.GetId()})
	require.NoError(t, err)
	_, err = b.rpc.GetDNSAccount(b.admin, &dnsv1.GetDNSAccountRequest{Id: a.GetId()})
	require.Equal(t, errs.NotFound, errs.KindOf(err))

	b.clock.Advance(25 * time.Hour)
	testkit.Eventually(t, func() bool { return b.app.Tidy(t.Context()) == nil && b.isGone(a.GetId()) }, "the janitor removes account and set")
}

func (b *bench) isGone(account string) bool {
	_, err := b.app.Accounts.Get(b.t.Context(), account)
	_, setErr := b.app.Sets.Get(b.t.Context(), domain.RecordSetID("default", apex))
	return err != nil && errs.KindOf(err) == errs.NotFound && setErr != nil && errs.KindOf(setErr) == errs.NotFound
}

func TestARemovalThatFailsForAWeekIsGivenUpSoThatTheSagaEnds(t *testing.T) {
	b := newBench(t)
	b.account()
	b.tell(wanted("chl_a", "v"))
	b.expect(presented("chl_a", "v"))
	b.zone.set(func() { b.zone.err = errs.New(errs.Unavailable, "DNS_SERVER_UNREACHABLE", "gone") })
	b.tell(unwanted("chl_a", "v"))
	testkit.Eventually(t, func() bool { return b.rest().Body.Troubled }, "it is in trouble")
	b.expect(presented("chl_a", "v"))
	b.clock.Advance(7 * 24 * time.Hour)
	b.expect(presented("chl_a", "v"), removed("chl_a", "v"))
	require.True(t, b.rest().Body.Idle)
}

func TestATestOfAnAccountSaysWhatItDid(t *testing.T) {
	b := newBench(t)
	a := b.account()
	b.zone.values[apex] = []string{"foreign"}
	res, err := b.rpc.TestDNSAccount(b.admin, &dnsv1.TestDNSAccountRequest{Id: a.GetId()})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&dnsv1.TestDNSAccountResponse{Ok: true, Steps: []string{
		`wrote the TXT value "certwright-test-` + a.GetId() + `" at _acme-challenge.example.org`, "saw it on ns.test", "removed it", "saw that it is gone",
	}}, res, protocmp.Transform()))
	require.Equal(t, []string{"foreign"}, b.zone.at(apex))

	b.zone.set(func() { b.zone.err = errs.New(errs.Forbidden, "DNS_TSIG_REFUSED", "no") })
	res, err = b.rpc.TestDNSAccount(b.admin, &dnsv1.TestDNSAccountRequest{Id: a.GetId()})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&dnsv1.TestDNSAccountResponse{
		Problem: &typesv1.Problem{Reason: "DNS_TSIG_REFUSED", Detail: "no"}, Steps: []string{"failed: no"},
	}, res, protocmp.Transform()))

	_, err = b.rpc.TestDNSAccount(b.admin, &dnsv1.TestDNSAccountRequest{Id: a.GetId(), Zone: "example.net"})
	require.EqualError(t, err, `the zone is not one of the account (zone: "example.net" given, allowed: example.org)`)
}

func TestAccountsAreSeenByTheirTeamAloneAndWithoutTheirSecret(t *testing.T) {
	b := newBench(t)
	web := authz.NewContext(t.Context(), authz.Principal{Subject: "user:web", Team: "web"})
	mail := authz.NewContext(t.Context(), authz.Principal{Subject: "user:mail", Team: "mail"})
	req := &dnsv1.CreateDNSAccountRequest{RequestId: "r1", DnsAccount: &dnsv1.DNSAccount{
		DisplayName: "Web", Zones: []string{"web.test"}, Rfc2136: &dnsv1.RFC2136{Server: "ns.test:53", TsigKeyName: "k", TsigSecret: "c2VjcmV0", TtlSeconds: 30},
	}}
	a, err := b.rpc.CreateDNSAccount(web, req)
	require.NoError(t, err)
	require.Equal(t, "web", a.GetTeam())
	require.Equal(t, "rfc2136", a.GetProvider())
	require.Empty(t, a.GetRfc2136().GetTsigSecret())
	again, err := b.rpc.CreateDNSAccount(web, req)
	require.NoError(t, err)
	require.Equal(t, a.GetId(), again.GetId(), "the same request makes one account")
	raw, err := b.app.Accounts.Get(t.Context(), a.GetId())
	require.NoError(t, err)
	require.NotContains(t, string(raw.Body.Credential.Ciphertext), "c2VjcmV0")

	_, err = b.rpc.GetDNSAccount(mail, &dnsv1.GetDNSAccountRequest{Id: a.GetId()})
	require.EqualError(t, err, "DNS account "+a.GetId()+" does not exist")
	for _, call := range []func() error{
		func() error {
			_, err := b.rpc.EnableDNSAccount(mail, &dnsv1.EnableDNSAccountRequest{Id: a.GetId()})
			return err
		},
		func() error {
			_, err := b.rpc.DeleteDNSAccount(mail, &dnsv1.DeleteDNSAccountRequest{Id: a.GetId()})
			return err
		},
		func() error {
			_, err := b.rpc.TestDNSAccount(mail, &dnsv1.TestDNSAccountRequest{Id: a.GetId()})
			return err
		},
	} {
		require.Equal(t, errs.NotFound, errs.KindOf(call()))
	}
	list, err := b.rpc.ListDNSAccounts(mail, &dnsv1.ListDNSAccountsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetDnsAccounts())
	list, err = b.rpc.ListDNSAccounts(web, &dnsv1.ListDNSAccountsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetDnsAccounts(), 1)

	service := authz.NewContext(t.Context(), authz.ForService("challenges"))
	choice, err := b.rpc.ResolveDNSAccount(service, &dnsv1.ResolveDNSAccountRequest{Name: "*.web.test", Team: "web"})
	require.NoError(t, err)
	require.Equal(t, a.GetId(), choice.GetAccountId())
	choice, err = b.rpc.ResolveDNSAccount(service, &dnsv1.ResolveDNSAccountRequest{Name: "web.test", Team: "mail"})
	require.NoError(t, err)
	require.Empty(t, choice.GetAccountId())
	require.Equal(t, "no enabled DNS account covers _acme-challenge.web.test; create a DNS account for its zone", choice.GetExplanation())

	_, err = b.rpc.CreateDNSAccount(web, &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{Provider: "route53", Zones: []string{"x.test"}, DisplayName: "X"}})
	require.EqualError(t, err, `the DNS account is not valid (dnsAccount.provider: "route53" given, allowed: rfc2136)`)
	_, err = b.rpc.CreateDNSAccount(web, &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
		Zones: []string{"x.test"}, DisplayName: "X", Rfc2136: &dnsv1.RFC2136{}, Cloudflare: &dnsv1.Cloudflare{},
	}})
	require.EqualError(t, err, `the DNS account is not valid (dnsAccount.cloudflare: is one of several providers: cloudflare, rfc2136; make an account for each)`)
	_, err = b.rpc.CreateDNSAccount(web, &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
		Provider: "rfc2136", Zones: []string{"x.test"}, DisplayName: "X", Cloudflare: &dnsv1.Cloudflare{},
	}})
	require.EqualError(t, err, `the DNS account is not valid (dnsAccount.cloudflare: belongs to another provider than "rfc2136"; leave it out, or make an account for each provider)`)
	_, err = b.rpc.CreateDNSAccount(web, &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{Team: "*"}})
	require.EqualError(t, err, `user:web may not make accounts for the team "*"; leave dnsAccount.team out for "web"`)
}

// A route's account is used though another covers the name as well, and a record where an alias leads is written there as it stands.
func TestTheAccountThatARouteNamesWritesWhereAnAliasLeads(t *testing.T) {
	b := newBench(t)
	b.account()
	named := b.account(func(a *dnsv1.DNSAccount) { a.DisplayName = "Named" })
	choice, err := b.rpc.ResolveDNSAccount(b.admin, &dnsv1.ResolveDNSAccountRequest{Name: "target.example.org", Record: true, AccountId: named.GetId(), Team: "default"})
	require.NoError(t, err)
	require.Equal(t, named.GetId(), choice.GetAccountId())
	m := &challengeeventsv1.RecordWanted{ChallengeId: "chl_1", Fqdn: "target.example.org", Value: "v", DnsAccountId: named.GetId()}
	b.tell(m)
	there := &dnseventsv1.RecordPresented{ChallengeId: "chl_1", Fqdn: "target.example.org", Value: "v"}
	b.expect(there)
	require.Equal(t, []string{"v"}, b.zone.at("target.example.org"))
	sets, err := b.rpc.ListRecordSets(b.admin, &dnsv1.ListRecordSetsRequest{})
	require.NoError(t, err)
	require.Equal(t, named.GetId(), sets.GetRecordSets()[0].GetAccountId())

	_, err = b.rpc.DisableDNSAccount(b.admin, &dnsv1.DisableDNSAccountRequest{Id: named.GetId()})
	require.NoError(t, err)
	b.tell(&challengeeventsv1.RecordWanted{ChallengeId: "chl_2", Fqdn: "other.example.org", Value: "w", DnsAccountId: named.GetId()})
	b.expect(there, &dnseventsv1.RecordFailed{ChallengeId: "chl_2", Fqdn: "other.example.org", Value: "w", Problem: &typesv1.Problem{
		Reason: "DNS_NO_ACCOUNT", Detail: "the DNS account " + named.GetId() + " (Named) is disabled; enable it", Retrying: true,
	}})
	_, err = b.rpc.EnableDNSAccount(b.admin, &dnsv1.EnableDNSAccountRequest{Id: named.GetId()})
	require.NoError(t, err)
	b.expect(there, b.told()[1], &dnseventsv1.RecordPresented{ChallengeId: "chl_2", Fqdn: "other.example.org", Value: "w"})
}

package dns_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/dns"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheDefaultsAreValid(t *testing.T) {
	cfg := dns.Defaults()
	require.NoError(t, config.Load(&cfg, config.Source{Service: "dns"}))
}

func TestTheServiceOverTheBus(t *testing.T) {
	t.Run("against a name server of our own", func(t *testing.T) { journey(t, dnstest.Start(t, "example.org").Addr) })
	t.Run("against BIND", func(t *testing.T) { journey(t, dnstest.BIND(t)) })
}

// An account of each API goes the whole way over the bus: refused with a wrong secret, mended by an update, seen, tested, removed.
func TestTheServiceWithTheAPIsOfProviders(t *testing.T) {
	type server interface{ Values(name string) []string }
	route53 := func(key string) *dnsv1.DNSAccount {
		return &dnsv1.DNSAccount{Route53: &dnsv1.Route53{AccessKeyId: dnstest.AWSKeyID, SecretAccessKey: key}}
	}
	azure := func(secret string) *dnsv1.DNSAccount {
		return &dnsv1.DNSAccount{Azure: &dnsv1.Azure{
			SubscriptionId: dnstest.AzureSubscription, ResourceGroup: dnstest.AzureGroup, TenantId: dnstest.AzureTenant, ClientId: dnstest.AzureClient, ClientSecret: secret,
		}}
	}
	table := []struct {
		name    string
		start   func(t *testing.T) (server, string)
		account func(secret string) *dnsv1.DNSAccount
		secret  string
	}{
		{"cloudflare", func(t *testing.T) (server, string) { s := dnstest.StartCloudflare(t, "example.org"); return s, s.URL }, func(s string) *dnsv1.DNSAccount {
			return &dnsv1.DNSAccount{Cloudflare: &dnsv1.Cloudflare{ApiToken: s}}
		}, dnstest.CloudflareToken},
		{"route53", func(t *testing.T) (server, string) {
			s := dnstest.StartRoute53(t, "example.org")
			s.SetPending(2)
			return s, s.URL
		}, route53, dnstest.AWSSecret},
		{"azure", func(t *testing.T) (server, string) { s := dnstest.StartAzure(t, "example.org"); return s, s.URL }, azure, dnstest.AzureSecret},
		{"godaddy", func(t *testing.T) (server, string) { s := dnstest.StartGoDaddy(t, "example.org"); return s, s.URL }, func(s string) *dnsv1.DNSAccount {
			return &dnsv1.DNSAccount{Godaddy: &dnsv1.GoDaddy{ApiKey: dnstest.GoDaddyKey, ApiSecret: s}}
		}, dnstest.GoDaddySecret},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			const name, wrong = "_acme-challenge.example.org", "a-secret-that-is-refused-0123456789abcdef"
			s, url := row.start(t)
			network := servicetest.New(t)
			p := network.Platform("dns", authz.Principal{Subject: "user:admin", Team: authz.AllTeams, Permissions: []string{"*"}})
			challenges := network.Bus("challenges")
			heard := make(chan proto.Message, 100)
			require.NoError(t, challenges.Consume(bus.Consumer{
				Name: "challenges-dns", Types: []string{dnseventsv1.TypeRecordPresented, dnseventsv1.TypeRecordFailed, dnseventsv1.TypeRecordRemoved},
				Handle: func(_ context.Context, e bus.Event) error { heard <- testkit.Message(t, e); return nil },
			}))
			cfg := dns.Defaults().WithEndpoint(url)
			cfg.Propagation = time.Second
			testkit.Run(t, func(ctx context.Context) error { return dns.Run(ctx, p, cfg) }, challenges.Run)
			hear := func() proto.Message {
				t.Helper()
				select {
				case m := <-heard:
					return m
				case <-time.After(testkit.Deadline):
					t.Fatal("nothing was heard")
					return nil
				}
			}
			told := int64(0)
			tell := func(m proto.Message) {
				told++
				require.NoError(t, challenges.Publish(t.Context(), testkit.Event(t, m, bus.Event{
					ID: fmt.Sprintf("chl-e-%d-0", told), Source: "challenges", Subject: "chl", Time: time.Now(), Revision: told, Epoch: "e", Team: "default",
				}).Entry()))
			}
			api := dnsv1.NewDNSServiceClient(network.Conn("dns"))

			in := row.account(wrong)
			in.DisplayName, in.Zones = "Lab", []string{"example.org"}
			a, err := api.CreateDNSAccount(t.Context(), &dnsv1.CreateDNSAccountRequest{DnsAccount: in})
			require.NoError(t, err)
			require.Equal(t, row.name, a.GetProvider())
			require.NotContains(t, prototext.Format(a), wrong)
			tell(&challengeeventsv1.RecordWanted{ChallengeId: "chl_a", Fqdn: name, Value: "proof"})
			refused, ok := hear().(*dnseventsv1.RecordFailed)
			require.True(t, ok)
			require.Equal(t, "DNS_CREDENTIALS_REFUSED", refused.GetProblem().GetReason())
			require.NotContains(t, refused.GetProblem().GetDetail(), wrong)

			a, err = api.UpdateDNSAccount(t.Context(), &dnsv1.UpdateDNSAccountRequest{Id: a.GetId(), DnsAccount: row.account(row.secret)})
			require.NoError(t, err)
			require.NotContains(t, prototext.Format(a), row.secret)
			require.Empty(t, cmp.Diff(&dnseventsv1.RecordPresented{ChallengeId: "chl_a", Fqdn: name, Value: "proof"}, hear(), protocmp.Transform()))
			require.Equal(t, []string{"proof"}, s.Values(name))

			report, err := api.TestDNSAccount(t.Context(), &dnsv1.TestDNSAccountRequest{Id: a.GetId()})
			require.NoError(t, err)
			require.True(t, report.GetOk(), "%v", report)
			require.Len(t, report.GetSteps(), 4)
			require.Equal(t, []string{"proof"}, s.Values(name))

			tell(&challengeeventsv1.RecordUnwanted{ChallengeId: "chl_a", Fqdn: name, Value: "proof"})
			require.Empty(t, cmp.Diff(&dnseventsv1.RecordRemoved{ChallengeId: "chl_a", Fqdn: name, Value: "proof"}, hear(), protocmp.Transform()))
			require.Empty(t, s.Values(name))
		})
	}
}

// journey makes an account with a wrong secret, mends it, has a name and its wildcard proven at once, and cleans up.
func journey(t *testing.T, addr string) {
	const name = "_acme-challenge.example.org"
	network := servicetest.New(t)
	p := network.Platform("dns", authz.Principal{Subject: "user:admin", Team: authz.AllTeams, Permissions: []string{"*"}})
	challenges := network.Bus("challenges")
	heard := make(chan bus.Event, 100)
	require.NoError(t, challenges.Consume(bus.Consumer{
		Name: "challenges-dns", Types: []string{dnseventsv1.TypeRecordPresented, dnseventsv1.TypeRecordFailed, dnseventsv1.TypeRecordRemoved},
		Handle: func(_ context.Context, e bus.Event) error { heard <- e; return nil },
	}))
	testkit.Run(t, func(ctx context.Context) error { return dns.Run(ctx, p, dns.Defaults()) }, challenges.Run)
	// next hears as many facts as are wanted, in any order.
	next := func(want ...proto.Message) {
		t.Helper()
		got := make([]proto.Message, len(want))
		for i := range got {
			select {
			case e := <-heard:
				got[i] = testkit.Message(t, e)
			case <-time.After(testkit.Deadline):
				t.Fatalf("only %v was heard of %v", got, want)
			}
		}
		order := cmpopts.SortSlices(func(a, b proto.Message) bool { return prototext.Format(a) < prototext.Format(b) })
		require.Empty(t, cmp.Diff(want, got, protocmp.Transform(), order))
	}
	told := int64(0)
	tell := func(m proto.Message) {
		t.Helper()
		told++
		require.NoError(t, challenges.Publish(t.Context(), testkit.Event(t, m, bus.Event{
			ID: fmt.Sprintf("chl-e-%d-0", told), Source: "challenges", Subject: "chl", Time: time.Now(), Revision: told, Epoch: "e", Team: "default",
		}).Entry()))
	}
	api := dnsv1.NewDNSServiceClient(network.Conn("dns"))
	account := func(secret string) string {
		t.Helper()
		a, err := api.CreateDNSAccount(t.Context(), &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
			DisplayName: "Lab", Zones: []string{"example.org"}, Rfc2136: &dnsv1.RFC2136{Server: addr, TsigKeyName: dnstest.KeyName, TsigSecret: secret},
		}})
		require.NoError(t, err)
		return a.GetId()
	}

	wrong := account("d3JvbmcgZm9yIHRoZSBrZXksIHRoYXQgaXMgMzIgYnl0")
	tell(&challengeeventsv1.RecordWanted{ChallengeId: "chl_apex", Fqdn: name, Value: "of the apex"})
	next(&dnseventsv1.RecordFailed{ChallengeId: "chl_apex", Fqdn: name, Value: "of the apex", Problem: &typesv1.Problem{
		Reason: "DNS_TSIG_REFUSED", Retrying: true, Detail: `the name server ` + addr + ` refused the signature of the TSIG key "acme-key" (hmac-sha256) (BADSIG); ` +
			`the secret is not the one that it has for this key: make a DNS account with the right secret and disable this one`,
	}})
	require.Empty(t, dnstest.TXT(t, addr, name))

	// As the message says. The wildcard's wish comes at the same time.
	_, err := api.DisableDNSAccount(t.Context(), &dnsv1.DisableDNSAccountRequest{Id: wrong})
	require.NoError(t, err)
	right := account(dnstest.Secret)
	tell(&challengeeventsv1.RecordWanted{ChallengeId: "chl_wild", Fqdn: name, Value: "of the wildcard"})
	next(&dnseventsv1.RecordPresented{ChallengeId: "chl_apex", Fqdn: name, Value: "of the apex"},
		&dnseventsv1.RecordPresented{ChallengeId: "chl_wild", Fqdn: name, Value: "of the wildcard"})
	require.Equal(t, []string{"of the apex", "of the wildcard"}, dnstest.TXT(t, addr, name))

	report, err := api.TestDNSAccount(t.Context(), &dnsv1.TestDNSAccountRequest{Id: right})
	require.NoError(t, err)
	require.True(t, report.GetOk(), "%v", report)
	report, err = api.TestDNSAccount(t.Context(), &dnsv1.TestDNSAccountRequest{Id: wrong})
	require.NoError(t, err)
	require.Equal(t, "DNS_TSIG_REFUSED", report.GetProblem().GetReason())

	tell(&challengeeventsv1.RecordUnwanted{ChallengeId: "chl_apex", Fqdn: name, Value: "of the apex"})
	next(&dnseventsv1.RecordRemoved{ChallengeId: "chl_apex", Fqdn: name, Value: "of the apex"})
	require.Equal(t, []string{"of the wildcard"}, dnstest.TXT(t, addr, name))
	tell(&challengeeventsv1.RecordUnwanted{ChallengeId: "chl_wild", Fqdn: name, Value: "of the wildcard"})
	next(&dnseventsv1.RecordRemoved{ChallengeId: "chl_wild", Fqdn: name, Value: "of the wildcard"})
	require.Empty(t, dnstest.TXT(t, addr, name))
}

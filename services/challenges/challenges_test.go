package challenges_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/services/challenges"
	"github.com/certwright/certwright/services/challenges/internal/adapters/alpn"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheDefaultsAreValid(t *testing.T) {
	cfg := challenges.Defaults()
	require.NoError(t, config.Load(&cfg, config.Source{Service: "challenges", Env: []string{"CERTWRIGHT_CHALLENGES_HTTP01_LISTEN=:80"}}))
	require.Equal(t, ":80", cfg.HTTP01Addr)
	err := config.Load(&cfg, config.Source{Service: "challenges", Flags: map[string]string{"http01.self_check": "always"}})
	require.ErrorContains(t, err, `http01.self_check: "always" given, allowed: none, loopback`)
}

// dnsService says that an account covers example.org and nothing else.
type dnsService struct {
	dnsv1.UnimplementedDNSServiceServer
}

func (dnsService) ResolveDNSAccount(_ context.Context, r *dnsv1.ResolveDNSAccountRequest) (*dnsv1.ResolveDNSAccountResponse, error) {
	if r.GetName() != "example.org" || r.GetTeam() != "web" {
		return &dnsv1.ResolveDNSAccountResponse{Explanation: "no enabled DNS account covers it"}, nil
	}
	return &dnsv1.ResolveDNSAccountResponse{AccountId: "dac_1", Zone: "example.org", Explanation: "the DNS account dac_1 serves it"}, nil
}

type bench struct {
	t      *testing.T
	orders *bus.Bus
	heard  chan bus.Event
	n      int64
}

func start(t *testing.T, cfg challenges.Config) *bench {
	t.Helper()
	network := servicetest.New(t)
	network.Play("dns", &dnsv1.DNSService_ServiceDesc, dnsService{})
	p := network.Platform("challenges", authz.Principal{})
	b := &bench{t: t, orders: network.Bus("orders"), heard: make(chan bus.Event, 100)}
	require.NoError(t, b.orders.Consume(bus.Consumer{
		Name:   "orders-challenges",
		Types:  []string{challengeeventsv1.TypePresented, challengeeventsv1.TypeFailed, challengeeventsv1.TypeRecordWanted},
		Handle: func(_ context.Context, e bus.Event) error { b.heard <- e; return nil },
	}))
	testkit.Run(t, func(ctx context.Context) error { return challenges.Run(ctx, p, cfg) }, b.orders.Run)
	return b
}

func (b *bench) tell(m proto.Message) {
	b.t.Helper()
	b.n++
	require.NoError(b.t, b.orders.Publish(b.t.Context(), testkit.Event(b.t, m, bus.Event{
		ID: fmt.Sprintf("ord_1-e-%d-0", b.n), Source: "orders", Subject: "ord_1", Time: time.Now(), Revision: b.n, Epoch: "e", Team: "web",
	}).Entry()))
}

func (b *bench) next(want proto.Message) {
	b.t.Helper()
	select {
	case e := <-b.heard:
		require.Empty(b.t, cmp.Diff(want, testkit.Message(b.t, e), protocmp.Transform(), protocmp.IgnoreFields(&challengeeventsv1.RecordWanted{}, "value")))
	case <-time.After(testkit.Deadline):
		b.t.Fatalf("%T was not heard", want)
	}
}

func required(identifier string, authorization int64) *ordereventsv1.AuthorizationRequired {
	return &ordereventsv1.AuthorizationRequired{
		OrderId: "ord_1", Attempt: 1, Authorization: authorization, Identifier: identifier,
		Offered: []*ordereventsv1.OfferedChallenge{{Type: "http-01", Token: "th", KeyAuthorization: "th.key"}, {Type: "dns-01", Token: "td", KeyAuthorization: "td.key"}},
	}
}

func TestTheServiceOverTheBus(t *testing.T) {
	cfg := challenges.Defaults()
	cfg.HTTP01Addr = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	cfg.TLSALPN01.Listen = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	cfg.DNS.Resolvers = []string{"127.0.0.1:1"}
	b := start(t, cfg)
	// The responder answers, its own check sees it over loopback, and only then the order is told.
	b.tell(required("other.test", 0))
	b.next(&challengeeventsv1.Presented{ChallengeId: "chl_1-1-0", OrderId: "ord_1", Attempt: 1, Type: "http-01"})
	// The other responder answers by its own port; the self check is a handshake.
	b.tell(&ordereventsv1.AuthorizationRequired{
		OrderId: "ord_1", Attempt: 1, Authorization: 2, Identifier: "192.0.2.1", Offered: []*ordereventsv1.OfferedChallenge{{Type: "tls-alpn-01", Token: "tt", KeyAuthorization: "tt.key"}},
	})
	b.next(&challengeeventsv1.Presented{ChallengeId: "chl_1-1-2", OrderId: "ord_1", Attempt: 1, Authorization: 2, Type: "tls-alpn-01"})
	wrong, err := alpn.Look(t.Context(), &net.Dialer{}, cfg.TLSALPN01.Listen, "192.0.2.1", "tt.key", 5*time.Second)
	require.NoError(t, err)
	require.Empty(t, wrong)
	// The dns service says that it covers this name.
	b.tell(required("example.org", 1))
	b.next(&challengeeventsv1.RecordWanted{ChallengeId: "chl_1-1-1", Fqdn: "_acme-challenge.example.org"})
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	cfg := challenges.Defaults()
	cfg.HTTP01Addr = taken.Addr().String()
	err = challenges.Run(t.Context(), servicetest.New(t).Platform("challenges", authz.Principal{}), cfg)
	require.Equal(t, "RESPONDER_NOT_LISTENING", errs.ReasonOf(err))
	require.EqualError(t, err, fmt.Sprintf("the http-01 responder cannot listen on %[1]s: listen tcp %[1]s: bind: address already in use; "+
		"free the port, or set http01.listen of the challenges service to another address, or to nothing to do without", taken.Addr()))
}

package challenges_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/services/challenges"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/testkit"
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
	p      *service.Platform
	orders *bus.Bus
	heard  chan proto.Message
	n      int
}

func start(t *testing.T, cfg challenges.Config) *bench {
	t.Helper()
	server := testkit.NATS(t)
	log := testkit.Logger(t)
	connect := func(source string) *bus.Bus {
		b, err := bus.New(t.Context(), bus.Config{Conn: server.Conn(nats.Name(source)), Source: source, Logger: log, SyncInterval: time.Second})
		require.NoError(t, err)
		return b
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)

	siblings := rpc.NewInProcess()
	dns := rpc.NewServer(rpc.ServerOptions{Logger: log})
	dnsv1.RegisterDNSServiceServer(dns, dnsService{})
	wg.Go(func() { _ = dns.Serve(siblings.Listen("dns")) })
	conn, err := siblings.Conn("dns", rpc.ClientOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(); dns.Stop() })

	own := connect("challenges")
	store := memory.New(clock.System())
	b := &bench{t: t, orders: connect("orders"), heard: make(chan proto.Message, 100)}
	b.p = &service.Platform{
		Name: "challenges", Clock: clock.System(), Logger: log, Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: metricnoop.NewMeterProvider().Meter(""),
		Store: store, Bus: own, DataDir: t.TempDir(),
		Outbox: outbox.New(outbox.Config{Store: store, Bus: own, Source: "challenges", Clock: clock.System(), Logger: log}),
		Server: rpc.NewServer(rpc.ServerOptions{Logger: log}),
		Peer:   func(string) grpc.ClientConnInterface { return conn },
	}
	wg.Go(func() {
		if err := challenges.Run(ctx, b.p, cfg); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	require.NoError(t, b.orders.Consume(bus.Consumer{
		Name:  "orders-challenges",
		Types: []string{challengeeventsv1.TypePresented, challengeeventsv1.TypeFailed, challengeeventsv1.TypeRecordWanted},
		Handle: func(_ context.Context, e bus.Event) error {
			m, _ := events.New(e.Type)
			if err := e.Decode(m); err != nil {
				return err
			}
			b.heard <- m
			return nil
		},
	}))
	wg.Go(func() { _ = b.orders.Run(ctx) })
	return b
}

func (b *bench) tell(m proto.Message) {
	b.t.Helper()
	data, err := protojson.Marshal(m)
	require.NoError(b.t, err)
	b.n++
	e := bus.Event{
		ID: fmt.Sprintf("ord_1-e-%d-0", b.n), Type: bus.TypeOf(m), Source: "orders", Subject: "ord_1", Time: clock.System().Now(), Revision: int64(b.n), Epoch: "e", Team: "web", Data: data,
	}
	require.NoError(b.t, b.orders.Publish(b.t.Context(), e.Entry()))
}

func (b *bench) next(want proto.Message) {
	b.t.Helper()
	select {
	case got := <-b.heard:
		require.Empty(b.t, cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&challengeeventsv1.RecordWanted{}, "value")))
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
	b := start(t, cfg)
	// The responder answers, its own check sees it over loopback, and only then the order is told.
	b.tell(required("other.test", 0))
	b.next(&challengeeventsv1.Presented{ChallengeId: "chl_1-1-0", OrderId: "ord_1", Attempt: 1, Type: "http-01"})
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
	clk := clock.System()
	store := memory.New(clk)
	server := testkit.NATS(t)
	own, err := bus.New(t.Context(), bus.Config{Conn: server.Conn(), Source: "challenges", Logger: testkit.Logger(t)})
	require.NoError(t, err)
	err = challenges.Run(t.Context(), &service.Platform{
		Clock: clk, Logger: testkit.Logger(t), Store: store, Bus: own, Peer: func(string) grpc.ClientConnInterface { return nil },
		Outbox: outbox.New(outbox.Config{Store: store, Bus: own, Source: "challenges", Clock: clk, Logger: testkit.Logger(t)}),
	}, cfg)
	require.Equal(t, "RESPONDER_NOT_LISTENING", errs.ReasonOf(err))
	require.EqualError(t, err, fmt.Sprintf("the http-01 responder cannot listen on %[1]s: listen tcp %[1]s: bind: address already in use; "+
		"free the port, or set http01.listen of the challenges service to another address, or to nothing to do without", taken.Addr()))
}

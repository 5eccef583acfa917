package inventory_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/inventory"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// siblings are orders and deployer as far as inventory asks them.
type siblings struct {
	ordersv1.UnimplementedOrdersServiceServer
	deployerv1.UnimplementedDeployerServiceServer
	bound chan string
}

func (*siblings) GetIssuer(_ context.Context, r *ordersv1.GetIssuerRequest) (*ordersv1.Issuer, error) {
	if r.GetId() != "Main CA" {
		return nil, errs.New(errs.NotFound, "", "issuer %s does not exist", r.GetId())
	}
	return &ordersv1.Issuer{Id: "iss_1", DisplayName: "Main CA"}, nil
}

func (s *siblings) EnsureBinding(_ context.Context, r *deployerv1.EnsureBindingRequest) (*deployerv1.Binding, error) {
	s.bound <- r.GetTargetId()
	return &deployerv1.Binding{Id: "bnd_1"}, nil
}

// tell publishes a fact of a sibling.
func tell(ctx context.Context, b *bus.Bus, source, subject string, revision int64, m proto.Message) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	return b.Publish(ctx, bus.Event{
		ID: id.New("evt", time.Now()), Type: bus.TypeOf(m), Source: source, Subject: subject, Time: time.Now(), Revision: revision, Epoch: "e", Team: "default", Data: data,
	}.Entry())
}

func TestTheServiceRunsOnARealBusAndStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	nats := testkit.NATS(t)
	logger := testkit.Logger(t)
	newBus := func(name string) *bus.Bus {
		b, err := bus.New(ctx, bus.Config{Conn: nats.Conn(), Source: name, Logger: logger, SyncInterval: time.Second, HealthInterval: 100 * time.Millisecond})
		require.NoError(t, err)
		return b
	}
	inProcess := rpc.NewInProcess()
	serve := func(name string, s *grpc.Server) func() {
		l := inProcess.Listen(name)
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		return func() { s.Stop(); <-done }
	}
	dial := func(name string) *grpc.ClientConn {
		c, err := inProcess.Conn(name, rpc.ClientOptions{Service: name})
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	sib := &siblings{bound: make(chan string, 1)}
	sibServer := rpc.NewServer(rpc.ServerOptions{Logger: logger})
	ordersv1.RegisterOrdersServiceServer(sibServer, sib)
	deployerv1.RegisterDeployerServiceServer(sibServer, sib)
	defer serve("siblings", sibServer)()

	b, store := newBus("inventory"), testkit.Store(t)
	asPerson := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(authz.NewContext(ctx, authz.Principal{Subject: "token:tok_1", Permissions: []string{"*"}}), req)
	}
	platform := &service.Platform{
		Name: "inventory", Clock: clock.System(), Logger: logger, Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: metricnoop.NewMeterProvider().Meter(""),
		Store: store, Bus: b, Outbox: outbox.New(outbox.Config{Store: store, Bus: b, Source: "inventory", Clock: clock.System(), Logger: logger}),
		Server: rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler), Unary: []grpc.UnaryServerInterceptor{asPerson}}),
		Peer:   func(string) grpc.ClientConnInterface { return dial("siblings") },
		Listen: func(ctx context.Context, s *grpc.Server) error {
			l := inProcess.Listen("inventory")
			stop := context.AfterFunc(ctx, s.Stop)
			defer stop()
			return s.Serve(l)
		},
	}
	runCtx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- inventory.Run(runCtx, platform, inventory.Defaults()) }()

	// orders and renewals answer what they hear; orders tells its answer twice.
	others := newBus("orders")
	require.NoError(t, others.Consume(bus.Consumer{
		Name: "orders-certificates", Types: []string{certificateeventsv1.TypeRequested, certificateeventsv1.TypeIntentClosed},
		Handle: func(ctx context.Context, e bus.Event) error {
			var r certificateeventsv1.Requested
			if e.Type == certificateeventsv1.TypeRequested {
				if err := e.Decode(&r); err != nil {
					return err
				}
				for range 2 {
					if err := tell(ctx, others, "orders", r.GetOrderId(), 1, issued(r.GetCertificateId(), r.GetOrderId(), r.GetIntentNumber())); err != nil {
						return err
					}
				}
				return nil
			}
			var c certificateeventsv1.IntentClosed
			if err := e.Decode(&c); err != nil {
				return err
			}
			return tell(ctx, others, "renewals", c.GetCertificateId(), c.GetIntentNumber(), planned(c.GetCertificateId(), c.GetIntentNumber()))
		},
	}))
	othersRan := make(chan error, 1)
	othersCtx, stopOthers := context.WithCancel(ctx)
	go func() { othersRan <- others.Run(othersCtx) }()
	defer func() { stopOthers(); require.NoError(t, <-othersRan) }()
	defer func() { stop(); require.NoError(t, <-ran) }()

	client := inventoryv1.NewInventoryServiceClient(dial("inventory"))
	bad := request("a_b.example")
	_, err := client.CreateCertificate(ctx, bad)
	require.Equal(t, "certificate.spec.names[0]", mustFail(t, errs.Invalid, "INVALID_ARGUMENT", err).Fields[0].Name)

	r := request("a.example.org")
	r.DeployTo = []string{"tgt_1"}
	c, err := client.CreateCertificate(ctx, r)
	require.NoError(t, err)
	select {
	case target := <-sib.bound:
		require.Equal(t, "tgt_1", target)
	case <-ctx.Done():
		require.Fail(t, "no binding was made")
	}
	read := func() string {
		got, err := client.GetCertificate(ctx, &inventoryv1.GetCertificateRequest{Id: c.GetId()})
		require.NoError(t, err)
		return fmt.Sprint(got.GetState(), " ", got.GetIntent().GetOutcome(), " ", got.GetRenewal().GetState())
	}
	testkit.Eventually(t, func() bool { return read() == "active issued planned" }, "the certificate is issued and planned")

	answer, err := client.RenewCertificate(ctx, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Equal(t, int64(2), answer.GetIntentNumber())
	testkit.Eventually(t, func() bool {
		got, err := client.ListVersions(ctx, &inventoryv1.ListVersionsRequest{Id: c.GetId()})
		require.NoError(t, err)
		return len(got.GetVersions()) == 2
	}, "the certificate is renewed")
}

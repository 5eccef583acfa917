package keys_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/keys"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/testkit"
)

// orders tells of one order that failed: the fact itself is lost.
type orders struct {
	ordersv1.UnimplementedOrdersServiceServer
}

func (orders) ListChanges(context.Context, *ordersv1.ListChangesRequest) (*ordersv1.ListChangesResponse, error) {
	return &ordersv1.ListChangesResponse{Changes: []*ordersv1.OrderChange{{Order: &ordersv1.Order{Id: "ord_2", State: "failed"}}}}, nil
}

func TestTheServiceRunsOnARealBusAndStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	nats, logger := testkit.NATS(t), testkit.Logger(t)
	b, err := bus.New(ctx, bus.Config{Conn: nats.Conn(), Source: "keys", Logger: logger, SyncInterval: time.Second, HealthInterval: 100 * time.Millisecond})
	require.NoError(t, err)
	inProcess := rpc.NewInProcess()
	dial := func(name string) *grpc.ClientConn {
		c, err := inProcess.Conn(name, rpc.ClientOptions{Service: name})
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	sibServer := rpc.NewServer(rpc.ServerOptions{Logger: logger})
	ordersv1.RegisterOrdersServiceServer(sibServer, orders{})
	sibListener := inProcess.Listen("siblings")
	sibDone := make(chan struct{})
	go func() { defer close(sibDone); _ = sibServer.Serve(sibListener) }()
	defer func() { sibServer.Stop(); <-sibDone }()

	store := testkit.Store(t)
	asOrders := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(authz.NewContext(ctx, authz.ForService("orders")), req)
	}
	platform := &service.Platform{
		Name: "keys", Clock: clock.System(), Logger: logger, Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: metricnoop.NewMeterProvider().Meter(""),
		Store: store, Bus: b, Outbox: outbox.New(outbox.Config{Store: store, Bus: b, Source: "keys", Clock: clock.System(), Logger: logger}),
		Server: rpc.NewServer(rpc.ServerOptions{Logger: slog.New(slog.DiscardHandler), Unary: []grpc.UnaryServerInterceptor{asOrders}}),
		Peer:   func(string) grpc.ClientConnInterface { return dial("siblings") }, DataDir: t.TempDir(), HealEvery: 50 * time.Millisecond,
		Listen: func(ctx context.Context, s *grpc.Server) error {
			l := inProcess.Listen("keys")
			stop := context.AfterFunc(ctx, s.Stop)
			defer stop()
			return s.Serve(l)
		},
	}
	runCtx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- keys.Run(runCtx, platform, keys.Defaults()) }()
	defer func() { stop(); require.NoError(t, <-ran) }()

	client := keysv1.NewKeysServiceClient(dial("keys"))
	ensure := func(order string) *keysv1.EnsureCSRResponse {
		res, err := client.EnsureCSR(ctx, &keysv1.EnsureCSRRequest{OrderId: order, CertificateId: "crt_1", Names: []string{"a.example"}, Team: "web"})
		require.NoError(t, err)
		return res
	}
	res := ensure("ord_1")
	require.Equal(t, res.GetCsrDer(), ensure("ord_1").GetCsrDer())
	csr, err := x509.ParseCertificateRequest(res.GetCsrDer())
	require.NoError(t, err)
	require.Equal(t, "a.example", csr.Subject.CommonName)
	ensure("ord_2")

	data, err := protojson.Marshal(&certificateeventsv1.VersionAdded{CertificateId: "crt_1", State: "current", Version: &typesv1.VersionFacts{
		VersionId: "ver_1", Number: 1, OrderId: "ord_1", KeyId: res.GetKeyId(),
	}})
	require.NoError(t, err)
	require.NoError(t, b.Publish(ctx, bus.Event{
		ID: "x-e-1-0", Type: certificateeventsv1.TypeVersionAdded, Source: "inventory", Subject: "crt_1", Time: time.Now(), Revision: 1, Epoch: "e", Team: "web", Data: data,
	}.Entry()))
	states := func() map[string]string {
		list, err := client.ListKeys(ctx, &keysv1.ListKeysRequest{Filter: "certificate=crt_1"})
		require.NoError(t, err)
		out := map[string]string{}
		for _, k := range list.GetKeys() {
			out[k.GetId()] = k.GetState()
		}
		return out
	}
	testkit.Eventually(t, func() bool { s := states(); return s["key_1"] == "active" && s["key_2"] == "destroyed" }, "each key gets its outcome")
}

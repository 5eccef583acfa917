package keys_test

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/keys"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
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
	network := servicetest.New(t)
	network.Play("orders", &ordersv1.OrdersService_ServiceDesc, orders{})
	p := network.Platform("keys", authz.ForService("orders"))
	p.HealEvery = 50 * time.Millisecond
	testkit.Run(t, func(ctx context.Context) error { return keys.Run(ctx, p, keys.Defaults()) })

	client := keysv1.NewKeysServiceClient(network.Conn("keys"))
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

	added := &certificateeventsv1.VersionAdded{CertificateId: "crt_1", State: "current", Version: &typesv1.VersionFacts{
		VersionId: "ver_1", Number: 1, OrderId: "ord_1", KeyId: res.GetKeyId(),
	}}
	require.NoError(t, p.Bus.Publish(ctx, testkit.Event(t, added, bus.Event{
		ID: "x-e-1-0", Source: "inventory", Subject: "crt_1", Time: time.Now(), Revision: 1, Epoch: "e", Team: "web",
	}).Entry()))
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

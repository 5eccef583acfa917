package inventory_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/inventory"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/testkit/servicetest"
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

func TestTheServiceRunsOnARealBusAndStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network := servicetest.New(t)
	sib := &siblings{bound: make(chan string, 1)}
	network.Play("orders", &ordersv1.OrdersService_ServiceDesc, sib)
	network.Play("deployer", &deployerv1.DeployerService_ServiceDesc, sib)
	p := network.Platform("inventory", authz.Principal{Subject: "token:tok_1", Permissions: []string{"*"}})
	testkit.Run(t, func(ctx context.Context) error { return inventory.Run(ctx, p, inventory.Defaults()) })

	// orders and renewals answer what they hear; orders tells its answer twice.
	others := network.Bus("orders")
	tell := func(ctx context.Context, source, subject string, revision int64, m proto.Message) error {
		return others.Publish(ctx, testkit.Event(t, m, bus.Event{
			ID: id.New("evt", time.Now()), Source: source, Subject: subject, Time: time.Now(), Revision: revision, Epoch: "e", Team: "default",
		}).Entry())
	}
	require.NoError(t, others.Consume(bus.Consumer{
		Name: "orders-certificates", Types: []string{certificateeventsv1.TypeRequested, certificateeventsv1.TypeIntentClosed},
		Handle: func(ctx context.Context, e bus.Event) error {
			var r certificateeventsv1.Requested
			if e.Type == certificateeventsv1.TypeRequested {
				if err := e.Decode(&r); err != nil {
					return err
				}
				for range 2 {
					if err := tell(ctx, "orders", r.GetOrderId(), 1, issued(r.GetCertificateId(), r.GetOrderId(), r.GetIntentNumber())); err != nil {
						return err
					}
				}
				return nil
			}
			var c certificateeventsv1.IntentClosed
			if err := e.Decode(&c); err != nil {
				return err
			}
			return tell(ctx, "renewals", c.GetCertificateId(), c.GetIntentNumber(), planned(c.GetCertificateId(), c.GetIntentNumber()))
		},
	}))
	testkit.Run(t, others.Run)

	client := inventoryv1.NewInventoryServiceClient(network.Conn("inventory"))
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

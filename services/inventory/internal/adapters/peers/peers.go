// Package peers asks the sibling services, as inventory itself. It must never be used by a consumer's handler.
package peers

import (
	"context"

	"google.golang.org/grpc"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/rpc"
)

// Orders answers which issuer is meant.
type Orders struct{ client ordersv1.OrdersServiceClient }

// NewOrders asks orders over conn.
func NewOrders(conn grpc.ClientConnInterface) Orders {
	return Orders{ordersv1.NewOrdersServiceClient(conn)}
}

// Issuer implements app.Issuers.
func (o Orders) Issuer(ctx context.Context, idOrName string) (app.Issuer, error) {
	is, err := o.client.GetIssuer(authz.AsService(ctx), &ordersv1.GetIssuerRequest{Id: idOrName})
	if err != nil {
		return app.Issuer{}, rpc.FromError(err)
	}
	return app.Issuer{ID: is.GetId(), DisplayName: is.GetDisplayName(), Team: is.GetTeam(), Disabled: is.GetDisabled()}, nil
}

// Deployer makes bindings.
type Deployer struct {
	client deployerv1.DeployerServiceClient
}

// NewDeployer asks deployer over conn.
func NewDeployer(conn grpc.ClientConnInterface) Deployer {
	return Deployer{deployerv1.NewDeployerServiceClient(conn)}
}

// EnsureBinding implements app.Bindings.
func (d Deployer) EnsureBinding(ctx context.Context, certificate, target, team, owner string) (string, error) {
	b, err := d.client.EnsureBinding(authz.AsService(ctx), &deployerv1.EnsureBindingRequest{
		CertificateId: certificate, TargetId: target, Team: team, Owner: owner,
	})
	return b.GetId(), rpc.FromError(err)
}

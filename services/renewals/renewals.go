// Package renewals decides when a certificate is renewed: by the CA's suggestion (ARI), by the life that is left, after failures, after a revocation. It is also the
// dead man's switch: it raises the alarm when something did not happen. It never talks to a CA and never opens an order itself: it asks the inventory, the one door.
package renewals

import (
	"context"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
	"github.com/certwright/certwright/services/renewals/internal/app"
	"github.com/certwright/certwright/services/renewals/internal/domain"
	"github.com/certwright/certwright/services/renewals/internal/transport/consumer"
	"github.com/certwright/certwright/services/renewals/internal/transport/grpc"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	plans, err := outbox.Open[domain.Plan](ctx, p.Outbox, app.Spec())
	if err != nil {
		return err
	}
	a := &app.App{
		Plans: plans, Inventory: inventoryv1.NewInventoryServiceClient(p.Peer("inventory")), Orders: ordersv1.NewOrdersServiceClient(p.Peer("orders")),
		Clock: p.Clock, Logger: p.Logger, Policy: cfg.policy(),
	}
	renewalsv1.RegisterRenewalsServiceServer(p.Server, &grpc.Server{App: a})
	if err := p.Bus.Consume(consumer.New(a)); err != nil {
		return err
	}
	p.Go("plan worker", worker.New(worker.Config[domain.Plan]{
		Name: "renewals", Coll: plans, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Step,
		Lease: cfg.Lease, Concurrency: cfg.Concurrency, Sweep: cfg.Sweep,
	}).Run)
	p.Every("janitor", time.Hour, a.Sweep)
	p.Heal("inventory", a.ReadInventory)
	return p.Serve(ctx)
}

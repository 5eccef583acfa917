// Package inventory is the certificate repository: what should exist and what does. It is the one door through which every order is opened, and must
// never open a second intent while one is open.
package inventory

import (
	"context"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/inventory/internal/adapters/peers"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/services/inventory/internal/transport/consumer"
	transport "github.com/certwright/certwright/services/inventory/internal/transport/grpc"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run serves inventory until ctx ends.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	a, err := app.Open(ctx, p.Outbox, peers.NewOrders(p.Peer("orders")), peers.NewDeployer(p.Peer("deployer")), p.Logger, app.Config{
		RevokeWait: cfg.RevokeWait, TombstoneKeep: cfg.TombstoneKeep,
	})
	if err != nil {
		return err
	}
	inventoryv1.RegisterInventoryServiceServer(p.Server, &transport.Server{App: a})
	for _, c := range consumer.Consumers(a) {
		if err := p.Bus.Consume(c); err != nil {
			return err
		}
	}
	w := worker.New(worker.Config[domain.Certificate]{
		Name: "inventory", Coll: a.Certs, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Step,
	})
	p.Go("certificates", w.Run)
	p.Every("janitor", cfg.SweepEvery, a.Sweep)
	return p.Serve(ctx)
}

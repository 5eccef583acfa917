// Package keys is the custody of certificates' private keys: they are made here, sealed here, and leave only sealed to a receiver, or for a person with the
// right to export, under audit. A key is never on the bus, in a log, in a trace, or in the store unsealed.
package keys

import (
	"context"
	"path/filepath"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/keys/internal/app"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/transport/consumer"
	"github.com/certwright/certwright/services/keys/internal/transport/grpc"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends. A missing or foreign key-encryption key is Precondition KEK_MISSING or KEK_FOREIGN.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	kek := cfg.KEKFile
	if !filepath.IsAbs(kek) {
		kek = filepath.Join(p.DataDir, kek)
	}
	sealer, err := seal.OpenKEK(ctx, p.Store, kek, "keys")
	if err != nil {
		return err
	}
	coll, err := outbox.Open[domain.Key](ctx, p.Outbox, app.Spec())
	if err != nil {
		return err
	}
	a := &app.App{
		Keys: coll, Sealer: sealer, Clock: p.Clock, KeepPrevious: cfg.KeepPrevious,
		Inventory: inventoryv1.NewInventoryServiceClient(p.Peer("inventory")),
		Orders:    ordersv1.NewOrdersServiceClient(p.Peer("orders")),
		Times:     domain.Times{Unanswered: cfg.Unanswered, Review: cfg.ReviewEvery, Retention: cfg.DeletedRetention, Forget: cfg.ForgetAfter},
	}
	keysv1.RegisterKeysServiceServer(p.Server, &grpc.Server{App: a})
	if err := p.Bus.Consume(consumer.New(a)); err != nil {
		return err
	}
	p.Heal("keys-orders", a.ReadOrders)
	p.Go("review", worker.New(worker.Config[domain.Key]{
		Name: "keys.review", Coll: coll, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Review,
	}).Run)
	p.Every("forget", time.Hour, a.Forget)
	return p.Serve(ctx)
}

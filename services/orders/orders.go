// Package orders is the issuance saga: it owns issuers, ACME accounts, orders and revocations, and is the only service that talks to a CA.
// It must never hold a certificate's private key, and never finalize two orders for one intent.
package orders

import (
	"cmp"
	"context"
	"path/filepath"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/adapters/acme"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/services/orders/internal/transport/consumer"
	"github.com/certwright/certwright/services/orders/internal/transport/grpc"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	sealer, err := seal.OpenKEK(ctx, p.Store, cmp.Or(cfg.KEKFile, filepath.Join(p.DataDir, "orders.kek")), p.Name)
	if err != nil {
		return err
	}
	stores, err := open(ctx, p.Outbox)
	if err != nil {
		return err
	}
	metrics, err := app.NewMetrics(p.Meter)
	if err != nil {
		return err
	}
	a := &app.App{
		Stores: stores, CA: acme.New(p.Clock, "certwright/"+cfg.Version), Keys: keysv1.NewKeysServiceClient(p.Peer("keys")),
		Inventory: inventoryv1.NewInventoryServiceClient(p.Peer("inventory")), Sealer: sealer, Clock: p.Clock, Logger: p.Logger, Epoch: p.Store.Epoch(),
		ARIMinRetry: cfg.ariMinRetry(), Metrics: metrics,
	}
	ordersv1.RegisterOrdersServiceServer(p.Server, &grpc.Server{App: a})
	if err := p.Bus.Consume(consumer.New(a)); err != nil {
		return err
	}
	p.Go("order worker", worker.New(worker.Config[domain.Order]{
		Name: "orders", Coll: stores.Orders, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.StepOrder,
		Concurrency: cmp.Or(cfg.Concurrency, 128),
	}).Run)
	p.Go("revocation worker", worker.New(worker.Config[domain.Revocation]{
		Name: "revocations", Coll: stores.Revocations, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.StepRevocation,
		Concurrency: 8,
	}).Run)
	p.Go("account worker", worker.New(worker.Config[app.Account]{
		Name: "accounts", Coll: stores.Accounts, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.StepAccount,
		Concurrency: 4,
	}).Run)
	p.Every("request sweep", time.Hour, stores.Requests.Sweep)
	p.Every("budget sweep", time.Hour, a.SweepBudgets)
	p.Every("budget report", time.Minute, a.ReportBudgets)
	return p.Serve(ctx)
}

func open(ctx context.Context, o *outbox.Outbox) (s app.Stores, err error) {
	orders, issuers, accounts, revocations := app.Specs()
	if s.Orders, err = outbox.Open[domain.Order](ctx, o, orders); err != nil {
		return s, err
	}
	if s.Issuers, err = outbox.Open[domain.Issuer](ctx, o, issuers); err != nil {
		return s, err
	}
	if s.Accounts, err = outbox.Open[app.Account](ctx, o, accounts); err != nil {
		return s, err
	}
	if s.Revocations, err = outbox.Open[domain.Revocation](ctx, o, revocations); err != nil {
		return s, err
	}
	if s.Budgets, err = outbox.Open[domain.Bucket](ctx, o, app.BudgetSpec()); err != nil {
		return s, err
	}
	s.Requests, err = once.Open(ctx, o)
	return s, err
}

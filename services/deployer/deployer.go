// Package deployer puts certificate versions on servers, has the servers read them, looks at what is served, and goes back to the version before when that is not
// the new one. A deployment is tried until it succeeds or is not wanted any more.
package deployer

import (
	"context"
	"time"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/deployer/internal/adapters/tlsprobe"
	"github.com/certwright/certwright/services/deployer/internal/app"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/services/deployer/internal/transport/consumer"
	"github.com/certwright/certwright/services/deployer/internal/transport/grpc"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// detachedFor is how long the binding of a deleted certificate is remembered.
const detachedFor = 30 * 24 * time.Hour

// Run runs the service until ctx ends.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	targetSpec, bindingSpec, deploymentSpec := app.Specs()
	targets, err := outbox.Open[domain.Target](ctx, p.Outbox, targetSpec)
	if err != nil {
		return err
	}
	bindings, err := outbox.Open[domain.Binding](ctx, p.Outbox, bindingSpec)
	if err != nil {
		return err
	}
	deployments, err := outbox.Open[domain.Deployment](ctx, p.Outbox, deploymentSpec)
	if err != nil {
		return err
	}
	requests, err := once.Open(ctx, p.Outbox)
	if err != nil {
		return err
	}
	// Keys are sealed to this process: its receiving key lives in memory only.
	receiver, err := seal.NewReceiver()
	if err != nil {
		return err
	}
	a := &app.App{
		Targets: targets, Bindings: bindings, Deployments: deployments, Requests: requests,
		Inventory: inventoryv1.NewInventoryServiceClient(p.Peer("inventory")), Keys: keysv1.NewKeysServiceClient(p.Peer("keys")),
		Receiver: receiver, Hosts: cfg.hosts(), Prober: tlsprobe.Probe{Timeout: cfg.ProbeTimeout}, Clock: p.Clock, Logger: p.Logger,
		VerifyFor: cfg.VerifyFor, VerifyPoll: cfg.VerifyPoll, DetachedFor: detachedFor,
	}
	deployerv1.RegisterDeployerServiceServer(p.Server, &grpc.Server{App: a})
	if err := p.Bus.Consume(consumer.New(a)); err != nil {
		return err
	}
	usual, _ := deployments.Patience()
	p.Heal("deployer-certificates", a.ReadCertificates)
	p.Go("bindings", worker.New(worker.Config[domain.Binding]{
		Name: "deployer.bindings", Coll: bindings, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.StepBinding,
	}).Run)
	p.Go("deployments", worker.New(worker.Config[domain.Deployment]{
		Name: "deployer.deployments", Coll: deployments, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Step,
		Lease: cfg.lease(usual), Concurrency: cfg.Concurrency,
	}).Run)
	p.Every("forget", time.Hour, a.Forget)
	return p.Serve(ctx)
}

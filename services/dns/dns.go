// Package dns is the service that owns DNS accounts and the sets of TXT records that prove control of names. It is the only one that talks to DNS
// providers; credentials never leave it.
package dns

import (
	"context"
	"path/filepath"
	"time"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	"github.com/certwright/certwright/services/dns/internal/adapters/azure"
	"github.com/certwright/certwright/services/dns/internal/adapters/cloudflare"
	"github.com/certwright/certwright/services/dns/internal/adapters/godaddy"
	"github.com/certwright/certwright/services/dns/internal/adapters/propagation"
	"github.com/certwright/certwright/services/dns/internal/adapters/rfc2136"
	"github.com/certwright/certwright/services/dns/internal/adapters/route53"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/services/dns/internal/transport/consumer"
	grpctransport "github.com/certwright/certwright/services/dns/internal/transport/grpc"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends or a part of it fails.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	kek := cfg.KEKFile
	if !filepath.IsAbs(kek) {
		kek = filepath.Join(p.DataDir, kek)
	}
	sealer, err := seal.OpenKEK(ctx, p.Store, kek, "dns")
	if err != nil {
		return err
	}
	requests, err := once.Open(ctx, p.Outbox)
	if err != nil {
		return err
	}
	accounts, err := outbox.Open[app.StoredAccount](ctx, p.Outbox, app.AccountsSpec())
	if err != nil {
		return err
	}
	sets, err := outbox.Open[domain.RecordSet](ctx, p.Outbox, app.SetsSpec())
	if err != nil {
		return err
	}
	later := func(k app.Kind) app.Kind { return propagation.Kind{Kind: k, Clock: p.Clock, After: cfg.Propagation} }
	a := &app.App{
		Accounts: accounts, Sets: sets, Requests: requests, Sealer: sealer, Clock: p.Clock, Logger: p.Logger, Timeout: cfg.Timeout,
		Kinds: map[string]app.Kind{
			rfc2136.Name:    rfc2136.Kind{Clock: p.Clock},
			cloudflare.Name: later(cloudflare.Kind{Clock: p.Clock, Endpoint: cfg.endpoint}),
			route53.Name:    route53.Kind{Clock: p.Clock, Endpoint: cfg.endpoint},
			azure.Name:      later(azure.Kind{Clock: p.Clock, Endpoint: cfg.endpoint, HostIdentity: cfg.HostIdentity}),
			godaddy.Name:    later(godaddy.Kind{Clock: p.Clock, Endpoint: cfg.endpoint}),
		},
	}
	dnsv1.RegisterDNSServiceServer(p.Server, &grpctransport.Server{App: a})
	if err := p.Bus.Consume(consumer.Records(a)); err != nil {
		return err
	}
	p.Go("record sets", worker.New(worker.Config[domain.RecordSet]{
		Name: "dns-records", Coll: sets, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Step, Concurrency: cfg.Workers,
	}).Run)
	p.Every("janitor", time.Hour, a.Tidy)
	return p.Serve(ctx)
}

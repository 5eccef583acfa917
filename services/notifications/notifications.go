// Package notifications tells people and systems what happened: it owns channels (mail, webhooks) and the deliveries of events over them. Nobody waits for
// it, and nothing that goes wrong here touches anything else.
package notifications

import (
	"cmp"
	"context"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/metric"

	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	"github.com/certwright/certwright/services/notifications/internal/adapters/smtp"
	"github.com/certwright/certwright/services/notifications/internal/adapters/webhook"
	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/transport/consumer"
	"github.com/certwright/certwright/services/notifications/internal/transport/grpc"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/worker"
)

// Run runs the service until ctx ends or a part of it fails. A missing or foreign key-encryption key is Precondition KEK_MISSING or KEK_FOREIGN.
func Run(ctx context.Context, p *service.Platform, cfg Config) error {
	sealer, err := seal.OpenKEK(ctx, p.Store, cmp.Or(cfg.KEKFile, filepath.Join(p.DataDir, "notifications.kek")), p.Name)
	if err != nil {
		return err
	}
	channelSpec, deliverySpec := app.Specs()
	channels, err := outbox.Open[app.StoredChannel](ctx, p.Outbox, channelSpec)
	if err != nil {
		return err
	}
	deliveries, err := outbox.Open[domain.Delivery](ctx, p.Outbox, deliverySpec)
	if err != nil {
		return err
	}
	requests, err := once.Open(ctx, p.Outbox)
	if err != nil {
		return err
	}
	a := &app.App{
		Channels: channels, Deliveries: deliveries, Requests: requests, Sealer: sealer, Clock: p.Clock, Logger: p.Logger, Timeout: cfg.Timeout, Keep: cfg.Keep,
		Senders: map[string]app.Sender{domain.KindSMTP: smtp.Sender{}, domain.KindWebhook: webhook.Sender{Clock: p.Clock}},
	}
	if p.Meter != nil {
		a.Outcomes, err = p.Meter.Int64Counter("certwright_notifications_attempts_total",
			metric.WithDescription("Attempts to tell an event by kind of channel and outcome (delivered, deferred, failed)"))
		if err != nil {
			return err
		}
	}
	notificationsv1.RegisterNotificationsServiceServer(p.Server, &grpc.Server{App: a})
	if err := p.Bus.Consume(consumer.New(a)); err != nil {
		return err
	}
	p.Go("deliveries", worker.New(worker.Config[domain.Delivery]{
		Name: "notifications", Coll: deliveries, Clock: p.Clock, Logger: p.Logger, Tracer: p.Tracer, Meter: p.Meter, Step: a.Step, Concurrency: cfg.Concurrency,
	}).Run)
	p.Every("janitor", time.Hour, a.Tidy)
	return p.Serve(ctx)
}

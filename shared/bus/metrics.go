package bus

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/shared/errs"
)

// metrics are counted by type and consumer, never by aggregate: the number of series stays bounded.
type metrics struct {
	pub     metric.Int64Counter
	done    metric.Int64Counter
	seconds metric.Float64Histogram
	dead    metric.Int64Counter
	lag     metric.Int64Gauge
	lagAge  metric.Float64Gauge
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var met metrics
	var err error
	keep := func(e error) {
		if err == nil && e != nil {
			err = errs.New(errs.Internal, "", "bus metrics: %w", e)
		}
	}
	var e error
	met.pub, e = m.Int64Counter("certwright.bus.published", metric.WithDescription("Facts taken by the bus, by type."))
	keep(e)
	met.done, e = m.Int64Counter("certwright.bus.handled", metric.WithDescription("Deliveries by consumer, type and outcome: ack, retry or dead."))
	keep(e)
	met.seconds, e = m.Float64Histogram("certwright.bus.handle.duration", metric.WithUnit("s"),
		metric.WithDescription("How long a handler took, by consumer."),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30))
	keep(e)
	met.dead, e = m.Int64Counter("certwright.bus.dead_letters", metric.WithDescription("Facts given up, by consumer, type and reason."))
	keep(e)
	met.lag, e = m.Int64Gauge("certwright.bus.consumer.lag", metric.WithDescription("Facts that a consumer has not handled yet."))
	keep(e)
	met.lagAge, e = m.Float64Gauge("certwright.bus.consumer.lag.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest fact that a consumer has not handled yet; 0 when there is none."))
	keep(e)
	return &met, err
}

func (m *metrics) published(ctx context.Context, eventType string) {
	m.pub.Add(ctx, 1, metric.WithAttributes(attribute.String("type", eventType)))
}

func (m *metrics) answered(ctx context.Context, consumer, eventType string, a action) {
	m.done.Add(ctx, 1, metric.WithAttributes(attribute.String("consumer", consumer), attribute.String("type", eventType),
		attribute.String("outcome", a.String())))
}

func (m *metrics) took(ctx context.Context, consumer string, d time.Duration) {
	m.seconds.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("consumer", consumer)))
}

func (m *metrics) deadLetter(ctx context.Context, consumer, eventType, reason string) {
	m.dead.Add(ctx, 1, metric.WithAttributes(attribute.String("consumer", consumer), attribute.String("type", eventType),
		attribute.String("reason", reason)))
}

func (m *metrics) lagging(ctx context.Context, consumer string, messages int64) {
	m.lag.Record(ctx, messages, metric.WithAttributes(attribute.String("consumer", consumer)))
}

func (m *metrics) lagAged(ctx context.Context, consumer string, age time.Duration) {
	m.lagAge.Record(ctx, age.Seconds(), metric.WithAttributes(attribute.String("consumer", consumer)))
}

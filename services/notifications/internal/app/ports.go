// Package app has the use cases of the notifications service: channels, and the deliveries of events over them.
//
// It must never let a channel's secret out: they are sealed when stored and opened only to send. What goes wrong here touches nothing else.
package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

// Sender brings messages over one kind of channel. A send is one outside call, ends with ctx, and classifies its errors: those that errs.Transient
// names are worth another attempt, after RetryAfter if it is set. Errors name the server and what it answered, never the secret.
type Sender interface {
	Send(ctx context.Context, to Target, m Message) error
}

// Target is where a message goes.
type Target struct {
	Channel   domain.Channel
	Secret    secret.Value // password or webhook secret; empty when the channel has none
	Receivers []string     // mail addresses
}

// Message is what goes there. The same delivery makes the same IDs at every attempt.
type Message struct {
	ID        string // of the delivery
	EventID   string
	EventType string
	At        time.Time // of the delivery's making
	Subject   string
	Text      string
	HTML      string
	JSON      []byte // of the event, for programs
}

// StoredChannel is the document of a channel.
type StoredChannel struct {
	domain.Channel `bson:",inline"`
	Secret         seal.Sealed    `bson:"secret"` // additional data: the channel's id; zero when there is none
	TestedAt       time.Time      `bson:"tested_at"`
	TestProblem    domain.Problem `bson:"test_problem"`
}

// ChannelDoc is a stored channel.
type ChannelDoc = docstore.Doc[StoredChannel]

// DeliveryDoc is a stored delivery.
type DeliveryDoc = docstore.Doc[domain.Delivery]

// App is the notifications service's use cases.
type App struct {
	Channels   *outbox.Collection[StoredChannel]
	Deliveries *outbox.Collection[domain.Delivery]
	Requests   *once.Requests
	Sealer     *seal.Sealer
	Senders    map[string]Sender // by kind of channel
	Clock      clock.Clock
	Logger     *slog.Logger
	// Timeout bounds each send.
	Timeout time.Duration
	// Keep is how long deliveries are kept. It must be longer than the bus keeps events: a delivery is what drops a repeated event.
	Keep time.Duration
	// Outcomes counts attempts; may be nil.
	Outcomes metric.Int64Counter

	mu     sync.Mutex // guards known and readAt
	known  []ChannelDoc
	readAt time.Time
}

// Specs declares the collections.
func Specs() (channels, deliveries docstore.Spec) {
	return docstore.Spec{Name: "channels", Indexes: []docstore.Index{
			{Fields: []string{"team"}},
			{Fields: []string{"tombstone", "changed_at"}},
		}}, docstore.Spec{Name: "deliveries", Indexes: []docstore.Index{
			{Fields: []string{"team"}},
			{Fields: []string{"channel_id"}},
			{Fields: []string{"state"}},
			{Fields: []string{"event_type"}},
			{Fields: []string{"created_at"}},
		}}
}

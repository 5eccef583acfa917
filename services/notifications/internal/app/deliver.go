package app

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/text"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// webhookBody is what is posted.
type webhookBody struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Time    string          `json:"time"` // RFC 3339
	Subject string          `json:"subject"`
	Team    string          `json:"team"`
	Data    json.RawMessage `json:"data"`
}

// schedule is the one place that derives WorkAt.
func schedule(doc *DeliveryDoc) {
	doc.WorkAt = clock.Never
	if at, due := doc.Body.WorkAt(); due {
		doc.WorkAt = at
	}
}

// Step makes one attempt of a delivery: one mail or one post.
func (a *App) Step(ctx context.Context, doc DeliveryDoc) (worker.Result[domain.Delivery], error) {
	to, m, err := a.prepare(ctx, doc)
	if err == nil {
		err = worker.Call(ctx, "notifications."+to.Channel.Kind, func(ctx context.Context) error { return a.send(ctx, to, m) })
	} else if errs.Transient(err) {
		return worker.Result[domain.Delivery]{}, err // our own store
	}
	if err != nil && (ctx.Err() != nil || errs.ReasonOf(err) == "LEASE_ENDED") {
		return worker.Result[domain.Delivery]{}, err // no attempt: the process stops, or was stopped
	}
	now := a.Clock.Now()
	a.count(ctx, doc, to, err, now)
	return worker.Result[domain.Delivery]{Apply: func(doc *DeliveryDoc) ([]outbox.Fact, error) {
		change := attempt(&doc.Body, doc.ID, err, now)
		schedule(doc)
		return nil, change
	}}, nil
}

// attempt writes down what came of an attempt.
func attempt(d *domain.Delivery, deliveryID string, err error, now time.Time) error {
	switch {
	case err == nil:
		return d.Sent()
	case !errs.Transient(err):
		return d.Refused(problemOf(err))
	}
	var after time.Duration
	if e := errs.As(err); e != nil {
		after = e.RetryAfter
	}
	return d.Deferred(problemOf(err), now, after, spread(deliveryID, d.Attempts))
}

// spread is a number from 0 to 1 that is drawn once for each attempt of each delivery.
func spread(deliveryID string, attempts int) float64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(deliveryID + "/" + strconv.Itoa(attempts)))
	return float64(h.Sum32()%1000) / 1000
}

// prepare gathers what an attempt needs. Transient errors are the store's; all others end the delivery.
func (a *App) prepare(ctx context.Context, doc DeliveryDoc) (Target, Message, error) {
	d := doc.Body
	channel, err := a.Channel(ctx, d.ChannelID)
	if errs.KindOf(err) == errs.NotFound {
		return Target{}, Message{}, errs.New(errs.Precondition, domain.ReasonChannelGone, "the channel %s was deleted before this was sent", d.ChannelID)
	}
	if err != nil {
		return Target{}, Message{}, err
	}
	to := Target{Channel: channel.Body.Channel}
	if d.Receiver != "" {
		to.Receivers = []string{d.Receiver}
	}
	if to.Secret, err = a.open(ctx, channel); err != nil {
		return to, Message{}, err
	}
	words, err := text.Write(text.Event{ID: d.EventID, Type: d.EventType, Time: d.EventTime, Data: []byte(d.Data)})
	if err != nil {
		return to, Message{}, err
	}
	body, err := json.Marshal(webhookBody{
		ID: d.EventID, Type: d.EventType, Time: d.EventTime.UTC().Format(time.RFC3339Nano), Subject: d.EventSubject, Team: d.EventTeam, Data: json.RawMessage(d.Data),
	})
	if err != nil {
		return to, Message{}, errs.New(errs.Invalid, domain.ReasonEventUnreadable, "event %s cannot be written as JSON: %w", d.EventID, err)
	}
	return to, Message{
		ID: doc.ID, EventID: d.EventID, EventType: d.EventType, At: doc.CreatedAt, Subject: words.Subject, Text: words.Text, HTML: words.HTML, JSON: body,
	}, nil
}

// send makes the one outside call, within the timeout.
func (a *App) send(ctx context.Context, to Target, m Message) error {
	sender, ok := a.Senders[to.Channel.Kind]
	if !ok {
		return errs.New(errs.Unimplemented, "", "this version has no channels of kind %q", to.Channel.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return sender.Send(ctx, to, m)
}

// count logs an attempt and counts it.
func (a *App) count(ctx context.Context, doc DeliveryDoc, to Target, err error, now time.Time) {
	log := a.Logger.With("delivery", doc.ID, "channel", doc.Body.ChannelID, "event", doc.Body.EventID, "event_type", doc.Body.EventType)
	outcome := domain.Delivered
	if err == nil {
		log.InfoContext(ctx, "an event was told")
	} else {
		after := doc.Body
		_ = attempt(&after, doc.ID, err, now)
		if outcome = after.State; outcome == domain.Failed {
			log.WarnContext(ctx, "an event is told no more", "reason", errs.ReasonOf(err), "error", err)
		} else {
			outcome = "deferred"
			log.InfoContext(ctx, "telling an event is put off", "reason", errs.ReasonOf(err), "error", err)
		}
	}
	if a.Outcomes != nil {
		a.Outcomes.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", to.Channel.Kind), attribute.String("outcome", outcome)))
	}
}

// ListDeliveries returns a page of deliveries, the newest first, of all teams when team is empty. The filter may have channel, state and event_type.
func (a *App) ListDeliveries(ctx context.Context, team string, filter map[string]string, size int, after string) (docstore.Page[domain.Delivery], error) {
	return a.Deliveries.Find(ctx, listing.By(docstore.Query{Limit: size, After: after, Desc: true},
		listing.Term{"channel_id", filter["channel"]}, listing.Term{"event_type", filter["event_type"]}, listing.Term{"state", filter["state"]}, listing.Term{"team", team}))
}

// Tidy removes deliveries older than Keep, channels deleted as long ago, and old requests.
func (a *App) Tidy(ctx context.Context) error {
	before := a.Clock.Now().Add(-a.Keep)
	return errors.Join(
		a.Deliveries.RemoveAll(ctx, docstore.Cond{Field: "created_at", Op: docstore.Lt, Value: before}),
		a.Channels.RemoveAll(ctx, docstore.Cond{Field: "tombstone", Op: docstore.Eq, Value: true}, docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: before}),
		a.Requests.Sweep(ctx),
	)
}

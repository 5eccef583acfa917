package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/text"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Event is a fact as it was heard.
type Event struct {
	ID      string
	Type    string
	Subject string
	Team    string
	Time    time.Time
	Data    []byte // protobuf JSON
}

// Tell stores one delivery for each channel that tells the event, and each receiver of it. An event that was heard before changes nothing: the deliveries
// are there. Invalid EVENT_UNREADABLE when the event is not what its type says.
func (a *App) Tell(ctx context.Context, e Event) error {
	e.Team = cmp.Or(e.Team, authz.DefaultTeam)
	// Its deliveries may have been removed already: it cannot be known whether this is a repeat, and it is no news any more.
	if a.Clock.Now().Sub(e.Time) > a.Keep-24*time.Hour {
		a.Logger.InfoContext(ctx, "an old event is told to nobody", "event_type", e.Type, "event", e.ID, "time", e.Time)
		return nil
	}
	m, err := text.Decode(e.Type, e.Data)
	if err != nil {
		return err
	}
	var data bytes.Buffer
	if err := json.Compact(&data, e.Data); err != nil {
		return errs.New(errs.Invalid, domain.ReasonEventUnreadable, "the data of event %s is not JSON: %w", e.ID, err)
	}
	channels, err := a.all(ctx)
	if err != nil {
		return err
	}
	for _, c := range channels {
		if !c.Body.Wants(c.Team, c.CreatedAt, e.Type, e.Team, e.Time) {
			continue
		}
		for _, receiver := range c.Body.Receivers(text.Owner(m)) {
			if err := a.queue(ctx, c, receiver, e, data.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *App) queue(ctx context.Context, c ChannelDoc, receiver string, e Event, data string) error {
	doc := DeliveryDoc{
		Meta: docstore.Meta{ID: deliveryID(e, c.ID, receiver), Team: c.Team},
		Body: domain.Delivery{
			ChannelID: c.ID, Receiver: receiver, EventID: e.ID, EventType: e.Type, EventSubject: e.Subject, EventTeam: e.Team, EventTime: e.Time, Data: data,
			State: domain.Queued, NextAt: a.Clock.Now(),
		},
	}
	schedule(&doc)
	err := a.Deliveries.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		return nil
	}
	return err
}

// deliveryID is the same whenever the event is told again. Its order is that of time, as with every id: the moment is the event's.
func deliveryID(e Event, channelID, receiver string) string {
	sum := sha256.Sum256([]byte(e.ID + "\x00" + channelID + "\x00" + receiver))
	var u ulid.ULID
	_ = u.SetTime(ulid.Timestamp(e.Time)) // fails after the year 10889
	_ = u.SetEntropy(sum[:10])            // fails unless it is ten bytes
	return "dlv_" + u.String()
}

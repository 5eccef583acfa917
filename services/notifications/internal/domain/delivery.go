package domain

import (
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// The states of a delivery. Only queued is not final.
const (
	Queued    = "queued"
	Delivered = "delivered"
	Failed    = "failed"
)

// States lists every state.
func States() []string { return []string{Queued, Delivered, Failed} }

// waits are the pauses after the first, second, … attempt. After the last one the delivery is given up.
var waits = []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}

// longestWait is what a receiver's wish to be left alone (Retry-After) is cut to.
const longestWait = 24 * time.Hour

// Delivery is one event's way over one channel to one receiver.
type Delivery struct {
	ChannelID    string    `bson:"channel_id"`
	Receiver     string    `bson:"receiver"` // mail address, empty for a webhook
	EventID      string    `bson:"event_id"`
	EventType    string    `bson:"event_type"`
	EventSubject string    `bson:"event_subject"`
	EventTeam    string    `bson:"event_team"`
	EventTime    time.Time `bson:"event_time"`
	Data         string    `bson:"data"` // protobuf JSON of the event, without blanks
	State        string    `bson:"state"`
	Attempts     int       `bson:"attempts"`
	NextAt       time.Time `bson:"next_at"` // of the next attempt, while queued
	Problem      Problem   `bson:"problem"` // the last attempt's
}

// WorkAt is when the next attempt is due; false when there is none.
func (d Delivery) WorkAt() (time.Time, bool) { return d.NextAt, d.State == Queued }

// Sent ends the delivery: the receiver took it. Precondition DELIVERY_ENDED when it is over already.
func (d *Delivery) Sent() error {
	if err := d.attempted(); err != nil {
		return err
	}
	d.State, d.Problem, d.NextAt = Delivered, Problem{}, time.Time{}
	return nil
}

// Refused ends the delivery: another attempt would not help. Precondition DELIVERY_ENDED when it is over already.
func (d *Delivery) Refused(p Problem) error {
	if err := d.attempted(); err != nil {
		return err
	}
	p.Retrying = false
	d.State, d.Problem, d.NextAt = Failed, p, time.Time{}
	return nil
}

// Deferred plans the next attempt: after 1 min, 10 min, 100 min and 1 day, plus up to a fifth of it (spread, from 0 to 1), and not before the receiver
// wants it (after, at most a day). After five attempts the delivery has failed. Precondition DELIVERY_ENDED when it is over already.
func (d *Delivery) Deferred(p Problem, now time.Time, after time.Duration, spread float64) error {
	if d.State == Queued && d.Attempts >= len(waits) {
		return d.Refused(p)
	}
	if err := d.attempted(); err != nil {
		return err
	}
	wait := waits[d.Attempts-1]
	wait += time.Duration(spread * float64(wait) / 5)
	p.Retrying = true
	d.Problem, d.NextAt = p, now.Add(max(wait, min(after, longestWait)))
	return nil
}

func (d *Delivery) attempted() error {
	if d.State != Queued {
		return errs.New(errs.Precondition, ReasonDeliveryEnded, "the delivery is %s already", d.State)
	}
	d.Attempts++
	return nil
}

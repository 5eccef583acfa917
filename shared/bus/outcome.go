package bus

import (
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// action is what becomes of a delivery.
type action uint8

const (
	ack   action = iota // done
	retry               // again, later
	dead                // never again; a copy goes to the dead letters
)

func (a action) String() string { return [...]string{"ack", "retry", "dead"}[a] }

// outcome is one row of the table: what an error's kind does to the delivery that failed with it.
type outcome struct {
	act   action
	first time.Duration // before the second delivery; doubles each time
	most  time.Duration
	tries int // deliveries after which it is dead all the same; 0: only the consumer's MaxDeliver counts
}

// outcomes is the only place where an error's kind decides about a delivery. What another try may mend is retried. NotFound is
// retried for a short while, since the facts of different aggregates may overtake each other. The long rows make about an hour
// of 20 deliveries.
var outcomes = map[errs.Kind]outcome{
	errs.Internal:        {act: retry, first: time.Second, most: 5 * time.Minute},
	errs.Invalid:         {act: dead},
	errs.NotFound:        {act: retry, first: time.Second, most: 30 * time.Second, tries: 7},
	errs.AlreadyExists:   {act: dead},
	errs.Conflict:        {act: retry, first: 50 * time.Millisecond, most: time.Minute},
	errs.Precondition:    {act: dead},
	errs.Unauthenticated: {act: dead},
	errs.Forbidden:       {act: dead},
	errs.RateLimited:     {act: retry, first: 5 * time.Second, most: 5 * time.Minute},
	errs.Unavailable:     {act: retry, first: time.Second, most: 5 * time.Minute},
	errs.Timeout:         {act: retry, first: time.Second, most: 5 * time.Minute},
	errs.Canceled:        {act: retry, first: 100 * time.Millisecond, most: time.Minute},
	errs.Unimplemented:   {act: dead},
}

// decide says what becomes of the delivery number delivered (from 1) that ended with err, and after how long a retry comes: the row's
// delay, or the error's own RetryAfter when that is longer.
func decide(err error, delivered, maxDeliver int) (action, time.Duration) {
	if err == nil {
		return ack, 0
	}
	row := outcomes[errs.KindOf(err)]
	if row.act != retry {
		return row.act, 0
	}
	if delivered >= maxDeliver || row.tries > 0 && delivered >= row.tries {
		return dead, 0
	}
	delay := row.first
	for range delivered - 1 {
		if delay *= 2; delay >= row.most {
			delay = row.most
			break
		}
	}
	if e := errs.As(err); e != nil {
		delay = max(delay, e.RetryAfter)
	}
	return retry, delay
}

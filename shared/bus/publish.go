package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/failpoint"
)

// Publish sends the entries in order and waits until the server has taken all of them; they travel together, not one after the
// other's answer. Sending an entry again within 10 minutes is harmless: the server drops what it has by the message id.
//
// Nothing is retried: on an error the caller sends all again. Errors: Unavailable (no server, or the stream was missing and has
// been made anew), Timeout (unknown whether taken), Invalid (too large, or not an event).
func (b *Bus) Publish(ctx context.Context, entries ...docstore.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if !b.cfg.Conn.IsConnected() { // else the client would keep it in memory and send it at some time
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "not connected to NATS")
	}
	sent := make([]jetstream.PubAckFuture, 0, len(entries))
	var first error
	for _, entry := range entries {
		failpoint.Hit("publish." + entry.Headers[headerType] + ".before")
		future, err := b.send(entry)
		if err != nil {
			first = err
			break // what follows must not overtake it
		}
		sent = append(sent, future)
	}
	for i, future := range sent {
		eventType := entries[i].Headers[headerType]
		if err := await(ctx, future); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		b.met.published(ctx, eventType)
		failpoint.Hit("publish." + eventType + ".after")
	}
	return b.publishError(ctx, first)
}

func (b *Bus) send(entry docstore.Entry) (jetstream.PubAckFuture, error) {
	if entry.Kind != docstore.EntryEvent || entry.Subject == "" {
		return nil, errs.New(errs.Invalid, "EVENT_MALFORMED", "outbox entry %s is not an event", entry.ID)
	}
	m := nats.NewMsg(entry.Subject)
	m.Data = entry.Data
	for name, value := range entry.Headers {
		m.Header[name] = []string{value}
	}
	msgID := entry.MsgID
	if msgID == "" {
		msgID = entry.ID
	}
	return b.js.PublishMsgAsync(m, jetstream.WithMsgID(msgID), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(publishTimeout))
}

func await(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Bus) publishError(ctx context.Context, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errs.As(err) != nil:
		return err
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		// Nobody hears the subject: the stream is gone, or JetStream is not up yet.
		if ensureErr := b.ensureStreams(ctx); ensureErr != nil {
			return ensureErr
		}
		b.look()
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "publish: the stream was not there: %w", err)
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return errs.New(errs.Invalid, "EVENT_TOO_LARGE", "publish: %w", err)
	case errors.Is(err, context.Canceled):
		return errs.New(errs.Canceled, "", "publish: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return errs.New(errs.Timeout, "BUS_TIMEOUT", "publish: no answer from the bus: %w", err)
	case errors.As(err, &api):
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "publish: refused by the bus: %w", err)
	default:
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "publish: %w", err)
	}
}

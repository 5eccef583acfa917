package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/certwright/certwright/shared/errs"
)

// TailOptions say which facts Tail shows, and from where on.
type TailOptions struct {
	Types        []string // none means all
	FromSequence uint64   // the first fact wanted; 0 means everything that is still kept
	SinceNow     bool     // only what comes; FromSequence is ignored then
}

// Tail calls f for every fact in the order of the stream until ctx ends (then it returns nil) or f fails (then it returns f's
// error). Nothing is remembered at the server. A lost connection is waited out. Errors: Precondition EVENT_POSITION_UNKNOWN
// when FromSequence is not, or no longer, in the stream, and STREAM_RENEWED when the stream was replaced meanwhile: positions
// of the old one mean nothing, and who projects reads the owners' state again.
func (b *Bus) Tail(ctx context.Context, o TailOptions, f func(Event) error) error {
	for _, t := range o.Types {
		if !validType.MatchString(t) {
			return errs.New(errs.Invalid, "EVENT_TYPE_UNKNOWN", "%q is not an event type", t)
		}
	}
	stream, err := b.js.Stream(ctx, Stream)
	if err != nil {
		return lookError(err, "the stream of facts")
	}
	info := stream.CachedInfo()
	next := o.FromSequence
	switch first, last := max(info.State.FirstSeq, 1), info.State.LastSeq; {
	case o.SinceNow:
		next = last + 1
	case next == 0:
		next = first
	case next < first || next > last+1:
		return errs.New(errs.Precondition, "EVENT_POSITION_UNKNOWN", "the stream has the facts %d to %d, not %d", first, last, next)
	}
	t := tail{b: b, subjects: filters(o.Types), created: info.Created, next: next, handle: f}
	for {
		err := t.read(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the caller ended it
		case t.final:
			return err
		}
		b.cfg.Logger.DebugContext(ctx, "reading the stream again", "from", t.next, "error", err)
		_ = b.sys.Sleep(ctx, 250*time.Millisecond)
	}
}

type tail struct {
	b        *Bus
	subjects []string
	created  time.Time
	next     uint64
	handle   func(Event) error
	final    bool // the error of read ends Tail
	checked  time.Time
}

// read reads from next on until something fails.
func (t *tail) read(ctx context.Context) error {
	if err := t.check(ctx); err != nil {
		return err
	}
	consumer, err := t.b.js.OrderedConsumer(ctx, Stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: t.subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: t.next,
		InactiveThreshold: time.Minute, MaxResetAttempts: 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(prefetch), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		if t.b.sys.Now().Sub(t.checked) > t.b.cfg.HealthInterval {
			if err := t.check(ctx); err != nil {
				return err
			}
		}
		waiting, cancel := context.WithTimeout(ctx, t.b.cfg.HealthInterval)
		m, err := messages.Next(jetstream.NextContext(waiting))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		if err := t.show(m); err != nil {
			t.final = true
			return err
		}
	}
}

func (t *tail) show(m jetstream.Msg) error {
	md, err := m.Metadata()
	if err != nil {
		return errs.New(errs.Internal, "", "tail: %w", err)
	}
	t.next = md.Sequence.Stream + 1
	e, err := fromMsg(m.Subject(), m.Headers(), m.Data())
	if err != nil {
		t.b.cfg.Logger.Warn("not shown: a malformed fact", "sequence", md.Sequence.Stream, "error", err)
		return nil
	}
	e.Sequence, e.StreamEpoch = md.Sequence.Stream, epochOf(t.created)
	return t.handle(e)
}

// check ends Tail when the stream is another one than at the beginning.
func (t *tail) check(ctx context.Context) error {
	stream, err := t.b.js.Stream(ctx, Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !stream.CachedInfo().Created.Equal(t.created) {
		t.final = true
		return errs.New(errs.Precondition, "STREAM_RENEWED", "the stream of facts was replaced")
	}
	if err != nil {
		return err
	}
	t.checked = t.b.sys.Now()
	return nil
}

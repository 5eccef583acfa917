package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

const (
	deadSubjects     = "certwright.dead"
	redriveSubjects  = "certwright.redrive"
	redrivenSubjects = "certwright.redriven"

	headerConsumer   = "certwright-consumer"
	headerReason     = "certwright-reason"
	headerError      = "certwright-error"
	headerDeliveries = "certwright-deliveries"
	headerSequence   = "certwright-sequence"
	headerDeadAt     = "certwright-dead-at"
	headerKind       = "certwright-kind"

	maxErrorText      = 4096 // bytes of an error kept in a header
	advisoryAckWait   = 30 * time.Second
	defaultDeadListed = 100
)

// DeadLetter is a fact that a consumer gave up.
type DeadLetter struct {
	Sequence   uint64 // in the stream of dead letters; what Redrive takes
	Consumer   string
	Reason     string // public reason of the error
	Error      string
	Deliveries int
	At         time.Time
	Event      Event // Sequence is that of the original; incomplete when the original was malformed
}

// bury writes a dead letter. A second burial of one delivery is dropped by the stream.
func (c *consumer) bury(ctx context.Context, l DeadLetter, headers nats.Header, data []byte) error {
	m := nats.NewMsg(strings.Join([]string{deadSubjects, c.Name, deadType(l.Event.Type), token(l.Event.Subject)}, "."))
	m.Data = data
	for name, values := range headers {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") { // the original's expectations are not the copy's
			m.Header[name] = slices.Clone(values)
		}
	}
	set := func(name, value string) { m.Header[name] = []string{oneLine(value)} }
	set(headerConsumer, c.Name)
	set(headerReason, l.Reason)
	set(headerError, l.Error)
	set(headerDeliveries, strconv.Itoa(l.Deliveries))
	set(headerSequence, strconv.FormatUint(l.Event.Sequence, 10))
	set(headerDeadAt, c.b.cfg.Clock.Now().Format(timeFormat))
	c.mu.Lock()
	created := c.created
	c.mu.Unlock()
	id := fmt.Sprintf("%s/%d/%s-%d", c.Name, created.UnixMilli(), l.Event.StreamEpoch, l.Event.Sequence)
	ack, err := c.b.js.PublishMsg(ctx, m, jetstream.WithMsgID(id))
	if err != nil {
		return c.b.publishError(ctx, err)
	}
	if !ack.Duplicate {
		c.b.met.deadLetter(ctx, c.Name, l.Event.Type, l.Reason)
	}
	return nil
}

func deadType(eventType string) string {
	if validType.MatchString(eventType) {
		return eventType
	}
	return "malformed"
}

// oneLine makes s fit for a header.
func oneLine(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s), "?")
	if len(s) > maxErrorText {
		s = strings.ToValidUTF8(s[:maxErrorText], "")
	}
	return s
}

// DeadLetters lists up to limit dead letters (100 when not positive) of all consumers, the oldest first.
func (b *Bus) DeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	if limit <= 0 {
		limit = defaultDeadListed
	}
	stream, err := b.js.Stream(ctx, DeadStream)
	if err != nil {
		return nil, lookError(err, "the stream of dead letters")
	}
	var letters []DeadLetter
	for next := max(stream.CachedInfo().State.FirstSeq, 1); len(letters) < limit; {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(deadSubjects+".>"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, lookError(err, "dead letters")
		}
		letters = append(letters, letterOf(m))
		next = m.Sequence + 1
	}
	return letters, nil
}

func letterOf(m *jetstream.RawStreamMsg) DeadLetter {
	e, _ := fromMsg(m.Subject, m.Header, m.Data) // a malformed one is shown with what it has
	e.Sequence, _ = strconv.ParseUint(first(m.Header, headerSequence), 10, 64)
	l := DeadLetter{
		Sequence: m.Sequence, Consumer: first(m.Header, headerConsumer), Reason: first(m.Header, headerReason),
		Error: first(m.Header, headerError), Event: e,
	}
	l.Deliveries, _ = strconv.Atoi(first(m.Header, headerDeliveries))
	if at, err := time.Parse(time.RFC3339Nano, first(m.Header, headerDeadAt)); err == nil {
		l.At = clock.Normal(at)
	}
	return l
}

func lookError(err error, what string) error {
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return errs.New(errs.NotFound, "NOT_FOUND", "%s: not there", what)
	case errors.Is(err, context.Canceled):
		return errs.New(errs.Canceled, "", "%s: %w", what, err)
	case errors.Is(err, context.DeadlineExceeded):
		return errs.New(errs.Timeout, "BUS_TIMEOUT", "%s: %w", what, err)
	default:
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "%s: %w", what, err)
	}
}

// Redrive hands the dead letter seq to the handler of its consumer, and to nobody else, wherever that consumer runs; success
// removes the dead letter. Errors: the handler's own (the letter stays), NotFound, Invalid when the letter is another
// consumer's, Unavailable when no replica of the consumer runs.
func (b *Bus) Redrive(ctx context.Context, name string, seq uint64) error {
	if c, running := b.consumer(name); c != nil && running {
		return c.redriveHere(ctx, seq)
	}
	if !validName.MatchString(name) {
		return errs.New(errs.Invalid, "BUS_CONSUMER", "%q is not a consumer's name", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*defaultAckWait)
	defer cancel()
	answer, err := b.askRedrive(ctx, name, seq)
	if errors.Is(err, nats.ErrNoResponders) {
		return errs.New(errs.Unavailable, "BUS_CONSUMER_DOWN", "redrive: consumer %s runs nowhere", name)
	}
	if err != nil {
		return lookError(err, "redrive")
	}
	kind := first(answer.Header, headerKind)
	for _, k := range errs.Kinds() {
		if k.String() == kind {
			return errs.New(k, first(answer.Header, headerReason), "%s", answer.Data)
		}
	}
	return nil
}

// askRedrive asks whatever process runs the consumer. The answer goes to a subject of its own, so that a service needs no
// permission to write to the inboxes of others.
func (b *Bus) askRedrive(ctx context.Context, name string, seq uint64) (*nats.Msg, error) {
	reply := redrivenSubjects + "." + name + "." + nuid.Next()
	sub, err := b.cfg.Conn.SubscribeSync(reply)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.cfg.Conn.PublishRequest(redriveSubjects+"."+name, reply, []byte(strconv.FormatUint(seq, 10))); err != nil {
		return nil, err
	}
	return sub.NextMsgWithContext(ctx)
}

// consumer returns the registered consumer of that name, nil when it is not one of this bus, and whether the bus runs.
func (b *Bus) consumer(name string) (*consumer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.consumers {
		if c.Name == name {
			return c, b.running
		}
	}
	return nil, b.running
}

// hearRedrives makes this replica answer the redrives that other processes ask for.
func (c *consumer) hearRedrives() error {
	if c.redrive != nil || c.stream != Stream {
		return nil
	}
	sub, err := c.b.cfg.Conn.QueueSubscribe(redriveSubjects+"."+c.Name, c.Name, func(m *nats.Msg) {
		seq, err := strconv.ParseUint(string(m.Data), 10, 64)
		if err != nil {
			return
		}
		go c.answerRedrive(m, seq)
	})
	if err != nil {
		return err
	}
	c.redrive = sub
	return nil
}

func (c *consumer) answerRedrive(m *nats.Msg, seq uint64) {
	answer := nats.NewMsg(m.Reply)
	if err := c.redriveHere(c.base, seq); err != nil {
		answer.Header[headerKind] = []string{errs.KindOf(err).String()}
		answer.Header[headerReason] = []string{oneLine(errs.ReasonOf(err))}
		answer.Data = []byte(err.Error())
	}
	if err := m.RespondMsg(answer); err != nil {
		c.b.cfg.Logger.Warn("the answer to a redrive was not sent", "consumer", c.Name, "error", err)
	}
}

func (c *consumer) redriveHere(ctx context.Context, seq uint64) error {
	stream, err := c.b.js.Stream(ctx, DeadStream)
	if err != nil {
		return lookError(err, "the stream of dead letters")
	}
	m, err := stream.GetMsg(ctx, seq)
	if err != nil {
		return lookError(err, fmt.Sprintf("dead letter %d", seq))
	}
	letter := letterOf(m)
	if letter.Consumer != c.Name {
		return errs.New(errs.Invalid, "BUS_CONSUMER", "dead letter %d is of consumer %s, not of %s", seq, letter.Consumer, c.Name)
	}
	e, err := fromMsg(m.Subject, m.Header, m.Data)
	if err != nil {
		return err
	}
	e.Sequence, e.StreamEpoch, e.Redelivered = letter.Event.Sequence, c.b.StreamEpoch(), letter.Deliveries
	answer := make(chan error, 1)
	if !c.enqueue(e.Subject, func() { answer <- c.run(c.base, e, true) }) {
		return errs.New(errs.Unavailable, "BUS_CONSUMER_DOWN", "redrive: consumer %s is stopping", c.Name)
	}
	select {
	case err = <-answer:
	case <-ctx.Done():
		return lookError(ctx.Err(), "redrive")
	case <-c.base.Done():
		return errs.New(errs.Unavailable, "BUS_CONSUMER_DOWN", "redrive: consumer %s has stopped", c.Name)
	}
	if err != nil {
		return err
	}
	c.b.cfg.Logger.InfoContext(ctx, "a dead letter was redriven", "consumer", c.Name, "event_id", e.ID, "event_type", e.Type)
	if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return lookError(err, "the letter was redriven, but could not be removed")
	}
	return nil
}

// advisory is the part we read of io.nats.jetstream.advisory.v1.max_deliver.
type advisory struct {
	Consumer   string `json:"consumer"`
	Sequence   uint64 `json:"stream_seq"`
	Deliveries int    `json:"deliveries"`
}

// advisories is the second net under the dead letters: the server's own word that it gave up a fact, should every delivery have
// ended without an answer.
func (b *Bus) advisories() *consumer {
	c := &consumer{
		Consumer: Consumer{Name: b.cfg.Source + "-advisories", Workers: 1, MaxDeliver: defaultMaxDeliver, AckWait: advisoryAckWait},
		b:        b, stream: AdvisoryStream, subjects: []string{advisorySubjects + ".*"},
	}
	c.deliver = func(ctx context.Context, m jetstream.Msg, _ *jetstream.MsgMetadata) {
		if err := b.buryAdvised(ctx, m.Data()); err != nil {
			b.cfg.Logger.WarnContext(ctx, "an undeliverable fact is not a dead letter yet", "error", err)
			_ = m.NakWithDelay(deadRetry)
			return
		}
		_ = m.Ack()
	}
	return c
}

// buryAdvised makes a dead letter of what an advisory speaks of, if it is of a consumer of this bus.
func (b *Bus) buryAdvised(ctx context.Context, data []byte) error {
	var a advisory
	if err := json.Unmarshal(data, &a); err != nil {
		return errs.New(errs.Internal, "", "advisory: %w", err)
	}
	c, _ := b.consumer(a.Consumer)
	if c == nil {
		return nil // another service's
	}
	stream, err := b.js.Stream(ctx, Stream)
	if err != nil {
		return lookError(err, "the stream of facts")
	}
	m, err := stream.GetMsg(ctx, a.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		b.cfg.Logger.ErrorContext(ctx, "a fact was neither handled nor kept", "consumer", a.Consumer, "sequence", a.Sequence)
		return nil
	}
	if err != nil {
		return lookError(err, "the fact an advisory speaks of")
	}
	e, _ := fromMsg(m.Subject, m.Header, m.Data)
	e.Sequence, e.StreamEpoch = a.Sequence, b.StreamEpoch()
	letter := DeadLetter{
		Consumer: c.Name, Reason: "MAX_DELIVER", Error: fmt.Sprintf("the server gave up after %d deliveries", a.Deliveries),
		Deliveries: a.Deliveries, Event: e,
	}
	return c.bury(ctx, letter, m.Header, m.Data)
}

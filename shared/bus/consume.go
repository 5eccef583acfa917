package bus

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

const (
	defaultWorkers    = 8
	defaultMaxDeliver = 20
	defaultAckWait    = 30 * time.Second

	// maxAckPending is how many facts all replicas of a consumer hold or have put off at once.
	maxAckPending = 1000
	// spareDeliveries is what the server adds to MaxDeliver: the handler loop counts and gives up first, and these let it
	// write the dead letter even when it died in the middle of it.
	spareDeliveries = 10
	drainTimeout    = 10 * time.Second
	deadRetry       = 10 * time.Second // when the dead letter itself could not be written
	prefetch        = 256
	pullHeartbeat   = 5 * time.Second
	lagAgeRounds    = 15 // health rounds between two looks at the oldest unhandled fact
)

// Consumer hears facts. Facts of one aggregate reach Handle one after the other, in order; those of different ones at the same
// time. A fact that was put off (Handle failed) comes again later, perhaps after its successors.
type Consumer struct {
	Name  string   // durable: "<service>-<purpose>"
	Types []string // event types, e.g. "order.issued"; none means all
	// Handle must be quick and idempotent: a fact comes at least once. nil acknowledges; else the error's kind decides (see
	// outcomes). Its context ends after AckWait.
	Handle     func(ctx context.Context, e Event) error
	Workers    int           // facts handled at the same time; default 8
	MaxDeliver int           // deliveries before the fact becomes a dead letter; default 20
	AckWait    time.Duration // silence after which the server delivers again; default 30 s
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9_]+)+$`)

// Consume registers a consumer, before Run. It is Invalid when the consumer is incomplete or does not belong to this service,
// and Precondition when the bus runs already.
func (b *Bus) Consume(c Consumer) error {
	invalid := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "BUS_CONSUMER", "consumer %q: "+format, append([]any{c.Name}, args...)...)
	}
	if !validName.MatchString(c.Name) || !strings.HasPrefix(c.Name, b.cfg.Source+"-") {
		return invalid("the name is not %s-<purpose>", b.cfg.Source)
	}
	if c.Handle == nil {
		return invalid("there is no handler")
	}
	for i, t := range c.Types {
		if !validType.MatchString(t) {
			return invalid("%q is not an event type", t)
		}
		if slices.Contains(c.Types[:i], t) {
			return invalid("type %q is listed twice", t)
		}
	}
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.MaxDeliver <= 0 {
		c.MaxDeliver = defaultMaxDeliver
	}
	if c.AckWait <= 0 {
		c.AckWait = defaultAckWait
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running {
		return errs.New(errs.Precondition, "BUS_RUNNING", "consumer %q: the bus runs already", c.Name)
	}
	for _, other := range b.consumers {
		if other.Name == c.Name {
			return invalid("it is registered already")
		}
	}
	added := &consumer{Consumer: c, b: b, stream: Stream, subjects: filters(c.Types)}
	added.deliver = added.deliverEvent
	b.consumers = append(b.consumers, added)
	return nil
}

// consumer is a Consumer at work.
type consumer struct {
	Consumer
	b        *Bus
	stream   string
	subjects []string
	deliver  func(ctx context.Context, m jetstream.Msg, md *jetstream.MsgMetadata)

	queues  []chan func()
	quit    chan struct{} // closed when nothing new comes
	workers sync.WaitGroup
	base    context.Context // of handlers; survives the end of Run's context until the drain gave up
	cancel  context.CancelFunc
	redrive *nats.Subscription

	mu      sync.Mutex
	bound   jetstream.ConsumeContext
	created time.Time // of the consumer that bound belongs to
	stale   bool      // bound reported that it cannot go on
	ackWait time.Duration
	warned  bool                         // of a configuration that differs
	flights map[jetstream.Msg]*time.Time // taken and not yet answered; the time when the handler began, nil before
}

func (c *consumer) config() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: c.Name, Name: c.Name, Description: "of service " + c.b.cfg.Source, FilterSubjects: c.subjects,
		DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.AckWait,
		MaxDeliver: c.MaxDeliver + spareDeliveries, MaxAckPending: maxAckPending,
	}
}

// start makes the goroutines that handle; heal is what fetches.
func (c *consumer) start(ctx context.Context) {
	c.base, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.quit = make(chan struct{})
	c.flights = map[jetstream.Msg]*time.Time{}
	c.ackWait = c.AckWait
	c.queues = make([]chan func(), c.Workers)
	for i := range c.queues {
		c.queues[i] = make(chan func(), maxAckPending)
		c.workers.Go(func() { c.work(c.queues[i]) })
	}
	go c.keepAlive()
}

func (c *consumer) work(queue <-chan func()) {
	for {
		select {
		case job := <-queue:
			job()
		case <-c.quit:
			for {
				select {
				case job := <-queue:
					job()
				default:
					return
				}
			}
		}
	}
}

// enqueue hands a job to the goroutine of this aggregate; false means that the consumer stops.
func (c *consumer) enqueue(aggregate string, job func()) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(aggregate))
	select {
	case c.queues[h.Sum32()%uint32(len(c.queues))] <- job: //nolint:gosec // a handful of workers
		return true
	case <-c.quit:
		return false
	}
}

// stop takes nothing new, lets what was taken finish, and after drainTimeout cancels the handlers and puts the rest back.
func (c *consumer) stop() {
	c.mu.Lock()
	bound := c.bound
	c.bound = nil
	c.mu.Unlock()
	if c.redrive != nil {
		_ = c.redrive.Unsubscribe()
	}
	if bound != nil {
		bound.Drain()
		closed, release := c.b.sys.After(c.b.drain)
		select {
		case <-bound.Closed():
		case <-closed: // no connection to say so
		}
		release()
	}
	close(c.quit)
	done := make(chan struct{})
	go func() {
		c.workers.Wait()
		close(done)
	}()
	late, release := c.b.sys.After(c.b.drain)
	defer release()
	select {
	case <-done:
	case <-late:
		c.b.cfg.Logger.Warn("handlers did not end in time and are cancelled", "consumer", c.Name, "waited", c.b.drain)
		c.cancel()
		<-done
	}
	c.cancel()
}

// heal makes the consumer if it is missing and (re)starts fetching if it does not fetch.
func (c *consumer) heal(ctx context.Context, round int) error {
	found, err := c.b.js.Consumer(ctx, c.stream, c.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.b.cfg.Logger.InfoContext(ctx, "creating a missing consumer", "consumer", c.Name)
		found, err = c.b.js.CreateConsumer(ctx, c.stream, c.config())
		if errors.Is(err, jetstream.ErrConsumerExists) { // a replica of another version was quicker
			found, err = c.b.js.Consumer(ctx, c.stream, c.Name)
		}
	}
	if err != nil {
		return err
	}
	info := found.CachedInfo()
	c.compare(ctx, info.Config)
	c.b.met.lagging(ctx, c.Name, int64(info.NumPending)+int64(info.NumAckPending)) //nolint:gosec // counts of messages
	if round%lagAgeRounds == 0 {
		c.measureAge(ctx, info)
	}
	if c.fetching(info) {
		return nil
	}
	return c.fetch(found, info)
}

func (c *consumer) fetching(info *jetstream.ConsumerInfo) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound == nil || c.stale || !c.created.Equal(info.Created) {
		return false
	}
	select {
	case <-c.bound.Closed():
		return false
	default:
		return true
	}
}

func (c *consumer) fetch(found jetstream.Consumer, info *jetstream.ConsumerInfo) error {
	c.mu.Lock()
	old := c.bound
	c.bound, c.stale = nil, false
	c.mu.Unlock()
	if old != nil {
		old.Drain() // what it has taken is still handled
	}
	fresh, err := found.Consume(c.receive, jetstream.PullMaxMessages(prefetch), jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(c.complaint))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.bound, c.created = fresh, info.Created
	if info.Config.AckWait > 0 {
		c.ackWait = info.Config.AckWait
	}
	c.mu.Unlock()
	return c.hearRedrives()
}

// complaint is told by the client what goes wrong while fetching.
func (c *consumer) complaint(from jetstream.ConsumeContext, err error) {
	c.b.cfg.Logger.Debug("fetching facts", "consumer", c.Name, "error", err)
	if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, jetstream.ErrBadRequest) || errors.Is(err, nats.ErrNoResponders) {
		c.mu.Lock()
		c.stale = c.stale || c.bound == nil || c.bound == from
		c.mu.Unlock()
	}
	c.b.look()
}

// compare warns once when the existing consumer does not hear what this version of the program wants to hear.
func (c *consumer) compare(ctx context.Context, have jetstream.ConsumerConfig) {
	if c.warned {
		return
	}
	subjects := have.FilterSubjects
	if have.FilterSubject != "" {
		subjects = []string{have.FilterSubject}
	}
	subjects, want := slices.Sorted(slices.Values(subjects)), slices.Sorted(slices.Values(c.subjects))
	if !slices.Equal(subjects, want) {
		c.warned = true
		c.b.cfg.Logger.WarnContext(ctx, "the existing consumer hears something else than this version wants; it is left as it is until Upgrade",
			"consumer", c.Name, "hears", subjects, "wants", want)
	}
}

// measureAge looks up the oldest fact after the acknowledgement floor; an answer that does not come is only a gap in a graph.
func (c *consumer) measureAge(ctx context.Context, info *jetstream.ConsumerInfo) {
	if info.NumPending == 0 && info.NumAckPending == 0 {
		c.b.met.lagAged(ctx, c.Name, 0)
		return
	}
	stream, err := c.b.js.Stream(ctx, c.stream)
	if err != nil {
		return
	}
	var age time.Duration
	for _, subject := range c.subjects {
		m, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(subject))
		if err == nil {
			age = max(age, c.b.sys.Now().Sub(m.Time))
		}
	}
	c.b.met.lagAged(ctx, c.Name, age)
}

// receive is called by the client for each message, in order; it only sorts them into the queues.
func (c *consumer) receive(m jetstream.Msg) {
	md, err := m.Metadata()
	if err != nil {
		c.b.cfg.Logger.Error("a message without JetStream's metadata", "consumer", c.Name, "error", err)
		return
	}
	c.mu.Lock()
	c.flights[m] = nil
	c.mu.Unlock()
	aggregate := first(m.Headers(), headerSubject)
	if aggregate == "" {
		aggregate = m.Subject()
	}
	queued := c.enqueue(aggregate, func() {
		defer c.landed(m)
		if c.base.Err() != nil {
			c.putBack(m)
			return
		}
		c.began(m)
		c.deliver(c.base, m, md)
	})
	if !queued {
		c.landed(m)
		c.putBack(m)
	}
}

func (c *consumer) putBack(m jetstream.Msg) { _ = m.NakWithDelay(100 * time.Millisecond) }

func (c *consumer) began(m jetstream.Msg) {
	now := c.b.sys.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flights[m] = &now
}

func (c *consumer) landed(m jetstream.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, m)
}

// keepAlive tells the server that the facts taken are being worked on, so that a long queue is not delivered twice. A handler
// that ignores the end of its context loses that.
func (c *consumer) keepAlive() {
	for {
		c.mu.Lock()
		wait := c.ackWait
		c.mu.Unlock()
		if c.b.sys.Sleep(c.base, wait/3) != nil {
			return
		}
		now := c.b.sys.Now()
		var alive []jetstream.Msg
		c.mu.Lock()
		for m, begun := range c.flights {
			if begun == nil || now.Sub(*begun) < 2*wait {
				alive = append(alive, m)
			}
		}
		c.mu.Unlock()
		for _, m := range alive {
			_ = m.InProgress() // fails when it was answered meanwhile, or without connection
		}
	}
}

// deliverEvent runs the handler and answers the server.
func (c *consumer) deliverEvent(ctx context.Context, m jetstream.Msg, md *jetstream.MsgMetadata) {
	e, err := fromMsg(m.Subject(), m.Headers(), m.Data())
	e.Sequence, e.StreamEpoch, e.Redelivered = md.Sequence.Stream, c.b.StreamEpoch(), int(md.NumDelivered)-1 //nolint:gosec // a handful
	delivered := e.Redelivered + 1
	if err == nil {
		if delivered > c.MaxDeliver {
			// The process died, or lost the bus, each time before it could say anything.
			err = errs.New(errs.Internal, "MAX_DELIVER", "delivered %d times without an answer", c.MaxDeliver)
		} else {
			err = c.run(ctx, e, false)
		}
	}
	act, delay := decide(err, delivered, c.MaxDeliver)
	logger := c.b.cfg.Logger.With("consumer", c.Name, "event_id", e.ID, "event_type", e.Type, "aggregate_id", e.Subject, "delivery", delivered)
	switch act {
	case ack:
		err = m.Ack()
	case retry:
		logger.WarnContext(ctx, "a fact could not be handled; it comes again", "error", err, "after", delay)
		err = m.NakWithDelay(delay)
	case dead:
		letter := DeadLetter{Consumer: c.Name, Reason: errs.ReasonOf(err), Error: err.Error(), Deliveries: delivered, Event: e}
		if buryErr := c.bury(ctx, letter, m.Headers(), m.Data()); buryErr != nil {
			logger.WarnContext(ctx, "the dead letter could not be written; trying again", "error", buryErr)
			act, err = retry, m.NakWithDelay(deadRetry)
			break
		}
		logger.ErrorContext(ctx, "a fact was given up and is a dead letter now", "error", err, "reason", letter.Reason)
		err = m.TermWithReason(letter.Reason)
	}
	c.b.met.answered(ctx, c.Name, e.Type, act)
	if err != nil {
		logger.DebugContext(ctx, "the answer to a delivery was not sent; it comes again", "error", err)
	}
}

// run calls the handler inside a span that continues the event's trace. A panic is an Internal error.
func (c *consumer) run(ctx context.Context, e Event, redriven bool) (err error) {
	begun := c.b.sys.Now()
	c.mu.Lock()
	timeout := c.ackWait
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{headerTraceparent: e.Traceparent})
	ctx, span := c.b.cfg.Tracer.Start(ctx, "handle "+e.Type, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.consumer.group.name", c.Name),
		attribute.String("messaging.message.id", e.ID), attribute.String("event.type", e.Type),
		attribute.String("aggregate.id", e.Subject), attribute.Int("event.redelivered", e.Redelivered), attribute.Bool("event.redriven", redriven)))
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "PANIC", "handler panicked: %v", p)
			c.b.cfg.Logger.ErrorContext(ctx, "a handler panicked", "consumer", c.Name, "event_id", e.ID, "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
		}
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, errs.ReasonOf(err))
		}
		span.End()
		c.b.met.took(ctx, c.Name, c.b.sys.Now().Sub(begun))
	}()
	err = c.Handle(withCause(ctx, e), e)
	if err != nil && errs.As(err) == nil && ctx.Err() != nil { // the handler passed on the end of its context
		kind := errs.Timeout
		if errors.Is(ctx.Err(), context.Canceled) {
			kind = errs.Canceled
		}
		err = errs.New(kind, "", "handler: %w", err)
	}
	return err
}

// fromMsg reads an event from a message. The event has what could be read, also with an error.
func fromMsg(subject string, h nats.Header, data []byte) (Event, error) {
	headers := make(map[string]string, len(h))
	for name := range h {
		headers[name] = first(h, name)
	}
	return FromEntry(docstore.Entry{Kind: docstore.EntryEvent, Subject: subject, Headers: headers, Data: data})
}

func first(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Package bus tells facts and hears them, over NATS JetStream.
//
// It makes the streams and durable consumers that are missing, at start and while running, and never alters one that exists
// (Upgrade does, when an operator asks). It is not the truth: the bus may lose its last moments in a power cut or be wiped as a
// whole; whoever waits for an answer says the fact again. A handler must be quick and must not call the outside world: it
// records and returns.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// The streams.
const (
	Stream         = "EVENTS"     // every fact, for MaxAge
	DeadStream     = "DEAD"       // copies of what a consumer could not handle
	AdvisoryStream = "ADVISORIES" // the server's word that a message was delivered too often
)

const (
	duplicatesWindow = 10 * time.Minute
	deadMaxAge       = 90 * 24 * time.Hour
	advisorySubjects = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + Stream

	apiTimeout     = 5 * time.Second
	publishTimeout = 10 * time.Second
	maxPending     = 4096 // publications under way in one Bus
)

// Config says where the bus is and how a service uses it. Conn and Source are required.
type Config struct {
	Conn   *nats.Conn
	Source string // service name
	// Clock gives the times that are written down. How often the server is asked follows the machine's clock, as the server does.
	Clock  clock.Clock
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter

	// What streams are made with when they are missing.
	MaxAge   time.Duration // of a fact; default 7 days
	MaxBytes int64         // of all facts; default unlimited
	Replicas int           // default 1

	// SyncInterval is how often the server syncs its files: 2 min by default, 1 s when embedded.
	SyncInterval time.Duration
	// HealthInterval is how often streams and consumers are looked for; default 2 s.
	HealthInterval time.Duration
}

func (c *Config) setDefaults() error {
	if c.Conn == nil || c.Source == "" {
		return errs.New(errs.Invalid, "BUS_CONFIG", "the bus needs a connection and the name of the service")
	}
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider().Tracer("bus")
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider().Meter("bus")
	}
	c.MaxAge, c.MaxBytes, c.Replicas = cmp.Or(c.MaxAge, 7*24*time.Hour), cmp.Or(c.MaxBytes, -1), cmp.Or(c.Replicas, 1)
	c.SyncInterval, c.HealthInterval = cmp.Or(c.SyncInterval, 2*time.Minute), cmp.Or(c.HealthInterval, 2*time.Second)
	return nil
}

// Bus is one service's access to the bus. It is safe for concurrent use.
type Bus struct {
	cfg  Config
	js   jetstream.JetStream
	sys  clock.Clock // of the machine, see Config.Clock
	met  *metrics
	wake chan struct{} // makes the health loop look at once

	drain time.Duration // how long Run waits for its handlers at the end

	ensuring sync.Mutex // one look at the streams at a time

	mu        sync.Mutex
	created   map[string]time.Time // by stream, as last seen
	newStream []func()
	renewed   chan struct{} // closed, and made anew, when EVENTS was seen to be another stream
	consumers []*consumer
	running   bool
	health    error
}

// New connects to JetStream and makes the missing streams. It waits, saying for what, until both have succeeded or ctx ends;
// the error is Unavailable then.
func New(ctx context.Context, cfg Config) (*Bus, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	js, err := jetstream.New(cfg.Conn, jetstream.WithPublishAsyncMaxPending(maxPending),
		jetstream.WithPublishAsyncTimeout(publishTimeout), jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return nil, errs.New(errs.Internal, "", "jetstream: %w", err)
	}
	b := &Bus{
		cfg: cfg, js: js, sys: clock.System(), wake: make(chan struct{}, 1), drain: drainTimeout, created: map[string]time.Time{}, renewed: make(chan struct{}),
	}
	if b.met, err = newMetrics(cfg.Meter); err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		err := b.ensureStreams(ctx)
		if err == nil {
			return b, nil
		}
		if attempt%10 == 0 {
			cfg.Logger.WarnContext(ctx, "waiting for JetStream", "server", cfg.Conn.ConnectedUrlRedacted(), "error", err)
		}
		if b.sys.Sleep(ctx, min(cfg.HealthInterval, 500*time.Millisecond)) != nil {
			return nil, errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "gave up waiting for JetStream: %w", err)
		}
	}
}

func (b *Bus) streamConfigs() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: Stream, Description: "Every fact of the platform.", Subjects: []string{eventSubjects + ".>"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
			MaxAge: b.cfg.MaxAge, MaxBytes: b.cfg.MaxBytes, Replicas: b.cfg.Replicas, Duplicates: min(duplicatesWindow, b.cfg.MaxAge), AllowDirect: true,
		},
		{
			Name: DeadStream, Description: "Copies of facts that a consumer could not handle.", Subjects: []string{deadSubjects + ".>"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
			MaxAge: deadMaxAge, Replicas: b.cfg.Replicas, Duplicates: duplicatesWindow, AllowDirect: true,
		},
		{
			Name: AdvisoryStream, Description: "The server gave up delivering a fact.", Subjects: []string{advisorySubjects + ".*"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
			MaxAge: b.cfg.MaxAge, MaxMsgs: 100_000, Replicas: b.cfg.Replicas, Duplicates: min(duplicatesWindow, b.cfg.MaxAge),
		},
	}
}

var errConnectionLost = errors.New("the connection was lost")

// whileConnected returns a context that ends when the connection is lost: a request that was under way then is never answered,
// and waiting for its timeout would only delay the next one.
func (b *Bus) whileConnected(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	lost := b.cfg.Conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	if !b.cfg.Conn.IsConnected() {
		cancel(errConnectionLost)
	}
	go func() {
		defer b.cfg.Conn.RemoveStatusListener(lost)
		select {
		case <-lost:
			cancel(errConnectionLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// connectionLost returns an error when that is what ended ctx.
func connectionLost(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errConnectionLost) {
		return cause
	}
	return nil
}

// ensureStreams makes the streams that are missing and notices when EVENTS is not the one seen before.
func (b *Bus) ensureStreams(ctx context.Context) error {
	b.ensuring.Lock()
	defer b.ensuring.Unlock()
	ctx, cancel := b.whileConnected(ctx)
	defer cancel()
	for _, want := range b.streamConfigs() {
		created, err := b.ensureStream(ctx, want)
		if err != nil {
			return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "stream %s: %w", want.Name, cmp.Or(connectionLost(ctx), err))
		}
		b.seen(ctx, want.Name, created)
	}
	return nil
}

func (b *Bus) ensureStream(ctx context.Context, want jetstream.StreamConfig) (time.Time, error) {
	s, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		b.cfg.Logger.InfoContext(ctx, "creating a missing stream", "stream", want.Name)
		s, err = b.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody with another configuration was quicker
			s, err = b.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return time.Time{}, err
	}
	return s.CachedInfo().Created, nil
}

// seen remembers the creation time of a stream and tells who wants to know that EVENTS is a new one.
func (b *Bus) seen(ctx context.Context, name string, created time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before, known := b.created[name]
	b.created[name] = created
	if !known || before.Equal(created) || name != Stream {
		return
	}
	b.cfg.Logger.WarnContext(ctx, "the event stream is a new one: what the old one held is gone", "stream", name,
		"created", created, "created_before", before)
	close(b.renewed)
	b.renewed = make(chan struct{})
	for _, f := range b.newStream {
		go f()
	}
}

// StreamEpoch identifies this life of the event stream: the milliseconds of its creation. Sequences of different epochs do not compare.
// It is "" while unknown.
func (b *Bus) StreamEpoch() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	created, ok := b.created[Stream]
	if !ok {
		return ""
	}
	return epochOf(created)
}

func epochOf(created time.Time) string { return strconv.FormatInt(created.UnixMilli(), 10) }

// OnNewStream has f called, in its own goroutine, whenever the event stream turns out to be another one than before.
// Who keeps something across restarts compares StreamEpoch with what it kept.
func (b *Bus) OnNewStream(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.newStream = append(b.newStream, f)
}

// SafeAfter is how long after its publication an outbox entry must be kept, because the server could still lose it.
func (b *Bus) SafeAfter() time.Duration {
	if b.cfg.Replicas > 1 {
		return 0
	}
	return 3 * b.cfg.SyncInterval
}

// Ready returns nil when the connection is up and, while Run runs, every stream and consumer exists; else an Unavailable that
// says what is missing.
func (b *Bus) Ready() error {
	if !b.cfg.Conn.IsConnected() {
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "not connected to NATS")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.consumers) > 0 && !b.running {
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "the consumers do not run")
	}
	return b.health
}

// Run hears for all registered consumers until ctx ends; then it takes nothing new, lets the handlers finish what was taken (for at most
// 10 s) and returns nil. A missing server, stream or consumer does not end it: it heals or waits.
func (b *Bus) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.running {
		b.mu.Unlock()
		return errs.New(errs.Precondition, "BUS_RUNNING", "the bus runs already")
	}
	b.running = true
	b.health = errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "the consumers are starting")
	consumers := slices.Clone(b.consumers)
	if len(consumers) > 0 {
		consumers = append(consumers, b.advisories())
	}
	for _, c := range consumers {
		c.start(ctx)
	}
	b.mu.Unlock()

	b.watch(ctx, consumers)

	var stopping sync.WaitGroup
	for _, c := range consumers {
		stopping.Go(c.stop)
	}
	stopping.Wait()
	flushCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	if err := b.cfg.Conn.FlushWithContext(flushCtx); err != nil {
		b.cfg.Logger.WarnContext(ctx, "the last acknowledgements may not have been sent", "error", err)
	}
	b.mu.Lock()
	b.running = false
	b.mu.Unlock()
	return nil
}

// watch looks after streams and consumers until ctx ends.
func (b *Bus) watch(ctx context.Context, consumers []*consumer) {
	for round := 0; ctx.Err() == nil; round++ {
		err := b.heal(ctx, consumers, round)
		if ctx.Err() != nil {
			return
		}
		b.setHealth(ctx, err)
		tick, stop := b.sys.After(b.cfg.HealthInterval)
		select {
		case <-ctx.Done():
		case <-tick:
		case <-b.wake:
			// A burst of complaints is one look, not many.
			_ = b.sys.Sleep(ctx, min(b.cfg.HealthInterval, 50*time.Millisecond))
		}
		stop()
	}
}

func (b *Bus) setHealth(ctx context.Context, err error) {
	b.mu.Lock()
	before := b.health
	b.health = err
	b.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		b.cfg.Logger.WarnContext(ctx, "the bus is not complete; trying again", "error", err)
	case err == nil && before != nil:
		b.cfg.Logger.InfoContext(ctx, "the bus is complete")
	}
}

func (b *Bus) heal(ctx context.Context, consumers []*consumer, round int) error {
	ctx, expire := context.WithTimeout(ctx, 2*apiTimeout)
	defer expire()
	ctx, cancel := b.whileConnected(ctx)
	defer cancel()
	if err := b.ensureStreams(ctx); err != nil {
		return err
	}
	var all []error
	for _, c := range consumers {
		if err := c.heal(ctx, round); err != nil {
			all = append(all, fmt.Errorf("consumer %s: %w", c.Name, err))
		}
	}
	if len(all) > 0 {
		return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "%w", errors.Join(all...))
	}
	return nil
}

// look asks the health loop for a look right now.
func (b *Bus) look() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Upgrade gives existing streams and the registered consumers the configuration that this version of the program would create
// them with. Everything else leaves existing ones alone.
func (b *Bus) Upgrade(ctx context.Context) error {
	for _, want := range b.streamConfigs() {
		if _, err := b.js.CreateOrUpdateStream(ctx, want); err != nil {
			return errs.New(errs.Unavailable, "BUS_UPGRADE", "stream %s: %w", want.Name, err)
		}
	}
	b.mu.Lock()
	consumers := slices.Clone(b.consumers)
	b.mu.Unlock()
	for _, c := range consumers {
		if _, err := b.js.CreateOrUpdateConsumer(ctx, c.stream, c.config()); err != nil {
			return errs.New(errs.Unavailable, "BUS_UPGRADE", "consumer %s: %w", c.Name, err)
		}
	}
	return nil
}

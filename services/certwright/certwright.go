// Package certwright composes all services into one process: an embedded NATS server reached by in-process connections, SQLite files, gRPC
// over pipes. Only the edge and the challenge responders listen.
package certwright

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/certwright/certwright/services/certwright/internal/natsd"
	"github.com/certwright/certwright/services/challenges"
	"github.com/certwright/certwright/services/deployer"
	"github.com/certwright/certwright/services/dns"
	"github.com/certwright/certwright/services/gateway"
	"github.com/certwright/certwright/services/identity"
	"github.com/certwright/certwright/services/inventory"
	"github.com/certwright/certwright/services/keys"
	"github.com/certwright/certwright/services/notifications"
	"github.com/certwright/certwright/services/orders"
	"github.com/certwright/certwright/services/renewals"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/mongo"
	"github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/telemetry"
)

// Config of the one-process form. Each service's section is the configuration that it has as a process of its own.
type Config struct {
	DataDir  string       `yaml:"data_dir" validate:"required" doc:"Directory of everything that is stored, mode 0700"`
	MongoURI secret.Value `yaml:"mongodb_uri" doc:"Stores in MongoDB instead of SQLite files; also read from MONGODB_URI"`
	Log      Log          `yaml:"log"`
	Trace    Trace        `yaml:"trace"`

	Timing        service.Timing       `yaml:"timing"`
	Gateway       gateway.Config       `yaml:"gateway"`
	Identity      identity.Config      `yaml:"identity"`
	Inventory     inventory.Config     `yaml:"inventory"`
	Keys          keys.Config          `yaml:"keys"`
	Orders        orders.Config        `yaml:"orders"`
	Challenges    challenges.Config    `yaml:"challenges"`
	DNS           dns.Config           `yaml:"dns"`
	Renewals      renewals.Config      `yaml:"renewals"`
	Deployer      deployer.Config      `yaml:"deployer"`
	Notifications notifications.Config `yaml:"notifications"`

	// Version of the program.
	Version string `yaml:"-"`
	// Clock is the system's unless a test gives another.
	Clock clock.Clock `yaml:"-"`
	// Telemetry is made from Log and Trace unless a test gives its own.
	Telemetry *telemetry.Telemetry `yaml:"-"`
	// Stores decorates the store of each service, given as it was opened; nil: as they are. Measurements count there.
	Stores func(service string, s docstore.Store) docstore.Store `yaml:"-"`
	// Started is called when every service is ready; may be nil.
	Started func(Running) `yaml:"-"`
	// Bus is given the connection to the embedded NATS server before any service starts, for tests that watch or harm the bus; may be nil.
	Bus func(*nats.Conn) `yaml:"-"`
	// Publisher stands between a service's outbox and the bus, see service.Process; may be nil.
	Publisher func(service string, next outbox.Publisher) outbox.Publisher `yaml:"-"`
}

// Log says what is logged.
type Log struct {
	Level  string `yaml:"level" validate:"omitempty,oneof=debug info warn error" doc:"debug, info, warn or error"`
	Format string `yaml:"format" validate:"omitempty,oneof=json text" doc:"json or text"`
}

// Trace says where traces go.
type Trace struct {
	Endpoint string  `yaml:"endpoint" doc:"OTLP/gRPC receiver such as http://127.0.0.1:4317; empty: traces are not exported"`
	Sample   float64 `yaml:"sample" validate:"gte=0,lte=1" doc:"Part of the traces that is recorded, 0 to 1"`
}

// Running tells a test or the demo what came up.
type Running struct {
	Edge           string // base URL of the REST edge
	EdgeRoots      []byte // PEM
	AdminTokenFile string
}

// Defaults returns the configuration of a laptop.
func Defaults() Config {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return Config{
		DataDir: filepath.Join(home, ".certwright"), Log: Log{Level: "info", Format: "json"}, Trace: Trace{Sample: 1},
		Gateway: gateway.Defaults(), Challenges: challenges.Defaults(), Deployer: deployer.Defaults(), Notifications: notifications.Defaults(),
		Renewals: renewals.Defaults(), Keys: keys.Defaults(), DNS: dns.Defaults(), Inventory: inventory.Defaults(), Orders: orders.Defaults(),
	}
}

// Serve runs everything until ctx ends or a service fails.
func Serve(ctx context.Context, cfg Config) (err error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System()
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if cfg.Telemetry == nil {
		cfg.Telemetry, err = telemetry.New(ctx, telemetry.Config{
			Service: "certwright", Version: cfg.Version, OTLPEndpoint: cfg.Trace.Endpoint, SampleRatio: cfg.Trace.Sample, LogLevel: cfg.Log.Level,
			LogFormat: cfg.Log.Format, Clock: cfg.Clock,
		})
		if err != nil {
			return err
		}
		defer func() {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			err = errors.Join(err, cfg.Telemetry.Shutdown(last))
		}()
	}
	natsServer, err := natsd.Start(ctx, filepath.Join(cfg.DataDir, "nats"))
	if err != nil {
		return err
	}
	defer natsServer.Stop()
	conn, err := natsServer.Connect("certwright")
	if err != nil {
		return fmt.Errorf("connecting to the embedded NATS server: %w", err)
	}
	defer conn.Close()
	if cfg.Bus != nil {
		cfg.Bus(conn)
	}

	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	const audience = "certwright"
	ready := newReadiness(names())
	pr := &service.Process{
		Clock: cfg.Clock, Telemetry: cfg.Telemetry, NATS: conn, SyncInterval: natsd.SyncInterval, Network: service.NewInProcess(),
		Verifier: authz.NewVerifier(audience, public), Signer: authz.NewSigner(private, audience), DataDir: cfg.DataDir, Timing: cfg.Timing,
		OpenStore: cfg.openStore, Ready: ready.set, Publisher: cfg.Publisher,
	}
	cfg.Gateway.Ready = ready.missing
	cfg.Gateway.Metrics = cfg.Telemetry.MetricsHandler()
	if cfg.Identity.BootstrapTokenFile == "" {
		cfg.Identity.BootstrapTokenFile = filepath.Join(cfg.DataDir, "admin.token")
	}
	return runAll(ctx, pr, cfg, ready)
}

func runAll(ctx context.Context, pr *service.Process, cfg Config, ready *readiness) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, len(names()))
	for _, s := range cfg.services() {
		p, closeAll, err := pr.Platform(ctx, s.name)
		if err != nil {
			stopped := ctx.Err() != nil
			cancel()
			wg.Wait()
			close(failed)
			return joined(failed, stopped, err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer closeAll()
			if err := s.run(ctx, p); err != nil {
				failed <- fmt.Errorf("%s: %w", s.name, err)
				cancel()
			}
		}()
	}
	if cfg.Started != nil {
		go func() {
			if ready.wait(ctx) {
				cfg.Started(Running{Edge: cfg.Gateway.URL(), EdgeRoots: cfg.Gateway.Roots(filepath.Join(cfg.DataDir, "gateway")), AdminTokenFile: cfg.Identity.BootstrapTokenFile})
			}
		}()
	}
	wg.Wait()
	close(failed)
	return joined(failed, false, nil)
}

// joined is what went wrong: the failures of services, and last what ended the start, unless that is only how the start noticed a failure.
func joined(failures <-chan error, noticed bool, last error) error {
	var err error
	for e := range failures {
		err = errors.Join(err, e)
	}
	if err != nil && noticed {
		return err
	}
	return errors.Join(err, last)
}

type part struct {
	name string
	run  func(context.Context, *service.Platform) error
}

func (cfg *Config) services() []part {
	cfg.Orders.Version = cfg.Version
	return []part{
		{"identity", func(ctx context.Context, p *service.Platform) error { return identity.Run(ctx, p, cfg.Identity) }},
		{"inventory", func(ctx context.Context, p *service.Platform) error { return inventory.Run(ctx, p, cfg.Inventory) }},
		{"keys", func(ctx context.Context, p *service.Platform) error { return keys.Run(ctx, p, cfg.Keys) }},
		{"orders", func(ctx context.Context, p *service.Platform) error { return orders.Run(ctx, p, cfg.Orders) }},
		{"challenges", func(ctx context.Context, p *service.Platform) error { return challenges.Run(ctx, p, cfg.Challenges) }},
		{"dns", func(ctx context.Context, p *service.Platform) error { return dns.Run(ctx, p, cfg.DNS) }},
		{"renewals", func(ctx context.Context, p *service.Platform) error { return renewals.Run(ctx, p, cfg.Renewals) }},
		{"deployer", func(ctx context.Context, p *service.Platform) error { return deployer.Run(ctx, p, cfg.Deployer) }},
		{"notifications", func(ctx context.Context, p *service.Platform) error {
			return notifications.Run(ctx, p, cfg.Notifications)
		}},
		{"gateway", func(ctx context.Context, p *service.Platform) error { return gateway.Run(ctx, p, cfg.Gateway) }},
	}
}

func names() []string {
	var cfg Config
	var out []string
	for _, s := range cfg.services() {
		out = append(out, s.name)
	}
	return out
}

func (cfg *Config) openStore(ctx context.Context, name string) (s docstore.Store, err error) {
	if cfg.MongoURI.IsZero() {
		s, err = sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(cfg.DataDir, name, name+".db"), Clock: cfg.Clock})
	} else {
		s, err = mongo.Open(ctx, mongo.Options{URI: cfg.MongoURI.Reveal(), Database: "certwright_" + name, Clock: cfg.Clock})
	}
	if err != nil || cfg.Stores == nil {
		return s, err
	}
	return cfg.Stores(name, s), nil
}

// readiness collects which services are ready.
type readiness struct {
	mu      sync.Mutex
	waiting map[string]bool
	all     chan struct{}
	closed  bool
}

func newReadiness(names []string) *readiness {
	r := &readiness{waiting: map[string]bool{}, all: make(chan struct{})}
	for _, n := range names {
		r.waiting[n] = true
	}
	return r
}

func (r *readiness) set(name string, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready {
		delete(r.waiting, name)
	} else {
		r.waiting[name] = true
	}
	if len(r.waiting) == 0 && !r.closed {
		r.closed = true
		close(r.all)
	}
}

// missing names the services that are not ready.
func (r *readiness) missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, 0, len(r.waiting))
	for _, n := range names() {
		if r.waiting[n] {
			out = append(out, n)
		}
	}
	return out
}

func (r *readiness) wait(ctx context.Context) bool {
	select {
	case <-r.all:
		return true
	case <-ctx.Done():
		return false
	}
}

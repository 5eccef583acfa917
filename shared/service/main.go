package service

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/mongo"
	"github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/telemetry"
)

// Settings configure a service that is a process of its own. `certwright init` writes them.
type Settings struct {
	DataDir  string            `yaml:"data_dir" validate:"required" doc:"Directory for keys and, without MongoDB, the store; mode 0700"`
	Listen   string            `yaml:"listen" validate:"required" doc:"Address of the service's gRPC server, host:port"`
	Health   string            `yaml:"health" validate:"required" doc:"Address of /healthz, /readyz and /metrics, host:port"`
	Peers    map[string]string `yaml:"peers" doc:"Address of every other service, by name, host:port"`
	MongoURI secret.Value      `yaml:"mongodb_uri" doc:"MongoDB, also read from MONGODB_URI; empty: a SQLite file in data_dir"`

	NATS      NATS      `yaml:"nats"`
	TLS       TLS       `yaml:"tls"`
	Principal Principal `yaml:"principal"`
	Timing    Timing    `yaml:"timing"`

	LogLevel      string  `yaml:"log_level" validate:"omitempty,oneof=debug info warn error" doc:"debug, info, warn or error"`
	TraceEndpoint string  `yaml:"trace_endpoint" doc:"OTLP/gRPC receiver; empty: traces are not exported"`
	TraceSample   float64 `yaml:"trace_sample" validate:"gte=0,lte=1" doc:"Part of the traces that is recorded, 0 to 1"`
}

// NATS says where the bus is.
type NATS struct {
	URL      string        `yaml:"url" validate:"required" doc:"URLs of the NATS servers, separated by commas"`
	SeedFile string        `yaml:"seed_file" doc:"File with the service's nkey seed; this and every other file may be named relative to the configuration file"`
	CAFile   string        `yaml:"ca_file" doc:"CA of the servers' certificates; empty: no TLS"`
	Replicas int           `yaml:"replicas" validate:"gte=0,lte=5" doc:"Replicas of the streams, 1, 3 or 5; used when they are made"`
	Sync     time.Duration `yaml:"sync_interval" doc:"How often the servers sync their files; default 2m"`
}

// TLS names the files of the service's identity towards its siblings.
type TLS struct {
	CertFile string `yaml:"cert_file" validate:"required" doc:"Certificate of this service, for <service>.certwright"`
	KeyFile  string `yaml:"key_file" validate:"required" doc:"Its private key"`
	CAFile   string `yaml:"ca_file" validate:"required" doc:"CA of every service's certificate"`
}

// Principal names the files by which people's identities are signed and checked.
type Principal struct {
	PublicKeyFile  string `yaml:"public_key_file" validate:"required" doc:"Ed25519 public key, PEM, that signed principals are checked with"`
	PrivateKeyFile string `yaml:"private_key_file" doc:"Ed25519 private key, PEM, that the gateway signs with; empty elsewhere"`
}

// audience of the signed principals.
const audience = "certwright"

// Defaults returns the settings of a service in a container.
func Defaults() Settings {
	return Settings{DataDir: "/var/lib/certwright", Listen: ":7443", Health: "127.0.0.1:9090", LogLevel: "info", TraceSample: 1, NATS: NATS{Sync: 2 * time.Minute}}
}

// Main is the whole program of a service: configuration, signals, Run, exit code. settings and cfg are the "platform" and "service" sections of
// the YAML file, filled with their defaults.
func Main[C any](name string, cfg C, run func(ctx context.Context, p *Platform, cfg C) error) int {
	file := flag.String("config", os.Getenv("CERTWRIGHT_CONFIG"), "YAML file; environment variables CERTWRIGHT_"+strings.ToUpper(name)+"_… come on top")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: %s [-config FILE] [healthcheck]\n\nRuns the %s service of Certwright. With healthcheck it asks the running one and ends with 0 if it is ready.\n", name, name)
		flag.PrintDefaults()
	}
	flag.Parse()
	all := struct {
		Platform Settings `yaml:"platform"`
		Service  C        `yaml:"service"`
	}{Defaults(), cfg}
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		all.Platform.MongoURI = secret.New(uri)
	}
	if err := config.Load(&all, config.Source{Service: name, File: *file, Env: os.Environ()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	all.Platform.below(filepath.Dir(*file))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if flag.Arg(0) == "healthcheck" {
		return healthcheck(ctx, all.Platform.Health)
	}
	if err := serve(ctx, name, all.Platform, func(ctx context.Context, p *Platform) error { return run(ctx, p, all.Service) }); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Version is the program's: its module's, or the commit that it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "dev-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "dev"
}

func healthcheck(ctx context.Context, addr string) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if host, port, err := net.SplitHostPort(addr); err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer resp.Body.Close() //nolint:errcheck // the status is the answer
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(os.Stderr, resp.Body)
		return 1
	}
	return 0
}

func serve(ctx context.Context, name string, s Settings, run func(context.Context, *Platform) error) (err error) {
	clk := clock.System()
	tel, err := telemetry.New(ctx, telemetry.Config{Service: name, Version: Version(), OTLPEndpoint: s.TraceEndpoint, SampleRatio: s.TraceSample, LogLevel: s.LogLevel, Clock: clk})
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(last))
	}()
	var ready readiness
	stopHealth, err := health(ctx, s.Health, tel.MetricsHandler(), ready.check)
	if err != nil {
		return err
	}
	defer stopHealth()
	conn, err := connect(name, s.NATS)
	if err != nil {
		return err
	}
	defer conn.Close()
	server, client, err := rpc.TLS(s.TLS.CertFile, s.TLS.KeyFile, s.TLS.CAFile)
	if err != nil {
		return err
	}
	pr := &Process{
		Clock: clk, Telemetry: tel, NATS: conn, SyncInterval: s.NATS.Sync, Replicas: s.NATS.Replicas, DataDir: s.DataDir, Timing: s.Timing,
		Network:   &Remote{Listen: s.Listen, Address: s.Peers, Server: server, Client: client},
		OpenStore: s.open(clk), Ready: func(_ string, r bool) { ready.serving.Store(r) },
	}
	if pr.Verifier, pr.Signer, err = s.Principal.load(); err != nil {
		return err
	}
	p, closeAll, err := pr.Platform(ctx, name)
	if err != nil {
		return err
	}
	defer closeAll()
	ready.bus.Store(p.Bus)
	return run(ctx, p)
}

// below makes the files that are named by a relative path those beside the configuration file, so that a service's material can be put anywhere.
func (s *Settings) below(dir string) {
	for _, file := range []*string{
		&s.NATS.SeedFile, &s.NATS.CAFile, &s.TLS.CertFile, &s.TLS.KeyFile, &s.TLS.CAFile, &s.Principal.PublicKeyFile, &s.Principal.PrivateKeyFile,
	} {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(dir, *file)
		}
	}
}

// readiness is whether the service works and its streams and consumers are there.
type readiness struct {
	serving atomic.Bool
	bus     atomic.Pointer[bus.Bus]
}

// check says what is missing; nil: nothing.
func (r *readiness) check() error {
	b := r.bus.Load()
	if b == nil || !r.serving.Load() {
		return errs.New(errs.Unavailable, "NOT_READY", "starting or stopping")
	}
	return b.Ready()
}

func (s Settings) open(clk clock.Clock) func(context.Context, string) (docstore.Store, error) {
	return func(ctx context.Context, name string) (docstore.Store, error) {
		if !s.MongoURI.IsZero() {
			return mongo.Open(ctx, mongo.Options{URI: s.MongoURI.Reveal(), Database: "certwright_" + name, Clock: clk})
		}
		return sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(s.DataDir, name, name+".db"), Clock: clk})
	}
}

func connect(name string, n NATS) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(name), nats.CustomInboxPrefix(bus.InboxPrefix(name)), nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond), nats.RetryOnFailedConnect(true),
	}
	if n.SeedFile != "" {
		opt, err := nats.NkeyOptionFromSeed(n.SeedFile)
		if err != nil {
			return nil, errs.New(errs.Precondition, "NATS_SEED", "the nkey seed in %s cannot be used: %w", n.SeedFile, err)
		}
		opts = append(opts, opt)
	}
	if n.CAFile != "" {
		opts = append(opts, nats.RootCAs(n.CAFile))
	}
	conn, err := nats.Connect(n.URL, opts...)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "NATS_UNREACHABLE", "NATS at %s: %w", n.URL, err)
	}
	return conn, nil
}

// health serves liveness, readiness and metrics until stopped.
func health(ctx context.Context, addr string, metrics http.Handler, ready func() error) (stop func(), err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.Handle("GET /metrics", metrics)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, errs.New(errs.Precondition, "ADDRESS_IN_USE", "health address: %w", err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return func() {
		_ = srv.Close()
		<-done
	}, nil
}

func (p Principal) load() (*authz.Verifier, *authz.Signer, error) {
	block, err := readPEM(p.PublicKeyFile)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(block)
	public, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, nil, errs.New(errs.Precondition, "PRINCIPAL_KEY", "%s holds no Ed25519 public key", p.PublicKeyFile)
	}
	verifier := authz.NewVerifier(audience, public)
	if p.PrivateKeyFile == "" {
		return verifier, nil, nil
	}
	if block, err = readPEM(p.PrivateKeyFile); err != nil {
		return nil, nil, err
	}
	parsedKey, err := x509.ParsePKCS8PrivateKey(block)
	private, ok := parsedKey.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, nil, errs.New(errs.Precondition, "PRINCIPAL_KEY", "%s holds no Ed25519 private key", p.PrivateKeyFile)
	}
	return verifier, authz.NewSigner(private, audience), nil
}

func readPEM(file string) ([]byte, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, errs.New(errs.Precondition, "PRINCIPAL_KEY", "the key that principals are signed with cannot be read: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errs.New(errs.Precondition, "PRINCIPAL_KEY", "%s holds no PEM block", file)
	}
	return block.Bytes, nil
}

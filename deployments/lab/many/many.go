// Package many runs the product as many processes: a NATS server with the configuration, the TLS and the users that "certwright init" makes, and every
// service as its own program on loopback ports. Tests kill, stop and start single processes of it.
package many

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"

	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/shared/bus"
)

const module = "github.com/certwright/certwright/services/"

// Services are the programs that make up the platform.
func Services() []string {
	return []string{"identity", "inventory", "keys", "orders", "challenges", "dns", "renewals", "deployer", "notifications", "gateway"}
}

// Build builds every program into dir: statically, as they are delivered.
func Build(ctx context.Context, dir string) error {
	args := []string{"build", "-ldflags", "-s -w", "-o", dir + string(filepath.Separator), module + "certwright/cmd/certwright"}
	for _, s := range Services() {
		args = append(args, module+s+"/cmd/"+s)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, text)
	}
	return nil
}

// Options of a form.
type Options struct {
	Bin string // directory of the programs, see Build
	Dir string // for everything that is made
	// HTTP01Port is where the built-in responder listens.
	HTTP01Port int
	// Roots are directories that the deployer's host "local" allows; Commands its reload commands.
	Roots    []string
	Commands map[string][]string
	// MongoURI stores in MongoDB; empty: a SQLite file for each service.
	MongoURI string
}

// Form is a running platform of many processes.
type Form struct {
	*client.Client
	// Made is the directory that "certwright init" filled, Data what the services store.
	Made, Data string
	Edge       string
	// Said is what "certwright init" printed.
	Said string

	bus       *server.Server
	addresses map[string]string
	processes map[string]*Process
	replicas  []*Process
}

// quick makes processes patient for milliseconds where operators want minutes.
func quick() map[string]string {
	return map[string]string{
		"TIMING_FIRST_REPEAT": "500ms", "TIMING_MAX_REPEAT": "2s", "TIMING_OUTBOX_SWEEP": "200ms", "TIMING_ABANDONED": "500ms", "TIMING_HEAL": "1s",
		"TIMING_LEASE": "2s", "TIMING_WORKER_SWEEP": "200ms", "NATS_SYNC_INTERVAL": "1s", "LOG_LEVEL": "warn",
	}
}

// Start makes the material, starts NATS and every service, and returns when all are ready.
func Start(ctx context.Context, o Options) (f *Form, err error) {
	f = &Form{Made: filepath.Join(o.Dir, "made"), Data: filepath.Join(o.Dir, "data"), addresses: map[string]string{}, processes: map[string]*Process{}}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return f, err
	}
	if err := f.init(ctx, o); err != nil {
		return f, err
	}
	if err := f.startBus(); err != nil {
		return f, err
	}
	edge, err := freePort()
	if err != nil {
		return f, err
	}
	f.Edge = fmt.Sprintf("https://127.0.0.1:%d", edge)
	for _, name := range Services() {
		p, err := f.process(o.Bin, name)
		if err != nil {
			return f, err
		}
		switch name {
		case "gateway":
			p.set("SERVICE_HTTPS", fmt.Sprintf("127.0.0.1:%d", edge))
		case "challenges":
			p.set("SERVICE_HTTP01_LISTEN", fmt.Sprintf("127.0.0.1:%d", o.HTTP01Port))
			p.set("SERVICE_TLSALPN01_LISTEN", "") // nobody asks for it here
		case "deployer":
			p.set("SERVICE_VERIFY_POLL", "100ms")
			if err := f.allow(o); err != nil {
				return f, err
			}
		case "orders":
			p.set("SERVICE_ARI_MIN_RETRY", "1s")
		case "renewals":
			p.set("SERVICE_ARI_MIN_INTERVAL", "1s")
		}
		f.processes[name] = p
		if err := p.launch(); err != nil {
			return f, err
		}
	}
	for _, name := range Services() {
		if err := f.processes[name].first(ctx); err != nil {
			return f, err
		}
	}
	roots, err := os.ReadFile(filepath.Join(f.Data, "gateway", "edge-ca.pem"))
	if err != nil {
		return f, err
	}
	f.Client, err = client.New(f.Edge, roots, filepath.Join(f.Data, "identity", "admin.token"))
	return f, err
}

// init runs "certwright init" with a free port for each party.
func (f *Form) init(ctx context.Context, o Options) error {
	args := []string{"init", "--dir", f.Made, "--form", "hosts", "--data-dir", f.Data}
	for _, name := range append(Services(), "nats") {
		port, err := freePort()
		if err != nil {
			return err
		}
		f.addresses[name] = fmt.Sprintf("127.0.0.1:%d", port)
		args = append(args, "--hosts", name+"="+f.addresses[name])
	}
	if o.MongoURI != "" {
		file := filepath.Join(o.Dir, "mongodb.uri")
		if err := os.WriteFile(file, []byte(o.MongoURI+"\n"), 0o600); err != nil {
			return err
		}
		args = append(args, "--mongodb-uri-file", file)
	}
	said, err := exec.CommandContext(ctx, filepath.Join(o.Bin, "certwright"), args...).CombinedOutput()
	f.Said = string(said)
	if err != nil {
		return fmt.Errorf("certwright init: %w\n%s", err, said)
	}
	return nil
}

// allow writes what an operator writes: which directories and commands the deployer may use.
func (f *Form) allow(o Options) error {
	hosts, err := json.Marshal(map[string]any{"local": map[string]any{"allowed_roots": o.Roots, "commands": o.Commands}})
	if err != nil {
		return err
	}
	file := filepath.Join(f.Made, "deployer", "config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	const before = "  hosts: {}\n"
	if !bytes.Contains(text, []byte(before)) {
		return fmt.Errorf("%s has no line %q", file, before)
	}
	return os.WriteFile(file, bytes.Replace(text, []byte(before), []byte("  hosts: "+string(hosts)+"\n"), 1), 0o600)
}

func (f *Form) startBus() error {
	o, err := server.ProcessConfigFile(filepath.Join(f.Made, "nats", "nats.conf"))
	if err != nil {
		return fmt.Errorf("nats.conf: %w", err)
	}
	o.NoSigs, o.NoLog, o.SyncInterval = true, true, time.Second
	if f.bus, err = server.NewServer(o); err != nil {
		return fmt.Errorf("NATS server: %w", err)
	}
	f.bus.Start()
	if !f.bus.ReadyForConnections(10 * time.Second) {
		return errors.New("the NATS server was not ready within 10 s")
	}
	return nil
}

// Connect connects to NATS as the user of a service, with its seed.
func (f *Form) Connect(service string, more ...natsgo.Option) (*natsgo.Conn, error) {
	seed, err := natsgo.NkeyOptionFromSeed(filepath.Join(f.Made, service, "nats.seed"))
	if err != nil {
		return nil, err
	}
	return natsgo.Connect(f.BusURL(), append([]natsgo.Option{
		seed, natsgo.RootCAs(filepath.Join(f.Made, "ca", "ca.pem")), natsgo.CustomInboxPrefix(bus.InboxPrefix(service)), natsgo.NoReconnect(),
	}, more...)...)
}

// BusURL is where the NATS server listens.
func (f *Form) BusURL() string { return "tls://" + f.bus.Addr().String() }

// Address is where a service's gRPC server listens.
func (f *Form) Address(service string) string { return f.addresses[service] }

// Process returns the process of a service.
func (f *Form) Process(name string) *Process { return f.processes[name] }

// Replica starts one more process of a service, on the same store and keys and with ports of its own.
func (f *Form) Replica(ctx context.Context, name string) (*Process, error) {
	p, err := f.process(filepath.Dir(f.processes[name].binary), name)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p.env = slices.Clone(f.processes[name].env)
	p.set("PLATFORM_LISTEN", fmt.Sprintf("127.0.0.1:%d", port))
	p.set("PLATFORM_HEALTH", p.Health)
	p.logFile += ".2"
	f.replicas = append(f.replicas, p)
	return p, p.Start(ctx)
}

func (f *Form) process(bin, name string) (*Process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Process{
		Name: name, Health: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), binary: filepath.Join(bin, name), config: filepath.Join(f.Made, name, "config.yaml"),
		logFile: filepath.Join(filepath.Dir(f.Made), name+".log"),
	}
	p.set("PLATFORM_HEALTH", p.Health)
	for key, value := range quick() {
		p.set("PLATFORM_"+key, value)
	}
	return p, nil
}

// Close kills every process and ends the NATS server.
func (f *Form) Close() error {
	for _, p := range f.processes {
		p.Kill()
	}
	for _, p := range f.replicas {
		p.Kill()
	}
	if f.bus != nil {
		f.bus.Shutdown()
		f.bus.WaitForShutdown()
	}
	return nil
}

// Process is one service's program.
type Process struct {
	Name   string
	Health string // host:port of /readyz

	binary, config, logFile string
	env                     []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *Process) set(key, value string) {
	p.env = append(p.env, "CERTWRIGHT_"+strings.ToUpper(p.Name)+"_"+key+"="+value)
}

// ErrDied is the answer of Start when the program ended before it was ready.
var ErrDied = errors.New("the program ended before it was ready")

// Start starts the program, with more environment, and returns when it is ready.
func (p *Process) Start(ctx context.Context, env ...string) error {
	if err := p.launch(env...); err != nil {
		return err
	}
	return p.ready(ctx)
}

func (p *Process) launch(env ...string) error {
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = exec.Command(p.binary, "-config", p.config)
	p.cmd.Env = append(append(os.Environ(), p.env...), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd, p.done)
	return nil
}

// Ready asks /readyz once.
func (p *Process) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Health+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var said bytes.Buffer
	_, _ = said.ReadFrom(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP %d: %s", p.Name, resp.StatusCode, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func (p *Process) ready(ctx context.Context) error {
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Died():
			return fmt.Errorf("%s: %w\n%s", p.Name, ErrDied, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; %w\n%s", p.Name, ctx.Err(), err, p.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// first waits for the first start. A port that was free when it was drawn may have become the near end of somebody's connection for a moment: then the
// program is started again.
func (p *Process) first(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := p.ready(ctx)
		if tries == 10 || !errors.Is(err, ErrDied) || !strings.Contains(p.Log(), "address already in use") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
		if err := p.launch(); err != nil {
			return err
		}
	}
}

// freePort draws a port below those that the system gives to connections, so that none takes it before the program that it is for.
func freePort() (int, error) {
	for range 200 {
		port := 15000 + rand.IntN(17000)
		l, err := loopback.Listen(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port was found")
}

// Healthcheck runs the program's own health check, as a container's does.
func (p *Process) Healthcheck(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.binary, "-config", p.config, "healthcheck")
	cmd.Env = append(os.Environ(), p.env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s healthcheck: %w: %s", p.Name, err, text)
	}
	return nil
}

// Died returns a channel that closes when the program has ended.
func (p *Process) Died() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Kill kills the program if it runs, and waits for its end.
func (p *Process) Kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if done == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-done
}

// Interrupt asks the program to end, and waits.
func (p *Process) Interrupt(ctx context.Context) error {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	_ = cmd.Process.Signal(os.Interrupt)
	select {
	case <-done:
		if !cmd.ProcessState.Success() {
			return fmt.Errorf("%s: %s\n%s", p.Name, cmd.ProcessState, p.Log())
		}
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop: %w", p.Name, ctx.Err())
	}
}

// Log is the end of what the program logged.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return ""
	}
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return string(bytes.TrimSpace(text))
}

package system_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"google.golang.org/protobuf/proto"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// crashStage is a stage whose platform is a child process that is killed.
type crashStage struct {
	*stage.Stage
	t       *testing.T
	proc    *platform.Process
	issuer  string
	targets []string // one for each certificate
	intents int      // certificates asked for
	kills   int
	round   int
}

// quick makes a process patient for milliseconds where operators want minutes: leases, repeats and sweeps.
const quick = `
timing: {first_repeat: 500ms, max_repeat: 2s, outbox_sweep: 200ms, abandoned: 500ms, heal: 1s, lease: 2s, worker_sweep: 200ms}
log: {level: warn, format: text}
`

func newCrashStage(t *testing.T) *crashStage {
	t.Helper()
	ctx := labtest.Deadline(t, 3*time.Minute)
	dir := t.TempDir()
	s, err := stage.Start(ctx, stage.Options{Dir: dir, CA: ca.Options{Strict: true, NonceReject: 20}, Without: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	data := filepath.Join(dir, "platform")
	port := labtest.Port(t)
	config := filepath.Join(dir, "certwright.yaml")
	text := fmt.Sprintf(`data_dir: %s
gateway: {https: "127.0.0.1:%d"}
challenges: {http01: {listen: "127.0.0.1:%d"}, tlsalpn01: {listen: "127.0.0.1:%d"}, dns: {resolvers: ["%s"]}}
deployer:
  verify_poll: 100ms
  probe_timeout: 1s
  hosts: {local: {allowed_roots: [%s], command_timeout: 1s, commands: {reload-site: [%s, reload, "%s"]}}}
`, data, port, s.HTTP01Port, s.TLSPort, s.DNS.Addr(), dir, labtest.Sitectl(t), s.Site.ControlAddr()) + quick
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	c := &crashStage{Stage: s, t: t, proc: &platform.Process{Binary: binary(t), Dir: data, Config: config, Edge: fmt.Sprintf("https://127.0.0.1:%d", port)}}
	t.Cleanup(func() { _ = c.proc.Close() })
	return c
}

// connect makes issuer, DNS account and a target for each of so many certificates, once. Each call is repeated by its requestId when a kill cuts it off.
func (c *crashStage) connect(ctx context.Context, certificates int) {
	c.t.Helper()
	issuer, account := &ordersv1.Issuer{}, &dnsv1.DNSAccount{}
	c.create(ctx, "/v1/issuers", &ordersv1.CreateIssuerRequest{RequestId: "issuer", Issuer: &ordersv1.Issuer{
		DisplayName: "lab CA", Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: c.CA.DirectoryURL(), TrustRootsPem: string(c.CA.TLSRootPEM()), IssuedRootsPem: string(c.CA.RootsPEM()), TermsAgreed: true,
		},
	}}, issuer)
	c.issuer = issuer.GetId()
	c.create(ctx, "/v1/dnsAccounts", &dnsv1.CreateDNSAccountRequest{RequestId: "dns", DnsAccount: &dnsv1.DNSAccount{
		DisplayName: "lab DNS", Provider: "rfc2136", Zones: []string{stage.Zone},
		Rfc2136: &dnsv1.RFC2136{Server: c.DNS.Addr(), TsigKeyName: c.Key.Name, TsigSecret: c.Key.Secret},
	}}, account)
	for n := range certificates {
		dir := filepath.Join(c.Dir, "served", fmt.Sprint(n))
		require.NoError(c.t, os.MkdirAll(dir, 0o700))
		target := &deployerv1.Target{}
		c.create(ctx, "/v1/targets", &deployerv1.CreateTargetRequest{RequestId: fmt.Sprint("target-", n), Target: &deployerv1.Target{
			DisplayName: fmt.Sprintf("files %d", n), Kind: "file", File: &deployerv1.FileTarget{
				Host: "local", FullchainPath: filepath.Join(dir, "fullchain.pem"), KeyPath: filepath.Join(dir, "key.pem"), Reload: "reload-site",
			},
		}}, target)
		c.targets = append(c.targets, target.GetId())
	}
}

// create posts until it is answered, starting the program again when it was killed meanwhile.
func (c *crashStage) create(ctx context.Context, path string, in, out proto.Message) {
	c.t.Helper()
	for {
		err := c.proc.Call(ctx, http.MethodPost, path, in, out)
		if err == nil {
			c.Platform = &platform.Platform{Client: c.proc.Client}
			return
		}
		var refused *client.Error
		if errors.As(err, &refused) && refused.Status < 500 {
			require.NoError(c.t, err)
		}
		select {
		case <-c.proc.Died():
			c.kills++
			require.True(c.t, c.start(ctx))
		case <-ctx.Done():
			require.NoError(c.t, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// start starts the program with the environment given, and reports whether it came up before it died.
func (c *crashStage) start(ctx context.Context, env ...string) bool {
	c.t.Helper()
	c.proc.Env = env
	err := c.proc.Start(ctx)
	if errors.Is(err, platform.ErrDied) && len(env) > 0 {
		return false
	}
	require.NoError(c.t, err)
	return true
}

// ask requests a certificate for two fresh names by dns-01 and http-01 in turn, deployed to the site; a request cut off by a kill is repeated by its requestId.
func (c *crashStage) ask(ctx context.Context) (id string, err error) {
	c.round++
	name := fmt.Sprintf("r%d.%s", c.round, stage.Zone)
	names, challenge := []string{name}, "http-01"
	if c.round%2 == 0 {
		names, challenge = []string{name, "*." + name}, "dns-01"
	}
	return c.askFor(ctx, challenge, names)
}

// settled waits until every certificate asked for is issued and deployed, and no challenge is left.
func (c *crashStage) settled(ctx context.Context, ids []string) {
	c.t.Helper()
	for _, id := range ids {
		began := time.Now()
		got, err := c.Version(ctx, id, "")
		require.NoError(c.t, err, "certificate %s", id)
		order, err := c.Order(ctx, got.GetIntent().GetOrderId())
		require.NoError(c.t, err)
		if took := time.Since(began); took > 10*time.Second || len(order.GetAttempts()) > 1 {
			c.t.Logf("%s took %s: %v", order.GetId(), took.Round(time.Second), order.GetAttempts())
		}
	}
	labtest.Eventually(ctx, c.t, func() (bool, string) {
		left := c.DNS.Snapshot()
		return len(left) == 0, fmt.Sprintf("challenge records are left: %v", left)
	})
	labtest.Eventually(ctx, c.t, func() (bool, string) {
		out := &keysv1.ListKeysResponse{}
		if err := c.Call(ctx, http.MethodGet, "/v1/keys?filter=state%3Dpre_active", nil, out); err != nil {
			return false, err.Error()
		}
		return len(out.GetKeys()) == 0, fmt.Sprintf("unused keys are left: %v", out.GetKeys())
	})
	labtest.Eventually(ctx, c.t, func() (bool, string) {
		out := &deployerv1.ListBindingsResponse{}
		if err := c.Call(ctx, http.MethodGet, "/v1/bindings?pageSize=1000", nil, out); err != nil {
			return false, err.Error()
		}
		for _, b := range out.GetBindings() {
			if b.GetServedVersionId() == "" || b.GetServedVersionId() != b.GetDesiredVersionId() {
				return false, fmt.Sprintf("binding %s of %s serves %q, meant is %q", b.GetId(), b.GetCertificateId(), b.GetServedVersionId(), b.GetDesiredVersionId())
			}
		}
		return true, ""
	})
}

// counted compares what the CA saw with what was asked for.
func (c *crashStage) counted() {
	c.t.Helper()
	finalized := 0
	for _, o := range c.CA.Orders() {
		if o.Finalized {
			finalized++
		}
	}
	require.Equal(c.t, c.intents, finalized, "orders finalized at the CA = intents")
	require.LessOrEqual(c.t, c.CA.Counts().Of(ca.NewOrder).Succeeded, c.intents+c.kills, "newOrders ≤ intents + kills")
}

// record runs the scenario once and returns every fail point that it hit: while everything was set up, and while certificates were made.
func (c *crashStage) record() (setup, work []string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "points")
	ctx := labtest.Deadline(c.t, 2*time.Minute)
	require.True(c.t, c.start(ctx, "CERTWRIGHT_FAILPOINT_LOG="+file))
	c.connect(ctx, 600)
	c.pause(ctx, 5*time.Second) // sent entries are cleared after three sync intervals
	setup = hit(c.t, file)
	require.NoError(c.t, os.Truncate(file, 0))
	var ids []string
	for range 2 {
		id, err := c.ask(ctx)
		require.NoError(c.t, err)
		ids = append(ids, id)
	}
	c.settled(ctx, ids)
	c.pause(ctx, 5*time.Second)
	require.NoError(c.t, c.proc.Stop(ctx))
	work = hit(c.t, file)
	// What only a first certificate does (the account) belongs to the setup, like what later ones never do again.
	once := func(p string) bool {
		return strings.Contains(p, ".accounts.") || strings.Contains(p, "acme.newAccount")
	}
	for _, p := range work {
		if once(p) && !slices.Contains(setup, p) {
			setup = append(setup, p)
		}
	}
	setup = slices.DeleteFunc(setup, func(p string) bool { return slices.Contains(work, p) && !once(p) })
	work = slices.DeleteFunc(work, once)
	// Told only in trouble, which a busy machine may have met in this run and not in the next.
	work = slices.DeleteFunc(work, func(p string) bool {
		return strings.Contains(p, "order.blocked") || strings.Contains(p, "order.unblocked") || strings.Contains(p, "_failed") || strings.Contains(p, ".failed")
	})
	return setup, work
}

// hit reads the fail points that a program has logged, each once.
func hit(t *testing.T, file string) (points []string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !slices.Contains(points, lines.Text()) {
			points = append(points, lines.Text())
		}
	}
	slices.Sort(points)
	return points
}

func (c *crashStage) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// crashAt kills the program at one point and sees that everything ends well.
func (c *crashStage) crashAt(point string) {
	c.t.Helper()
	ctx := labtest.Deadline(c.t, 90*time.Second)
	var ids []string
	if c.start(ctx, "CERTWRIGHT_FAILPOINT_KILL="+point) {
		for range 2 { // one by http-01, one by dns-01, one at a time: a kill may cost each order in flight one newOrder
			id, err := c.ask(ctx)
			if err != nil { // it was the call itself that died
				break
			}
			ids = append(ids, id)
			if !c.issuedOrDead(ctx, id) {
				break
			}
		}
		select {
		case <-c.proc.Died():
		case <-time.After(20 * time.Second):
			require.Fail(c.t, "the point was never hit", point)
		}
	}
	c.kills++
	require.True(c.t, c.start(ctx))
	ids = append(ids, c.repeat(ctx)...)
	c.settled(ctx, ids)
	require.NoError(c.t, c.proc.Stop(ctx))
}

// issuedOrDead waits for the certificate, and reports false when the program died first.
func (c *crashStage) issuedOrDead(ctx context.Context, id string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-c.proc.Died():
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := c.Version(ctx, id, "")
	return err == nil
}

// The one-process program is killed at every named instant of its work, and every order ends issued, once.
// In the gate a sample of the points is tried, drawn anew each run; the full check tries each of them.
func TestAKillAtEveryPointLosesAndDoublesNothing(t *testing.T) {
	c := newCrashStage(t)
	setup, points := c.record()
	require.Greater(t, len(points), 60, "the recording run hit too few points: %v", points)
	for _, wanted := range []string{"store.orders.update.before", "publish.order.issued.after", "call.acme.finalize.after", "call.keys.EnsureCSR.before"} {
		require.Contains(t, points, wanted)
	}
	tried := points
	if only := os.Getenv("CRASH_POINT"); only != "" { // to look at some
		tried = slices.DeleteFunc(tried, func(p string) bool { return !regexp.MustCompile(only).MatchString(p) })
		setup = nil
	} else if !full() {
		rand.Shuffle(len(tried), func(i, j int) { tried[i], tried[j] = tried[j], tried[i] })
		tried = tried[:8]
	}
	for _, p := range tried {
		began := time.Now()
		c.crashAt(p)
		t.Logf("%-55s %5.1f s", p, time.Since(began).Seconds())
		if t.Failed() {
			return
		}
	}
	t.Logf("killed at %d of %d points", len(tried), len(points))
	c.counted()
	if !full() && len(setup) > 2 {
		rand.Shuffle(len(setup), func(i, j int) { setup[i], setup[j] = setup[j], setup[i] })
		setup = setup[:2]
	}
	for _, p := range setup {
		t.Run("first start "+p, func(t *testing.T) { crashAtFirst(t, p) })
	}
}

// crashAtFirst kills a new program at a point of its first start, of what an administrator sets up, or of its first order.
func crashAtFirst(t *testing.T, point string) {
	c := newCrashStage(t)
	ctx := labtest.Deadline(t, 90*time.Second)
	if !c.start(ctx, "CERTWRIGHT_FAILPOINT_KILL="+point) {
		c.kills++
		require.True(t, c.start(ctx))
	}
	c.connect(ctx, 1)
	var ids []string
	if id, err := c.ask(ctx); err == nil {
		ids = append(ids, id)
	}
	if c.kills == 0 {
		select {
		case <-c.proc.Died():
		case <-time.After(20 * time.Second):
			require.Fail(t, "the point was never hit", point)
		}
		c.kills++
		require.True(t, c.start(ctx))
	}
	ids = append(ids, c.repeat(ctx)...)
	c.settled(ctx, ids)
	c.counted()
	require.NoError(t, c.proc.Stop(ctx))
}

// The program is killed at random moments while it works.
func TestKillsAtRandomMomentsLoseAndDoubleNothing(t *testing.T) {
	times := 5
	if full() {
		times = 50
	}
	c := newCrashStage(t)
	ctx := labtest.Deadline(t, time.Duration(times)*10*time.Second+2*time.Minute)
	require.True(t, c.start(ctx))
	c.connect(ctx, times)
	var ids []string
	for range times {
		if id, err := c.ask(ctx); err == nil {
			ids = append(ids, id)
		}
		c.pause(ctx, time.Duration(rand.IntN(900))*time.Millisecond)
		c.proc.Kill()
		c.kills++
		require.True(t, c.start(ctx))
		ids = append(ids, c.repeat(ctx)...)
		_, err := c.Version(ctx, ids[len(ids)-1], "") // one order in flight at a time: a kill may cost each one newOrder
		require.NoError(t, err)
	}
	c.settled(ctx, ids)
	c.counted()
}

// The program is stopped for three leases in the middle of its work and goes on.
func TestAStopOfThreeLeasesDoublesNothing(t *testing.T) {
	c := newCrashStage(t)
	ctx := labtest.Deadline(t, 2*time.Minute)
	require.True(t, c.start(ctx))
	c.connect(ctx, 4)
	var ids []string
	for range 4 {
		id, err := c.ask(ctx)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	c.pause(ctx, 30*time.Millisecond)
	require.NoError(t, c.proc.Signal(syscall.SIGSTOP))
	c.pause(ctx, 6*time.Second)
	require.NoError(t, c.proc.Signal(syscall.SIGCONT))
	c.settled(ctx, ids)
	c.kills += 4 // a call cut off by the stop counts like a kill for its order
	c.counted()
}

func full() bool { return strings.EqualFold(os.Getenv("FULL"), "1") }

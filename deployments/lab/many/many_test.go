package many_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/many"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

var (
	built    sync.Once
	buildDir string
	errBuild error
)

// programs builds every program once, unless MANY_BIN names a directory with programs that were built before.
func programs(t *testing.T) string {
	t.Helper()
	if !full() {
		t.Skip("building eleven programs and starting ten processes takes minutes: FULL=1 runs this (make check-full does)")
	}
	if dir := os.Getenv("MANY_BIN"); dir != "" {
		return dir
	}
	built.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		if buildDir, errBuild = os.MkdirTemp("", "certwright-bin-"); errBuild == nil {
			errBuild = many.Build(ctx, buildDir)
		}
	})
	require.NoError(t, errBuild)
	return buildDir
}

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

func full() bool { return os.Getenv("FULL") == "1" }

// world is a stage with a platform of many processes on it.
type world struct {
	*stage.Stage
	t    *testing.T
	form *many.Form

	issuer  string
	targets []string
	intents int
	kills   int
	cut     []*inventoryv1.CreateCertificateRequest // requests whose answer a kill cut off
}

func start(t *testing.T, o ca.Options, mongoURI string) *world {
	t.Helper()
	bin := programs(t)
	ctx := labtest.Deadline(t, 2*time.Minute)
	dir := t.TempDir()
	s, err := stage.Start(ctx, stage.Options{Dir: dir, CA: o, Without: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	began := time.Now()
	form, err := many.Start(ctx, many.Options{
		Bin: bin, Dir: filepath.Join(dir, "platform"), HTTP01Port: s.HTTP01Port, Roots: []string{dir}, MongoURI: mongoURI,
		Commands: map[string][]string{"reload-site": {labtest.Sitectl(t), "reload", s.Site.ControlAddr()}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, form.Close()) })
	t.Logf("ten processes and NATS ready after %.1f s", time.Since(began).Seconds())
	s.Platform = &platform.Platform{Client: form.Client}
	return &world{Stage: s, t: t, form: form}
}

func store(uri string) string {
	if uri == "" {
		return "SQLite"
	}
	return "MongoDB"
}

func TestEveryServiceAsAProcessOfItsOwn(t *testing.T) {
	uris := []string{""}
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		t.Setenv("MONGODB_URI", "") // each run is told by its own configuration
		uris = append(uris, uri)
	} else {
		t.Log("NOT RUN on MongoDB: MONGODB_URI is not set")
	}
	for _, uri := range uris {
		t.Run("a certificate's life on "+store(uri), func(t *testing.T) {
			w := start(t, ca.Options{Strict: true, NonceReject: 20}, uri)
			ctx := labtest.Deadline(t, 90*time.Second)
			for _, name := range many.Services() {
				require.NoError(t, w.form.Process(name).Ready(ctx))
				require.NoError(t, w.form.Process(name).Healthcheck(ctx))
			}
			target, err := w.Target(ctx, "web server")
			require.NoError(t, err)
			h, err := hammer.Start(ctx, hammer.Options{Addr: w.Site.Addr(), ServerName: "www." + stage.Zone, Roots: w.CA.Roots(), Workers: 1})
			require.NoError(t, err)
			t.Cleanup(func() { h.Stop() })
			require.NoError(t, many.Journey(ctx, w.Stage, "lab CA", target.GetId(), h.WaitServed, t.Logf))
			for _, name := range many.Services() {
				require.NoError(t, w.form.Process(name).Interrupt(ctx))
			}
		})
	}
}

// The permissions are enforced by the server: whatever a service holds, it cannot speak for another.
func TestAServicesUserCannotDoWhatAnothersMay(t *testing.T) {
	w := start(t, ca.Options{}, "")
	ctx := labtest.Deadline(t, 30*time.Second)

	_, err := natsgo.Connect(w.form.BusURL(), natsgo.RootCAs(filepath.Join(w.form.Made, "ca", "ca.pem")))
	require.ErrorIs(t, err, natsgo.ErrAuthorization, "without an nkey nobody comes in")
	_, err = natsgo.Connect(strings.Replace(w.form.BusURL(), "tls://", "nats://", 1), natsgo.Timeout(2*time.Second))
	require.Error(t, err, "nor without trust in the installation's CA")

	denied := make(chan error, 10)
	conn, err := w.form.Connect("dns", natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { denied <- err }))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for _, subject := range []string{
		"certwright.events.order.issued.ord_1", "certwright.events.certificate.issued.crt_1", "certwright.events.challenge.presented.chl_1",
		"$JS.API.STREAM.DELETE." + bus.Stream, "$JS.API.STREAM.PURGE." + bus.Stream, "$JS.API.CONSUMER.DELETE." + bus.Stream + ".orders-saga",
		"$JS.API.CONSUMER.MSG.NEXT." + bus.Stream + ".orders-saga", "$JS.ACK." + bus.Stream + ".orders-saga.1.1.1.1.0",
	} {
		require.NoError(t, conn.Publish(subject, []byte("{}")))
		require.NoError(t, conn.FlushWithContext(ctx))
		select {
		case err := <-denied:
			require.ErrorIs(t, err, natsgo.ErrPermissionViolation, subject)
		case <-ctx.Done():
			require.Fail(t, "not denied", subject)
		}
	}
	_, err = conn.SubscribeSync(bus.InboxPrefix("orders") + ".>")
	require.NoError(t, err)
	select {
	case err := <-denied:
		require.ErrorIs(t, err, natsgo.ErrPermissionViolation, "another's answers")
	case <-ctx.Done():
		require.Fail(t, "another's answers can be heard")
	}
	_, err = js.Publish(ctx, "certwright.events.dns.record_presented.rec_1", []byte("{}"))
	require.NoError(t, err, "its own facts it may tell")

	require.NoFileExists(t, filepath.Join(w.form.Made, "dns", "principal.key"), "only the gateway signs for people")
}

// The certificate says which service calls: what only orders may ask of keys, dns may not, and nobody may without a certificate.
func TestAServicesCertificateIsItsNameAndNoOther(t *testing.T) {
	w := start(t, ca.Options{}, "")
	ctx := labtest.Deadline(t, 30*time.Second)
	ask := func(as string) error {
		dir := filepath.Join(w.form.Made, as)
		_, identity, err := rpc.TLS(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.pem"))
		require.NoError(t, err)
		conn, err := rpc.Dial(w.form.Address("keys"), rpc.ClientOptions{Service: "keys", TLS: identity})
		require.NoError(t, err)
		defer conn.Close()
		_, err = keysv1.NewKeysServiceClient(conn).EnsureCSR(ctx, &keysv1.EnsureCSRRequest{})
		return err
	}
	require.Equal(t, errs.Invalid, errs.KindOf(ask("orders")), "the empty question of orders is heard")
	require.Equal(t, errs.Forbidden, errs.KindOf(ask("dns")))

	conn, err := rpc.Dial(w.form.Address("keys"), rpc.ClientOptions{Service: "keys", TLS: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}})
	require.NoError(t, err)
	defer conn.Close()
	_, err = keysv1.NewKeysServiceClient(conn).EnsureCSR(ctx, &keysv1.EnsureCSRRequest{})
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
}

// connect makes an issuer, a DNS account and a file target for each of so many certificates.
func (w *world) connect(ctx context.Context, certificates int) {
	w.t.Helper()
	issuer, err := w.Issuer(ctx, "lab CA")
	require.NoError(w.t, err)
	w.issuer = issuer.GetId()
	_, err = w.DNSAccount(ctx, "lab DNS")
	require.NoError(w.t, err)
	for n := range certificates {
		dir := filepath.Join(w.Dir, "served", fmt.Sprint(n))
		require.NoError(w.t, os.MkdirAll(dir, 0o700))
		out := &deployerv1.Target{}
		require.NoError(w.t, w.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{Target: &deployerv1.Target{
			DisplayName: fmt.Sprintf("files %d", n), Kind: "file",
			File: &deployerv1.FileTarget{Host: "local", FullchainPath: filepath.Join(dir, "fullchain.pem"), KeyPath: filepath.Join(dir, "key.pem"), Reload: "reload-site"},
		}}, out))
		w.targets = append(w.targets, out.GetId())
	}
}

// ask requests a certificate, by http-01 and dns-01 in turn. An answer that a kill cuts off is asked for again by repeat.
func (w *world) ask(ctx context.Context) (id string) {
	w.t.Helper()
	w.intents++
	name := fmt.Sprintf("r%d.%s", w.intents, stage.Zone)
	names, challenge := []string{name}, "http-01"
	if w.intents%2 == 0 {
		names, challenge = []string{name, "*." + name}, "dns-01"
	}
	in := &inventoryv1.CreateCertificateRequest{
		RequestId: fmt.Sprintf("intent-%d", w.intents), DeployTo: []string{w.targets[w.intents-1]}, Certificate: &inventoryv1.Certificate{
			Owner: "ops@shop.test", Spec: &typesv1.CertificateSpec{Issuer: w.issuer, Names: names, Challenge: &typesv1.ChallengeSpec{Type: challenge}},
		},
	}
	out := &inventoryv1.Certificate{}
	if err := w.Call(ctx, http.MethodPost, "/v1/certificates", in, out); err != nil {
		var refused *client.Error
		if errors.As(err, &refused) && refused.Status < 500 {
			require.NoError(w.t, err)
		}
		w.cut = append(w.cut, in)
	}
	return out.GetId()
}

// repeat asks again for what a kill cut off, until it is answered.
func (w *world) repeat(ctx context.Context) (ids []string) { return w.repeatUntil(ctx, nil) }

// repeatUntil gives up when died closes.
func (w *world) repeatUntil(ctx context.Context, died <-chan struct{}) (ids []string) {
	w.t.Helper()
	for len(w.cut) > 0 {
		out := &inventoryv1.Certificate{}
		err := w.Call(ctx, http.MethodPost, "/v1/certificates", w.cut[0], out)
		if err == nil {
			w.cut, ids = w.cut[1:], append(ids, out.GetId())
			continue
		}
		select {
		case <-died:
			return ids
		default:
			w.wait(ctx, 50*time.Millisecond, err.Error())
		}
	}
	return ids
}

// settled waits until every certificate is issued and deployed and no challenge is left.
func (w *world) settled(ctx context.Context, ids []string) {
	w.t.Helper()
	for _, id := range ids {
		if id == "" {
			continue
		}
		_, err := w.Version(ctx, id, "")
		require.NoError(w.t, err, "certificate %s\n%s", id, w.unfinished())
	}
	labtest.Eventually(ctx, w.t, func() (bool, string) {
		left := w.DNS.Snapshot()
		return len(left) == 0, fmt.Sprintf("challenge records are left: %v", left)
	})
	labtest.Eventually(ctx, w.t, func() (bool, string) {
		out := &deployerv1.ListBindingsResponse{}
		if err := w.Call(ctx, http.MethodGet, "/v1/bindings?pageSize=1000", nil, out); err != nil {
			return false, err.Error()
		}
		for _, b := range out.GetBindings() {
			if b.GetServedVersionId() == "" || b.GetServedVersionId() != b.GetDesiredVersionId() {
				return false, fmt.Sprintf("binding %s serves %q, meant is %q", b.GetId(), b.GetServedVersionId(), b.GetDesiredVersionId())
			}
		}
		return len(out.GetBindings()) >= min(w.intents, 1000), fmt.Sprintf("%d bindings", len(out.GetBindings()))
	})
}

// unfinished is what there is to say of a failure: the CA's view of the orders that it did not finalize, and the end of the orders process's log.
func (w *world) unfinished() string {
	var out strings.Builder
	for _, o := range w.CA.Orders() {
		if !o.Finalized {
			fmt.Fprintf(&out, "the CA has: %+v\n", o)
		}
	}
	return out.String() + w.form.Process("orders").Log()
}

func (w *world) counted() {
	w.t.Helper()
	require.Equal(w.t, w.intents, many.Finalized(w.Stage), "orders finalized at the CA = intents")
	require.LessOrEqual(w.t, w.CA.Counts().Of(ca.NewOrder).Succeeded, w.intents+w.kills, "newOrders ≤ intents + kills")
}

func (w *world) wait(ctx context.Context, d time.Duration, why string) {
	select {
	case <-ctx.Done():
		require.Fail(w.t, "not in time", why)
	case <-time.After(d):
	}
}

// record runs the scenario once and returns every fail point of the orders process.
func (w *world) record(ctx context.Context) []string {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "points")
	orders := w.form.Process("orders")
	require.NoError(w.t, orders.Interrupt(ctx))
	require.NoError(w.t, orders.Start(ctx, "CERTWRIGHT_FAILPOINT_LOG="+file))
	w.settled(ctx, []string{w.ask(ctx), w.ask(ctx)})
	w.wait(ctx, 4*time.Second, "sent entries are cleared after three sync intervals")
	require.NoError(w.t, orders.Interrupt(ctx))
	f, err := os.Open(file)
	require.NoError(w.t, err)
	defer f.Close()
	var points []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !slices.Contains(points, lines.Text()) {
			points = append(points, lines.Text())
		}
	}
	// What only a first certificate does is not met again: the lab's one-process crash test kills there.
	points = slices.DeleteFunc(points, func(p string) bool {
		return strings.Contains(p, ".accounts.") || strings.Contains(p, "acme.newAccount")
	})
	slices.Sort(points)
	return points
}

// The orders process alone is killed at every named instant of its work, while the others go on; every order ends issued, once.
// MANY_POINTS=n tries n points drawn at random instead of all; names, separated by spaces, try these.
func TestAKillOfOrdersAtEveryPointLosesAndDoublesNothing(t *testing.T) {
	w := start(t, ca.Options{Strict: true, NonceReject: 20}, "")
	ctx := labtest.Deadline(t, 2*time.Minute)
	w.connect(ctx, 200)
	points := w.record(ctx)
	for _, wanted := range []string{"store.orders.update.before", "publish.order.issued.after", "call.acme.finalize.after", "call.keys.EnsureCSR.before"} {
		require.Contains(t, points, wanted)
	}
	tried := slices.Clone(points)
	if wanted := os.Getenv("MANY_POINTS"); wanted != "" {
		if n, err := strconv.Atoi(wanted); err == nil {
			rand.Shuffle(len(tried), func(i, j int) { tried[i], tried[j] = tried[j], tried[i] })
			tried = tried[:min(n, len(tried))]
		} else {
			tried = strings.Fields(wanted)
		}
	}
	orders := w.form.Process("orders")
	for _, point := range tried {
		began := time.Now()
		ctx := labtest.Deadline(t, 90*time.Second)
		var ids []string
		switch err := orders.Start(ctx, "CERTWRIGHT_FAILPOINT_KILL="+point); {
		case err == nil:
			ids = append(ids, w.ask(ctx), w.ask(ctx))
			ids = append(ids, w.repeatUntil(ctx, orders.Died())...) // right after a start of orders the others may not have connected again
			select {
			case <-orders.Died():
			case <-time.After(20 * time.Second):
				require.Fail(t, "the point was never hit", "%s\n%s", point, w.unfinished())
			}
		default:
			require.ErrorIs(t, err, many.ErrDied)
		}
		w.kills++
		require.NoError(t, orders.Start(ctx))
		w.settled(ctx, append(ids, w.repeat(ctx)...))
		require.NoError(t, orders.Interrupt(ctx))
		t.Logf("%-50s %4.1f s", point, time.Since(began).Seconds())
	}
	w.counted()
	t.Logf("killed at %d of %d points of the orders process; %d orders, each finalized once", len(tried), len(points), w.intents)
}

// MANY_KILLS=n kills n times instead of 50.
func TestKillsOfOrdersAtRandomMomentsLoseAndDoubleNothing(t *testing.T) {
	times := 50
	if os.Getenv("MANY_KILLS") != "" {
		_, err := fmt.Sscan(os.Getenv("MANY_KILLS"), &times)
		require.NoError(t, err)
	}
	w := start(t, ca.Options{Strict: true, NonceReject: 20}, "")
	ctx := labtest.Deadline(t, time.Duration(times)*10*time.Second+2*time.Minute)
	w.connect(ctx, 2*times)
	var ids []string
	for range times {
		ids = append(ids, w.ask(ctx), w.ask(ctx))
		w.wait(ctx, time.Duration(rand.IntN(900))*time.Millisecond, "")
		w.form.Process("orders").Kill()
		w.kills++
		require.NoError(t, w.form.Process("orders").Start(ctx))
		ids = append(ids, w.repeat(ctx)...)
	}
	w.settled(ctx, ids)
	w.counted()
	t.Logf("killed %d times; %d orders, each finalized once", w.kills, w.intents)
}

// Two orders processes on the same SQLite file and key share the work without a double, and without the one that is killed in the middle of it.
func TestTwoProcessesOnTheSameFilesShareTheWork(t *testing.T) {
	const orders = 60
	w := start(t, ca.Options{Strict: true}, "")
	ctx := labtest.Deadline(t, 3*time.Minute)
	w.connect(ctx, 2*orders)
	second, err := w.form.Replica(ctx, "orders")
	require.NoError(t, err)
	ids := make([]string, orders)
	for i := range ids {
		ids[i] = w.ask(ctx)
	}
	w.settled(ctx, ids)
	w.counted()
	require.Equal(t, orders, w.CA.Counts().Of(ca.NewOrder).Succeeded, "no order was opened twice")
	first, other := stepped(t, w.form.Process("orders")), stepped(t, second)
	t.Logf("%d orders; steps: %v and %v", orders, first, other)
	require.NotZero(t, first, "the first process did nothing")
	require.NotZero(t, other, "the second process did nothing")

	for i := range ids {
		ids[i] = w.ask(ctx)
		if i == orders/2 {
			w.form.Process("orders").Kill()
			w.kills += orders // each order that the killed process had in hand may be opened once more
		}
	}
	// The first process answers the calls of the others; the work itself goes on in the second alone.
	require.NoError(t, w.form.Process("orders").Start(ctx))
	w.settled(ctx, append(ids, w.repeat(ctx)...))
	w.counted()
}

// stepped is how often the order worker of a process did a step, from its /metrics.
func stepped(t *testing.T, p *many.Process) (n float64) {
	t.Helper()
	resp, err := http.Get("http://" + p.Health + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "certwright_worker_steps_total{") && strings.Contains(line, `worker="orders"`) {
			var v float64
			_, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v)
			require.NoError(t, err)
			n += v
		}
	}
	return n
}

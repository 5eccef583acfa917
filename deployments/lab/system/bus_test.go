package system_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/outbox"
)

// wire stands between every service and the bus. It knows of which certificate each fact speaks, and loses, doubles or delays facts, or lets something
// happen at the moment when one is told.
type wire struct {
	mu       sync.Mutex
	conn     *nats.Conn
	families map[string]string   // the first name of the certificate, by every id (without prefix) that belongs to it
	told     map[string][]string // types in the order of their first telling, by family
	rules    []*rule
	deaf     []string  // types that are lost, again and again
	again    time.Time // when a fact was last told again
	repeats  []string
	scatter  atomic.Bool // every fact comes twice, each time after a moment of its own
	under    sync.WaitGroup
}

// rule is what happens once, when the first fact of a type is told of a family.
type rule struct {
	family, event string
	lose          bool   // as if the bus had taken it and forgotten
	before, after func() // may be nil
	hit           chan struct{}
}

func newWire() *wire {
	return &wire{families: map[string]string{}, told: map[string][]string{}}
}

// change puts the wire into a platform.
func (w *wire) change(cfg *certwright.Config) {
	cfg.Bus = func(c *nats.Conn) { w.conn = c }
	cfg.Publisher = func(_ string, next outbox.Publisher) outbox.Publisher { return &tap{Publisher: next, wire: w} }
}

// on adds a rule; its hit is closed when it was used.
func (w *wire) on(r rule) *rule {
	r.hit = make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = append(w.rules, &r)
	return &r
}

// used waits until the rule has met its fact.
func (r *rule) used(ctx context.Context, t *testing.T) {
	t.Helper()
	select {
	case <-r.hit:
	case <-ctx.Done():
		require.Fail(t, "the fact was never told", "%s of %s", r.event, r.family)
	}
}

// longest is a little more than the longest wait between two repeats of a hasty platform.
const longest = 3300 * time.Millisecond

// quiet waits until nothing was told again for as long as the longest wait between two repeats: nobody waits for an answer any more.
func (w *wire) quiet(ctx context.Context, t *testing.T) {
	t.Helper()
	begun := time.Now()
	for {
		w.mu.Lock()
		last, repeats := w.again, slices.Clone(w.repeats)
		w.mu.Unlock()
		if last.Before(begun) {
			last = begun
		}
		rest := longest - time.Since(last)
		if rest <= 0 {
			return
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			require.Fail(t, "somebody still waits for an answer", "told again: %v", repeats[max(0, len(repeats)-10):])
		}
	}
}

// deafen loses every fact of these types from now on, told again or not; none: nothing any more.
func (w *wire) deafen(types ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = types
}

// forget begins anew with the list of what was told of a family.
func (w *wire) forget(family string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.told, family)
}

// types lists what was told of a family, in the order of its first telling.
func (w *wire) types(family string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told[family])
}

// wipe deletes every stream with its consumers.
func (w *wire) wipe(t *testing.T) {
	js, err := jetstream.New(w.conn)
	if err != nil {
		t.Error(err)
		return
	}
	for _, name := range []string{bus.Stream, bus.DeadStream, bus.AdvisoryStream} {
		if err := js.DeleteStream(t.Context(), name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Error(err)
		}
	}
}

var (
	ids     = regexp.MustCompile(`\b(crt|ord|ver|key|chl|dep|bnd)_[0-9A-Z]{26}`)
	named   = regexp.MustCompile(`"names":\s*\["([^"]+)"`)
	isAgain = regexp.MustCompile(`~\d+$`)
)

// judge books a fact and finds the rule that it meets.
func (w *wire) judge(e docstore.Entry) *rule {
	w.mu.Lock()
	defer w.mu.Unlock()
	event := e.Headers["ce-type"]
	if isAgain.MatchString(e.MsgID) {
		w.again = time.Now()
		w.repeats = append(w.repeats, event+" "+e.MsgID)
	}
	found := ids.FindAllString(e.Subject+" "+string(e.Data), -1)
	for i := range found {
		found[i] = found[i][4:] // what is derived from an order differs in its prefix alone
	}
	family := ""
	for _, id := range found {
		if f, ok := w.families[id]; ok {
			family = f
		}
	}
	if name := named.FindSubmatch(e.Data); family == "" && name != nil {
		family = string(name[1])
	}
	if slices.Contains(w.deaf, event) {
		return &rule{lose: true, hit: make(chan struct{})}
	}
	if family == "" {
		return nil
	}
	for _, id := range found {
		w.families[id] = family
	}
	if !slices.Contains(w.told[family], event) {
		w.told[family] = append(w.told[family], event)
	}
	for i, r := range w.rules {
		if r.family == family && r.event == event {
			w.rules = slices.Delete(w.rules, i, i+1)
			return r
		}
	}
	return nil
}

// tap is the wire of one service.
type tap struct {
	outbox.Publisher
	wire *wire
}

// Publish implements outbox.Publisher.
func (p *tap) Publish(ctx context.Context, entries ...docstore.Entry) error {
	for _, e := range entries {
		r := p.wire.judge(e)
		if r != nil && r.before != nil {
			r.before()
		}
		var err error
		switch {
		case r != nil && r.lose:
		case p.wire.scatter.Load():
			p.twice(ctx, e)
		default:
			err = p.Publisher.Publish(ctx, e)
		}
		if r != nil {
			if r.after != nil {
				r.after()
			}
			close(r.hit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// twice publishes a fact and its double, each when it comes.
func (p *tap) twice(ctx context.Context, e docstore.Entry) {
	ctx = context.WithoutCancel(ctx)
	double := e
	double.MsgID += "~double"
	for _, copied := range []docstore.Entry{e, double} {
		p.wire.under.Go(func() {
			time.Sleep(rand.N(250 * time.Millisecond))
			_ = p.Publisher.Publish(ctx, copied) // fails after the end of the platform
		})
	}
}

// wired starts a stage with a wire, a DNS account and channels.
func wired(t *testing.T, o ca.Options, change func(*certwright.Config)) (*stage.Stage, *ordersv1.Issuer, *wire) {
	t.Helper()
	w := newWire()
	s, issuer := start(t, stage.Options{CA: o, Change: func(cfg *certwright.Config) {
		hasty(cfg)
		cfg.Timing.Heal = time.Minute // what is shown here is that facts and answers suffice
		w.change(cfg)
		if change != nil {
			change(cfg)
		}
	}})
	ctx := labtest.Deadline(t, time.Minute)
	_, err := s.DNSAccount(ctx, "lab DNS")
	require.NoError(t, err)
	require.NoError(t, s.Channels(ctx))
	return s, issuer, w
}

// together runs sub-tests at the same time, however few processors there are, and reports whether all passed.
func together(t *testing.T, names []string, f func(t *testing.T, i int)) bool {
	t.Helper()
	var running sync.WaitGroup
	for i, name := range names {
		running.Go(func() { t.Run(name, func(t *testing.T) { f(t, i) }) })
	}
	running.Wait()
	return !t.Failed()
}

// until polls a condition, which says what it still misses.
func until(ctx context.Context, t *testing.T, f func() (missing string)) {
	t.Helper()
	for {
		missing := f()
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			require.Fail(t, "not in time", missing)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// list reads a list filtered by one term into out and returns what went wrong.
func list(ctx context.Context, s *stage.Stage, path, filter string, out proto.Message) string {
	if err := s.Call(ctx, http.MethodGet, path+"?pageSize=1000&filter="+url.QueryEscape(filter), nil, out); err != nil {
		return err.Error()
	}
	return ""
}

// ownFiles makes a target of its own: files in a directory, without a server.
func ownFiles(ctx context.Context, t *testing.T, s *stage.Stage, name string) string {
	t.Helper()
	dir := filepath.Join(s.Dir, "served", name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	target := &deployerv1.Target{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{Target: &deployerv1.Target{
		DisplayName: "files of " + name, Kind: "file", File: &deployerv1.FileTarget{
			Host: "local", FullchainPath: filepath.Join(dir, "fullchain.pem"), KeyPath: filepath.Join(dir, "key.pem"),
		},
	}}, target))
	return target.GetId()
}

// served waits until every binding of the certificate serves its current version.
func served(ctx context.Context, t *testing.T, s *stage.Stage, certificate string, bindings int) {
	t.Helper()
	until(ctx, t, func() string {
		c, err := s.Certificate(ctx, certificate)
		if err != nil {
			return err.Error()
		}
		out := &deployerv1.ListBindingsResponse{}
		if wrong := list(ctx, s, "/v1/bindings", "certificate="+certificate, out); wrong != "" {
			return wrong
		}
		if len(out.GetBindings()) != bindings {
			return fmt.Sprintf("%d of %d bindings are there", len(out.GetBindings()), bindings)
		}
		for _, b := range out.GetBindings() {
			if want := c.GetCurrentVersion().GetFacts().GetVersionId(); b.GetServedVersionId() != want {
				return fmt.Sprintf("binding %s serves %q, current is %q", b.GetId(), b.GetServedVersionId(), want)
			}
		}
		return ""
	})
}

// rested waits until nothing of a certificate is under way: its orders are over, their challenges cleaned up, no key waits for a version, no deployment runs.
func rested(ctx context.Context, t *testing.T, s *stage.Stage, certificate string) {
	t.Helper()
	until(ctx, t, func() string {
		orders := &ordersv1.ListOrdersResponse{}
		if wrong := list(ctx, s, "/v1/orders", "certificate="+certificate, orders); wrong != "" {
			return wrong
		}
		for _, o := range orders.GetOrders() {
			if !slices.Contains([]string{"issued", "failed", "rejected", "cancelled"}, o.GetState()) {
				return fmt.Sprintf("order %s is %s (%v)", o.GetId(), o.GetState(), o.GetBlocked())
			}
			made := &challengesv1.ListChallengesResponse{}
			if err := s.Call(ctx, http.MethodGet, "/v1/orders/"+o.GetId()+"/challenges", nil, made); err != nil {
				return err.Error()
			}
			for _, c := range made.GetChallenges() {
				if c.GetState() != "cleaned" {
					return fmt.Sprintf("challenge %s is %s", c.GetId(), c.GetState())
				}
			}
		}
		keys := &keysv1.ListKeysResponse{}
		if wrong := list(ctx, s, "/v1/keys", "certificate="+certificate, keys); wrong != "" {
			return wrong
		}
		for _, k := range keys.GetKeys() {
			if k.GetState() == "pre_active" {
				return fmt.Sprintf("key %s of order %s waits for a version", k.GetId(), k.GetOrderId())
			}
		}
		deployments := &deployerv1.ListDeploymentsResponse{}
		if wrong := list(ctx, s, "/v1/deployments", "certificate="+certificate, deployments); wrong != "" {
			return wrong
		}
		for _, d := range deployments.GetDeployments() {
			if d.GetState() != "succeeded" && d.GetState() != "superseded" {
				return fmt.Sprintf("deployment %s is %s (%v)", d.GetId(), d.GetState(), d.GetProblem())
			}
		}
		return ""
	})
}

// renew asks for a new version.
func renew(ctx context.Context, t *testing.T, s *stage.Stage, certificate string) {
	t.Helper()
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+certificate+":renew", &inventoryv1.RenewCertificateRequest{}, nil))
}

// revoke revokes the current version now.
func revoke(ctx context.Context, s *stage.Stage, certificate string, replace bool) error {
	return s.Call(ctx, http.MethodPost, "/v1/certificates/"+certificate+":revoke", &inventoryv1.RevokeCertificateRequest{
		Reason: "superseded", Now: true, NoReplacement: !replace,
	}, nil)
}

// versionIs waits until a version has the state.
func versionIs(ctx context.Context, t *testing.T, s *stage.Stage, certificate, version, state string) {
	t.Helper()
	require.NoError(t, stage.Until(ctx, s, "/v1/certificates/"+certificate+"/versions", &inventoryv1.ListVersionsResponse{}, func(l *inventoryv1.ListVersionsResponse) bool {
		return slices.ContainsFunc(l.GetVersions(), func(v *inventoryv1.Version) bool {
			return v.GetFacts().GetVersionId() == version && v.GetState() == state
		})
	}))
}

// finalized counts the orders with this name that the CA has finalized.
func finalized(s *stage.Stage, name string) (n int) {
	for _, o := range s.CA.Orders() {
		if o.Finalized && slices.Contains(o.Names, name) {
			n++
		}
	}
	return n
}

// messages counts the mails, and the posts to the webhook, that tell one event type of one document.
func messages(t *testing.T, s *stage.Stage, event, subject string) (mails, posts int) {
	t.Helper()
	for _, m := range s.Mail.Messages() {
		parsed, err := m.Parse()
		require.NoError(t, err)
		if parsed.Header.Get("X-Certwright-Event-Type") == event && strings.HasPrefix(parsed.Header.Get("X-Certwright-Event"), subject+"-") {
			mails++
		}
	}
	for _, d := range s.Hook.Deliveries() {
		if strings.Contains(string(d.Body), fmt.Sprintf("%q", event)) && strings.Contains(string(d.Body), subject) {
			posts++
		}
	}
	return mails, posts
}

// toldOnce waits until one mail and one post tell the event; whoever calls it at the end sees too that no second one came.
func toldOnce(ctx context.Context, t *testing.T, s *stage.Stage, event, subject string) {
	t.Helper()
	until(ctx, t, func() string {
		if mails, posts := messages(t, s, event, subject); mails == 0 || posts == 0 {
			return fmt.Sprintf("%s of %s: %d mails, %d posts", event, subject, mails, posts)
		}
		return ""
	})
	mails, posts := messages(t, s, event, subject)
	require.Equal(t, []int{1, 1}, []int{mails, posts}, "mails and posts of %s of %s", event, subject)
}

// gone waits until the certificate is deleted.
func gone(ctx context.Context, t *testing.T, s *stage.Stage, certificate string) {
	t.Helper()
	until(ctx, t, func() string {
		c, err := s.Certificate(ctx, certificate)
		var refused *client.Error
		if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		if c.GetState() != "deleted" {
			return "the certificate is " + c.GetState()
		}
		return ""
	})
}

// The whole bus, streams and consumers, is deleted in the middle of the work, and nothing is lost and no service restarted.
func TestTheBusIsDeletedInTheMiddleOfTheWork(t *testing.T) {
	t.Parallel()
	s, issuer, w := wired(t, ca.Options{Strict: true}, nil)
	ctx := labtest.Deadline(t, 4*time.Minute)
	const issue, renewal, revocation = "issue", "renewal", "revocation"
	rows := []struct {
		name, event, work string
		heard             bool // the fact that is told at that moment was delivered to the bus before
	}{
		{"after the request, before the order", "certificate.requested", issue, true},
		{"after an authorization was asked for", "order.authorization_required", issue, false},
		{"after a challenge was presented", "challenge.presented", issue, false},
		{"between order.issued and certificate.issued", "order.issued", issue, false},
		{"between certificate.renewed and the deployment", "certificate.renewed", renewal, true},
		{"between version_added and the deployment", "certificate.version_added", renewal, false},
		{"after a revocation was asked for", "certificate.revocation_requested", revocation, false},
	}
	if full() {
		for _, r := range slices.Clone(rows) {
			r.name += ", the other way"
			r.heard = !r.heard
			rows = append(rows, r)
		}
	}
	var issued []string
	for i, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			names := []string{fmt.Sprintf("deployed%d.shop.test", i), fmt.Sprintf("dns%d.shop.test", i), fmt.Sprintf("http%d.shop.test", i)}
			deleted := rule{family: names[0], event: r.event, lose: !r.heard, after: func() { w.wipe(t) }}
			var at *rule
			if r.work == issue {
				at = w.on(deleted)
			}
			made := make([]*inventoryv1.Certificate, len(names))
			for n, name := range names {
				var targets []string
				if n == 0 {
					targets = []string{ownFiles(ctx, t, s, name)}
				}
				var err error
				made[n], err = s.Request(ctx, issuer.GetId(), []string{"http-01", "dns-01", "http-01"}[n], targets, name)
				require.NoError(t, err)
			}
			before := make([]string, len(names))
			settled := func() {
				t.Helper()
				for n, c := range made {
					got, err := s.Version(ctx, c.GetId(), before[n])
					require.NoError(t, err, names[n])
					before[n] = got.GetCurrentVersion().GetFacts().GetVersionId()
					planned(ctx, t, s, c.GetId(), before[n])
					served(ctx, t, s, c.GetId(), map[bool]int{true: 1}[n == 0])
					rested(ctx, t, s, c.GetId())
				}
				clean(ctx, t, s)
			}
			settled()
			intents := 1
			if r.work != issue {
				at = w.on(deleted)
			}
			switch r.work {
			case renewal:
				intents = 2
				for _, c := range made {
					renew(ctx, t, s, c.GetId())
				}
				settled()
			case revocation:
				for n, c := range made {
					require.NoError(t, revoke(ctx, s, c.GetId(), false))
					versionIs(ctx, t, s, c.GetId(), before[n], "revoked")
				}
			}
			at.used(ctx, t)
			for n, name := range names {
				require.Equal(t, intents, finalized(s, name), "orders of %s finalized at the CA", name)
				toldOnce(ctx, t, s, "certificate.issued", made[n].GetId())
				issued = append(issued, made[n].GetId())
			}
		})
	}
	w.quiet(ctx, t)
	for _, c := range issued {
		toldOnce(ctx, t, s, "certificate.issued", c)
	}
}

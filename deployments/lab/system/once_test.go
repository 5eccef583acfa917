package system_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/shared/clock"
)

// saga is one certificate's way on a wired stage that many share.
type saga struct {
	*stage.Stage
	w       *wire
	t       *testing.T
	ctx     context.Context
	issuer  string
	name    string // first name of the certificate, and its family on the wire
	event   string // type of the fact that is lost
	lost    *rule
	made    *inventoryv1.Certificate
	version string // the current one
	mails   [][2]string
}

// lose loses the first telling of the fact from now on.
func (g *saga) lose() {
	g.lost = g.w.on(rule{family: g.name, event: g.event, lose: true})
}

// ask requests the certificate.
func (g *saga) ask(challenge string) {
	g.t.Helper()
	var err error
	g.made, err = g.Request(g.ctx, g.issuer, challenge, []string{ownFiles(g.ctx, g.t, g.Stage, g.name)}, g.name)
	require.NoError(g.t, err)
}

// issued waits until the certificate has another version than before, planned and deployed.
func (g *saga) issued(kind string) {
	g.t.Helper()
	got, err := g.Version(g.ctx, g.made.GetId(), g.version)
	require.NoError(g.t, err)
	g.version = got.GetCurrentVersion().GetFacts().GetVersionId()
	planned(g.ctx, g.t, g.Stage, g.made.GetId(), g.version)
	g.plan("planned")
	served(g.ctx, g.t, g.Stage, g.made.GetId(), 1)
	g.mail(kind, g.made.GetId())
}

// plan waits until inventory has heard what renewals does about the intent.
func (g *saga) plan(state string) {
	g.t.Helper()
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/certificates/"+g.made.GetId(), &inventoryv1.Certificate{}, func(c *inventoryv1.Certificate) bool {
		return c.GetRenewal().GetState() == state
	}))
}

// outcome waits until the intent has ended in this way.
func (g *saga) outcome(want string) {
	g.t.Helper()
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/certificates/"+g.made.GetId(), &inventoryv1.Certificate{}, func(c *inventoryv1.Certificate) bool {
		return c.GetIntent().GetOutcome() == want
	}))
}

// keys waits until all keys of the certificate have this state.
func (g *saga) keys(want string) {
	g.t.Helper()
	until(g.ctx, g.t, func() string {
		out := &keysv1.ListKeysResponse{}
		if wrong := list(g.ctx, g.Stage, "/v1/keys", "certificate="+g.made.GetId(), out); wrong != "" {
			return wrong
		}
		for _, k := range out.GetKeys() {
			if k.GetState() != want {
				return fmt.Sprintf("key %s is %s, not %s", k.GetId(), k.GetState(), want)
			}
		}
		return ""
	})
}

// mail remembers that one mail and one post have to tell the event.
func (g *saga) mail(event, subject string) { g.mails = append(g.mails, [2]string{event, subject}) }

func (g *saga) order() string { return g.made.GetIntent().GetOrderId() }

func (g *saga) blocked(reason string) {
	g.t.Helper()
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/orders/"+g.order(), &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetBlocked().GetReason() == reason }))
}

func (g *saga) remove() {
	g.t.Helper()
	require.NoError(g.t, g.Call(g.ctx, http.MethodDelete, "/v1/certificates/"+g.made.GetId(), nil, nil))
	gone(g.ctx, g.t, g.Stage, g.made.GetId())
}

func issueBy(challenge string) func(*saga) {
	return func(g *saga) {
		g.lose()
		g.ask(challenge)
		g.issued("certificate.issued")
		g.keys("active")
	}
}

// renewBySchedule has renewals ask for the version, because the CA suggests it.
func renewBySchedule(g *saga) {
	g.ask("http-01")
	g.issued("certificate.issued")
	g.lose()
	for _, o := range g.CA.Orders() {
		if slices.Contains(o.Names, g.name) {
			past := time.Now().Add(-time.Hour)
			require.NoError(g.t, g.CA.SetRenewalInfo(o.Serial, ca.Window{Start: past.Add(-time.Hour), End: past}))
		}
	}
	g.issued("certificate.renewed")
}

func failAtTheCA(g *saga) {
	g.lose()
	g.CA.Inject(ca.Fault{Match: ca.All(ca.On(ca.Certificate), ca.Naming(g.name)), Do: ca.SwapCertificate(func(original []byte) []byte {
		swapped, err := ca.ForeignChain(original)
		if err != nil {
			return original
		}
		return swapped
	})})
	g.ask("http-01")
	g.outcome("failed")
	g.plan("planned")
	g.keys("destroyed")
	g.mail("order.failed", g.order())
}

func cancelByUser(g *saga) {
	g.lose()
	g.CA.Inject(ca.Fault{Match: ca.All(ca.On(ca.NewOrder), ca.Naming(g.name)), Do: ca.Unavailable(time.Second)})
	g.ask("http-01")
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/orders/"+g.order(), &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetKeyId() != "" }))
	require.NoError(g.t, g.Call(g.ctx, http.MethodPost, "/v1/orders/"+g.order()+":cancel", &ordersv1.CancelOrderRequest{}, nil))
	g.outcome("cancelled")
	g.plan("held")
	g.keys("destroyed")
	g.mail("renewal.held", g.made.GetId())
}

// editMeanwhile adds a name while the order cannot go on.
func editMeanwhile(g *saga) {
	g.lose()
	hold := g.CA.Inject(ca.Fault{Match: ca.All(ca.On(ca.NewOrder), ca.Naming(g.name)), Do: ca.Unavailable(time.Second)})
	g.ask("http-01")
	names := []string{g.name, "also-" + g.name}
	require.NoError(g.t, g.Call(g.ctx, http.MethodPatch, "/v1/certificates/"+g.made.GetId(), &inventoryv1.UpdateCertificateRequest{
		Certificate: &inventoryv1.Certificate{Spec: &typesv1.CertificateSpec{Names: names}},
	}, nil))
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/orders/"+g.order(), &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetState() == "cancelled" }))
	hold.Lift()
	g.issued("certificate.issued")
	got, err := g.Certificate(g.ctx, g.made.GetId())
	require.NoError(g.t, err)
	require.ElementsMatch(g.t, names, got.GetCurrentVersion().GetFacts().GetNames())
}

// cannotBePresented wants a record in a zone that no account covers.
func cannotBePresented(g *saga) {
	g.name = strings.Replace(g.name, stage.Zone, "elsewhere.test", 1)
	g.lose()
	g.ask("dns-01")
	g.blocked("DNS_NO_ACCOUNT")
	g.remove()
	g.keys("destroyed")
}

func revokeIt(g *saga) {
	g.ask("http-01")
	g.issued("certificate.issued")
	g.lose()
	require.NoError(g.t, revoke(g.ctx, g.Stage, g.made.GetId(), false))
	versionIs(g.ctx, g.t, g.Stage, g.made.GetId(), g.version, "revoked")
	g.mail("certificate.version_revoked", g.made.GetId())
}

// deleteWhileFinalizing deletes the certificate when it is too late to cancel: the version that still comes is refused.
func deleteWhileFinalizing(g *saga) {
	g.lose()
	hold := g.CA.Inject(ca.Fault{Match: ca.All(ca.On(ca.Finalize), ca.Naming(g.name)), Do: ca.Hang()})
	g.ask("http-01")
	until(g.ctx, g.t, func() string {
		if hold.Hits() == 0 {
			return "finalize was not sent"
		}
		return ""
	})
	g.remove()
	hold.Lift()
	require.NoError(g.t, stage.Until(g.ctx, g.Stage, "/v1/orders/"+g.order(), &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetState() == "issued" }))
	g.keys("destroyed")
}

// Each answer that somebody waits for, and each question, is lost once as if the bus had forgotten it: the saga ends all the same, and people are told once.
func TestEachAnswerIsLostOnce(t *testing.T) {
	t.Parallel()
	s, issuer, w := wired(t, ca.Options{RenewalRetryAfter: time.Second}, nil)
	ctx := labtest.Deadline(t, 90*time.Second)
	rows := []struct {
		event string
		way   func(*saga)
	}{
		{"order.accepted", issueBy("http-01")},
		{"order.issued", issueBy("http-01")},
		{"order.failed", failAtTheCA},
		{"order.cancelled", cancelByUser},
		{"renewal.planned", issueBy("http-01")},
		{"renewal.held", cancelByUser},
		{"revocation.done", revokeIt},
		{"certificate.version_added", issueBy("http-01")},
		{"certificate.version_refused", deleteWhileFinalizing},
		{"challenge.presented", issueBy("http-01")},
		{"challenge.failed", cannotBePresented},
		{"dns.record_presented", issueBy("dns-01")},
		{"dns.record_failed", cannotBePresented},
		{"dns.record_removed", issueBy("dns-01")},
		{"order.authorization_closed", issueBy("http-01")},
		{"certificate.intent_closed", renewBySchedule},
		// the questions
		{"certificate.requested", issueBy("http-01")},
		{"certificate.spec_changed", editMeanwhile},
		{"certificate.revocation_requested", revokeIt},
		{"order.authorization_required", issueBy("http-01")},
		{"challenge.record_wanted", issueBy("dns-01")},
		{"challenge.record_unwanted", issueBy("dns-01")},
	}
	names, sagas := make([]string, len(rows)), make([]*saga, len(rows))
	for i, r := range rows {
		names[i] = r.event
	}
	if !together(t, names, func(t *testing.T, i int) {
		g := &saga{Stage: s, w: w, t: t, ctx: ctx, issuer: issuer.GetId(), name: fmt.Sprintf("a%d.%s", i, stage.Zone), event: rows[i].event}
		sagas[i] = g
		rows[i].way(g)
		g.lost.used(ctx, t)
		rested(ctx, t, s, g.made.GetId())
	}) {
		return
	}
	t.Run("revocation.failed", func(t *testing.T) {
		g := &saga{Stage: s, w: w, t: t, ctx: ctx, issuer: issuer.GetId(), name: "refused." + stage.Zone, event: "revocation.failed"}
		g.ask("http-01")
		g.issued("certificate.issued")
		g.lose()
		f := s.CA.Inject(ca.Fault{Match: ca.On(ca.RevokeCert), Do: ca.Refuse(http.StatusForbidden, "unauthorized", "not yours", 0)})
		defer f.Lift()
		require.NoError(t, revoke(ctx, s, g.made.GetId(), false))
		versionIs(ctx, t, s, g.made.GetId(), g.version, "current")
		until(ctx, t, func() string {
			c, err := s.Certificate(ctx, g.made.GetId())
			if err != nil {
				return err.Error()
			}
			if !slices.ContainsFunc(c.GetFindings(), func(f *inventoryv1.Finding) bool { return f.GetReason() == "REVOCATION_REFUSED" }) {
				return fmt.Sprintf("findings: %v", c.GetFindings())
			}
			return ""
		})
		g.lost.used(ctx, t)
		g.mail("certificate.revocation_failed", g.made.GetId())
		sagas = append(sagas, g)
	})
	w.quiet(ctx, t)
	clean(ctx, t, s)
	for _, g := range sagas {
		for _, m := range g.mails {
			toldOnce(ctx, t, s, m[0], m[1])
		}
		want := 1
		switch g.event {
		case "certificate.intent_closed":
			want = 2
		case "order.cancelled", "renewal.held", "challenge.failed", "dns.record_failed":
			want = 0
		}
		require.Equal(t, want, finalized(s, g.name), "orders of %s finalized at the CA while %s was lost", g.name, g.event)
	}
}

// Every fact comes twice, under another message id, and each copy after a random moment, so that nothing comes in order.
func TestEveryFactTwiceAndOutOfOrder(t *testing.T) {
	t.Parallel()
	s, issuer, w := wired(t, ca.Options{RenewalRetryAfter: time.Second}, nil)
	t.Cleanup(w.under.Wait)
	ctx := labtest.Deadline(t, 5*time.Minute)
	w.scatter.Store(true)
	rounds := 1
	if full() {
		rounds = 20
	}
	ways := []func(*saga){issueBy("dns-01"), renewBySchedule, failAtTheCA, cancelByUser, editMeanwhile, cannotBePresented, revokeIt, deleteWhileFinalizing}
	var sagas []*saga
	for round := range rounds {
		names, made := make([]string, len(ways)), make([]*saga, len(ways))
		for i := range ways {
			names[i] = fmt.Sprintf("t%d-%d.%s", round, i, stage.Zone)
		}
		if !together(t, names, func(t *testing.T, i int) {
			g := &saga{Stage: s, w: w, t: t, ctx: ctx, issuer: issuer.GetId(), name: names[i], event: "nothing"}
			made[i] = g
			ways[i](g)
			rested(ctx, t, s, g.made.GetId())
		}) {
			return
		}
		sagas = append(sagas, made...)
	}
	w.quiet(ctx, t)
	w.under.Wait()
	clean(ctx, t, s)
	for _, g := range sagas {
		for _, m := range g.mails {
			toldOnce(ctx, t, s, m[0], m[1])
		}
		if v := g.version; v != "" {
			got, err := s.Certificate(ctx, g.made.GetId())
			require.NoError(t, err)
			require.Equal(t, v, got.GetCurrentVersion().GetFacts().GetVersionId(), "the current version is still what it was")
		}
		orders := &ordersv1.ListOrdersResponse{}
		require.Empty(t, list(ctx, s, "/v1/orders", "certificate="+g.made.GetId(), orders))
		require.LessOrEqual(t, finalized(s, g.name), len(orders.GetOrders()), "at most one order of each intent is finalized")
	}
}

// shifted is the machine's clock plus what a test adds; whoever waits wakes up when the time jumps.
type shifted struct {
	clock.Clock
	mu     sync.Mutex
	by     time.Duration
	jumped chan struct{}
}

func newShifted() *shifted { return &shifted{Clock: clock.System(), jumped: make(chan struct{})} }

func (c *shifted) state() (time.Duration, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by, c.jumped
}

// jump moves the time.
func (c *shifted) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
	close(c.jumped)
	c.jumped = make(chan struct{})
}

// Now implements clock.Clock.
func (c *shifted) Now() time.Time {
	by, _ := c.state()
	return c.Clock.Now().Add(by)
}

// After implements clock.Clock.
func (c *shifted) After(d time.Duration) (<-chan time.Time, func()) {
	at, out, end := c.Now().Add(d), make(chan time.Time, 1), make(chan struct{})
	go func() {
		for {
			_, jumped := c.state()
			rest := at.Sub(c.Now())
			if rest <= 0 {
				out <- c.Now()
				return
			}
			timer, stop := c.Clock.After(rest)
			select {
			case <-timer:
			case <-jumped:
			case <-end:
				stop()
				return
			}
			stop()
		}
	}()
	return out, sync.OnceFunc(func() { close(end) })
}

// Sleep implements clock.Clock.
func (c *shifted) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	done, stop := c.After(d)
	defer stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A person's requests, the sweep of what is due, and the schedule's request repeated an hour later because it heard no end: all make one order.
func TestOneVersionHoweverOftenItIsAskedFor(t *testing.T) {
	t.Parallel()
	clk := newShifted()
	s, issuer, w := wired(t, ca.Options{RenewalRetryAfter: time.Second}, func(cfg *certwright.Config) {
		cfg.Clock = clk
		cfg.Timing.Heal = 4 * time.Hour // else renewals learns the end from inventory's list
		cfg.Renewals.AskAgain = 50 * time.Minute
	})
	ctx := labtest.Deadline(t, 90*time.Second)
	name := "www." + stage.Zone
	made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, name)
	require.NoError(t, err)
	first, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	v1 := first.GetCurrentVersion().GetFacts()
	planned(ctx, t, s, made.GetId(), v1.GetVersionId())

	// The CA suggests to renew now: renewals asks, and a hundred people.
	hold := s.CA.Inject(ca.Fault{Match: ca.On(ca.NewOrder), Do: ca.Hang()})
	past := time.Now().Add(-time.Hour)
	require.NoError(t, s.CA.SetRenewalInfo(v1.GetSerial(), ca.Window{Start: past.Add(-time.Hour), End: past}))
	orders := make([]string, 100)
	var people sync.WaitGroup
	for i := range orders {
		people.Go(func() {
			out := &inventoryv1.RequestVersionResponse{}
			if err := s.Call(ctx, http.MethodPost, "/v1/certificates/"+made.GetId()+":renew", &inventoryv1.RenewCertificateRequest{}, out); err != nil {
				t.Error(err)
			}
			orders[i] = out.GetOrderId()
		})
	}
	people.Wait()
	for _, o := range orders {
		require.Equal(t, orders[0], o)
	}
	asked := requestsForVersions(ctx, t, s)
	// What tells renewals of the end is lost, again and again.
	w.deafen("certificate.intent_closed", "certificate.version_added", "certificate.requested")
	hold.Lift()
	second, err := s.Version(ctx, made.GetId(), v1.GetVersionId())
	require.NoError(t, err)
	require.EqualValues(t, 2, second.GetIntent().GetNumber())
	toldOnce(ctx, t, s, "certificate.renewed", made.GetId()) // before the time jumps: a message that is under way then is given up and sent again

	// An hour later renewals asks the door again for a version instead of the first one.
	s.CA.SetDateSkew(time.Hour)
	clk.jump(time.Hour)
	until(ctx, t, func() string {
		if n := requestsForVersions(ctx, t, s); n <= asked {
			return fmt.Sprintf("RequestVersion was called %d times", n)
		}
		return ""
	})
	w.deafen()
	v2 := second.GetCurrentVersion().GetFacts().GetVersionId()
	planned(ctx, t, s, made.GetId(), v2)
	rested(ctx, t, s, made.GetId())
	w.quiet(ctx, t)
	got, err := s.Certificate(ctx, made.GetId())
	require.NoError(t, err)
	require.EqualValues(t, 2, got.GetIntent().GetNumber(), "no further intent")
	require.Equal(t, v2, got.GetCurrentVersion().GetFacts().GetVersionId())
	require.Len(t, s.CA.Orders(), 2)
	toldOnce(ctx, t, s, "certificate.renewed", made.GetId())
}

// requestsForVersions counts the calls of inventory's door by the platform's own metrics.
func requestsForVersions(ctx context.Context, t *testing.T, s *stage.Stage) (n int) {
	t.Helper()
	body, err := s.Raw(ctx, http.MethodGet, "/metrics", nil)
	require.NoError(t, err)
	for line := range strings.Lines(string(body)) {
		if strings.Contains(line, "RequestVersion") && strings.Contains(line, "_count{") {
			var count int
			_, err := fmt.Fscan(strings.NewReader(line[strings.LastIndexByte(line, ' ')+1:]), &count)
			require.True(t, err == nil || errors.Is(err, io.EOF), line)
			n += count
		}
	}
	return n
}

// At every step of a renewal somebody deletes the certificate or revokes its version, before anybody has heard of the step. The gate does one of the two at
// each step, drawn anew each run; the full check does both.
func TestDeleteAndRevokeAtEveryStepOfARenewal(t *testing.T) {
	t.Parallel()
	s, issuer, w := wired(t, ca.Options{}, nil)
	ctx := labtest.Deadline(t, 4*time.Minute)
	begin := func(t *testing.T, name, challenge string) *saga {
		g := &saga{Stage: s, w: w, t: t, ctx: ctx, issuer: issuer.GetId(), name: name}
		g.ask(challenge)
		g.issued("certificate.issued")
		rested(ctx, t, s, g.made.GetId())
		return g
	}
	// What is told in a renewal is found by watching one.
	steps := map[string][]string{}
	for _, challenge := range []string{"http-01", "dns-01"} {
		g := begin(t, "model-"+challenge+"."+stage.Zone, challenge)
		w.forget(g.name)
		renew(ctx, t, s, g.made.GetId())
		g.issued("certificate.renewed")
		rested(ctx, t, s, g.made.GetId())
		for _, event := range w.types(g.name) {
			if !slices.Contains(steps["http-01"], event) {
				steps[challenge] = append(steps[challenge], event)
			}
		}
	}
	require.Subset(t, steps["http-01"], []string{
		"certificate.requested", "order.accepted", "order.authorization_required", "challenge.presented", "order.authorization_closed", "order.issued",
		"certificate.version_added", "certificate.renewed", "certificate.intent_closed", "renewal.planned", "deployment.started", "deployment.succeeded",
	})
	require.Subset(t, steps["dns-01"], []string{"challenge.record_wanted", "dns.record_presented", "challenge.record_unwanted", "dns.record_removed"})
	type row struct{ what, event, challenge string }
	var rows []row
	var names []string
	for challenge, events := range steps {
		for _, event := range events {
			whats := []string{"delete", "revoke"}
			if !full() {
				whats = whats[rand.N(2):][:1]
			}
			for _, what := range whats {
				rows, names = append(rows, row{what, event, challenge}), append(names, what+" at "+event)
			}
		}
	}
	if !together(t, names, func(t *testing.T, i int) {
		r, name := rows[i], fmt.Sprintf("s%d.%s", i, stage.Zone)
		g := begin(t, name, r.challenge)
		var failed error
		at := w.on(rule{family: name, event: r.event, before: func() {
			if r.what == "delete" {
				failed = s.Call(ctx, http.MethodDelete, "/v1/certificates/"+g.made.GetId(), nil, nil)
			} else {
				failed = revoke(ctx, s, g.made.GetId(), true)
			}
		}})
		renew(ctx, t, s, g.made.GetId())
		at.used(ctx, t)
		require.NoError(t, failed)
		if r.what == "delete" {
			gone(ctx, t, s, g.made.GetId())
		} else {
			revokedAndReplaced(ctx, t, s, g.made.GetId())
			served(ctx, t, s, g.made.GetId(), 1)
		}
		rested(ctx, t, s, g.made.GetId())
		orders := &ordersv1.ListOrdersResponse{}
		require.Empty(t, list(ctx, s, "/v1/orders", "certificate="+g.made.GetId(), orders))
		require.LessOrEqual(t, finalized(s, name), len(orders.GetOrders()), "at most one order of each intent is finalized")
	}) {
		return
	}
	w.quiet(ctx, t)
	clean(ctx, t, s)
}

// revokedAndReplaced waits until one version is revoked, at the CA too, and the certificate has a current one that is not.
func revokedAndReplaced(ctx context.Context, t *testing.T, s *stage.Stage, certificate string) {
	t.Helper()
	until(ctx, t, func() string {
		c, err := s.Certificate(ctx, certificate)
		if err != nil {
			return err.Error()
		}
		all := &inventoryv1.ListVersionsResponse{}
		if err := s.Call(ctx, http.MethodGet, "/v1/certificates/"+certificate+"/versions", nil, all); err != nil {
			return err.Error()
		}
		revoked := 0
		for _, v := range all.GetVersions() {
			_, atCA, err := s.CA.Revoked(v.GetFacts().GetSerial())
			if err != nil {
				return err.Error()
			}
			if (v.GetState() == "revoked") != atCA {
				return fmt.Sprintf("version %s is %s, at the CA revoked: %v", v.GetFacts().GetVersionId(), v.GetState(), atCA)
			}
			if atCA {
				revoked++
			}
		}
		if revoked != 1 || c.GetState() != "active" || c.GetCurrentVersion().GetState() != "current" || c.GetIntent().GetOutcome() == "open" {
			return fmt.Sprintf("%d versions revoked; certificate %s, version %s, intent %s", revoked, c.GetState(), c.GetCurrentVersion().GetState(), c.GetIntent().GetOutcome())
		}
		return ""
	})
}

package inventory_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	revocationeventsv1 "github.com/certwright/certwright/api/certwright/events/revocation/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
)

// run is one interleaving: people and machines act on a certificate while its siblings answer in any order, late and more than once.
type run struct {
	*world
	rt      *rapid.T
	id      string
	finals  map[string]string // by order, once orders has decided: it never changes its mind
	revoked map[string]bool   // by version: done or refused, likewise
	sent    map[string]bool   // issued orders that inventory was told of
	deleted bool
	after   int // intents told when it was deleted
}

func (r *run) pick(label string, from []string) string {
	return rapid.SampledFrom(from).Draw(r.rt, label)
}

func (r *run) yes(label string) bool { return rapid.Bool().Draw(r.rt, label) }

func (r *run) create() {
	req := request("a.example.org")
	req.RequestId = "the request"
	c, err := r.api.CreateCertificate(person, req)
	require.NoError(r.rt, err)
	if r.id != "" {
		require.Equal(r.rt, r.id, c.GetId())
	}
	r.id = c.GetId()
}

func (r *run) edit() {
	req := edit(r.pick("name", []string{"a.example.org", "b.example.org", "c.example.org"}))
	req.Id = r.id
	_, err := r.api.UpdateCertificate(person, req)
	require.Equal(r.rt, r.deleted, err != nil)
}

func (r *run) renew() {
	if r.yes("by a person") {
		_, err := r.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: r.id})
		require.NoError(r.rt, err)
		return
	}
	versions := []string{""}
	for order := range r.sent {
		versions = append(versions, "ver_"+strings.TrimPrefix(order, "ord_"))
	}
	slices.Sort(versions)
	_, err := r.api.RequestVersion(machine, &inventoryv1.RequestVersionRequest{
		CertificateId: r.id, ReplacesVersionId: r.pick("replaces", versions), Cause: "schedule", First: r.yes("first"),
	})
	require.NoError(r.rt, err)
}

func (r *run) remove() {
	if !r.deleted {
		r.after = len(r.requested(r.id))
	}
	_, err := r.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: r.id})
	require.NoError(r.rt, err)
	r.deleted = true
}

func (r *run) revoke() {
	if r.get(r.id).GetCurrentVersion() == nil {
		return
	}
	_, err := r.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{
		Id: r.id, Reason: r.pick("reason", []string{"keyCompromise", "superseded"}), Now: r.yes("now"), NoReplacement: r.yes("no replacement"),
	})
	require.NoError(r.rt, err)
}

// answer has orders say something about an order: that it has it, or how it ended.
func (r *run) answer(number int64, order string, accepted bool) {
	if accepted {
		r.hear(&ordereventsv1.Accepted{OrderId: order, CertificateId: r.id, IntentNumber: number})
		return
	}
	if r.finals[order] == "" {
		r.finals[order] = r.pick("final", []string{"issued", "issued", "failed", "rejected", "cancelled"})
	}
	var m proto.Message
	switch r.finals[order] {
	case "issued":
		m, r.sent[order] = issued(r.id, order, number), true
	case "failed":
		m = &ordereventsv1.Failed{OrderId: order, CertificateId: r.id, IntentNumber: number}
	case "rejected":
		m = &ordereventsv1.Rejected{OrderId: order, CertificateId: r.id, IntentNumber: number}
	case "cancelled":
		m = &ordereventsv1.Cancelled{OrderId: order, CertificateId: r.id, IntentNumber: number, Reason: r.pick("why", []string{"user", "spec_changed", "deleted"})}
	}
	r.hear(m)
}

func (r *run) anyOrder() {
	orders := r.requested(r.id)
	number := rapid.Int64Range(1, int64(len(orders))).Draw(r.rt, "intent")
	r.answer(number, orders[number], r.yes("accepted"))
}

// revocations has orders answer every revocation that it was asked for, always the same.
func (r *run) revocations() {
	for _, m := range told[*certificateeventsv1.RevocationRequested](r.world) {
		v := m.GetVersion().GetVersionId()
		if _, decided := r.revoked[v]; !decided {
			r.revoked[v] = r.yes("revocation done")
		}
		if r.revoked[v] {
			r.hear(&revocationeventsv1.Done{VersionId: v, CertificateId: r.id})
		} else {
			r.hear(&revocationeventsv1.Failed{VersionId: v, CertificateId: r.id, Problem: &typesv1.Problem{Detail: "no"}})
		}
	}
}

func (r *run) deploy() {
	v := r.get(r.id).GetCurrentVersion()
	if v == nil {
		return
	}
	s := &deploymenteventsv1.Subject{
		DeploymentId: "dep_" + v.GetFacts().GetVersionId(), BindingId: "bnd_1", CertificateId: r.id, VersionId: v.GetFacts().GetVersionId(), Generation: v.GetFacts().GetNumber(),
	}
	if r.yes("succeeded") {
		r.hear(&deploymenteventsv1.Succeeded{Subject: s})
	} else {
		r.hear(&deploymenteventsv1.Stuck{Subject: s, Problem: &typesv1.Problem{Detail: "no"}})
	}
}

func (r *run) plan() {
	r.hear(planned(r.id, rapid.Int64Range(0, r.get(r.id).GetIntent().GetNumber()).Draw(r.rt, "known intent")))
}

// work is what the worker would do when the moment has come.
func (r *run) work() {
	r.clk.Advance(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 25 * time.Hour}).Draw(r.rt, "wait"))
	doc := r.doc(r.id)
	if doc.WorkAt.After(r.clk.Now()) {
		return
	}
	res, err := r.app.Step(person, doc)
	require.NoError(r.rt, err)
	facts, err := res.Apply(&doc)
	require.NoError(r.rt, err)
	require.NoError(r.rt, r.app.Certs.Save(person, &doc, facts...))
	require.True(r.rt, doc.WorkAt.After(r.clk.Now()), "the worker would go round in circles")
}

// check looks at what must hold at any time.
func (r *run) check(*rapid.T) {
	if r.id == "" {
		return
	}
	c := r.doc(r.id).Body
	requested := r.requested(r.id)
	require.Len(r.rt, requested, int(c.Intent.Number), "every intent was told")
	orders := map[string]bool{}
	for n, order := range requested {
		require.True(r.rt, n >= 1 && n <= c.Intent.Number)
		orders[order] = true
	}
	require.Len(r.rt, orders, len(requested), "no order serves two intents")

	closed := map[int64]string{}
	for _, e := range r.entries() {
		if e.Headers["ce-type"] != certificateeventsv1.TypeIntentClosed {
			continue
		}
		var m certificateeventsv1.IntentClosed
		event, err := bus.FromEntry(e)
		require.NoError(r.rt, err)
		require.NoError(r.rt, event.Decode(&m))
		if before, twice := closed[m.GetIntentNumber()]; twice {
			require.Equal(r.rt, before, e.ID, "an intent is closed by one outcome")
		}
		closed[m.GetIntentNumber()] = e.ID
		if m.GetNextIntentFollows() {
			require.Contains(r.rt, requested, m.GetIntentNumber()+1, "what is promised to follow follows")
		}
	}
	for n := range requested {
		_, isClosed := closed[n]
		require.Equal(r.rt, n < c.Intent.Number || !c.Intent.IsOpen(), isClosed, "at most one intent is open: intent %d of %d", n, c.Intent.Number)
	}
	if !c.Intent.IsOpen() && !r.deleted {
		require.Equal(r.rt, c.SpecGeneration, c.Intent.SpecGeneration, "an older spec's intent was followed by the next one in the same write")
	}
	if r.deleted {
		require.Len(r.rt, requested, r.after, "a tombstone opens no intent")
		require.Equal(r.rt, "deleted", r.get(r.id).GetState())
	}

	answers := map[string]map[string]bool{}
	note := func(order, kind string) {
		if answers[order] == nil {
			answers[order] = map[string]bool{}
		}
		answers[order][kind] = true
	}
	for _, m := range told[*certificateeventsv1.VersionAdded](r.world) {
		note(m.GetVersion().GetOrderId(), "added")
	}
	for _, m := range told[*certificateeventsv1.VersionRefused](r.world) {
		note(m.GetOrderId(), "refused")
	}
	for order := range r.sent {
		require.Len(r.rt, answers[order], 1, "order %s has exactly one kind of answer: %v", order, answers[order])
	}
	require.Len(r.rt, answers, len(r.sent))
	current := 0
	for _, m := range told[*certificateeventsv1.VersionRevoked](r.world) {
		require.True(r.rt, r.revoked[m.GetVersion().GetVersionId()])
		current++
	}
	require.LessOrEqual(r.rt, current, len(r.revoked))
}

// settle lets every sibling answer until nobody waits for anything.
func (r *run) settle() {
	for range 20 {
		r.clk.Advance(25 * time.Hour)
		r.work()
		for n, order := range r.requested(r.id) {
			if n == r.get(r.id).GetIntent().GetNumber() {
				r.answer(n, order, false)
			}
		}
		r.revocations()
		r.deploy()
		r.hear(planned(r.id, r.get(r.id).GetIntent().GetNumber()))
		doc := r.doc(r.id)
		if len(r.awaited(r.id)) == 0 && !doc.Body.Intent.IsOpen() && !doc.Body.Revoking() {
			return
		}
	}
	require.Fail(r.rt, "it does not come to rest", "waits for %v, intent %v", r.awaited(r.id), r.get(r.id).GetIntent())
}

func TestAnyInterleavingKeepsOneIntentAndOneAnswer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &run{world: newWorld(rt), rt: rt, finals: map[string]string{}, revoked: map[string]bool{}, sent: map[string]bool{}}
		r.create()
		actions := map[string]func(*rapid.T){"": r.check}
		for name, f := range map[string]func(){
			"create": r.create, "edit": r.edit, "renew": r.renew, "revoke": r.revoke, "order": r.anyOrder, "order again": r.anyOrder,
			"another order": r.anyOrder, "revocations": r.revocations, "deploy": r.deploy, "plan": r.plan, "work": r.work,
		} {
			actions[name] = func(*rapid.T) { f() }
		}
		actions["delete"] = func(*rapid.T) {
			if r.deleted || rapid.IntRange(0, 2).Draw(rt, "delete") == 0 {
				r.remove()
			}
		}
		rt.Repeat(actions)
		r.settle()
		r.check(rt)
		if r.deleted {
			r.relayed()
			r.clk.Advance(31 * 24 * time.Hour)
			r.sweep()
			_, err := r.app.Certs.Get(person, r.id)
			require.Error(rt, err, "a tombstone is removed in the end")
			all, err := r.app.Versions.Find(person, docstore.Query{Where: []docstore.Cond{{Field: "certificate_id", Op: docstore.Eq, Value: r.id}}})
			require.NoError(rt, err)
			require.Empty(rt, all.Docs)
		}
	})
}

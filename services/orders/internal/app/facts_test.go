package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	chalev "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	orderev "github.com/certwright/certwright/api/certwright/events/order/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
)

// calm is a universe in which nothing goes wrong and nothing moves by itself, with one order stored at a given point of its way.
func calm(t *testing.T, change func(o *domain.Order)) *universe {
	t.Helper()
	u := newUniverse(t, t, 1, 0, 0)
	u.now.cancel() // no worker
	u.now.wg.Wait()
	t.Cleanup(u.end)
	r := u.request(1, []string{"a.example.org", "b.example.org"}, "")
	o := domain.FromRequested(r, t0)
	change(&o)
	doc := docstore.Doc[domain.Order]{Meta: docstore.Meta{ID: r.GetOrderId(), Team: "default", WorkAt: t0}, Body: o}
	var facts []outbox.Fact
	if o.State == domain.Authorizing {
		for i := range o.Attempt().Authorizations {
			facts = append(facts, outbox.Await(domain.RequiredKey(1, int64(i)), &orderev.AuthorizationRequired{OrderId: doc.ID, Attempt: 1, Authorization: int64(i)}))
		}
	}
	require.NoError(t, u.now.app.Orders.Insert(t.Context(), &doc, facts...))
	u.bag.Take()
	return u
}

func authorizing(o *domain.Order) {
	o.CSR, o.State = []byte{1}, domain.Authorizing
	offers := []domain.Offer{{Type: "http-01", URL: "https://ca/c"}}
	o.Attempts = []domain.Attempt{{
		Number: 1, IssuerID: issuerID, State: domain.AttemptOpen, URL: "https://ca/order/1", AuthzURLs: []string{"x", "y"}, CreatedAt: t0, ExpiresAt: t0.Add(7 * 24 * time.Hour),
		Authorizations: []domain.Authorization{
			{Number: 0, URL: "x", Identifier: "a.example.org", State: domain.AuthzPending, Offered: offers},
			{Number: 1, URL: "y", Identifier: "b.example.org", State: domain.AuthzPending, Offered: offers},
		},
	}}
}

func (u *universe) tell(m proto.Message) error {
	return u.now.hears.Handle(context.Background(), testkit.Event(u.t, m, bus.Event{ID: "e", Subject: "s", Time: t0, Team: "default"}))
}

func (u *universe) types() []string { return testkit.Types(u.t, u.bag.Take()) }

func presented(n int64) *chalev.Presented {
	return &chalev.Presented{ChallengeId: "chl", OrderId: "ord_1", Attempt: 1, Authorization: n, Type: "http-01"}
}

func failed(n int64, reason string, retrying bool) *chalev.Failed {
	return &chalev.Failed{OrderId: "ord_1", Attempt: 1, Authorization: n, Problem: &typesv1.Problem{Reason: reason, Detail: reason, Retrying: retrying}}
}

func TestAFactHeardTwiceChangesNothing(t *testing.T) {
	issued := func(o *domain.Order) { o.State, o.Open = domain.Issued, false }
	action := &chalev.ActionRequired{ChallengeId: "chl", OrderId: "ord_1", Attempt: 1, Authorization: 1, Type: "dns-01", Location: "_acme-challenge.b.example.org", Value: "v"}
	rows := []struct {
		name  string
		start func(o *domain.Order)
		fact  proto.Message
	}{
		{"an answer in place", authorizing, presented(0)},
		{"a person has to act", authorizing, action},
		{"a challenge that fails for now", authorizing, failed(0, "CHALLENGE_NOT_VISIBLE", true)},
		{"a challenge that fails for good", authorizing, failed(0, "CHALLENGE_NO_SOLVER", false)},
		{"a challenge that expired", authorizing, failed(0, "CHALLENGE_EXPIRED", false)},
		{"an edit", authorizing, &certev.SpecChanged{CertificateId: "crt_1", OrderId: "ord_1"}},
		{"a deletion", authorizing, &certev.Deleted{CertificateId: "crt_1", OrderId: "ord_1"}},
		{"a version added", issued, &certev.VersionAdded{Version: &typesv1.VersionFacts{OrderId: "ord_1", VersionId: "ver_1"}}},
		{"a version refused", issued, &certev.VersionRefused{OrderId: "ord_1"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			u := calm(t, r.start)
			require.NoError(t, u.tell(r.fact))
			once := u.all()[0]
			require.NoError(t, u.tell(r.fact))
			require.Equal(t, once, u.all()[0])
		})
		t.Run(r.name+", of an order that is not known", func(t *testing.T) {
			u := calm(t, r.start)
			require.NoError(t, u.memory.Remove(t.Context(), "orders", "ord_1", mustRevision(u)))
			require.NoError(t, u.tell(r.fact))
		})
	}
}

func mustRevision(u *universe) int64 {
	d := u.all()[0]
	pending, err := u.memory.Outbox(context.Background(), t0.Add(time.Hour), 100)
	require.NoError(u.t, err)
	require.NoError(u.t, u.memory.Clear(context.Background(), pending))
	return d.Revision
}

func TestTheRequestToldAgainIsAnsweredAgain(t *testing.T) {
	u := calm(t, authorizing)
	r := u.request(2, []string{"c.example.org"}, "")
	require.NoError(t, u.tell(r))
	u.types()
	before := u.all()
	require.NoError(t, u.tell(r))
	require.Equal(t, before, u.all())
	require.Equal(t, []string{"order.accepted"}, u.types())
	require.Equal(t, errs.Invalid, errs.KindOf(u.tell(&certev.Requested{CertificateId: "crt_9"})), "what can never be done is not tried again")
}

func TestAnOrderCancelledBeforeItWasHeardOfStaysCancelled(t *testing.T) {
	u := calm(t, authorizing)
	require.NoError(t, u.tell(&certev.Deleted{CertificateId: "crt_2", OrderId: "ord_2"}))
	require.NoError(t, u.tell(u.request(2, []string{"c.example.org"}, "")))
	d, err := u.now.app.Orders.Get(t.Context(), "ord_2")
	require.NoError(t, err)
	require.Equal(t, domain.Cancelled, d.Body.State)
	require.Equal(t, "crt_2", d.Body.CertificateID)
	require.Contains(t, u.types(), "order.cancelled")
}

func outcomes(t *testing.T, u *universe) map[string]string {
	t.Helper()
	out := map[string]string{}
	pending, err := u.memory.Outbox(t.Context(), t0.Add(time.Hour), 100)
	require.NoError(t, err)
	for _, p := range pending {
		e, err := bus.FromEntry(p.Entry)
		require.NoError(t, err)
		var m orderev.AuthorizationClosed
		if e.Type == bus.TypeOf(&m) {
			require.NoError(t, e.Decode(&m))
			out[string(rune('0'+m.GetAuthorization()))] = m.GetOutcome()
		}
	}
	return out
}

func TestTheChallengesOfACancelledOrderAreClosed(t *testing.T) {
	u := calm(t, authorizing)
	require.NoError(t, u.tell(presented(0)))
	require.NoError(t, u.tell(&certev.SpecChanged{CertificateId: "crt_1", OrderId: "ord_1"}))
	require.Equal(t, map[string]string{"0": "cancelled", "1": "cancelled"}, outcomes(t, u))
	d := u.all()[0]
	require.Equal(t, domain.Cancelled, d.Body.State)
	for _, k := range d.Kept {
		require.False(t, k.Await, "%s is awaited of an order that is over", k.Key)
	}
	u.types()
	require.NoError(t, u.tell(presented(1)))
	require.Equal(t, []string{"order.authorization_closed"}, u.types(), "who did not hear it asks again")
}

func TestAChallengeThatFailsForGoodFailsTheOrder(t *testing.T) {
	u := calm(t, authorizing)
	require.NoError(t, u.tell(failed(1, "CHALLENGE_NO_SOLVER", false)))
	d := u.all()[0]
	require.Equal(t, domain.Failed, d.Body.State)
	require.Equal(t, "CHALLENGE_NO_SOLVER", d.Body.Problem.Reason)
	require.Equal(t, map[string]string{"0": "cancelled", "1": "cancelled"}, outcomes(t, u))
}

func TestAFailureHeardAfterTheAnswerIsInPlaceIsTheCAsToJudge(t *testing.T) {
	u := calm(t, authorizing)
	require.NoError(t, u.tell(presented(0)))
	require.NoError(t, u.tell(failed(0, "CHALLENGE_NO_SOLVER", false)))
	require.Equal(t, domain.Authorizing, u.all()[0].Body.State)
}

func TestAnExpiredChallengeIsAskedForAnew(t *testing.T) {
	u := calm(t, authorizing)
	u.clock.Advance(time.Hour)
	require.NoError(t, u.tell(failed(0, "CHALLENGE_EXPIRED", false)))
	d := u.all()[0]
	require.Equal(t, domain.Queued, d.Body.State)
	require.Equal(t, domain.AttemptDead, d.Body.Attempts[0].State)
	require.False(t, d.WorkAt.After(u.clock.Now()))
}

func TestAChallengeTypeThatWasNotOfferedIsNotWaitedFor(t *testing.T) {
	u := calm(t, authorizing)
	m := presented(0)
	m.Type = "tls-alpn-01"
	require.NoError(t, u.tell(m))
	require.Equal(t, domain.AuthzPending, u.all()[0].Body.Attempts[0].Authorizations[0].State)
}

// The cost of one certificate: one name, http-01, a CA that answers soon, an account that exists.
func TestWhatOneCertificateCosts(t *testing.T) {
	u := newUniverse(t, t, 1, 0, 0)
	defer u.end()
	u.ca.forgets = true
	require.NoError(t, u.tell(u.request(1, []string{"a.example.org"}, ""))) // registers the account
	u.run(0)
	least := 1000
	for n := range 10 { // the CA is slow at times
		before := u.now.store.Writes()["orders"]
		require.NoError(t, u.tell(u.request(2+n, []string{"b.example.org"}, "")))
		u.run(0)
		least = min(least, u.now.store.Writes()["orders"]-before)
	}
	t.Log("writes of one certificate, with the clearing of what was told:", least)
	require.LessOrEqual(t, least, 10, "insert, claim, attempt, order, presented, claim, ready, issued and answered, and the clearing of what was told")
}

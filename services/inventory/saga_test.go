package inventory_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	revocationeventsv1 "github.com/certwright/certwright/api/certwright/events/revocation/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

func protoText(m proto.Message) string { return prototext.Format(m) }

func (w *world) revoke(t *testing.T, id string, done bool) *inventoryv1.Version {
	t.Helper()
	v, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: id, NoReplacement: true})
	require.NoError(t, err)
	if done {
		w.hear(&revocationeventsv1.Done{VersionId: v.GetFacts().GetVersionId(), CertificateId: id})
	}
	return v
}

func planned(id string, number int64) *renewaleventsv1.Planned {
	return &renewaleventsv1.Planned{CertificateId: id, IntentNumber: number, DueAt: timestamppb.New(start.Add(time.Hour)), Basis: "life", Explanation: "at two thirds of its life"}
}

func TestAnIssuedOrderBecomesTheCurrentVersion(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	order := c.GetIntent().GetOrderId()
	w.hear(&ordereventsv1.Accepted{OrderId: order, CertificateId: c.GetId(), IntentNumber: 1})
	require.True(t, w.get(c.GetId()).GetIntent().GetAccepted())
	require.Equal(t, []string{"requested/1"}, w.awaited(c.GetId()), "accepted is not issued")

	c = w.issue(c)
	require.Equal(t, "active", c.GetState())
	require.Equal(t, "issued", c.GetIntent().GetOutcome())
	f := c.GetCurrentVersion().GetFacts()
	require.Equal(t, "ver_"+strings.TrimPrefix(order, "ord_"), f.GetVersionId())
	require.Equal(t, []string{"a.example.org", "b.example.org"}, f.GetNames())
	require.Equal(t, "87654321", f.GetSerial())
	require.Equal(t, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", f.GetAriCertId(), "the example of RFC 9773 section 4.1")
	require.Equal(t, "ECDSA_P256", f.GetKeyAlgorithm())
	require.Equal(t, "CN=Test CA", f.GetIssuerName())
	require.Len(t, f.GetFingerprintSha256(), 64)
	require.Len(t, f.GetSpkiSha256(), 64)
	require.Equal(t, start.Add(90*24*time.Hour), f.GetNotAfter().AsTime())
	require.Equal(t, int64(1), f.GetNumber())
	require.Equal(t, []string{"certificate.requested", "certificate.version_added", "certificate.issued", "certificate.intent_closed"}, w.types())
	require.Equal(t, []string{"closed/1"}, w.awaited(c.GetId()))

	w.hear(planned(c.GetId(), 0))
	require.Equal(t, []string{"closed/1"}, w.awaited(c.GetId()), "a plan that does not know of the intent is no answer")
	w.hear(planned(c.GetId(), 1))
	require.Empty(t, w.awaited(c.GetId()))
	require.Equal(t, "at two thirds of its life", w.get(c.GetId()).GetRenewal().GetExplanation())
}

func TestARenewedVersionSupersedesTheOneBefore(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	first := c.GetCurrentVersion().GetFacts().GetVersionId()
	c = w.renewed(c.GetId())
	require.Equal(t, first, c.GetIntent().GetReplacesVersionId())
	renewed := told[*certificateeventsv1.Renewed](w)
	require.Len(t, renewed, 1)
	require.Equal(t, first, renewed[0].GetReplacesVersionId())
	require.Equal(t, first, told[*certificateeventsv1.Requested](w)[1].GetReplaces().GetVersionId())
	list, err := w.api.ListVersions(person, &inventoryv1.ListVersionsRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Equal(t, []string{"current", "superseded"}, []string{list.GetVersions()[0].GetState(), list.GetVersions()[1].GetState()})
	require.Equal(t, first, list.GetVersions()[0].GetReplacesVersionId())
}

func TestAnIssuedOrderToldAgainGetsThePresentAnswerAgainAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	event := issued(c.GetId(), c.GetIntent().GetOrderId(), 1)
	w.hear(event)
	before := w.doc(c.GetId()).Revision
	first := told[*certificateeventsv1.VersionAdded](w)[0]
	w.hear(event)
	require.Equal(t, before, w.doc(c.GetId()).Revision)
	again := told[*certificateeventsv1.VersionAdded](w)
	require.Len(t, again, 2)
	require.Empty(t, cmpProto(first, again[1]))
	ids := map[string]bool{}
	for _, e := range w.entries() {
		if e.Headers["ce-type"] == certificateeventsv1.TypeVersionAdded {
			ids[e.Headers["ce-id"]] = true
		}
	}
	require.Len(t, ids, 1, "told again it is the same fact")
}

func TestAVersionStoredBeforeACrashIsPointedToWhenItsOrderIsToldAgain(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	before := w.doc(c.GetId())
	event := issued(c.GetId(), c.GetIntent().GetOrderId(), 1)
	w.hear(event)
	// As if the process had died between the version and the pointer to it: the certificate is what it was.
	after := w.doc(c.GetId())
	undone := before
	undone.Revision = after.Revision
	require.NoError(t, w.app.Certs.Save(context.Background(), &undone))
	w.relayed()
	status := func() (*inventoryv1.VersionStatus, error) {
		return w.api.GetVersionStatus(machine, &inventoryv1.GetVersionStatusRequest{VersionId: domainVersion(c)})
	}
	_, err := status()
	require.Equal(t, errs.NotFound, errs.KindOf(err), "what the certificate does not point to is no version yet")
	list, err := w.api.ListVersions(person, &inventoryv1.ListVersionsRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Empty(t, list.GetVersions())

	w.hear(event)
	require.Equal(t, []string{"certificate.version_added", "certificate.issued", "certificate.intent_closed"}, w.types())
	s, err := status()
	require.NoError(t, err)
	require.Equal(t, "current", s.GetVersion().GetState())
	require.Len(t, s.GetChainDer(), 2)
	require.Equal(t, domainVersion(c), s.GetCurrentVersionId())
}

func domainVersion(c *inventoryv1.Certificate) string {
	return "ver_" + strings.TrimPrefix(c.GetIntent().GetOrderId(), "ord_")
}

func TestAnOlderIntentsCertificateIsStoredAsUnneeded(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	old := c.GetIntent().GetOrderId()
	w.hear(&ordereventsv1.Failed{OrderId: old, CertificateId: c.GetId(), Problem: &typesv1.Problem{Reason: "GAVE_UP"}})
	c = w.renewed(c.GetId())
	w.hear(issued(c.GetId(), old, 1))
	require.Equal(t, c.GetCurrentVersion().GetFacts().GetVersionId(), w.get(c.GetId()).GetCurrentVersion().GetFacts().GetVersionId())
	added := told[*certificateeventsv1.VersionAdded](w)
	require.Equal(t, "unneeded", added[1].GetState())
	require.Empty(t, added[1].GetReplacesVersionId())
	list, err := w.api.ListVersions(person, &inventoryv1.ListVersionsRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Equal(t, "unneeded", list.GetVersions()[1].GetState())
	require.Len(t, told[*certificateeventsv1.Renewed](w), 0)
}

func TestAnOrderOfACertificateThatIsGoneIsRefusedAndTheAnswerKept(t *testing.T) {
	w := newWorld(t)
	w.hear(issued("crt_unknown", "ord_1", 1))
	w.hear(issued("crt_unknown", "ord_1", 1))
	refused := told[*certificateeventsv1.VersionRefused](w)
	require.Len(t, refused, 2)
	require.Equal(t, "deleted", refused[0].GetReason())
	require.Equal(t, "deleted", w.get("crt_unknown").GetState())

	c := w.create("a.example.org")
	w.hear(issued(c.GetId(), "ord_foreign", 7))
	refused = told[*certificateeventsv1.VersionRefused](w)
	require.Equal(t, "unknown_intent", refused[1].GetReason())
	require.Equal(t, "open", w.get(c.GetId()).GetIntent().GetOutcome())
}

func TestAnAnswerThatIsNotKeptAnyMoreIsMadeAnew(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	first := issued(c.GetId(), c.GetIntent().GetOrderId(), 1)
	w.hear(first)
	for range 5 {
		c = w.renewed(c.GetId())
	}
	current := c.GetCurrentVersion().GetFacts().GetVersionId()
	w.relayed()
	w.hear(first)
	added := told[*certificateeventsv1.VersionAdded](w)
	require.Len(t, added, 1)
	require.Equal(t, "unneeded", added[0].GetState(), "nobody must take it for current")
	require.Equal(t, current, w.get(c.GetId()).GetCurrentVersion().GetFacts().GetVersionId())
	kept := 0
	for _, k := range w.doc(c.GetId()).Kept {
		if strings.HasPrefix(k.Key, "version/") {
			kept++
		}
	}
	require.Equal(t, 3, kept, "answers do not pile up")
}

func TestACertificateThatCannotBeReadIsADeadLetter(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	event := issued(c.GetId(), c.GetIntent().GetOrderId(), 1)
	event.ChainDer = [][]byte{[]byte("nonsense")}
	mustFail(t, errs.Invalid, "BAD_CHAIN", w.deliver(event, "e", 1))
	event.ChainDer = nil
	mustFail(t, errs.Invalid, "BAD_CHAIN", w.deliver(event, "e", 1))
}

func TestAnOrderThatEndsWithoutACertificateClosesItsIntent(t *testing.T) {
	order := "" // of the certificate at hand
	for name, row := range map[string]struct {
		event               func(id string) proto.Message
		outcome, reason, by string
	}{
		"failed": {func(id string) proto.Message {
			return &ordereventsv1.Failed{OrderId: order, CertificateId: id, Problem: &typesv1.Problem{Reason: "CAA", Detail: "forbidden", Subproblems: []*typesv1.Subproblem{{Identifier: "a.example.org"}}}}
		}, "failed", "CAA", ""},
		"rejected": {func(id string) proto.Message {
			return &ordereventsv1.Rejected{OrderId: order, CertificateId: id, By: "user:ann", Comment: "not this week"}
		}, "rejected", "ORDER_REJECTED", ""},
		"cancelled by a user": {func(id string) proto.Message {
			return &ordereventsv1.Cancelled{OrderId: order, CertificateId: id, Reason: "user"}
		}, "cancelled", "ORDER_CANCELLED", "user"},
		"cancelled by the system": {func(id string) proto.Message {
			return &ordereventsv1.Cancelled{OrderId: order, CertificateId: id, Reason: "spec_changed"}
		}, "cancelled", "ORDER_CANCELLED", "system"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.create("a.example.org")
			order = c.GetIntent().GetOrderId()
			w.hear(row.event(c.GetId()))
			revision := w.doc(c.GetId()).Revision
			w.hear(row.event(c.GetId()))
			w.hear(&ordereventsv1.Accepted{OrderId: order, CertificateId: c.GetId()})
			require.Equal(t, revision, w.doc(c.GetId()).Revision, "told twice and out of order changes nothing")
			closed := told[*certificateeventsv1.IntentClosed](w)
			require.Len(t, closed, 1)
			require.Equal(t, row.outcome, closed[0].GetOutcome())
			require.Equal(t, row.reason, closed[0].GetProblem().GetReason())
			require.Equal(t, row.by, closed[0].GetCancelledBy())
			require.Equal(t, row.reason, w.get(c.GetId()).GetIntent().GetProblem().GetReason())
			require.Equal(t, []string{"closed/1"}, w.awaited(c.GetId()))
		})
	}
}

func TestFactsOfCertificatesThatAreGoneAreDropped(t *testing.T) {
	w := newWorld(t)
	for _, m := range []proto.Message{
		&ordereventsv1.Accepted{CertificateId: "crt_x"}, &ordereventsv1.Failed{CertificateId: "crt_x"}, planned("crt_x", 1),
		&revocationeventsv1.Done{CertificateId: "crt_x"}, &deploymenteventsv1.Stuck{Subject: &deploymenteventsv1.Subject{CertificateId: "crt_x"}},
	} {
		w.hear(m)
	}
	require.Empty(t, w.types())
}

func TestAHundredCallsAtOnceOpenOneIntent(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	var wg sync.WaitGroup
	orders := make([]string, 100)
	failures := make([]error, 100)
	for i := range orders {
		wg.Go(func() {
			r, err := w.api.RequestVersion(machine, &inventoryv1.RequestVersionRequest{
				CertificateId: c.GetId(), ReplacesVersionId: c.GetCurrentVersion().GetFacts().GetVersionId(), Cause: "schedule",
			})
			orders[i], failures[i] = r.GetOrderId(), err
		})
	}
	wg.Wait()
	for i := range orders {
		require.NoError(t, failures[i])
		require.Equal(t, orders[0], orders[i])
	}
	require.Len(t, w.requested(c.GetId()), 2)
}

func TestARepeatedRenewalAnswersWithTheOrderThatTheFirstOneGot(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	w.clk.Advance(time.Minute)
	r := &inventoryv1.RenewCertificateRequest{Id: c.GetId(), RequestId: "again"}
	first, err := w.api.RenewCertificate(person, r)
	require.NoError(t, err)
	require.False(t, first.GetNothingToDo())
	w.clk.Advance(time.Minute)
	w.issue(w.get(c.GetId()))
	second, err := w.api.RenewCertificate(person, r)
	require.NoError(t, err)
	require.Equal(t, first.GetOrderId(), second.GetOrderId())
	require.True(t, second.GetNothingToDo())
	require.Len(t, w.requested(c.GetId()), 2)
	other, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: c.GetId(), RequestId: "another"})
	require.NoError(t, err)
	require.NotEqual(t, first.GetOrderId(), other.GetOrderId())
}

func TestAnIntentCarriesTheTraceOfWhoOpenedIt(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	const parent = "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01"
	ctx := propagation.TraceContext{}.Extract(person, propagation.MapCarrier{"traceparent": parent})
	_, err := w.api.RenewCertificate(ctx, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	doc := w.doc(c.GetId())
	require.Equal(t, parent, doc.Trace)
	require.Equal(t, parent, doc.Body.Intent.Trace)
	entries := w.entries()
	require.Equal(t, parent, entries[len(entries)-1].Headers["traceparent"])
}

func TestADoorForMachinesChecksTheCause(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	_, err := w.api.RequestVersion(machine, &inventoryv1.RequestVersionRequest{CertificateId: c.GetId(), Cause: "Because!"})
	require.Contains(t, mustFail(t, errs.Invalid, "INVALID_ARGUMENT", err).Fields[0].Msg, `"Because!" given, allowed: a word such as`)
	_, err = w.api.RequestVersion(machine, &inventoryv1.RequestVersionRequest{CertificateId: "crt_x"})
	mustFail(t, errs.NotFound, "NOT_FOUND", err)
	_, err = w.api.RequestVersion(context.Background(), &inventoryv1.RequestVersionRequest{CertificateId: c.GetId()})
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
}

func edit(names ...string) *inventoryv1.UpdateCertificateRequest {
	return &inventoryv1.UpdateCertificateRequest{Certificate: &inventoryv1.Certificate{Spec: &typesv1.CertificateSpec{Names: names}}}
}

func TestAnEditWhileAnOrderIsOpenIsFollowedByTheNextIntentHoweverTheOrderEnds(t *testing.T) {
	for name, end := range map[string]func(id, order string) proto.Message{
		"cancelled in time": func(id, o string) proto.Message {
			return &ordereventsv1.Cancelled{CertificateId: id, OrderId: o, Reason: "spec_changed"}
		},
		"failed":                 func(id, o string) proto.Message { return &ordereventsv1.Failed{CertificateId: id, OrderId: o} },
		"rejected":               func(id, o string) proto.Message { return &ordereventsv1.Rejected{CertificateId: id, OrderId: o} },
		"issued, it was too far": func(id, o string) proto.Message { return issued(id, o, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.create("a.example.org")
			order := c.GetIntent().GetOrderId()
			r := edit("b.example.org")
			r.Id = c.GetId()
			c, err := w.api.UpdateCertificate(person, r)
			require.NoError(t, err)
			require.True(t, c.GetIntent().GetCancelWanted())
			require.Equal(t, int64(2), c.GetSpecGeneration())
			changed := told[*certificateeventsv1.SpecChanged](w)
			require.Len(t, changed, 1)
			require.Equal(t, order, changed[0].GetOrderId())
			require.ElementsMatch(t, []string{"requested/1", "spec/" + order}, w.awaited(c.GetId()))
			answer, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
			require.NoError(t, err)
			require.True(t, answer.GetNextIntentFollows())
			require.Equal(t, int64(2), answer.GetSpecGeneration())

			w.hear(end(c.GetId(), order))
			c = w.get(c.GetId())
			require.Equal(t, int64(2), c.GetIntent().GetNumber())
			require.Equal(t, "open", c.GetIntent().GetOutcome())
			require.Equal(t, "spec_changed", c.GetIntent().GetCause())
			require.Equal(t, int64(2), c.GetIntent().GetSpecGeneration())
			closed := told[*certificateeventsv1.IntentClosed](w)
			require.True(t, closed[0].GetNextIntentFollows())
			require.Equal(t, []string{"b.example.org"}, told[*certificateeventsv1.Requested](w)[1].GetSpec().GetNames())
			require.ElementsMatch(t, []string{"closed/1", "requested/2"}, w.awaited(c.GetId()), "nobody waits for the old order any more")
		})
	}
}

func TestAnEditWithoutAnOpenOrderOpensAnIntentInTheSameWrite(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	revision := w.doc(c.GetId()).Revision
	r := edit("b.example.org", "a.example.org")
	r.Id, r.Etag = c.GetId(), c.GetEtag()
	c, err := w.api.UpdateCertificate(person, r)
	require.NoError(t, err)
	require.Equal(t, revision+1, w.doc(c.GetId()).Revision)
	require.Equal(t, "spec_changed", c.GetIntent().GetCause())
	require.Equal(t, "active", c.GetState(), "the old version serves on")
}

func TestEditsAreCheckedLikeCreations(t *testing.T) {
	w := newWorld(t)
	other := w.create("other.example.org")
	c := w.issue(w.create("a.example.org"))
	call := func(r *inventoryv1.UpdateCertificateRequest, mask ...string) error {
		r.Id = c.GetId()
		if len(mask) > 0 {
			r.UpdateMask = &fieldmaskpb.FieldMask{Paths: mask}
		}
		_, err := w.api.UpdateCertificate(person, r)
		return err
	}
	spec := func(s *typesv1.CertificateSpec) *inventoryv1.UpdateCertificateRequest {
		return &inventoryv1.UpdateCertificateRequest{Certificate: &inventoryv1.Certificate{Spec: s}}
	}
	e := mustFail(t, errs.Invalid, "INVALID_ARGUMENT", call(edit("a_b.example")))
	require.Equal(t, "certificate.spec.names[0]", e.Fields[0].Name)
	e = mustFail(t, errs.Invalid, "BAD_UPDATE_MASK", call(edit(), "team"))
	require.Contains(t, e.Msg, `the field "team" cannot be changed; allowed: display_name, owner, labels, spec.names`)
	e = mustFail(t, errs.AlreadyExists, "CERTIFICATE_EXISTS", call(edit("other.example.org")))
	require.Contains(t, e.Msg, other.GetId())
	e = mustFail(t, errs.Invalid, "INVALID_ARGUMENT", call(spec(&typesv1.CertificateSpec{Issuer: "iss_2"})))
	require.Contains(t, e.Fields[0].Msg, "is disabled")
	e = mustFail(t, errs.Invalid, "INVALID_ARGUMENT", call(spec(&typesv1.CertificateSpec{}), "spec.names"))
	require.Equal(t, "certificate.spec.names", e.Fields[0].Name)
	stale := edit("b.example.org")
	stale.Etag = "7"
	e = mustFail(t, errs.Conflict, "ETAG_MISMATCH", call(stale))
	require.Contains(t, e.Msg, `etag "7" given, it is "1" now`)
	require.Len(t, w.requested(c.GetId()), 1, "nothing of this opened an intent")

	r := &inventoryv1.UpdateCertificateRequest{Id: c.GetId(), Certificate: &inventoryv1.Certificate{Owner: "Ann", DisplayName: "Shop", Labels: []string{"env=prod"}}}
	got, err := w.api.UpdateCertificate(person, r)
	require.NoError(t, err)
	require.Equal(t, "Ann", got.GetOwner())
	require.Equal(t, "2", got.GetEtag())
	require.Len(t, w.requested(c.GetId()), 1, "who owns it is no reason for a new version")
	_, err = w.api.UpdateCertificate(person, r)
	require.NoError(t, err)
	require.Equal(t, "2", w.get(c.GetId()).GetEtag(), "the same edit again changes nothing")

	_, err = w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	mustFail(t, errs.Precondition, "CERTIFICATE_DELETED", call(edit("b.example.org")))
}

func TestWhatMachinesWriteDoesNotVoidAnEtag(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	w.issue(c)
	w.hear(planned(c.GetId(), 1))
	r := edit("b.example.org")
	r.Id, r.Etag = c.GetId(), c.GetEtag()
	_, err := w.api.UpdateCertificate(person, r)
	require.NoError(t, err)
}

func TestAKeyCompromiseRevokesAndReplacesInOneWrite(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	revision := w.doc(c.GetId()).Revision
	v, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId(), Reason: "keyCompromise"})
	require.NoError(t, err)
	require.Equal(t, "revoking", v.GetState())
	require.Equal(t, revision+1, w.doc(c.GetId()).Revision)
	asked := told[*certificateeventsv1.RevocationRequested](w)
	require.Len(t, asked, 1)
	require.Equal(t, chain()[0], asked[0].GetCertificateDer())
	require.Equal(t, "token:tok_default", asked[0].GetBy())
	require.Equal(t, "revocation", w.get(c.GetId()).GetIntent().GetCause())

	id := v.GetFacts().GetVersionId()
	w.hear(&revocationeventsv1.Done{VersionId: id, CertificateId: c.GetId()})
	revision = w.doc(c.GetId()).Revision
	w.hear(&revocationeventsv1.Done{VersionId: id, CertificateId: c.GetId()})
	w.hear(&revocationeventsv1.Failed{VersionId: id, CertificateId: c.GetId()})
	require.Equal(t, revision, w.doc(c.GetId()).Revision)
	require.Equal(t, "revoked", w.get(c.GetId()).GetState())
	revoked := told[*certificateeventsv1.VersionRevoked](w)
	require.Len(t, revoked, 1)
	require.True(t, revoked[0].GetCurrent())
	require.Equal(t, "keyCompromise", revoked[0].GetReason())
	require.Equal(t, "active", w.issue(w.get(c.GetId())).GetState(), "its replacement is not revoked")
}

func TestARefusedRevocationLeavesAFinding(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	v := w.revoke(t, c.GetId(), false)
	w.hear(&revocationeventsv1.Failed{VersionId: v.GetFacts().GetVersionId(), CertificateId: c.GetId(), Problem: &typesv1.Problem{Detail: "unauthorized"}})
	c = w.get(c.GetId())
	require.Equal(t, "current", c.GetCurrentVersion().GetState())
	require.Equal(t, "REVOCATION_REFUSED", c.GetFindings()[0].GetReason())
	require.Contains(t, c.GetFindings()[0].GetDetail(), "unauthorized")
	require.Len(t, told[*certificateeventsv1.RevocationFailed](w), 1)
	require.NotContains(t, w.awaited(c.GetId()), "revoke/"+v.GetFacts().GetVersionId())
}

func TestARevocationIsCheckedAtTheDoor(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	_, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId()})
	require.ErrorContains(t, mustFail(t, errs.Precondition, "NO_VERSION", err), "has no version yet")
	_, err = w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId(), Reason: "boredom"})
	require.Contains(t, mustFail(t, errs.Invalid, "INVALID_ARGUMENT", err).Fields[0].Msg, `"boredom" given, allowed: unspecified, keyCompromise`)
	other := w.issue(w.create("b.example.org"))
	_, err = w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId(), VersionId: other.GetCurrentVersion().GetFacts().GetVersionId()})
	require.Equal(t, errs.NotFound, errs.KindOf(err), "a version of another certificate")
}

func TestADeletedCertificateRefusesWhatComesLater(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	_, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	c = w.get(c.GetId())
	order := c.GetIntent().GetOrderId()
	r, err := w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Contains(t, r.GetNotice(), "stays valid wherever it is installed until 2027-02-20T12:00:00Z")
	require.Contains(t, r.GetNotice(), "Order "+order+" is cancelled")
	require.Equal(t, order, told[*certificateeventsv1.Deleted](w)[0].GetOrderId())
	require.ElementsMatch(t, []string{"requested/2", "deleted"}, w.awaited(c.GetId()), "told again until the order has ended")
	_, err = w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: c.GetId()})
	require.NoError(t, err, "deleting twice")
	answer, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Equal(t, "the certificate was deleted", answer.GetExplanation())

	w.hear(issued(c.GetId(), order, 2))
	w.hear(issued(c.GetId(), order, 2))
	refused := told[*certificateeventsv1.VersionRefused](w)
	require.Len(t, refused, 2)
	require.Equal(t, "deleted", refused[0].GetReason())
	require.Empty(t, w.awaited(c.GetId()))
	require.Len(t, told[*certificateeventsv1.Deleted](w), 1)

	v, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId()})
	require.NoError(t, err, "a version of a deleted certificate can be revoked")
	require.Equal(t, "revoking", v.GetState())
	w.hear(&revocationeventsv1.Done{VersionId: v.GetFacts().GetVersionId(), CertificateId: c.GetId()})
	require.Len(t, w.requested(c.GetId()), 2, "and is not replaced")
	require.Equal(t, "deleted", w.get(c.GetId()).GetState())
}

func TestATombstoneIsRemovedWhenNothingHangsOnIt(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	_, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	order := w.get(c.GetId()).GetIntent().GetOrderId()
	_, err = w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	gone := func() bool {
		w.sweep()
		_, err := w.app.Certs.Get(context.Background(), c.GetId())
		return errs.KindOf(err) == errs.NotFound
	}
	w.relayed()
	w.clk.Advance(31 * 24 * time.Hour)
	require.False(t, gone(), "its order is open")
	w.hear(&ordereventsv1.Cancelled{OrderId: order, CertificateId: c.GetId(), Reason: "deleted"})
	require.False(t, gone(), "its outbox is not empty")
	w.relayed()
	require.True(t, gone())
	_, err = w.app.Versions.Get(context.Background(), c.GetCurrentVersion().GetFacts().GetVersionId())
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}

func TestATombstoneStaysForThirtyDays(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	_, err := w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	w.relayed()
	w.clk.Advance(29 * 24 * time.Hour)
	w.sweep()
	changes, err := w.api.ListChanges(machine, &inventoryv1.ListChangesRequest{})
	require.NoError(t, err)
	require.True(t, changes.GetChanges()[0].GetDeleted())
	w.clk.Advance(24 * time.Hour)
	w.sweep()
	changes, err = w.api.ListChanges(machine, &inventoryv1.ListChangesRequest{})
	require.NoError(t, err)
	require.Empty(t, changes.GetChanges())
}

func TestAPlanThatIsNotNewerIsIgnored(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	say := func(text, epoch string, revision int64) string {
		m := planned(c.GetId(), 1)
		m.Explanation = text
		w.hearAs(m, epoch, revision)
		return w.get(c.GetId()).GetRenewal().GetExplanation()
	}
	require.Equal(t, "one", say("one", "e1", 5))
	require.Equal(t, "one", say("older", "e1", 4))
	require.Equal(t, "one", say("the same revision", "e1", 5))
	require.Equal(t, "two", say("two", "e1", 6))
	require.Equal(t, "two", say("older epoch", "e0", 9))
	require.Equal(t, "new epoch", say("new epoch", "e2", 1))
	w.hearAs(&renewaleventsv1.Held{CertificateId: c.GetId(), IntentNumber: 1, Reason: "rejected", ReviewAt: timestamppb.New(start)}, "e2", 2)
	require.Equal(t, "held", w.get(c.GetId()).GetRenewal().GetState())
	require.Equal(t, "rejected", w.get(c.GetId()).GetRenewal().GetExplanation())
}

func TestDeploymentsThatGoWrongAreFindingsUntilTheySucceed(t *testing.T) {
	w := newWorld(t)
	c := w.issue(w.create("a.example.org"))
	subject := &deploymenteventsv1.Subject{DeploymentId: "dep_1", BindingId: "bnd_1", TargetId: "tgt_1", CertificateId: c.GetId(), VersionId: c.GetCurrentVersion().GetFacts().GetVersionId(), Generation: 1}
	for _, row := range []struct {
		m    proto.Message
		want string
	}{
		{&deploymenteventsv1.Started{Subject: subject}, ""},
		{&deploymenteventsv1.Failed{Subject: subject, Problem: &typesv1.Problem{Detail: "permission denied"}}, "DEPLOYMENT_FAILED permission denied"},
		{&deploymenteventsv1.RolledBack{Subject: subject, Problem: &typesv1.Problem{Detail: "reload failed"}}, "DEPLOYMENT_ROLLED_BACK reload failed"},
		{&deploymenteventsv1.Stuck{Subject: subject, Problem: &typesv1.Problem{Detail: "serves nothing"}}, "DEPLOYMENT_STUCK serves nothing"},
		{&deploymenteventsv1.Succeeded{Subject: subject}, ""},
	} {
		w.hear(row.m)
		var got []string
		for _, f := range w.get(c.GetId()).GetFindings() {
			require.Equal(t, "bnd_1", f.GetSubject())
			got = append(got, f.GetReason()+" "+f.GetDetail())
		}
		require.Equal(t, row.want, strings.Join(got, ", "))
	}
	w.hearAs(&deploymenteventsv1.Stuck{Subject: subject, Problem: &typesv1.Problem{}}, "epoch", 1)
	require.Empty(t, w.get(c.GetId()).GetFindings(), "old news")
}

func TestAnExportIsTheLeafAndTheChain(t *testing.T) {
	w := newWorld(t)
	c := w.create("a.example.org")
	_, err := w.api.ExportCertificate(person, &inventoryv1.ExportCertificateRequest{Id: c.GetId()})
	mustFail(t, errs.Precondition, "NO_VERSION", err)
	w.issue(c)
	e, err := w.api.ExportCertificate(person, &inventoryv1.ExportCertificateRequest{Id: c.GetId()})
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(e.GetCertificatePem(), "BEGIN CERTIFICATE"))
	require.Equal(t, 1, strings.Count(e.GetChainPem(), "BEGIN CERTIFICATE"))
	require.Equal(t, "key_1", e.GetKeyId())
}

func TestTheDomainsNeverIsTheClocks(t *testing.T) { require.Equal(t, clock.Never, domain.Never) }

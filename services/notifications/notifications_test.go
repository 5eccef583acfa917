package notifications_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/notifications"
	"github.com/certwright/certwright/services/notifications/internal/adapters/smtp"
	"github.com/certwright/certwright/services/notifications/internal/adapters/webhook"
	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/mailtest"
	"github.com/certwright/certwright/services/notifications/internal/transport/consumer"
	"github.com/certwright/certwright/services/notifications/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/service"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

type fixture struct {
	*app.App
	t       *testing.T
	clk     *clock.Fake
	store   docstore.Store
	pub     testkit.Recorder
	server  *grpc.Server
	handle  func(ctx context.Context, e bus.Event) error
	moved   bool        // the time was moved by pass
	away    atomic.Bool // no change of a delivery can be stored
	refused atomic.Int32
	audits  atomic.Int32
}

// setup runs the service's parts but for the bus, whose deliveries tests make themselves.
func setup(t *testing.T) *fixture {
	t.Helper()
	clk := clock.NewFake(start)
	f := &fixture{t: t, clk: clk}
	f.store = faulty.New(memory.New(clk), faulty.Faults{Before: func(op faulty.Op, coll string) error {
		if op == faulty.Update && coll == "deliveries" && f.away.Load() {
			f.refused.Add(1)
			return errs.New(errs.Unavailable, "", "the store is away")
		}
		return nil
	}})
	logger := slog.New(slog.DiscardHandler)
	out := outbox.New(outbox.Config{Store: f.store, Bus: &f.pub, Source: "notifications", Clock: clk, Logger: logger, Audit: func(_ context.Context, e []docstore.Entry) error {
		f.audits.Add(int32(len(e)))
		return nil
	}})
	channelSpec, deliverySpec := app.Specs()
	deliveries := testkit.Open[domain.Delivery](t, out, deliverySpec)
	requests, err := once.Open(t.Context(), out)
	require.NoError(t, err)
	sealer, err := seal.OpenKEK(t.Context(), f.store, filepath.Join(t.TempDir(), "notifications.kek"), "notifications")
	require.NoError(t, err)
	f.App = &app.App{
		Channels: testkit.Open[app.StoredChannel](t, out, channelSpec), Deliveries: deliveries, Requests: requests, Sealer: sealer,
		Clock: clk, Logger: logger, Timeout: 20 * time.Second, Keep: notifications.Defaults().Keep,
		Senders: map[string]app.Sender{domain.KindSMTP: smtp.Sender{}, domain.KindWebhook: webhook.Sender{Clock: clk}},
	}
	f.server, f.handle = &grpc.Server{App: f.App}, consumer.New(f.App).Handle
	w := worker.New(worker.Config[domain.Delivery]{Name: "notifications", Coll: deliveries, Clock: clk, Logger: logger, Step: f.Step})
	testkit.Run(t, out.Run, w.Run)
	return f
}

func as(t *testing.T, team string) context.Context {
	t.Helper()
	return authz.NewContext(t.Context(), authz.Principal{Subject: "user:" + team, Team: team})
}

func (f *fixture) create(team string, c *notificationsv1.Channel) *notificationsv1.Channel {
	f.t.Helper()
	ctx := outbox.WithCall(as(f.t, team), "user:"+team, "CreateChannel")
	out, err := f.server.CreateChannel(ctx, &notificationsv1.CreateChannelRequest{Channel: c})
	require.NoError(f.t, err)
	return out
}

func mailChannel(s *mailtest.Server) *notificationsv1.Channel {
	return &notificationsv1.Channel{DisplayName: "Operations", Kind: "smtp", Smtp: &notificationsv1.SMTP{
		Server: s.Addr, Username: mailtest.User, Password: mailtest.Password, From: "certwright@example.org", To: []string{"ops@example.org"}, TrustRootsPem: s.RootsPEM,
	}}
}

// tell delivers a fact once.
func (f *fixture) tell(id string, m proto.Message) {
	f.t.Helper()
	require.NoError(f.t, f.handle(f.t.Context(), f.event(id, m)))
}

func (f *fixture) event(id string, m proto.Message) bus.Event {
	f.t.Helper()
	return testkit.Event(f.t, m, bus.Event{ID: id, Source: "test", Subject: "crt_1", Team: "web", Time: f.clk.Now(), Revision: 1})
}

func renewed(owner string) *certificateeventsv1.Renewed {
	return &certificateeventsv1.Renewed{CertificateId: "crt_1", Owner: owner, Version: &typesv1.VersionFacts{
		VersionId: "ver_2", Number: 2, Names: []string{"www.example.org"}, NotAfter: timestamppb.New(start.AddDate(0, 0, 90)),
	}}
}

func (f *fixture) list(filter string) []*notificationsv1.Delivery {
	f.t.Helper()
	out, err := f.server.ListDeliveries(as(f.t, authz.AllTeams), &notificationsv1.ListDeliveriesRequest{Filter: filter})
	require.NoError(f.t, err)
	return out.GetDeliveries()
}

// pass lets time pass. The worker may just be on its way to sleep, with a time in hand that is over: what is waited for afterwards is helped on by seconds.
func (f *fixture) pass(d time.Duration) {
	f.clk.Advance(d)
	f.moved = true
}

func (f *fixture) eventually(cond func() bool, msg string, args ...any) {
	f.t.Helper()
	polls := 0
	testkit.Eventually(f.t, func() bool {
		if polls++; f.moved && polls%20 == 0 {
			f.clk.Advance(time.Second)
		}
		return cond()
	}, msg, args...)
}

// ended waits until n deliveries are in the state.
func (f *fixture) ended(state string, n int) []*notificationsv1.Delivery {
	f.t.Helper()
	f.eventually(func() bool { return len(f.list("state="+state)) == n }, "%d deliveries are %s", n, state)
	return f.list("state=" + state)
}

// attempted waits until the only delivery was tried n times.
func (f *fixture) attempted(n int64) *notificationsv1.Delivery {
	f.t.Helper()
	f.eventually(func() bool { d := f.list(""); return len(d) == 1 && d[0].GetAttempts() == n }, "attempt %d", n)
	return f.list("")[0]
}

func TestAnEventThatComesTwiceIsOneMail(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	c := f.create("web", mailChannel(mails))
	for range 2 {
		f.tell("crt_1-E-7-0", renewed(""))
	}
	f.ended("delivered", 1)
	f.tell("crt_1-E-7-0", renewed("")) // told again after it was sent
	f.tell("crt_1-E-8-0", renewed(""))
	f.ended("delivered", 2)
	require.Len(t, mails.Mails(), 2)
	got := mails.Mails()[0]
	require.Contains(t, got.Text, "Subject: [certwright] www.example.org renewed: valid until 2027-01-31")
	require.Equal(t, mailtest.User, got.User)
	require.True(t, got.TLS)

	d := f.list("channel=" + c.GetId())
	require.Empty(t, cmp.Diff(&notificationsv1.Delivery{
		ChannelId: c.GetId(), EventId: "crt_1-E-7-0", EventType: "certificate.renewed", Subject: "crt_1", State: "delivered", Attempts: 1,
		CreateTime: timestamppb.New(start), Team: "web", Receiver: "ops@example.org",
	}, byEvent(d)["crt_1-E-7-0"], protocmp.Transform(), protocmp.IgnoreFields(&notificationsv1.Delivery{}, "id")))
	require.Empty(t, f.pub.Entries(), "nobody is told that somebody was told")
}

func byEvent(all []*notificationsv1.Delivery) map[string]*notificationsv1.Delivery {
	out := map[string]*notificationsv1.Delivery{}
	for _, d := range all {
		out[d.GetEventId()] = d
	}
	return out
}

func TestTheOrderOfEventsDoesNotMatter(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	f.create("web", mailChannel(mails))
	for _, n := range []int{9, 7, 8, 9, 7} {
		f.tell(fmt.Sprintf("crt_1-E-%d-0", n), renewed(""))
	}
	f.ended("delivered", 3)
	require.Len(t, mails.Mails(), 3)
}

func TestTheOwnerGetsAMailToo(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	c := mailChannel(mails)
	c.Smtp.ToOwner = true
	f.create("web", c)
	f.tell("a-1", renewed("Jane <jane@example.net>"))
	f.tell("a-2", renewed("the web team"))
	f.tell("a-3", &deploymenteventsv1.Stuck{Subject: &deploymenteventsv1.Subject{CertificateId: "crt_1", Owner: "joe@example.net"}})
	f.ended("delivered", 5)
	to := map[string]int{}
	for _, m := range mails.Mails() {
		require.Len(t, m.To, 1)
		to[m.To[0]]++
	}
	require.Empty(t, cmp.Diff(map[string]int{"ops@example.org": 3, "jane@example.net": 1, "joe@example.net": 1}, to))
}

func TestOneBadReceiverKeepsNobodyElseFromTheMail(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	mails.AnswerRcpt(func(to string) error {
		if to == "gone@example.org" {
			return mailtest.Say(550, "5.1.1 no such user")
		}
		return nil
	})
	c := mailChannel(mails)
	c.Smtp.To = []string{"gone@example.org", "ops@example.org"}
	f.create("web", c)
	f.tell("a-1", renewed(""))
	f.ended("delivered", 1)
	failed := f.ended("failed", 1)[0]
	require.Empty(t, cmp.Diff(&typesv1.Problem{
		Reason: domain.ReasonMailRefused, Detail: fmt.Sprintf(`the mail server %s answered "550 5.1.1 no such user" to RCPT TO:<gone@example.org>`, mails.Addr),
	}, failed.GetProblem(), protocmp.Transform()))
	require.Equal(t, "gone@example.org", failed.GetReceiver())
	require.Nil(t, failed.GetNextTime())
	require.EqualValues(t, 1, failed.GetAttempts())
}

func TestATemporaryRefusalIsTriedAgainOnScheduleAndGivenUpAtLast(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	var tries atomic.Int64
	mails.AnswerData(func() error { tries.Add(1); return mailtest.Say(451, "4.3.0 later") })
	f.create("web", mailChannel(mails))
	f.tell("a-1", renewed(""))
	due := start
	for i, wait := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour} {
		d := f.attempted(int64(i + 1))
		require.Equal(t, "queued", d.GetState())
		require.Equal(t, domain.ReasonMailDeferred, d.GetProblem().GetReason())
		require.True(t, d.GetProblem().GetRetrying())
		next := d.GetNextTime().AsTime()
		require.False(t, next.Before(due.Add(wait)), "not before its time")
		require.False(t, next.After(f.clk.Now().Add(wait+wait/5)), "and not much later")
		f.pass(next.Sub(f.clk.Now()) - time.Millisecond)
		require.EqualValues(t, i+1, tries.Load())
		f.pass(time.Millisecond)
		due = next
	}
	d := f.attempted(5)
	require.Equal(t, "failed", d.GetState())
	require.False(t, d.GetProblem().GetRetrying())
	require.Contains(t, d.GetProblem().GetDetail(), "451 4.3.0 later")
	require.Empty(t, mails.Mails())
}

func TestATemporaryRefusalHeals(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	mails.AnswerData(func() error { return mailtest.Say(451, "4.3.0 later") })
	f.create("web", mailChannel(mails))
	f.tell("a-1", renewed(""))
	f.attempted(1)
	mails.AnswerData(nil)
	f.pass(2 * time.Minute)
	d := f.ended("delivered", 1)[0]
	require.EqualValues(t, 2, d.GetAttempts())
	require.Nil(t, d.GetProblem())
	require.Len(t, mails.Mails(), 1)
}

func TestACrashBetweenSendingAndStoringSendsTheSameMessageAgain(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	f.create("web", mailChannel(mails))
	mails.AnswerData(func() error { f.away.Store(true); return nil })
	f.tell("a-1", renewed(""))
	testkit.Eventually(t, func() bool { return len(mails.Mails()) == 1 }, "the first mail")
	mails.AnswerData(nil)
	f.clk.Advance(2 * time.Minute) // the lease has ended
	before := f.refused.Load()
	testkit.Eventually(t, func() bool { f.clk.Advance(6 * time.Second); return f.refused.Load() >= before+2 }, "the outcome is given up and the next claim refused")
	require.Equal(t, "queued", f.list("")[0].GetState())
	f.away.Store(false)
	f.pass(10 * time.Second)
	f.ended("delivered", 1)
	all := mails.Mails()
	require.Len(t, all, 2)
	require.Equal(t, header(all[0].Text, "Message-ID"), header(all[1].Text, "Message-ID"))
	require.NotEmpty(t, header(all[0].Text, "Message-ID"))
	require.Equal(t, header(all[0].Text, "Date"), header(all[1].Text, "Date"))
}

func header(text, name string) string {
	_, rest, _ := strings.Cut(text, "\r\n"+name+": ")
	line, _, _ := strings.Cut(rest, "\r\n")
	return line
}

// receiver is a webhook's receiver with its own check of the signature.
type receiver struct {
	mu     sync.Mutex
	posts  []map[string]any
	ids    []string
	bad    int
	answer func(w http.ResponseWriter)
	secret string
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(req.Header.Get("webhook-id") + "." + req.Header.Get("webhook-timestamp") + "."))
	_, _ = mac.Write(body)
	if req.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		r.bad++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var post map[string]any
	_ = json.Unmarshal(body, &post)
	r.posts, r.ids = append(r.posts, post), append(r.ids, req.Header.Get("webhook-id"))
	if r.answer != nil {
		r.answer(w)
	}
}

func (r *receiver) seen() ([]map[string]any, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]map[string]any(nil), r.posts...), append([]string(nil), r.ids...)
}

func (r *receiver) set(secret string, answer func(http.ResponseWriter)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret, r.answer = secret, answer
}

func startReceiver(t *testing.T) (*receiver, *notificationsv1.Channel) {
	t.Helper()
	r := &receiver{}
	s := httptest.NewTLSServer(r)
	t.Cleanup(s.Close)
	return r, &notificationsv1.Channel{DisplayName: "Hook", Webhook: &notificationsv1.Webhook{
		Url: s.URL + "/hook", TrustRootsPem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})),
	}}
}

func TestAWebhookIsPostedSignedWithTheSecretThatWasShownOnce(t *testing.T) {
	f := setup(t)
	r, channel := startReceiver(t)
	c := f.create("web", channel)
	require.True(t, strings.HasPrefix(c.GetWebhook().GetSecret(), "whsec_"))
	r.set(c.GetWebhook().GetSecret(), nil)
	listed, err := f.server.ListChannels(as(t, "web"), &notificationsv1.ListChannelsRequest{})
	require.NoError(t, err)
	require.Empty(t, listed.GetChannels()[0].GetWebhook().GetSecret())

	f.tell("crt_1-E-7-0", renewed("jane@example.org"))
	f.tell("crt_1-E-7-0", renewed("jane@example.org"))
	f.ended("delivered", 1)
	posts, ids := r.seen()
	require.Zero(t, r.bad)
	require.Equal(t, []string{"crt_1-E-7-0"}, ids)
	require.Empty(t, cmp.Diff([]map[string]any{{
		"id": "crt_1-E-7-0", "type": "certificate.renewed", "time": "2026-11-02T10:00:00Z", "subject": "crt_1", "team": "web",
		"data": map[string]any{"certificateId": "crt_1", "owner": "jane@example.org", "version": map[string]any{
			"versionId": "ver_2", "number": "2", "names": []any{"www.example.org"}, "notAfter": "2027-01-31T10:00:00Z",
		}},
	}}, posts))
}

func TestAWebhookThatAsksForPatienceGetsIt(t *testing.T) {
	f := setup(t)
	r, channel := startReceiver(t)
	c := f.create("web", channel)
	r.set(c.GetWebhook().GetSecret(), func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	f.tell("a-1", renewed(""))
	d := f.attempted(1)
	require.Equal(t, start.Add(time.Hour), d.GetNextTime().AsTime())
	r.set(c.GetWebhook().GetSecret(), nil)
	f.pass(time.Hour)
	f.ended("delivered", 1)
	_, ids := r.seen()
	require.Equal(t, []string{"a-1", "a-1"}, ids, "the same id each time")
}

func TestChannelsTellTheirTeamsEventsOfTheirTypes(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	other, everyone, failures := mailChannel(mails), mailChannel(mails), mailChannel(mails)
	everyone.Team, everyone.Smtp.To = "*", []string{"all@example.org"}
	failures.Events = []string{"order.failed"}
	f.create("mail", other)
	f.create("web", failures)
	f.create(authz.AllTeams, everyone)
	f.tell("a-1", renewed(""))
	f.ended("delivered", 1)
	require.Equal(t, []string{"all@example.org"}, mails.Mails()[0].To)
	seen, err := f.server.ListDeliveries(as(t, "web"), &notificationsv1.ListDeliveriesRequest{})
	require.NoError(t, err)
	require.Empty(t, seen.GetDeliveries(), "the way of another team's channel is its own affair")

	_, err = f.server.CreateChannel(as(t, "web"), &notificationsv1.CreateChannelRequest{Channel: everyone})
	require.Equal(t, errs.Forbidden, errs.KindOf(err))
}

func TestOldEventsAreToldToNobody(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	old := f.event("a-1", renewed(""))
	f.clk.Advance(time.Hour)
	f.create("web", mailChannel(mails))
	require.NoError(t, f.handle(t.Context(), old))
	require.Empty(t, f.list(""), "it was before the channel")

	f.tell("a-2", renewed(""))
	sent := f.event("a-2", renewed(""))
	f.ended("delivered", 1)
	f.clk.Advance(8*24*time.Hour + time.Hour)
	require.NoError(t, f.Tidy(t.Context()))
	require.Empty(t, f.list(""))
	require.NoError(t, f.handle(t.Context(), sent))
	require.Empty(t, f.list(""), "told again when its delivery is forgotten")
	require.Len(t, mails.Mails(), 1)
}

func TestADeletedChannelTellsNothingAndItsSecretIsGone(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	mails.AnswerData(func() error { return mailtest.Say(451, "4.3.0 later") })
	c := f.create("web", mailChannel(mails))
	f.tell("a-1", renewed(""))
	f.attempted(1)
	_, err := f.server.DeleteChannel(as(t, "mail"), &notificationsv1.DeleteChannelRequest{Id: c.GetId()})
	require.Equal(t, errs.NotFound, errs.KindOf(err), "another team's")
	_, err = f.server.DeleteChannel(as(t, "web"), &notificationsv1.DeleteChannelRequest{Id: c.GetId()})
	require.NoError(t, err)
	doc, err := f.Channels.Get(t.Context(), c.GetId())
	require.NoError(t, err)
	require.True(t, doc.Body.Secret.IsZero())

	mails.AnswerData(nil)
	f.pass(2 * time.Minute)
	require.Equal(t, domain.ReasonChannelGone, f.ended("failed", 1)[0].GetProblem().GetReason())
	f.tell("a-2", renewed(""))
	require.Len(t, f.list(""), 1)
	require.Empty(t, mails.Mails())

	f.pass(9 * 24 * time.Hour)
	f.eventually(func() bool { // once the audit entry of its creation is cleared
		require.NoError(t, f.Tidy(t.Context()))
		_, err = f.Channels.Get(t.Context(), c.GetId())
		return err != nil
	}, "the channel is removed")
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}

func TestARepeatedCreationMakesOneChannel(t *testing.T) {
	f := setup(t)
	_, hook := startReceiver(t)
	create := func(c *notificationsv1.Channel, id string) (*notificationsv1.Channel, error) {
		return f.server.CreateChannel(as(t, "web"), &notificationsv1.CreateChannelRequest{RequestId: id, Channel: c})
	}
	first, err := create(hook, "r-1")
	require.NoError(t, err)
	again, err := create(hook, "r-1")
	require.NoError(t, err)
	require.Equal(t, first.GetId(), again.GetId())
	require.Empty(t, again.GetWebhook().GetSecret(), "shown once")

	with := proto.Clone(hook).(*notificationsv1.Channel)
	with.Webhook.Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	_, err = create(with, "r-1")
	require.Equal(t, "REQUEST_ID_REUSED", errs.ReasonOf(err))
	second, err := create(with, "r-2")
	require.NoError(t, err)
	require.Empty(t, second.GetWebhook().GetSecret(), "the caller knows it")
	_, err = create(with, "r-2")
	require.NoError(t, err)
	with.Webhook.Secret = "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	_, err = create(with, "r-2")
	require.Equal(t, "REQUEST_ID_REUSED", errs.ReasonOf(err))

	with.Webhook.Secret = "whsec_c2hvcnQ="
	_, err = create(with, "r-3")
	require.Equal(t, errs.Invalid, errs.KindOf(err))
	require.Empty(t, cmp.Diff([]errs.Field{{Name: "channel.webhook.secret",
		Msg: `is not "whsec_" followed by the base64 of 24 to 64 bytes; leave it out to have one made`}}, errs.As(err).Fields))
}

func TestATestMessageGoesOverTheChannel(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	c := mailChannel(mails)
	c.Smtp.To, c.Smtp.ToOwner, c.Disabled = nil, true, true
	made := f.create("web", c)
	testkit.Eventually(t, func() bool { return f.audits.Load() == 1 }, "the creation is in the audit trail")
	test := func() *notificationsv1.TestChannelResponse {
		out, err := f.server.TestChannel(outbox.WithCall(as(t, "web"), "user:web", "TestChannel"), &notificationsv1.TestChannelRequest{Id: made.GetId()})
		require.NoError(t, err)
		return out
	}
	require.True(t, test().GetOk())
	testkit.Eventually(t, func() bool { return f.audits.Load() == 2 }, "the test is in the audit trail")
	require.Equal(t, []string{"certwright@example.org"}, mails.Mails()[0].To)
	require.Contains(t, mails.Mails()[0].Text, "Subject: [certwright] test of the channel Operations")

	mails.AnswerRcpt(func(string) error { return mailtest.Say(550, "5.7.1 relaying denied") })
	got := test()
	require.False(t, got.GetOk())
	require.Equal(t, domain.ReasonMailRefused, got.GetProblem().GetReason())
	require.Contains(t, got.GetProblem().GetDetail(), "550 5.7.1 relaying denied")
	_, err := f.server.TestChannel(as(t, "mail"), &notificationsv1.TestChannelRequest{Id: made.GetId()})
	require.Equal(t, errs.NotFound, errs.KindOf(err))

	r, hook := startReceiver(t)
	made = f.create("web", hook)
	r.set(made.GetWebhook().GetSecret(), nil)
	require.True(t, test().GetOk())
	posts, _ := r.seen()
	require.Equal(t, app.TypeTest, posts[0]["type"])
}

func TestNoDocumentHasASecretInTheClear(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	r, hook := startReceiver(t)
	ctx := outbox.WithCall(as(t, "web"), "user:web", "CreateChannel")
	made, err := f.server.CreateChannel(ctx, &notificationsv1.CreateChannelRequest{RequestId: "r-1", Channel: hook})
	require.NoError(t, err)
	_, err = f.server.CreateChannel(as(t, "web"), &notificationsv1.CreateChannelRequest{RequestId: "r-2", Channel: mailChannel(mails)})
	require.NoError(t, err)
	r.set("whsec_", nil) // refuses every signature
	f.tell("a-1", renewed(""))
	f.ended("delivered", 1)
	f.ended("failed", 1)

	secretText := made.GetWebhook().GetSecret()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secretText, "whsec_"))
	require.NoError(t, err)
	needles := []string{secretText, strings.TrimPrefix(secretText, "whsec_"), string(key), mailtest.Password, base64.StdEncoding.EncodeToString([]byte(mailtest.Password))}
	scanned := 0
	for _, coll := range []string{"channels", "deliveries", "requests", seal.GuardCollection} {
		page, err := f.store.Find(t.Context(), coll, docstore.Query{Limit: 1000})
		require.NoError(t, err)
		for _, raw := range page.Docs {
			scanned++
			for _, n := range needles {
				require.NotContains(t, string(raw), n, coll)
			}
		}
	}
	require.Equal(t, 7, scanned)
}

func TestListsAnswerFiltersAndRefuseWhatIsWrong(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	a, b := f.create("web", mailChannel(mails)), f.create("web", mailChannel(mails))
	f.tell("a-1", renewed(""))
	f.clk.Advance(time.Second)
	f.tell("a-2", &deploymenteventsv1.Stuck{})
	f.ended("delivered", 4)
	for filter, want := range map[string]int{
		"": 4, "channel=" + a.GetId(): 2, "event_type=deployment.stuck": 2, "state=failed": 0,
		"channel=" + b.GetId() + " AND state=delivered AND event_type=deployment.stuck": 1, "channel=chn_none": 0,
	} {
		require.Len(t, f.list(filter), want, filter)
	}
	require.Equal(t, "a-2", f.list("")[0].GetEventId(), "the newest first")
	var ids []string
	for token := ""; ; {
		page, err := f.server.ListDeliveries(as(t, "web"), &notificationsv1.ListDeliveriesRequest{PageSize: 3, PageToken: token})
		require.NoError(t, err)
		for _, d := range page.GetDeliveries() {
			ids = append(ids, d.GetId())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	require.Len(t, ids, 4)
	require.Empty(t, cmp.Diff(ids, ids, cmpopts.SortSlices(func(a, b string) bool { return a > b })))
	for filter, part := range map[string]string{
		"state=sent": "allowed are queued, delivered, failed", "event_type=order.accepted": "certificate.issued", "team=web": "allowed are channel, state, event_type",
	} {
		_, err := f.server.ListDeliveries(as(t, "web"), &notificationsv1.ListDeliveriesRequest{Filter: filter})
		require.Equal(t, "BAD_FILTER", errs.ReasonOf(err))
		require.ErrorContains(t, err, part)
	}
	_, err := f.server.ListChannels(t.Context(), &notificationsv1.ListChannelsRequest{})
	require.Equal(t, errs.Unauthenticated, errs.KindOf(err))
}

func TestAnUnreadableEventIsADeadLetterAndTouchesNothing(t *testing.T) {
	f, mails := setup(t), mailtest.Start(t, mailtest.Options{StartTLS: true, Auth: true})
	f.create("web", mailChannel(mails))
	e := f.event("a-1", renewed(""))
	e.Data = []byte(`{"version": 7}`)
	err := f.handle(t.Context(), e)
	require.Equal(t, errs.Invalid, errs.KindOf(err))
	require.Empty(t, f.list(""))
}

func TestServiceStopsWithoutItsKeyEncryptionKey(t *testing.T) {
	clk := clock.NewFake(start)
	store := memory.New(clk)
	_, err := seal.OpenKEK(t.Context(), store, filepath.Join(t.TempDir(), "other.kek"), "notifications")
	require.NoError(t, err)
	err = notifications.Run(t.Context(), &service.Platform{Name: "notifications", Clock: clk, Logger: slog.New(slog.DiscardHandler), Store: store, DataDir: t.TempDir()}, notifications.Defaults())
	require.Equal(t, "KEK_MISSING", errs.ReasonOf(err))
	var e *errs.Error
	require.True(t, errors.As(err, &e))
}

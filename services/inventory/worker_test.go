package inventory_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

// working runs the worker until the test ends.
func working(t *testing.T, w *world) {
	t.Helper()
	testkit.Run(t, worker.New(worker.Config[domain.Certificate]{
		Name: "inventory", Coll: w.app.Certs, Clock: w.clk, Logger: testkit.Logger(t), Step: w.app.Step,
	}).Run)
}

func (w *world) findings(id string) (out []string) {
	for _, f := range w.get(id).GetFindings() {
		out = append(out, f.GetReason()+" "+f.GetSubject()+" "+f.GetDetail())
	}
	return out
}

func TestBindingsAreMadeByTheWorkerUntilTheyAre(t *testing.T) {
	w := newWorld(t)
	working(t, w)
	w.peers.failBindings(errs.New(errs.NotFound, "", "target tgt_1 does not exist"))
	r := request("a.example.org")
	r.DeployTo = []string{"tgt_1", "tgt_2"}
	c, err := w.api.CreateCertificate(person, r)
	require.NoError(t, err)
	testkit.Eventually(t, func() bool { return len(w.findings(c.GetId())) == 2 }, "each target has its finding")
	require.Contains(t, w.findings(c.GetId())[0], "BINDING_FAILED tgt_1 target tgt_1 is not bound yet: target tgt_1 does not exist")
	w.peers.failBindings(nil)
	testkit.Passes(t, w.clk, time.Second, func() bool { return len(w.findings(c.GetId())) == 0 }, "both are bound")
	w.peers.mu.Lock()
	defer w.peers.mu.Unlock()
	require.ElementsMatch(t, []string{c.GetId() + " tgt_1 default ops of default", c.GetId() + " tgt_2 default ops of default"}, w.peers.bound)
}

func TestAnIntentIsToldAgainUntilItsOutcomeIsHeard(t *testing.T) {
	w := newWorld(t)
	working(t, w)
	c := w.create("a.example.org")
	msgIDs := func() (out []string) {
		for _, e := range w.entries() {
			if e.Headers["ce-type"] == certificateeventsv1.TypeRequested {
				_, again, _ := strings.Cut(e.MsgID, "~")
				out = append(out, again)
			}
		}
		return out
	}
	testkit.Passes(t, w.clk, 10*time.Second, func() bool { return len(msgIDs()) == 3 }, "it is told again twice")
	require.Equal(t, []string{"", "1", "2"}, msgIDs())
	require.GreaterOrEqual(t, w.clk.Now().Sub(start), 4*time.Minute, "first after 60 s, then after three times as long")
	w.hear(&ordereventsv1.Failed{CertificateId: c.GetId(), OrderId: c.GetIntent().GetOrderId()})
	before := len(msgIDs())
	closed := func() bool { return len(told[*certificateeventsv1.IntentClosed](w)) == 3 }
	testkit.Passes(t, w.clk, 10*time.Second, closed, "its end is told again until renewals has a plan")
	require.Len(t, msgIDs(), before, "nobody waits for the order any more")
	w.hear(planned(c.GetId(), 1))
	require.Empty(t, w.awaited(c.GetId()))
}

func TestARevocationThatWaitedADayIsSentByTheWorker(t *testing.T) {
	w := newWorld(t)
	working(t, w)
	c := w.issue(w.create("a.example.org"))
	_, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: c.GetId(), Reason: "superseded"})
	require.NoError(t, err)
	require.Empty(t, told[*certificateeventsv1.RevocationRequested](w))
	testkit.Passes(t, w.clk, time.Hour, func() bool { return len(told[*certificateeventsv1.RevocationRequested](w)) > 0 }, "it is sent")
	require.GreaterOrEqual(t, w.clk.Now().Sub(start), 24*time.Hour)
}

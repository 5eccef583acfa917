package domain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func fresh() Order {
	return New("ord_1", "crt_1", 1, 1, Spec{IssuerID: "iss_1", Names: []string{"www.example.org"}}, nil, "created", "ops@example.org", t0)
}

func TestEveryPairOfStatesIsLegalOrRefused(t *testing.T) {
	legal := map[State]string{
		Queued: "authorizing finalizing failed rejected cancelled", Authorizing: "queued finalizing failed cancelled", Finalizing: "queued issued failed",
	}
	for _, from := range States() {
		for _, to := range States() {
			o := fresh()
			o.State, o.Open = from, !from.Final()
			err := o.move(to)
			allowed := from == to
			for _, s := range fieldsOf(legal[from]) {
				allowed = allowed || State(s) == to
			}
			if allowed {
				require.NoError(t, err, "%s → %s", from, to)
				require.Equal(t, !to.Final(), o.Open)
				continue
			}
			require.ErrorContains(t, err, "an order that is "+string(from)+" cannot become "+string(to))
			require.Equal(t, from, o.State)
		}
	}
}

func fieldsOf(s string) (out []string) {
	word := ""
	for _, r := range s + " " {
		if r != ' ' {
			word += string(r)
		} else if word != "" {
			out, word = append(out, word), ""
		}
	}
	return out
}

func TestTheNextStepFollowsFromWhatIsKnown(t *testing.T) {
	withCSR := func(o Order) Order { o.CSR = []byte{1}; return o }
	attempt := func(a Attempt, state State) Order {
		o := withCSR(fresh())
		a.Number, a.State, a.CreatedAt = 1, AttemptOpen, t0
		o.Attempts, o.State = []Attempt{a}, state
		return o
	}
	rows := []struct {
		name   string
		order  Order
		lease  string
		now    time.Time
		step   Step
		reason string
		at     time.Time
	}{
		{name: "a new order needs its CSR before any CA is asked", order: fresh(), step: StepEnsureCSR, reason: "NoCSR"},
		{name: "with a CSR an attempt is stored", order: withCSR(fresh()), step: StepOpenAttempt, reason: "NoOpenAttempt"},
		{name: "newOrder is sent under the lease that stored the attempt", order: attempt(Attempt{Lease: "l1"}, Queued), lease: "l1", step: StepNewOrder, reason: "NoOrderURL"},
		{name: "under another lease nobody knows whether newOrder was sent", order: attempt(Attempt{Lease: "l1"}, Queued), lease: "l2", step: StepUnknown, reason: "NewOrderUnanswered"},
		{name: "the authorizations are read once the URL is stored", order: attempt(Attempt{URL: "u", AuthzURLs: []string{"z"}}, Queued), step: StepAuthorizations, reason: "AuthorizationsUnread"},
		{
			name: "answers in place are told to the CA", order: attempt(Attempt{URL: "u", Authorizations: []Authorization{{State: AuthzPresented}}}, Authorizing),
			step: StepRespond, reason: "AnswersInPlace",
		},
		{
			name: "while the CA validates it is polled", order: attempt(Attempt{URL: "u", Authorizations: []Authorization{{State: AuthzValidating}}}, Authorizing),
			step: StepPoll, reason: "CAValidates",
		},
		{
			name:  "authorizations are asked for again a tenth of a short life before they expire",
			order: attempt(Attempt{URL: "u", ExpiresAt: t0.Add(100 * time.Minute), Authorizations: []Authorization{{State: AuthzPending}}}, Authorizing),
			step:  StepExpire, reason: "AuthorizationsExpire", at: t0.Add(90 * time.Minute),
		},
		{
			name:  "authorizations are asked for again an hour before a long life ends",
			order: attempt(Attempt{URL: "u", ExpiresAt: t0.Add(48 * time.Hour), Authorizations: []Authorization{{State: AuthzPending}}}, Authorizing),
			step:  StepExpire, reason: "AuthorizationsExpire", at: t0.Add(47 * time.Hour),
		},
		{name: "finalize is sent under the lease that knows the order is ready", order: attempt(Attempt{URL: "u", Lease: "l1"}, Finalizing), lease: "l1", step: StepFinalize, reason: "ReadyToFinalize"},
		{name: "after a crash the CA is asked before finalize is sent", order: attempt(Attempt{URL: "u", Lease: "l1"}, Finalizing), lease: "l2", step: StepPoll, reason: "FinalizeUnanswered"},
		{name: "after finalize the order is polled", order: attempt(Attempt{URL: "u", Finalized: true}, Finalizing), step: StepPoll, reason: "FinalizeSent"},
		{name: "a certificate that is ready is fetched", order: attempt(Attempt{URL: "u", Finalized: true, CertificateURL: "c"}, Finalizing), step: StepDownload, reason: "CertificateReady"},
		{name: "an order gives up after thirty days", order: withCSR(fresh()), now: t0.Add(Longest), step: StepGiveUp, reason: "GiveUpReached"},
		{name: "an order that is finalizing never gives up", order: attempt(Attempt{URL: "u", Finalized: true}, Finalizing), now: t0.Add(2 * Longest), step: StepPoll, reason: "FinalizeSent"},
		{name: "a wait that ends after giving up ends in giving up", order: func() Order { o := withCSR(fresh()); o.RetryAt = t0.Add(2 * Longest); return o }(), step: StepGiveUp, reason: "GiveUpReached", at: t0.Add(Longest)},
		{name: "nothing is done for an order that is over", order: func() Order { o := fresh(); o.State = Issued; return o }(), step: StepNone, reason: "Finished"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			now := r.now
			if now.IsZero() {
				now = t0
			}
			require.Equal(t, Next{Step: r.step, Reason: r.reason, At: r.at}, r.order.Decide(r.lease, now))
		})
	}
}

func TestTheReplacedVersionsExpiryEndsTheOrder(t *testing.T) {
	o := New("ord_1", "crt_1", 2, 1, Spec{IssuerID: "iss_1"}, &Replaced{VersionID: "ver_1", IssuerID: "iss_1", ARICertID: "a.b", NotAfter: t0.Add(time.Hour)}, "ari", "", t0)
	require.Equal(t, t0.Add(time.Hour), o.GiveUpAt)
	o.CSR = []byte{1}
	require.NoError(t, o.OpenAttempt("acc_1", "l", t0))
	require.Equal(t, "a.b", o.Attempt().Replaces)
}

func TestARefusedReplacementIsOrderedAgainWithoutIt(t *testing.T) {
	o := New("ord_1", "crt_1", 2, 1, Spec{IssuerID: "iss_1"}, &Replaced{VersionID: "ver_1", IssuerID: "iss_1", ARICertID: "a.b", NotAfter: t0.Add(90 * 24 * time.Hour)}, "ari", "", t0)
	o.CSR = []byte{1}
	require.NoError(t, o.OpenAttempt("acc_1", "l", t0))
	_, err := o.Trouble(&Problem{Reason: "REPLACES_REFUSED", Type: "urn:ietf:params:acme:error:alreadyReplaced", Detail: "gone"}, 0, t0)
	require.NoError(t, err)
	require.Equal(t, Queued, o.State)
	require.NoError(t, o.OpenAttempt("acc_1", "l", t0))
	require.Empty(t, o.Attempt().Replaces)
	require.Equal(t, int64(2), o.Attempt().Number)
}

// A CA model that answers anything legal, a worker that crashes anywhere: finalize goes to one order per intent.
func TestWhateverTheCAAnswersOneOrderIsFinalized(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := fresh()
		o.HaveCSR("key_1", []byte{1}, "spki")
		finalized := map[string]bool{}
		status := map[string]string{} // at the CA
		lease, now, n := "l0", t0, 0
		for i := range 60 {
			now = now.Add(time.Minute)
			if rapid.Bool().Draw(r, "crash") {
				lease = "l" + string(rune('a'+i%26)) + lease[:1]
			}
			next := o.Decide(lease, now)
			lost := rapid.IntRange(0, 4).Draw(r, "lost") == 0
			switch next.Step {
			case StepOpenAttempt:
				require.NoError(r, o.OpenAttempt("acc", lease, now))
			case StepUnknown:
				o.Unknown()
			case StepNewOrder:
				n++
				url := "order/" + string(rune('0'+n%10)) + string(rune('0'+n/10))
				status[url] = "pending"
				if lost {
					lease += "x"
					continue
				}
				o.Ordered(CAOrder{URL: url, AuthzURLs: []string{"z"}})
			case StepAuthorizations:
				_, err := o.NeedAuthorizations([]Authorization{{Identifier: "www.example.org", State: AuthzPending}}, lease, now)
				require.NoError(r, err)
			case StepNone:
				if o.State.Final() {
					break
				}
				o.Presented(o.Attempt().Number, 0, "chl", "http-01")
			case StepRespond:
				status[o.Attempt().URL] = "ready"
				if !lost {
					o.Responded([]int64{0})
				}
			case StepPoll:
				if !lost {
					_, err := o.Polled(CAOrder{Status: status[o.Attempt().URL], CertificateURL: "cert"}, nil, lease, now)
					require.NoError(r, err)
				}
			case StepFinalize:
				require.NotEmpty(r, o.Attempt().URL, "finalize is sent only for a stored URL")
				require.Equal(r, "ready", status[o.Attempt().URL], "finalize is sent only to an order that is ready")
				finalized[o.Attempt().URL] = true
				status[o.Attempt().URL] = "valid"
				if lost {
					lease += "y"
					continue
				}
				_, err := o.Finalized(CAOrder{Status: "processing"}, now)
				require.NoError(r, err)
			case StepDownload:
				_, err := o.HaveCertificate([][]byte{{1}}, now)
				require.NoError(r, err)
			case StepExpire, StepGiveUp, StepEnsureCSR:
				r.Fatalf("unexpected step %s", next.Step)
			}
		}
		require.LessOrEqual(r, len(finalized), 1)
		if o.State == Issued {
			require.Len(r, finalized, 1)
		}
	})
}

func TestCancelIsRefusedOnceFinalizing(t *testing.T) {
	for _, s := range States() {
		o := fresh()
		o.State = s
		_, ok := o.Cancel("user", t0)
		require.Equal(t, s == Queued || s == Authorizing, ok, string(s))
	}
}

func TestABlockIsToldOnceAReason(t *testing.T) {
	o := fresh()
	require.Len(t, o.Block(&Problem{Reason: "CA_UNREACHABLE"}, t0), 1)
	require.Empty(t, o.Block(&Problem{Reason: "CA_UNREACHABLE"}, t0))
	require.Len(t, o.Block(&Problem{Reason: "RATE_LIMITED"}, t0), 1)
	require.Len(t, o.Unblock(), 1)
	require.Empty(t, o.Unblock())
}

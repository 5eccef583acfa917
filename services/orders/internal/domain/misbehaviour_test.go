package domain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// at is an order in a state, with an open attempt that has a URL.
func at(state State) Order {
	o := fresh()
	o.HaveCSR("key_1", []byte{1}, "spki")
	if err := o.OpenAttempt("acc_1", "l", t0); err != nil {
		panic(err)
	}
	o.Ordered(CAOrder{URL: "u", FinalizeURL: "f", AuthzURLs: []string{"z"}, ExpiresAt: t0.Add(7 * 24 * time.Hour)})
	if state == Queued {
		return o
	}
	if _, err := o.NeedAuthorizations([]Authorization{{URL: "z", Identifier: "www.example.org", State: AuthzPending, Offered: []Offer{{Type: "http-01"}}}}, "l", t0); err != nil {
		panic(err)
	}
	if state == Finalizing {
		if _, err := o.Polled(CAOrder{Status: "ready"}, nil, "l", t0); err != nil {
			panic(err)
		}
	}
	return o
}

func TestNothingButTheWordInvalidEndsAnAttemptThatFinalizes(t *testing.T) {
	gone := &Problem{Reason: "CA_REFUSED", Detail: "no such order"}
	o := at(Finalizing)
	_, err := o.Finalized(CAOrder{Status: "processing"}, t0)
	require.NoError(t, err)
	for range 50 {
		_, err := o.Gone(gone.Clone(), t0.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, Finalizing, o.State, "404 after finalize does not say that no certificate came of it")
		require.Len(t, o.Attempts, 1)
	}
	require.Equal(t, "CA_REFUSED", o.Blocked.Reason)
	_, err = o.Polled(CAOrder{Status: "invalid", Problem: &Problem{Type: "urn:ietf:params:acme:error:serverInternal"}}, nil, "l", t0)
	require.NoError(t, err)
	require.Equal(t, Queued, o.State)
}

func TestACAThatStaysSilentAfterFinalizeIsGivenUpAfterItWasAskedOnceMore(t *testing.T) {
	o := at(Finalizing)
	require.Equal(t, t0.Add(24*time.Hour), o.SilentAt)
	_, err := o.Finalized(CAOrder{Status: "processing", RetryAfter: 30 * 24 * time.Hour}, t0)
	require.NoError(t, err)
	require.Equal(t, o.SilentAt, o.Decide("x", t0).At, "the moment is not slept over")
	late := t0.Add(72 * time.Hour) // nobody was there meanwhile
	require.Equal(t, StepPoll, o.Decide("x", late).Step, "the CA is asked first")
	issued := o.Clone()
	_, err = issued.Polled(CAOrder{Status: "valid", CertificateURL: "c"}, nil, "x", late)
	require.NoError(t, err)
	require.Equal(t, StepDownload, issued.Decide("x", late).Step)
	_, err = o.Polled(CAOrder{Status: "processing"}, nil, "x", late)
	require.NoError(t, err)
	require.Equal(t, Failed, o.State)
	require.Equal(t, "GAVE_UP", o.Problem.Reason)
	require.Equal(t, AttemptAbandoned, o.Attempts[0].State)
}

func TestTheSafeLimitOfTheReplacedVersionBoundsTheSilence(t *testing.T) {
	for _, r := range []struct {
		name      string
		life      time.Duration
		left      time.Duration
		wantAfter time.Duration
	}{
		{"ten percent of ninety days", 90 * 24 * time.Hour, 30 * 24 * time.Hour, 21 * 24 * time.Hour},
		{"a day of a short life", 6 * 24 * time.Hour, 3 * 24 * time.Hour, 2 * 24 * time.Hour},
		{"an hour when the limit has passed", 90 * 24 * time.Hour, 5 * 24 * time.Hour, time.Hour},
	} {
		o := Order{Replaces: &Replaced{NotAfter: t0.Add(r.left), NotBefore: t0.Add(r.left - r.life)}}
		require.Equal(t, r.wantAfter, o.silentAt(t0).Sub(t0), r.name)
	}
}

func TestReadyAfterFinalizeIsFinalizedAgainEverMoreSlowly(t *testing.T) {
	o, now, last := at(Finalizing), t0, time.Duration(0)
	for range 6 {
		_, err := o.Finalized(CAOrder{Status: "processing"}, now)
		require.NoError(t, err)
		_, err = o.Polled(CAOrder{Status: "ready"}, nil, "l", now)
		require.NoError(t, err)
		next := o.Decide("l", now)
		require.Equal(t, StepFinalize, next.Step)
		require.Greater(t, next.At.Sub(now), last)
		last, now = next.At.Sub(now), next.At
	}
}

func TestAValidOrderWithoutCertificateURLIsPolledAndNotSpunOn(t *testing.T) {
	o := at(Finalizing)
	_, err := o.Finalized(CAOrder{Status: "valid"}, t0)
	require.NoError(t, err)
	require.True(t, o.Decide("l", t0).At.After(t0))
}

func TestAttemptsThatTheCAMakesVoidAreRepeatedSlowlyAndNotForEver(t *testing.T) {
	rows := map[string]func(o *Order, now time.Time) error{
		"an order that is gone": func(o *Order, now time.Time) error { _, err := o.Gone(&Problem{Reason: "CA_REFUSED"}, now); return err },
		"an authorization that is void already": func(o *Order, now time.Time) error {
			_, err := o.NeedAuthorizations([]Authorization{{State: AuthzExpired}}, "l", now)
			return err
		},
		"an invalid order without a wrong answer": func(o *Order, now time.Time) error {
			_, err := o.Polled(CAOrder{Status: "invalid"}, []Authorization{{URL: "z", State: AuthzExpired}}, "l", now)
			return err
		},
		"authorizations that expire at once": func(o *Order, now time.Time) error { _, err := o.Expire(now); return err },
	}
	for name, void := range rows {
		o, now := fresh(), t0
		o.CSR = []byte{1}
		n := 0
		for ; o.State == Queued; n++ {
			next := o.Decide("l", now)
			require.Equal(t, StepOpenAttempt, next.Step, name)
			now = now.Add(max(0, next.At.Sub(now)))
			require.NoError(t, o.OpenAttempt("acc", "l", now))
			o.Ordered(CAOrder{URL: "u", AuthzURLs: []string{"z"}})
			require.NoError(t, void(&o, now), name)
		}
		require.Equal(t, Failed, o.State, name)
		require.Equal(t, maxVoided, n, name)
		require.Greater(t, now.Sub(t0), 8*time.Minute, name)
	}
}

func TestAReplacementThatIsAnsweredWith5xxIsTriedWithoutIt(t *testing.T) {
	o := New("ord_1", "crt_1", 2, 1, Spec{IssuerID: "iss_1"}, &Replaced{VersionID: "ver_1", IssuerID: "iss_1", ARICertID: "a.b", NotAfter: t0.Add(90 * 24 * time.Hour)}, "ari", "", t0)
	o.CSR = []byte{1}
	var sent []string
	for range 6 {
		require.NoError(t, o.OpenAttempt("acc_1", "l", t0))
		sent = append(sent, o.Attempt().Replaces)
		o.Unknown()
		_, err := o.Trouble(&Problem{Reason: "CA_ERROR", Retrying: true}, 0, t0)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"a.b", "a.b", "", "a.b", "a.b", ""}, sent)
}

func TestAReplacementRefusedWithoutAProblemTypeIsDroppedToo(t *testing.T) {
	o := New("ord_1", "crt_1", 2, 1, Spec{IssuerID: "iss_1"}, &Replaced{VersionID: "ver_1", IssuerID: "iss_1", ARICertID: "a.b", NotAfter: t0.Add(90 * 24 * time.Hour)}, "ari", "", t0)
	o.CSR = []byte{1}
	require.NoError(t, o.OpenAttempt("acc_1", "l", t0))
	_, err := o.Trouble(&Problem{Reason: "CA_REFUSED", Detail: "404"}, 0, t0)
	require.NoError(t, err)
	require.True(t, o.NoReplaces)
	require.Equal(t, Queued, o.State)
}

func TestAWrongAnswerFailsTheOrderWithWhatTheCASaid(t *testing.T) {
	o := at(Authorizing)
	require.True(t, o.Presented(1, 0, "chl", "http-01"))
	o.Responded([]int64{0})
	facts, err := o.Polled(CAOrder{Status: "invalid"}, []Authorization{{URL: "z", State: AuthzInvalid, Problem: &Problem{Type: "dns", Detail: "NXDOMAIN"}}}, "l", t0)
	require.NoError(t, err)
	require.Equal(t, Failed, o.State)
	require.Equal(t, []Subproblem{{Identifier: "www.example.org", Type: "dns", Detail: "NXDOMAIN"}}, o.Problem.Subproblems)
	require.Len(t, facts, 2, "the authorization is closed, and the order has failed")
}

func TestWhatTheCASaidOfANameAndOfItsWildcardIsSaidOnce(t *testing.T) {
	o := at(Queued)
	_, err := o.NeedAuthorizations([]Authorization{
		{URL: "y", Identifier: "example.org", State: AuthzPending}, {URL: "z", Identifier: "example.org", Wildcard: true, State: AuthzPending},
	}, "l", t0)
	require.NoError(t, err)
	_, err = o.Polled(CAOrder{Status: "invalid"}, []Authorization{
		{URL: "y", State: AuthzInvalid, Problem: &Problem{Type: "dns", Detail: "NXDOMAIN"}},
		{URL: "z", State: AuthzInvalid, Problem: &Problem{Type: "dns", Detail: "NXDOMAIN"}},
	}, "l", t0)
	require.NoError(t, err)
	require.Equal(t, "the CA could not validate control of the names: example.org: NXDOMAIN", o.Problem.Detail)
	require.Len(t, o.Problem.Subproblems, 1)
}

func TestANameProvenEarlierIsClosedWhileAnotherWaitsForAPerson(t *testing.T) {
	o := at(Queued)
	_, err := o.NeedAuthorizations([]Authorization{
		{URL: "y", State: AuthzPending, Offered: []Offer{{Type: "http-01"}}}, {URL: "z", State: AuthzPending, Offered: []Offer{{Type: "dns-01"}}},
	}, "l", t0)
	require.NoError(t, err)
	require.True(t, o.Presented(1, 0, "chl", "http-01"))
	o.Responded([]int64{0})
	facts, err := o.Polled(CAOrder{Status: "pending"}, []Authorization{{URL: "y", State: AuthzValid}, {URL: "z", State: AuthzPending}}, "l", t0)
	require.NoError(t, err)
	require.Len(t, facts, 1)
	o.RetryAt = time.Time{}
	require.Equal(t, StepExpire, o.Decide("l", t0).Step, "the CA is not polled for days")
	require.True(t, o.Decide("l", t0).At.After(t0))
}

func TestWhatTheCAForgotIsNotPolledForEver(t *testing.T) {
	o := at(Authorizing)
	require.True(t, o.Presented(1, 0, "chl", "http-01"))
	o.Responded([]int64{0})
	require.Equal(t, StepPoll, o.Decide("l", t0).Step)
	require.Equal(t, StepExpire, o.Decide("l", t0.Add(8*24*time.Hour)).Step)
}

func TestACAThatAnswersAgainUnblocks(t *testing.T) {
	o := at(Authorizing)
	_, err := o.Trouble(&Problem{Reason: "CA_UNREACHABLE", Retrying: true}, 0, t0)
	require.NoError(t, err)
	require.NotNil(t, o.Blocked)
	_, err = o.Polled(CAOrder{Status: "pending"}, nil, "l", t0)
	require.NoError(t, err)
	require.Nil(t, o.Blocked)
}

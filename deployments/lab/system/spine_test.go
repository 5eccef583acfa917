package system_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
)

// hasty shortens what operators want patient.
func hasty(cfg *certwright.Config) {
	cfg.Timing.FirstRepeat, cfg.Timing.MaxRepeat = time.Second, 3*time.Second
	cfg.Timing.OutboxSweep, cfg.Timing.Abandoned = 200*time.Millisecond, time.Second
	cfg.Timing.Heal, cfg.Timing.WorkerSweep = time.Second, 500*time.Millisecond
	cfg.Orders.ARIMinRetry, cfg.Renewals.ARIMinInterval = time.Second, time.Second
}

func start(t *testing.T, o stage.Options) (*stage.Stage, *ordersv1.Issuer) {
	t.Helper()
	o.Dir = t.TempDir()
	ctl := labtest.Sitectl(t)
	o.ReloadCommand = func(control string) []string { return []string{ctl, "reload", control} }
	if o.Change == nil {
		o.Change = hasty
	}
	ctx := labtest.Deadline(t, 2*time.Minute)
	s, err := stage.Start(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	issuer, err := s.Issuer(ctx, "lab CA")
	require.NoError(t, err)
	return s, issuer
}

// Pebble in strict mode, a fifth of the nonces refused, no authorization reused.
func TestTheFirstCertificatesOnAStrictCA(t *testing.T) {
	s, issuer := start(t, stage.Options{CA: ca.Options{Strict: true, NonceReject: 20}})
	ctx := labtest.Deadline(t, 90*time.Second)
	_, err := s.DNSAccount(ctx, "lab DNS")
	require.NoError(t, err)
	rows := []struct {
		name, challenge string
		names           []string
		algorithm       string
	}{
		{"one name by http-01", "http-01", []string{"www.shop.test"}, ""},
		{"wildcard and apex by dns-01: two values at one name", "dns-01", []string{"*.shop.test", "shop.test"}, "ECDSA_P384"},
		{"twenty names by the way that fits each", "auto", many(20), "RSA_2048"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			made := &inventoryv1.Certificate{}
			require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{Certificate: &inventoryv1.Certificate{
				Owner: "ops@shop.test", Spec: &typesv1.CertificateSpec{Issuer: issuer.GetId(), Names: r.names, KeyAlgorithm: r.algorithm, Challenge: &typesv1.ChallengeSpec{Type: r.challenge}},
			}}, made))
			got, err := s.Version(ctx, made.GetId(), "")
			require.NoError(t, err)
			require.ElementsMatch(t, r.names, got.GetCurrentVersion().GetFacts().GetNames())
			require.Equal(t, "active", got.GetState())
			planned(ctx, t, s, made.GetId(), got.GetCurrentVersion().GetFacts().GetVersionId())
		})
	}
	clean(ctx, t, s)
}

func many(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("n%02d.shop.test", i))
	}
	return out
}

// planned waits until renewals has a plan for the version.
func planned(ctx context.Context, t *testing.T, s *stage.Stage, id, version string) {
	t.Helper()
	require.NoError(t, stage.Until(ctx, s, "/v1/renewals/"+id, &renewalsv1.Renewal{}, func(r *renewalsv1.Renewal) bool {
		return r.GetVersionId() == version && r.GetState() == "waiting" && r.GetDueAt() != nil
	}))
}

// clean waits until no challenge record is left in the zone.
func clean(ctx context.Context, t *testing.T, s *stage.Stage) {
	t.Helper()
	for len(s.DNS.Snapshot()) > 0 {
		select {
		case <-ctx.Done():
			require.Empty(t, s.DNS.Snapshot(), "challenge records are left")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Each request is sent three times at once by its requestId.
func TestRequestsSentThreeTimesMakeOneOrderEach(t *testing.T) {
	n := 40
	if full() {
		n = 500
	}
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 4*time.Minute)
	ids := make([][3]string, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 48)
	for i := range n {
		for j := range 3 {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				out := &inventoryv1.Certificate{}
				err := s.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{
					RequestId: fmt.Sprintf("req-%d", i), Certificate: &inventoryv1.Certificate{Owner: "ops@shop.test", Spec: &typesv1.CertificateSpec{
						Issuer: issuer.GetId(), Names: []string{fmt.Sprintf("c%d.shop.test", i)}, Challenge: &typesv1.ChallengeSpec{Type: "http-01"},
					}},
				}, out)
				if err != nil {
					t.Errorf("request %d: %v", i, err)
				}
				ids[i][j] = out.GetId()
			})
		}
	}
	wg.Wait()
	for i := range ids {
		require.Equal(t, ids[i][0], ids[i][1])
		require.Equal(t, ids[i][0], ids[i][2])
		_, err := s.Version(ctx, ids[i][0], "")
		require.NoError(t, err)
	}
	require.Equal(t, n, s.CA.Counts().Of(ca.NewOrder).Succeeded)
	require.Len(t, s.CA.Orders(), n)
}

func TestAHundredConcurrentRenewalsMakeOneOrder(t *testing.T) {
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 90*time.Second)
	made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, "www.shop.test")
	require.NoError(t, err)
	first, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	planned(ctx, t, s, made.GetId(), first.GetCurrentVersion().GetFacts().GetVersionId())
	hung := s.CA.Inject(ca.Fault{Match: ca.On(ca.NewOrder), Do: ca.Delay(time.Second)}) // so that all hundred meet the open intent
	var wg sync.WaitGroup
	orders := make([]string, 100)
	for i := range orders {
		wg.Go(func() {
			out := &inventoryv1.RequestVersionResponse{}
			if err := s.Call(ctx, http.MethodPost, "/v1/certificates/"+made.GetId()+":renew", &inventoryv1.RenewCertificateRequest{}, out); err != nil {
				t.Error(err)
			}
			orders[i] = out.GetOrderId()
		})
	}
	wg.Wait()
	hung.Lift()
	for _, o := range orders {
		require.Equal(t, orders[0], o)
	}
	_, err = s.Version(ctx, made.GetId(), first.GetCurrentVersion().GetFacts().GetVersionId())
	require.NoError(t, err)
	require.Len(t, s.CA.Orders(), 2)
}

// A name added while the order authorizes ends in a version that has it.
func TestANameAddedMeanwhileIsInTheVersion(t *testing.T) {
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 90*time.Second)
	hold := s.CA.Inject(ca.Fault{Match: ca.On(ca.Challenge), Do: ca.Unavailable(time.Second)})
	made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, "www.shop.test")
	require.NoError(t, err)
	require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+made.GetIntent().GetOrderId(), &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetState() == "authorizing" }))
	require.NoError(t, s.Call(ctx, http.MethodPatch, "/v1/certificates/"+made.GetId(), &inventoryv1.UpdateCertificateRequest{
		Certificate: &inventoryv1.Certificate{Spec: &typesv1.CertificateSpec{Names: []string{"www.shop.test", "new.shop.test"}}},
	}, nil))
	hold.Lift()
	got, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"www.shop.test", "new.shop.test"}, got.GetCurrentVersion().GetFacts().GetNames())
	finalized := 0
	for _, o := range s.CA.Orders() {
		if o.Finalized {
			finalized++
		}
	}
	require.Equal(t, 1, finalized, "the cancelled order is not finalized")
}

// The CA's outages and refusals: what the order says, and that it goes on.
func TestWhatAUserSeesWhenTheCAFails(t *testing.T) {
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, 2*time.Minute)
	request := func(name string) string {
		made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, name)
		require.NoError(t, err)
		return made.GetIntent().GetOrderId()
	}
	blocked := func(order, reason, says string) {
		t.Helper()
		require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+order, &ordersv1.Order{}, func(o *ordersv1.Order) bool {
			return o.GetBlocked().GetReason() == reason && strings.Contains(o.GetBlocked().GetDetail(), says)
		}))
	}
	failed := func(order, reason, says string) {
		t.Helper()
		require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+order, &ordersv1.Order{}, func(o *ordersv1.Order) bool {
			return o.GetState() == "failed" && o.GetProblem().GetReason() == reason && strings.Contains(o.GetProblem().GetDetail(), says)
		}))
	}
	issued := func(order string) {
		t.Helper()
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/orders/"+order+":retry", &ordersv1.RetryOrderRequest{}, nil))
		require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+order, &ordersv1.Order{}, func(o *ordersv1.Order) bool { return o.GetState() == "issued" }))
	}
	t.Run("the CA cannot be reached", func(t *testing.T) {
		s.CA.SetDown(true)
		o := request("down.shop.test")
		blocked(o, "CA_UNREACHABLE", "check acme.directoryUrl")
		s.CA.SetDown(false)
		issued(o)
	})
	t.Run("the CA limits the rate", func(t *testing.T) {
		f := s.CA.Inject(ca.Fault{Match: ca.On(ca.NewOrder), Times: 1, Do: ca.RateLimited(2 * time.Second)})
		o := request("limited.shop.test")
		blocked(o, "RATE_LIMITED", "")
		f.Lift()
		got := &ordersv1.Order{}
		require.NoError(t, s.Call(ctx, http.MethodGet, "/v1/orders/"+o, nil, got))
		require.Greater(t, time.Until(got.GetNextTime().AsTime()), time.Second, "Retry-After is law")
		issued(o)
	})
	t.Run("the CA returns another certificate", func(t *testing.T) {
		f := s.CA.Inject(ca.Fault{Match: ca.On(ca.Certificate), Do: ca.SwapCertificate(func(original []byte) []byte {
			swapped, err := ca.ForeignChain(original)
			if err != nil {
				return original
			}
			return swapped
		})})
		failed(request("swapped.shop.test"), "CERTIFICATE_MISMATCH", "its chain does not end in the issuer's roots")
		f.Lift()
	})
	t.Run("the clock is off", func(t *testing.T) {
		s.CA.SetDateSkew(10 * time.Minute)
		test := &ordersv1.TestIssuerResponse{} // any answer of the CA shows it
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers/"+issuer.GetId()+":test", &ordersv1.TestIssuerRequest{}, test))
		require.InDelta(t, (10 * time.Minute).Milliseconds(), test.GetClockSkewMs(), 5000)
		o := request("skewed.shop.test")
		blocked(o, "CLOCK_SKEW", "Set the clock")
		s.CA.SetDateSkew(0)
	})
}

func TestAnIssuerWithAnUntrustedRootSaysSo(t *testing.T) {
	s, _ := start(t, stage.Options{})
	ctx := labtest.Deadline(t, time.Minute)
	made := &ordersv1.Issuer{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{
		DisplayName: "untrusted", Kind: "acme", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: s.CA.DirectoryURL(), TermsAgreed: true},
	}}, made))
	test := &ordersv1.TestIssuerResponse{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers/"+made.GetId()+":test", &ordersv1.TestIssuerRequest{}, test))
	require.False(t, test.GetReachable())
	require.Equal(t, "CA_UNTRUSTED", test.GetProblem().GetReason())
	require.Contains(t, test.GetProblem().GetDetail(), "acme.trustRootsPem")
}

// Bad input at the edge: what was given, what is allowed, how to mend it, and the right status.
func TestBadInputIsAnsweredClearly(t *testing.T) {
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, time.Minute)
	spec := func(names ...string) string {
		return fmt.Sprintf(`{"certificate":{"owner":"o@shop.test","spec":{"issuer":%q,"names":["%s"]}}}`, issuer.GetId(), strings.Join(names, `","`))
	}
	rows := []struct {
		name, body string
		status     int
		says       []string
	}{
		{"a label of 64 characters", spec(strings.Repeat("a", 64) + ".shop.test"), 400, []string{"63"}},
		{"an underscore", spec("a_b.shop.test"), 400, []string{"a_b.shop.test"}},
		{"a wildcard in the middle", spec("www.*.shop.test"), 400, []string{"www.*.shop.test"}},
		{"an IP address", spec("192.0.2.1"), 400, []string{"192.0.2.1"}},
		{"101 names", spec(many(101)...), 400, []string{"101", "100"}},
		{"a name twice, by case", spec("www.shop.test", "WWW.shop.test"), 400, []string{"spec.names[1]"}},
		{"a name twice, by IDN form", spec("bücher.shop.test", "xn--bcher-kva.shop.test"), 400, []string{"spec.names[1]"}},
		{"no name", fmt.Sprintf(`{"certificate":{"spec":{"issuer":%q}}}`, issuer.GetId()), 400, []string{"names"}},
		{"an unknown issuer", `{"certificate":{"spec":{"issuer":"nobody","names":["www.shop.test"]}}}`, 400, []string{"nobody"}},
		{"a weak key", fmt.Sprintf(`{"certificate":{"spec":{"issuer":%q,"names":["w.shop.test"],"keyAlgorithm":"RSA_1024"}}}`, issuer.GetId()), 400, []string{"RSA_1024", "RSA_2048"}},
		{"a date in the past", fmt.Sprintf(`{"certificate":{"spec":{"issuer":%q,"names":["w.shop.test"],"notAfter":"2020-01-01T00:00:00Z"}}}`, issuer.GetId()), 400, []string{"2020-01-01"}},
		{"malformed JSON", `{"certificate":`, 400, nil},
		{"an unknown field", `{"certificate":{"colour":"blue"}}`, 400, []string{"colour"}},
		{"a body of 10 MB", `{"requestId":"` + strings.Repeat("x", 10<<20) + `"}`, 413, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			_, err := s.Raw(ctx, http.MethodPost, "/v1/certificates", []byte(r.body))
			var refused *client.Error
			require.True(t, errors.As(err, &refused), "%v", err)
			require.Equal(t, r.status, refused.Status, refused.Body)
			for _, says := range r.says {
				require.Contains(t, refused.Body, says)
			}
		})
	}
	require.Empty(t, s.CA.Orders(), "nothing was ordered")
}

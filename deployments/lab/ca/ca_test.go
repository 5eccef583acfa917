package ca_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/internal/acmetest"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/shared/clock"
)

const name = "www.lab.test"

func nothing([]acmetest.Proof) {}

// friendly starts a CA that validates nothing, with an account.
func friendly(t *testing.T, o ca.Options) (*ca.Server, *acmetest.Client) {
	t.Helper()
	o.AlwaysValid = true
	s := labtest.CA(t, o)
	return s, acmetest.New(t, s, "", "")
}

func TestACertificateIsIssuedByHTTP01WhileOneInFiveNoncesIsRefused(t *testing.T) {
	r := acmetest.NewResponder(t)
	d := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}})
	s := labtest.CA(t, ca.Options{Strict: true, NonceReject: 20, HTTPPort: r.Port, DNSServer: d.Addr()})
	c := acmetest.New(t, s, "", "")

	chain := c.Obtain(t, []string{name, "lab.test"}, nil, "http-01", r.Present)

	leaf := acmetest.Leaf(t, s, chain)
	require.ElementsMatch(t, []string{name, "lab.test"}, leaf.DNSNames)
	require.InDelta(t, 90*24, leaf.NotAfter.Sub(leaf.NotBefore).Hours(), 1)
	counts := s.Counts()
	for _, e := range []ca.Endpoint{
		ca.Directory, ca.NewNonce, ca.NewAccount, ca.NewOrder, ca.Order, ca.Authz, ca.Challenge, ca.Finalize, ca.Certificate,
	} {
		require.Positive(t, counts.Of(e).Succeeded, e)
	}
	require.Equal(t, 1, counts.Of(ca.NewOrder).Succeeded)
	require.Positive(t, counts.Nonces)
	orders := s.Orders()
	require.Len(t, orders, 1)
	require.Equal(t, "valid", orders[0].Status)
	require.True(t, orders[0].Finalized)
	require.Equal(t, chain, orders[0].Chain)
}

func TestAWrongAnswerToAChallengeMakesTheOrderInvalid(t *testing.T) {
	r := acmetest.NewResponder(t)
	d := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}})
	s := labtest.CA(t, ca.Options{HTTPPort: r.Port, DNSServer: d.Addr()})
	c := acmetest.New(t, s, "", "")
	order, err := c.Core.Orders.New([]string{name})
	require.NoError(t, err)
	authz, err := c.Core.Authorizations.Get(order.Authorizations[0])
	require.NoError(t, err)
	for _, chal := range authz.Challenges {
		if chal.Type == "http-01" {
			_, err = c.Core.Challenges.New(chal.URL)
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool { return s.Orders()[0].Status == "invalid" }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, s.Orders()[0].Error, "404")
	require.False(t, s.Orders()[0].Finalized)
}

func TestNoncesAreRefusedAtTheGivenRate(t *testing.T) {
	s, _ := friendly(t, ca.Options{NonceReject: 50})
	require.Eventually(t, func() bool {
		_ = acmetest.New(t, s, "", "")
		return s.Counts().Problems["badNonce"] > 0
	}, 20*time.Second, time.Millisecond)
	s, _ = friendly(t, ca.Options{})
	require.Zero(t, s.Counts().Problems["badNonce"])
}

func TestAnAccountNeedsAnExternalBindingWhenTheCAHasKeys(t *testing.T) {
	const hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	s := labtest.CA(t, ca.Options{EABKeys: map[string]string{"kid-1": hmac}})
	require.NotEmpty(t, acmetest.New(t, s, "kid-1", hmac).KID)

	core, err := api.New(s.HTTPClient(), "lab-test", s.DirectoryURL(), "", acmetest.NewKey(t))
	require.NoError(t, err)
	_, err = core.Accounts.New(acme.Account{TermsOfServiceAgreed: true})
	require.ErrorContains(t, err, "externalAccountRequired")
}

func TestProfilesDecideValidity(t *testing.T) {
	s, c := friendly(t, ca.Options{Profiles: map[string]ca.Profile{
		"shortlived": {Description: "six days", Validity: 160 * time.Hour},
		"classic":    {Validity: 2160 * time.Hour, CommonName: true},
	}})
	for profile, hours := range map[string]float64{"shortlived": 160, "classic": 2160} {
		chain := c.Obtain(t, []string{name}, &api.OrderOptions{Profile: profile}, "http-01", nothing)
		leaf := acmetest.Leaf(t, s, chain)
		require.InDelta(t, hours, leaf.NotAfter.Sub(leaf.NotBefore).Hours(), 0.01, profile)
	}
	_, err := c.Core.Orders.NewWithOptions([]string{name}, &api.OrderOptions{Profile: "unknown"})
	require.ErrorContains(t, err, "invalidProfile")
}

func TestAuthorizationsAreReusedOnlyWhenAskedFor(t *testing.T) {
	for _, row := range []struct {
		name   string
		reuse  int
		status string
	}{
		{"a reuse of 0 percent asks for every name again, every time", 0, "pending"},
		{"a reuse of 100 percent finds the name proven", 100, "ready"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, c := friendly(t, ca.Options{AuthzReuse: row.reuse})
			c.Obtain(t, []string{name}, nil, "http-01", nothing)
			for range 200 {
				order, err := c.Core.Orders.New([]string{name})
				require.NoError(t, err)
				require.Equal(t, row.status, order.Status)
			}
		})
	}
}

func TestRenewalInformationIsOfferedAndCanBeSet(t *testing.T) {
	s, c := friendly(t, ca.Options{RenewalRetryAfter: 90 * time.Second})
	require.NotEmpty(t, c.Core.GetDirectory().RenewalInfo)
	chain := c.Obtain(t, []string{name}, nil, "http-01", nothing)
	leaf := acmetest.Leaf(t, s, chain)
	certID, err := certificate.MakeARICertID(leaf)
	require.NoError(t, err)
	require.Equal(t, certID, ca.CertID(leaf))
	require.Equal(t, certID, s.Orders()[0].CertID)

	start := clock.System().Now().Truncate(time.Second).Add(time.Hour)
	window := ca.Window{Start: start, End: start.Add(time.Hour), Explanation: "https://ca.test/why"}
	for label, ref := range map[string]string{
		"a CertID": certID, "a serial": leaf.SerialNumber.Text(16), "a chain": string(chain),
	} {
		require.NoError(t, s.SetRenewalInfo(ref, window), label)
		resp, err := c.Core.Certificates.GetRenewalInfo(certID)
		require.NoError(t, err)
		var got struct {
			SuggestedWindow struct{ Start, End time.Time }
			ExplanationURL  string
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
		require.NoError(t, resp.Body.Close())
		require.Equal(t, window, ca.Window{got.SuggestedWindow.Start, got.SuggestedWindow.End, got.ExplanationURL}, label)
		require.Equal(t, "90", resp.Header.Get("Retry-After"))
		window.Start = window.Start.Add(time.Minute)
	}
	n, err := s.SetRenewalInfoAll(window)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Error(t, s.SetRenewalInfo("no reference", window))
	require.Error(t, s.SetRenewalInfo("abcdef", window), "nothing was issued with that serial")
	require.Equal(t, 3, s.Counts().Of(ca.RenewalInfo).Succeeded)

	plain := labtest.CA(t, ca.Options{WithoutRenewalInfo: true})
	core, err := api.New(plain.HTTPClient(), "lab-test", plain.DirectoryURL(), "", acmetest.NewKey(t))
	require.NoError(t, err)
	require.Empty(t, core.GetDirectory().RenewalInfo)
	require.NotEmpty(t, core.GetDirectory().NewOrderURL)
}

// lego repeats a newOrder without its "replaces" when the CA says alreadyReplaced, so the refusal is seen in the
// CA's counts and the order that came of it replaces nothing.
func TestACertificateIsReplacedOnce(t *testing.T) {
	for _, row := range []struct {
		name     string
		options  ca.Options
		finalize bool // the first replacing order, before the second is asked for
		refused  int
	}{
		{"Pebble refuses a second replacement once the first is finalized", ca.Options{}, true, 1},
		{"Pebble takes a second replacement while the first is pending", ca.Options{}, false, 0},
		{"Boulder's way refuses it while the first is pending", ca.Options{ReplacedWhenOrdered: true}, false, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, c := friendly(t, row.options)
			leaf := acmetest.Leaf(t, s, c.Obtain(t, []string{name}, nil, "http-01", nothing))
			replace := &api.OrderOptions{ReplacesCertID: ca.CertID(leaf)}

			first, err := c.Core.Orders.NewWithOptions([]string{name}, replace)
			require.NoError(t, err)
			require.Equal(t, ca.CertID(leaf), first.Replaces)
			if row.finalize {
				c.Prove(t, first, "http-01", nothing)
				c.Finalize(t, first)
			}
			require.Equal(t, row.finalize, s.Orders()[0].Replaced)

			second, err := c.Core.Orders.NewWithOptions([]string{name}, replace)
			require.NoError(t, err)
			require.Equal(t, row.refused, s.Counts().Problems["alreadyReplaced"])
			require.Equal(t, row.refused == 1, second.Replaces == "")
			require.Equal(t, second.Replaces, s.Orders()[2].Replaces)
		})
	}
}

func TestRevocationIsSeen(t *testing.T) {
	s, c := friendly(t, ca.Options{})
	chain := c.Obtain(t, []string{name}, nil, "http-01", nothing)
	leaf := acmetest.Leaf(t, s, chain)
	_, revoked, err := s.Revoked(string(chain))
	require.NoError(t, err)
	require.False(t, revoked)

	reason := uint(4)
	request := acme.RevokeCertMessage{Certificate: acmetest.Base64(leaf.Raw), Reason: &reason}
	require.NoError(t, c.Core.Certificates.Revoke(request))
	got, revoked, err := s.Revoked(ca.CertID(leaf))
	require.NoError(t, err)
	require.True(t, revoked)
	require.Equal(t, uint(4), got.Reason)
	require.True(t, s.Orders()[0].Revoked)
	require.ErrorContains(t, c.Core.Certificates.Revoke(request), "alreadyRevoked")
	require.Equal(t, ca.Tally{Requests: 2, Succeeded: 1}, s.Counts().Of(ca.RevokeCert))
	_, _, err = s.Revoked("abcdef")
	require.ErrorContains(t, err, "knows no certificate")
}

func TestFaults(t *testing.T) {
	s, c := friendly(t, ca.Options{})
	newOrder := func() (*http.Response, error) { return c.Raw(t, c.Core.GetDirectory().NewOrderURL, name) }

	t.Run("a rate limit is answered with 429, a problem and Retry-After, and the CA makes no order", func(t *testing.T) {
		before := len(s.Orders())
		i := s.Inject(ca.Fault{Match: ca.All(ca.On(ca.NewOrder), ca.Naming(name)), Times: 1, Do: ca.RateLimited(7 * time.Second)})
		resp, err := newOrder()
		require.NoError(t, err)
		require.Equal(t, 429, resp.StatusCode)
		require.Equal(t, "7", resp.Header.Get("Retry-After"))
		require.NotEmpty(t, resp.Header.Get("Replay-Nonce"))
		require.Equal(t, "urn:ietf:params:acme:error:rateLimited", acmetest.Problem(t, resp))
		require.Len(t, s.Orders(), before)
		require.Equal(t, 1, i.Hits())

		resp, err = newOrder()
		require.NoError(t, err)
		require.Equal(t, 201, resp.StatusCode, "the fault is used up")
	})
	t.Run("another name and another endpoint do not meet the fault", func(t *testing.T) {
		i := s.Inject(ca.Fault{Match: ca.All(ca.On(ca.NewOrder), ca.Naming("other.lab.test")), Do: ca.Unavailable(0)})
		defer i.Lift()
		resp, err := newOrder()
		require.NoError(t, err)
		require.Equal(t, 201, resp.StatusCode)
		require.Zero(t, i.Hits())
	})
	t.Run("maintenance is answered with 503 and no problem document", func(t *testing.T) {
		i := s.Inject(ca.Fault{Do: ca.Unavailable(3 * time.Second)})
		resp, err := s.HTTPClient().Get(s.DirectoryURL())
		require.NoError(t, err)
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, "3", resp.Header.Get("Retry-After"))
		require.Empty(t, acmetest.Problem(t, resp))
		i.Lift()
		resp, err = s.HTTPClient().Get(s.DirectoryURL())
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
	})
	t.Run("a lost answer leaves an order at the CA that the client does not know", func(t *testing.T) {
		before := len(s.Orders())
		s.Inject(ca.Fault{Match: ca.On(ca.NewOrder), Skip: 1, Times: 1, Do: ca.LoseAnswer()})
		_, err := newOrder()
		require.NoError(t, err, "the first is skipped")
		_, err = newOrder()
		require.ErrorIs(t, err, io.EOF)
		require.Len(t, s.Orders(), before+2)
	})
	t.Run("a dropped request never reaches the CA", func(t *testing.T) {
		before := len(s.Orders())
		s.Inject(ca.Fault{Match: ca.On(ca.NewOrder), Times: 1, Do: ca.DropRequest()})
		_, err := newOrder()
		require.ErrorIs(t, err, io.EOF)
		require.Len(t, s.Orders(), before)
	})
	t.Run("a hanging request goes on when the fault is lifted", func(t *testing.T) {
		i := s.Inject(ca.Fault{Match: ca.On(ca.Directory), Do: ca.Hang()})
		answered := make(chan int, 1)
		go func() {
			resp, err := s.HTTPClient().Get(s.DirectoryURL())
			if err == nil {
				answered <- resp.StatusCode
			}
			close(answered)
		}()
		require.Eventually(t, func() bool { return i.Hits() == 1 }, 5*time.Second, time.Millisecond)
		require.Empty(t, answered)
		s.LiftAll()
		require.Equal(t, 200, <-answered)
	})
	t.Run("a swapped certificate has the names and the key, but a foreign issuer", func(t *testing.T) {
		s.Inject(ca.Fault{Match: ca.All(ca.On(ca.Certificate), ca.Naming(name)), Times: 1, Do: ca.SwapCertificate(func(original []byte) []byte {
			chain, err := ca.ForeignChain(original)
			if err != nil {
				return []byte(err.Error())
			}
			return chain
		})})
		order, err := c.Core.Orders.New([]string{name})
		require.NoError(t, err)
		c.Prove(t, order, "http-01", nothing)
		chain, key := c.Finalize(t, order)
		leaf := acmetest.Parse(t, chain)
		require.True(t, key.PublicKey.Equal(leaf.PublicKey))
		require.Equal(t, []string{name}, leaf.DNSNames)
		_, err = leaf.Verify(acmetest.Against(s, chain))
		require.Error(t, err)
		orders := s.Orders()
		require.NotEqual(t, pki.FingerprintPEM(chain), pki.FingerprintPEM(orders[len(orders)-1].Chain))
	})
	t.Run("the Date header can run ahead", func(t *testing.T) {
		s.SetDateSkew(48 * time.Hour)
		defer s.SetDateSkew(0)
		resp, err := s.HTTPClient().Get(s.DirectoryURL())
		require.NoError(t, err)
		date, err := http.ParseTime(resp.Header.Get("Date"))
		require.NoError(t, err)
		require.InDelta(t, 48, date.Sub(clock.System().Now()).Hours(), 0.1)
	})
	t.Run("an outage cuts open connections off and refuses new ones, and ends", func(t *testing.T) {
		client := s.HTTPClient()
		get := func() error {
			resp, err := client.Get(s.DirectoryURL())
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			return err
		}
		require.NoError(t, get())
		s.SetDown(true)
		require.Error(t, get(), "on the open connection")
		require.Error(t, get(), "on a new one")
		s.SetDown(false)
		require.NoError(t, get())
	})
}

func TestConcurrentOrdersAllEnd(t *testing.T) {
	s, _ := friendly(t, ca.Options{})
	clients := []*acmetest.Client{acmetest.New(t, s, "", ""), acmetest.New(t, s, "", "")}
	const workers, each = 16, 10
	var all sync.WaitGroup
	errs := make(chan error, workers*each)
	for w := range workers {
		all.Go(func() {
			for n := range each {
				errs <- clients[w%2].TryObtain([]string{fmt.Sprintf("w%d-%d.lab.test", w, n)})
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.Len(t, s.Orders(), workers*each)
	for _, o := range s.Orders() {
		require.Equal(t, "valid", o.Status)
		require.Equal(t, 1, o.FinalizeRequests)
	}
}

func TestConstructionLeavesTheEnvironmentAsItWas(t *testing.T) {
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "42")
	require.NoError(t, os.Unsetenv("PEBBLE_VA_NOSLEEP"))
	labtest.CA(t, ca.Options{NonceReject: 3})
	require.Equal(t, "42", os.Getenv("PEBBLE_WFE_NONCEREJECT"))
	_, set := os.LookupEnv("PEBBLE_VA_NOSLEEP")
	require.False(t, set)
}

func TestTwoRootsAreOfferedAsAlternates(t *testing.T) {
	s, c := friendly(t, ca.Options{AlternateRoots: 1, ChainLength: 2})
	order, err := c.Core.Orders.New([]string{name})
	require.NoError(t, err)
	c.Prove(t, order, "http-01", nothing)
	c.Finalize(t, order)
	done, err := c.Core.Orders.Get(order.Location)
	require.NoError(t, err)
	chains, err := c.Core.Certificates.GetAll(done.Certificate, true)
	require.NoError(t, err)
	require.Len(t, chains, 2)
	issuers := map[string]bool{}
	for _, chain := range chains {
		acmetest.Leaf(t, s, chain.Cert)
		issuers[string(chain.Issuer)] = true
	}
	require.Len(t, issuers, 2)
}

func TestBlockedDomainsAreRefused(t *testing.T) {
	_, c := friendly(t, ca.Options{Blocked: []string{"blocked.test"}})
	_, err := c.Core.Orders.New([]string{"www.blocked.test"})
	var problem *acme.ProblemDetails
	require.True(t, errors.As(err, &problem))
	require.Equal(t, "urn:ietf:params:acme:error:rejectedIdentifier", problem.Type)
}

func TestAReplacementThatDoesNotFitIsRefused(t *testing.T) {
	s, c := friendly(t, ca.Options{})
	leaf := acmetest.Leaf(t, s, c.Obtain(t, []string{name}, nil, "http-01", nothing))
	stranger := acmetest.New(t, s, "", "")
	unknown := *leaf
	unknown.SerialNumber = big.NewInt(12345)
	foreign := *leaf
	foreign.AuthorityKeyId = []byte("nobody's")
	for _, row := range []struct {
		name     string
		client   *acmetest.Client
		names    string
		replaces string
		status   int
		problem  string
	}{
		{"a certificate that the CA does not know is a server error", c, name, ca.CertID(&unknown), 500, "serverInternal"},
		{"a certificate of another issuer is malformed", c, name, ca.CertID(&foreign), 400, "malformed"},
		{"a certificate that shares no name with the order is a server error", c, "other.lab.test", ca.CertID(leaf), 500, "serverInternal"},
		{"a certificate of another account is not authorized", stranger, name, ca.CertID(leaf), 403, "unauthorized"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := row.client.Core.Orders.NewWithOptions([]string{row.names}, &api.OrderOptions{ReplacesCertID: row.replaces})
			var problem *acme.ProblemDetails
			require.True(t, errors.As(err, &problem), "%v", err)
			require.Equal(t, row.status, problem.HTTPStatus)
			require.Equal(t, "urn:ietf:params:acme:error:"+row.problem, problem.Type)
		})
	}
}

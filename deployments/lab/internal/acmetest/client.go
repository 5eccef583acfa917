// Package acmetest is a small ACME client for the lab's own tests, on lego's raw calls. It is not the platform's.
package acmetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/shared/clock"
)

// Client is one account at one CA.
type Client struct {
	Core *api.Core
	CA   *ca.Server
	Key  *ecdsa.PrivateKey
	KID  string // the account's URL
}

// New registers an account; kid and hmac are its external binding, or empty.
func New(t testing.TB, s *ca.Server, kid, hmac string) *Client {
	t.Helper()
	c := &Client{CA: s, Key: NewKey(t)}
	first, err := api.New(s.HTTPClient(), "lab-test", s.DirectoryURL(), "", c.Key)
	require.NoError(t, err)
	var account acme.ExtendedAccount
	if kid == "" {
		account, err = first.Accounts.New(acme.Account{TermsOfServiceAgreed: true})
	} else {
		account, err = first.Accounts.NewEAB(acme.Account{TermsOfServiceAgreed: true}, kid, hmac)
	}
	require.NoError(t, err)
	c.KID = account.Location
	c.Core, err = api.New(s.HTTPClient(), "lab-test", s.DirectoryURL(), c.KID, c.Key)
	require.NoError(t, err)
	return c
}

// Proof is one value to be shown for one authorization.
type Proof struct {
	Domain  string // without "*."
	Token   string
	KeyAuth string
	URL     string // of the challenge
}

// Prove collects the pending challenges of one kind, has them presented all at once, and waits until the order is
// ready.
func (c *Client) Prove(t testing.TB, order acme.ExtendedOrder, kind string, present func([]Proof)) {
	t.Helper()
	var proofs []Proof
	for _, u := range order.Authorizations {
		authz, err := c.Core.Authorizations.Get(u)
		require.NoError(t, err)
		if authz.Status != acme.StatusPending {
			continue
		}
		for _, chal := range authz.Challenges {
			if chal.Type != kind {
				continue
			}
			keyAuth, err := c.Core.GetKeyAuthorization(chal.Token)
			require.NoError(t, err)
			proofs = append(proofs, Proof{Domain: authz.Identifier.Value, Token: chal.Token, KeyAuth: keyAuth, URL: chal.URL})
		}
	}
	present(proofs)
	for _, p := range proofs {
		_, err := c.Core.Challenges.New(p.URL)
		require.NoError(t, err)
	}
	c.await(t, order.Location, acme.StatusReady)
}

// Finalize asks for the certificate and returns its chain with the issuer's certificates, and its key.
func (c *Client) Finalize(t testing.TB, order acme.ExtendedOrder) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key := NewKey(t)
	_, err := c.Core.Orders.UpdateForCSR(order.Finalize, CSR(t, key, order))
	require.NoError(t, err)
	done := c.await(t, order.Location, acme.StatusValid)
	chain, _, err := c.Core.Certificates.Get(done.Certificate, true)
	require.NoError(t, err)
	return chain, key
}

// Obtain runs the whole flow.
func (c *Client) Obtain(t testing.TB, names []string, opts *api.OrderOptions, kind string, present func([]Proof)) []byte {
	t.Helper()
	order, err := c.Core.Orders.NewWithOptions(names, opts)
	require.NoError(t, err)
	c.Prove(t, order, kind, present)
	chain, _ := c.Finalize(t, order)
	return chain
}

func (c *Client) await(t testing.TB, url, status string) acme.ExtendedOrder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		order, err := c.Core.Orders.Get(url)
		require.NoError(t, err)
		if order.Status == status {
			return order
		}
		require.NotEqual(t, acme.StatusInvalid, order.Status, "the order became invalid: %v", order.Error)
		require.NoError(t, clock.System().Sleep(ctx, 5*time.Millisecond), "the order stays %s", order.Status)
	}
}

// TryObtain runs the whole flow at a CA that validates nothing, from any goroutine.
func (c *Client) TryObtain(names []string) error {
	order, err := c.Core.Orders.New(names)
	if err != nil {
		return err
	}
	for _, u := range order.Authorizations {
		authz, err := c.Core.Authorizations.Get(u)
		if err != nil {
			return err
		}
		if _, err := c.Core.Challenges.New(authz.Challenges[0].URL); err != nil {
			return err
		}
	}
	if err := c.until(order.Location, acme.StatusReady); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := signingRequest(key, order)
	if err != nil {
		return err
	}
	if _, err := c.Core.Orders.UpdateForCSR(order.Finalize, csr); err != nil {
		return err
	}
	return c.until(order.Location, acme.StatusValid)
}

func (c *Client) until(url, status string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		order, err := c.Core.Orders.Get(url)
		if err != nil || order.Status == status {
			return err
		}
		if err := clock.System().Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("the order stays %s: %w", order.Status, err)
		}
	}
}

// Raw sends one newOrder for a name, without any repetition, and returns the answer as it came.
func (c *Client) Raw(t testing.TB, url, name string) (*http.Response, error) {
	t.Helper()
	nonce := nonceSource{c.CA}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: c.Key, KeyID: c.KID}},
		&jose.SignerOptions{NonceSource: nonce, ExtraHeaders: map[jose.HeaderKey]any{"url": url}},
	)
	require.NoError(t, err)
	jws, err := signer.Sign(fmt.Appendf(nil, `{"identifiers":[{"type":"dns","value":%q}]}`, name))
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(jws.FullSerialize()))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/jose+json")
	request.Header.Set("User-Agent", "lab-test")
	return c.CA.HTTPClient().Do(request)
}

type nonceSource struct{ s *ca.Server }

func (n nonceSource) Nonce() (string, error) {
	resp, err := n.s.HTTPClient().Head("https://" + n.s.Addr() + "/nonce-plz")
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Replay-Nonce"), resp.Body.Close()
}

// Problem returns the type of a problem document, or "" when the answer is none, and closes the body.
func Problem(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("Content-Type") != "application/problem+json" {
		return ""
	}
	var p struct{ Type string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&p))
	return p.Type
}

// CSR makes a signing request for an order's names.
func CSR(t testing.TB, key *ecdsa.PrivateKey, order acme.ExtendedOrder) []byte {
	t.Helper()
	der, err := signingRequest(key, order)
	require.NoError(t, err)
	return der
}

func signingRequest(key *ecdsa.PrivateKey, order acme.ExtendedOrder) ([]byte, error) {
	var names []string
	for _, i := range order.Identifiers {
		names = append(names, i.Value)
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
}

// Parse is the first certificate of a chain.
func Parse(t testing.TB, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	require.NotNil(t, block)
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return leaf
}

// Against says how to verify a chain: up to the CA's roots.
func Against(s *ca.Server, chain []byte) x509.VerifyOptions {
	between := x509.NewCertPool()
	between.AppendCertsFromPEM(chain)
	return x509.VerifyOptions{Roots: s.Roots(), Intermediates: between}
}

// Leaf is the first certificate of a chain that leads to the CA's roots.
func Leaf(t testing.TB, s *ca.Server, chain []byte) *x509.Certificate {
	t.Helper()
	leaf := Parse(t, chain)
	_, err := leaf.Verify(Against(s, chain))
	require.NoError(t, err)
	return leaf
}

// Base64 is how ACME writes bytes.
func Base64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Responder answers http-01 on its own port.
type Responder struct {
	Port int

	mu      sync.Mutex
	answers map[string]string
}

// NewResponder starts a responder that ends with the test.
func NewResponder(t testing.TB) *Responder {
	t.Helper()
	r := &Responder{answers: map[string]string{}}
	l, err := loopback.Listen("")
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		answer, ok := r.answers[strings.TrimPrefix(q.URL.Path, "/.well-known/acme-challenge/")]
		if !ok {
			http.NotFound(w, q)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	r.Port = loopback.PortOf(l.Addr())
	return r
}

// Present shows http-01 proofs.
func (r *Responder) Present(proofs []Proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range proofs {
		r.answers[p.Token] = p.KeyAuth
	}
}

// NewKey makes a P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// Package acme speaks RFC 8555 and RFC 9773 with CAs, by lego's api.Core behind our own port. Whatever a CA or the network answers comes
// back as *domain.Failure, classified here once. It must never store anything.
package acme

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	lego "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"golang.org/x/sync/errgroup"

	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// MaxSkew is how far a CA's clock may be off ours before nothing is ordered.
const MaxSkew = 2 * time.Minute

// callTimeout bounds one call; a worker's step ends after half its lease anyway.
const callTimeout = 25 * time.Second

const parallel = 10

var errReplacesRefused = errors.New("the CA refused the replacement")

// Account is who asks, and where.
type Account struct {
	ID         string
	Issuer     domain.Issuer
	URL        string        // kid; empty before registration
	Key        crypto.Signer // RSA or ECDSA P-256/P-384
	Thumbprint string        // tells one key of the account from the next
	EABKey     secret.Value  // of Issuer.EABKeyID; set for Register alone
}

// Client speaks with any number of CAs. It is safe for concurrent use.
type Client struct {
	clock     clock.Clock
	userAgent string

	mu   sync.Mutex
	cas  map[string]*ca        // by how the CA is reached
	idle map[string][]*session // by account, its key, and how the CA is reached
}

// New makes a client.
func New(clk clock.Clock, userAgent string) *Client {
	return &Client{clock: clk, userAgent: userAgent, cas: map[string]*ca{}, idle: map[string][]*session{}}
}

func (c *Client) ca(i domain.Issuer) (*ca, error) {
	key := route(i)
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.cas[key]; ok {
		return found, nil
	}
	made, err := newCA(i, c.clock)
	if err != nil {
		return nil, &domain.Failure{Problem: domain.Problem{Reason: "CA_UNTRUSTED", Detail: err.Error()}}
	}
	c.cas[key] = made
	return made, nil
}

// route is the same for issuers whose CA is reached in the same way.
func route(i domain.Issuer) string {
	return i.DirectoryURL + "\x00" + i.TrustRootsPEM + "\x00" + i.ProxyURL
}

// once lends a session that is not kept to f. Its requests carry the key itself instead of an account's URL; without a key it signs nothing.
func (c *Client) once(ctx context.Context, i domain.Issuer, key crypto.Signer, f func(s *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	authority, err := c.ca(i)
	if err != nil {
		return err
	}
	s, err := newSession(ctx, authority, c.userAgent, "", key)
	if err != nil {
		return c.classify(err, nil, i)
	}
	s.begin(ctx)
	if err := f(s); err != nil {
		return c.classify(err, s, i)
	}
	return nil
}

// with lends a session to f, one call at a time.
func (c *Client) with(ctx context.Context, a Account, f func(s *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	authority, err := c.ca(a.Issuer)
	if err != nil {
		return err
	}
	key := a.ID + "\x00" + a.URL + "\x00" + a.Thumbprint + "\x00" + route(a.Issuer)
	var s *session
	c.mu.Lock()
	if n := len(c.idle[key]); n > 0 {
		s = c.idle[key][n-1]
		c.idle[key] = c.idle[key][:n-1]
		if c.clock.Now().Sub(s.made) >= directoryAge { // and so are the others below it, or will be
			s = nil
		}
	}
	c.mu.Unlock()
	if s == nil {
		if s, err = newSession(ctx, authority, c.userAgent, a.URL, a.Key); err != nil {
			return c.classify(err, nil, a.Issuer)
		}
	}
	s.begin(ctx)
	err = f(s)
	if err != nil {
		err = c.classify(err, s, a.Issuer)
	}
	c.mu.Lock()
	c.idle[key] = append(c.idle[key], s)
	c.mu.Unlock()
	return err
}

// Directory is what a CA says of itself.
type Directory struct {
	domain.Meta
	RenewalInfo   bool
	CAAIdentities []string
	Website       string
	Skew          time.Duration
}

// Directory reads the CA's directory afresh.
func (c *Client) Directory(ctx context.Context, i domain.Issuer) (out Directory, err error) {
	authority, err := c.ca(i)
	if err != nil {
		return out, err
	}
	authority.forget()
	err = c.once(ctx, i, nil, func(s *session) error {
		d := s.core.GetDirectory()
		out = Directory{
			Meta: meta(s), RenewalInfo: d.RenewalInfo != "", CAAIdentities: d.Meta.CaaIdentities, Website: d.Meta.Website, Skew: authority.clockSkew(),
		}
		return nil
	})
	return out, err
}

func meta(s *session) domain.Meta {
	m := s.core.GetDirectory().Meta
	return domain.Meta{
		Profiles: slices.Sorted(maps.Keys(m.Profiles)), TermsOfService: m.TermsOfService, ExternalAccountRequired: m.ExternalAccountRequired,
	}
}

// NewOrder asks for an order. replaces is an ARI certificate id, or empty.
func (c *Client) NewOrder(ctx context.Context, a Account, spec domain.Spec, profile, replaces string) (out domain.CAOrder, err error) {
	err = c.with(ctx, a, func(s *session) error {
		if skew := s.ca.clockSkew(); skew.Abs() > MaxSkew {
			return &domain.Failure{Problem: domain.Problem{Reason: "CLOCK_SKEW", Retrying: true, Detail: fmt.Sprintf(
				"the clock of this machine is %s off the CA's; nothing is ordered while it is more than %s off. Set the clock, for instance by NTP", skew.Round(time.Second), MaxSkew)},
				RetryAfter: time.Minute}
		}
		if p := domain.UnknownProfile(profile, meta(s)); p != nil {
			// A session's directory may be old, and so would be a refusal.
			if d, err := c.Directory(ctx, a.Issuer); err != nil {
				return err
			} else if p = domain.UnknownProfile(profile, d.Meta); p != nil {
				return &domain.Failure{Problem: *p}
			}
		}
		o, err := s.core.Orders.NewWithOptions(spec.Names, &api.OrderOptions{NotAfter: spec.NotAfter, Profile: profile, ReplacesCertID: replaces})
		if err != nil {
			return err
		}
		out = order(o.Order, s)
		out.URL = o.Location
		return usable(out)
	})
	return out, err
}

// Order asks for the order's state.
func (c *Client) Order(ctx context.Context, a Account, orderURL string) (out domain.CAOrder, err error) {
	err = c.with(ctx, a, func(s *session) error {
		o, err := s.core.Orders.Get(orderURL)
		out = order(o.Order, s)
		out.URL = orderURL
		return err
	})
	return out, err
}

// Finalize sends the CSR.
func (c *Client) Finalize(ctx context.Context, a Account, orderURL, finalizeURL string, csr []byte) (out domain.CAOrder, err error) {
	err = c.with(ctx, a, func(s *session) error {
		o, err := s.core.Orders.UpdateForCSR(finalizeURL, csr)
		out = order(o.Order, s)
		out.URL = orderURL
		return err
	})
	return out, err
}

// Authorizations reads them, several at a time, in the order of the URLs.
func (c *Client) Authorizations(ctx context.Context, a Account, urls []string) ([]domain.Authorization, error) {
	out := make([]domain.Authorization, len(urls))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, u := range urls {
		g.Go(func() error {
			return c.with(ctx, a, func(s *session) error {
				z, err := s.core.Authorizations.Get(u)
				if err != nil {
					return err
				}
				out[i], err = authorization(z, u, s.core)
				return err
			})
		})
	}
	return out, g.Wait()
}

// Respond tells the CA that the answers of these challenges are in place (RFC 8555 section 7.5.1). It tells of all, whatever becomes of one, and
// returns a failure that can be retried rather than a refusal.
func (c *Client) Respond(ctx context.Context, a Account, challengeURLs []string) error {
	failed := make([]error, len(challengeURLs))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, u := range challengeURLs {
		g.Go(func() error {
			failed[i] = c.with(ctx, a, func(s *session) error {
				_, err := s.core.Challenges.New(u)
				return err
			})
			return nil
		})
	}
	_ = g.Wait()
	var worst error
	for _, err := range failed {
		var f *domain.Failure
		if err != nil && (worst == nil || (errors.As(err, &f) && (f.Problem.Retrying || f.Gone))) {
			worst = err
		}
	}
	return worst
}

// Chains downloads the chain of a certificate, leaf first, each DER. With alternates it brings all that the CA offers (RFC 8555 section 7.4.2), the
// default first.
func (c *Client) Chains(ctx context.Context, a Account, certificateURL string, alternates bool) (chains [][][]byte, err error) {
	err = c.with(ctx, a, func(s *session) error {
		if !alternates {
			raw, _, err := s.core.Certificates.Get(certificateURL, true)
			chains = [][][]byte{blocks(raw)}
			return err
		}
		all, err := s.core.Certificates.GetAll(certificateURL, true)
		if err != nil {
			return err
		}
		chains = [][][]byte{blocks(all[certificateURL].Cert)}
		for _, u := range slices.Sorted(maps.Keys(all)) {
			if u != certificateURL {
				chains = append(chains, blocks(all[u].Cert))
			}
		}
		return nil
	})
	return chains, err
}

// blocks returns the DER of each PEM block.
func blocks(raw []byte) (chain [][]byte) {
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return chain
		}
		chain = append(chain, block.Bytes)
	}
}

// Revoke revokes a certificate with the account's key (RFC 8555 section 7.6). already is true when the CA had revoked it before.
func (c *Client) Revoke(ctx context.Context, a Account, der []byte, reason uint) (already bool, err error) {
	err = c.with(ctx, a, func(s *session) error {
		already, err = revoked(s.core.Certificates.Revoke(revocation(der, reason)))
		return err
	})
	return already, err
}

// RenewalInfo is a CA's suggestion (RFC 9773 section 4.2).
type RenewalInfo struct {
	Supported      bool
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Duration
}

// RenewalInfo asks for the suggested window of one certificate. It needs no account.
func (c *Client) RenewalInfo(ctx context.Context, i domain.Issuer, certID string) (out RenewalInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	authority, err := c.ca(i)
	if err != nil {
		return out, err
	}
	s, err := newSession(ctx, authority, c.userAgent, "", nil)
	if err != nil {
		return out, c.classify(err, nil, i)
	}
	s.begin(ctx)
	resp, err := s.core.Certificates.GetRenewalInfo(certID)
	if errors.Is(err, api.ErrNoARI) {
		return RenewalInfo{}, nil
	}
	if err != nil {
		return out, c.classify(err, s, i)
	}
	defer resp.Body.Close() //nolint:errcheck // read to the end
	out.RetryAfter = s.retryAfter()
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, 1<<20))
	if err != nil {
		return out, c.classify(err, s, i)
	}
	if resp.StatusCode != http.StatusOK {
		p := &lego.ProblemDetails{}
		_ = json.Unmarshal(body, p)
		p.HTTPStatus = resp.StatusCode
		return out, c.classify(p, s, i)
	}
	var info lego.RenewalInfoResponse
	if err := json.Unmarshal(body, &info); err != nil {
		return out, c.classify(err, s, i)
	}
	out.Supported, out.Start, out.End, out.ExplanationURL = true, info.SuggestedWindow.Start.UTC(), info.SuggestedWindow.End.UTC(), info.ExplanationURL
	if !out.End.After(out.Start) {
		return out, &domain.Failure{Problem: domain.Problem{Reason: "ARI_INVALID", Retrying: true, Detail: fmt.Sprintf(
			"the CA's suggested window ends at %s, before it starts at %s", out.End.Format(time.RFC3339), out.Start.Format(time.RFC3339))}, RetryAfter: 6 * time.Hour}
	}
	return out, nil
}

// usable refuses an order that nothing could be done with: it would be asked for again and again, or waited for in vain.
func usable(o domain.CAOrder) error {
	https := func(u string) bool { return strings.HasPrefix(u, "https://") }
	missing := ""
	switch {
	case !https(o.URL):
		missing = "its URL"
	case !https(o.FinalizeURL):
		missing = "its finalize URL"
	case o.Status == "pending" && len(o.AuthzURLs) == 0:
		missing = "an authorization"
	default:
		return nil
	}
	return &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Retrying: true, Detail: "the CA made an order but did not name " + missing}}
}

func order(o lego.Order, s *session) domain.CAOrder {
	out := domain.CAOrder{
		Status: o.Status, FinalizeURL: o.Finalize, CertificateURL: o.Certificate, AuthzURLs: o.Authorizations, RetryAfter: s.retryAfter(),
	}
	if at, err := time.Parse(time.RFC3339, o.Expires); err == nil {
		out.ExpiresAt = clock.Normal(at)
	}
	if o.Error != nil {
		out.Problem = problem(o.Error)
	}
	return out
}

func authorization(z lego.Authorization, u string, core *api.Core) (domain.Authorization, error) {
	out := domain.Authorization{URL: u, Identifier: z.Identifier.Value, Wildcard: z.Wildcard, State: domain.AuthzPending, Offered: []domain.Offer{}}
	if !z.Expires.IsZero() {
		out.ExpiresAt = clock.Normal(z.Expires)
	}
	switch z.Status {
	case "valid":
		out.State = domain.AuthzValid
	case "pending":
	case "expired", "deactivated", "revoked": // no answer was wrong: it can be asked for anew
		out.State = domain.AuthzExpired
		out.Problem = &domain.Problem{Reason: "AUTHORIZATION_EXPIRED", Detail: "the CA says the authorization is " + z.Status}
	default:
		out.State = domain.AuthzInvalid
		out.Problem = &domain.Problem{Reason: "VALIDATION_FAILED", Detail: "the CA says the authorization is " + z.Status}
	}
	for _, ch := range z.Challenges {
		if ch.Error != nil && out.State == domain.AuthzInvalid {
			out.Problem = problem(ch.Error)
		}
		keyAuth, err := core.GetKeyAuthorization(ch.Token)
		if err != nil {
			return out, err
		}
		out.Offered = append(out.Offered, domain.Offer{Type: ch.Type, URL: ch.URL, Token: ch.Token, KeyAuthorization: keyAuth})
	}
	return out, nil
}

const ns = "urn:ietf:params:acme:error:"

// reasons gives the CA's problem types (RFC 8555 section 6.7) a reason of ours, where it says more than "refused".
var reasons = map[string]string{
	"caa": "CAA_FORBIDS", "rejectedIdentifier": "NAME_REJECTED", "unsupportedIdentifier": "NAME_REJECTED", "accountDoesNotExist": "ACCOUNT_UNKNOWN",
	"badCSR": "CSR_REFUSED", "badPublicKey": "KEY_REFUSED", "userActionRequired": "TERMS_NOT_AGREED", "externalAccountRequired": "EXTERNAL_ACCOUNT_REQUIRED",
	"rateLimited": "RATE_LIMITED", "serverInternal": "CA_ERROR", "alreadyReplaced": "REPLACES_REFUSED", "invalidProfile": "PROFILE_REFUSED",
	"dns": "VALIDATION_FAILED", "connection": "VALIDATION_FAILED", "tls": "VALIDATION_FAILED", "incorrectResponse": "VALIDATION_FAILED",
}

func problem(p *lego.ProblemDetails) *domain.Problem {
	out := &domain.Problem{Reason: "CA_REFUSED", Detail: p.Detail, Type: p.Type}
	if r, ok := reasons[strings.TrimPrefix(p.Type, ns)]; ok {
		out.Reason = r
	}
	if out.Detail == "" {
		out.Detail = fmt.Sprintf("the CA answered with HTTP status %d and no detail", p.HTTPStatus)
	}
	for _, sub := range p.SubProblems {
		out.Subproblems = append(out.Subproblems, domain.Subproblem{Identifier: sub.Identifier.Value, Type: sub.Type, Detail: sub.Detail})
	}
	return out
}

// classify makes a Failure of whatever came out of lego.
func (c *Client) classify(err error, s *session, i domain.Issuer) error {
	var known *domain.Failure
	if errors.As(err, &known) {
		return known
	}
	if errs.As(err) != nil { // of a sibling
		return err
	}
	f := &domain.Failure{}
	if s != nil {
		f.RetryAfter = s.retryAfter()
	}
	var (
		p       *lego.ProblemDetails
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		dns     *net.DNSError
		op      *net.OpError
		netErr  net.Error
		urlErr  *url.Error
	)
	trouble := func(reason, format string, args ...any) error {
		f.Problem = domain.Problem{Reason: reason, Detail: fmt.Sprintf(format, args...), Retrying: true}
		return f
	}
	if errors.As(err, &urlErr) {
		err = urlErr.Err // without the URL twice
	}
	switch {
	case errors.Is(err, errReplacesRefused):
		f.Problem = domain.Problem{Reason: "REPLACES_REFUSED", Detail: "the certificate counts as replaced already", Type: ns + "alreadyReplaced"}
		return f
	case errors.As(err, &p):
		f.Problem = *problem(p)
		switch {
		case p.Type == ns+"rateLimited" || p.HTTPStatus == http.StatusTooManyRequests:
			f.Problem.Reason, f.Problem.Retrying = "RATE_LIMITED", true
			f.RetryAfter = max(f.RetryAfter, time.Minute)
		case p.HTTPStatus >= http.StatusInternalServerError || p.HTTPStatus == http.StatusRequestTimeout:
			f.Problem.Reason, f.Problem.Retrying, f.Unknown = "CA_ERROR", true, true
		case p.Type == ns+"badNonce" || p.Type == ns+"orderNotReady":
			f.Problem.Retrying = true
		case p.Type == ns+"accountDoesNotExist":
			f.Gone, f.AccountGone = true, true
		case p.HTTPStatus == http.StatusNotFound || p.HTTPStatus == http.StatusGone:
			f.Gone = true
		}
		return f
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return trouble("CA_UNTRUSTED", "the server certificate of the CA at %s is not trusted (%v); give its root in acme.trustRootsPem of the issuer if it is a private CA", i.DirectoryURL, err)
	case errors.As(err, &dns):
		return trouble("CA_UNREACHABLE", "the CA's host %s cannot be resolved (%s); check acme.directoryUrl of the issuer and this machine's DNS", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return trouble("CA_UNREACHABLE", "the proxy %s to the CA at %s cannot be used (%v); check acme.proxyUrl of the issuer", cmp.Or(i.ProxyURL, "of the environment"), i.DirectoryURL, op.Err)
	case errors.As(err, &op) && op.Op == "dial":
		return trouble("CA_UNREACHABLE", "the CA at %s cannot be reached (%v); check acme.directoryUrl of the issuer, proxies and firewalls", i.DirectoryURL, err)
	case strings.HasPrefix(err.Error(), "order identifiers have been modified"):
		f.Problem = domain.Problem{Reason: "CA_REFUSED", Detail: "the CA made an order for other names than asked for (RFC 8555 section 7.4 forbids it): " + err.Error()}
		return f
	case strings.HasPrefix(err.Error(), "HTTPS is required"):
		f.Problem = domain.Problem{Reason: "CA_INSECURE", Detail: fmt.Sprintf("the CA's directory %s names a URL that is not https (RFC 8555 section 6.1 requires it): %v", i.DirectoryURL, err)}
		return f
	}
	f.Unknown = true
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || (errors.As(err, &netErr) && netErr.Timeout()) {
		return trouble("CA_TIMEOUT", "the CA at %s did not answer in time", i.DirectoryURL)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return trouble("CA_UNREACHABLE", "the CA at %s broke the connection (%v); check acme.directoryUrl of the issuer, proxies and firewalls", i.DirectoryURL, err)
	}
	return trouble("CA_ERROR", "the CA at %s gave an answer that is not understood: %v", i.DirectoryURL, err)
}

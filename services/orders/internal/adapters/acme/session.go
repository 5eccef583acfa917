package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/go-acme/lego/v4/acme/api"
	legolog "github.com/go-acme/lego/v4/log"

	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// directoryAge is how long a CA's directory is taken from memory.
const directoryAge = 10 * time.Minute

var quietLego = sync.OnceFunc(func() { legolog.Logger = log.New(io.Discard, "", 0) }) //nolint:forbidigo // lego's logger is process-wide and knows no context

// ca is one CA's HTTPS connections and directory, shared by all accounts there.
type ca struct {
	base  http.RoundTripper
	url   string
	clock clock.Clock

	mu        sync.Mutex
	directory []byte
	read      time.Time
	skew      time.Duration // the CA's clock minus ours, at the last answer
}

func newCA(i domain.Issuer, clk clock.Clock) (*ca, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if i.ProxyURL != "" {
		proxy, err := url.Parse(i.ProxyURL)
		if err != nil {
			return nil, errs.New(errs.Invalid, "BAD_ISSUER", "the issuer's proxy is no URL")
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	if i.TrustRootsPEM != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(i.TrustRootsPEM)) {
			return nil, errs.New(errs.Invalid, "BAD_TRUST_ROOTS", "the issuer's trust roots hold no PEM certificate")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &ca{base: t, url: i.DirectoryURL, clock: clk}, nil
}

// session is one lego Core used by one call at a time. It is the RoundTripper below lego: it brings the call's context, which parts of lego
// drop, keeps the headers of the last answer, which lego drops too, serves the directory from memory, and stops lego from repeating a
// refused newOrder without "replaces" in silence.
type session struct {
	ca   *ca
	core *api.Core
	made time.Time

	userAgent string

	ctx         context.Context //nolint:containedctx // set for one call; lego's API has no context
	header      http.Header
	newOrderURL string
	refused     bool
}

func newSession(ctx context.Context, c *ca, userAgent, kid string, key crypto.PrivateKey) (*session, error) {
	quietLego()
	s := &session{ca: c, ctx: ctx, made: c.clock.Now(), userAgent: userAgent}
	core, err := api.New(&http.Client{Transport: s}, userAgent, c.url, kid, key)
	if err != nil {
		return nil, err
	}
	s.core, s.newOrderURL = core, core.GetDirectory().NewOrderURL
	return s, nil
}

func (s *session) begin(ctx context.Context) {
	s.ctx, s.header, s.refused = ctx, nil, false
}

// RoundTrip implements http.RoundTripper.
func (s *session) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.String() == s.ca.url {
		return s.ca.getDirectory(req.WithContext(s.ctx))
	}
	ordering := req.Method == http.MethodPost && req.URL.String() == s.newOrderURL
	if ordering && s.refused {
		return nil, errReplacesRefused
	}
	resp, err := s.ca.base.RoundTrip(req.WithContext(s.ctx))
	if err != nil {
		return nil, err
	}
	s.header = resp.Header
	s.ca.note(resp.Header)
	if ordering && resp.StatusCode == http.StatusConflict {
		s.refused = true
	}
	resp.Body = limited{http.MaxBytesReader(nil, resp.Body, maxAnswer), resp.Body}
	if resp.StatusCode >= http.StatusBadRequest {
		return problemBody(resp)
	}
	return resp, nil
}

// maxAnswer is how many bytes of a CA's answer are read: more than any chain of certificates has.
const maxAnswer = 4 << 20

type limited struct {
	io.Reader
	io.Closer
}

// problemBody makes sure that the body of an error is a problem document with the status that was answered: proxies in front of CAs answer
// HTML, and lego cannot read that.
func problemBody(resp *http.Response) (*http.Response, error) {
	raw, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	doc := map[string]any{}
	if json.Unmarshal(raw, &doc) != nil || doc == nil {
		doc = map[string]any{"detail": "the CA, or a proxy before it, answered with HTTP status " + resp.Status}
	}
	doc["status"] = resp.StatusCode
	if raw, err = json.Marshal(doc); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	resp.ContentLength = int64(len(raw))
	return resp, nil
}

// retryAfter returns what the last answer's Retry-After said (RFC 9110 section 10.2.3), zero when nothing.
func (s *session) retryAfter() time.Duration { return retryAfter(s.header, s.ca.clock.Now()) }

func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(n, uint64(domain.Longest/time.Second))) * time.Second //nolint:gosec // bounded
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), domain.Longest)
	}
	return 0
}

func (c *ca) note(h http.Header) {
	at, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	c.mu.Lock()
	c.skew = at.Sub(c.clock.Now())
	c.mu.Unlock()
}

func (c *ca) clockSkew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skew
}

func (c *ca) forget() {
	c.mu.Lock()
	c.directory = nil
	c.mu.Unlock()
}

func (c *ca) getDirectory(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	body := c.directory
	fresh := body != nil && c.clock.Now().Sub(c.read) < directoryAge
	c.mu.Unlock()
	if fresh {
		return &http.Response{
			StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
		}, nil
	}
	resp, err := c.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return problemBody(resp)
	}
	c.note(resp.Header)
	body, err = io.ReadAll(http.MaxBytesReader(nil, resp.Body, 1<<20))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.directory, c.read = body, c.clock.Now()
	c.mu.Unlock()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

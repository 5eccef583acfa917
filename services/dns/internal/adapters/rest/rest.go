// Package rest makes one request to the HTTP API of a DNS provider, and classifies what may go wrong on the way.
//
// It must never let a credential into an error: what a provider says is repeated only after every secret was taken out.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

const (
	maxAnswer = 4 << 20 // bytes of an answer that are read
	maxSaid   = 300     // bytes of a provider's own words in a message
)

// HTTP is the client of all providers. It follows no redirect: credentials go to no other address.
var HTTP = &http.Client{
	Transport:     http.DefaultTransport,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// direct is the client for addresses of the host itself, which no proxy reaches.
var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Client is one account's way to a provider.
type Client struct {
	Provider string // "Cloudflare", for messages
	Clock    clock.Clock
	Hide     []secret.Value
}

// Call is a request; a Body that is not nil is sent as JSON, url.Values as a form.
type Call struct {
	Method string
	URL    string
	Header http.Header
	Body   any
	Direct bool // past any proxy
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Into decodes the answer.
func (a Answer) Into(out any) error { return json.Unmarshal(a.Body, out) }

// Do makes a call. An answer with a status below 500 that is neither a redirect nor "too many requests" is the caller's to judge. Timeout
// means that a change may have happened.
func (c *Client) Do(ctx context.Context, call Call) (Answer, error) {
	var body io.Reader
	contentType := ""
	switch b := call.Body.(type) {
	case nil:
	case url.Values:
		body, contentType = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	default:
		plain, err := json.Marshal(b)
		if err != nil {
			return Answer{}, errs.New(errs.Internal, "", "a request to %s cannot be encoded: %w", c.Provider, err)
		}
		body, contentType = bytes.NewReader(plain), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, call.URL, body)
	if err != nil {
		return Answer{}, errs.New(errs.Internal, "", "a request to %s cannot be made", c.Provider) // the cause would quote the address
	}
	for name, values := range call.Header {
		req.Header[name] = values
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "certwright")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	client := HTTP
	if call.Direct {
		client = direct
	}
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, c.Lost(call.Method != http.MethodGet, req.URL.Host, err)
	}
	defer func() { _ = res.Body.Close() }()
	plain, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return Answer{}, c.Lost(call.Method != http.MethodGet, req.URL.Host, err)
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: plain}
	switch {
	case a.Status == http.StatusTooManyRequests:
		return a, c.Throttled(a)
	case a.Status >= 500 && call.Method == http.MethodGet:
		return a, c.Failed(errs.Unavailable, a)
	case a.Status >= 500:
		return a, c.Failed(errs.Timeout, a)
	case a.Status >= 300 && a.Status < 400:
		return a, errs.New(errs.Unavailable, domain.ReasonProviderFailed, "%s at %s redirects to another address, which is not followed; is a proxy in between?", c.Provider, req.URL.Host)
	}
	return a, nil
}

// Lost classifies a call without an answer. A connection that was never made is known to have changed nothing.
func (c *Client) Lost(changes bool, host string, err error) error {
	var (
		op      *net.OpError
		cert    *tls.CertificateVerificationError
		address *url.Error
	)
	if errors.As(err, &address) {
		err = address.Err
	}
	dialed := errors.As(err, &op) && op.Op == "dial"
	if dialed && op.Err != nil {
		err = op.Err
	}
	said := c.clean(err.Error())
	if dialed || errors.As(err, &cert) {
		return errs.New(errs.Unavailable, domain.ReasonUnreachable, "%s at %s cannot be reached: %s; check the network, a firewall, and HTTPS_PROXY of the dns service", c.Provider, host, said)
	}
	kind := errs.Unavailable
	if changes {
		kind = errs.Timeout
	}
	return errs.New(kind, domain.ReasonNoAnswer, "%s at %s took the connection but gave no answer: %s", c.Provider, host, said)
}

// Throttled is the error of a provider that wants fewer calls.
func (c *Client) Throttled(a Answer) error {
	wait := c.retryAfter(a.Header.Get("Retry-After"))
	when := "later"
	if wait > 0 {
		when = "after " + wait.String()
	}
	return errs.New(errs.RateLimited, domain.ReasonThrottled, "%s limits how often it is asked; it is asked again %s", c.Provider, when).WithRetryAfter(wait)
}

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3); zero when there is neither.
func (c *Client) retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 0 && n < 1e6 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(c.Clock.Now()).Round(time.Second))
	}
	return 0
}

// Failed is the error of an answer that nothing better is known of.
func (c *Client) Failed(kind errs.Kind, a Answer) error {
	return errs.New(kind, domain.ReasonProviderFailed, "%s answered %d %s: %s", c.Provider, a.Status, http.StatusText(a.Status), c.Said(a))
}

// Said is what the provider said, shortened, on one line and without any secret.
func (c *Client) Said(a Answer) string {
	said := strings.Join(strings.Fields(string(a.Body)), " ")
	if said == "" {
		return "nothing"
	}
	return c.clean(said)
}

func (c *Client) clean(text string) string {
	for _, s := range c.Hide {
		if !s.IsZero() {
			text = strings.ReplaceAll(text, s.Reveal(), secret.Placeholder)
		}
	}
	if len(text) > maxSaid {
		text = text[:maxSaid] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// Partly marks an error of a change of several requests of which one had succeeded: the change may have happened, in part.
func Partly(err error) error {
	e := errs.As(err)
	if e == nil {
		return err
	}
	partly := *e
	partly.Kind = errs.Timeout
	return &partly
}

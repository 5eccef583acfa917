// Package webhook posts events, signed as Standard Webhooks 1.0 says: HMAC-SHA256 over "<id>.<timestamp>.<body>" with the channel's secret. It must never
// follow a redirect, and never show a URL, whose path may be a secret: errors name the host alone.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// maxAnswer is how much of an answer's body is read, in bytes, and shown, in characters.
const maxAnswer = 300

// Sender implements app.Sender.
type Sender struct {
	Clock clock.Clock
}

// Send implements app.Sender. Any 2xx is success. 408, 429 and 5xx are RateLimited or Unavailable with the wait that Retry-After asks for; every other
// answer is Precondition WEBHOOK_REFUSED.
func (s Sender) Send(ctx context.Context, to app.Target, m app.Message) error {
	w := to.Channel.Webhook
	request, host, err := s.request(ctx, to, m)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if w.RootsPEM != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(w.RootsPEM)) {
			return errs.New(errs.Precondition, domain.ReasonWebhookRefused, "the webhook's trust roots contain no certificate")
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return unreachable(ctx, host, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // only to be shown
	return s.judge(host, response, answer)
}

func (s Sender) request(ctx context.Context, to app.Target, m app.Message) (r *http.Request, host string, err error) {
	key, err := app.WebhookKey(to.Secret)
	if err != nil {
		return nil, "", errs.New(errs.Precondition, domain.ReasonChannelUnreadable, "the webhook's secret is not of the right form; delete the channel and create it again")
	}
	defer clear(key)
	u, err := url.Parse(to.Channel.Webhook.URL)
	if err != nil {
		return nil, "", errs.New(errs.Precondition, domain.ReasonWebhookRefused, "the webhook's URL cannot be read; delete the channel and create it again")
	}
	r, err = http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(m.JSON))
	if err != nil {
		return nil, "", errs.New(errs.Precondition, domain.ReasonWebhookRefused, "the webhook at %s cannot be asked", u.Host)
	}
	timestamp := strconv.FormatInt(s.Clock.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "certwright")
	r.Header.Set("webhook-id", m.EventID)
	r.Header.Set("webhook-timestamp", timestamp)
	r.Header.Set("webhook-signature", sign(key, m.EventID, timestamp, m.JSON))
	return r, u.Host, nil
}

func sign(key []byte, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(h, "%s.%s.", id, timestamp)
	_, _ = h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func unreachable(ctx context.Context, host string, err error) error {
	if ctx.Err() != nil {
		return errs.New(errs.Timeout, domain.ReasonWebhookUnreachable, "the webhook at %s did not answer in time", host)
	}
	var named *url.Error // its text has the whole URL
	if errors.As(err, &named) {
		err = named.Err
	}
	return errs.New(errs.Unavailable, domain.ReasonWebhookUnreachable, "the webhook at %s cannot be reached: %s", host, domain.OneLine(err.Error(), maxAnswer))
}

func (s Sender) judge(host string, response *http.Response, answer []byte) error {
	code := response.StatusCode
	if code >= 200 && code <= 299 {
		return nil
	}
	kind, reason := errs.Precondition, domain.ReasonWebhookRefused
	switch {
	case code == http.StatusTooManyRequests:
		kind, reason = errs.RateLimited, domain.ReasonWebhookFailed
	case code == http.StatusRequestTimeout || code >= 500:
		kind, reason = errs.Unavailable, domain.ReasonWebhookFailed
	}
	said := ""
	if text := domain.OneLine(strings.ToValidUTF8(string(answer), "�"), maxAnswer); text != "" {
		said = ": " + text
	}
	if code >= 300 && code <= 399 {
		said = "; redirects are not followed: make a channel with the URL that it redirects to"
	}
	e := errs.New(kind, reason, "the webhook at %s answered %d %s%s", host, code, http.StatusText(code), said)
	return e.WithRetryAfter(s.retryAfter(response.Header.Get("Retry-After")))
}

// retryAfter reads the header (RFC 9110 section 10.2.3): seconds or a date; zero when it is neither.
func (s Sender) retryAfter(v string) time.Duration {
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second //nolint:gosec // 31 bits
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(s.Clock.Now()))
	}
	return 0
}

package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/notifications/internal/adapters/webhook"
	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

var start = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

const signing = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var message = app.Message{ID: "dlv_1", EventID: "crt_1-E-7-0", JSON: []byte(`{"id":"crt_1-E-7-0"}`)}

func target(url, roots string) app.Target {
	return app.Target{Secret: secret.New(signing), Channel: domain.Channel{Kind: domain.KindWebhook, Webhook: domain.Webhook{URL: url, RootsPEM: roots}}}
}

func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func send(t *testing.T, to app.Target) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return webhook.Sender{Clock: clock.NewFake(start)}.Send(ctx, to, message)
}

// The example of the Standard Webhooks specification's reference libraries.
func TestTheSignatureIsTheSpecificationsExample(t *testing.T) {
	var got string
	s, roots := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("webhook-signature") })
	to := target(s.URL, roots)
	m := app.Message{EventID: "msg_p5jXN8AQM9LWM0D4loKWxJek", JSON: []byte(`{"test": 2432232314}`)}
	require.NoError(t, webhook.Sender{Clock: clock.NewFake(time.Unix(1614265330, 0))}.Send(t.Context(), to, m))
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", got)
}

func TestAPostIsSigned(t *testing.T) {
	type post struct {
		header http.Header
		body   []byte
		method string
		path   string
	}
	posts := make(chan post, 1)
	s, roots := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- post{r.Header.Clone(), body, r.Method, r.URL.RequestURI()}
		w.WriteHeader(http.StatusNoContent)
	})
	require.NoError(t, send(t, target(s.URL+"/hook?team=web", roots)))
	got := <-posts
	require.Equal(t, http.MethodPost, got.method)
	require.Equal(t, "/hook?team=web", got.path)
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	require.Equal(t, message.JSON, got.body)
	require.Equal(t, message.EventID, got.header.Get("webhook-id"))
	require.Equal(t, "1793613600", got.header.Get("webhook-timestamp"))
	require.True(t, verify(signing, got.header, got.body))
	require.False(t, verify(signing, got.header, append(got.body, ' ')))
}

// verify is what a receiver does.
func verify(signing string, h http.Header, body []byte) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signing, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "." + string(body)))
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		version, given, _ := strings.Cut(s, ",")
		sum, err := base64.StdEncoding.DecodeString(given)
		if version == "v1" && err == nil && hmac.Equal(sum, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

func TestAnswersDecideWhatIsTriedAgain(t *testing.T) {
	for _, row := range []struct {
		name   string
		code   int
		header string
		kind   errs.Kind
		reason string
		after  time.Duration
		detail string
	}{
		{"400 is refused for good", 400, "", errs.Precondition, domain.ReasonWebhookRefused, 0, "answered 400 Bad Request: not like this"},
		{"404 is refused for good", 404, "", errs.Precondition, domain.ReasonWebhookRefused, 0, "answered 404 Not Found"},
		{"410 is refused for good", 410, "", errs.Precondition, domain.ReasonWebhookRefused, 0, "answered 410 Gone"},
		{"a redirect is not followed", 302, "", errs.Precondition, domain.ReasonWebhookRefused, 0, "redirects are not followed"},
		{"408 is tried again", 408, "", errs.Unavailable, domain.ReasonWebhookFailed, 0, "answered 408"},
		{"429 is tried again when its seconds have passed", 429, "120", errs.RateLimited, domain.ReasonWebhookFailed, 2 * time.Minute, "answered 429"},
		{"503 is tried again when its date has come", 503, start.Add(time.Hour).Format(http.TimeFormat), errs.Unavailable, domain.ReasonWebhookFailed, time.Hour, "answered 503"},
		{"500 with nonsense in Retry-After is tried again", 500, "soon", errs.Unavailable, domain.ReasonWebhookFailed, 0, "answered 500"},
		{"a date in the past is no wait", 500, start.Add(-time.Hour).Format(http.TimeFormat), errs.Unavailable, domain.ReasonWebhookFailed, 0, "answered 500"},
	} {
		t.Run(row.name, func(t *testing.T) {
			posts := 0
			s, roots := serve(t, func(w http.ResponseWriter, r *http.Request) {
				posts++
				w.Header().Set("Retry-After", row.header)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(row.code)
				_, _ = io.WriteString(w, "not\r\nlike\x00 this")
			})
			err := send(t, target(s.URL+"/secret-path", roots))
			require.Error(t, err)
			require.Equal(t, row.reason, errs.ReasonOf(err))
			require.Equal(t, row.kind, errs.KindOf(err))
			require.Equal(t, row.after, errs.As(err).RetryAfter)
			require.Contains(t, err.Error(), "the webhook at "+strings.TrimPrefix(s.URL, "https://")+" "+"answered")
			require.Contains(t, err.Error(), row.detail)
			require.NotContains(t, err.Error(), "secret-path")
			require.Equal(t, 1, posts)
		})
	}
}

func TestWhatCannotBeReachedIsTriedAgainAndItsPathNotShown(t *testing.T) {
	s, _ := serve(t, func(http.ResponseWriter, *http.Request) {})
	err := send(t, target(s.URL+"/secret-path", ""))
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	require.ErrorContains(t, err, "certificate signed by unknown authority")
	require.NotContains(t, err.Error(), "secret-path")

	release := make(chan struct{})
	slow, roots := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = webhook.Sender{Clock: clock.NewFake(start)}.Send(ctx, target(slow.URL+"/secret-path", roots), message)
	require.Equal(t, errs.Timeout, errs.KindOf(err))
	require.NotContains(t, err.Error(), "secret-path")
}

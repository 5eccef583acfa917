package rest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/rest"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

func TestFailuresAreClassifiedOnce(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	c := &rest.Client{Provider: "Acme DNS", Clock: now, Hide: []secret.Value{secret.New("t0ken"), {}}}
	table := []struct {
		name   string
		method string
		answer http.HandlerFunc
		kind   errs.Kind
		reason string
		msg    string // HOST stands for the address
		wait   time.Duration
	}{
		{"seconds to wait", http.MethodPut, say(429, "", "Retry-After", "90"), errs.RateLimited, "DNS_THROTTLED", "Acme DNS limits how often it is asked; it is asked again after 1m30s", 90 * time.Second},
		{"a date to wait for", http.MethodGet, say(429, "", "Retry-After", "Sun, 01 Nov 2026 12:05:00 GMT"), errs.RateLimited, "DNS_THROTTLED", "Acme DNS limits how often it is asked; it is asked again after 5m0s", 5 * time.Minute},
		{"nothing is said about when", http.MethodGet, say(429, "", "Retry-After", "soon"), errs.RateLimited, "DNS_THROTTLED", "Acme DNS limits how often it is asked; it is asked again later", 0},
		{"a broken server asked", http.MethodGet, say(502, "bad  \n gateway"), errs.Unavailable, "DNS_PROVIDER_FAILED", "Acme DNS answered 502 Bad Gateway: bad gateway", 0},
		{"a broken server told", http.MethodPost, say(500, ""), errs.Timeout, "DNS_PROVIDER_FAILED", "Acme DNS answered 500 Internal Server Error: nothing", 0},
		{"a server that repeats what it got", http.MethodPost, say(500, "you sent Bearer t0ken, t0ken!"), errs.Timeout, "DNS_PROVIDER_FAILED", "Acme DNS answered 500 Internal Server Error: you sent Bearer [secret], [secret]!", 0},
		{"a connection lost while asking", http.MethodGet, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, errs.Unavailable, "DNS_SERVER_NO_ANSWER", "Acme DNS at HOST took the connection but gave no answer: EOF", 0},
		{"a connection lost while telling", http.MethodPost, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, errs.Timeout, "DNS_SERVER_NO_ANSWER", "Acme DNS at HOST took the connection but gave no answer: EOF", 0},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			s := httptest.NewServer(row.answer)
			t.Cleanup(s.Close)
			_, err := c.Do(t.Context(), rest.Call{Method: row.method, URL: s.URL, Body: map[string]string{}})
			require.Equal(t, row.kind, errs.KindOf(err), "%v", err)
			require.Equal(t, row.reason, errs.ReasonOf(err))
			require.EqualError(t, err, strings.ReplaceAll(row.msg, "HOST", strings.TrimPrefix(s.URL, "http://")))
			require.Equal(t, row.wait, errs.As(err).RetryAfter)
		})
	}

	t.Run("nobody is there", func(t *testing.T) {
		url := fmt.Sprintf("http://127.0.0.1:%d", testkit.FreePort(t))
		_, err := c.Do(t.Context(), rest.Call{Method: http.MethodPost, URL: url})
		require.Equal(t, errs.Unavailable, errs.KindOf(err), "nothing can have changed: %v", err)
		require.ErrorContains(t, err, "connect: connection refused; check the network, a firewall, and HTTPS_PROXY of the dns service")
	})
	t.Run("a server that nobody vouches for", func(t *testing.T) {
		s := httptest.NewTLSServer(say(200, ""))
		t.Cleanup(s.Close)
		_, err := c.Do(t.Context(), rest.Call{Method: http.MethodPost, URL: s.URL})
		require.Equal(t, "DNS_SERVER_UNREACHABLE", errs.ReasonOf(err), "%v", err)
	})
}

func say(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

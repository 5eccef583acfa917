package responder_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/adapters/responder"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

func answers(_ context.Context, token string) (string, error) {
	switch token {
	case "tok-1_A":
		return "tok-1_A.key", nil
	case "broken":
		return "", errs.New(errs.Unavailable, "", "the store is away")
	}
	return "", errs.New(errs.NotFound, "", "none")
}

func TestTheResponderSaysNothingButAnswers(t *testing.T) {
	table := []struct {
		name, method, path string
		status             int
		body               string
	}{
		{"a known token", "GET", "/.well-known/acme-challenge/tok-1_A", 200, "tok-1_A.key"},
		{"an unknown token", "GET", "/.well-known/acme-challenge/other", 404, "404 page not found\n"},
		{"a token that is none", "GET", "/.well-known/acme-challenge/a.b", 404, "404 page not found\n"},
		{"a token that is too long", "GET", "/.well-known/acme-challenge/" + strings.Repeat("a", 513), 404, "404 page not found\n"},
		{"a path below", "GET", "/.well-known/acme-challenge/tok-1_A/x", 404, "404 page not found\n"},
		{"no token", "GET", "/.well-known/acme-challenge/", 404, "404 page not found\n"},
		{"another path", "GET", "/", 404, "404 page not found\n"},
		{"another method", "POST", "/.well-known/acme-challenge/tok-1_A", 404, "404 page not found\n"},
		{"a store that is away", "GET", "/.well-known/acme-challenge/broken", 503, "try again\n"},
	}
	h := responder.Handler(answers, testkit.Logger(t))
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(row.method, row.path, nil))
			require.Equal(t, row.status, w.Code)
			require.Equal(t, row.body, w.Body.String())
		})
	}
}

func TestServingEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- responder.Serve(ctx, l, responder.Handler(answers, testkit.Logger(t))) }()
	res, err := http.Get("http://" + l.Addr().String() + responder.Prefix + "tok-1_A") //nolint:noctx // a test
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, "tok-1_A.key", string(body))
	cancel()
	require.NoError(t, <-done)
}

func FuzzHandler(f *testing.F) {
	f.Add("/.well-known/acme-challenge/tok")
	f.Add("/.well-known/acme-challenge/../x")
	f.Fuzz(func(t *testing.T, path string) {
		asked := ""
		h := responder.Handler(func(_ context.Context, token string) (string, error) { asked = token; return "v", nil }, testkit.Logger(t))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusOK && strings.Trim(asked, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			t.Fatalf("%q was looked up", asked)
		}
	})
}

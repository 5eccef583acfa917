// Package responder answers http-01 challenges (RFC 8555 section 8.3). It is reachable from the whole internet, so it says nothing but the
// answers, and does nothing else.
package responder

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// Prefix is where answers are.
const Prefix = "/.well-known/acme-challenge/"

const (
	maxToken = 512
	patience = 5 * time.Second
)

// Answers finds the content for a token; NotFound when there is none.
type Answers func(ctx context.Context, token string) (string, error)

// Handler answers with what answers knows, and 404 for everything else.
func Handler(answers Answers, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.URL.Path, Prefix)
		if !ok || !valid(token) || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
			http.NotFound(w, r)
			return
		}
		content, err := answers(r.Context(), token)
		switch {
		case err == nil:
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = io.WriteString(w, content)
		case errs.KindOf(err) == errs.NotFound:
			http.NotFound(w, r)
		default:
			log.WarnContext(r.Context(), "a challenge cannot be looked up", "error", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
		}
	})
}

// valid reports whether a token is base64url without padding, as RFC 8555 section 8.1 wants it.
func valid(token string) bool {
	if token == "" || len(token) > maxToken {
		return false
	}
	for _, r := range token {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return false
		}
	}
	return true
}

// Serve answers on l until ctx ends, and lets requests in hand finish.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadTimeout: patience, ReadHeaderTimeout: patience, WriteTimeout: patience, IdleTimeout: 6 * patience, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // the internet's malformed requests are no news
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		return s.Close()
	}
	return nil
}

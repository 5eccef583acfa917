package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/testkit"
)

// wire is a client's connection; broken makes writing to it fail, as a passed deadline does.
type wire struct {
	mu       sync.Mutex
	header   http.Header
	buf      bytes.Buffer
	deadline time.Time
	broken   bool
}

func (w *wire) Header() http.Header             { return w.header }
func (w *wire) WriteHeader(int)                 {}
func (w *wire) Flush()                          {}
func (w *wire) SetReadDeadline(time.Time) error { return nil }

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	return nil
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		return 0, errors.New("deadline exceeded")
	}
	if w.deadline.IsZero() {
		return 0, errors.New("written without a deadline")
	}
	return w.buf.Write(b)
}

func (w *wire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// told is a bus that tells what it is given.
type told chan bus.Event

func (told) StreamEpoch() string { return "E" }

func (f told) Tail(ctx context.Context, _ bus.TailOptions, show func(bus.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f:
			if err := show(e); err != nil {
				return err
			}
		}
	}
}

// inProcess is identity without a network.
type inProcess struct {
	identityv1.IdentityServiceClient
	fake *identityFake
}

func (i inProcess) Authenticate(ctx context.Context, r *identityv1.AuthenticateRequest, _ ...grpc.CallOption) (*identityv1.AuthenticateResponse, error) {
	return i.fake.Authenticate(ctx, r)
}

func newFeedWorld(t *testing.T) (clk *clock.Fake, facts told, identity *identityFake, out *wire, ended chan struct{}) {
	t.Helper()
	clk, facts, out, ended = clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), make(told), &wire{header: http.Header{}}, make(chan struct{})
	identity = &identityFake{tokens: map[string]*identityv1.Token{webToken: {Id: "tok_web", Team: "web", Permissions: []string{"events.read"}}}}
	f := newFeed(facts, newAuthenticator(inProcess{fake: identity}, clk), slog.New(slog.DiscardHandler))
	f.clk = clk
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequest(http.MethodGet, "/v1/events", nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+webToken)
	go func() {
		defer close(ended)
		f.serve(out, r, authz.Principal{Subject: "token:tok_web", Team: "web", Permissions: []string{"events.read"}}, nil)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return clk, facts, identity, out, ended
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestAHeartbeatMovesThePositionPastHiddenFacts(t *testing.T) {
	clk, facts, identity, out, ended := newFeedWorld(t)
	facts <- bus.Event{ID: "x", Type: "certificate.issued", Team: "mail", StreamEpoch: "E", Sequence: 7, Data: []byte("{}")}
	testkit.Eventually(t, func() bool {
		clk.Advance(heartbeat)
		return bytes.Contains([]byte(out.text()), []byte(": heartbeat\nid: E-7\n\n"))
	}, "no heartbeat with the position")
	require.NotContains(t, out.text(), "data:")

	identity.revoke(webToken)
	testkit.Eventually(t, func() bool { clk.Advance(heartbeat); return isClosed(ended) }, "a revoked token goes on reading")
}

func TestASlowClientIsLetGo(t *testing.T) {
	_, facts, _, out, ended := newFeedWorld(t)
	facts <- bus.Event{ID: "x", Type: "certificate.issued", Team: "web", StreamEpoch: "E", Sequence: 1, Data: []byte("{}")}
	testkit.Eventually(t, func() bool { return bytes.Contains([]byte(out.text()), []byte("id: E-1\n")) }, "the fact did not come")
	testkit.Eventually(t, func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.deadline.IsZero()
	}, "a deadline runs while nothing is written")
	out.mu.Lock()
	out.broken = true
	out.mu.Unlock()
	facts <- bus.Event{ID: "y", Type: "certificate.issued", Team: "web", StreamEpoch: "E", Sequence: 2, Data: []byte("{}")}
	testkit.Eventually(t, func() bool { return isClosed(ended) }, "the feed goes on")
}

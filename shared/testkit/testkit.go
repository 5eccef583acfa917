// Package testkit is what the tests of several packages need: a real bus server and one that only remembers, stores, loggers, background
// work that ends with its test, and conditions with a deadline. It is never linked into the product.
package testkit

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/shared/clock"
)

// Deadline is how long Eventually waits. It is generous, since tests share two slow cores with everything else.
const Deadline = 30 * time.Second

// RequireAll reports whether a missing part fails the test instead of skipping it (REQUIRE_ALL=1, as in CI).
func RequireAll() bool { return os.Getenv("REQUIRE_ALL") == "1" }

// Missing ends the test because something that the machine should offer is not there: it skips on a developer's machine and
// fails where REQUIRE_ALL=1. The message says what is missing and how to get it.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	msg := fmt.Sprintf(format, args...)
	if RequireAll() {
		t.Fatalf("%s (REQUIRE_ALL=1 forbids to skip)", msg)
	}
	t.Skip(msg)
}

// RequireBinary returns the path of the program name, or ends the test naming the system package pkg that has it (see Missing).
func RequireBinary(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		// Debian keeps servers where a user's PATH does not look.
		for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
			if path, err = exec.LookPath(dir + name); err == nil {
				return path
			}
		}
		Missing(t, "%s is not installed: install package %s", name, pkg)
	}
	return path
}

// FreePort returns a TCP port of the loopback interface that was free a moment ago, also for UDP.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("no free port: %v", err)
		}
		port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener has a TCP address
		u, udpErr := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if udpErr == nil {
			_ = u.Close()
			return port
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return 0
}

// Eventually waits until cond holds and fails the test with msg when it does not within Deadline. msg may have arguments
// like fmt.Sprintf.
func Eventually(t testing.TB, cond func() bool, msg string, args ...any) {
	t.Helper()
	deadline := time.NewTimer(Deadline)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", Deadline, fmt.Sprintf(msg, args...))
		}
	}
}

// Passes lets the time of clk go by in steps until cond holds, and fails the test with msg like Eventually when it does not.
func Passes(t testing.TB, clk *clock.Fake, step time.Duration, cond func() bool, msg string, args ...any) {
	t.Helper()
	Eventually(t, func() bool {
		if cond() {
			return true
		}
		clk.Advance(step)
		return cond()
	}, msg, args...)
}

// Run runs each part in the background until stop is called or the test ends, and waits until they have returned. An error of a part fails the test.
func Run(t testing.TB, parts ...func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() {
			if err := part(ctx); err != nil {
				t.Errorf("in the background: %v", err)
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// Logger writes to the test's log, everything from Debug on, and falls silent when the test has ended.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// testWriter guards against goroutines that outlive the test: writing to the log of an ended test panics.
type testWriter struct {
	mu sync.Mutex
	t  testing.TB // nil after the end
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}

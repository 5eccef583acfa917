// Package labtest starts the lab's peers for tests: each ends with its test, and a missing system program skips
// the test with a message, or fails it when REQUIRE_ALL=1 is in the environment.
package labtest

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/certwright/certwright/deployments/lab/bind"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/internal/process"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/nats"
	"github.com/certwright/certwright/deployments/lab/nginx"
	"github.com/certwright/certwright/deployments/lab/site"
	"github.com/certwright/certwright/deployments/lab/smtp"
	"github.com/certwright/certwright/deployments/lab/webhook"
)

const module = "github.com/certwright/certwright/deployments/lab"

// Need skips the test, or fails it with REQUIRE_ALL=1, when a program is not installed; pkg is Debian's package.
func Need(t testing.TB, program, pkg string) {
	t.Helper()
	_, err := process.Find(program, pkg)
	missing(t, err)
}

func missing(t testing.TB, err error) {
	t.Helper()
	var m *process.MissingError
	if !errors.As(err, &m) {
		return
	}
	if os.Getenv("REQUIRE_ALL") == "1" {
		t.Fatalf("%s (REQUIRE_ALL=1)", m)
	}
	t.Skip(m.Error())
}

// Deadline is a context for waiting inside a test: it ends with the test, and at the latest after d.
func Deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Eventually asks f again and again until it says yes, and fails the test with the reason that f gives for its no when ctx ends first.
func Eventually(ctx context.Context, t testing.TB, f func() (yes bool, why string)) {
	t.Helper()
	for {
		yes, why := f()
		if yes {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", why)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Port returns a loopback port that was free a moment ago.
func Port(t testing.TB) int {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// CA starts an ACME CA.
func CA(t testing.TB, o ca.Options) *ca.Server {
	t.Helper()
	return started(t, ca.Start, o)
}

// DNS starts the in-process DNS server.
func DNS(t testing.TB, o dnsserver.Options) *dnsserver.Server {
	t.Helper()
	return started(t, dnsserver.Start, o)
}

// Bind starts BIND 9, or skips.
func Bind(t testing.TB, o bind.Options) *bind.Server {
	t.Helper()
	return started(t, func(o bind.Options) (*bind.Server, error) { return bind.Start(t.Context(), o) }, o)
}

// Nginx starts nginx, or skips.
func Nginx(t testing.TB, o nginx.Options) *nginx.Server {
	t.Helper()
	return started(t, func(o nginx.Options) (*nginx.Server, error) { return nginx.Start(t.Context(), o) }, o)
}

// Site starts a TLS site; without files it serves a throw-away certificate for the names from a temporary directory.
func Site(t testing.TB, o site.Options) *site.Site {
	t.Helper()
	if o.CertFile == "" {
		dir := t.TempDir()
		o.CertFile, o.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	}
	return started(t, site.Start, o)
}

// SMTP starts a mail sink.
func SMTP(t testing.TB, o smtp.Options) *smtp.Sink {
	t.Helper()
	return started(t, smtp.Start, o)
}

// Webhook starts a webhook receiver.
func Webhook(t testing.TB, o webhook.Options) *webhook.Receiver {
	t.Helper()
	return started(t, webhook.Start, o)
}

// NATS starts a NATS server; without a directory it gets a temporary one.
func NATS(t testing.TB, o nats.Options) *nats.Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	return started(t, nats.Start, o)
}

// Hammer starts hammering.
func Hammer(t testing.TB, o hammer.Options) *hammer.Hammer {
	t.Helper()
	h, err := hammer.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Stop() })
	return h
}

// Sitectl builds the sitectl command and returns its path. The build is cached by the go command.
func Sitectl(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sitectl")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, module+"/cmd/sitectl").CombinedOutput()
	if err != nil {
		t.Fatalf("build sitectl: %v\n%s", err, out)
	}
	return path
}

// started starts a peer that is closed with the test. The test ends here when the peer does not start, or a program that it needs is not installed.
func started[O any, P io.Closer](t testing.TB, start func(O) (P, error), o O) P {
	t.Helper()
	peer, err := start(o)
	missing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := peer.Close(); err != nil {
			t.Errorf("close %T: %v", peer, err)
		}
	})
	return peer
}

package filehost

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

const (
	tailKept  = 16 << 10 // bytes of output that are looked at
	tailShown = 2 << 10  // and shown
	killGrace = 2 * time.Second
)

// Reload runs a named command of the host and answers the end of its output, without anything that looks like a key. Precondition DEPLOY_RELOAD_FAILED: it
// could not be started or exited with another status than 0; DEPLOY_RELOAD_TIMEOUT: it was killed, with what it had started, at its deadline.
func (h *Host) Reload(ctx context.Context, name string) (output string, err error) {
	argv, err := h.command(name)
	if err != nil {
		return "", err
	}
	limit, cancel := context.WithTimeout(ctx, h.cfg.CommandTimeout)
	defer cancel()
	cmd := exec.CommandContext(limit, argv[0], argv[1:]...) //nolint:gosec // the host's own configuration names it
	cmd.Dir = "/"
	// The service's environment may hold secrets; the command gets none of it but where programs are.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "LANG=C.UTF-8"}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = killGrace
	group(cmd)
	err = cmd.Run()
	output = Redact(out.text())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return output, nil
	case ctx.Err() != nil:
		return output, errs.New(errs.Canceled, "", "the command %q was interrupted", name)
	case limit.Err() != nil:
		return output, errs.New(errs.Precondition, "DEPLOY_RELOAD_TIMEOUT", "the command %q on the host %q was killed after %s; its output ends with: %s",
			name, h.name, h.cfg.CommandTimeout, quote(output))
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return output, errs.New(errs.Precondition, "DEPLOY_RELOAD_FAILED", "the command %q on the host %q ended with exit code %d; its output ends with: %s",
			name, h.name, exit.ExitCode(), quote(output))
	}
	return output, errs.New(errs.Precondition, "DEPLOY_RELOAD_FAILED", "the command %q on the host %q could not be run: %s", name, h.name, err)
}

func quote(output string) string {
	if output == "" {
		return "(no output)"
	}
	return output
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailKept; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(p), nil
}

func (t *tail) text() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.buf)
}

var (
	wholeKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)
	endOfKey = regexp.MustCompile(`(?s)^.*?-----END [A-Z0-9 ]*PRIVATE KEY-----`)
	keyLine  = regexp.MustCompile(`[A-Za-z0-9+/=]{60,}`)
)

// Redact shows the last 2 KB of a command's output. Private keys in PEM are taken out, whole or cut, and so is every long run of base64: it could be the
// line of a key.
func Redact(output []byte) string {
	const removed = "[removed]"
	s := wholeKey.ReplaceAllString(string(output), removed)
	s = endOfKey.ReplaceAllString(s, removed)
	s = keyLine.ReplaceAllString(s, removed)
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s), "")
	if n := len(s) - tailShown; n > 0 {
		s = strings.ToValidUTF8(s[n:], "")
	}
	return strings.TrimSpace(s)
}

package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/certwright/certwright/deployments/lab/client"
)

// Process is the one-process program as a child that a test may kill, stop and start again on the same data.
type Process struct {
	*client.Client
	Binary string
	Dir    string   // data directory
	Config string   // YAML file
	Edge   string   // base URL
	Env    []string // besides the test's own, for the next start

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	log  *os.File
}

// Build builds a program of this repository and returns the path of the binary. race builds it with the race detector.
func Build(ctx context.Context, dir, pkg string) (string, error) {
	out := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}

// Start starts the program and returns when it is ready, or when it has died before.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log == nil {
		var err error
		if p.log, err = os.OpenFile(filepath.Join(filepath.Dir(p.Config), "certwright.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	p.cmd = exec.Command(p.Binary, "serve", "--config", p.Config) //nolint:gosec,noctx // a test's own binary; it is killed by the test
	p.cmd.Env = append(os.Environ(), p.Env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(done)
	}(p.cmd)
	return p.ready(ctx)
}

// ErrDied is the answer of Start when the program ended before it was ready.
var ErrDied = errors.New("the program ended before it was ready")

func (p *Process) ready(ctx context.Context) error {
	for {
		if err := p.connect(); err == nil {
			if _, err := p.Raw(ctx, http.MethodGet, "/readyz", nil); err == nil {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("%w: see %s\n%s", ErrDied, p.log.Name(), tail(p.log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("the program is not ready: %w\n%s", ctx.Err(), tail(p.log.Name()))
		case <-time.After(20 * time.Millisecond): //nolint:forbidigo // a real process starts in real time
		}
	}
}

func (p *Process) connect() error {
	if p.Client != nil {
		return nil
	}
	roots, err := os.ReadFile(filepath.Join(p.Dir, "gateway", "edge-ca.pem"))
	if err != nil {
		return err
	}
	p.Client, err = client.New(p.Edge, roots, filepath.Join(p.Dir, "admin.token"))
	return err
}

// Signal sends a signal to the program, e.g. SIGKILL or SIGSTOP.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Died returns a channel that closes when the program has ended.
func (p *Process) Died() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Kill kills the program and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the program to end, and waits.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("the program did not stop: %w", ctx.Err())
	}
}

// Close kills the program if it runs, and closes its log.
func (p *Process) Close() error {
	if p.cmd != nil {
		p.Kill()
	}
	if p.log == nil {
		return nil
	}
	return p.log.Close()
}

func tail(file string) string {
	text, err := os.ReadFile(file) //nolint:gosec // the log of a test's own program
	if err != nil {
		return ""
	}
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return string(bytes.TrimSpace(text))
}

// Package process runs a system's server program for the lab: finds it, starts it, and ends it by its own id.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/certwright/certwright/shared/clock"
)

const stopTimeout = 5 * time.Second

// MissingError says that a program is not installed, and what to install.
type MissingError struct {
	Program string
	Package string // Debian's name
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the program %s is not installed; install the package %s", e.Program, e.Package)
}

// Find returns the path of a program, looking also where a plain user's PATH does not. The error is a *MissingError.
func Find(program, pkg string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", &MissingError{Program: program, Package: pkg}
}

// Process is a running program.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
	stop func() error
}

// Start runs a program with its output going to a file.
func Start(logFile string, program string, args ...string) (*Process, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	defer func() { _ = out.Close() }() // the child has its own
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is the parent's to handle
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	p.stop = sync.OnceValue(p.end)
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the program has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the program's process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the program at once, as a crash does.
func (p *Process) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Stop ends the program politely, and by force when it does not go. It is safe to call more than once.
func (p *Process) Stop() error { return p.stop() }

func (p *Process) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		<-p.done
		return nil //nolint:nilerr // it has ended already
	}
	late, cancel := clock.System().After(stopTimeout)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-late:
		return p.Kill()
	}
}

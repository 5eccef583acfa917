// Package failpoint names the instants at which a crash would be interesting, so that tests can kill the process at each of
// them. It does nothing unless the environment asks:
//
//	CERTWRIGHT_FAILPOINT_LOG=FILE     append the name of every point hit, one a line
//	CERTWRIGHT_FAILPOINT_KILL=NAME#N  SIGKILL the own process at the N-th hit of NAME (N from 1; #N may be left out)
//
// Names have the form store.<collection>.<insert|update|remove>.<before|after>, publish.<event type>.<before|after> and
// call.<what>.<before|after>.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

var active = load(os.Getenv("CERTWRIGHT_FAILPOINT_LOG"), os.Getenv("CERTWRIGHT_FAILPOINT_KILL"))

type points struct {
	mu   sync.Mutex
	log  *os.File
	kill string
	left int
}

func load(logPath, kill string) *points {
	if logPath == "" && kill == "" {
		return nil
	}
	p := &points{kill: kill, left: 1}
	if name, n, ok := strings.Cut(kill, "#"); ok {
		p.kill = name
		if left, err := strconv.Atoi(n); err == nil && left > 0 {
			p.left = left
		}
	}
	if logPath != "" {
		f, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // a test names the file
		if err == nil {
			p.log = f
		}
	}
	return p
}

// Hit marks that the process reached the point name.
func Hit(name string) {
	if active == nil {
		return
	}
	active.hit(name)
}

func (p *points) hit(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		_, _ = p.log.WriteString(name + "\n")
	}
	if name != p.kill {
		return
	}
	p.left--
	if p.left == 0 {
		kill()
		select {} // the kill ends this; nothing may run past the point
	}
}

// Around hits name.before, runs f, and hits name.after, whatever f returned.
func Around(name string, f func() error) error {
	if active == nil {
		return f()
	}
	active.hit(name + ".before")
	err := f()
	active.hit(name + ".after")
	return err
}

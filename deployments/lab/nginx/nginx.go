// Package nginx runs Debian's nginx from a private directory on a loopback port: an end server that nobody wrote
// for the platform.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/certwright/certwright/deployments/lab/internal/process"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/site"
	"github.com/certwright/certwright/shared/clock"
)

const (
	startTimeout = 20 * time.Second
	attempts     = 5 // ports tried, as somebody else may take one in between
)

// ErrNotStarted is in the error's chain when nginx ended or did not accept in time.
var ErrNotStarted = errors.New("nginx did not start")

// Options of a server.
type Options struct {
	CertFile, KeyFile string   // PEM; empty: cert.pem and key.pem in Dir
	Names             []string // to make a throw-away certificate for when CertFile does not exist
	Dir               string   // private directory; empty: a temporary one, removed on Close
}

// Server is a running nginx.
type Server struct {
	CertFile, KeyFile string

	fallback []byte
	program  string
	dir      string
	addr     string
	process  *process.Process
	closeFn  func() error
}

// Start runs nginx until Close. Without the program the error is a *process.MissingError naming the package.
func Start(ctx context.Context, o Options) (*Server, error) {
	program, err := process.Find("nginx", "nginx")
	if err != nil {
		return nil, err
	}
	s := &Server{program: program, dir: o.Dir, CertFile: o.CertFile, KeyFile: o.KeyFile}
	remove := func() error { return nil }
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "lab-nginx-"); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
		remove = func() error { return os.RemoveAll(s.dir) }
	}
	if s.CertFile == "" {
		s.CertFile, s.KeyFile = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	}
	if s.fallback, err = site.EnsureFiles(s.CertFile, s.KeyFile, o.Names); err != nil {
		return nil, errors.Join(err, remove())
	}
	for range attempts {
		if err = s.try(ctx); err == nil {
			s.closeFn = sync.OnceValue(func() error { return errors.Join(s.process.Stop(), remove()) })
			return s, nil
		}
	}
	return nil, errors.Join(err, remove())
}

func (s *Server) try(ctx context.Context) error {
	port, err := loopback.Port()
	if err != nil {
		return err
	}
	s.addr = fmt.Sprintf("127.0.0.1:%d", port)
	if err := os.WriteFile(s.conf(), []byte(s.config()), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	s.process, err = process.Start(filepath.Join(s.dir, "output.log"), s.program, s.args("-g", "daemon off;")...)
	if err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return errors.Join(err, s.process.Stop())
	}
	return nil
}

func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		select {
		case <-s.process.Done():
			return fmt.Errorf("%w: %s", ErrNotStarted, s.Log())
		default:
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		if clock.System().Sleep(ctx, 10*time.Millisecond) != nil {
			return fmt.Errorf("%w in %s: %s", ErrNotStarted, startTimeout, s.Log())
		}
	}
}

// Close ends nginx. It is safe to call more than once.
func (s *Server) Close() error { return s.closeFn() }

// Addr is the host:port of the site.
func (s *Server) Addr() string { return s.addr }

// FallbackRootPEM is the root of the throw-away certificate that Start made, or nil.
func (s *Server) FallbackRootPEM() []byte { return s.fallback }

// ReloadCommand is the command, as an argument array, that makes nginx read its certificate again. It returns
// before the new one is served; a broken certificate makes it fail and the old one stay.
func (s *Server) ReloadCommand() []string {
	return append([]string{s.program}, s.args("-s", "reload")...)
}

// TestCommand is the command, as an argument array, that checks configuration and certificate.
func (s *Server) TestCommand() []string { return append([]string{s.program}, s.args("-t")...) }

// Log is what nginx has written so far.
func (s *Server) Log() string {
	var all string
	for _, name := range []string{"output.log", "error.log"} {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err == nil {
			all += string(b)
		}
	}
	return all
}

func (s *Server) conf() string { return filepath.Join(s.dir, "nginx.conf") }

func (s *Server) args(more ...string) []string {
	return append([]string{"-p", s.dir, "-e", filepath.Join(s.dir, "error.log"), "-c", s.conf()}, more...)
}

func (s *Server) config() string {
	return fmt.Sprintf(`pid %[1]q;
error_log %[2]q notice;
worker_processes 1;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen %[3]s ssl;
		ssl_certificate %[4]q;
		ssl_certificate_key %[5]q;
		location / { return 200 "hello\n"; }
	}
}
`, filepath.Join(s.dir, "nginx.pid"), filepath.Join(s.dir, "error.log"), s.addr, s.CertFile, s.KeyFile)
}

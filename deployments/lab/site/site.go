// Package site is a small TLS web site whose certificate is read from files and exchanged by a reload: the end
// server of tests and the demo. A reload never fails a handshake.
package site

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/pki"
)

// Options of a site.
type Options struct {
	CertFile, KeyFile string // PEM, leaf first
	Addr              string // loopback address of the site; empty: a free port
	ControlAddr       string // loopback address of the control endpoint; empty: a free port
	// Names to make a throw-away certificate for when CertFile does not exist: what the site served before the
	// platform came. Empty: a missing file is an error.
	Names []string
}

// Mode is how the site treats a reload.
type Mode int32

// The modes.
const (
	Honest   Mode = iota // loads what the files hold, or keeps the old certificate and says why
	Refusing             // answers every reload with an error and keeps the old certificate
	Ignoring             // claims success and keeps the old certificate: a server that nobody watched
)

// Site is a running site.
type Site struct {
	opts     Options
	fallback []byte // PEM of the root of the throw-away certificate
	current  atomic.Pointer[tls.Certificate]
	mode     atomic.Int32
	reloads  atomic.Int64
	site     net.Listener
	control  net.Listener
	servers  []*http.Server
	finished sync.WaitGroup
	closeFn  func() error
}

// Start runs a site until Close.
func Start(o Options) (*Site, error) {
	s := &Site{opts: o}
	if err := s.ensure(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	var err error
	if s.site, err = loopback.Listen(o.Addr); err != nil {
		return nil, err
	}
	if s.control, err = loopback.Listen(o.ControlAddr); err != nil {
		return nil, errors.Join(err, s.site.Close())
	}
	quiet := log.New(io.Discard, "", 0)
	web := &http.Server{Handler: http.HandlerFunc(s.page), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	admin := &http.Server{Handler: s.admin(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	s.servers = []*http.Server{web, admin}
	s.finished.Go(func() {
		_ = web.Serve(tls.NewListener(s.site, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.current.Load(), nil },
		}))
	})
	s.finished.Go(func() { _ = admin.Serve(s.control) })
	s.closeFn = sync.OnceValue(func() error {
		err := errors.Join(web.Close(), admin.Close())
		s.finished.Wait()
		return err
	})
	return s, nil
}

// Close ends the site. It is safe to call more than once.
func (s *Site) Close() error { return s.closeFn() }

// Addr is the host:port of the site.
func (s *Site) Addr() string { return s.site.Addr().String() }

// ControlAddr is the host:port of the control endpoint: POST /reload, GET /fingerprint.
func (s *Site) ControlAddr() string { return s.control.Addr().String() }

// FallbackRootPEM is the root of the throw-away certificate that Start made, or nil.
func (s *Site) FallbackRootPEM() []byte { return s.fallback }

// Fingerprint is the SHA-256 of the certificate served now, in lower-case hex.
func (s *Site) Fingerprint() string { return pki.Fingerprint(s.current.Load().Certificate[0]) }

// Reloads is how many reloads were asked for.
func (s *Site) Reloads() int { return int(s.reloads.Load()) }

// SetMode changes how later reloads are treated.
func (s *Site) SetMode(m Mode) { s.mode.Store(int32(m)) }

// Reload reads the files again, as POST /reload does. On an error the old certificate stays.
func (s *Site) Reload() error {
	s.reloads.Add(1)
	switch Mode(s.mode.Load()) {
	case Refusing:
		return errors.New("the site refuses to reload")
	case Ignoring:
		return nil
	case Honest:
	}
	return s.load()
}

func (s *Site) load() error {
	pair, err := tls.LoadX509KeyPair(s.opts.CertFile, s.opts.KeyFile)
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	s.current.Store(&pair)
	return nil
}

// ensure makes the files when they are missing and names are given.
func (s *Site) ensure() error {
	root, err := EnsureFiles(s.opts.CertFile, s.opts.KeyFile, s.opts.Names)
	s.fallback = root
	return err
}

// EnsureFiles writes a throw-away certificate and key for the names when certFile does not exist, and returns the
// root of it; nil when nothing was written.
func EnsureFiles(certFile, keyFile string, names []string) ([]byte, error) {
	if _, err := os.Stat(certFile); err == nil || len(names) == 0 {
		return nil, nil
	}
	root, err := pki.New("Throw-away root")
	if err != nil {
		return nil, err
	}
	pair, err := root.Issue(names...)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(keyFile, pair.KeyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	if err := os.WriteFile(certFile, pair.CertPEM, 0o600); err != nil {
		return nil, fmt.Errorf("write certificate: %w", err)
	}
	return root.RootPEM(), nil
}

func (s *Site) page(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "hello from %s\n", r.Host)
}

func (s *Site) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Reload(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintln(w, s.Fingerprint())
	})
	mux.HandleFunc("GET /fingerprint", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, s.Fingerprint())
	})
	return mux
}

// Control asks a site's control endpoint for "reload" or "fingerprint" and returns the fingerprint that it says it
// serves. It is the whole of the sitectl command.
func Control(ctx context.Context, command, controlAddr string) (string, error) {
	method := http.MethodGet
	switch command {
	case "reload":
		method = http.MethodPost
	case "fingerprint":
	default:
		return "", fmt.Errorf("unknown command %q, use reload or fingerprint", command)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+controlAddr+"/"+command, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("control address %q: %w", controlAddr, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s refused: %s", command, text)
	}
	return text, nil
}

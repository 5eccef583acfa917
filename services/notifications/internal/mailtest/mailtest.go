// Package mailtest is a mail server for tests: a real SMTP conversation with STARTTLS or TLS under its own root, and AUTH. It keeps what it took and
// answers what the test wants. It is never linked into the product.
package mailtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// User and Password are what AUTH takes.
const (
	User     = "certwright"
	Password = "correct horse battery staple"
)

// Mail is one that the server took.
type Mail struct {
	From string
	To   []string
	User string // empty: no AUTH
	TLS  bool
	Text string
}

// Server is a running mail server.
type Server struct {
	Addr     string // host:port
	RootsPEM string

	mu    sync.Mutex // guards all below
	mails []Mail
	rcpt  func(to string) error
	data  func() error
}

// Options say how the server listens. The zero value is plain text without STARTTLS.
type Options struct {
	StartTLS, TLS, Auth bool
}

// Start runs a mail server on loopback until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{}
	var config *tls.Config
	config, s.RootsPEM = certificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		if o.Auth {
			return &authSession{session{server: s, conn: c}}, nil
		}
		return &session{server: s, conn: c}, nil
	}))
	server.Domain, server.ErrorLog, server.AllowInsecureAuth = "mail.test", log.New(io.Discard, "", 0), true
	server.ReadTimeout, server.WriteTimeout = 30*time.Second, 30*time.Second
	if o.StartTLS {
		server.TLSConfig, server.AllowInsecureAuth = config, false
	}
	if o.TLS {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	// A server closed before it serves does not know the listener yet.
	t.Cleanup(func() { _ = server.Close(); _ = l.Close(); <-done })
	return s
}

// Mails lists what was taken.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

// AnswerRcpt makes the server answer each receiver with what f says; nil takes all.
func (s *Server) AnswerRcpt(f func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcpt = f
}

// AnswerData makes the server answer each mail's text with what f says; nil takes all.
func (s *Server) AnswerData(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = f
}

// Say is an answer, e.g. Say(550, "5.1.1 no such user").
func Say(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.NoEnhancedCode, Message: text}
}

type session struct {
	server *Server
	conn   *smtp.Conn
	mail   Mail
}

func (s *session) Reset()        { s.mail = Mail{User: s.mail.User} }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mail.From = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	f := s.server.rcpt
	s.server.mu.Unlock()
	if f != nil {
		if err := f(to); err != nil {
			return err
		}
	}
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	f := s.server.data
	s.server.mu.Unlock()
	if f != nil {
		if err := f(); err != nil {
			return err
		}
	}
	s.mail.Text = string(text)
	_, s.mail.TLS = s.conn.TLSConnectionState()
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, s.mail)
	return nil
}

type authSession struct{ session }

func (s *authSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *authSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != User || password != Password {
			return smtp.ErrAuthFailed
		}
		s.mail.User = user
		return nil
	}), nil
}

func (s *authSession) Mail(from string, o *smtp.MailOptions) error {
	if s.mail.User == "" {
		return smtp.ErrAuthRequired
	}
	return s.session.Mail(from, o)
}

// certificate makes a root and a server certificate for 127.0.0.1.
func certificate(t testing.TB) (*tls.Config, string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Mail test root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "mail.test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	must(err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}))
}

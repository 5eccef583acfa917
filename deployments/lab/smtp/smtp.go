// Package smtp is a mail server that delivers nothing: it keeps every message for tests and the demo, offers
// STARTTLS with a throw-away certificate, and can refuse, put off or hang.
package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/shared/clock"
)

const maxMessageBytes = 10 << 20

// Options of a sink.
type Options struct {
	Addr string // loopback address to listen on; empty: a free port
	// Username and Password of AUTH PLAIN, offered under TLS only. Not empty: mail needs them.
	Username, Password string
	RequireTLS         bool // mail without STARTTLS is refused
	WithoutTLS         bool // STARTTLS is not offered
}

// Mode is what happens to mail.
type Mode int

// The modes.
const (
	Accept   Mode = iota
	Reject        // every recipient is refused for good (550)
	Greylist      // the first attempt for each sender and recipient is put off (451), later ones pass
	PutOff        // every recipient is put off (451)
	Hang          // nothing is answered to a recipient until the mode changes or the client goes
)

// Message is one mail that was accepted.
type Message struct {
	From string
	To   []string
	Data []byte // as sent, headers and body
	TLS  bool
	User string // who authenticated, or ""
	At   time.Time
}

// Parse reads the headers; the body is left to be read from the result.
func (m Message) Parse() (*mail.Message, error) {
	return mail.ReadMessage(strings.NewReader(string(m.Data)))
}

// Sink is a running server.
type Sink struct {
	opts     Options
	root     *pki.Authority
	listener net.Listener
	server   *smtp.Server
	finished sync.WaitGroup
	closeFn  func() error

	mu       sync.Mutex
	mode     Mode
	turned   chan struct{} // closed and renewed when the mode changes
	arrived  chan struct{} // closed and renewed when a message arrives
	messages []Message
	seen     map[string]bool // sender and recipient that were put off once
	attempts int
}

// Start runs a sink until Close.
func Start(o Options) (*Sink, error) {
	s := &Sink{opts: o, turned: make(chan struct{}), arrived: make(chan struct{}), seen: map[string]bool{}}
	var err error
	if s.root, err = pki.New("Lab mail root"); err != nil {
		return nil, err
	}
	pair, err := s.root.Issue("localhost", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	if s.listener, err = loopback.Listen(o.Addr); err != nil {
		return nil, err
	}
	s.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{sink: s, conn: c}, nil
	}))
	s.server.Domain = "localhost"
	s.server.MaxMessageBytes = maxMessageBytes
	s.server.ErrorLog = log.New(io.Discard, "", 0)
	if !o.WithoutTLS {
		s.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair.TLS}, MinVersion: tls.VersionTLS12}
	}
	s.finished.Go(func() { _ = s.server.Serve(s.listener) })
	s.closeFn = sync.OnceValue(func() error {
		s.SetMode(Accept) // let go of what hangs
		err := s.server.Close()
		s.finished.Wait()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	})
	return s, nil
}

// Close ends the sink. It is safe to call more than once.
func (s *Sink) Close() error { return s.closeFn() }

// Addr is the host:port of the sink.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// RootPEM is what STARTTLS chains to, for the names localhost and 127.0.0.1.
func (s *Sink) RootPEM() []byte { return s.root.RootPEM() }

// SetMode changes what happens to mail from now on.
func (s *Sink) SetMode(m Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = m
	close(s.turned)
	s.turned = make(chan struct{})
}

// Messages are the mails accepted so far.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Attempts is how many recipients were named, accepted or not.
func (s *Sink) Attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts
}

// Wait returns the messages once there are at least n, or ctx's error.
func (s *Sink) Wait(ctx context.Context, n int) ([]Message, error) {
	for {
		s.mu.Lock()
		arrived, all := s.arrived, slices.Clone(s.messages)
		s.mu.Unlock()
		if len(all) >= n {
			return all, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return all, fmt.Errorf("%d of %d mails arrived: %w", len(all), n, ctx.Err())
		}
	}
}

// session is one client's connection.
type session struct {
	sink *Sink
	conn *smtp.Conn
	user string
	from string
	to   []string
}

func (c *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		o := c.sink.opts
		if o.Username == "" || username != o.Username || password != o.Password {
			return smtp.ErrAuthFailed
		}
		c.user = username
		return nil
	}), nil
}

func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	if _, secure := c.conn.TLSConnectionState(); !secure && c.sink.opts.RequireTLS {
		return refusal(530, smtp.EnhancedCode{5, 7, 0}, "Must issue a STARTTLS command first")
	}
	if c.sink.opts.Username != "" && c.user == "" {
		return refusal(530, smtp.EnhancedCode{5, 7, 0}, "Authentication required")
	}
	c.from = from
	return nil
}

func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s := c.sink
	s.mu.Lock()
	s.attempts++
	mode, turned := s.mode, s.turned
	pair := c.from + "\x00" + to
	first := !s.seen[pair]
	s.seen[pair] = true
	s.mu.Unlock()
	switch mode {
	case Hang:
		<-turned
	case Reject:
		return refusal(550, smtp.EnhancedCode{5, 1, 1}, "No such user here")
	case PutOff:
		return refusal(451, smtp.EnhancedCode{4, 7, 1}, "Try again later")
	case Greylist:
		if first {
			return refusal(451, smtp.EnhancedCode{4, 7, 1}, "Greylisted, try again later")
		}
	case Accept:
	}
	c.to = append(c.to, to)
	return nil
}

func (c *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	_, secure := c.conn.TLSConnectionState()
	s := c.sink
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, Message{
		From: c.from, To: c.to, Data: data, TLS: secure, User: c.user, At: clock.System().Now(),
	})
	close(s.arrived)
	s.arrived = make(chan struct{})
	return nil
}

func (c *session) Reset() { c.from, c.to = "", nil }

func (c *session) Logout() error { return nil }

func refusal(code int, enhanced smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

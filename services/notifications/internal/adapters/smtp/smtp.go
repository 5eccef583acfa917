// Package smtp sends mail (RFC 5321) with plain text and HTML. One send is one conversation: a mail is sent when the server has taken it, and a failure
// after that (in QUIT) is none. It must never send a password before the connection is encrypted, except to loopback.
package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
	gosmtp "github.com/wneessen/go-mail/smtp"

	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// maxConversation ends a conversation whose context has no end, or a later one.
const maxConversation = time.Minute

// maxAnswer is how much of a server's answer is shown, in characters.
const maxAnswer = 300

// Sender implements app.Sender.
type Sender struct{}

// Send implements app.Sender. MAIL_SERVER_UNREACHABLE and MAIL_DEFERRED (4xx) are Unavailable or Timeout; MAIL_REFUSED (5xx) and MAIL_AUTH_REFUSED are
// Precondition. Nobody gets the mail when one of several receivers is refused.
func (Sender) Send(ctx context.Context, to app.Target, m app.Message) error {
	s := to.Channel.SMTP
	text, from, err := compose(s, to.Receivers, m)
	if err != nil {
		return errs.New(errs.Precondition, domain.ReasonMailRefused, "the mail cannot be written: %w", err)
	}
	line := &wire{}
	client, err := newClient(s, to.Secret.Reveal(), line)
	if err != nil {
		return errs.New(errs.Precondition, domain.ReasonMailRefused, "the mail server %s cannot be used: %w", s.Server, err)
	}
	// The library heeds a context only while it dials; closing the connection ends whatever it does.
	defer line.close()
	defer context.AfterFunc(ctx, line.close)()

	conversation, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return classify(ctx, s.Server, "the connection", true, err)
	}
	if what, err := talk(conversation, from, to.Receivers, text); err != nil {
		return classify(ctx, s.Server, what, false, err)
	}
	_ = conversation.Quit() // the mail was taken
	return nil
}

// talk does the mail transaction and names the command that failed.
func talk(c *gosmtp.Client, from string, receivers []string, text []byte) (what string, err error) {
	if err := c.Mail("<" + from + ">"); err != nil {
		return "MAIL FROM:<" + from + ">", err
	}
	for _, r := range receivers {
		if err := c.Rcpt("<" + r + ">"); err != nil {
			return "RCPT TO:<" + r + ">", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "DATA", err
	}
	if _, err := w.Write(text); err != nil {
		return "the mail's text", err
	}
	return "the mail's text", w.Close()
}

// compose writes the mail. Message-ID and Date are the same at every attempt, so that a receiver can drop a mail that it has.
func compose(s domain.SMTP, receivers []string, m app.Message) (text []byte, from string, err error) {
	from, ok := domain.Address(s.From)
	if !ok {
		return nil, "", errors.New("the sender is not a mail address")
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(s.From); err != nil {
		return nil, "", err
	}
	if err := msg.To(receivers...); err != nil {
		return nil, "", err
	}
	_, host, _ := strings.Cut(from, "@")
	msg.Subject(m.Subject)
	msg.SetMessageIDWithValue(strings.ToLower(m.ID) + "@" + host)
	msg.SetDateWithValue(m.At)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 section 5: no answers from robots
	msg.SetGenHeader("X-Certwright-Event", m.EventID)
	msg.SetGenHeader("X-Certwright-Event-Type", m.EventType)
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, "", err
	}
	return b.Bytes(), from, nil
}

func newClient(s domain.SMTP, password string, line *wire) (*mail.Client, error) {
	host, portText, err := net.SplitHostPort(s.Server)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.RootsPEM != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(s.RootsPEM)) {
			return nil, errors.New("its trust roots contain no certificate")
		}
	}
	options := []mail.Option{
		mail.WithPort(port), mail.WithTimeout(maxConversation), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.TLSMandatory),
		mail.WithDialContextFunc(line.dial(nil)),
	}
	switch s.Security {
	case domain.SecurityNone:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case domain.SecurityTLS:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(line.dial(config)))
	}
	if s.Username != "" {
		options = append(options, mail.WithUsername(s.Username), mail.WithPassword(password),
			// "NOENC" leaves the judgement to us: the connection is encrypted, or it goes to loopback (domain.NewChannel).
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlainNoEnc, mail.SMTPAuthLoginNoEnc, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthCramMD5))
	}
	return mail.NewClient(host, options...)
}

// wire holds the connection, which the library does not close when it fails.
type wire struct {
	mu     sync.Mutex // guards the fields
	conn   net.Conn
	closed bool
}

// dial connects, with TLS from the first byte when there is a config.
func (w *wire) dial(config *tls.Config) mail.DialContextFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		w.conn = conn
		closed := w.closed
		w.mu.Unlock()
		if closed {
			_ = conn.Close()
			return nil, context.Canceled
		}
		if config == nil {
			return conn, nil
		}
		encrypted := tls.Client(conn, config)
		return encrypted, encrypted.HandshakeContext(ctx)
	}
}

func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// classify says what an error in a conversation means. what is the command that was answered.
func classify(ctx context.Context, server, what string, connecting bool, err error) error {
	var answer *textproto.Error
	if !errors.As(err, &answer) {
		if ctx.Err() != nil {
			return errs.New(errs.Timeout, domain.ReasonMailUnreachable, "the mail server %s did not answer to %s in time", server, what)
		}
		return errs.New(errs.Unavailable, domain.ReasonMailUnreachable, "the mail server %s cannot be used: %s failed: %s", server, what, domain.OneLine(err.Error(), maxAnswer))
	}
	kind, reason := errs.Unavailable, domain.ReasonMailDeferred
	if answer.Code >= 500 {
		kind, reason = errs.Precondition, domain.ReasonMailRefused
	}
	if connecting {
		// RFC 4954 section 6: 530, 534, 535 and 538 are about authentication.
		switch answer.Code {
		case 530, 534, 535, 538:
			reason, what = domain.ReasonMailAuthRefused, "the user name and password"
		}
	}
	return errs.New(kind, reason, "the mail server %s answered %q to %s", server, domain.OneLine(fmt.Sprintf("%d %s", answer.Code, answer.Msg), maxAnswer), what)
}

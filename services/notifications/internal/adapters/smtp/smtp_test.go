package smtp_test

import (
	"context"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/notifications/internal/adapters/smtp"
	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/mailtest"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

func target(s *mailtest.Server, security string, to ...string) app.Target {
	t := app.Target{Receivers: to, Channel: domain.Channel{Kind: domain.KindSMTP, SMTP: domain.SMTP{
		Server: s.Addr, Security: security, From: "Certwright <certwright@example.org>", RootsPEM: s.RootsPEM,
	}}}
	return t
}

func withAuth(t app.Target, password string) app.Target {
	t.Channel.SMTP.Username, t.Secret = mailtest.User, secret.New(password)
	return t
}

var message = app.Message{
	ID: "dlv_01J9ZK0000000000000000ABCD", EventID: "crt_1-E-7-0", EventType: "certificate.renewed", At: time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC),
	Subject: "[certwright] bücher.example renewed: valid until 2027-01-31", Text: "It was renewed.\n.\nA line with one dot.\n", HTML: "<p>It was renewed.</p>\n",
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestMailIsTaken(t *testing.T) {
	for _, row := range []struct {
		name     string
		options  mailtest.Options
		security string
		auth     bool
	}{
		{"over STARTTLS with a password under the server's own root", mailtest.Options{StartTLS: true, Auth: true}, domain.SecurityStartTLS, true},
		{"over TLS from the first byte with a password", mailtest.Options{TLS: true, Auth: true}, domain.SecurityTLS, true},
		{"in plain text with a password, to loopback", mailtest.Options{Auth: true}, domain.SecurityNone, true},
		{"in plain text without a password", mailtest.Options{}, domain.SecurityNone, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := mailtest.Start(t, row.options)
			to := target(s, row.security, "ops@example.org", "jane@example.net")
			user := ""
			if row.auth {
				to, user = withAuth(to, mailtest.Password), mailtest.User
			}
			require.NoError(t, smtp.Sender{}.Send(within(t, 20*time.Second), to, message))
			mails := s.Mails()
			require.Len(t, mails, 1)
			got := mails[0]
			text := got.Text
			got.Text = ""
			require.Empty(t, cmp.Diff(mailtest.Mail{
				From: "certwright@example.org", To: []string{"ops@example.org", "jane@example.net"}, User: user, TLS: row.security != domain.SecurityNone,
			}, got))
			read(t, text)
		})
	}
}

// read checks the mail with the standard library's parsers.
func read(t *testing.T, text string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	require.NoError(t, err)
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	require.NoError(t, err)
	require.Equal(t, message.Subject, subject)
	require.Equal(t, "<dlv_01j9zk0000000000000000abcd@example.org>", m.Header.Get("Message-ID"))
	require.Equal(t, "auto-generated", m.Header.Get("Auto-Submitted"))
	require.Equal(t, message.EventID, m.Header.Get("X-Certwright-Event"))
	at, err := m.Header.Date()
	require.NoError(t, err)
	require.True(t, at.Equal(message.At))
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Equal(t, "multipart/alternative", kind)
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct{ kind, body string }{{"text/plain", message.Text}, {"text/html", message.HTML}} {
		p, err := parts.NextRawPart()
		require.NoError(t, err)
		require.Contains(t, p.Header.Get("Content-Type"), want.kind)
		require.Equal(t, "quoted-printable", p.Header.Get("Content-Transfer-Encoding"))
		body, err := io.ReadAll(quotedprintable.NewReader(p))
		require.NoError(t, err)
		require.Equal(t, want.body, strings.TrimRight(strings.ReplaceAll(string(body), "\r\n", "\n"), "\n")+"\n")
	}
}

func TestRefusalsNameTheServerAndItsAnswer(t *testing.T) {
	for _, row := range []struct {
		name     string
		options  mailtest.Options
		security string
		password string
		roots    bool
		rcpt     error
		data     error
		kind     errs.Kind
		reason   string
		detail   string
	}{
		{name: "an unknown receiver is refused for good", rcpt: mailtest.Say(550, "5.1.1 no such user"), kind: errs.Precondition, reason: domain.ReasonMailRefused,
			detail: `the mail server ADDR answered "550 5.1.1 no such user" to RCPT TO:<ops@example.org>`},
		{name: "a greylisting server is asked again", rcpt: mailtest.Say(451, "4.7.1 come back later"), kind: errs.Unavailable, reason: domain.ReasonMailDeferred,
			detail: `the mail server ADDR answered "451 4.7.1 come back later" to RCPT TO:<ops@example.org>`},
		{name: "a mail that the server does not like is refused for good", data: mailtest.Say(554, "5.7.1 spam"), kind: errs.Precondition, reason: domain.ReasonMailRefused,
			detail: `the mail server ADDR answered "554 5.7.1 spam" to the mail's text`},
		{name: "a full server is asked again", data: mailtest.Say(452, "4.3.1 disk full"), kind: errs.Unavailable, reason: domain.ReasonMailDeferred,
			detail: `the mail server ADDR answered "452 4.3.1 disk full" to the mail's text`},
		{name: "a wrong password is refused for good", options: mailtest.Options{StartTLS: true, Auth: true}, security: domain.SecurityStartTLS, roots: true, password: "wrong password",
			kind: errs.Precondition, reason: domain.ReasonMailAuthRefused, detail: `to the user name and password`},
		{name: "a server whose root is not trusted gets no password", options: mailtest.Options{StartTLS: true, Auth: true}, security: domain.SecurityStartTLS, password: mailtest.Password,
			kind: errs.Unavailable, reason: domain.ReasonMailUnreachable, detail: "certificate signed by unknown authority"},
		{name: "a server without STARTTLS gets no password", options: mailtest.Options{Auth: true}, security: domain.SecurityStartTLS, roots: true, password: mailtest.Password,
			kind: errs.Unavailable, reason: domain.ReasonMailUnreachable, detail: "does not support STARTTLS"},
		{name: "a server that wants a password says so", options: mailtest.Options{Auth: true}, kind: errs.Precondition, reason: domain.ReasonMailRefused, detail: `answered "502`},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := mailtest.Start(t, row.options)
			s.AnswerRcpt(func(string) error { return row.rcpt })
			s.AnswerData(func() error { return row.data })
			if row.security == "" {
				row.security = domain.SecurityNone
			}
			to := target(s, row.security, "ops@example.org")
			if !row.roots {
				to.Channel.SMTP.RootsPEM = ""
			}
			if row.password != "" {
				to = withAuth(to, row.password)
			}
			err := smtp.Sender{}.Send(within(t, 20*time.Second), to, message)
			require.Error(t, err)
			require.Equal(t, row.reason, errs.ReasonOf(err), "%v", err)
			require.Equal(t, row.kind, errs.KindOf(err))
			require.Contains(t, err.Error(), strings.ReplaceAll(row.detail, "ADDR", s.Addr))
			require.Contains(t, err.Error(), s.Addr)
			if row.password != "" {
				require.NotContains(t, err.Error(), row.password)
			}
			require.Empty(t, s.Mails())
		})
	}
}

func TestASilentServerEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	to := app.Target{Receivers: []string{"a@example.org"}, Channel: domain.Channel{SMTP: domain.SMTP{Server: l.Addr().String(), Security: domain.SecurityNone, From: "b@example.org"}}}
	err = smtp.Sender{}.Send(within(t, 50*time.Millisecond), to, message)
	require.Equal(t, errs.Timeout, errs.KindOf(err))
	require.ErrorContains(t, err, "did not answer to the connection in time")

	_ = l.Close()
	err = smtp.Sender{}.Send(within(t, 10*time.Second), to, message)
	require.Equal(t, errs.Unavailable, errs.KindOf(err))
	require.ErrorContains(t, err, "connection refused")
}

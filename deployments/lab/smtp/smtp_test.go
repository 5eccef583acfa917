package smtp_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netsmtp "net/smtp"
	"net/textproto"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sender struct {
	tls            bool
	user, password string
}

// send delivers one mail with the standard library's client.
func (s sender) send(sink *smtp.Sink, to string) error {
	conn, err := net.DialTimeout("tcp", sink.Addr(), 5*time.Second)
	if err != nil {
		return err
	}
	c, err := netsmtp.NewClient(conn, "localhost")
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if s.tls {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(sink.RootPEM())
		if err := c.StartTLS(&tls.Config{ServerName: "localhost", RootCAs: roots}); err != nil {
			return err
		}
	}
	if s.user != "" {
		if err := c.Auth(netsmtp.PlainAuth("", s.user, s.password, "localhost")); err != nil {
			return err
		}
	}
	if err := c.Mail("certwright@lab.test"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "From: certwright@lab.test\r\nTo: %s\r\nSubject: Renewed\r\n\r\nAll is well.\r\n", to); err != nil {
		return err
	}
	return errors.Join(w.Close(), c.Quit())
}

func code(err error) int {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return reply.Code
	}
	return 0
}

func TestMailIsKept(t *testing.T) {
	s := labtest.SMTP(t, smtp.Options{Username: "platform", Password: "secret", RequireTLS: true})
	require.NoError(t, sender{tls: true, user: "platform", password: "secret"}.send(s, "owner@lab.test"))
	all, err := s.Wait(labtest.Deadline(t, 5*time.Second), 1)
	require.NoError(t, err)
	m := all[0]
	require.Equal(t, "certwright@lab.test", m.From)
	require.Equal(t, []string{"owner@lab.test"}, m.To)
	require.True(t, m.TLS)
	require.Equal(t, "platform", m.User)
	parsed, err := m.Parse()
	require.NoError(t, err)
	require.Equal(t, "Renewed", parsed.Header.Get("Subject"))
}

func TestMailIsRefused(t *testing.T) {
	for _, row := range []struct {
		name    string
		options smtp.Options
		mode    smtp.Mode
		sender  sender
		code    int
	}{
		{"a wrong password is refused", smtp.Options{Username: "platform", Password: "secret"}, smtp.Accept, sender{tls: true, user: "platform", password: "wrong"}, 535},
		{"mail without the password wanted is refused", smtp.Options{Username: "platform", Password: "secret"}, smtp.Accept, sender{tls: true}, 530},
		{"mail without TLS is refused where it is required", smtp.Options{RequireTLS: true}, smtp.Accept, sender{}, 530},
		{"a recipient is refused for good", smtp.Options{}, smtp.Reject, sender{}, 550},
		{"a recipient is put off", smtp.Options{}, smtp.PutOff, sender{}, 451},
		{"STARTTLS is not there", smtp.Options{WithoutTLS: true}, smtp.Accept, sender{tls: true}, 502},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := labtest.SMTP(t, row.options)
			s.SetMode(row.mode)
			err := row.sender.send(s, "owner@lab.test")
			require.Equal(t, row.code, code(err), "%v", err)
			require.Empty(t, s.Messages())
		})
	}
}

func TestAGreylistedRecipientIsTakenTheSecondTime(t *testing.T) {
	s := labtest.SMTP(t, smtp.Options{})
	s.SetMode(smtp.Greylist)
	require.Equal(t, 451, code(sender{}.send(s, "owner@lab.test")))
	require.NoError(t, sender{}.send(s, "owner@lab.test"))
	require.Equal(t, 451, code(sender{}.send(s, "other@lab.test")), "each recipient on its own")
	require.Equal(t, 3, s.Attempts())
	require.Len(t, s.Messages(), 1)
}

func TestAHangingServerGoesOnWhenTheModeChanges(t *testing.T) {
	s := labtest.SMTP(t, smtp.Options{})
	s.SetMode(smtp.Hang)
	done := make(chan error, 1)
	go func() { done <- sender{}.send(s, "owner@lab.test") }()
	require.Eventually(t, func() bool { return s.Attempts() == 1 }, 5*time.Second, time.Millisecond)
	require.Empty(t, done)
	s.SetMode(smtp.Accept)
	require.NoError(t, <-done)
	require.Len(t, s.Messages(), 1)
}

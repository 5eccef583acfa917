package domain_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

var now = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

func mail(change func(*domain.Channel)) domain.Channel {
	c := domain.Channel{DisplayName: "Operations", Kind: domain.KindSMTP, SMTP: domain.SMTP{
		Server: "mail.example.org:587", Username: "certwright", From: "certwright@example.org", To: []string{"ops@example.org"},
	}}
	change(&c)
	return c
}

func hook(url string) domain.Channel {
	return domain.Channel{DisplayName: "Hook", Webhook: domain.Webhook{URL: url}}
}

func TestChannelsAreCheckedFieldByField(t *testing.T) {
	same := func(*domain.Channel) {}
	for _, row := range []struct {
		name             string
		in               domain.Channel
		smtp, hook, pass bool
		want             map[string]string // field → part of the message
	}{
		{"a good mail channel", mail(same), true, false, true, nil},
		{"a good webhook needs no kind", hook("https://hooks.example.org/x"), false, true, false, nil},
		{"http to loopback is allowed", hook("http://127.0.0.1:9000/x"), false, true, false, nil},
		{"plain text without a password is allowed", mail(func(c *domain.Channel) { c.SMTP.Security, c.SMTP.Username = "none", "" }), true, false, false, nil},
		{"plain text with a password is allowed to loopback", mail(func(c *domain.Channel) { c.SMTP.Security, c.SMTP.Server = "none", "localhost:25" }), true, false, true, nil},
		{"owners alone are receivers", mail(func(c *domain.Channel) { c.SMTP.To, c.SMTP.ToOwner = nil, true }), true, false, true, nil},
		{"a name is needed", mail(func(c *domain.Channel) { c.DisplayName = " " }), true, false, true, map[string]string{"channel.displayName": "1 to 200"}},
		{"the kind is known", mail(func(c *domain.Channel) { c.Kind = "pigeon" }), true, false, true, map[string]string{"channel.kind": `"pigeon" given, allowed: smtp, webhook`}},
		{"no part means no kind", domain.Channel{DisplayName: "x"}, false, false, false, map[string]string{"channel.kind": "allowed: smtp, webhook"}},
		{"one channel is of one kind", mail(same), true, true, true, map[string]string{"channel.webhook": "leave it out"}},
		{"the part of the kind is there", mail(same), false, false, false, map[string]string{"channel.smtp": "is missing"}},
		{"a server has a port", mail(func(c *domain.Channel) { c.SMTP.Server = "mail.example.org" }), true, false, true, map[string]string{"channel.smtp.server": "host:port"}},
		{"a port is a number", mail(func(c *domain.Channel) { c.SMTP.Server = "mail.example.org:99999" }), true, false, true, map[string]string{"channel.smtp.server": "1 to 65535"}},
		{"a host has no blank", mail(func(c *domain.Channel) { c.SMTP.Server = "mail example:25" }), true, false, true, map[string]string{"channel.smtp.server": "character ' '"}},
		{"the security is known", mail(func(c *domain.Channel) { c.SMTP.Security = "ssl" }), true, false, true, map[string]string{"channel.smtp.security": `"ssl" given, allowed: starttls (the default), tls, none`}},
		{"a password needs encryption", mail(func(c *domain.Channel) { c.SMTP.Security = "none" }), true, false, true, map[string]string{"channel.smtp.security": "use starttls or tls"}},
		{"a user name needs a password", mail(same), true, false, false, map[string]string{"channel.smtp.password": "is missing"}},
		{"a password needs a user name", mail(func(c *domain.Channel) { c.SMTP.Username = "" }), true, false, true, map[string]string{"channel.smtp.username": "is missing"}},
		{"the sender is an address", mail(func(c *domain.Channel) { c.SMTP.From = "certwright" }), true, false, true, map[string]string{"channel.smtp.from": "not a mail address"}},
		{"receivers are addresses", mail(func(c *domain.Channel) { c.SMTP.To = []string{"ops@example.org", "nobody"} }), true, false, true, map[string]string{"channel.smtp.to[1]": `"nobody" is not a mail address`}},
		{"nobody injects commands", mail(func(c *domain.Channel) { c.SMTP.To = []string{"a@example.org>\r\nDATA"} }), true, false, true, map[string]string{"channel.smtp.to[0]": "not a mail address"}},
		{"nobody gets it twice", mail(func(c *domain.Channel) { c.SMTP.To = []string{"Ops <ops@example.org>", "OPS@example.org"} }), true, false, true, map[string]string{"channel.smtp.to[1]": "twice"}},
		{"somebody gets it", mail(func(c *domain.Channel) { c.SMTP.To = nil }), true, false, true, map[string]string{"channel.smtp.to": "smtp.toOwner"}},
		{"roots are certificates", mail(func(c *domain.Channel) { c.SMTP.RootsPEM = "hello" }), true, false, true, map[string]string{"channel.smtp.trustRootsPem": "no certificate"}},
		{"roots are not keys", mail(func(c *domain.Channel) {
			c.SMTP.RootsPEM = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		}), true, false, true, map[string]string{"channel.smtp.trustRootsPem": "PRIVATE KEY"}},
		{"http is for loopback only", hook("http://hooks.example.org/x"), false, true, false, map[string]string{"channel.webhook.url": "use https"}},
		{"a URL is absolute", hook("/x"), false, true, false, map[string]string{"channel.webhook.url": "absolute"}},
		{"a URL has no password", hook("https://u:p@hooks.example.org/"), false, true, false, map[string]string{"channel.webhook.url": "user name or password"}},
		{"a URL is of the web", hook("ftp://hooks.example.org/"), false, true, false, map[string]string{"channel.webhook.url": `"ftp"`}},
		{"events are known", mail(func(c *domain.Channel) { c.Events = []string{"order.failed", "order.fail", "order.failed"} }), true, false, true,
			map[string]string{"channel.events[1]": `"order.fail" given, allowed: certificate.issued`, "channel.events[2]": "twice"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, wrong := domain.NewChannel(row.in, row.smtp, row.hook, row.pass)
			require.Len(t, wrong, len(row.want), "%v", wrong)
			for _, f := range wrong {
				part, ok := row.want[f.Name]
				require.True(t, ok, "%v", f)
				require.Contains(t, f.Msg, part)
			}
		})
	}
}

func TestAChannelIsCompleted(t *testing.T) {
	c, wrong := domain.NewChannel(mail(func(c *domain.Channel) { c.Kind, c.SMTP.To = "", []string{"Ops <ops@example.org>"} }), true, false, true)
	require.Empty(t, wrong)
	require.Equal(t, domain.KindSMTP, c.Kind)
	require.Equal(t, domain.SecurityStartTLS, c.SMTP.Security)
	require.Equal(t, []string{"ops@example.org"}, c.SMTP.To)
}

func TestWhatAChannelTells(t *testing.T) {
	all := domain.Channel{Kind: domain.KindSMTP}
	some := domain.Channel{Kind: domain.KindSMTP, Events: []string{"order.blocked"}}
	off := domain.Channel{Kind: domain.KindSMTP, Disabled: true}
	for _, row := range []struct {
		name      string
		c         domain.Channel
		team, typ string
		eventTeam string
		at        time.Duration // after the channel was made
		want      bool
	}{
		{"its team's events", all, "web", "certificate.issued", "web", time.Hour, true},
		{"not another team's", all, "web", "certificate.issued", "mail", time.Hour, false},
		{"every team's when it is of all", all, "*", "certificate.issued", "mail", time.Hour, true},
		{"not what often goes away by itself, unless asked for", all, "web", "order.blocked", "web", time.Hour, false},
		{"what it was asked for", some, "web", "order.blocked", "web", time.Hour, true},
		{"nothing else then", some, "web", "certificate.issued", "web", time.Hour, false},
		{"nothing while disabled", off, "web", "certificate.issued", "web", time.Hour, false},
		{"nothing that people are not told of", all, "web", "order.accepted", "web", time.Hour, false},
		{"nothing older than itself", all, "web", "certificate.issued", "web", -time.Hour, false},
		{"what a clock a little behind says", all, "web", "certificate.issued", "web", -10 * time.Second, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.Equal(t, row.want, row.c.Wants(row.team, now, row.typ, row.eventTeam, now.Add(row.at)))
		})
	}
}

func TestReceivers(t *testing.T) {
	c := domain.Channel{Kind: domain.KindSMTP, SMTP: domain.SMTP{To: []string{"ops@example.org"}, ToOwner: true}}
	require.Equal(t, []string{"ops@example.org", "jane@example.org"}, c.Receivers("Jane <jane@example.org>"))
	require.Equal(t, []string{"ops@example.org"}, c.Receivers("the web team"), "an owner need not be an address")
	require.Equal(t, []string{"ops@example.org"}, c.Receivers("OPS@example.org"), "one mail each")
	c.SMTP.ToOwner = false
	require.Equal(t, []string{"ops@example.org"}, c.Receivers("jane@example.org"))
	require.Equal(t, []string{""}, domain.Channel{Kind: domain.KindWebhook}.Receivers("jane@example.org"))
}

func TestEveryStateTakesOrRefusesEveryOutcome(t *testing.T) {
	p := domain.Problem{Reason: "R", Detail: "d"}
	outcomes := map[string]func(*domain.Delivery) error{
		"sent":     func(d *domain.Delivery) error { return d.Sent() },
		"refused":  func(d *domain.Delivery) error { return d.Refused(p) },
		"deferred": func(d *domain.Delivery) error { return d.Deferred(p, now, 0, 0) },
	}
	next := map[string]string{"sent": domain.Delivered, "refused": domain.Failed, "deferred": domain.Queued}
	for _, state := range domain.States() {
		for name, outcome := range outcomes {
			d := domain.Delivery{State: state, NextAt: now}
			before := d
			err := outcome(&d)
			if state != domain.Queued {
				require.Equal(t, domain.ReasonDeliveryEnded, errs.ReasonOf(err), "%s %s", state, name)
				require.Empty(t, cmp.Diff(before, d))
				continue
			}
			require.NoError(t, err)
			require.Equal(t, next[name], d.State, name)
			require.Equal(t, 1, d.Attempts)
			require.Equal(t, name == "deferred", d.Problem.Retrying)
			_, due := d.WorkAt()
			require.Equal(t, name == "deferred", due)
		}
	}
}

func TestAttemptsAreFiveAndFurtherAndFurtherApart(t *testing.T) {
	d := domain.Delivery{State: domain.Queued, NextAt: now}
	at := now
	for i, want := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour} {
		require.NoError(t, d.Deferred(domain.Problem{Reason: "R"}, at, 0, 0))
		require.Equal(t, at.Add(want), d.NextAt, "attempt %d", i+1)
		at = d.NextAt
	}
	require.NoError(t, d.Deferred(domain.Problem{Reason: "R", Retrying: true}, at, 0, 0))
	require.Equal(t, domain.Failed, d.State)
	require.Equal(t, 5, d.Attempts)
	require.False(t, d.Problem.Retrying)
}

func TestTheReceiversWishAndTheSpreadMakeTheWaitLonger(t *testing.T) {
	for _, row := range []struct {
		name   string
		after  time.Duration
		spread float64
		want   time.Duration
	}{
		{"a fifth at most", 0, 1, 72 * time.Second},
		{"a longer wish counts", time.Hour, 0, time.Hour},
		{"a shorter one does not", time.Second, 0, time.Minute},
		{"a wish of more than a day is cut", 1000 * time.Hour, 0, 24 * time.Hour},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := domain.Delivery{State: domain.Queued}
			require.NoError(t, d.Deferred(domain.Problem{Reason: "R"}, now, row.after, row.spread))
			require.Equal(t, now.Add(row.want), d.NextAt)
		})
	}
}

func TestForeignTextBecomesOneLine(t *testing.T) {
	require.Equal(t, "a b c", domain.OneLine("a\r\nb\x00\tc\n", 10))
	require.Equal(t, 10, len([]rune(domain.OneLine(strings.Repeat("ü", 50), 10))))
}

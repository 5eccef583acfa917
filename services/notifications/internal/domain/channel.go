// Package domain has the rules of channels (what is a valid one, what it tells to whom) and of deliveries (when one is tried, when it is over).
// It knows neither store nor network.
package domain

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	"github.com/certwright/certwright/shared/errs"
)

// The kinds of channels.
const (
	KindSMTP    = "smtp"
	KindWebhook = "webhook"
)

// How the connection to a mail server is protected.
const (
	SecurityNone     = "none"
	SecurityStartTLS = "starttls" // RFC 3207; never without
	SecurityTLS      = "tls"      // from the first byte, RFC 8314 section 3
)

// AllTeams is the team of a channel that tells every team's events.
const AllTeams = "*"

const (
	maxReceivers = 50
	maxURL       = 2048
	maxRoots     = 256 << 10 // bytes of PEM
	// slack is how far a teller's clock may be behind ours.
	slack = time.Minute
)

// EventTypes lists the events that people are told of.
func EventTypes() []string {
	return []string{
		certificateeventsv1.TypeIssued, certificateeventsv1.TypeRenewed, certificateeventsv1.TypeVersionRevoked, certificateeventsv1.TypeRevocationFailed,
		ordereventsv1.TypeFailed, ordereventsv1.TypeBlocked, challengeeventsv1.TypeActionRequired,
		renewaleventsv1.TypeExpiring, renewaleventsv1.TypeExpired, renewaleventsv1.TypeOverdue, renewaleventsv1.TypeHeld,
		deploymenteventsv1.TypeFailed, deploymenteventsv1.TypeRolledBack, deploymenteventsv1.TypeStuck,
	}
}

// Channel is a way to somebody. Its secret is stored beside it, sealed.
type Channel struct {
	DisplayName string   `bson:"display_name"`
	Kind        string   `bson:"kind"`
	SMTP        SMTP     `bson:"smtp"`
	Webhook     Webhook  `bson:"webhook"`
	Events      []string `bson:"events"` // empty: all but order.blocked, which often goes away by itself
	Disabled    bool     `bson:"disabled"`
}

// SMTP is how mail leaves.
type SMTP struct {
	Server   string   `bson:"server"` // host:port
	Security string   `bson:"security"`
	Username string   `bson:"username"` // empty: no AUTH
	From     string   `bson:"from"`
	To       []string `bson:"to"`
	ToOwner  bool     `bson:"to_owner"` // also to the certificate's owner when that is a mail address
	RootsPEM string   `bson:"roots_pem"`
}

// Webhook is where events are posted.
type Webhook struct {
	URL      string `bson:"url"`
	RootsPEM string `bson:"roots_pem"`
}

// violations collects what is wrong, below the path of the channel in the request.
type violations struct{ fields []errs.Field }

func (v *violations) add(field, format string, args ...any) {
	v.fields = append(v.fields, errs.Field{Name: "channel." + field, Msg: fmt.Sprintf(format, args...)})
}

// NewChannel brings what a user gave to the form that is stored, and names what is wrong with it. hasPassword says whether a password was given;
// hasSMTP and hasWebhook which parts were.
func NewChannel(in Channel, hasSMTP, hasWebhook, hasPassword bool) (Channel, []errs.Field) {
	var v violations
	in.DisplayName = strings.TrimSpace(in.DisplayName)
	if n := len([]rune(in.DisplayName)); n == 0 || n > 200 || OneLine(in.DisplayName, 200) != in.DisplayName {
		v.add("displayName", "%q given; give a name of 1 to 200 printable characters by which people know the channel", OneLine(in.DisplayName, 220))
	}
	if in.Kind == "" && hasSMTP != hasWebhook {
		in.Kind = KindSMTP
		if hasWebhook {
			in.Kind = KindWebhook
		}
	}
	switch {
	case in.Kind != KindSMTP && in.Kind != KindWebhook:
		v.add("kind", "%q given, allowed: smtp, webhook", OneLine(in.Kind, 40))
	case in.Kind == KindSMTP && hasWebhook:
		v.add("webhook", "is given for a channel of kind smtp; leave it out, or make a second channel")
	case in.Kind == KindWebhook && hasSMTP:
		v.add("smtp", "is given for a channel of kind webhook; leave it out, or make a second channel")
	case in.Kind == KindSMTP && !hasSMTP:
		v.add("smtp", "is missing; a channel of kind smtp needs at least smtp.server, smtp.from, and smtp.to or smtp.toOwner")
	case in.Kind == KindWebhook && !hasWebhook:
		v.add("webhook", "is missing; a channel of kind webhook needs webhook.url")
	case in.Kind == KindSMTP:
		in.SMTP = in.SMTP.check(&v, hasPassword)
	default:
		in.Webhook.check(&v)
	}
	for i, e := range in.Events {
		field := fmt.Sprintf("events[%d]", i)
		switch {
		case !slices.Contains(EventTypes(), e):
			v.add(field, "%q given, allowed: %s", OneLine(e, 60), strings.Join(EventTypes(), ", "))
		case slices.Contains(in.Events[:i], e):
			v.add(field, "%q is there twice; leave one out", e)
		}
	}
	return in, v.fields
}

func (s SMTP) check(v *violations, hasPassword bool) SMTP {
	host, why := hostPort(s.Server)
	if why != "" {
		v.add("smtp.server", "%q %s; give host:port, e.g. mail.example.org:587", OneLine(s.Server, 260), why)
	}
	if s.Security == "" {
		s.Security = SecurityStartTLS
	}
	if !slices.Contains([]string{SecurityNone, SecurityStartTLS, SecurityTLS}, s.Security) {
		v.add("smtp.security", "%q given, allowed: starttls (the default), tls, none", OneLine(s.Security, 40))
	}
	switch {
	case s.Username != "" && !hasPassword:
		v.add("smtp.password", "is missing; give the password of %q, or leave smtp.username out", OneLine(s.Username, 100))
	case s.Username == "" && hasPassword:
		v.add("smtp.username", "is missing; give the name that belongs to the password, or leave smtp.password out")
	case s.Username != "" && s.Security == SecurityNone && why == "" && !loopback(host):
		v.add("smtp.security", "is none, which would send the password of %q readable over the network; use starttls or tls", OneLine(s.Username, 100))
	}
	if len(s.Username) > 320 || OneLine(s.Username, 400) != s.Username {
		v.add("smtp.username", "has %d bytes or contains characters that cannot be printed; at most 320 printable ones are allowed", len(s.Username))
	}
	if _, ok := Address(s.From); !ok {
		v.add("smtp.from", "%q is not a mail address; give one such as certwright@example.org or Certwright <certwright@example.org>", OneLine(s.From, 320))
	}
	if len(s.To) == 0 && !s.ToOwner {
		v.add("smtp.to", "is empty; give at least one mail address, or set smtp.toOwner to write to each certificate's owner")
	}
	if len(s.To) > maxReceivers {
		v.add("smtp.to", "has %d addresses; at most %d are allowed: use a mailing list", len(s.To), maxReceivers)
	}
	to := make([]string, 0, len(s.To))
	for i, given := range s.To {
		a, ok := Address(given)
		switch {
		case !ok:
			v.add(fmt.Sprintf("smtp.to[%d]", i), "%q is not a mail address; give one such as ops@example.org", OneLine(given, 320))
		case slices.ContainsFunc(to, func(o string) bool { return strings.EqualFold(o, a) }):
			v.add(fmt.Sprintf("smtp.to[%d]", i), "%q is there twice; leave one out", a)
		}
		to = append(to, a)
	}
	s.To = to
	checkRoots(v, "smtp.trustRootsPem", s.RootsPEM)
	if s.RootsPEM != "" && s.Security == SecurityNone {
		v.add("smtp.trustRootsPem", "is given, but smtp.security is none, so that no certificate is ever checked; use starttls or tls, or leave the roots out")
	}
	return s
}

func (w Webhook) check(v *violations) {
	const field = "webhook.url"
	u, err := url.Parse(w.URL)
	switch {
	case w.URL == "" || len(w.URL) > maxURL:
		v.add(field, "has %d characters; give a URL of at most %d, e.g. https://hooks.example.org/certwright", len(w.URL), maxURL)
	case err != nil || u.Host == "" || u.Hostname() == "":
		v.add(field, "is not an absolute URL; give one such as https://hooks.example.org/certwright")
	case u.User != nil:
		v.add(field, "contains a user name or password; leave it out: each post is signed with the channel's secret")
	case u.Fragment != "":
		v.add(field, "contains a fragment (#…), which is never sent; leave it out")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		v.add(field, "is http to %q, which others on the network could read and change; use https (http is allowed to loopback only)", OneLine(u.Hostname(), 260))
	case u.Scheme != "https" && u.Scheme != "http":
		v.add(field, "has the scheme %q, allowed: https, and http to loopback", OneLine(u.Scheme, 40))
	}
	checkRoots(v, "webhook.trustRootsPem", w.RootsPEM)
	if w.RootsPEM != "" && err == nil && u.Scheme == "http" {
		v.add("webhook.trustRootsPem", "is given, but the URL is http, so that no certificate is ever checked; leave the roots out")
	}
}

func checkRoots(v *violations, field, text string) {
	if text == "" {
		return
	}
	if len(text) > maxRoots {
		v.add(field, "has %d bytes; at most %d are allowed", len(text), maxRoots)
		return
	}
	n := 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			v.add(field, "contains a PEM block of type %q; only CERTIFICATE is allowed", OneLine(block.Type, 60))
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			v.add(field, "contains a certificate (number %d) that cannot be read: %v", n+1, err)
			return
		}
	}
	if n == 0 {
		v.add(field, "contains no certificate; give PEM blocks of type CERTIFICATE, or leave it out to trust the system's roots")
	}
}

// hostPort splits host:port; why says what is wrong with it, empty when nothing is.
func hostPort(s string) (host, why string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", "is not of the form host:port"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "has no port from 1 to 65535"
	}
	if net.ParseIP(host) != nil {
		return host, ""
	}
	if host == "" || len(host) > 253 {
		return "", "has no host name"
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_' {
			return "", fmt.Sprintf("has a host name with the character %q", r)
		}
	}
	return host, ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// Address returns the bare mail address (RFC 5322 section 3.4) in s, false when s is none.
func Address(s string) (string, bool) {
	if len(s) > 320 {
		return "", false
	}
	a, err := mail.ParseAddress(s)
	if err != nil || OneLine(a.Address, 320) != a.Address {
		return "", false
	}
	return a.Address, true
}

// Wants reports whether a channel of team, made at made, tells an event of this type and team that happened at the moment given. What was before
// the channel is not told: an event is told again for as long as somebody waits for its answer, which may be days.
func (c Channel) Wants(team string, made time.Time, eventType, eventTeam string, at time.Time) bool {
	if c.Disabled || at.Before(made.Add(-slack)) || team != AllTeams && team != eventTeam {
		return false
	}
	if len(c.Events) == 0 {
		return eventType != ordereventsv1.TypeBlocked && slices.Contains(EventTypes(), eventType)
	}
	return slices.Contains(c.Events, eventType)
}

// Receivers lists who gets an event of a certificate with this owner: mail addresses, or one empty string for a webhook.
func (c Channel) Receivers(owner string) []string {
	if c.Kind == KindWebhook {
		return []string{""}
	}
	to := slices.Clone(c.SMTP.To)
	a, ok := Address(owner)
	if c.SMTP.ToOwner && ok && !slices.ContainsFunc(to, func(o string) bool { return strings.EqualFold(o, a) }) {
		to = append(to, a)
	}
	return to
}

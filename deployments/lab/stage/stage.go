// Package stage puts the platform on a stage with real peers around it: an ACME CA, a DNS server that takes signed updates, a TLS site, a mail server
// and a webhook receiver, all on free loopback ports. The demo plays on it and the system tests use it.
package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/site"
	"github.com/certwright/certwright/deployments/lab/smtp"
	"github.com/certwright/certwright/deployments/lab/webhook"
	"github.com/certwright/certwright/services/certwright"
	"github.com/certwright/certwright/services/deployer"
)

// Zone is the zone of the stage's DNS server; every name in it is 127.0.0.1.
const Zone = "shop.test"

// Options of a stage.
type Options struct {
	Dir    string
	CA     ca.Options // DNSServer, HTTPPort and TLSPort are set by the stage
	Logger *slog.Logger
	// ReloadCommand is the command by which the deployer makes the site read its files, given the site's control address; nil: the stage adds none.
	ReloadCommand func(controlAddr string) []string
	Change        func(*certwright.Config)
	// Without starts no platform: a test starts its own with Configure.
	Without bool
}

// Stage is everything that runs.
type Stage struct {
	Dir      string
	CA       *ca.Server
	DNS      *dnsserver.Server
	Key      dnsserver.Key
	Site     *site.Site
	SiteCert string
	SiteKey  string
	Mail     *smtp.Sink
	Hook     *webhook.Receiver
	*platform.Platform

	HTTP01Port int
	TLSPort    int // tls-alpn-01
	closers    []func() error
}

// Start starts the peers and the platform.
func Start(ctx context.Context, o Options) (s *Stage, err error) {
	s = &Stage{Dir: o.Dir}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if s.HTTP01Port, err = loopback.Port(); err != nil {
		return s, err
	}
	if s.TLSPort, err = loopback.Port(); err != nil {
		return s, err
	}
	if s.Key, err = dnsserver.NewKey("certwright."); err != nil {
		return s, err
	}
	if s.DNS, err = dnsserver.Start(dnsserver.Options{Zones: []string{Zone}, Keys: []dnsserver.Key{s.Key}}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.DNS.Close)
	o.CA.DNSServer, o.CA.HTTPPort, o.CA.TLSPort = s.DNS.Addr(), s.HTTP01Port, s.TLSPort
	if s.CA, err = ca.Start(o.CA); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.CA.Close)
	dir := filepath.Join(o.Dir, "site")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, err
	}
	s.SiteCert, s.SiteKey = filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "key.pem")
	if s.Site, err = site.Start(site.Options{CertFile: s.SiteCert, KeyFile: s.SiteKey, Names: []string{"www." + Zone}}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.Site.Close)
	if s.Mail, err = smtp.Start(smtp.Options{}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.Mail.Close)
	if s.Hook, err = webhook.Start(webhook.Options{}); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.Hook.Close)
	if o.Without {
		return s, nil
	}
	s.Platform, err = platform.Start(ctx, platform.Options{
		Dir: filepath.Join(o.Dir, "platform"), HTTP01Port: s.HTTP01Port, Logger: o.Logger, Change: func(cfg *certwright.Config) {
			s.Configure(cfg, o.ReloadCommand)
			if o.Change != nil {
				o.Change(cfg)
			}
		},
	})
	if err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.Platform.Close)
	return s, nil
}

// Configure sets what a platform on this stage needs: its responders' ports, the stage's DNS server as resolver, and the host with the site's files and reload command.
func (s *Stage) Configure(cfg *certwright.Config, reload func(controlAddr string) []string) {
	cfg.Challenges.HTTP01Addr = fmt.Sprintf("127.0.0.1:%d", s.HTTP01Port)
	cfg.Challenges.TLSALPN01.Listen = fmt.Sprintf("127.0.0.1:%d", s.TLSPort)
	cfg.Challenges.DNS.Resolvers = []string{s.DNS.Addr()}
	host := deployer.Host{AllowedRoots: []string{s.Dir}, Commands: map[string][]string{}}
	if reload != nil {
		host.Commands["reload-site"] = reload(s.Site.ControlAddr())
	}
	cfg.Deployer.Hosts = map[string]deployer.Host{"local": host}
}

// Close stops everything, last started first.
func (s *Stage) Close() error {
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	s.closers = nil
	return err
}

// Issuer creates the issuer of the stage's CA.
func (s *Stage) Issuer(ctx context.Context, name string) (*ordersv1.Issuer, error) {
	out := &ordersv1.Issuer{}
	return out, s.Call(ctx, http.MethodPost, "/v1/issuers", &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{
		DisplayName: name, Kind: "acme", Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: s.CA.DirectoryURL(), TrustRootsPem: string(s.CA.TLSRootPEM()), IssuedRootsPem: string(s.CA.RootsPEM()),
			Contacts: []string{"ops@shop.test"}, TermsAgreed: true,
		},
	}}, out)
}

// DNSAccount creates the account of the stage's DNS server.
func (s *Stage) DNSAccount(ctx context.Context, name string) (*dnsv1.DNSAccount, error) {
	out := &dnsv1.DNSAccount{}
	return out, s.Call(ctx, http.MethodPost, "/v1/dnsAccounts", &dnsv1.CreateDNSAccountRequest{DnsAccount: &dnsv1.DNSAccount{
		DisplayName: name, Provider: "rfc2136", Zones: []string{Zone},
		Rfc2136: &dnsv1.RFC2136{Server: s.DNS.Addr(), TsigKeyName: s.Key.Name, TsigSecret: s.Key.Secret, TtlSeconds: 60},
	}}, out)
}

// Target creates the target that is the stage's site.
func (s *Stage) Target(ctx context.Context, name string) (*deployerv1.Target, error) {
	out := &deployerv1.Target{}
	return out, s.Call(ctx, http.MethodPost, "/v1/targets", &deployerv1.CreateTargetRequest{Target: &deployerv1.Target{
		DisplayName: name, Kind: "file", ProbeAddress: s.Site.Addr(), ProbeServerName: "www." + Zone,
		File: &deployerv1.FileTarget{Host: "local", FullchainPath: s.SiteCert, KeyPath: s.SiteKey, Reload: "reload-site"},
	}}, out)
}

// Channels creates a mail and a webhook channel; the receiver verifies with the secret that the platform made.
func (s *Stage) Channels(ctx context.Context) error {
	mail := &notificationsv1.CreateChannelRequest{Channel: &notificationsv1.Channel{
		DisplayName: "operations", Kind: "smtp", Smtp: &notificationsv1.SMTP{
			Server: s.Mail.Addr(), Security: "starttls", From: "certwright@shop.test", To: []string{"ops@shop.test"}, TrustRootsPem: string(s.Mail.RootPEM()),
		},
	}}
	if err := s.Call(ctx, http.MethodPost, "/v1/channels", mail, &notificationsv1.Channel{}); err != nil {
		return err
	}
	hook := &notificationsv1.CreateChannelRequest{Channel: &notificationsv1.Channel{
		DisplayName: "inventory hook", Kind: "webhook", Webhook: &notificationsv1.Webhook{Url: s.Hook.URL()},
	}}
	made := &notificationsv1.Channel{}
	if err := s.Call(ctx, http.MethodPost, "/v1/channels", hook, made); err != nil {
		return err
	}
	s.Hook.SetSecrets(made.GetWebhook().GetSecret())
	return nil
}

// Request asks for a certificate.
func (s *Stage) Request(ctx context.Context, issuer string, challenge string, deployTo []string, names ...string) (*inventoryv1.Certificate, error) {
	out := &inventoryv1.Certificate{}
	return out, s.Call(ctx, http.MethodPost, "/v1/certificates", &inventoryv1.CreateCertificateRequest{
		Certificate: &inventoryv1.Certificate{
			Owner: "shop@shop.test", Spec: &typesv1.CertificateSpec{Issuer: issuer, Names: names, Challenge: &typesv1.ChallengeSpec{Type: challenge}},
		}, DeployTo: deployTo,
	}, out)
}

// Certificate reads one.
func (s *Stage) Certificate(ctx context.Context, id string) (*inventoryv1.Certificate, error) {
	out := &inventoryv1.Certificate{}
	return out, s.Call(ctx, http.MethodGet, "/v1/certificates/"+id, nil, out)
}

// Order reads one.
func (s *Stage) Order(ctx context.Context, id string) (*ordersv1.Order, error) {
	out := &ordersv1.Order{}
	return out, s.Call(ctx, http.MethodGet, "/v1/orders/"+id, nil, out)
}

// Until reads path into out again and again until done says so, or ctx ends.
func Until[M proto.Message](ctx context.Context, s *Stage, path string, out M, done func(M) bool) error {
	for {
		err := s.Call(ctx, http.MethodGet, path, nil, out)
		if err == nil && done(out) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last answer: %v", path, errors.Join(ctx.Err(), err), out)
		case <-time.After(20 * time.Millisecond): //nolint:forbidigo // the stage waits for real processes
		}
	}
}

// Version waits until the certificate has a current version other than the one named, and returns the certificate.
func (s *Stage) Version(ctx context.Context, id, other string) (*inventoryv1.Certificate, error) {
	out := &inventoryv1.Certificate{}
	return out, Until(ctx, s, "/v1/certificates/"+id, out, func(c *inventoryv1.Certificate) bool {
		v := c.GetCurrentVersion().GetFacts().GetVersionId()
		return v != "" && v != other
	})
}

// Challenges lists an order's challenges.
func (s *Stage) Challenges(ctx context.Context, orderID string) ([]*challengesv1.Challenge, error) {
	out := &challengesv1.ListChallengesResponse{}
	err := s.Call(ctx, http.MethodGet, "/v1/orders/"+orderID+"/challenges", nil, out)
	return out.GetChallenges(), err
}

// Package demo is the story that `make demo` tells: the product's main job on real, embedded parts, step by step, each step checked from outside.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/deployments/lab/stage"
	"github.com/certwright/certwright/services/certwright"
)

// Options of a demo.
type Options struct {
	Out     io.Writer
	Exit    bool // end with a summary instead of keeping everything running
	Verbose bool // show the platform's own log
	// Reload is the command by which the deployer makes the site read its files, given the site's control address.
	Reload func(control string) []string
}

// patience is how long one step may take before it counts as not seen.
const patience = 60 * time.Second

// Run plays the demo.
func Run(ctx context.Context, o Options) error {
	d := &demo{Options: o, began: time.Now()} //nolint:forbidigo // the demo tells real time
	dir, remove, err := platform.Free()
	if err != nil {
		return err
	}
	defer remove()
	d.say("Certwright demo. Everything runs in this process, on free loopback ports, in %s.", dir)
	level := slog.LevelError
	if o.Verbose {
		level = slog.LevelDebug
	}
	d.stage, err = stage.Start(ctx, stage.Options{
		Dir: dir, CA: ca.Options{Strict: true, NonceReject: 5, RenewalRetryAfter: time.Second}, ReloadCommand: o.Reload,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Change: func(cfg *certwright.Config) {
			cfg.Orders.ARIMinRetry = time.Second // the CA says when to ask again; a demo cannot wait for hours
			cfg.Renewals.ARIMinInterval = time.Second
		},
	})
	if err != nil {
		return err
	}
	defer func() { _ = d.stage.Close() }()
	d.say("Platform ready: %s   (admin token in %s)", d.stage.Running.Edge, d.stage.Running.AdminTokenFile)
	d.say("Around it: ACME CA %s · DNS %s · TLS site %s · mail %s", d.stage.CA.DirectoryURL(), d.stage.DNS.Addr(), d.stage.Site.Addr(), d.stage.Mail.Addr())

	feed, stopFeed := context.WithCancel(ctx)
	defer stopFeed()
	go func() { _ = d.stage.Events(feed, d.timeline) }()

	for _, s := range d.steps() {
		d.heading(s.title)
		stepCtx, cancel := context.WithTimeout(ctx, patience)
		seen, err := s.do(stepCtx)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.done = append(d.done, outcome{s.title, seen, err})
		if err != nil {
			d.line("✗ %v", err)
			break
		}
		d.line("✓ %s", seen)
	}
	failed := d.summary()
	if o.Exit || failed != nil {
		return failed
	}
	d.say("Everything keeps running. Try it (in another terminal):\n")
	d.say("  export CERTWRIGHT_URL=%s CERTWRIGHT_TOKEN_FILE=%s CERTWRIGHT_CA_FILE=%s", d.stage.Running.Edge, d.stage.Running.AdminTokenFile, dir+"/platform/gateway/edge-ca.pem")
	d.say("  go run ./services/certwright/cmd/certwright certificates list\n\nCtrl-C ends the demo.")
	<-ctx.Done()
	return nil
}

type demo struct {
	Options
	stage *stage.Stage
	began time.Time
	done  []outcome

	mu   sync.Mutex
	seen map[string][]client.Event

	issuer *ordersv1.Issuer
	target string
	www    *inventoryv1.Certificate // http-01, deployed
	wild   *inventoryv1.Certificate // dns-01
	first  string                   // fingerprint of www's first version
}

type step struct {
	title string
	do    func(ctx context.Context) (seen string, err error)
}

type outcome struct {
	title, seen string
	err         error
}

func (d *demo) steps() []step {
	return []step{
		{"An administrator connects a CA, a DNS server, a web server and two channels", d.connect},
		{"Somebody requests a certificate for www.shop.test (http-01), to be deployed to the site", d.request},
		{"The site serves it", d.served},
		{"Somebody requests *.shop.test and shop.test in one certificate (dns-01)", d.wildcard},
		{"The CA suggests to renew early (ARI); the platform renews and redeploys while clients hammer the site", d.renew},
		{"The wildcard certificate is revoked", d.revoke},
		{"People and systems were told", d.told},
	}
}

func (d *demo) connect(ctx context.Context) (string, error) {
	var err error
	if d.issuer, err = d.stage.Issuer(ctx, "lab CA"); err != nil {
		return "", err
	}
	test := &ordersv1.TestIssuerResponse{}
	if err := d.stage.Call(ctx, http.MethodPost, "/v1/issuers/"+d.issuer.GetId()+":test", &ordersv1.TestIssuerRequest{}, test); err != nil {
		return "", err
	}
	if !test.GetReachable() {
		return "", errors.New(test.GetProblem().GetDetail())
	}
	if _, err := d.stage.DNSAccount(ctx, "lab DNS"); err != nil {
		return "", err
	}
	target, err := d.stage.Target(ctx, "web server")
	if err != nil {
		return "", err
	}
	d.target = target.GetId()
	if err := d.stage.Channels(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("issuer %s (profiles %s, ARI %v), DNS account, target %s, mail and webhook channels", d.issuer.GetId(), strings.Join(test.GetProfiles(), " "), test.GetRenewalInfo(), d.target), nil
}

func (d *demo) request(ctx context.Context) (string, error) {
	var err error
	if d.www, err = d.stage.Request(ctx, d.issuer.GetId(), "http-01", []string{d.target}, "www."+stage.Zone); err != nil {
		return "", err
	}
	d.line("certificate %s, order %s", d.www.GetId(), d.www.GetIntent().GetOrderId())
	if d.www, err = d.stage.Version(ctx, d.www.GetId(), ""); err != nil {
		return "", err
	}
	if err := d.await(ctx, "certificate.issued", d.www.GetId()); err != nil {
		return "", err
	}
	v := d.www.GetCurrentVersion().GetFacts()
	d.first = v.GetFingerprintSha256()
	return fmt.Sprintf("issued %s by %q, valid until %s", v.GetVersionId(), v.GetIssuerName(), v.GetNotAfter().AsTime().Format(time.DateOnly)), nil
}

func (d *demo) served(ctx context.Context) (string, error) {
	if err := d.await(ctx, "deployment.succeeded", ""); err != nil {
		return "", err
	}
	h, err := hammer.Start(ctx, hammer.Options{Addr: d.stage.Site.Addr(), ServerName: "www." + stage.Zone, Roots: d.stage.CA.Roots(), Workers: 1})
	if err != nil {
		return "", err
	}
	err = h.WaitServed(ctx, d.first)
	h.Stop()
	if err != nil {
		return "", err
	}
	return "a TLS client that trusts only the CA sees fingerprint " + d.first[:16] + "…", nil
}

func (d *demo) wildcard(ctx context.Context) (string, error) {
	var err error
	if d.wild, err = d.stage.Request(ctx, d.issuer.GetId(), "dns-01", nil, "*."+stage.Zone, stage.Zone); err != nil {
		return "", err
	}
	if d.wild, err = d.stage.Version(ctx, d.wild.GetId(), ""); err != nil {
		return "", err
	}
	var left map[string][]string
	for {
		left = d.stage.DNS.Snapshot()
		if len(left) == 0 {
			break
		}
		if err := pause(ctx); err != nil {
			return "", fmt.Errorf("challenge records are left in the zone: %v", left)
		}
	}
	return fmt.Sprintf("issued %s for %s; two TXT values stood at one name, and none is left", d.wild.GetCurrentVersion().GetFacts().GetVersionId(), strings.Join(d.wild.GetCurrentVersion().GetFacts().GetNames(), " and ")), nil
}

func (d *demo) renew(ctx context.Context) (string, error) {
	before := d.www.GetCurrentVersion().GetFacts()
	h, err := hammer.Start(ctx, hammer.Options{Addr: d.stage.Site.Addr(), ServerName: "www." + stage.Zone, Roots: d.stage.CA.Roots()})
	if err != nil {
		return "", err
	}
	defer h.Stop()
	now := time.Now() //nolint:forbidigo // the CA's clock is the real one
	if err := d.stage.CA.SetRenewalInfo(before.GetAriCertId(), ca.Window{Start: now.Add(-2 * time.Hour), End: now.Add(-time.Hour), Explanation: "https://ca.test/why"}); err != nil {
		return "", err
	}
	d.line("the CA's window for %s is now in the past; nobody presses a button", before.GetVersionId())
	if d.www, err = d.stage.Version(ctx, d.www.GetId(), before.GetVersionId()); err != nil {
		return "", err
	}
	after := d.www.GetCurrentVersion().GetFacts()
	if err := h.WaitServed(ctx, after.GetFingerprintSha256()); err != nil {
		return "", err
	}
	report := h.Stop()
	if err := report.Err(); err != nil {
		return "", fmt.Errorf("clients saw failures during the redeploy: %w", err)
	}
	replaces := ""
	for _, order := range d.stage.CA.Orders() {
		if order.CertID == after.GetAriCertId() {
			replaces = order.Replaces
		}
	}
	if replaces != before.GetAriCertId() {
		return "", fmt.Errorf("the CA saw replaces %q, meant was %q", replaces, before.GetAriCertId())
	}
	return fmt.Sprintf("renewed as %s with replaces=%s…; %d handshakes, none failed, %d certificates seen", after.GetVersionId(), replaces[:12], report.Handshakes, len(report.Fingerprints())), nil
}

func (d *demo) revoke(ctx context.Context) (string, error) {
	v := d.wild.GetCurrentVersion().GetFacts()
	err := d.stage.Call(ctx, http.MethodPost, "/v1/certificates/"+d.wild.GetId()+":revoke",
		&inventoryv1.RevokeCertificateRequest{Reason: "cessationOfOperation", NoReplacement: true}, &inventoryv1.Version{})
	if err != nil {
		return "", err
	}
	if err := d.await(ctx, "certificate.version_revoked", d.wild.GetId()); err != nil {
		return "", err
	}
	r, ok, err := d.stage.CA.Revoked(v.GetSerial())
	if err != nil || !ok {
		return "", fmt.Errorf("the CA does not know of the revocation (%w)", err)
	}
	return fmt.Sprintf("the CA lists %s as revoked, reason %v", v.GetSerial(), r.Reason), nil
}

func (d *demo) told(ctx context.Context) (string, error) {
	// issued twice, renewed once, revoked once: four mails and as many signed posts at least
	mails, err := d.stage.Mail.Wait(ctx, 4)
	if err != nil {
		return "", err
	}
	posts, err := d.stage.Hook.Wait(ctx, 4)
	if err != nil {
		return "", err
	}
	for _, p := range posts {
		if p.Verified != nil {
			return "", fmt.Errorf("the signature of webhook %s is wrong: %w", p.ID, p.Verified)
		}
	}
	return fmt.Sprintf("%d mails, %d webhook posts with good signatures", len(mails), len(posts)), nil
}

// await waits until the live feed has shown an event of this type, about this subject unless that is empty.
func (d *demo) await(ctx context.Context, typ, subject string) error {
	for {
		d.mu.Lock()
		for _, e := range d.seen[typ] {
			if subject == "" || e.Subject == subject {
				d.mu.Unlock()
				return nil
			}
		}
		d.mu.Unlock()
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the event %s about %s was not seen within %s", typ, subject, patience)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond): //nolint:forbidigo // the demo waits for real servers
		return nil
	}
}

// timeline prints one line per event of the live feed.
func (d *demo) timeline(e client.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == nil {
		d.seen = map[string][]client.Event{}
	}
	d.seen[e.Type] = append(d.seen[e.Type], e)
	fmt.Fprintf(d.Out, "    %7.3fs  %-34s %s%s\n", time.Since(d.began).Seconds(), e.Type, e.Subject, about(e))
}

// about is what an event is about, for a line.
func about(e client.Event) string {
	var m struct {
		Identifier, Type, Outcome, Fqdn, Basis string
		Problem                                struct{ Reason string }
	}
	_ = json.Unmarshal(e.Data, &m)
	for _, s := range []string{m.Problem.Reason, m.Identifier, m.Fqdn, m.Outcome, m.Basis, m.Type} {
		if s != "" {
			return "  " + s
		}
	}
	return ""
}

func (d *demo) heading(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, "\n%d. %s\n", len(d.done)+1, text)
}

func (d *demo) line(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, "   %s\n", fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, format+"\n", args...)
}

// summary says what was seen and what was not.
func (d *demo) summary() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.Out, "\nSummary after %.1f s\n", time.Since(d.began).Seconds())
	var failed error
	steps := d.steps()
	for i, s := range steps {
		switch {
		case i >= len(d.done):
			fmt.Fprintf(d.Out, "  –  %s: not reached\n", s.title)
			failed = errors.Join(failed, fmt.Errorf("not reached: %s", s.title))
		case d.done[i].err != nil:
			fmt.Fprintf(d.Out, "  ✗  %s: %v\n", s.title, d.done[i].err)
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.title, d.done[i].err))
		default:
			fmt.Fprintf(d.Out, "  ✓  %s\n", s.title)
		}
	}
	return failed
}

// Package bind runs Debian's BIND 9 from a private directory on a loopback port, with zones that take TXT records
// by signed dynamic update: what an organisation's own name server looks like to the platform.
//
// A wildcard gives every name of the zones the address 127.0.0.1. By the rules of wildcards it does not reach a
// name below which something exists: while "_acme-challenge.www" has a TXT record, "www" itself has no address
// unless Options.Hosts names it.
package bind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/internal/process"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/shared/clock"
)

const (
	startTimeout = 20 * time.Second
	attempts     = 5 // ports tried, as somebody else may take one in between
	keyName      = "acme-key"
)

// ErrNotStarted is in the error's chain when named ended or did not answer in time.
var ErrNotStarted = errors.New("named did not start")

// Options of a server.
type Options struct {
	Zones []string // at least one
	Hosts []string // names inside the zones that get an address record of their own
	// Records in zone file form with full names, put into the zone that they are in: "_acme-challenge.a.test. CNAME a.b.test."
	Records []string
	// Recursive follows aliases from one zone into another, as the resolver of a CA does. Names outside the zones are not to be asked for.
	Recursive bool
	Dir       string // private directory; empty: a temporary one, removed on Close
}

// Server is a running named.
type Server struct {
	Key dnsserver.Key // may write TXT records into every zone; hmac-sha256

	dir     string
	addr    string
	process *process.Process
	closeFn func() error
}

// Start runs named until Close. Without the program the error is a *process.MissingError naming the package.
func Start(ctx context.Context, o Options) (*Server, error) {
	program, err := process.Find("named", "bind9")
	if err != nil {
		return nil, err
	}
	if len(o.Zones) == 0 {
		return nil, errors.New("a DNS server needs at least one zone")
	}
	s := &Server{dir: o.Dir}
	remove := func() error { return nil }
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "lab-bind-"); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
		remove = func() error { return os.RemoveAll(s.dir) }
	}
	if s.Key, err = dnsserver.NewKey(keyName); err != nil {
		return nil, errors.Join(err, remove())
	}
	for range attempts {
		if err = s.try(ctx, program, o); err == nil {
			s.closeFn = sync.OnceValue(func() error { return errors.Join(s.process.Stop(), remove()) })
			return s, nil
		}
	}
	return nil, errors.Join(err, remove())
}

func (s *Server) try(ctx context.Context, program string, o Options) error {
	port, err := loopback.Port()
	if err != nil {
		return err
	}
	s.addr = fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(s.dir, "named.conf")
	if err := os.WriteFile(conf, []byte(s.config(port, o)), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	for _, z := range o.Zones {
		if err := os.WriteFile(s.zoneFile(z), []byte(zone(z, o.Hosts, o.Records)), 0o600); err != nil {
			return fmt.Errorf("write zone: %w", err)
		}
		_ = os.Remove(s.zoneFile(z) + ".jnl") // of an attempt before
	}
	if s.process, err = process.Start(filepath.Join(s.dir, "named.log"), program, "-g", "-n", "1", "-c", conf); err != nil {
		return err
	}
	if err := s.ready(ctx, o.Zones[len(o.Zones)-1]); err != nil {
		return errors.Join(err, s.process.Stop())
	}
	return nil
}

// ready waits until the server answers for a zone.
func (s *Server) ready(ctx context.Context, zone string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		m, err := s.ask(ctx, zone, dns.TypeSOA)
		if err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) == 1 {
			return nil
		}
		select {
		case <-s.process.Done():
			return fmt.Errorf("%w: %s", ErrNotStarted, s.Log())
		default:
		}
		if clock.System().Sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%w in %s: %s", ErrNotStarted, startTimeout, s.Log())
		}
	}
}

// Close ends named. It is safe to call more than once.
func (s *Server) Close() error { return s.closeFn() }

// Addr is the host:port of the server, for UDP and TCP.
func (s *Server) Addr() string { return s.addr }

// Log is what named has written so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "named.log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TXT asks the server for the values at a name, sorted.
func (s *Server) TXT(ctx context.Context, name string) ([]string, error) {
	m, err := s.ask(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var values []string
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(values)
	return values, nil
}

func (s *Server) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	c := &dns.Client{Net: "tcp", Timeout: 2 * time.Second}
	m, _, err := c.ExchangeContext(ctx, q, s.addr)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s.addr, err)
	}
	return m, nil
}

func (s *Server) zoneFile(zone string) string {
	return filepath.Join(s.dir, strings.TrimSuffix(dns.CanonicalName(zone), ".")+".zone")
}

func (s *Server) config(port int, o Options) string {
	recursion := "no"
	if o.Recursive {
		recursion = "yes"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `options {
	directory %[1]q;
	managed-keys-directory %[1]q;
	pid-file "named.pid";
	session-keyfile "session.key";
	lock-file none;
	listen-on port %[2]d { 127.0.0.1; };
	listen-on-v6 { none; };
	allow-query { 127.0.0.1; };
	allow-transfer { none; };
	recursion %[5]s;
	dnssec-validation no;
	empty-zones-enable no;
	notify no;
};
controls { };
key %[3]q { algorithm hmac-sha256; secret %[4]q; };
`, s.dir, port, keyName, s.Key.Secret, recursion)
	for _, z := range o.Zones {
		fmt.Fprintf(&b, "zone %q { type primary; file %q; update-policy { grant %s zonesub TXT; }; };\n",
			strings.TrimSuffix(z, "."), s.zoneFile(z), keyName)
	}
	return b.String()
}

// zone is the file of one zone.
func zone(name string, hosts, records []string) string {
	apex := dns.CanonicalName(name)
	var b strings.Builder
	fmt.Fprintf(&b, `$TTL 60
%[1]s IN SOA ns.%[1]s hostmaster.%[1]s 1 3600 600 86400 1
%[1]s IN NS ns.%[1]s
%[1]s IN A 127.0.0.1
*.%[1]s IN A 127.0.0.1
ns.%[1]s IN A 127.0.0.1
`, apex)
	for _, h := range hosts {
		if dns.IsSubDomain(apex, dns.CanonicalName(h)) {
			fmt.Fprintf(&b, "%s IN A 127.0.0.1\n", dns.CanonicalName(h))
		}
	}
	for _, r := range records {
		if owner, _, _ := strings.Cut(r, " "); dns.IsSubDomain(apex, dns.CanonicalName(owner)) {
			fmt.Fprintln(&b, r)
		}
	}
	return b.String()
}

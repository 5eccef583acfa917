package look

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"

	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

const (
	// maxAliases bounds a chain of CNAMEs, as resolvers do.
	maxAliases = 8
	// maxServers bounds how many addresses of a zone's name servers are asked.
	maxServers = 16
)

// errNobody is for a host without resolvers.
var errNobody = errors.New("no resolver is known to ask; set dns.resolvers of the challenges service, e.g. [192.0.2.53:53]")

// server is somebody to ask, and how messages name it.
type server struct{ name, addr string }

// TXT implements app.Eyes.
func (e *Eyes) TXT(ctx context.Context, fqdn, value string, check domain.Check) (app.Sight, error) {
	var servers []server
	var err error
	if check.How == domain.CheckAuthoritative {
		servers, err = e.authorities(ctx, fqdn, e.resolvers(check.Resolvers))
	} else if servers = e.resolvers(check.Resolvers); len(servers) == 0 {
		err = errNobody
	}
	if ctx.Err() != nil {
		return app.Sight{}, givenUp(ctx, fqdn)
	}
	if err != nil {
		return app.Sight{Wrong: err.Error(), Found: []string{err.Error()}}, nil
	}
	type answer struct {
		values []string
		err    error
	}
	answers := make([]answer, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			answers[i].values, answers[i].err = e.txt(ctx, s.addr, fqdn, check.How != domain.CheckAuthoritative)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return app.Sight{}, givenUp(ctx, fqdn)
	}
	seen, wrong := 0, false
	said := make([]string, len(answers))
	for i, a := range answers {
		switch {
		case a.err != nil:
			said[i] = fmt.Sprintf("%s: %v", servers[i].name, a.err)
		case slices.Contains(a.values, value):
			seen++
			said[i] = servers[i].name + " has it"
		case len(a.values) == 0:
			wrong = true
			said[i] = servers[i].name + " has no TXT record there"
		default:
			wrong = true
			said[i] = fmt.Sprintf("%s has %s", servers[i].name, quoted(a.values))
		}
	}
	if seen > 0 && !wrong {
		return app.Sight{Found: said}, nil
	}
	return app.Sight{Found: said, Wrong: fmt.Sprintf("the TXT record %s should have the value %q, but %s; correct the record, wait for it to spread, and verify again",
		fqdn, value, strings.Join(said, "; "))}, nil
}

// Follow implements app.Eyes.
func (e *Eyes) Follow(ctx context.Context, fqdn string, resolvers []string) (names []string, unsure string, loop domain.Problem, err error) {
	names = []string{fqdn}
	for {
		target, err := e.alias(ctx, names[len(names)-1], e.resolvers(resolvers))
		switch {
		case ctx.Err() != nil:
			return names, "", domain.Problem{}, givenUp(ctx, fqdn)
		case err != nil && len(names) == 1: // beyond an alias that was seen, the end of the chain is what is known
			return names, err.Error(), domain.Problem{}, nil
		case err != nil || target == "":
			return names, "", domain.Problem{}, nil
		}
		again := slices.Contains(names, target)
		names = append(names, target)
		if again || len(names) > maxAliases {
			what := fmt.Sprintf("is a chain of more than %d aliases", maxAliases-1)
			if again {
				what = "comes back to itself"
			}
			return names, "", domain.Problem{Reason: domain.ReasonAliasLoop, Retrying: true, Detail: fmt.Sprintf(
				"%s %s: %s; correct the CNAME records so that they end at a name that takes TXT records", fqdn, what, strings.Join(names, " → "))}, nil
		}
	}
}

// alias is what a name is an alias of, "" when it is none.
func (e *Eyes) alias(ctx context.Context, name string, resolvers []server) (string, error) {
	return first(ctx, resolvers, func(ctx context.Context, r server) (string, error) {
		answer, err := e.exchange(ctx, r.addr, name, mdns.TypeCNAME, true)
		if err != nil {
			return "", err
		}
		for _, rr := range answer.Answer {
			if c, ok := rr.(*mdns.CNAME); ok && strings.EqualFold(c.Hdr.Name, mdns.Fqdn(name)) {
				return bareName(c.Target), nil
			}
		}
		return "", nil
	})
}

// first asks all servers at once; the first answer counts. When none has one, the error says what each said.
func first[T any](ctx context.Context, servers []server, ask func(context.Context, server) (T, error)) (T, error) {
	var none T
	if len(servers) == 0 {
		return none, errNobody
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		i   int
		got T
		err error
	}
	answers := make(chan answer, len(servers))
	for i, s := range servers {
		go func() {
			got, err := ask(ctx, s)
			answers <- answer{i, got, err}
		}()
	}
	said := make([]string, len(servers))
	for range servers {
		a := <-answers
		if a.err == nil {
			return a.got, nil
		}
		said[a.i] = fmt.Sprintf("%s: %v", servers[a.i].name, a.err)
	}
	return none, errors.New(strings.Join(said, "; ")) //nolint:err113 // becomes part of a sentence
}

// authorities are the addresses of the name servers of the zone that fqdn is in.
func (e *Eyes) authorities(ctx context.Context, fqdn string, resolvers []server) ([]server, error) {
	found, err := first(ctx, resolvers, func(ctx context.Context, r server) ([]server, error) {
		for zone := fqdn; zone != ""; _, zone, _ = strings.Cut(zone, ".") {
			answer, err := e.exchange(ctx, r.addr, zone, mdns.TypeNS, true)
			if err != nil {
				return nil, err
			}
			var hosts []string
			for _, rr := range answer.Answer {
				if ns, ok := rr.(*mdns.NS); ok && strings.EqualFold(ns.Hdr.Name, mdns.Fqdn(zone)) {
					hosts = append(hosts, bareName(ns.Ns))
				}
			}
			if len(hosts) == 0 {
				continue
			}
			slices.Sort(hosts)
			if servers := e.addresses(ctx, hosts, r); len(servers) > 0 {
				return servers, nil
			}
			return nil, fmt.Errorf("knows no address of %s", strings.Join(hosts, ", ")) //nolint:err113 // becomes part of a sentence
		}
		return nil, errors.New("knows no zone of it") //nolint:err113 // becomes part of a sentence
	})
	if err != nil {
		err = fmt.Errorf("the name servers of %s are not known (%w); give the route resolvers that know the zone, or the check wait", fqdn, err)
	}
	return found, err
}

// addresses asks for those of all hosts at once.
func (e *Eyes) addresses(ctx context.Context, hosts []string, r server) (all []server) {
	hosts = hosts[:min(len(hosts), maxServers)]
	port := strconv.Itoa(e.DNSPort)
	of := make([][]server, 2*len(hosts))
	var wg sync.WaitGroup
	for i := range of {
		wg.Go(func() {
			host, typ := hosts[i/2], mdns.TypeA
			if i%2 == 1 {
				typ = mdns.TypeAAAA
			}
			answer, err := e.exchange(ctx, r.addr, host, typ, true)
			if err != nil {
				return // the other addresses have to do
			}
			for _, rr := range answer.Answer {
				var ip net.IP
				switch rr := rr.(type) {
				case *mdns.A:
					ip = rr.A
				case *mdns.AAAA:
					ip = rr.AAAA
				}
				if ip != nil {
					addr := net.JoinHostPort(ip.String(), port)
					of[i] = append(of[i], server{fmt.Sprintf("%s (%s)", host, addr), addr})
				}
			}
		})
	}
	wg.Wait()
	all = slices.Concat(of...)
	return all[:min(len(all), maxServers)]
}

func (e *Eyes) txt(ctx context.Context, addr, fqdn string, recurse bool) ([]string, error) {
	answer, err := e.exchange(ctx, addr, fqdn, mdns.TypeTXT, recurse)
	if err != nil {
		return nil, err
	}
	var values []string
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*mdns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	return values, nil
}

// exchange asks one server. That a name does not exist is an answer.
func (e *Eyes) exchange(ctx context.Context, addr, name string, typ uint16, recurse bool) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(name), typ)
	m.RecursionDesired = recurse
	m.SetEdns0(1232, false)
	answer, _, err := (&mdns.Client{Timeout: e.Timeout}).ExchangeContext(ctx, m, addr)
	if err == nil && answer.Truncated {
		answer, _, err = (&mdns.Client{Net: "tcp", Timeout: e.Timeout}).ExchangeContext(ctx, m, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("no answer (%w)", err)
	}
	if answer.Rcode != mdns.RcodeSuccess && answer.Rcode != mdns.RcodeNameError {
		return nil, fmt.Errorf("answered %s", mdns.RcodeToString[answer.Rcode]) //nolint:err113 // becomes part of a sentence
	}
	return answer, nil
}

// resolvers are those given, else the configured ones.
func (e *Eyes) resolvers(given []string) []server {
	if len(given) == 0 {
		given = e.Resolvers
	}
	all := make([]server, len(given))
	for i, r := range given {
		all[i] = server{r, r}
	}
	return all
}

func bareName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }

func quoted(values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = shown(v)
	}
	return strings.Join(all, ", ")
}

func givenUp(ctx context.Context, what string) error {
	return errs.New(errs.Canceled, "", "looking at %s was given up: %w", what, ctx.Err())
}

// Package look looks where a CA will look: at a TXT record through resolvers, and at a URL on port 80. What it finds is told in a sentence
// that names who was asked and what each said.
//
// It asks servers that a user named, so what it repeats of an answer is short, and nothing of an answer that another host gave.
package look

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/certwright/certwright/services/challenges/internal/adapters/responder"
	"github.com/certwright/certwright/shared/errs"
)

const (
	maxContent   = 4 << 10
	maxShown     = 100
	maxRedirects = 10
)

// Eyes implements app.Eyes.
type Eyes struct {
	// Resolvers are asked for TXT records, as host:port.
	Resolvers []string
	// Port is where http-01 is looked for; the CA looks at 80.
	Port int
	// Own is the address of the built-in responder in this process, as host:port; empty: it is not asked.
	Own string
	// Timeout bounds each question.
	Timeout time.Duration
}

// SystemResolvers reads the resolvers of the host. An empty list when there are none.
func SystemResolvers(file string) []string {
	c, err := mdns.ClientConfigFromFile(file)
	if err != nil {
		return nil
	}
	all := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		all[i] = net.JoinHostPort(s, c.Port)
	}
	return all
}

// TXT implements app.Eyes.
func (e *Eyes) TXT(ctx context.Context, fqdn, value string) (string, error) {
	if len(e.Resolvers) == 0 {
		return "no resolver is known to ask; set dns.resolvers of the challenges service, e.g. [192.0.2.53:53]", nil
	}
	type answer struct {
		values []string
		err    error
	}
	answers := make([]answer, len(e.Resolvers))
	var wg sync.WaitGroup
	for i, server := range e.Resolvers {
		wg.Go(func() { answers[i].values, answers[i].err = e.ask(ctx, server, fqdn) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return "", errs.New(errs.Canceled, "", "looking at %s was given up: %w", fqdn, ctx.Err())
	}
	seen, wrong := 0, false
	said := make([]string, len(answers))
	for i, a := range answers {
		switch {
		case a.err != nil:
			said[i] = fmt.Sprintf("%s: %v", e.Resolvers[i], a.err)
		case slices.Contains(a.values, value):
			seen++
			said[i] = e.Resolvers[i] + " has it"
		case len(a.values) == 0:
			wrong = true
			said[i] = e.Resolvers[i] + " has no TXT record there"
		default:
			wrong = true
			said[i] = fmt.Sprintf("%s has %s", e.Resolvers[i], quoted(a.values))
		}
	}
	if seen > 0 && !wrong {
		return "", nil
	}
	return fmt.Sprintf("the TXT record %s should have the value %q, but %s; correct the record, wait for it to spread, and verify again", fqdn, value, strings.Join(said, "; ")), nil
}

func (e *Eyes) ask(ctx context.Context, server, fqdn string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(fqdn), mdns.TypeTXT)
	m.SetEdns0(1232, false)
	answer, _, err := (&mdns.Client{Timeout: e.Timeout}).ExchangeContext(ctx, m, server)
	if err == nil && answer.Truncated {
		answer, _, err = (&mdns.Client{Net: "tcp", Timeout: e.Timeout}).ExchangeContext(ctx, m, server)
	}
	if err != nil {
		return nil, fmt.Errorf("no answer (%w)", err)
	}
	if answer.Rcode != mdns.RcodeSuccess && answer.Rcode != mdns.RcodeNameError {
		return nil, fmt.Errorf("answered %s", mdns.RcodeToString[answer.Rcode]) //nolint:err113 // becomes part of a sentence
	}
	var values []string
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*mdns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	return values, nil
}

// HTTP implements app.Eyes.
func (e *Eyes) HTTP(ctx context.Context, identifier, token, value string) (string, error) {
	host := identifier
	if e.Port != 80 {
		host = net.JoinHostPort(identifier, strconv.Itoa(e.Port))
	} else if strings.Contains(identifier, ":") {
		host = "[" + identifier + "]"
	}
	return e.get(ctx, host, "", token, value, "; place the file, and verify again")
}

// Responder implements app.Eyes: it asks the own listener, with the name that the CA will ask for.
func (e *Eyes) Responder(ctx context.Context, identifier, token, value string) (string, error) {
	if e.Own == "" {
		return "", nil
	}
	return e.get(ctx, e.Own, identifier, token, value, "; is another program listening on this port?")
}

func (e *Eyes) get(ctx context.Context, host, name, token, value, remedy string) (string, error) {
	url := "http://" + host + responder.Prefix + token
	ask, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ask, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Sprintf("%s is not a URL that can be asked", url), nil //nolint:nilerr // what is wrong is the answer
	}
	req.Host = name
	transport := &http.Transport{
		DisableKeepAlives: true, Proxy: nil,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a CA follows redirects to sites whose certificate is not valid yet
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	wrong := func(format string, args ...any) (string, error) {
		return fmt.Sprintf("%s should answer %q, but %s%s", url, value, fmt.Sprintf(format, args...), remedy), nil
	}
	res, err := client.Do(req)
	if ctx.Err() != nil {
		return "", errs.New(errs.Canceled, "", "looking at %s was given up: %w", url, ctx.Err())
	}
	if err != nil {
		return wrong("there is no answer (%v)", bare(err))
	}
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(res.Body, maxContent))
	text := strings.TrimRight(string(content), " \t\r\n") // RFC 8555 section 8.3 lets a CA ignore it
	at := ""
	if from := res.Request.URL.Host; from != host {
		at = " after a redirect to " + from
	}
	switch {
	case err != nil:
		return wrong("the answer%s broke off", at)
	case res.StatusCode != http.StatusOK:
		return wrong("it answers %s%s", res.Status, at)
	case text == value:
		return "", nil
	case at != "":
		return wrong("it answers something else%s", at)
	}
	return wrong("it answers %s", shown(text))
}

// bare drops what net/http puts around an error: the sentence has the URL already.
func bare(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error }) //nolint:errorlint // the chain is walked by hand
		if !ok || inner.Unwrap() == nil {
			return err
		}
		if _, isOp := err.(*net.OpError); isOp { //nolint:errorlint // one link
			return err
		}
		err = inner.Unwrap()
	}
}

func shown(text string) string {
	if len(text) > maxShown {
		return fmt.Sprintf("%q… (%d bytes)", text[:maxShown], len(text))
	}
	return strconv.Quote(text)
}

func quoted(values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = shown(v)
	}
	return strings.Join(all, ", ")
}

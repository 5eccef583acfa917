// Package look looks where a CA will look: at a TXT record through resolvers or at the zone's own name servers, at a URL on port 80, and at a
// handshake on port 443. What it finds is told in a sentence that names who was asked and what each said.
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
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/certwright/certwright/services/challenges/internal/adapters/alpn"
	"github.com/certwright/certwright/services/challenges/internal/adapters/responder"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
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
	// TLSPort is where tls-alpn-01 is looked for; the CA looks at 443.
	TLSPort int
	// DNSPort is the port of authoritative name servers: 53.
	DNSPort int
	// Own and OwnTLS are the addresses of the built-in responders in this process, as host:port; empty: they are not asked.
	Own, OwnTLS string
	// Hosts finds the addresses of names; nil: as the system does.
	Hosts *net.Resolver
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

// HostsBy finds addresses of names by these resolvers, one after the other. Nil when there are none: as the system does.
func HostsBy(resolvers []string) *net.Resolver {
	if len(resolvers) == 0 {
		return nil
	}
	var next atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		i := int(next.Add(1)-1) % len(resolvers)
		return (&net.Dialer{}).DialContext(ctx, network, resolvers[i])
	}}
}

// HTTP implements app.Eyes.
func (e *Eyes) HTTP(ctx context.Context, identifier, token, value string) (app.Sight, error) {
	host := identifier
	if e.Port != 80 {
		host = net.JoinHostPort(identifier, strconv.Itoa(e.Port))
	} else if strings.Contains(identifier, ":") {
		host = "[" + identifier + "]"
	}
	return e.get(ctx, host, "", token, value, "; place the file, and verify again")
}

// TLS implements app.Eyes.
func (e *Eyes) TLS(ctx context.Context, identifier, value string) (app.Sight, error) {
	return e.handshake(ctx, net.JoinHostPort(identifier, strconv.Itoa(e.TLSPort)), identifier, value, "; show the certificate, and verify again")
}

// Responder implements app.Eyes: it asks the own listener, with the name that the CA will ask for.
func (e *Eyes) Responder(ctx context.Context, typ, identifier, token, value string) (app.Sight, error) {
	switch {
	case typ == domain.TLSALPN01 && e.OwnTLS != "":
		return e.handshake(ctx, e.OwnTLS, identifier, value, "; is another program listening on this port, or another challenge for the name being answered?")
	case typ == domain.HTTP01 && e.Own != "":
		return e.get(ctx, e.Own, identifier, token, value, "; is another program listening on this port?")
	}
	return app.Sight{}, nil
}

func (e *Eyes) handshake(ctx context.Context, address, identifier, value, remedy string) (app.Sight, error) {
	wrong, err := alpn.Look(ctx, &net.Dialer{Resolver: e.Hosts}, address, identifier, value, e.Timeout)
	if err != nil || wrong == "" {
		return app.Sight{Found: []string{address + " shows the certificate"}}, err
	}
	return app.Sight{
		Wrong: fmt.Sprintf("%s should show the certificate of the key authorization %q, but %s%s", address, value, wrong, remedy),
		Found: []string{address + ": " + wrong},
	}, nil
}

func (e *Eyes) get(ctx context.Context, host, name, token, value, remedy string) (app.Sight, error) {
	url := "http://" + host + responder.Prefix + token
	ask, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ask, http.MethodGet, url, nil)
	if err != nil {
		return app.Sight{Wrong: url + " is not a URL that can be asked"}, nil //nolint:nilerr // what is wrong is the answer
	}
	req.Host = name
	transport := &http.Transport{
		DisableKeepAlives: true, Proxy: nil, DialContext: (&net.Dialer{Resolver: e.Hosts}).DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a CA follows redirects to sites whose certificate is not valid yet
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	wrong := func(format string, args ...any) (app.Sight, error) {
		found := fmt.Sprintf(format, args...)
		return app.Sight{Wrong: fmt.Sprintf("%s should answer %q, but %s%s", url, value, found, remedy), Found: []string{url + ": " + found}}, nil
	}
	res, err := client.Do(req)
	if ctx.Err() != nil {
		return app.Sight{}, errs.New(errs.Canceled, "", "looking at %s was given up: %w", url, ctx.Err())
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
		body := ""
		if at == "" && text != "" && res.StatusCode >= http.StatusBadRequest {
			body = ": " + shown(text)
		}
		return wrong("it answers %s%s%s", res.Status, at, body)
	case text == value:
		return app.Sight{Found: []string{url + " answers it" + at}}, nil
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

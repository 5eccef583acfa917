// Package godaddy writes TXT records by GoDaddy's API v1, which replaces all of a name at once, and reads them back.
package godaddy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/dns/internal/adapters/rest"
	"github.com/certwright/certwright/services/dns/internal/adapters/txt"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Name of the provider.
const Name = "godaddy"

// The secrets of an account.
const (
	SecretKey    = "api_key"
	SecretSecret = "api_secret"
)

// MinTTL is the least TTL that GoDaddy takes, in seconds.
const MinTTL = 600

const api = "https://api.godaddy.com"

// Kind is the provider.
type Kind struct {
	Clock    clock.Clock
	Endpoint string // instead of GoDaddy's own
}

var _ app.Kind = Kind{}

// Check implements app.Kind.
func (Kind) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: field, Msg: fmt.Sprintf(format, args...)})
	}
	trimmed := app.Secrets{}
	for name, field := range map[string]string{SecretKey: "apiKey", SecretSecret: "apiSecret"} {
		s := strings.TrimSpace(secrets[name].Reveal())
		trimmed[name] = secret.New(s)
		switch {
		case s == "":
			fail(field, "is required: GoDaddy shows key and secret when a production key is made at developer.godaddy.com/keys")
		case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }):
			fail(field, "has spaces or other characters that no key has; give it as GoDaddy showed it")
		}
	}
	slices.SortFunc(wrong, func(a, b errs.Field) int { return strings.Compare(a.Name, b.Name) })
	if in.TTL < MinTTL {
		fail("ttlSeconds", "is %d; GoDaddy takes %d to 86400, or leave it out for %d", in.TTL, MinTTL, MinTTL)
	}
	return map[string]string{}, trimmed.Pack(), wrong
}

// Open implements app.Kind.
func (k Kind) Open(_ map[string]string, credential secret.Value) (app.Provider, error) {
	secrets, err := app.Unpack(credential)
	if err != nil {
		return nil, err
	}
	p := &provider{
		base: api, header: http.Header{"Authorization": {"sso-key " + secrets[SecretKey].Reveal() + ":" + secrets[SecretSecret].Reveal()}},
		rest: &rest.Client{Provider: "GoDaddy", Clock: k.Clock, Hide: []secret.Value{secrets[SecretKey], secrets[SecretSecret]}},
	}
	if k.Endpoint != "" {
		p.base = k.Endpoint
	}
	return p, nil
}

type provider struct {
	base   string
	header http.Header
	rest   *rest.Client
}

type record struct {
	Data string `json:"data"`
	TTL  int    `json:"ttl"`
}

// Server implements app.Provider.
func (p *provider) Server() string { return "GoDaddy" }

// Apply implements app.Provider. GoDaddy has no guard against two writers: another's change of the same name in the moment between reading and writing is lost.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	there, err := p.records(ctx, zone, fqdn)
	if err != nil {
		return "", err
	}
	values := data(there)
	union := txt.Union(values, want, drop)
	if slices.Equal(union, values) {
		return "", nil
	}
	if len(union) == 0 {
		a, err := p.rest.Do(ctx, rest.Call{Method: http.MethodDelete, URL: p.path(zone, fqdn), Header: p.header})
		if err == nil && a.Status >= 300 && a.Status != http.StatusNotFound {
			err = p.refused(a, zone, fqdn)
		}
		return "", err
	}
	out := make([]record, len(union))
	for i, v := range union {
		out[i] = record{Data: v, TTL: int(ttl / time.Second)}
		if at := slices.Index(values, v); at >= 0 {
			out[i] = there[at]
		}
	}
	a, err := p.rest.Do(ctx, rest.Call{Method: http.MethodPut, URL: p.path(zone, fqdn), Header: p.header, Body: out})
	if err == nil && a.Status >= 300 {
		err = p.refused(a, zone, fqdn)
	}
	return "", err
}

// Read implements app.Provider.
func (p *provider) Read(ctx context.Context, zone, fqdn string) ([]string, error) {
	there, err := p.records(ctx, zone, fqdn)
	return data(there), err
}

func data(records []record) []string {
	values := make([]string, len(records))
	for i, r := range records {
		values[i] = r.Data
	}
	return values
}

func (p *provider) records(ctx context.Context, zone, fqdn string) ([]record, error) {
	a, err := p.rest.Do(ctx, rest.Call{Method: http.MethodGet, URL: p.path(zone, fqdn), Header: p.header})
	if err != nil {
		return nil, err
	}
	if a.Status >= 300 {
		return nil, p.refused(a, zone, fqdn)
	}
	var out []record
	if a.Into(&out) != nil {
		return nil, p.rest.Failed(errs.Unavailable, a)
	}
	return out, nil
}

func (p *provider) path(zone, fqdn string) string {
	name := "@"
	if fqdn != zone {
		name = strings.TrimSuffix(fqdn, "."+zone)
	}
	return p.base + "/v1/domains/" + url.PathEscape(zone) + "/records/TXT/" + url.PathEscape(name)
}

func (p *provider) refused(a rest.Answer, zone, fqdn string) error {
	switch a.Status {
	case http.StatusUnauthorized:
		return errs.New(errs.Forbidden, domain.ReasonCredentialRefused,
			"GoDaddy refused the API key: %s; give a key of production, not of the test environment (OTE), by an update of the DNS account", p.rest.Said(a))
	case http.StatusForbidden:
		return errs.New(errs.Forbidden, domain.ReasonUpdateRefused,
			"GoDaddy does not let this API key work on %s: %s; GoDaddy gives the API to accounts that qualify, and the domain has to be in the key's account", zone, p.rest.Said(a))
	case http.StatusNotFound:
		return errs.New(errs.Precondition, domain.ReasonZoneUnknown, "GoDaddy has no domain %s in this account; give the zone as GoDaddy names it", zone)
	case http.StatusUnprocessableEntity:
		return errs.New(errs.Precondition, domain.ReasonUpdateRefused, "GoDaddy does not take TXT records at %s: %s; is the name an alias (CNAME)?", fqdn, p.rest.Said(a))
	}
	return p.rest.Failed(errs.Unavailable, a)
}

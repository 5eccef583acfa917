// Package cloudflare writes TXT records by Cloudflare's API v4, record by record, and lists them back.
package cloudflare

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
const Name = "cloudflare"

// The settings and secrets of an account.
const (
	SettingEmail    = "email"
	SecretToken     = "api_token"
	SecretZoneToken = "zone_token"
	SecretGlobalKey = "global_api_key"
)

const (
	api    = "https://api.cloudflare.com/client/v4"
	minTTL = 60
	// maxPages bounds a listing; a page has 100 records.
	maxPages = 100
)

// The codes of errors that mean something to us.
const (
	codeBadHeaders = 6003  // the token is not even a token
	codeUnknownKey = 9103  // the global key, or its email
	codeIdentical  = 81058 // the record is there already
	codeGone       = 81044 // the record is not there any more
)

// Kind is the provider.
type Kind struct {
	Clock    clock.Clock
	Endpoint string // instead of Cloudflare's own
}

var _ app.Kind = Kind{}

// Check implements app.Kind.
func (Kind) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: field, Msg: fmt.Sprintf(format, args...)})
	}
	email := strings.TrimSpace(in.Settings[SettingEmail])
	trimmed := app.Secrets{}
	for name, s := range secrets {
		trimmed[name] = secret.New(strings.TrimSpace(s.Reveal()))
	}
	token, key, zone := !trimmed[SecretToken].IsZero(), !trimmed[SecretGlobalKey].IsZero(), !trimmed[SecretZoneToken].IsZero()
	switch {
	case token && key:
		fail("globalApiKey", "is given beside an API token; give the token alone, it may do less")
	case !token && !key:
		fail("apiToken", "is required: an API token with the permissions Zone:Read and DNS:Edit for the account's zones")
	case key && !strings.Contains(email, "@"):
		fail("email", "%q given; a global API key wants the email address of its user", email)
	case token && email != "":
		fail("email", "is given beside an API token; it belongs to a global API key, leave it out")
	}
	if key && zone {
		fail("zoneToken", "is given beside a global API key; leave it out")
	}
	for _, name := range []string{SecretToken, SecretZoneToken, SecretGlobalKey} {
		if strings.ContainsFunc(trimmed[name].Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			fail(map[string]string{SecretToken: "apiToken", SecretZoneToken: "zoneToken", SecretGlobalKey: "globalApiKey"}[name], "has spaces or other characters that no token has; give it as Cloudflare showed it")
		}
	}
	if in.TTL < minTTL {
		fail("ttlSeconds", "is %d; Cloudflare takes %d to 86400, or leave it out for %d", in.TTL, minTTL, domain.DefaultTTL)
	}
	return map[string]string{SettingEmail: email}, trimmed.Pack(), wrong
}

// Open implements app.Kind.
func (k Kind) Open(settings map[string]string, credential secret.Value) (app.Provider, error) {
	secrets, err := app.Unpack(credential)
	if err != nil {
		return nil, err
	}
	p := &provider{base: api, records: header(settings[SettingEmail], secrets[SecretToken], secrets[SecretGlobalKey])}
	if k.Endpoint != "" {
		p.base = k.Endpoint
	}
	p.zones = p.records
	if zone := secrets[SecretZoneToken]; !zone.IsZero() {
		p.zones = header("", zone, secret.Value{})
	}
	p.rest = &rest.Client{Provider: "Cloudflare", Clock: k.Clock}
	for _, s := range secrets {
		p.rest.Hide = append(p.rest.Hide, s)
	}
	return p, nil
}

func header(email string, token, key secret.Value) http.Header {
	h := http.Header{}
	if !token.IsZero() {
		h.Set("Authorization", "Bearer "+token.Reveal())
	} else {
		h.Set("X-Auth-Email", email)
		h.Set("X-Auth-Key", key.Reveal())
	}
	return h
}

type provider struct {
	base           string
	rest           *rest.Client
	zones, records http.Header // who asks for zones, and who for records
}

type record struct {
	ID      string `json:"id,omitempty"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Content string `json:"content"`
	TTL     int    `json:"ttl"`
}

type envelope[T any] struct {
	Success bool `json:"success"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errors"`
	Result T `json:"result"`
	Info   struct {
		Page  int `json:"page"`
		Pages int `json:"total_pages"`
	} `json:"result_info"`
}

func (e envelope[T]) has(code int) bool {
	for _, one := range e.Errors {
		if one.Code == code {
			return true
		}
	}
	return false
}

// Server implements app.Provider.
func (p *provider) Server() string { return "Cloudflare" }

// Apply implements app.Provider. What is missing is made before what is to go is deleted; a request too many is a success.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	id, err := p.zone(ctx, zone)
	if err != nil {
		return "", err
	}
	there, err := p.list(ctx, zone, id, fqdn)
	if err != nil {
		return "", err
	}
	values := make([]string, len(there))
	for i, r := range there {
		values[i] = txt.Unquote(r.Content)
	}
	done := false
	change := func(method, path string, body any, already int) error {
		var out envelope[any]
		a, err := p.call(ctx, method, path, p.records, body, &out)
		if err == nil && !out.Success && !out.has(already) && (method != http.MethodDelete || a.Status != http.StatusNotFound) {
			err = p.refused(a, out.has, "write TXT records in the zone "+zone)
		}
		if err != nil && done {
			return rest.Partly(err)
		}
		done = true
		return err
	}
	for _, v := range want {
		if slices.Contains(values, v) {
			continue
		}
		r := record{Type: "TXT", Name: fqdn, Content: txt.Quote(v), TTL: int(ttl / time.Second)}
		if err := change(http.MethodPost, "/zones/"+id+"/dns_records", r, codeIdentical); err != nil {
			return "", err
		}
	}
	for i, r := range there {
		if !slices.Contains(drop, values[i]) {
			continue
		}
		if err := change(http.MethodDelete, "/zones/"+id+"/dns_records/"+r.ID, nil, codeGone); err != nil {
			return "", err
		}
	}
	return "", nil
}

// Read implements app.Provider.
func (p *provider) Read(ctx context.Context, zone, fqdn string) ([]string, error) {
	id, err := p.zone(ctx, zone)
	if err != nil {
		return nil, err
	}
	there, err := p.list(ctx, zone, id, fqdn)
	values := make([]string, len(there))
	for i, r := range there {
		values[i] = txt.Unquote(r.Content)
	}
	return values, err
}

// zone finds the id of a zone.
func (p *provider) zone(ctx context.Context, zone string) (string, error) {
	for page := 1; page <= maxPages; page++ {
		var out envelope[[]struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		}]
		q := url.Values{"name": {zone}, "per_page": {"50"}, "page": {strconv.Itoa(page)}}
		a, err := p.call(ctx, http.MethodGet, "/zones?"+q.Encode(), p.zones, nil, &out)
		if err != nil {
			return "", err
		}
		if !out.Success {
			return "", p.refused(a, out.has, "list zones")
		}
		for _, z := range out.Result {
			if z.Name == zone {
				return z.ID, nil
			}
		}
		if page >= out.Info.Pages {
			break
		}
	}
	return "", errs.New(errs.Precondition, domain.ReasonZoneUnknown,
		"Cloudflare shows no zone %s to this account; give the zone as Cloudflare names it, and let the token read it (Zone:Read, Zone Resources: include it)", zone)
}

// list returns the TXT records of a name.
func (p *provider) list(ctx context.Context, zone, id, fqdn string) ([]record, error) {
	var all []record
	for page := 1; page <= maxPages; page++ {
		var out envelope[[]record]
		q := url.Values{"name": {fqdn}, "per_page": {"100"}, "page": {strconv.Itoa(page)}}
		a, err := p.call(ctx, http.MethodGet, "/zones/"+id+"/dns_records?"+q.Encode(), p.records, nil, &out)
		if err != nil {
			return nil, err
		}
		if !out.Success {
			return nil, p.refused(a, out.has, "read DNS records of the zone "+zone)
		}
		for _, r := range out.Result {
			switch {
			case r.Name != fqdn:
			case r.Type == "CNAME":
				return nil, errs.New(errs.Precondition, domain.ReasonNameIsCNAME,
					"%s is an alias (CNAME) of %s, so it takes no TXT record; remove the alias, or prove control by http-01", fqdn, strings.TrimSuffix(r.Content, "."))
			case r.Type == "TXT":
				all = append(all, r)
			}
		}
		if page >= out.Info.Pages {
			break
		}
	}
	return all, nil
}

func (p *provider) call(ctx context.Context, method, path string, who http.Header, body, out any) (rest.Answer, error) {
	a, err := p.rest.Do(ctx, rest.Call{Method: method, URL: p.base + path, Header: who, Body: body})
	if err != nil {
		return a, err
	}
	if err := a.Into(out); err != nil {
		kind := errs.Timeout
		if method == http.MethodGet {
			kind = errs.Unavailable
		}
		return a, p.rest.Failed(kind, a)
	}
	return a, nil
}

// refused classifies an answer that is not a success; what says what was asked for.
func (p *provider) refused(a rest.Answer, has func(int) bool, what string) error {
	switch {
	case a.Status == http.StatusUnauthorized || has(codeBadHeaders) || has(codeUnknownKey):
		return errs.New(errs.Forbidden, domain.ReasonCredentialRefused,
			"Cloudflare refused the credentials when asked to %s: %s; make a new token and give it by an update of the DNS account", what, p.rest.Said(a))
	case a.Status == http.StatusForbidden:
		return errs.New(errs.Forbidden, domain.ReasonUpdateRefused,
			"Cloudflare does not let this account %s: %s; give the token Zone:Read and DNS:Edit for the zone, and check that it has not expired", what, p.rest.Said(a))
	}
	return p.rest.Failed(errs.Unavailable, a)
}

// Package azure writes TXT record sets of Azure DNS by its REST API, guarded by their etags, and reads them back.
package azure

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
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
const Name = "azure"

// The settings and the secret of an account.
const (
	SettingSubscription   = "subscription_id"
	SettingGroup          = "resource_group"
	SettingAuthentication = "authentication"
	SettingTenant         = "tenant_id"
	SettingClient         = "client_id"
	SettingEnvironment    = "environment"
	SecretClient          = "client_secret"
)

// The ways to prove who we are.
const (
	servicePrincipal = "service_principal"
	managedIdentity  = "managed_identity"
	workloadIdentity = "workload_identity"
)

const (
	version = "2018-05-01"
	// tries bounds how often a set is read and written again since somebody else was quicker.
	tries = 3
)

type cloud struct{ management, login string }

var clouds = map[string]cloud{
	"public":       {"https://management.azure.com", "https://login.microsoftonline.com"},
	"usgovernment": {"https://management.usgovcloudapi.net", "https://login.microsoftonline.us"},
	"china":        {"https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"},
}

// metadata is where a host of Azure has its identity.
const metadata = "http://169.254.169.254"

// Kind is the provider.
type Kind struct {
	Clock clock.Clock
	// HostIdentity allows accounts to use the identity of the host: managed and workload identity.
	HostIdentity bool
	// Endpoint stands for Azure's management, its login and the host's metadata.
	Endpoint string
}

var _ app.Kind = Kind{}

var (
	guid   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	group  = regexp.MustCompile(`^[-\w.()]{1,90}$`)
	tenant = regexp.MustCompile(`^[0-9a-zA-Z.-]{1,253}$`)
)

// Check implements app.Kind.
func (k Kind) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: field, Msg: fmt.Sprintf(format, args...)})
	}
	out := map[string]string{}
	for _, name := range []string{SettingSubscription, SettingGroup, SettingAuthentication, SettingTenant, SettingClient, SettingEnvironment} {
		out[name] = strings.TrimSpace(in.Settings[name])
	}
	out[SettingAuthentication] = cmp.Or(strings.ToLower(out[SettingAuthentication]), servicePrincipal)
	out[SettingEnvironment] = cmp.Or(strings.ToLower(out[SettingEnvironment]), "public")
	key := secret.New(strings.TrimSpace(secrets[SecretClient].Reveal()))

	if !guid.MatchString(out[SettingSubscription]) {
		fail("subscriptionId", "%q given; give the id of the subscription that the zones are in, e.g. 0b1f6471-1bf0-4dda-aec3-cb9272f09590", out[SettingSubscription])
	}
	if !group.MatchString(out[SettingGroup]) {
		fail("resourceGroup", "%q given; give the name of the resource group that the zones are in", out[SettingGroup])
	}
	if out[SettingTenant] != "" && !tenant.MatchString(out[SettingTenant]) {
		fail("tenantId", "%q given; give the tenant's id or domain", out[SettingTenant])
	}
	if out[SettingClient] != "" && !guid.MatchString(out[SettingClient]) {
		fail("clientId", "%q given; give the id of the application or identity, e.g. 0b1f6471-1bf0-4dda-aec3-cb9272f09590", out[SettingClient])
	}
	if _, ok := clouds[out[SettingEnvironment]]; !ok {
		fail("environment", "%q given, allowed: china, public, usgovernment", out[SettingEnvironment])
	}
	host := out[SettingAuthentication] == managedIdentity || out[SettingAuthentication] == workloadIdentity
	switch {
	case out[SettingAuthentication] == servicePrincipal:
		for field, given := range map[string]string{"tenantId": out[SettingTenant], "clientId": out[SettingClient], "clientSecret": key.Reveal()} {
			if given == "" {
				fail(field, "is required with the authentication service_principal")
			}
		}
		slices.SortStableFunc(wrong, func(a, b errs.Field) int { return strings.Compare(a.Name, b.Name) })
	case !host:
		fail("authentication", "%q given, allowed: service_principal, managed_identity, workload_identity", out[SettingAuthentication])
	case !k.HostIdentity:
		fail("authentication", "%q given, but accounts may not use the identity of this host; set dns.host_identity to true, or give a service_principal", out[SettingAuthentication])
	case !key.IsZero():
		fail("clientSecret", "is given, but %s has no secret; leave it out", out[SettingAuthentication])
	}
	return out, app.Secrets{SecretClient: key}.Pack(), wrong
}

// Open implements app.Kind.
func (k Kind) Open(settings map[string]string, credential secret.Value) (app.Provider, error) {
	secrets, err := app.Unpack(credential)
	if err != nil {
		return nil, err
	}
	p := &provider{
		settings: settings, secret: secrets[SecretClient], cloud: clouds[settings[SettingEnvironment]], metadata: metadata, host: k.HostIdentity,
		rest: &rest.Client{Provider: "Azure", Clock: k.Clock, Hide: []secret.Value{secrets[SecretClient]}},
	}
	if k.Endpoint != "" {
		p.cloud, p.metadata = cloud{k.Endpoint, k.Endpoint}, k.Endpoint
	}
	return p, nil
}

type provider struct {
	settings map[string]string
	secret   secret.Value
	cloud    cloud
	metadata string
	host     bool
	rest     *rest.Client
	token    secret.Value // of this step
}

type recordSet struct {
	Etag       string     `json:"etag,omitempty"`
	Properties properties `json:"properties"`
}

type properties struct {
	TTL      int               `json:"TTL"`
	Records  []txtRecord       `json:"TXTRecords"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type txtRecord struct {
	Value []string `json:"value"`
}

func (s recordSet) values() []string {
	values := make([]string, len(s.Properties.Records))
	for i, r := range s.Properties.Records {
		values[i] = strings.Join(r.Value, "")
	}
	return values
}

// Server implements app.Provider.
func (p *provider) Server() string { return "Azure DNS" }

// Apply implements app.Provider. A set that somebody else changed since it was read is read again.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	for range tries {
		set, err := p.get(ctx, zone, fqdn)
		if err != nil {
			return "", err
		}
		values := set.values()
		union := txt.Union(values, want, drop)
		if slices.Equal(union, values) {
			return "", nil
		}
		call := rest.Call{Method: http.MethodPut, URL: p.recordURL(zone, fqdn), Header: http.Header{}}
		if set.Etag != "" {
			call.Header.Set("If-Match", set.Etag)
		} else {
			call.Header.Set("If-None-Match", "*")
			set.Properties.TTL = int(ttl / time.Second)
		}
		if len(union) == 0 {
			call.Method = http.MethodDelete
		} else {
			set.Etag, set.Properties.Records = "", make([]txtRecord, len(union))
			for i, v := range union {
				set.Properties.Records[i].Value = txt.Split(v)
			}
			call.Body = set
		}
		a, err := p.call(ctx, call)
		switch {
		case err != nil:
			return "", err
		case a.Status < 300:
			return "", nil
		case a.Status != http.StatusPreconditionFailed:
			return "", p.refused(a, zone, fqdn)
		}
	}
	return "", errs.New(errs.Conflict, domain.ReasonSetChanged, "the TXT records of %s are changed by somebody else all the time; they are written again later", fqdn)
}

// Read implements app.Provider.
func (p *provider) Read(ctx context.Context, zone, fqdn string) ([]string, error) {
	set, err := p.get(ctx, zone, fqdn)
	return set.values(), err
}

// get returns the set of a name, an empty one without etag when there is none.
func (p *provider) get(ctx context.Context, zone, fqdn string) (recordSet, error) {
	var set recordSet
	a, err := p.call(ctx, rest.Call{Method: http.MethodGet, URL: p.recordURL(zone, fqdn)})
	switch {
	case err != nil:
		return set, err
	case a.Status == http.StatusNotFound: // the record, or the zone?
		if a, err = p.call(ctx, rest.Call{Method: http.MethodGet, URL: p.zoneURL(zone) + "?api-version=" + version}); err == nil && a.Status >= 300 {
			err = p.refused(a, zone, fqdn)
		}
		return set, err
	case a.Status >= 300:
		return set, p.refused(a, zone, fqdn)
	case a.Into(&set) != nil || set.Etag == "":
		return recordSet{}, p.rest.Failed(errs.Unavailable, a)
	}
	return set, nil
}

func (p *provider) zoneURL(zone string) string {
	return p.cloud.management + "/subscriptions/" + url.PathEscape(p.settings[SettingSubscription]) + "/resourceGroups/" + url.PathEscape(p.settings[SettingGroup]) +
		"/providers/Microsoft.Network/dnsZones/" + url.PathEscape(zone)
}

func (p *provider) recordURL(zone, fqdn string) string {
	name := "@"
	if fqdn != zone {
		name = strings.TrimSuffix(fqdn, "."+zone)
	}
	return p.zoneURL(zone) + "/TXT/" + url.PathEscape(name) + "?api-version=" + version
}

func (p *provider) call(ctx context.Context, call rest.Call) (rest.Answer, error) {
	if p.token.IsZero() {
		token, err := p.authenticate(ctx)
		if err != nil {
			return rest.Answer{}, err
		}
		p.token = token
		p.rest.Hide = append(p.rest.Hide, token)
	}
	if call.Header == nil {
		call.Header = http.Header{}
	}
	call.Header.Set("Authorization", "Bearer "+p.token.Reveal())
	return p.rest.Do(ctx, call)
}

// authenticate gets an access token, which serves one step.
func (p *provider) authenticate(ctx context.Context) (secret.Value, error) {
	how := p.settings[SettingAuthentication]
	if how != servicePrincipal && !p.host {
		return secret.Value{}, errs.New(errs.Precondition, domain.ReasonCredentialRefused,
			"the DNS account uses the identity of this host, which is switched off; set dns.host_identity to true, or give the account a service_principal")
	}
	call := rest.Call{Method: http.MethodGet, Direct: true}
	switch how {
	case managedIdentity:
		q := url.Values{"api-version": {"2018-02-01"}, "resource": {p.cloud.management}}
		if id := p.settings[SettingClient]; id != "" {
			q.Set("client_id", id)
		}
		call.URL, call.Header = p.metadata+"/metadata/identity/oauth2/token?"+q.Encode(), http.Header{"Metadata": {"true"}}
	default:
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {p.cloud.management + "/.default"}, "client_id": {p.settings[SettingClient]}}
		at := p.settings[SettingTenant]
		if how == workloadIdentity {
			assertion, err := secret.FromFile(os.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
			if err != nil {
				return secret.Value{}, errs.New(errs.Precondition, domain.ReasonCredentialRefused,
					"this host has no workload identity: AZURE_FEDERATED_TOKEN_FILE: %w; give the dns service one, or the account a service_principal", err)
			}
			p.rest.Hide = append(p.rest.Hide, assertion)
			at = cmp.Or(at, os.Getenv("AZURE_TENANT_ID"))
			form.Set("client_id", cmp.Or(p.settings[SettingClient], os.Getenv("AZURE_CLIENT_ID")))
			form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
			form.Set("client_assertion", assertion.Reveal())
		} else {
			form.Set("client_secret", p.secret.Reveal())
		}
		call = rest.Call{Method: http.MethodPost, URL: p.cloud.login + "/" + url.PathEscape(at) + "/oauth2/v2.0/token", Body: form}
	}
	a, err := p.rest.Do(ctx, call)
	if err != nil {
		if e := errs.As(err); e != nil && e.Kind == errs.Timeout { // asking for a token changes no record
			unchanged := *e
			unchanged.Kind = errs.Unavailable
			return secret.Value{}, &unchanged
		}
		return secret.Value{}, err
	}
	var out struct {
		Token string `json:"access_token"`
		Error string `json:"error"`
		Why   string `json:"error_description"`
	}
	if err := a.Into(&out); a.Status >= 300 || err != nil || out.Token == "" {
		return secret.Value{}, errs.New(errs.Forbidden, domain.ReasonCredentialRefused,
			"Azure gave no access for the %s: %s; check tenant, client and secret, and whether the secret has expired", strings.ReplaceAll(how, "_", " "), p.rest.Said(a))
	}
	return secret.New(out.Token), nil
}

func (p *provider) refused(a rest.Answer, zone, fqdn string) error {
	switch said := p.rest.Said(a); {
	case a.Status == http.StatusUnauthorized:
		return errs.New(errs.Forbidden, domain.ReasonCredentialRefused, "Azure refused the access token: %s; is the subscription of another tenant or cloud?", said)
	case a.Status == http.StatusForbidden:
		return errs.New(errs.Forbidden, domain.ReasonUpdateRefused,
			"Azure does not let this identity work on the zone %s: %s; give it the role DNS Zone Contributor on the zone, which takes some minutes", zone, said)
	case a.Status == http.StatusNotFound:
		return errs.New(errs.Precondition, domain.ReasonZoneUnknown, "Azure has no public DNS zone %s in the resource group %s of the subscription %s; correct the account",
			zone, p.settings[SettingGroup], p.settings[SettingSubscription])
	case strings.Contains(said, "CNAME"):
		return errs.New(errs.Precondition, domain.ReasonNameIsCNAME, "%s is an alias (CNAME), so it takes no TXT record; remove the alias, or prove control by http-01", fqdn)
	}
	return p.rest.Failed(errs.Unavailable, a)
}

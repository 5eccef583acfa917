package cloudflare_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/cloudflare"
	"github.com/certwright/certwright/services/dns/internal/adapters/providertest"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

const name = "_acme-challenge.www.example.org"

func world(t *testing.T, s *dnstest.Cloudflare) providertest.World {
	t.Helper()
	return providertest.World{
		Server: s, Zone: s.Zone, Kind: cloudflare.Kind{Clock: clock.System(), Endpoint: s.URL},
		Secrets: app.Secrets{cloudflare.SecretToken: secret.New(dnstest.CloudflareToken)},
		Wrong:   app.Secrets{cloudflare.SecretToken: secret.New("cf-token-that-nobody-knows-1234567890abcdef")},
		Refused: "DNS_CREDENTIALS_REFUSED", Unknown: "DNS_ZONE_UNKNOWN", Throttle: s.Throttle, Pause: 7 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.World { return world(t, dnstest.StartCloudflare(t, "example.org")) })
	t.Run("with the global key", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.World {
			w := world(t, dnstest.StartCloudflare(t, "example.org"))
			w.Settings = map[string]string{cloudflare.SettingEmail: dnstest.CloudflareEmail}
			w.Secrets = app.Secrets{cloudflare.SecretGlobalKey: secret.New(dnstest.CloudflareKey)}
			w.Wrong = app.Secrets{cloudflare.SecretGlobalKey: secret.New("not-the-key-of-ops")}
			return w
		})
	})
}

func TestAZoneTokenReadsZonesForATokenThatMayNot(t *testing.T) {
	s := dnstest.StartCloudflare(t, "example.org")
	w := world(t, s)
	both := app.Secrets{cloudflare.SecretToken: secret.New(dnstest.CloudflareNoZones), cloudflare.SecretZoneToken: secret.New(dnstest.CloudflareZoneToken)}
	_, err := w.Open(t, both).Apply(t.Context(), "example.org", name, []string{"v"}, nil, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"v"}, s.Values(name))
}

func TestARefusalSaysWhatToMend(t *testing.T) {
	s := dnstest.StartCloudflare(t, "example.org")
	s.Alias = "_acme-challenge.alias.example.org"
	table := []struct {
		name, token, fqdn string
		reason, msg       string
	}{
		{
			"a token that may not see the zone", dnstest.CloudflareNoZones, name, "DNS_ZONE_UNKNOWN",
			"Cloudflare shows no zone example.org to this account; give the zone as Cloudflare names it, and let the token read it (Zone:Read, Zone Resources: include it)",
		},
		{
			"a token that may not write", dnstest.CloudflareReadOnly, name, "DNS_UPDATE_REFUSED",
			`Cloudflare does not let this account write TXT records in the zone example.org: {"errors":[{"code":10000,"message":"Authentication error"}],"messages":[],"result":null,"success":false}; ` +
				"give the token Zone:Read and DNS:Edit for the zone, and check that it has not expired",
		},
		{
			"what is no token", "short", name, "DNS_CREDENTIALS_REFUSED",
			`Cloudflare refused the credentials when asked to list zones: {"errors":[{"code":6003,"message":"Invalid request headers"}],"messages":[],"result":null,"success":false}; ` +
				"make a new token and give it by an update of the DNS account",
		},
		{
			"a name that is an alias", dnstest.CloudflareToken, s.Alias, "DNS_NAME_IS_CNAME",
			"_acme-challenge.alias.example.org is an alias (CNAME) of elsewhere.test, so it takes no TXT record; remove the alias, or prove control by http-01",
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			p := world(t, s).Open(t, app.Secrets{cloudflare.SecretToken: secret.New(row.token)})
			_, err := p.Apply(t.Context(), "example.org", row.fqdn, []string{"v"}, nil, time.Minute)
			require.Equal(t, row.reason, errs.ReasonOf(err), "%v", err)
			require.Empty(t, cmp.Diff(row.msg, err.Error()))
			require.Zero(t, s.Writes())
		})
	}
}

// A listing that lags behind makes a request too many, which is a success.
func TestALaggingListingIsNoTrouble(t *testing.T) {
	s := dnstest.StartCloudflare(t, "example.org")
	w := world(t, s)
	ctx := t.Context()
	s.Set(name, "old")
	s.Lag(3)
	for range 2 {
		_, err := w.Open(t, w.Secrets).Apply(ctx, "example.org", name, []string{"new"}, []string{"old"}, time.Minute)
		require.NoError(t, err)
	}
	read, err := w.Open(t, w.Secrets).Read(ctx, "example.org", name)
	require.NoError(t, err)
	require.Equal(t, []string{"old"}, read, "it is said as it is, and looked at again")
	read, err = w.Open(t, w.Secrets).Read(ctx, "example.org", name)
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, read)
}

// Of two records the first is made: a refusal of the second does not mean that nothing happened.
func TestAPartOfAChangeIsNotCalledNone(t *testing.T) {
	s := dnstest.StartCloudflare(t, "example.org")
	behind, err := url.Parse(s.URL)
	require.NoError(t, err)
	posts, proxy := 0, httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts++
		}
		if posts > 1 {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"success":false,"errors":[{"code":10000}]}`))
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	w := world(t, s)
	w.Kind = cloudflare.Kind{Clock: clock.System(), Endpoint: front.URL}
	_, err = w.Open(t, w.Secrets).Apply(t.Context(), "example.org", name, []string{"one", "two"}, nil, time.Minute)
	require.Equal(t, errs.Timeout, errs.KindOf(err), "%v", err)
	require.Equal(t, "DNS_UPDATE_REFUSED", errs.ReasonOf(err))
	require.Equal(t, []string{"one"}, s.Values(name))
}

func TestCredentialsFollowNoRedirect(t *testing.T) {
	followed := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	t.Cleanup(other.Close)
	front := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(front.Close)
	w := world(t, dnstest.StartCloudflare(t, "example.org"))
	w.Kind = cloudflare.Kind{Clock: clock.System(), Endpoint: front.URL}
	_, err := w.Open(t, w.Secrets).Apply(t.Context(), "example.org", name, []string{"v"}, nil, time.Minute)
	require.Equal(t, "DNS_PROVIDER_FAILED", errs.ReasonOf(err), "%v", err)
	require.ErrorContains(t, err, "redirects to another address, which is not followed")
	require.False(t, followed)
}

func TestSettingsAreCheckedAtTheDoor(t *testing.T) {
	table := []struct {
		name    string
		in      domain.Account
		secrets app.Secrets
		wrong   []errs.Field
	}{
		{"nothing is given", domain.Account{TTL: 60}, nil, []errs.Field{
			{Name: "apiToken", Msg: "is required: an API token with the permissions Zone:Read and DNS:Edit for the account's zones"},
		}},
		{"token and key are given", domain.Account{TTL: 30}, app.Secrets{cloudflare.SecretToken: secret.New("a b"), cloudflare.SecretGlobalKey: secret.New("k")}, []errs.Field{
			{Name: "globalApiKey", Msg: "is given beside an API token; give the token alone, it may do less"},
			{Name: "apiToken", Msg: "has spaces or other characters that no token has; give it as Cloudflare showed it"},
			{Name: "ttlSeconds", Msg: "is 30; Cloudflare takes 60 to 86400, or leave it out for 60"},
		}},
		{"a key without its user", domain.Account{TTL: 60}, app.Secrets{cloudflare.SecretGlobalKey: secret.New("k"), cloudflare.SecretZoneToken: secret.New("z")}, []errs.Field{
			{Name: "email", Msg: `"" given; a global API key wants the email address of its user`},
			{Name: "zoneToken", Msg: "is given beside a global API key; leave it out"},
		}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			_, _, wrong := cloudflare.Kind{}.Check(row.in, row.secrets)
			require.Empty(t, cmp.Diff(row.wrong, wrong))
		})
	}
}

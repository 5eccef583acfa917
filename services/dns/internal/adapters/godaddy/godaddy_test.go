package godaddy_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/godaddy"
	"github.com/certwright/certwright/services/dns/internal/adapters/providertest"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

func secrets(key, s string) app.Secrets {
	return app.Secrets{godaddy.SecretKey: secret.New(key), godaddy.SecretSecret: secret.New(s)}
}

func world(s *dnstest.GoDaddy) providertest.World {
	return providertest.World{
		Server: s, Zone: s.Zone, Kind: godaddy.Kind{Clock: clock.System(), Endpoint: s.URL},
		Secrets: secrets(dnstest.GoDaddyKey, dnstest.GoDaddySecret), Wrong: secrets(dnstest.GoDaddyKey, "not-the-secret"),
		Refused: "DNS_CREDENTIALS_REFUSED", Unknown: "DNS_ZONE_UNKNOWN", Throttle: s.Throttle, Pause: 7 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.World { return world(dnstest.StartGoDaddy(t, "example.org")) })
}

func TestAKeyOfAnotherAccountIsToldApart(t *testing.T) {
	w := world(dnstest.StartGoDaddy(t, "example.org"))
	_, err := w.Open(t, secrets(dnstest.GoDaddyForeigner, dnstest.GoDaddySecret)).Apply(t.Context(), "example.org", "_acme-challenge.example.org", []string{"v"}, nil, time.Hour)
	require.Equal(t, "DNS_UPDATE_REFUSED", errs.ReasonOf(err))
	require.Empty(t, cmp.Diff(`GoDaddy does not let this API key work on example.org: {"code":"ACCESS_DENIED","message":"Authenticated user is not allowed access"}; `+
		"GoDaddy gives the API to accounts that qualify, and the domain has to be in the key's account", err.Error()))
}

func TestSettingsAreCheckedAtTheDoor(t *testing.T) {
	_, _, wrong := godaddy.Kind{}.Check(domain.Account{TTL: 60}, app.Secrets{godaddy.SecretSecret: secret.New("a:b")})
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "apiKey", Msg: "is required: GoDaddy shows key and secret when a production key is made at developer.godaddy.com/keys"},
		{Name: "apiSecret", Msg: "has spaces or other characters that no key has; give it as GoDaddy showed it"},
		{Name: "ttlSeconds", Msg: "is 60; GoDaddy takes 600 to 86400, or leave it out for 600"},
	}, wrong))
}

package rfc2136_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/providertest"
	"github.com/certwright/certwright/services/dns/internal/adapters/rfc2136"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

func TestConformance(t *testing.T) {
	world := func(t *testing.T) (providertest.World, *dnstest.Server) {
		s := dnstest.Start(t, "example.org")
		return providertest.World{
			Server: s, Zone: "example.org", Kind: rfc2136.Kind{Clock: clock.System()}, Refused: "DNS_TSIG_REFUSED", Unknown: "DNS_ZONE_NOT_AUTH",
			Settings: map[string]string{rfc2136.SettingServer: s.Addr, rfc2136.SettingKeyName: dnstest.KeyName},
			Secrets:  app.Secrets{rfc2136.SecretTSIG: secret.New(dnstest.Secret)}, Wrong: app.Secrets{rfc2136.SecretTSIG: secret.New(wrongSecret)},
		}, s
	}
	t.Run("one key", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.World {
			w, _ := world(t)
			return w
		})
	})
	t.Run("a key for each zone", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.World {
			w, s := world(t)
			w.Settings = map[string]string{rfc2136.SettingZones: rfc2136.ZonesSetting([]rfc2136.Zone{{Zone: "Example.org.", Server: s.Addr, KeyName: dnstest.KeyName}})}
			w.Secrets, w.Wrong = app.Secrets{rfc2136.ZoneSecret(0): secret.New(dnstest.Secret)}, app.Secrets{rfc2136.ZoneSecret(0): secret.New(wrongSecret)}
			w.Unknown = "DNS_ZONE_UNKNOWN"
			return w
		})
	})
}

// The account says example.org, but the name is in a child zone of the same server, or the account's zone is a part of the server's.
func TestTheServerSaysWhichOfItsZonesHasTheName(t *testing.T) {
	s := dnstest.Start(t, "example.org", "dev.example.org")
	p := open(t, good(s.Addr))
	for zone, fqdn := range map[string]string{
		"example.org":     "_acme-challenge.www.dev.example.org",
		"www.example.org": "_acme-challenge.www.example.org",
	} {
		require.NoError(t, apply(t.Context(), p, zone, fqdn, []string{"v"}, nil))
		require.Equal(t, []string{"v"}, s.Values(fqdn))
	}
}

func TestEachZoneHasItsOwnServerAndKey(t *testing.T) {
	one, two := dnstest.Start(t, "one.test"), dnstest.Start(t, "two.test")
	kind := rfc2136.Kind{Clock: clock.System()}
	account := domain.Account{Zones: []string{"one.test", "two.test"}, Settings: map[string]string{rfc2136.SettingZones: rfc2136.ZonesSetting([]rfc2136.Zone{
		{Zone: "one.test", Server: one.Addr, KeyName: dnstest.KeyName}, {Zone: "two.test", Server: two.Addr, KeyName: dnstest.KeyName},
	})}}
	settings, credential, wrong := kind.Check(account, app.Secrets{rfc2136.ZoneSecret(0): secret.New(dnstest.Secret), rfc2136.ZoneSecret(1): secret.New(wrongSecret)})
	require.Empty(t, wrong)
	p, err := kind.Open(settings, credential)
	require.NoError(t, err)
	_, err = p.Apply(t.Context(), "one.test", "_acme-challenge.one.test", []string{"v"}, nil, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"v"}, one.Values("_acme-challenge.one.test"))
	_, err = p.Apply(t.Context(), "two.test", "_acme-challenge.two.test", []string{"v"}, nil, time.Minute)
	require.Equal(t, "DNS_TSIG_REFUSED", errs.ReasonOf(err))
	require.ErrorContains(t, err, two.Addr)
}

func TestServersOfZonesAreCheckedAtTheDoor(t *testing.T) {
	kind := rfc2136.Kind{}
	account := domain.Account{Zones: []string{"one.test", "two.test"}, Settings: map[string]string{
		rfc2136.SettingServer: "ns:53",
		rfc2136.SettingZones: rfc2136.ZonesSetting([]rfc2136.Zone{
			{Zone: "one.test", Server: "ns1", KeyName: "k"}, {Zone: "One.test", Server: "ns1", KeyName: "k"}, {Zone: "three.test", Server: "ns1", KeyName: "k"},
		}),
	}}
	key := secret.New(dnstest.Secret)
	settings, _, wrong := kind.Check(account, app.Secrets{rfc2136.ZoneSecret(0): key, rfc2136.ZoneSecret(1): key})
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "zones", Msg: "is given beside a server or key for all zones; give one or the other"},
		{Name: "zones[1].zone", Msg: `"One.test" is there twice; leave one out`},
		{Name: "zones[2].tsigSecret", Msg: "is required: the secret of the key in base64, as tsig-keygen prints it"},
	}, wrong))
	account.Settings = settings
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "zones[2].zone", Msg: `"three.test" given, allowed are the account's zones: one.test, two.test`},
		{Name: "zones", Msg: "has no server and key for the zone two.test of the account; add them, or take the zone out of the account"},
	}, kind.CheckZones(account)))
}

package azure_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/azure"
	"github.com/certwright/certwright/services/dns/internal/adapters/providertest"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

const name = "_acme-challenge.www.example.org"

func world(s *dnstest.Azure) providertest.World {
	return providertest.World{
		Server: s, Zone: s.Zone, Kind: azure.Kind{Clock: clock.System(), Endpoint: s.URL, HostIdentity: true},
		Settings: map[string]string{
			azure.SettingSubscription: dnstest.AzureSubscription, azure.SettingGroup: dnstest.AzureGroup,
			azure.SettingTenant: dnstest.AzureTenant, azure.SettingClient: dnstest.AzureClient,
		},
		Secrets: app.Secrets{azure.SecretClient: secret.New(dnstest.AzureSecret)}, Wrong: app.Secrets{azure.SecretClient: secret.New("an-expired-secret")},
		Refused: "DNS_CREDENTIALS_REFUSED", Unknown: "DNS_ZONE_UNKNOWN", Throttle: s.Throttle, Pause: 7 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.World { return world(dnstest.StartAzure(t, "example.org")) })
}

func with(w providertest.World, key, value string) providertest.World {
	w.Settings = maps.Clone(w.Settings)
	w.Settings[key] = value
	return w
}

func TestTheIdentityOfTheHost(t *testing.T) {
	s := dnstest.StartAzure(t, "example.org")
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(dnstest.AzureAssertion+"\n"), 0o600))
	for _, how := range []string{"managed_identity", "workload_identity"} {
		t.Run(how, func(t *testing.T) {
			t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
			w := with(world(s), azure.SettingAuthentication, how)
			_, err := w.Open(t, nil).Apply(t.Context(), "example.org", name, []string{how}, nil, time.Minute)
			require.NoError(t, err)
			require.Contains(t, s.Values(name), how)

			w.Kind = azure.Kind{Clock: clock.System()}
			_, _, wrong := w.Kind.Check(w.Account(), nil)
			require.Empty(t, cmp.Diff([]errs.Field{{
				Name: "authentication", Msg: `"` + how + `" given, but accounts may not use the identity of this host; set dns.host_identity to true, or give a service_principal`,
			}}, wrong))
		})
	}
	t.Run("an account made before it was switched off", func(t *testing.T) {
		w := with(world(s), azure.SettingAuthentication, "managed_identity")
		settings, credential, _ := w.Kind.Check(w.Account(), nil)
		p, err := azure.Kind{Clock: clock.System(), Endpoint: s.URL}.Open(settings, credential)
		require.NoError(t, err)
		_, err = p.Read(t.Context(), "example.org", name)
		require.EqualError(t, err, "the DNS account uses the identity of this host, which is switched off; set dns.host_identity to true, or give the account a service_principal")
	})
	t.Run("a host without one says so", func(t *testing.T) {
		t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Join(t.TempDir(), "missing"))
		_, err := with(world(s), azure.SettingAuthentication, "workload_identity").Open(t, nil).Read(t.Context(), "example.org", name)
		require.ErrorContains(t, err, "this host has no workload identity: AZURE_FEDERATED_TOKEN_FILE: the secret file")
	})
}

// Between reading and writing somebody else adds a value: it stays.
func TestAnotherWritersValueIsNotLost(t *testing.T) {
	s := dnstest.StartAzure(t, "example.org")
	w := world(s)
	for _, before := range [][]string{nil, {"foreign"}} {
		s.Set(name, before...)
		s.BeforeNextWrite(func(values map[string][]string) { values[name] = append(append([]string{}, before...), "theirs") })
		_, err := w.Open(t, w.Secrets).Apply(t.Context(), "example.org", name, []string{"ours"}, nil, time.Minute)
		require.NoError(t, err)
		require.ElementsMatch(t, append(before, "ours", "theirs"), s.Values(name))
	}
}

func TestARefusalSaysWhatToMend(t *testing.T) {
	s := dnstest.StartAzure(t, "example.org")
	w := world(s)
	s.Alias = name
	_, err := w.Open(t, w.Secrets).Apply(t.Context(), "example.org", name, []string{"v"}, nil, time.Minute)
	require.EqualError(t, err, name+" is an alias (CNAME), so it takes no TXT record; remove the alias, or prove control by http-01")

	s.Denied = true
	_, err = w.Open(t, w.Secrets).Apply(t.Context(), "example.org", name, []string{"v"}, nil, time.Minute)
	require.Equal(t, "DNS_UPDATE_REFUSED", errs.ReasonOf(err))
	require.ErrorContains(t, err, "give it the role DNS Zone Contributor on the zone, which takes some minutes")
}

func TestSettingsAreCheckedAtTheDoor(t *testing.T) {
	_, _, wrong := azure.Kind{}.Check(domain.Account{Settings: map[string]string{
		azure.SettingSubscription: "prod", azure.SettingGroup: "a/b", azure.SettingEnvironment: "germany",
	}}, nil)
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "clientId", Msg: "is required with the authentication service_principal"},
		{Name: "clientSecret", Msg: "is required with the authentication service_principal"},
		{Name: "environment", Msg: `"germany" given, allowed: china, public, usgovernment`},
		{Name: "resourceGroup", Msg: `"a/b" given; give the name of the resource group that the zones are in`},
		{Name: "subscriptionId", Msg: `"prod" given; give the id of the subscription that the zones are in, e.g. 0b1f6471-1bf0-4dda-aec3-cb9272f09590`},
		{Name: "tenantId", Msg: "is required with the authentication service_principal"},
	}, wrong))
}

package route53_test

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/providertest"
	"github.com/certwright/certwright/services/dns/internal/adapters/route53"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

const name = "_acme-challenge.www.example.org"

func world(s *dnstest.Route53) providertest.World {
	return providertest.World{
		Server: s, Zone: s.Zone, Kind: route53.Kind{Clock: clock.System(), Endpoint: s.URL},
		Settings: map[string]string{route53.SettingKeyID: dnstest.AWSKeyID},
		Secrets:  app.Secrets{route53.SecretKey: secret.New(dnstest.AWSSecret)}, Wrong: app.Secrets{route53.SecretKey: secret.New("not/the/secret/of/the/key")},
		Refused: "DNS_CREDENTIALS_REFUSED", Unknown: "DNS_ZONE_UNKNOWN", Throttle: s.Throttle,
	}
}

func with(w providertest.World, pairs ...string) providertest.World {
	w.Settings = maps.Clone(w.Settings)
	for i := 0; i < len(pairs); i += 2 {
		w.Settings[pairs[i]] = pairs[i+1]
	}
	return w
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.World {
		s := dnstest.StartRoute53(t, "example.org")
		s.Pending = 2
		return world(s)
	})
	t.Run("with a role", func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.World {
			s := dnstest.StartRoute53(t, "example.org")
			s.RoleOnly = true
			return with(world(s), route53.SettingRole, dnstest.AWSRole, route53.SettingExternalID, dnstest.AWSExternalID)
		})
	})
}

// Between reading and writing somebody else adds a value: the batch fails, and the next one keeps it.
func TestAnotherWritersValueIsNotLost(t *testing.T) {
	s := dnstest.StartRoute53(t, "example.org")
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
	s := dnstest.StartRoute53(t, "example.org")
	s.Alias, s.Weighted = "_acme-challenge.alias.example.org", "_acme-challenge.weighted.example.org"
	twice := dnstest.StartRoute53(t, "example.org")
	twice.Twice = true
	only := dnstest.StartRoute53(t, "example.org")
	only.RoleOnly = true
	table := []struct {
		name        string
		world       providertest.World
		zone, fqdn  string
		reason, msg string
	}{
		{
			"a name that is an alias", world(s), "example.org", s.Alias, "DNS_NAME_IS_CNAME",
			"_acme-challenge.alias.example.org is an alias (CNAME) of elsewhere.test, so it takes no TXT record; remove the alias, or prove control by http-01",
		},
		{
			"a name with a routing policy", world(s), "example.org", s.Weighted, "DNS_UPDATE_REFUSED",
			"the TXT records of _acme-challenge.weighted.example.org have a routing policy or are an alias in Route 53; make them a simple record, or remove them",
		},
		{
			"two zones of one name", world(twice), "example.org", name, "DNS_ZONE_UNKNOWN",
			"Route 53 has several public hosted zones example.org: Z1D633PJN98FT9, ZTWICE; give hostedZoneId, the one that the name servers of the domain serve",
		},
		{
			"an id that is not there", with(world(s), route53.SettingZoneID, "ZWRONG"), "example.org", name, "DNS_ZONE_UNKNOWN",
			"Route 53 does not have the hosted zone: NoSuchHostedZone: No hosted zone found with ID: /hostedzone/ZWRONG/rrset; correct hostedZoneId, or leave it out",
		},
		{
			"an id of another zone", with(world(s), route53.SettingZoneID, dnstest.Route53ZoneID), "example.net", "_acme-challenge.example.net", "DNS_ZONE_UNKNOWN",
			"the hosted zone Z1D633PJN98FT9 is not that of example.net: [RRSet with DNS name _acme-challenge.example.net. is not permitted in zone example.org.]; correct hostedZoneId, or leave it out",
		},
		{
			"a key that may do nothing but take on a role", world(only), "example.org", name, "DNS_UPDATE_REFUSED",
			"AWS does not let this account list hosted zones (route53:ListHostedZonesByName): AccessDenied: User: arn:aws:iam::123456789012:user/certwright is not authorized to perform: " +
				"route53:ListHostedZonesByName; allow it by a policy",
		},
		{
			"a role that wants another external id", with(world(s), route53.SettingRole, dnstest.AWSRole, route53.SettingExternalID, "wrong"), "example.org", name, "DNS_UPDATE_REFUSED",
			"AWS does not let this account list hosted zones (route53:ListHostedZonesByName): AccessDenied: User is not authorized to perform: sts:AssumeRole on resource: " +
				dnstest.AWSRole + "; allow it by a policy",
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			_, err := row.world.Open(t, row.world.Secrets).Apply(t.Context(), row.zone, row.fqdn, []string{"v"}, nil, time.Minute)
			require.Equal(t, row.reason, errs.ReasonOf(err), "%v", err)
			require.Empty(t, cmp.Diff(row.msg, err.Error()))
		})
	}
	require.Zero(t, s.Writes()+twice.Writes()+only.Writes())
}

func TestSettingsAreCheckedAtTheDoor(t *testing.T) {
	kind := route53.Kind{}
	_, _, wrong := kind.Check(domain.Account{Settings: map[string]string{
		route53.SettingKeyID: "me", route53.SettingRole: "admin", route53.SettingZoneID: "example.org", route53.SettingRegion: "Frankfurt",
	}}, nil)
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "accessKeyId", Msg: `"me" given; give the id of an access key, e.g. AKIAIOSFODNN7EXAMPLE`},
		{Name: "secretAccessKey", Msg: "is required: AWS shows it once, when the access key is made"},
		{Name: "roleArn", Msg: `"admin" given; give the role as arn:aws:iam::<12 digits>:role/<name>, or leave it out`},
		{Name: "hostedZoneId", Msg: `"example.org" given; give an id like Z1D633PJN98FT9, or leave it out and the zone is found by its name`},
		{Name: "region", Msg: `"Frankfurt" given; give a region like us-east-1, or leave it out for us-east-1`},
	}, wrong))

	settings, _, wrong := kind.Check(domain.Account{Settings: map[string]string{
		route53.SettingKeyID: "ASIAIOSFODNN7EXAMPLE", route53.SettingExternalID: "x", route53.SettingZoneID: "/hostedzone/Z1D633PJN98FT9",
	}}, app.Secrets{route53.SecretKey: secret.New("k")})
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "sessionToken", Msg: "is required: the access key ASIAIOSFODNN7EXAMPLE is a temporary one"},
		{Name: "externalId", Msg: "is given without roleArn; it is what the trust policy of a role asks for"},
	}, wrong))
	require.Equal(t, "Z1D633PJN98FT9", settings[route53.SettingZoneID])
	require.Empty(t, cmp.Diff([]errs.Field{{
		Name: "hostedZoneId", Msg: "is one zone's, but the account has 2; leave it out and they are found by name, or make an account for each",
	}}, kind.CheckZones(domain.Account{Settings: settings, Zones: []string{"a.test", "b.test"}})))
}

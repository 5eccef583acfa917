package grpc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	"github.com/certwright/certwright/services/dns/internal/adapters/azure"
	"github.com/certwright/certwright/services/dns/internal/adapters/cloudflare"
	"github.com/certwright/certwright/services/dns/internal/adapters/godaddy"
	"github.com/certwright/certwright/services/dns/internal/adapters/rfc2136"
	"github.com/certwright/certwright/services/dns/internal/adapters/route53"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// given is what a user gave for one provider, in the provider's own words.
type given struct {
	settings map[string]string
	secrets  app.Secrets
	ttl      int32
}

// messages are the messages of providers that an account came with.
func messages(in *dnsv1.DNSAccount) map[string]given {
	all := map[string]given{}
	if r := in.GetRfc2136(); r != nil {
		zones, secrets := make([]rfc2136.Zone, len(r.GetZones())), app.Secrets{rfc2136.SecretTSIG: secret.New(r.GetTsigSecret())}
		for i, z := range r.GetZones() {
			zones[i] = rfc2136.Zone{Zone: z.GetZone(), Server: z.GetServer(), KeyName: z.GetTsigKeyName(), Algorithm: z.GetTsigAlgorithm()}
			secrets[rfc2136.ZoneSecret(i)] = secret.New(z.GetTsigSecret())
		}
		all[rfc2136.Name] = given{ttl: r.GetTtlSeconds(), secrets: secrets, settings: map[string]string{
			rfc2136.SettingServer: r.GetServer(), rfc2136.SettingKeyName: r.GetTsigKeyName(), rfc2136.SettingAlgorithm: r.GetTsigAlgorithm(),
			rfc2136.SettingZones: rfc2136.ZonesSetting(zones),
		}}
	}
	if c := in.GetCloudflare(); c != nil {
		all[cloudflare.Name] = given{ttl: c.GetTtlSeconds(), settings: map[string]string{cloudflare.SettingEmail: c.GetEmail()}, secrets: app.Secrets{
			cloudflare.SecretToken: secret.New(c.GetApiToken()), cloudflare.SecretZoneToken: secret.New(c.GetZoneToken()), cloudflare.SecretGlobalKey: secret.New(c.GetGlobalApiKey()),
		}}
	}
	if r := in.GetRoute53(); r != nil {
		all[route53.Name] = given{ttl: r.GetTtlSeconds(), settings: map[string]string{
			route53.SettingKeyID: r.GetAccessKeyId(), route53.SettingRole: r.GetRoleArn(), route53.SettingExternalID: r.GetExternalId(),
			route53.SettingZoneID: r.GetHostedZoneId(), route53.SettingRegion: r.GetRegion(),
		}, secrets: app.Secrets{
			route53.SecretKey: secret.New(r.GetSecretAccessKey()), route53.SecretSessionToken: secret.New(r.GetSessionToken()),
		}}
	}
	if a := in.GetAzure(); a != nil {
		all[azure.Name] = given{ttl: a.GetTtlSeconds(), settings: map[string]string{
			azure.SettingSubscription: a.GetSubscriptionId(), azure.SettingGroup: a.GetResourceGroup(), azure.SettingAuthentication: a.GetAuthentication(),
			azure.SettingTenant: a.GetTenantId(), azure.SettingClient: a.GetClientId(), azure.SettingEnvironment: a.GetEnvironment(),
		}, secrets: app.Secrets{azure.SecretClient: secret.New(a.GetClientSecret())}}
	}
	if g := in.GetGodaddy(); g != nil {
		all[godaddy.Name] = given{ttl: cmp.Or(g.GetTtlSeconds(), godaddy.MinTTL), secrets: app.Secrets{
			godaddy.SecretKey: secret.New(g.GetApiKey()), godaddy.SecretSecret: secret.New(g.GetApiSecret()),
		}}
	}
	return all
}

// choose is the provider that an account names, or that it came with a message of. The settings are empty when there is no message of it.
func choose(in *dnsv1.DNSAccount) (string, given, error) {
	all := messages(in)
	provider := in.GetProvider()
	if provider == "" && len(all) == 1 {
		provider = slices.Collect(maps.Keys(all))[0]
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name == provider {
			continue
		}
		msg := fmt.Sprintf("belongs to another provider than %q; leave it out, or make an account for each provider", provider)
		if provider == "" {
			msg = "is one of several providers: " + strings.Join(slices.Sorted(maps.Keys(all)), ", ") + "; make an account for each"
		}
		return "", given{}, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the DNS account is not valid").WithField("dnsAccount."+name, "%s", msg)
	}
	return provider, all[provider], nil
}

// show puts what may be seen of the settings into the message of the provider.
func show(out *dnsv1.DNSAccount, a domain.Account) {
	s, ttl := a.Settings, int32(a.TTL) //nolint:gosec // at most a day
	switch a.Provider {
	case rfc2136.Name:
		out.Rfc2136 = &dnsv1.RFC2136{
			Server: s[rfc2136.SettingServer], TsigKeyName: s[rfc2136.SettingKeyName], TsigAlgorithm: s[rfc2136.SettingAlgorithm], TtlSeconds: ttl,
		}
		for _, z := range rfc2136.Zones(s[rfc2136.SettingZones]) {
			out.Rfc2136.Zones = append(out.Rfc2136.Zones, &dnsv1.RFC2136Zone{Zone: z.Zone, Server: z.Server, TsigKeyName: z.KeyName, TsigAlgorithm: z.Algorithm})
		}
	case cloudflare.Name:
		out.Cloudflare = &dnsv1.Cloudflare{Email: s[cloudflare.SettingEmail], TtlSeconds: ttl}
	case route53.Name:
		out.Route53 = &dnsv1.Route53{
			AccessKeyId: s[route53.SettingKeyID], RoleArn: s[route53.SettingRole], ExternalId: s[route53.SettingExternalID],
			HostedZoneId: s[route53.SettingZoneID], Region: s[route53.SettingRegion], TtlSeconds: ttl,
		}
	case azure.Name:
		out.Azure = &dnsv1.Azure{
			SubscriptionId: s[azure.SettingSubscription], ResourceGroup: s[azure.SettingGroup], Authentication: s[azure.SettingAuthentication],
			TenantId: s[azure.SettingTenant], ClientId: s[azure.SettingClient], Environment: s[azure.SettingEnvironment], TtlSeconds: ttl,
		}
	case godaddy.Name:
		out.Godaddy = &dnsv1.GoDaddy{TtlSeconds: ttl}
	}
}

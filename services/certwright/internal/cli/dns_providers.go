package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"sigs.k8s.io/yaml"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
)

// dnsFlags are what the providers want to know, each flag of one provider; secrets are read from files.
type dnsFlags struct {
	rfc2136    dnsv1.RFC2136
	cloudflare dnsv1.Cloudflare
	route53    dnsv1.Route53
	azure      dnsv1.Azure
	godaddy    dnsv1.GoDaddy
	ttl        int32
	keysFile   string
	// owner is the provider that a flag belongs to, files where a secret goes by the flag that names its file.
	owner map[string]string
	files map[string]*string
}

var dnsProviders = []string{"rfc2136", "cloudflare", "route53", "azure", "godaddy"}

func (d *dnsFlags) bind(cmd *cobra.Command) {
	d.owner, d.files = map[string]string{}, map[string]*string{}
	f := cmd.Flags()
	text := func(provider string, into *string, name, usage string) {
		f.StringVar(into, name, "", provider+": "+usage)
		d.owner[name] = provider
	}
	file := func(provider string, into *string, name, usage string) {
		f.String(name, "", provider+": `file` that holds "+usage+", - for standard input")
		d.owner[name], d.files[name] = provider, into
	}
	text("rfc2136", &d.rfc2136.Server, "server", "name server that takes updates, `host:port`")
	text("rfc2136", &d.rfc2136.TsigKeyName, "tsig-key-name", "`name` of the TSIG key")
	file("rfc2136", &d.rfc2136.TsigSecret, "tsig-secret-file", "the TSIG secret in base64")
	text("rfc2136", &d.rfc2136.TsigAlgorithm, "tsig-algorithm", "`algorithm` of the TSIG key (default hmac-sha256)")
	text("rfc2136", &d.keysFile, "zone-keys-file", "`file` with a list in YAML of zone, server, tsigKeyName, tsigSecret and tsigAlgorithm for each zone, instead of the flags for all zones")
	file("cloudflare", &d.cloudflare.ApiToken, "api-token-file", "an API token with DNS:Edit and Zone:Read")
	file("cloudflare", &d.cloudflare.ZoneToken, "zone-token-file", "a token with Zone:Read, where the API token has not got it")
	text("cloudflare", &d.cloudflare.Email, "email", "`address` of the user of the global API key")
	file("cloudflare", &d.cloudflare.GlobalApiKey, "global-api-key-file", "the global API key, instead of a token")
	text("route53", &d.route53.AccessKeyId, "access-key-id", "`id` of the access key")
	file("route53", &d.route53.SecretAccessKey, "secret-access-key-file", "the secret access key")
	file("route53", &d.route53.SessionToken, "session-token-file", "the session token of temporary credentials")
	text("route53", &d.route53.RoleArn, "role-arn", "`ARN` of the role to take on")
	text("route53", &d.route53.ExternalId, "external-id", "external `id` that the role asks for")
	text("route53", &d.route53.HostedZoneId, "hosted-zone-id", "`id` of the hosted zone (default: found by its name)")
	text("route53", &d.route53.Region, "region", "`region` whose endpoints are used (default us-east-1)")
	text("azure", &d.azure.SubscriptionId, "subscription-id", "`id` of the subscription that the zones are in")
	text("azure", &d.azure.ResourceGroup, "resource-group", "`name` of the resource group that the zones are in")
	text("azure", &d.azure.Authentication, "authentication", "`way` to prove who we are: service_principal (default), managed_identity or workload_identity")
	text("azure", &d.azure.TenantId, "tenant-id", "`id` of the tenant")
	text("azure", &d.azure.ClientId, "client-id", "`id` of the application or identity")
	file("azure", &d.azure.ClientSecret, "client-secret-file", "the secret of the application")
	text("azure", &d.azure.Environment, "environment", "`cloud`: public (default), usgovernment or china")
	file("godaddy", &d.godaddy.ApiKey, "api-key-file", "the API key")
	file("godaddy", &d.godaddy.ApiSecret, "api-secret-file", "the secret of the API key")
	f.Int32Var(&d.ttl, "ttl", 0, "TTL of the records in `seconds` (default 60; godaddy 600)")
	complete(cmd, "tsig-algorithm", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1")
	complete(cmd, "authentication", "service_principal", "managed_identity", "workload_identity")
	complete(cmd, "environment", "public", "usgovernment", "china")
}

// given lists the flags of providers that were set.
func (d *dnsFlags) given(cmd *cobra.Command) []string {
	var all []string
	for name := range d.owner {
		if cmd.Flags().Changed(name) {
			all = append(all, name)
		}
	}
	if cmd.Flags().Changed("ttl") {
		all = append(all, "ttl")
	}
	slices.Sort(all)
	return all
}

// into puts what was given for a provider into its message, with the secrets read.
func (d *dnsFlags) into(a *app, cmd *cobra.Command, provider string, out *dnsv1.DNSAccount) error {
	if !slices.Contains(dnsProviders, provider) {
		return usage("--provider is %q; allowed: %s", provider, strings.Join(dnsProviders, ", "))
	}
	stdin := ""
	for _, name := range d.given(cmd) {
		if owner := d.owner[name]; owner != "" && owner != provider {
			return usage("--%s belongs to the provider %s, and the account is of %s", name, owner, provider)
		}
		into := d.files[name]
		if into == nil {
			continue
		}
		file, err := cmd.Flags().GetString(name)
		if err != nil {
			return err
		}
		if file == "-" && stdin != "" {
			return usage("--%s and --%s both read standard input; put one secret into a file", stdin, name)
		}
		if file == "-" {
			stdin = name
		}
		if *into, err = a.secretFile(file); err != nil {
			return err
		}
	}
	switch provider {
	case "rfc2136":
		if d.keysFile != "" {
			zones, err := zoneKeys(d.keysFile)
			if err != nil {
				return err
			}
			d.rfc2136.Zones = zones
		}
		d.rfc2136.TtlSeconds, out.Rfc2136 = d.ttl, &d.rfc2136
	case "cloudflare":
		d.cloudflare.TtlSeconds, out.Cloudflare = d.ttl, &d.cloudflare
	case "route53":
		d.route53.TtlSeconds, out.Route53 = d.ttl, &d.route53
	case "azure":
		d.azure.TtlSeconds, out.Azure = d.ttl, &d.azure
	case "godaddy":
		d.godaddy.TtlSeconds, out.Godaddy = d.ttl, &d.godaddy
	}
	return nil
}

// zoneKeys reads a list of zones with their servers and keys.
func zoneKeys(file string) ([]*dnsv1.RFC2136Zone, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--zone-keys-file: %w", err)
	}
	var rows []json.RawMessage
	if yaml.Unmarshal(text, &rows) != nil || len(rows) == 0 { // the cause would quote the file
		return nil, usage("--zone-keys-file: %s is no list in YAML; give one entry for each zone, with zone, server, tsigKeyName and tsigSecret", file)
	}
	zones := make([]*dnsv1.RFC2136Zone, len(rows))
	for i, row := range rows {
		zones[i] = &dnsv1.RFC2136Zone{}
		if protojson.Unmarshal(row, zones[i]) != nil {
			return nil, usage("--zone-keys-file: entry %d of %s has something else than the texts zone, server, tsigKeyName, tsigSecret and tsigAlgorithm", i+1, file)
		}
	}
	return zones, nil
}

func (a *app) createDNS() *cobra.Command {
	d, flags := &dnsv1.DNSAccount{}, &dnsFlags{}
	var cmd *cobra.Command
	cmd = a.verb("create NAME", "Add access to DNS zones: a name server that takes updates (RFC 2136), or the API of a provider", 1, func(ctx context.Context, c *client, args []string) error {
		r := &flags.rfc2136
		switch secretFile := cmd.Flags().Lookup("tsig-secret-file").Value.String(); {
		case len(d.GetZones()) == 0:
			return usage("--zone is missing")
		case d.GetProvider() == "rfc2136" && r.GetServer() == "" && flags.keysFile == "":
			return usage("--server is missing")
		case (r.GetTsigKeyName() == "") != (secretFile == ""):
			return usage("--tsig-key-name and --tsig-secret-file belong together")
		}
		if err := flags.into(a, cmd, d.GetProvider(), d); err != nil {
			return err
		}
		d.DisplayName = args[0]
		made := &dnsv1.DNSAccount{}
		if err := c.call(ctx, http.MethodPost, "/v1/dnsAccounts", nil, &dnsv1.CreateDNSAccountRequest{RequestId: a.requestID(), DnsAccount: d}, made); err != nil {
			return err
		}
		return a.showDNS(made)
	})
	cmd.Example = `  certwright dns create internal --server ns1.example.org:53 --zone example.org --tsig-key-name acme. --tsig-secret-file tsig.secret
  certwright dns create public --provider cloudflare --zone example.com --api-token-file token
  certwright dns create shop --provider route53 --zone example.net --access-key-id AKIAIOSFODNN7EXAMPLE --secret-access-key-file key`
	f := cmd.Flags()
	f.StringVar(&d.Provider, "provider", "rfc2136", "`kind` of the provider: "+strings.Join(dnsProviders, ", "))
	flags.bind(cmd)
	f.StringArrayVar(&d.Zones, "zone", nil, "`zone` that it is used for; may be repeated")
	f.StringVar(&d.Team, "team", "", "`team` that it belongs to; default: the token's")
	complete(cmd, "provider", dnsProviders...)
	return cmd
}

func (a *app) updateDNS(k kind) *cobra.Command {
	in, flags := &dnsv1.DNSAccount{}, &dnsFlags{}
	var cmd *cobra.Command
	cmd = a.verb("update ID|NAME", "Change a DNS account, for instance to rotate its credentials", 1, func(ctx context.Context, c *client, args []string) error {
		mask := &fieldmaskpb.FieldMask{}
		if cmd.Flags().Changed("name") {
			mask.Paths = append(mask.Paths, "display_name")
		}
		if cmd.Flags().Changed("zone") {
			mask.Paths = append(mask.Paths, "zones")
		}
		given := flags.given(cmd)
		if len(given)+len(mask.GetPaths()) == 0 {
			return usage("there is nothing to change; give --name, --zone, or all flags of the account's provider")
		}
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		if len(given) > 0 {
			was := &dnsv1.DNSAccount{}
			if err := c.call(ctx, http.MethodGet, path(k.path, id), nil, nil, was); err != nil {
				return err
			}
			if err := flags.into(a, cmd, was.GetProvider(), in); err != nil {
				return err
			}
			mask.Paths = append(mask.Paths, was.GetProvider())
		}
		made := &dnsv1.DNSAccount{}
		if err := c.call(ctx, http.MethodPatch, path(k.path, id), nil, &dnsv1.UpdateDNSAccountRequest{DnsAccount: in, UpdateMask: mask}, made); err != nil {
			return err
		}
		return a.showDNS(made)
	})
	cmd.ValidArgsFunction = k.complete
	cmd.Long = "Change a DNS account. The name and the zones are changed alone; what the provider wants to know is replaced whole, so give all its flags, with its secrets."
	cmd.Example = "  certwright dns update public --api-token-file new-token"
	f := cmd.Flags()
	flags.bind(cmd)
	f.StringVar(&in.DisplayName, "name", "", "new `name`")
	f.StringArrayVar(&in.Zones, "zone", nil, "`zone` that it is used for, instead of those before; may be repeated")
	return cmd
}

func (a *app) showDNS(d *dnsv1.DNSAccount) error {
	rows := []pair{
		{"id", d.GetId()},
		{"name", d.GetDisplayName()},
		{"team", d.GetTeam()},
		{"provider", d.GetProvider()},
		{"zones", list(d.GetZones())},
	}
	ttl := int32(0)
	if r := d.GetRfc2136(); r != nil {
		ttl = r.GetTtlSeconds()
		if len(r.GetZones()) == 0 {
			rows = append(rows, pair{"server", r.GetServer()}, pair{"TSIG key", r.GetTsigKeyName()}, pair{"TSIG algorithm", r.GetTsigAlgorithm()})
		}
		for _, z := range r.GetZones() {
			rows = append(rows, pair{"server of " + z.GetZone(), z.GetServer() + ", TSIG key " + z.GetTsigKeyName() + " (" + z.GetTsigAlgorithm() + ")"})
		}
	}
	if c := d.GetCloudflare(); c != nil {
		ttl = c.GetTtlSeconds()
		rows = append(rows, pair{"email", c.GetEmail()})
	}
	if r := d.GetRoute53(); r != nil {
		ttl = r.GetTtlSeconds()
		rows = append(rows, pair{"access key", r.GetAccessKeyId()}, pair{"role", r.GetRoleArn()}, pair{"external id", r.GetExternalId()},
			pair{"hosted zone", r.GetHostedZoneId()}, pair{"region", r.GetRegion()})
	}
	if z := d.GetAzure(); z != nil {
		ttl = z.GetTtlSeconds()
		rows = append(rows, pair{"subscription", z.GetSubscriptionId()}, pair{"resource group", z.GetResourceGroup()}, pair{"authentication", z.GetAuthentication()},
			pair{"tenant", z.GetTenantId()}, pair{"client", z.GetClientId()}, pair{"environment", z.GetEnvironment()})
	}
	if g := d.GetGodaddy(); g != nil {
		ttl = g.GetTtlSeconds()
	}
	return a.showPairs(d, append(rows, pair{"TTL", number(int64(ttl))}, pair{"disabled", yes(d.GetDisabled())}, pair{"created", stamp(d.GetCreateTime())}))
}

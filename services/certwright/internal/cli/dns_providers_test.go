package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
)

func TestDNSAccountsOfEveryProvider(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	one, two := file("one", "s3cr3t-1\n"), file("two", "s3cr3t-2\n")
	keys := file("keys.yaml", "- {zone: example.org, server: ns1.test, tsigKeyName: k, tsigSecret: s3cr3t-3}\n- {zone: example.net, server: ns2.test, tsigKeyName: k, tsigSecret: s3cr3t-4}\n")
	e := newEdge(t)
	u := newUser(t, e)
	e.does("POST /v1/dnsAccounts", func(*http.Request, []byte) (proto.Message, error) { return &dnsv1.DNSAccount{Id: "dac_1"}, nil })
	table := []struct {
		args []string
		want *dnsv1.DNSAccount
	}{
		{[]string{"--provider", "cloudflare", "--api-token-file", one, "--zone-token-file", two, "--ttl", "120"}, &dnsv1.DNSAccount{
			Provider: "cloudflare", Cloudflare: &dnsv1.Cloudflare{ApiToken: "s3cr3t-1", ZoneToken: "s3cr3t-2", TtlSeconds: 120},
		}},
		{[]string{"--provider", "route53", "--access-key-id", "AKIA", "--secret-access-key-file", one, "--role-arn", "arn", "--external-id", "x", "--hosted-zone-id", "Z", "--region", "r"}, &dnsv1.DNSAccount{
			Provider: "route53", Route53: &dnsv1.Route53{AccessKeyId: "AKIA", SecretAccessKey: "s3cr3t-1", RoleArn: "arn", ExternalId: "x", HostedZoneId: "Z", Region: "r"},
		}},
		{[]string{"--provider", "azure", "--subscription-id", "s", "--resource-group", "g", "--tenant-id", "t", "--client-id", "c", "--client-secret-file", one}, &dnsv1.DNSAccount{
			Provider: "azure", Azure: &dnsv1.Azure{SubscriptionId: "s", ResourceGroup: "g", TenantId: "t", ClientId: "c", ClientSecret: "s3cr3t-1"},
		}},
		{[]string{"--provider", "godaddy", "--api-key-file", one, "--api-secret-file", two}, &dnsv1.DNSAccount{
			Provider: "godaddy", Godaddy: &dnsv1.GoDaddy{ApiKey: "s3cr3t-1", ApiSecret: "s3cr3t-2"},
		}},
		{[]string{"--zone", "example.net", "--zone-keys-file", keys}, &dnsv1.DNSAccount{
			Provider: "rfc2136", Zones: []string{"example.org", "example.net"}, Rfc2136: &dnsv1.RFC2136{Zones: []*dnsv1.RFC2136Zone{
				{Zone: "example.org", Server: "ns1.test", TsigKeyName: "k", TsigSecret: "s3cr3t-3"}, {Zone: "example.net", Server: "ns2.test", TsigKeyName: "k", TsigSecret: "s3cr3t-4"},
			}},
		}},
	}
	for _, row := range table {
		t.Run(row.want.GetProvider(), func(t *testing.T) {
			require.Equal(t, ExitOK, u.run(append([]string{"dns", "create", "one", "--zone", "example.org"}, row.args...)...), u.err.String())
			got := &dnsv1.CreateDNSAccountRequest{}
			e.body(t, "POST /v1/dnsAccounts", got)
			row.want.DisplayName = "one"
			if row.want.Zones == nil {
				row.want.Zones = []string{"example.org"}
			}
			require.Empty(t, cmp.Diff(row.want, got.GetDnsAccount(), protocmp.Transform()))
			require.NotContains(t, u.out.String()+u.err.String(), "s3cr3t")
		})
	}

	for _, row := range []struct {
		name string
		args []string
		msg  string
	}{
		{"an unknown provider", []string{"--provider", "bind"}, `--provider is "bind"; allowed: rfc2136, cloudflare, route53, azure, godaddy`},
		{"a flag of another provider", []string{"--provider", "azure", "--api-key-file", one}, "--api-key-file belongs to the provider godaddy, and the account is of azure"},
		{"two secrets from standard input", []string{"--provider", "godaddy", "--api-key-file", "-", "--api-secret-file", "-"}, "--api-key-file and --api-secret-file both read standard input; put one secret into a file"},
		{"a list that is none", []string{"--zone-keys-file", one}, "is no list in YAML; give one entry for each zone, with zone, server, tsigKeyName and tsigSecret"},
		{"a list with an unknown field", []string{"--zone-keys-file", file("odd.yaml", "- {zone: example.org, secret: s3cr3t-5}")}, "has something else than the texts zone, server, tsigKeyName, tsigSecret and tsigAlgorithm"},
	} {
		t.Run(row.name, func(t *testing.T) {
			u.o.In = strings.NewReader("s3cr3t-6\n")
			require.Equal(t, ExitUsage, u.run(append([]string{"dns", "create", "one", "--zone", "example.org"}, row.args...)...))
			require.Contains(t, u.err.String(), row.msg)
			require.NotContains(t, u.err.String(), "s3cr3t")
		})
	}

	t.Run("update", func(t *testing.T) {
		e.does("GET /v1/dnsAccounts/dac_1", func(*http.Request, []byte) (proto.Message, error) {
			return &dnsv1.DNSAccount{Id: "dac_1", Provider: "cloudflare"}, nil
		})
		e.does("PATCH /v1/dnsAccounts/dac_1", func(*http.Request, []byte) (proto.Message, error) { return &dnsv1.DNSAccount{Id: "dac_1"}, nil })
		require.Equal(t, ExitOK, u.run("dns", "update", "dac_1", "--api-token-file", two, "--name", "new"), u.err.String())
		got := &dnsv1.UpdateDNSAccountRequest{}
		e.body(t, "PATCH /v1/dnsAccounts/dac_1", got)
		require.Empty(t, cmp.Diff(&dnsv1.UpdateDNSAccountRequest{
			DnsAccount: &dnsv1.DNSAccount{DisplayName: "new", Cloudflare: &dnsv1.Cloudflare{ApiToken: "s3cr3t-2"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name", "cloudflare"}},
		}, got, protocmp.Transform()))
		require.Equal(t, ExitUsage, u.run("dns", "update", "dac_1"))
		require.Contains(t, u.err.String(), "there is nothing to change")
	})
}

package cli

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
)

func dnsList() listing[*dnsv1.ListDNSAccountsResponse, *dnsv1.DNSAccount] {
	type d = *dnsv1.DNSAccount
	return listing[*dnsv1.ListDNSAccountsResponse, d]{
		path: "/v1/dnsAccounts", items: (*dnsv1.ListDNSAccountsResponse).GetDnsAccounts,
		columns: []column[d]{
			{"ID", d.GetId},
			{"NAME", d.GetDisplayName},
			{"PROVIDER", d.GetProvider},
			{"ZONES", func(d d) string { return list(d.GetZones()) }},
			{"TEAM", d.GetTeam},
			{"DISABLED", func(d d) string { return yes(d.GetDisabled()) }},
		},
	}
}

func (a *app) dns() *cobra.Command {
	k := kindOf(a, dnsList(), "dac_")
	try := &dnsv1.TestDNSAccountRequest{}
	test := about(a, k, "test ID|NAME", "Write a harmless record, see it, and remove it", ":test", try, func(r *dnsv1.TestDNSAccountResponse) error {
		return a.tested(r, r.GetSteps(), "ok", "the DNS account does not work")
	})
	test.Flags().StringVar(&try.Zone, "zone", "", "`zone` to try; default: the first")
	return group("dns", "Manage the DNS accounts that dns-01 is answered with",
		a.createDNS(), dnsList().command(a, "List DNS accounts"),
		about(a, k, "get ID|NAME", "Show a DNS account", "", nil, a.showDNS),
		a.deleting(k, "delete ID|NAME", "Delete a DNS account", "DNS account", &dnsv1.DeleteDNSAccountResponse{}, nil),
		about(a, k, "enable ID|NAME", "Use a DNS account again", ":enable", &dnsv1.EnableDNSAccountRequest{}, a.showDNS),
		about(a, k, "disable ID|NAME", "Stop using a DNS account", ":disable", &dnsv1.DisableDNSAccountRequest{}, a.showDNS),
		test,
	)
}

func (a *app) showDNS(d *dnsv1.DNSAccount) error {
	r := d.GetRfc2136()
	return a.showPairs(d, []pair{
		{"id", d.GetId()},
		{"name", d.GetDisplayName()},
		{"team", d.GetTeam()},
		{"provider", d.GetProvider()},
		{"zones", list(d.GetZones())},
		{"server", r.GetServer()},
		{"TSIG key", r.GetTsigKeyName()},
		{"TSIG algorithm", r.GetTsigAlgorithm()},
		{"TTL", number(int64(r.GetTtlSeconds()))},
		{"disabled", yes(d.GetDisabled())},
		{"created", stamp(d.GetCreateTime())},
	})
}

func (a *app) createDNS() *cobra.Command {
	r := &dnsv1.RFC2136{}
	d := &dnsv1.DNSAccount{Rfc2136: r}
	var secretFile string
	cmd := a.verb("create NAME", "Add access to DNS zones by signed dynamic updates (RFC 2136)", 1, func(ctx context.Context, c *client, args []string) (err error) {
		switch {
		case r.GetServer() == "":
			return usage("--server is missing")
		case len(d.GetZones()) == 0:
			return usage("--zone is missing")
		case (r.GetTsigKeyName() == "") != (secretFile == ""):
			return usage("--tsig-key-name and --tsig-secret-file belong together")
		}
		if r.TsigSecret, err = a.secretFile(secretFile); err != nil {
			return err
		}
		d.DisplayName = args[0]
		made := &dnsv1.DNSAccount{}
		if err := c.call(ctx, http.MethodPost, "/v1/dnsAccounts", nil, &dnsv1.CreateDNSAccountRequest{RequestId: a.requestID(), DnsAccount: d}, made); err != nil {
			return err
		}
		return a.showDNS(made)
	})
	cmd.Example = "  certwright dns create internal --server ns1.example.org:53 --zone example.org --tsig-key-name acme. --tsig-secret-file tsig.secret"
	f := cmd.Flags()
	f.StringVar(&d.Provider, "provider", "rfc2136", "`kind` of the provider: rfc2136")
	f.StringVar(&r.Server, "server", "", "name server that takes updates, `host:port`")
	f.StringVar(&r.TsigKeyName, "tsig-key-name", "", "`name` of the TSIG key")
	f.StringVar(&secretFile, "tsig-secret-file", "", "`file` that holds the TSIG secret in base64, - for standard input")
	f.StringVar(&r.TsigAlgorithm, "tsig-algorithm", "", "`algorithm` of the TSIG key (default hmac-sha256)")
	f.Int32Var(&r.TtlSeconds, "ttl", 0, "TTL of the records in `seconds` (default 60)")
	f.StringArrayVar(&d.Zones, "zone", nil, "`zone` that it is used for; may be repeated")
	f.StringVar(&d.Team, "team", "", "`team` that it belongs to; default: the token's")
	complete(cmd, "provider", "rfc2136")
	complete(cmd, "tsig-algorithm", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1")
	return cmd
}

package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
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

// failedTest is the error of a test that ran and did not succeed.
func failedTest(what string, p *typesv1.Problem) error {
	return &testError{what, p.GetReason()}
}

type testError struct{ what, reason string }

func (e *testError) Error() string {
	if e.reason == "" {
		return e.what
	}
	return e.what + " (" + e.reason + ")"
}

func (a *app) dns() *cobra.Command {
	find := func(ctx context.Context, given string) (string, error) {
		return resolve(ctx, a, dnsList(), "dac_", given)
	}
	switching := func(verb, short string, req proto.Message) *cobra.Command {
		return a.verb(verb+" ID|NAME", short, 1, func(ctx context.Context, c *client, args []string) error {
			id, err := find(ctx, args[0])
			if err != nil {
				return err
			}
			d := &dnsv1.DNSAccount{}
			if err := c.call(ctx, http.MethodPost, path("/v1/dnsAccounts/", id, ":"+verb), nil, req, d); err != nil {
				return err
			}
			return a.showDNS(d)
		})
	}
	get := a.verb("get ID|NAME", "Show a DNS account", 1, func(ctx context.Context, c *client, args []string) error {
		id, err := find(ctx, args[0])
		if err != nil {
			return err
		}
		d := &dnsv1.DNSAccount{}
		if err := c.call(ctx, http.MethodGet, path("/v1/dnsAccounts/", id), nil, nil, d); err != nil {
			return err
		}
		return a.showDNS(d)
	})
	g := group("dns", "Manage the DNS accounts that dns-01 is answered with",
		a.createDNS(), dnsList().command(a, "List DNS accounts"), get,
		a.deleting("delete ID|NAME", "Delete a DNS account", "DNS account", find, "/v1/dnsAccounts/", &dnsv1.DeleteDNSAccountResponse{}, nil),
		switching("enable", "Use a DNS account again", &dnsv1.EnableDNSAccountRequest{}),
		switching("disable", "Stop using a DNS account", &dnsv1.DisableDNSAccountRequest{}),
		a.testDNS(find),
	)
	byID := ids(a, dnsList(), 1)
	for _, c := range g.Commands() {
		if c.Name() != "create" && c.Name() != "list" {
			c.ValidArgsFunction = byID
		}
	}
	return g
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
	cmd := a.verb("create NAME", "Add access to DNS zones by signed dynamic updates (RFC 2136)", 1, func(ctx context.Context, c *client, args []string) error {
		switch {
		case r.GetServer() == "":
			return usage("--server is missing")
		case len(d.GetZones()) == 0:
			return usage("--zone is missing")
		case (r.GetTsigKeyName() == "") != (secretFile == ""):
			return usage("--tsig-key-name and --tsig-secret-file belong together")
		}
		if secretFile != "" {
			s, err := a.secretFile(secretFile)
			if err != nil {
				return err
			}
			r.TsigSecret = s.Reveal()
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

func (a *app) testDNS(find func(context.Context, string) (string, error)) *cobra.Command {
	req := &dnsv1.TestDNSAccountRequest{}
	cmd := a.verb("test ID|NAME", "Write a harmless record, see it, and remove it", 1, func(ctx context.Context, c *client, args []string) error {
		id, err := find(ctx, args[0])
		if err != nil {
			return err
		}
		r := &dnsv1.TestDNSAccountResponse{}
		if err := c.call(ctx, http.MethodPost, path("/v1/dnsAccounts/", id, ":test"), nil, req, r); err != nil {
			return err
		}
		if err := a.show(r, func(w io.Writer) error {
			for _, s := range r.GetSteps() {
				fmt.Fprintln(w, printable(s))
			}
			if r.GetOk() {
				fmt.Fprintln(w, "ok")
			} else if r.GetProblem() != nil {
				fmt.Fprintln(w, printable(why(r.GetProblem())))
			}
			return nil
		}); err != nil {
			return err
		}
		if !r.GetOk() {
			return failedTest("the DNS account does not work", r.GetProblem())
		}
		return nil
	})
	cmd.Flags().StringVar(&req.Zone, "zone", "", "`zone` to try; default: the first")
	return cmd
}

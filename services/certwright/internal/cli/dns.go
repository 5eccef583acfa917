package cli

import (
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
		a.createDNS(), a.updateDNS(k), dnsList().command(a, "List DNS accounts"),
		about(a, k, "get ID|NAME", "Show a DNS account", "", nil, a.showDNS),
		a.deleting(k, "delete ID|NAME", "Delete a DNS account", "DNS account", &dnsv1.DeleteDNSAccountResponse{}, nil),
		about(a, k, "enable ID|NAME", "Use a DNS account again", ":enable", &dnsv1.EnableDNSAccountRequest{}, a.showDNS),
		about(a, k, "disable ID|NAME", "Stop using a DNS account", ":disable", &dnsv1.DisableDNSAccountRequest{}, a.showDNS),
		test,
	)
}

package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
)

func (a *app) issuers() *cobra.Command {
	k := kindOf(a, issuerList(), "iss_")
	read := k
	read.find = asGiven // the edge finds an issuer by its name, too
	return group("issuers", "Manage the CAs that certificates come from", a.createIssuer(), issuerList().command(a, "List issuers"),
		about(a, read, "get ID|NAME", "Show an issuer", "", nil, a.showIssuer),
		about(a, k, "test ID|NAME", "Read the CA's directory and say what it supports", ":test", &ordersv1.TestIssuerRequest{}, a.showIssuerTest),
		a.issuerBudget(k.complete),
		a.deleting(k, "delete ID|NAME", "Delete an issuer without open orders", "issuer", &ordersv1.DeleteIssuerResponse{}, nil),
	)
}

func (a *app) showIssuerTest(r *ordersv1.TestIssuerResponse) error {
	reachable, skew := "no", ""
	if r.GetReachable() {
		reachable, skew = "yes", fmt.Sprintf("%d ms", r.GetClockSkewMs())
	}
	err := a.showPairs(r, []pair{
		{"reachable", reachable},
		{"problem", why(r.GetProblem())},
		{"profiles", list(r.GetProfiles())},
		{"renewal information", yes(r.GetRenewalInfo())},
		{"needs an external account", yes(r.GetExternalAccountRequired())},
		{"terms of service", r.GetTermsOfService()},
		{"CAA identities", list(r.GetCaaIdentities())},
		{"website", r.GetWebsite()},
		{"its clock minus ours", skew},
	})
	if err != nil || r.GetReachable() {
		return err
	}
	return failedTest("the CA cannot be used", r.GetProblem())
}

func (a *app) showIssuer(i *ordersv1.Issuer) error {
	acme := i.GetAcme()
	return a.showPairs(i, []pair{
		{"id", i.GetId()},
		{"name", i.GetDisplayName()},
		{"team", i.GetTeam()},
		{"kind", i.GetKind()},
		{"directory", acme.GetDirectoryUrl()},
		{"contacts", list(acme.GetContacts())},
		{"terms agreed", yes(acme.GetTermsAgreed())},
		{"account", i.GetAccountId()},
		{"account key", acme.GetAccountKeyAlgorithm()},
		{"profile", acme.GetProfile()},
		{"own trust roots", yes(acme.GetTrustRootsPem() != "")},
		{"issued roots", yes(acme.GetIssuedRootsPem() != "")},
		{"disabled", yes(i.GetDisabled())},
		{"created", stamp(i.GetCreateTime())},
	})
}

func (a *app) createIssuer() *cobra.Command {
	acme := &ordersv1.AcmeIssuer{}
	i := &ordersv1.Issuer{Kind: "acme", Acme: acme}
	var trust, issued string
	var limits func() ([]*ordersv1.IssuerLimit, error)
	cmd := a.verb("create NAME", "Add a CA that speaks ACME (RFC 8555)", 1, func(ctx context.Context, c *client, args []string) (err error) {
		if acme.GetDirectoryUrl() == "" {
			return usage("--directory-url is missing")
		}
		if acme.TrustRootsPem, err = textFile(trust); err != nil {
			return err
		}
		if acme.IssuedRootsPem, err = textFile(issued); err != nil {
			return err
		}
		if acme.Limits, err = limits(); err != nil {
			return err
		}
		i.DisplayName = args[0]
		made := &ordersv1.Issuer{}
		if err := c.call(ctx, http.MethodPost, "/v1/issuers", nil, &ordersv1.CreateIssuerRequest{RequestId: a.requestID(), Issuer: i}, made); err != nil {
			return err
		}
		return a.showIssuer(made)
	})
	cmd.Example = "  certwright issuers create letsencrypt --directory-url https://acme-v02.api.letsencrypt.org/directory --contact pki@example.org --agree-terms"
	f := cmd.Flags()
	f.StringVar(&acme.DirectoryUrl, "directory-url", "", "`URL` of the CA's directory")
	f.StringVar(&trust, "trust-roots", "", "PEM `file` of the roots that the CA's server is verified with; default: the system's")
	f.StringVar(&issued, "issued-roots", "", "PEM `file` of the roots that issued chains must end in")
	f.StringArrayVar(&acme.Contacts, "contact", nil, "mail `address` for the CA; may be repeated")
	f.BoolVar(&acme.TermsAgreed, "agree-terms", false, "the CA's terms of service were read and are agreed to")
	f.StringVar(&acme.Profile, "profile", "", "`profile` of certificates that name none")
	f.StringVar(&acme.AccountKeyAlgorithm, "account-key", "", "`algorithm` of the account's key (default ECDSA_P256)")
	f.StringVar(&i.Team, "team", "", "`team` that it belongs to; default: the token's")
	complete(cmd, "account-key", keyAlgorithms...)
	limits = limitFlags(cmd)
	return cmd
}

func (a *app) accounts() *cobra.Command {
	type c = *ordersv1.Account
	l := listing[*ordersv1.ListAccountsResponse, c]{
		path: "/v1/accounts", items: (*ordersv1.ListAccountsResponse).GetAccounts,
		columns: []column[c]{
			{"ID", c.GetId},
			{"ISSUER", c.GetIssuerId},
			{"STATE", c.GetState},
			{"CONTACTS", func(c c) string { return list(c.GetContacts()) }},
			{"URL", c.GetUrl},
			{"PROBLEM", func(c c) string { return why(c.GetProblem()) }},
		},
	}
	return group("accounts", "Look at the accounts at CAs", l.command(a, "List ACME accounts"))
}

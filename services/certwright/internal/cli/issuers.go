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
		a.updateIssuer(k), a.presets(),
		about(a, k, "enable ID|NAME", "Use an issuer again", ":enable", &ordersv1.EnableIssuerRequest{}, a.showIssuer),
		about(a, k, "disable ID|NAME", "Order nothing more from an issuer", ":disable", &ordersv1.DisableIssuerRequest{}, a.showIssuer),
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
	if err != nil || (r.GetReachable() && r.GetProblem() == nil) {
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
		{"preferred chain", acme.GetPreferredChain()},
		{"proxy", acme.GetProxyUrl()},
		{"external account", acme.GetExternalAccount().GetKeyId()},
		{"own trust roots", yes(acme.GetTrustRootsPem() != "")},
		{"issued roots", yes(acme.GetIssuedRootsPem() != "")},
		{"disabled", yes(i.GetDisabled())},
		{"created", stamp(i.GetCreateTime())},
		{"etag", i.GetEtag()},
	})
}

func (a *app) createIssuer() *cobra.Command {
	in := issuerFlags{acme: &ordersv1.AcmeIssuer{}}
	i := &ordersv1.Issuer{Kind: "acme", Acme: in.acme}
	var preset string
	cmd := a.verb("create NAME", "Add a CA that speaks ACME (RFC 8555)", 1, func(ctx context.Context, c *client, args []string) error {
		if in.acme.GetDirectoryUrl() == "" && preset == "" {
			return usage("--directory-url or --preset is missing; certwright issuers presets lists the CAs that are known by name")
		}
		if err := in.read(a); err != nil {
			return err
		}
		i.DisplayName = args[0]
		made := &ordersv1.Issuer{}
		if err := c.call(ctx, http.MethodPost, "/v1/issuers", nil, &ordersv1.CreateIssuerRequest{RequestId: a.requestID(), Issuer: i, Preset: preset}, made); err != nil {
			return err
		}
		return a.showIssuer(made)
	})
	cmd.Example = `  certwright issuers create letsencrypt --preset letsencrypt --contact pki@example.org --agree-terms
  certwright issuers create internal --directory-url https://ca.example.org/acme/acme/directory --trust-roots root.pem`
	in.add(cmd)
	f := cmd.Flags()
	f.StringVar(&preset, "preset", "", "`name` of a CA that is known, see certwright issuers presets")
	f.StringVar(&in.acme.DirectoryUrl, "directory-url", "", "`URL` of the CA's directory")
	f.StringVar(&in.acme.AccountKeyAlgorithm, "account-key", "", "`algorithm` of the account's key (default ECDSA_P256)")
	f.StringVar(&i.Team, "team", "", "`team` that it belongs to; default: the token's")
	complete(cmd, "account-key", keyAlgorithms...)
	complete(cmd, "preset", "letsencrypt", "letsencrypt-staging", "zerossl", "google", "google-staging", "buypass", "sslcom", "step-ca")
	return cmd
}

package cli

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
)

func (a *app) accounts() *cobra.Command {
	type c = *ordersv1.Account
	l := listing[*ordersv1.ListAccountsResponse, c]{
		path: "/v1/accounts", items: (*ordersv1.ListAccountsResponse).GetAccounts,
		columns: []column[c]{
			{"ID", c.GetId},
			{"ISSUER", c.GetIssuerId},
			{"STATE", c.GetState},
			{"PENDING", c.GetPending},
			{"CONTACTS", func(c c) string { return list(c.GetContacts()) }},
			{"URL", c.GetUrl},
			{"PROBLEM", func(c c) string { return why(c.GetProblem()) }},
		},
	}
	k := nameless(a, l, c.GetIssuerId)
	return group("accounts", "Manage the accounts at CAs", l.command(a, "List ACME accounts"),
		about(a, k, "get ID", "Show an account, and what the CA says of it", "", nil, a.showAccount),
		about(a, k, "rotate-key ID", "Give an account a new key", ":rotateKey", &ordersv1.RotateAccountKeyRequest{}, a.showAccount),
		a.deactivateAccount(k),
		about(a, k, "activate ID", "After a deactivation, let the next order register a new account", ":activate", &ordersv1.ActivateAccountRequest{}, a.showAccount),
	)
}

func (a *app) deactivateAccount(k kind) *cobra.Command {
	var sure bool
	cmd := a.verb("deactivate ID", "End an account at its CA for good", 1, func(ctx context.Context, c *client, args []string) error {
		if err := a.confirm(sure, "Deactivate the account "+args[0]+"? The CA does not take it back, and its open orders fail."); err != nil {
			return err
		}
		answer := &ordersv1.Account{}
		if err := c.call(ctx, http.MethodPost, path(k.path, args[0], ":deactivate"), nil, &ordersv1.DeactivateAccountRequest{}, answer); err != nil {
			return err
		}
		return a.showAccount(answer)
	})
	cmd.ValidArgsFunction = k.complete
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

func (a *app) showAccount(x *ordersv1.Account) error {
	return a.showPairs(x, []pair{
		{"id", x.GetId()},
		{"issuer", x.GetIssuerId()},
		{"team", x.GetTeam()},
		{"state", x.GetState()},
		{"the CA has yet to hear", x.GetPending()},
		{"problem", why(x.GetProblem())},
		{"URL", x.GetUrl()},
		{"contacts", list(x.GetContacts())},
		{"key", x.GetKeyThumbprint()},
		{"key since", stamp(x.GetKeyTime())},
		{"state at the CA", x.GetCaStatus()},
		{"contacts at the CA", list(x.GetCaContacts())},
		{"the CA cannot be asked", why(x.GetCaProblem())},
		{"created", stamp(x.GetCreateTime())},
	})
}

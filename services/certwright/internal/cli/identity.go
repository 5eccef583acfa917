package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
)

func tokenList() listing[*identityv1.ListTokensResponse, *identityv1.Token] {
	type t = *identityv1.Token
	return listing[*identityv1.ListTokensResponse, t]{
		path: "/v1/tokens", items: (*identityv1.ListTokensResponse).GetTokens,
		columns: []column[t]{
			{"ID", t.GetId},
			{"NAME", t.GetDisplayName},
			{"TEAM", t.GetTeam},
			{"PERMISSIONS", func(t t) string { return list(t.GetPermissions()) }},
			{"EXPIRES", func(t t) string { return stamp(t.GetExpireTime()) }},
			{"REVOKED", func(t t) string { return yes(t.GetRevoked()) }},
		},
	}
}

func (a *app) tokens() *cobra.Command {
	k := kindOf(a, tokenList(), "tok_")
	revoke := a.verb("revoke ID|NAME", "Revoke a token", 1, func(ctx context.Context, c *client, args []string) error {
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		t := &identityv1.Token{}
		if err := c.call(ctx, http.MethodDelete, path(k.path, id), nil, nil, t); err != nil {
			return err
		}
		return a.showPairs(t, tokenPairs(t))
	})
	revoke.ValidArgsFunction = k.complete
	return group("tokens", "Manage API tokens", a.createToken(), tokenList().command(a, "List tokens"), revoke)
}

func tokenPairs(t *identityv1.Token) []pair {
	return []pair{
		{"id", t.GetId()},
		{"name", t.GetDisplayName()},
		{"team", t.GetTeam()},
		{"permissions", list(t.GetPermissions())},
		{"expires", stamp(t.GetExpireTime())},
		{"revoked", yes(t.GetRevoked())},
	}
}

func (a *app) createToken() *cobra.Command {
	t := &identityv1.Token{}
	var expires, keep string
	cmd := a.verb("create NAME", "Make a token; its secret is shown once", 1, func(ctx context.Context, c *client, args []string) error {
		if len(t.GetPermissions()) == 0 {
			return usage("--permission is missing")
		}
		if expires != "" {
			at, err := a.moment("--expires", expires)
			if err != nil {
				return err
			}
			t.ExpireTime = timestamppb.New(at)
		}
		t.DisplayName = args[0]
		made := &identityv1.CreateTokenResponse{}
		if err := c.call(ctx, http.MethodPost, "/v1/tokens", nil, &identityv1.CreateTokenRequest{RequestId: a.requestID(), Token: t}, made); err != nil {
			return err
		}
		if keep != "" && made.GetSecret() != "" {
			if err := keepSecret(keep, made.GetSecret()); err != nil {
				return err
			}
			made.Secret = ""
			fmt.Fprintf(a.Err, "the secret is in %s\n", printable(keep))
		} else {
			fmt.Fprintln(a.Err, "the secret is shown only now; keep it where nobody else can read it")
		}
		return a.showPairs(made, append(tokenPairs(made.GetToken()), pair{"secret", made.GetSecret()}))
	})
	cmd.Example = "  certwright tokens create pipeline --team web --permission 'certificates.*' --permission orders.read --expires 90d --secret-out pipeline.token"
	f := cmd.Flags()
	f.StringVar(&t.Team, "team", "", "`team` that it acts for, * for all; default: your token's")
	f.StringArrayVar(&t.Permissions, "permission", nil, "`permission` such as certificates.request, certificates.* or *; may be repeated")
	f.StringVar(&expires, "expires", "", "when it ends: a `moment` (2027-01-31), or a time from now (90d)")
	f.StringVar(&keep, "secret-out", "", "new `file` (0600) for the secret, instead of showing it")
	return cmd
}

func (a *app) audit() *cobra.Command {
	type e = *identityv1.AuditEntry
	l := listing[*identityv1.ListAuditResponse, e]{
		path: "/v1/audit", items: (*identityv1.ListAuditResponse).GetEntries,
		columns: []column[e]{
			{"TIME", func(e e) string { return stamp(e.GetTime()) }},
			{"ACTOR", e.GetActor},
			{"METHOD", e.GetMethod},
			{"SUBJECT", e.GetSubject},
			{"TEAM", e.GetTeam},
			{"DETAIL", e.GetDetail},
		},
	}
	return group("audit", "Look at who did what", l.command(
		a, "List audit entries",
		filter{flag: "actor", field: "actor", usage: "only what this `actor` did"},
		filter{flag: "subject", field: "subject", usage: "only what was done to this `id`"},
		filter{flag: "method", field: "method", usage: "only this gRPC `method`"},
	))
}

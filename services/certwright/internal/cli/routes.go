package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
)

func routeList() listing[*challengesv1.ListRoutesResponse, *challengesv1.Route] {
	type r = *challengesv1.Route
	return listing[*challengesv1.ListRoutesResponse, r]{
		path: "/v1/routes", items: (*challengesv1.ListRoutesResponse).GetRoutes,
		columns: []column[r]{
			{"ID", r.GetId},
			{"NAME", r.GetDisplayName},
			{"NAMES", func(r r) string { return pattern(r) }},
			{"TYPE", r.GetChallengeType},
			{"SOLVER", func(r r) string { return solver(r) }},
			{"CHECK", r.GetCheck},
			{"PRIORITY", func(r r) string { return fmt.Sprint(r.GetPriority()) }},
			{"TEAM", r.GetTeam},
		},
	}
}

// pattern shows which names a route matches.
func pattern(r *challengesv1.Route) string {
	switch p := r.GetPattern().GetPattern().(type) {
	case *challengesv1.RoutePattern_Exact:
		return p.Exact
	case *challengesv1.RoutePattern_Suffix:
		return "all below " + p.Suffix
	case *challengesv1.RoutePattern_Zone:
		return p.Zone + " and all below"
	}
	return ""
}

func solver(r *challengesv1.Route) string {
	return strings.TrimSpace(r.GetSolver() + " " + r.GetDnsAccountId())
}

func (a *app) routes() *cobra.Command {
	k := kindOf(a, routeList(), "rte_")
	return group("routes", "Manage who answers challenges for which names, and how",
		a.createRoute(), a.updateRoute(k), routeList().command(a, "List routes"),
		about(a, k, "get ID|NAME", "Show a route", "", nil, a.showRoute),
		a.deleting(k, "delete ID|NAME", "Delete a route; challenges on their way keep what was chosen", "route", &challengesv1.DeleteRouteResponse{}, nil),
		a.explainRoute(),
	)
}

func (a *app) showRoute(r *challengesv1.Route) error {
	wait := ""
	if r.GetWait() != nil {
		wait = r.GetWait().AsDuration().String()
	}
	return a.showPairs(r, []pair{
		{"id", r.GetId()},
		{"name", r.GetDisplayName()},
		{"team", r.GetTeam()},
		{"names", pattern(r)},
		{"type", r.GetChallengeType()},
		{"solver", r.GetSolver()},
		{"DNS account", r.GetDnsAccountId()},
		{"delegated to", r.GetDelegateTo()},
		{"resolvers", list(r.GetResolvers())},
		{"check", r.GetCheck()},
		{"wait", wait},
		{"priority", fmt.Sprint(r.GetPriority())},
		{"created", stamp(r.GetCreateTime())},
	})
}

// routeFlags are what create and update have in common; mask collects the fields whose flags were given.
type routeFlags struct {
	route               challengesv1.Route
	exact, suffix, zone string
	wait                time.Duration
}

func (f *routeFlags) bind(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.exact, "exact", "", "for this `name` or address alone, with its wildcard")
	fl.StringVar(&f.suffix, "suffix", "", "for all names below this `name`, without itself")
	fl.StringVar(&f.zone, "zone", "", "for this `name` and all below")
	fl.StringVar(&f.route.ChallengeType, "type", "", "challenge `type` that it is for: auto, http-01, tls-alpn-01 or dns-01 (default auto)")
	fl.StringVar(&f.route.Solver, "solver", "", "`who` answers: dns_account, builtin or manual; default: chosen as without a route")
	fl.StringVar(&f.route.DnsAccountId, "dns-account", "", "`id` of the DNS account to use; default: the one whose zone covers the name")
	fl.StringVar(&f.route.DelegateTo, "delegate-to", "", "`name` that _acme-challenge of the names is an alias (CNAME) of")
	fl.StringArrayVar(&f.route.Resolvers, "resolver", nil, "resolver to ask for aliases and records, `address:port`; may be repeated")
	fl.StringVar(&f.route.Check, "check", "", "`how` a TXT record is checked before the CA is asked: authoritative, resolvers or wait")
	fl.DurationVar(&f.wait, "wait", 0, "with --check wait: for how `long`")
	fl.Int32Var(&f.route.Priority, "priority", 0, "of routes with patterns alike the higher `number` wins")
	complete(c, "type", "auto", "http-01", "tls-alpn-01", "dns-01")
	complete(c, "solver", "dns_account", "builtin", "manual")
	complete(c, "check", "authoritative", "resolvers", "wait")
}

// take brings the flags into the route, and returns the fields that were given.
func (f *routeFlags) take(c *cobra.Command) (mask []string, err error) {
	patterns := 0
	for flag, field := range map[string]string{
		"exact": "pattern", "suffix": "pattern", "zone": "pattern", "name": "display_name", "type": "challenge_type", "solver": "solver", "dns-account": "dns_account_id",
		"delegate-to": "delegate_to", "resolver": "resolvers", "check": "check", "wait": "wait", "priority": "priority",
	} {
		if fl := c.Flags().Lookup(flag); fl == nil || !fl.Changed {
			continue
		}
		if field == "pattern" {
			if patterns++; patterns > 1 {
				return nil, usage("--exact, --suffix and --zone exclude each other")
			}
		}
		mask = append(mask, field)
	}
	switch {
	case f.exact != "":
		f.route.Pattern = &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Exact{Exact: f.exact}}
	case f.suffix != "":
		f.route.Pattern = &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Suffix{Suffix: f.suffix}}
	case f.zone != "":
		f.route.Pattern = &challengesv1.RoutePattern{Pattern: &challengesv1.RoutePattern_Zone{Zone: f.zone}}
	}
	if f.wait != 0 {
		f.route.Wait = durationpb.New(f.wait)
	}
	return mask, nil
}

func (a *app) createRoute() *cobra.Command {
	f := &routeFlags{}
	var cmd *cobra.Command
	cmd = a.verb("create NAME", "Say who answers challenges for some names", 1, func(ctx context.Context, c *client, args []string) error {
		if _, err := f.take(cmd); err != nil {
			return err
		}
		if f.route.GetPattern() == nil {
			return usage("one of --exact, --suffix and --zone is missing")
		}
		f.route.DisplayName = args[0]
		made := &challengesv1.Route{}
		if err := c.call(ctx, http.MethodPost, "/v1/routes", nil, &challengesv1.CreateRouteRequest{RequestId: a.requestID(), Route: &f.route}, made); err != nil {
			return err
		}
		return a.showRoute(made)
	})
	cmd.Example = "  certwright routes create internal --zone corp.example.org --solver dns_account --check wait --wait 2m\n" +
		"  certwright routes create delegated --suffix example.org --delegate-to example.org.acme.example.net"
	f.bind(cmd)
	cmd.Flags().StringVar(&f.route.Team, "team", "", "`team` that it belongs to; default: the token's")
	return cmd
}

func (a *app) updateRoute(k kind) *cobra.Command {
	f := &routeFlags{}
	var cmd *cobra.Command
	cmd = a.verb("update ID|NAME", "Change what the flags name; an empty value clears", 1, func(ctx context.Context, c *client, args []string) error {
		mask, err := f.take(cmd)
		if err != nil {
			return err
		}
		if len(mask) == 0 {
			return usage("nothing to change: give at least one flag")
		}
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		changed := &challengesv1.Route{}
		req := &challengesv1.UpdateRouteRequest{Id: id, Route: &f.route, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}}
		if err := c.call(ctx, http.MethodPatch, path(k.path, id), nil, req, changed); err != nil {
			return err
		}
		return a.showRoute(changed)
	})
	cmd.ValidArgsFunction = k.complete
	cmd.Example = "  certwright routes update internal --check authoritative --wait 0"
	f.bind(cmd)
	cmd.Flags().StringVar(&f.route.DisplayName, "name", "", "new `name` of the route")
	return cmd
}

func (a *app) explainRoute() *cobra.Command {
	req := &challengesv1.ExplainRouteRequest{}
	cmd := a.verb("explain NAME", "Say who would answer for a name now, why, and which routes were passed over", 1, func(ctx context.Context, c *client, args []string) error {
		req.Name = args[0]
		e := &challengesv1.ExplainRouteResponse{}
		if err := c.call(ctx, http.MethodPost, "/v1/routes:explain", nil, req, e); err != nil {
			return err
		}
		route := "none matches"
		if r := e.GetRoute(); r != nil {
			route = fmt.Sprintf("%s (%s): %s", r.GetId(), r.GetDisplayName(), pattern(r))
		}
		pairs := []pair{
			{"route", route},
			{"type", e.GetChallengeType()},
			{"solver", e.GetSolver()},
			{"DNS account", e.GetDnsAccountId()},
			{"place", e.GetLocation()},
			{"aliases", strings.Join(e.GetAliases(), " → ")},
			{"why so", e.GetExplanation()},
			{"problem", why(e.GetProblem())},
		}
		if err := a.showPairs(e, pairs); err != nil || a.output != outputTable {
			return err
		}
		return a.show(e, func(w io.Writer) error {
			for _, p := range e.GetPassedOver() {
				fmt.Fprintf(w, "passed over %s (%s): %s\n", printable(p.GetId()), printable(p.GetDisplayName()), printable(p.GetWhy()))
			}
			return nil
		})
	})
	cmd.Flags().StringVar(&req.ChallengeType, "type", "", "challenge `type` that the certificate wants (default auto)")
	cmd.Flags().StringVar(&req.Team, "team", "", "`team` that asks; default: the token's")
	complete(cmd, "type", "auto", "http-01", "tls-alpn-01", "dns-01")
	return cmd
}

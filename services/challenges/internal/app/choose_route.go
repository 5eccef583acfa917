package app

import (
	"context"
	"fmt"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
)

// routed picks the route for a challenge, and returns the input as it changes it. What was passed over is for people.
func (a *App) routed(ctx context.Context, team string, in domain.Input) (domain.Input, []domain.Passed, error) {
	all, err := a.allRoutes(ctx)
	if err != nil {
		return in, nil, err
	}
	route, ok, passed := domain.PickRoute(all, team, in)
	if ok {
		in = domain.Under(in, route)
	}
	return in, passed, nil
}

func (a *App) allRoutes(ctx context.Context) (all []domain.Candidate, err error) {
	for after := ""; ; {
		page, err := a.Routes.Find(ctx, docstore.Query{Where: []docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}, Limit: 1000, After: after})
		if err != nil {
			return nil, err
		}
		for _, d := range page.Docs {
			all = append(all, domain.Candidate{ID: d.ID, Team: d.Team, Route: d.Body})
		}
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// askDNS finds out where the TXT record belongs and who would write it there. It calls outside.
func (a *App) askDNS(ctx context.Context, team string, in domain.Input) (domain.Input, error) {
	name := domain.Location(domain.DNS01, in.Identifier, "")
	in.Aliases = []string{name}
	var account Account
	if !in.Manual {
		var err error
		if account, err = a.DNS.Resolve(ctx, Ask{Name: in.Identifier, Team: team, Only: in.Route.DNSAccountID}); err != nil {
			return in, err
		}
		in.DNSAccount, in.DNSExplains = account.ID, account.Explanation
		if domain.IsAuto(in) && !account.Any {
			return in, nil // wherever the record belongs, nobody could write it
		}
	}
	to := in.Route.DelegateTo
	unsure := ""
	// Where the CA's view cannot be seen from here, and the route says where the record belongs, nobody is asked.
	if in.Route.Check.How != domain.CheckWait || to == "" {
		var loop domain.Problem
		var err error
		if in.Aliases, unsure, loop, err = a.Eyes.Follow(ctx, name, in.Route.Check.Resolvers); err != nil {
			return in, err
		}
		if !loop.IsZero() {
			in.DNSTrouble = loop
			return in, nil
		}
		if last := in.Aliases[len(in.Aliases)-1]; to != "" && last != to && unsure == "" {
			in.DNSTrouble = domain.NotDelegated(in.Route, name, last)
			return in, nil
		}
	}
	if to != "" && in.Aliases[len(in.Aliases)-1] != to {
		in.Aliases = []string{name, to}
	}
	last := in.Aliases[len(in.Aliases)-1]
	if in.Manual {
		return in, nil
	}
	if last != name {
		var err error
		if account, err = a.DNS.Resolve(ctx, Ask{Name: last, Record: true, Team: team, Only: in.Route.DNSAccountID}); err != nil {
			return in, err
		}
	} else if unsure != "" {
		account.Explanation += fmt.Sprintf(" (whether %s is an alias could not be seen: %s)", name, unsure)
	}
	in.DNSAccount, in.DNSExplains = account.ID, account.Explanation
	if account.ID == "" && in.Route.Solver == domain.RouteDNSAccount {
		in.DNSTrouble = domain.NoAccount(in.Route, account.Explanation)
	}
	return in, nil
}

package app

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
)

// RouteDoc is a stored route.
type RouteDoc = docstore.Doc[domain.Route]

// CheckRoute completes what a user gave. Invalid ROUTE_INVALID names the fields; Precondition ROUTE_DNS_ACCOUNT_UNUSABLE when the DNS account that it
// names does not exist, is disabled, or does not serve the names.
func (a *App) CheckRoute(ctx context.Context, team string, in domain.Route) (domain.Route, error) {
	route, wrong := domain.NewRoute(in)
	if len(wrong) > 0 {
		e := errs.New(errs.Invalid, domain.ReasonRouteInvalid, "the route is not valid")
		e.Fields = wrong
		return route, e
	}
	if route.DNSAccountID == "" {
		return route, nil
	}
	ask := Ask{Name: route.Exact + route.Suffix + route.Zone, Team: team, Only: route.DNSAccountID}
	if route.DelegateTo != "" {
		ask.Name, ask.Record = route.DelegateTo, true
	}
	account, err := a.DNS.Resolve(ctx, ask)
	if err == nil && account.ID == "" {
		err = errs.New(errs.Precondition, domain.ReasonRouteAccount, "the route cannot use the DNS account %s: %s", route.DNSAccountID, account.Explanation)
	}
	return route, err
}

// CreateRoute stores a checked route under id; when the id exists already the call is a repeat and answers what is stored.
func (a *App) CreateRoute(ctx context.Context, id, team string, route domain.Route) (RouteDoc, error) {
	doc := RouteDoc{Meta: docstore.Meta{ID: id, Team: team, WorkAt: clock.Never}, Body: route}
	err := a.Routes.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		return a.Routes.Get(ctx, id)
	}
	return doc, err
}

// Route returns a route that is not deleted.
func (a *App) Route(ctx context.Context, id string) (RouteDoc, error) {
	doc, err := a.Routes.Get(ctx, id)
	if err == nil && doc.Tombstone || errs.KindOf(err) == errs.NotFound {
		return RouteDoc{}, errs.New(errs.NotFound, "", "route %s does not exist", id)
	}
	return doc, err
}

// ListRoutes returns a page of routes by id, of all teams when team is empty.
func (a *App) ListRoutes(ctx context.Context, team string, size int, after string) (docstore.Page[domain.Route], error) {
	q := docstore.Query{Limit: size, After: after, Filter: []docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}}
	return a.Routes.Find(ctx, listing.By(q, listing.Term{"team", team}))
}

// RouteMask are the fields that may be changed, in the API's proto spelling.
func RouteMask() []string {
	return []string{"display_name", "pattern", "challenge_type", "solver", "dns_account_id", "delegate_to", "resolvers", "check", "wait", "priority"}
}

// UpdateRoute changes the fields that mask names to those of in. Challenges that are on their way keep what was chosen.
func (a *App) UpdateRoute(ctx context.Context, id string, in domain.Route, mask []string) (RouteDoc, error) {
	for _, path := range mask {
		if !slices.Contains(RouteMask(), path) {
			allowed := strings.Join(RouteMask(), ", ")
			return RouteDoc{}, errs.New(errs.Invalid, "BAD_UPDATE_MASK", "the field %q cannot be changed; allowed: %s", path, allowed).
				WithField("updateMask", "%q given, allowed: %s", path, allowed)
		}
	}
	doc, err := a.Route(ctx, id)
	if err != nil {
		return doc, err
	}
	for {
		route, err := a.CheckRoute(ctx, doc.Team, merged(doc.Body, in, mask))
		if err != nil {
			return RouteDoc{}, err
		}
		doc.Body = route
		if err = a.Routes.Save(ctx, &doc); errs.KindOf(err) != errs.Conflict {
			return doc, err
		}
		if doc, err = a.Route(ctx, id); err != nil { // somebody else wrote: on top of that
			return doc, err
		}
	}
}

func merged(old, in domain.Route, mask []string) domain.Route {
	for _, path := range mask {
		switch path {
		case "display_name":
			old.DisplayName = in.DisplayName
		case "pattern":
			old.Exact, old.Suffix, old.Zone = in.Exact, in.Suffix, in.Zone
		case "challenge_type":
			old.Type = in.Type
		case "solver":
			old.Solver = in.Solver
		case "dns_account_id":
			old.DNSAccountID = in.DNSAccountID
		case "delegate_to":
			old.DelegateTo = in.DelegateTo
		case "resolvers":
			old.Check.Resolvers = in.Check.Resolvers
		case "check":
			old.Check.How = in.Check.How
		case "wait":
			old.Check.Wait = in.Check.Wait
		case "priority":
			old.Priority = in.Priority
		}
	}
	return old
}

// DeleteRoute deletes a route; a deleted one is deleted again with success. Challenges that are on their way keep what was chosen.
func (a *App) DeleteRoute(ctx context.Context, id string) error {
	_, err := a.Routes.Change(ctx, id, func(doc *RouteDoc) ([]outbox.Fact, error) {
		if doc.Tombstone {
			return nil, outbox.ErrUnchanged
		}
		doc.Tombstone = true
		return nil, nil
	})
	return err
}

// Explained is what would be chosen for a name now.
type Explained struct {
	Route   domain.Candidate // zero: none decides
	Finding domain.Finding
	Input   domain.Input
	Passed  []domain.Passed
}

// Explain says which route and solver a name would get now, if the CA offered every type that can prove it. It asks the DNS and the dns service.
func (a *App) Explain(ctx context.Context, team, name, typ string) (Explained, error) {
	base, wildcard := strings.CutPrefix(strings.TrimSuffix(strings.ToLower(strings.TrimSpace(name)), "."), "*.")
	in := domain.Input{Identifier: base, Wildcard: wildcard, WantedType: typ, Responders: a.Responders, Offered: []string{domain.HTTP01, domain.DNS01, domain.TLSALPN01}}
	switch {
	case wildcard:
		in.Offered = []string{domain.DNS01}
	case net.ParseIP(base) != nil:
		in.Offered = []string{domain.HTTP01, domain.TLSALPN01}
	}
	if err := domain.CheckQuestion(base, typ); err != nil {
		return Explained{}, err
	}
	in, passed, err := a.routed(ctx, team, in)
	if err != nil {
		return Explained{}, err
	}
	if domain.NeedsDNS(in) {
		if in, err = a.askDNS(ctx, team, in); err != nil {
			return Explained{}, err
		}
	}
	return Explained{Route: in.Route, Finding: domain.Choose(in), Input: in, Passed: passed}, nil
}

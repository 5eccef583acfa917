package grpc

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
)

// CreateRoute implements challengesv1.ChallengesServiceServer. A route goes to the caller's team, or to the one it names if the caller may.
func (s *Server) CreateRoute(ctx context.Context, req *challengesv1.CreateRouteRequest) (*challengesv1.Route, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetRoute() == nil {
		return nil, errs.New(errs.Invalid, domain.ReasonRouteInvalid, "the route is missing").WithField("route", "is required")
	}
	team := req.GetRoute().GetTeam()
	if team == "" {
		team = authz.TeamOf(p)
	}
	if !authz.InTeam(p, team) {
		return nil, errs.New(errs.Forbidden, authz.ReasonDenied, "%s may not make routes for the team %q; leave route.team out for %q", p.Subject, team, authz.TeamOf(p))
	}
	route, err := s.App.CheckRoute(ctx, team, fromRoute(req.GetRoute()))
	if err != nil {
		return nil, err
	}
	body, _ := proto.Clone(req).(*challengesv1.CreateRouteRequest)
	body.RequestId = ""
	id, err := s.App.Requests.ID(ctx, p.Subject, "CreateRoute", req.GetRequestId(), "rte", body)
	if err != nil {
		return nil, err
	}
	doc, err := s.App.CreateRoute(ctx, id, team, route)
	if err != nil {
		return nil, err
	}
	return toRoute(doc), nil
}

// GetRoute implements challengesv1.ChallengesServiceServer.
func (s *Server) GetRoute(ctx context.Context, req *challengesv1.GetRouteRequest) (*challengesv1.Route, error) {
	doc, err := s.route(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return toRoute(doc), nil
}

// ListRoutes implements challengesv1.ChallengesServiceServer.
func (s *Server) ListRoutes(ctx context.Context, req *challengesv1.ListRoutesRequest) (*challengesv1.ListRoutesResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	size, err := listing.Size(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListRoutes(ctx, authz.Scope(p), size, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &challengesv1.ListRoutesResponse{Routes: listing.Rows(page.Docs, toRoute), NextPageToken: page.Next}, nil
}

// UpdateRoute implements challengesv1.ChallengesServiceServer. Without a mask the fields that are set are changed.
func (s *Server) UpdateRoute(ctx context.Context, req *challengesv1.UpdateRouteRequest) (*challengesv1.Route, error) {
	if _, err := s.route(ctx, req.GetId()); err != nil {
		return nil, err
	}
	mask := req.GetUpdateMask().GetPaths()
	if len(mask) == 0 {
		fields := req.GetRoute().ProtoReflect()
		mask = slices.DeleteFunc(app.RouteMask(), func(path string) bool {
			f := fields.Descriptor().Fields().ByTextName(path)
			return !fields.Has(f)
		})
	}
	doc, err := s.App.UpdateRoute(ctx, req.GetId(), fromRoute(req.GetRoute()), mask)
	if err != nil {
		return nil, err
	}
	return toRoute(doc), nil
}

// DeleteRoute implements challengesv1.ChallengesServiceServer.
func (s *Server) DeleteRoute(ctx context.Context, req *challengesv1.DeleteRouteRequest) (*challengesv1.DeleteRouteResponse, error) {
	if _, err := s.route(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &challengesv1.DeleteRouteResponse{}, s.App.DeleteRoute(ctx, req.GetId())
}

// ExplainRoute implements challengesv1.ChallengesServiceServer.
func (s *Server) ExplainRoute(ctx context.Context, req *challengesv1.ExplainRouteRequest) (*challengesv1.ExplainRouteResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	team := req.GetTeam()
	if team == "" {
		team = authz.TeamOf(p)
	}
	if !authz.InTeam(p, team) {
		return nil, errs.New(errs.NotFound, "", "team %s does not exist", team)
	}
	e, err := s.App.Explain(ctx, team, req.GetName(), req.GetChallengeType())
	if err != nil {
		return nil, err
	}
	f := e.Finding
	out := &challengesv1.ExplainRouteResponse{
		ChallengeType: f.Type, Solver: string(f.Solver), Explanation: f.Explanation, Problem: f.Trouble.Proto(),
	}
	if e.Route.ID != "" {
		doc, err := s.App.Route(ctx, e.Route.ID)
		if err != nil {
			return nil, err
		}
		out.Route = toRoute(doc)
	}
	switch {
	case f.Type == "":
	case f.Record != "":
		out.Location = f.Record
	default:
		out.Location = domain.Location(f.Type, e.Input.Identifier, "TOKEN")
	}
	if f.Type == domain.DNS01 {
		out.Aliases = e.Input.Aliases
		if f.Solver == domain.ByDNS {
			out.DnsAccountId = e.Input.DNSAccount
		}
	}
	for _, r := range e.Passed {
		out.PassedOver = append(out.PassedOver, &challengesv1.PassedRoute{Id: r.ID, DisplayName: r.Name, Why: r.Why})
	}
	return out, nil
}

// route returns a route that the caller may see.
func (s *Server) route(ctx context.Context, id string) (app.RouteDoc, error) {
	doc, err := s.App.Route(ctx, id)
	if err != nil {
		return doc, err
	}
	return doc, authz.RequireTeam(ctx, doc.Team, "route "+id)
}

func fromRoute(r *challengesv1.Route) domain.Route {
	p := r.GetPattern()
	return domain.Route{
		DisplayName: r.GetDisplayName(), Exact: p.GetExact(), Suffix: p.GetSuffix(), Zone: p.GetZone(), Type: r.GetChallengeType(), Solver: r.GetSolver(),
		DNSAccountID: r.GetDnsAccountId(), DelegateTo: r.GetDelegateTo(), Priority: int(r.GetPriority()),
		Check: domain.Check{How: r.GetCheck(), Resolvers: r.GetResolvers(), Wait: r.GetWait().AsDuration()},
	}
}

func toRoute(d app.RouteDoc) *challengesv1.Route {
	r := d.Body
	out := &challengesv1.Route{
		Id: d.ID, DisplayName: r.DisplayName, Team: d.Team, ChallengeType: r.Type, Solver: r.Solver, DnsAccountId: r.DNSAccountID, DelegateTo: r.DelegateTo,
		Resolvers: r.Check.Resolvers, Check: r.Check.How, Priority: int32(r.Priority), //nolint:gosec // at most 1000
		CreateTime: timestamppb.New(d.CreatedAt), UpdateTime: timestamppb.New(d.ChangedAt), Pattern: &challengesv1.RoutePattern{},
	}
	if r.Check.Wait > 0 {
		out.Wait = durationpb.New(r.Check.Wait)
	}
	switch {
	case r.Exact != "":
		out.Pattern.Pattern = &challengesv1.RoutePattern_Exact{Exact: r.Exact}
	case r.Suffix != "":
		out.Pattern.Pattern = &challengesv1.RoutePattern_Suffix{Suffix: r.Suffix}
	case r.Zone != "":
		out.Pattern.Pattern = &challengesv1.RoutePattern_Zone{Zone: r.Zone}
	}
	return out
}

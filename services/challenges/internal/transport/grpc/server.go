// Package grpc answers the calls of ChallengesService. It decodes, checks the team, calls, and encodes; it has no rules.
package grpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	"github.com/certwright/certwright/services/challenges/internal/app"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
)

// Server implements challengesv1.ChallengesServiceServer.
type Server struct {
	challengesv1.UnimplementedChallengesServiceServer
	App *app.App
}

// ListChallenges implements challengesv1.ChallengesServiceServer.
func (s *Server) ListChallenges(ctx context.Context, req *challengesv1.ListChallengesRequest) (*challengesv1.ListChallengesResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	terms, err := listing.Filter(req.GetFilter(), "order", "state", "identifier", "action_required")
	if err != nil {
		return nil, err
	}
	q := app.Query{Team: authz.Scope(p), Order: terms["order"], State: terms["state"], Identifier: terms["identifier"], After: req.GetPageToken()}
	if q.Size, err = listing.Size(req.GetPageSize()); err != nil {
		return nil, err
	}
	switch order := req.GetOrderId(); {
	case order == "":
	case q.Order != "" && q.Order != order:
		return nil, errs.New(errs.Invalid, "BAD_FILTER", "the filter names the order %q, but the list is of the order %q", q.Order, order)
	default:
		q.Order = order
	}
	switch v, given := terms["action_required"]; {
	case given && v != "true":
		return nil, errs.New(errs.Invalid, "BAD_FILTER", "action_required=%s given, allowed: true", v)
	default:
		q.Action = given
	}
	page, err := s.App.List(ctx, q)
	if err != nil {
		return nil, err
	}
	return &challengesv1.ListChallengesResponse{Challenges: listing.Rows(page.Docs, toChallenge), NextPageToken: page.Next}, nil
}

// GetChallenge implements challengesv1.ChallengesServiceServer.
func (s *Server) GetChallenge(ctx context.Context, req *challengesv1.GetChallengeRequest) (*challengesv1.Challenge, error) {
	doc, err := s.visible(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return toChallenge(doc), nil
}

// VerifyChallenge implements challengesv1.ChallengesServiceServer.
func (s *Server) VerifyChallenge(ctx context.Context, req *challengesv1.VerifyChallengeRequest) (*challengesv1.Challenge, error) {
	if _, err := s.visible(ctx, req.GetId()); err != nil {
		return nil, err
	}
	doc, err := s.App.Verify(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return toChallenge(doc), nil
}

// visible returns a challenge that the caller may see.
func (s *Server) visible(ctx context.Context, id string) (app.Doc, error) {
	doc, err := s.App.Get(ctx, id)
	if err != nil {
		return doc, err
	}
	return doc, authz.RequireTeam(ctx, doc.Team, "challenge "+id)
}

func toChallenge(d app.Doc) *challengesv1.Challenge {
	c := d.Body
	out := &challengesv1.Challenge{
		Id: d.ID, OrderId: c.OrderID, CertificateId: c.CertificateID, Attempt: c.Attempt, Authorization: c.Authorization,
		Identifier: c.Identifier, Wildcard: c.Wildcard, Type: c.Type, Solver: string(c.Solver), State: string(c.State), Outcome: c.Outcome,
		ActionRequired: c.ActionRequired, Location: c.Location, Value: c.Value, Problem: c.Problem.Proto(),
		ExpireTime: rpc.Stamp(c.Expires), CreateTime: timestamppb.New(d.CreatedAt), Team: d.Team, Owner: c.Owner, Explanation: c.Explanation,
		RouteId: c.RouteID, Found: c.Found,
	}
	if c.ActionRequired {
		out.Instructions = domain.Instructions(c.Type, c.Identifier, c.Location, c.Value)
	}
	return out
}

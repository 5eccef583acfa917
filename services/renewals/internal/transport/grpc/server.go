// Package grpc serves certwright.renewals.v1.RenewalsService.
package grpc

import (
	"context"

	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
	"github.com/certwright/certwright/services/renewals/internal/app"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
)

// Server decodes calls, hands them to the use cases, and encodes what they answer.
type Server struct {
	renewalsv1.UnimplementedRenewalsServiceServer
	App *app.App
}

// ListRenewals implements the RPC.
func (s *Server) ListRenewals(ctx context.Context, r *renewalsv1.ListRenewalsRequest) (*renewalsv1.ListRenewalsResponse, error) {
	page, err := s.App.List(ctx, r.GetFilter(), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &renewalsv1.ListRenewalsResponse{Renewals: listing.Rows(page.Docs, renewal), NextPageToken: page.Next}, nil
}

// GetRenewal implements the RPC.
func (s *Server) GetRenewal(ctx context.Context, r *renewalsv1.GetRenewalRequest) (*renewalsv1.Renewal, error) {
	d, err := s.App.Get(ctx, r.GetCertificateId())
	if err != nil {
		return nil, err
	}
	return renewal(d), nil
}

// ExplainRenewal implements the RPC.
func (s *Server) ExplainRenewal(ctx context.Context, r *renewalsv1.ExplainRenewalRequest) (*renewalsv1.ExplainRenewalResponse, error) {
	d, err := s.App.Get(ctx, r.GetCertificateId())
	if err != nil {
		return nil, err
	}
	out := &renewalsv1.ExplainRenewalResponse{Renewal: renewal(d)}
	for _, f := range d.Body.Findings() {
		out.Findings = append(out.Findings, &renewalsv1.RenewalFinding{Reason: f.Reason, Sentence: f.Sentence, Decisive: f.Decisive})
	}
	return out, nil
}

func renewal(d app.Plan) *renewalsv1.Renewal {
	p := d.Body
	return &renewalsv1.Renewal{
		CertificateId: d.ID, VersionId: p.Version.ID, Team: d.Team, Owner: p.Owner, State: string(p.State), DueAt: rpc.Stamp(p.DueAt), Basis: string(p.Basis),
		Explanation: p.Explanation, NotAfter: rpc.Stamp(p.Version.NotAfter), WindowStart: rpc.Stamp(p.ARI.WindowStart), WindowEnd: rpc.Stamp(p.ARI.WindowEnd),
		AriCheckAt: rpc.Stamp(p.ARIAt()), OrderId: p.OpenOrder(), Failures: p.Failed, Names: p.Version.Names,
	}
}

// Package grpc is inventory's API: it turns requests into calls of use cases and their results into messages. It decides nothing.
package grpc

import (
	"context"
	"encoding/pem"
	"strings"

	"google.golang.org/protobuf/types/known/emptypb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/inventory/internal/app"
	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/listing"
)

// Server implements the service.
type Server struct {
	inventoryv1.UnimplementedInventoryServiceServer
	App *app.App
}

// CreateCertificate implements the service.
func (s *Server) CreateCertificate(ctx context.Context, r *inventoryv1.CreateCertificateRequest) (*inventoryv1.Certificate, error) {
	doc, err := s.App.CreateCertificate(ctx, app.Create{
		RequestID: r.GetRequestId(), Certificate: input(r.GetCertificate()), DeployTo: r.GetDeployTo(), Body: r,
	})
	if err != nil {
		return nil, err
	}
	return s.certificate(doc), nil
}

// GetCertificate implements the service.
func (s *Server) GetCertificate(ctx context.Context, r *inventoryv1.GetCertificateRequest) (*inventoryv1.Certificate, error) {
	doc, err := s.App.GetCertificate(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return s.certificate(doc), nil
}

// ListCertificates implements the service.
func (s *Server) ListCertificates(ctx context.Context, r *inventoryv1.ListCertificatesRequest) (*inventoryv1.ListCertificatesResponse, error) {
	page, err := s.App.ListCertificates(ctx, r.GetFilter(), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ListCertificatesResponse{Certificates: listing.Rows(page.Docs, s.certificate), NextPageToken: page.Next}, nil
}

// UpdateCertificate implements the service.
func (s *Server) UpdateCertificate(ctx context.Context, r *inventoryv1.UpdateCertificateRequest) (*inventoryv1.Certificate, error) {
	etag := r.GetEtag()
	if etag == "" {
		etag = r.GetCertificate().GetEtag()
	}
	doc, err := s.App.UpdateCertificate(ctx, app.Update{
		ID: r.GetId(), Certificate: input(r.GetCertificate()), Mask: r.GetUpdateMask().GetPaths(), Etag: etag,
	})
	if err != nil {
		return nil, err
	}
	return s.certificate(doc), nil
}

// DeleteCertificate implements the service.
func (s *Server) DeleteCertificate(ctx context.Context, r *inventoryv1.DeleteCertificateRequest) (*inventoryv1.DeleteCertificateResponse, error) {
	notice, err := s.App.DeleteCertificate(ctx, r.GetId(), r.GetEtag())
	if err != nil {
		return nil, err
	}
	return &inventoryv1.DeleteCertificateResponse{Notice: notice}, nil
}

// RenewCertificate implements the service.
func (s *Server) RenewCertificate(ctx context.Context, r *inventoryv1.RenewCertificateRequest) (*inventoryv1.RequestVersionResponse, error) {
	a, err := s.App.RenewCertificate(ctx, r.GetId(), r.GetRequestId(), r)
	return answer(r.GetId(), a, err)
}

// RequestVersion implements the service.
func (s *Server) RequestVersion(ctx context.Context, r *inventoryv1.RequestVersionRequest) (*inventoryv1.RequestVersionResponse, error) {
	a, err := s.App.RequestVersion(ctx, r.GetCertificateId(), domain.Ask{
		Replaces: r.GetReplacesVersionId(), First: r.GetFirst(), Cause: r.GetCause(),
	})
	return answer(r.GetCertificateId(), a, err)
}

func answer(certificate string, a domain.Answer, err error) (*inventoryv1.RequestVersionResponse, error) {
	if err != nil {
		return nil, err
	}
	return &inventoryv1.RequestVersionResponse{
		CertificateId: certificate, OrderId: a.OrderID, SpecGeneration: a.SpecGeneration, NextIntentFollows: a.NextFollows,
		NothingToDo: a.NothingToDo, Explanation: a.Explanation, IntentNumber: a.IntentNumber,
	}, nil
}

// RevokeCertificate implements the service.
func (s *Server) RevokeCertificate(ctx context.Context, r *inventoryv1.RevokeCertificateRequest) (*inventoryv1.Version, error) {
	doc, v, err := s.App.RevokeCertificate(ctx, app.Revoke{
		ID: r.GetId(), VersionID: r.GetVersionId(), Reason: r.GetReason(), NoReplacement: r.GetNoReplacement(), Now: r.GetNow(),
	})
	if err != nil {
		return nil, err
	}
	return version(doc, v), nil
}

// ListVersions implements the service.
func (s *Server) ListVersions(ctx context.Context, r *inventoryv1.ListVersionsRequest) (*inventoryv1.ListVersionsResponse, error) {
	doc, page, err := s.App.ListVersions(ctx, r.GetId(), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	show := func(v app.Version) *inventoryv1.Version { return version(doc, v) }
	return &inventoryv1.ListVersionsResponse{Versions: listing.Rows(page.Docs, show), NextPageToken: page.Next}, nil
}

// ExportCertificate implements the service.
func (s *Server) ExportCertificate(ctx context.Context, r *inventoryv1.ExportCertificateRequest) (*inventoryv1.ExportCertificateResponse, error) {
	_, v, err := s.App.GetVersion(ctx, r.GetId(), r.GetVersionId())
	if err != nil {
		return nil, err
	}
	var blocks []string
	for _, der := range v.Body.Chain {
		blocks = append(blocks, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return &inventoryv1.ExportCertificateResponse{
		VersionId: v.ID, CertificatePem: blocks[0], ChainPem: strings.Join(blocks[1:], ""), KeyId: v.Body.Facts.KeyID,
	}, nil
}

// GetVersionStatus implements the service.
func (s *Server) GetVersionStatus(ctx context.Context, r *inventoryv1.GetVersionStatusRequest) (*inventoryv1.VersionStatus, error) {
	doc, v, err := s.App.FindVersion(ctx, r.GetVersionId())
	if err != nil {
		return nil, err
	}
	out := &inventoryv1.VersionStatus{
		Version: version(doc, v), ChainDer: v.Body.Chain, CertificateDeleted: doc.Body.Deleted(), Owner: doc.Body.Owner,
	}
	if doc.Body.Current != nil {
		out.CurrentVersionId = doc.Body.Current.VersionID
	}
	return out, nil
}

// ListChanges implements the service.
func (s *Server) ListChanges(ctx context.Context, r *inventoryv1.ListChangesRequest) (*inventoryv1.ListChangesResponse, error) {
	c, err := s.App.ListChanges(ctx, r.GetAfterCursor(), r.GetPageSize())
	if err != nil {
		return nil, err
	}
	out := &inventoryv1.ListChangesResponse{NextCursor: c.Next, More: c.More, Restarted: c.Restarted}
	for _, doc := range c.Docs {
		out.Changes = append(out.Changes, &inventoryv1.CertificateChange{Certificate: s.certificate(doc), Revision: doc.Revision, Deleted: doc.Body.Deleted()})
	}
	return out, nil
}

// Sweep implements the service.
func (s *Server) Sweep(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, s.App.Sweep(ctx)
}

func input(c *inventoryv1.Certificate) app.Input {
	spec := c.GetSpec()
	in := app.Input{
		DisplayName: c.GetDisplayName(), Owner: c.GetOwner(), Team: c.GetTeam(), Labels: c.GetLabels(), AllowDuplicate: c.GetAllowDuplicate(),
		Spec: app.SpecInput{
			Issuer: spec.GetIssuer(), Names: spec.GetNames(), KeyAlgorithm: spec.GetKeyAlgorithm(), Profile: spec.GetProfile(),
			Challenge: app.ChallengeInput{Type: spec.GetChallenge().GetType(), Manual: spec.GetChallenge().GetManual()},
		},
	}
	if t := spec.GetNotAfter(); t != nil {
		in.Spec.NotAfter = t.AsTime()
	}
	return in
}

// certificate is the message of a stored certificate.
func (s *Server) certificate(doc app.Certificate) *inventoryv1.Certificate {
	c, now := &doc.Body, s.App.Clock.Now()
	out := &inventoryv1.Certificate{
		Id: doc.ID, DisplayName: c.DisplayName, Spec: c.Spec.Message(), Owner: c.Owner, Team: doc.Team, Labels: c.Labels, State: c.State(now),
		SpecGeneration: c.SpecGeneration, CreateTime: domain.Stamp(doc.CreatedAt), UpdateTime: domain.Stamp(doc.ChangedAt), Etag: app.Etag(doc),
		AllowDuplicate: c.AllowDuplicate, CreatedBy: c.CreatedBy,
	}
	if c.Current != nil {
		state, revocation := c.VersionState(domain.Version{Facts: *c.Current})
		out.CurrentVersion = versionOf(doc.ID, c.Current.Message(), state, revocation)
	}
	if i := c.Intent; i.Number > 0 {
		out.Intent = &inventoryv1.Intent{
			Number: i.Number, OrderId: i.OrderID, SpecGeneration: i.SpecGeneration, ReplacesVersionId: i.ReplacesVersionID, Cause: i.Cause,
			Outcome: i.Outcome, Problem: i.Problem.Message(), CancelWanted: i.CancelWanted, Accepted: i.Accepted, OpenTime: domain.Stamp(i.OpenedAt),
		}
	}
	if r := c.Renewal; r.State != "" {
		out.Renewal = &inventoryv1.RenewalStatus{State: r.State, DueAt: domain.Stamp(r.DueAt), Basis: r.Basis, Explanation: r.Explanation}
	}
	for _, f := range c.ShownFindings(now) {
		out.Findings = append(out.Findings, &inventoryv1.Finding{Reason: f.Reason, Detail: f.Detail, Since: domain.Stamp(f.Since), Subject: f.Subject})
	}
	return out
}

func version(doc app.Certificate, v app.Version) *inventoryv1.Version {
	state, revocation := doc.Body.VersionState(v.Body)
	out := versionOf(doc.ID, v.Body.Facts.Message(), state, revocation)
	out.ReplacesVersionId, out.CreateTime = v.Body.Replaces, domain.Stamp(v.CreatedAt)
	return out
}

func versionOf(certificate string, facts *typesv1.VersionFacts, state string, r *domain.Revocation) *inventoryv1.Version {
	out := &inventoryv1.Version{Facts: facts, CertificateId: certificate, State: state}
	if r != nil {
		out.RevocationReason, out.RevokeTime = r.Reason, domain.Stamp(r.DoneAt)
	}
	return out
}

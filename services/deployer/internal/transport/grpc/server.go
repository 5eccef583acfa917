// Package grpc answers the calls of certwright.deployer.v1.
package grpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	"github.com/certwright/certwright/services/deployer/internal/app"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
)

// Server implements deployerv1.DeployerServiceServer.
type Server struct {
	deployerv1.UnimplementedDeployerServiceServer
	App *app.App
}

func caller(ctx context.Context) (app.Caller, error) {
	p, err := authz.Require(ctx)
	return app.Caller{Subject: p.Subject, Team: authz.TeamOf(p), All: p.Team == authz.AllTeams}, err
}

// CreateTarget stores a target.
func (s *Server) CreateTarget(ctx context.Context, r *deployerv1.CreateTargetRequest) (*deployerv1.Target, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	t := r.GetTarget()
	if t == nil {
		return nil, errs.New(errs.Invalid, "TARGET_INVALID", "the target is not valid").WithField("target", "is missing")
	}
	if team := t.GetTeam(); team != "" && team != who.Team {
		if !who.All {
			return nil, errs.New(errs.Invalid, "TARGET_INVALID", "the target is not valid").WithField("target.team", "is %q; allowed is your own, %q", team, who.Team)
		}
		who.Team = team
	}
	f := t.GetFile()
	d, err := s.App.CreateTarget(ctx, who, r.GetRequestId(), r, domain.Target{
		DisplayName: t.GetDisplayName(), Kind: t.GetKind(), ProbeAddress: t.GetProbeAddress(), ProbeServerName: t.GetProbeServerName(),
		File: domain.FileTarget{
			Host: f.GetHost(), CertificatePath: f.GetCertificatePath(), ChainPath: f.GetChainPath(), FullchainPath: f.GetFullchainPath(),
			KeyPath: f.GetKeyPath(), BundlePath: f.GetBundlePath(), Owner: f.GetOwner(), Group: f.GetGroup(), Mode: f.GetMode(),
			KeyMode: f.GetKeyMode(), Reload: f.GetReload(),
		},
	})
	if err != nil {
		return nil, err
	}
	return target(d), nil
}

// GetTarget answers one target.
func (s *Server) GetTarget(ctx context.Context, r *deployerv1.GetTargetRequest) (*deployerv1.Target, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.App.Target(ctx, who, r.GetId())
	if err != nil {
		return nil, err
	}
	return target(d), nil
}

// ListTargets lists targets.
func (s *Server) ListTargets(ctx context.Context, r *deployerv1.ListTargetsRequest) (*deployerv1.ListTargetsResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListTargets(ctx, who, r.GetPageSize(), r.GetPageToken())
	return &deployerv1.ListTargetsResponse{Targets: listing.Rows(page.Docs, target), NextPageToken: page.Next}, err
}

// DeleteTarget deletes a target that nothing is bound to.
func (s *Server) DeleteTarget(ctx context.Context, r *deployerv1.DeleteTargetRequest) (*deployerv1.DeleteTargetResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	return &deployerv1.DeleteTargetResponse{}, s.App.DeleteTarget(ctx, who, r.GetId())
}

// CreateBinding binds a certificate to a target.
func (s *Server) CreateBinding(ctx context.Context, r *deployerv1.CreateBindingRequest) (*deployerv1.Binding, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.App.CreateBinding(ctx, who, r.GetCertificateId(), r.GetTargetId())
	if err != nil {
		return nil, err
	}
	return binding(d), nil
}

// EnsureBinding is CreateBinding for a service, which speaks for the certificate's team itself. Of a person the certificate is checked as ever.
func (s *Server) EnsureBinding(ctx context.Context, r *deployerv1.EnsureBindingRequest) (*deployerv1.Binding, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if p.Service == "" {
		return s.CreateBinding(ctx, &deployerv1.CreateBindingRequest{CertificateId: r.GetCertificateId(), TargetId: r.GetTargetId()})
	}
	d, err := s.App.EnsureBinding(ctx, app.Bind{CertificateID: r.GetCertificateId(), TargetID: r.GetTargetId(), Team: r.GetTeam(), Owner: r.GetOwner()})
	if err != nil {
		return nil, err
	}
	return binding(d), nil
}

// ListBindings lists bindings.
func (s *Server) ListBindings(ctx context.Context, r *deployerv1.ListBindingsRequest) (*deployerv1.ListBindingsResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListBindings(ctx, who, r.GetFilter(), r.GetPageSize(), r.GetPageToken())
	return &deployerv1.ListBindingsResponse{Bindings: listing.Rows(page.Docs, binding), NextPageToken: page.Next}, err
}

// DeleteBinding detaches.
func (s *Server) DeleteBinding(ctx context.Context, r *deployerv1.DeleteBindingRequest) (*deployerv1.DeleteBindingResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	return &deployerv1.DeleteBindingResponse{}, s.App.DeleteBinding(ctx, who, r.GetId())
}

// ListDeployments lists deployments.
func (s *Server) ListDeployments(ctx context.Context, r *deployerv1.ListDeploymentsRequest) (*deployerv1.ListDeploymentsResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListDeployments(ctx, who, r.GetFilter(), r.GetPageSize(), r.GetPageToken())
	return &deployerv1.ListDeploymentsResponse{Deployments: listing.Rows(page.Docs, deployment), NextPageToken: page.Next}, err
}

// GetDeployment answers one deployment with its log.
func (s *Server) GetDeployment(ctx context.Context, r *deployerv1.GetDeploymentRequest) (*deployerv1.Deployment, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.App.Deployment(ctx, who, r.GetId())
	if err != nil {
		return nil, err
	}
	return deployment(d), nil
}

// RetryDeployment makes a deployment due now.
func (s *Server) RetryDeployment(ctx context.Context, r *deployerv1.RetryDeploymentRequest) (*deployerv1.Deployment, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	d, err := s.App.RetryDeployment(ctx, who, r.GetId())
	if err != nil {
		return nil, err
	}
	return deployment(d), nil
}

func target(d docstore.Doc[domain.Target]) *deployerv1.Target {
	f := d.Body.File
	return &deployerv1.Target{
		Id: d.ID, DisplayName: d.Body.DisplayName, Team: d.Team, Kind: d.Body.Kind, ProbeAddress: d.Body.ProbeAddress,
		ProbeServerName: d.Body.ProbeServerName, CreateTime: timestamppb.New(d.CreatedAt),
		File: &deployerv1.FileTarget{
			Host: f.Host, CertificatePath: f.CertificatePath, ChainPath: f.ChainPath, FullchainPath: f.FullchainPath, KeyPath: f.KeyPath,
			BundlePath: f.BundlePath, Owner: f.Owner, Group: f.Group, Mode: f.Mode, KeyMode: f.KeyMode, Reload: f.Reload,
		},
	}
}

func binding(d docstore.Doc[domain.Binding]) *deployerv1.Binding {
	b := d.Body
	return &deployerv1.Binding{
		Id: d.ID, CertificateId: b.CertificateID, TargetId: b.TargetID, Team: d.Team, DesiredVersionId: b.DesiredVersionID, Generation: b.Generation,
		ServedVersionId: b.ServedVersionID, CreateTime: timestamppb.New(d.CreatedAt), Owner: b.Owner,
	}
}

func deployment(d docstore.Doc[domain.Deployment]) *deployerv1.Deployment {
	b := d.Body
	out := &deployerv1.Deployment{
		Id: d.ID, BindingId: b.BindingID, TargetId: b.TargetID, CertificateId: b.CertificateID, VersionId: b.VersionID, Generation: b.Generation,
		Team: d.Team, State: b.State, Problem: b.Problem.Proto(), RetryAt: rpc.Stamp(b.RetryAt), CreateTime: timestamppb.New(d.CreatedAt),
		UpdateTime: timestamppb.New(d.ChangedAt), ServedFingerprintSha256: b.Served, Attempts: b.Attempts,
	}
	for _, s := range b.Steps {
		out.Steps = append(out.Steps, &deployerv1.DeploymentStep{Time: timestamppb.New(s.At), Step: s.Step, Detail: s.Detail, Ok: s.OK})
	}
	return out
}

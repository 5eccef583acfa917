// Package grpc answers the calls of DNSService. It decodes, checks the team, calls, and encodes; it has no rules.
package grpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
)

// Server implements dnsv1.DNSServiceServer.
type Server struct {
	dnsv1.UnimplementedDNSServiceServer
	App *app.App
}

// CreateDNSAccount implements dnsv1.DNSServiceServer. An account goes to the caller's team, or to the one it names if the caller may.
func (s *Server) CreateDNSAccount(ctx context.Context, req *dnsv1.CreateDNSAccountRequest) (*dnsv1.DNSAccount, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	in := req.GetDnsAccount()
	if in == nil {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the account is missing").WithField("dnsAccount", "is required")
	}
	team := in.GetTeam()
	if team == "" {
		team = authz.TeamOf(p)
	}
	if !authz.InTeam(p, team) {
		return nil, errs.New(errs.Forbidden, authz.ReasonDenied, "%s may not make accounts for the team %q; leave dnsAccount.team out for %q", p.Subject, team, authz.TeamOf(p))
	}
	provider, g, err := choose(in)
	if err != nil {
		return nil, err
	}
	account, credential, err := s.App.CheckAccount(domain.Account{
		DisplayName: in.GetDisplayName(), Provider: provider, Zones: in.GetZones(), Disabled: in.GetDisabled(), Settings: g.settings, TTL: int(g.ttl),
	}, g.secrets)
	if err != nil {
		return nil, err
	}

	body, _ := proto.Clone(req).(*dnsv1.CreateDNSAccountRequest)
	body.RequestId = ""
	id, err := s.App.Requests.ID(ctx, p.Subject, "CreateDNSAccount", req.GetRequestId(), "dac", body)
	if err != nil {
		return nil, err
	}
	doc, err := s.App.CreateAccount(ctx, id, team, account, credential)
	if err != nil {
		return nil, err
	}
	return toAccount(doc), nil
}

// GetDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) GetDNSAccount(ctx context.Context, req *dnsv1.GetDNSAccountRequest) (*dnsv1.DNSAccount, error) {
	doc, err := s.account(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return toAccount(doc), nil
}

// ListDNSAccounts implements dnsv1.DNSServiceServer.
func (s *Server) ListDNSAccounts(ctx context.Context, req *dnsv1.ListDNSAccountsRequest) (*dnsv1.ListDNSAccountsResponse, error) {
	team, size, err := scope(ctx, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListAccounts(ctx, team, size, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &dnsv1.ListDNSAccountsResponse{DnsAccounts: listing.Rows(page.Docs, toAccount), NextPageToken: page.Next}, nil
}

// UpdateDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) UpdateDNSAccount(ctx context.Context, req *dnsv1.UpdateDNSAccountRequest) (*dnsv1.DNSAccount, error) {
	doc, err := s.account(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	in, _ := proto.Clone(req.GetDnsAccount()).(*dnsv1.DNSAccount)
	if in == nil {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the account is missing").WithField("dnsAccount", "is required")
	}
	if in.GetProvider() == "" {
		in.Provider = doc.Body.Provider
	}
	if in.GetProvider() != doc.Body.Provider {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the provider of an account stays").
			WithField("dnsAccount.provider", "%q given, it is %q; make another account and disable this one", in.GetProvider(), doc.Body.Provider)
	}
	_, g, err := choose(in)
	if err != nil {
		return nil, err
	}
	edit := app.Edit{Account: domain.Account{DisplayName: in.GetDisplayName(), Zones: in.GetZones(), Settings: g.settings, TTL: int(g.ttl)}, Secrets: g.secrets}
	allowed := []string{"display_name", "zones", doc.Body.Provider}
	for _, path := range req.GetUpdateMask().GetPaths() {
		if !slices.Contains(allowed, path) {
			return nil, errs.New(errs.Invalid, "BAD_UPDATE_MASK", "the field %q cannot be changed; allowed: %s", path, strings.Join(allowed, ", ")).
				WithField("updateMask", "%q given, allowed: %s", path, strings.Join(allowed, ", "))
		}
	}
	named := func(path string, set bool) bool {
		paths := req.GetUpdateMask().GetPaths()
		return slices.Contains(paths, path) || len(paths) == 0 && set
	}
	edit.Name = named("display_name", in.GetDisplayName() != "")
	edit.Zones = named("zones", len(in.GetZones()) > 0)
	edit.Provider = named(doc.Body.Provider, g.settings != nil || g.secrets != nil)
	if doc, err = s.App.UpdateAccount(ctx, req.GetId(), edit); err != nil {
		return nil, err
	}
	return toAccount(doc), nil
}

// DeleteDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) DeleteDNSAccount(ctx context.Context, req *dnsv1.DeleteDNSAccountRequest) (*dnsv1.DeleteDNSAccountResponse, error) {
	if _, err := s.account(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &dnsv1.DeleteDNSAccountResponse{}, s.App.DeleteAccount(ctx, req.GetId())
}

// EnableDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) EnableDNSAccount(ctx context.Context, req *dnsv1.EnableDNSAccountRequest) (*dnsv1.DNSAccount, error) {
	return s.setDisabled(ctx, req.GetId(), false)
}

// DisableDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) DisableDNSAccount(ctx context.Context, req *dnsv1.DisableDNSAccountRequest) (*dnsv1.DNSAccount, error) {
	return s.setDisabled(ctx, req.GetId(), true)
}

func (s *Server) setDisabled(ctx context.Context, id string, disabled bool) (*dnsv1.DNSAccount, error) {
	if _, err := s.account(ctx, id); err != nil {
		return nil, err
	}
	doc, err := s.App.SetDisabled(ctx, id, disabled)
	if err != nil {
		return nil, err
	}
	return toAccount(doc), nil
}

// TestDNSAccount implements dnsv1.DNSServiceServer.
func (s *Server) TestDNSAccount(ctx context.Context, req *dnsv1.TestDNSAccountRequest) (*dnsv1.TestDNSAccountResponse, error) {
	if _, err := s.account(ctx, req.GetId()); err != nil {
		return nil, err
	}
	report, err := s.App.TestAccount(ctx, req.GetId(), req.GetZone())
	if err != nil {
		return nil, err
	}
	return &dnsv1.TestDNSAccountResponse{Ok: report.Problem.IsZero(), Problem: report.Problem.Proto(), Steps: report.Steps}, nil
}

// ResolveDNSAccount implements dnsv1.DNSServiceServer. Without a team it answers for the caller's.
func (s *Server) ResolveDNSAccount(ctx context.Context, req *dnsv1.ResolveDNSAccountRequest) (*dnsv1.ResolveDNSAccountResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	record := req.GetName()
	if !req.GetRecord() {
		record = domain.ChallengeName(record)
	}
	record, why := domain.Name(record)
	if why != "" {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the name is not valid").WithField("name", "%q %s", req.GetName(), why)
	}
	team := req.GetTeam()
	if team == "" {
		team = authz.TeamOf(p)
	}
	if !authz.InTeam(p, team) {
		return nil, errs.New(errs.NotFound, "", "team %s does not exist", team)
	}
	choice, _, err := s.App.Resolve(ctx, team, record, req.GetAccountId())
	if err != nil {
		return nil, err
	}
	return &dnsv1.ResolveDNSAccountResponse{AccountId: choice.AccountID, Zone: choice.Zone, Explanation: choice.Explanation, AnyEnabled: choice.Any}, nil
}

// ListRecordSets implements dnsv1.DNSServiceServer.
func (s *Server) ListRecordSets(ctx context.Context, req *dnsv1.ListRecordSetsRequest) (*dnsv1.ListRecordSetsResponse, error) {
	team, size, err := scope(ctx, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListSets(ctx, team, size, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &dnsv1.ListRecordSetsResponse{RecordSets: listing.Rows(page.Docs, toRecordSet), NextPageToken: page.Next}, nil
}

// account returns an account that the caller may see.
func (s *Server) account(ctx context.Context, id string) (app.AccountDoc, error) {
	doc, err := s.App.Account(ctx, id)
	if err != nil {
		return doc, err
	}
	return doc, authz.RequireTeam(ctx, doc.Team, "DNS account "+id)
}

// scope is the team that a list is of, empty for all, and its page size.
func scope(ctx context.Context, asked int32) (team string, size int, err error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return "", 0, err
	}
	size, err = listing.Size(asked)
	return authz.Scope(p), size, err
}

func toAccount(d app.AccountDoc) *dnsv1.DNSAccount {
	a := d.Body
	out := &dnsv1.DNSAccount{
		Id: d.ID, DisplayName: a.DisplayName, Team: d.Team, Provider: a.Provider, Zones: a.Zones, Disabled: a.Disabled,
		CreateTime: timestamppb.New(d.CreatedAt),
	}
	show(out, a.Account)
	return out
}

func toRecordSet(d app.SetDoc) *dnsv1.RecordSet {
	set := d.Body
	out := &dnsv1.RecordSet{Fqdn: set.FQDN, Zone: set.Zone, AccountId: set.AccountID, Problem: set.Problem.Proto(), NextTime: rpc.Stamp(d.WorkAt)}
	for _, v := range set.Values {
		if len(v.Challenges) > 0 {
			out.DesiredValues = append(out.DesiredValues, v.Text)
		}
		if v.State == domain.Present || v.State == domain.Leaving || v.State == domain.Deleted {
			out.PresentValues = append(out.PresentValues, v.Text)
		}
	}
	return out
}

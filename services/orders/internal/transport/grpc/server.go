// Package grpc serves certwright.orders.v1.OrdersService.
package grpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
)

// Server decodes calls, hands them to the use cases, and encodes what they answer.
type Server struct {
	ordersv1.UnimplementedOrdersServiceServer
	App *app.App
}

// ListOrders implements the RPC.
func (s *Server) ListOrders(ctx context.Context, r *ordersv1.ListOrdersRequest) (*ordersv1.ListOrdersResponse, error) {
	page, err := s.App.ListOrders(ctx, r.GetFilter(), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &ordersv1.ListOrdersResponse{Orders: listing.Rows(page.Docs, order), NextPageToken: page.Next}, nil
}

// GetOrder implements the RPC.
func (s *Server) GetOrder(ctx context.Context, r *ordersv1.GetOrderRequest) (*ordersv1.Order, error) {
	d, err := s.App.GetOrder(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return order(d), nil
}

// RetryOrder implements the RPC.
func (s *Server) RetryOrder(ctx context.Context, r *ordersv1.RetryOrderRequest) (*ordersv1.RetryOrderResponse, error) {
	return s.App.RetryOrder(ctx, r.GetId())
}

// CancelOrder implements the RPC.
func (s *Server) CancelOrder(ctx context.Context, r *ordersv1.CancelOrderRequest) (*ordersv1.Order, error) {
	d, err := s.App.CancelOrder(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return order(d), nil
}

// CreateIssuer implements the RPC.
func (s *Server) CreateIssuer(ctx context.Context, r *ordersv1.CreateIssuerRequest) (*ordersv1.Issuer, error) {
	d, err := s.App.CreateIssuer(ctx, r)
	if err != nil {
		return nil, err
	}
	return issuer(d), nil
}

// GetIssuer implements the RPC.
func (s *Server) GetIssuer(ctx context.Context, r *ordersv1.GetIssuerRequest) (*ordersv1.Issuer, error) {
	d, err := s.App.GetIssuer(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	return issuer(d), nil
}

// ListIssuers implements the RPC.
func (s *Server) ListIssuers(ctx context.Context, r *ordersv1.ListIssuersRequest) (*ordersv1.ListIssuersResponse, error) {
	page, err := s.App.ListIssuers(ctx, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &ordersv1.ListIssuersResponse{Issuers: listing.Rows(page.Docs, issuer), NextPageToken: page.Next}, nil
}

// DeleteIssuer implements the RPC.
func (s *Server) DeleteIssuer(ctx context.Context, r *ordersv1.DeleteIssuerRequest) (*ordersv1.DeleteIssuerResponse, error) {
	return &ordersv1.DeleteIssuerResponse{}, s.App.DeleteIssuer(ctx, r.GetId())
}

// UpdateIssuer implements the RPC.
func (s *Server) UpdateIssuer(ctx context.Context, r *ordersv1.UpdateIssuerRequest) (*ordersv1.Issuer, error) {
	return one(issuer)(s.App.UpdateIssuer(ctx, r))
}

// EnableIssuer implements the RPC.
func (s *Server) EnableIssuer(ctx context.Context, r *ordersv1.EnableIssuerRequest) (*ordersv1.Issuer, error) {
	return one(issuer)(s.App.SetIssuerDisabled(ctx, r.GetId(), false))
}

// DisableIssuer implements the RPC.
func (s *Server) DisableIssuer(ctx context.Context, r *ordersv1.DisableIssuerRequest) (*ordersv1.Issuer, error) {
	return one(issuer)(s.App.SetIssuerDisabled(ctx, r.GetId(), true))
}

// ListIssuerPresets implements the RPC.
func (s *Server) ListIssuerPresets(context.Context, *ordersv1.ListIssuerPresetsRequest) (*ordersv1.ListIssuerPresetsResponse, error) {
	out := &ordersv1.ListIssuerPresetsResponse{}
	for _, p := range domain.Presets() {
		out.Presets = append(out.Presets, &ordersv1.IssuerPreset{
			Name: p.Name, DisplayName: p.DisplayName, DirectoryUrl: p.DirectoryURL, ExternalAccountRequired: p.ExternalAccountRequired, Staging: p.Staging,
			DocumentationUrl: p.DocumentationURL, Note: p.Note,
		})
	}
	return out, nil
}

// GetAccount implements the RPC.
func (s *Server) GetAccount(ctx context.Context, r *ordersv1.GetAccountRequest) (*ordersv1.Account, error) {
	seen, err := s.App.GetAccount(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	m := account(seen.Doc)
	m.CaStatus, m.CaContacts, m.CaProblem = seen.CA.Status, seen.CA.Contacts, seen.Problem.Message()
	return m, nil
}

// RotateAccountKey implements the RPC.
func (s *Server) RotateAccountKey(ctx context.Context, r *ordersv1.RotateAccountKeyRequest) (*ordersv1.Account, error) {
	return one(account)(s.App.RotateKey(ctx, r.GetId()))
}

// DeactivateAccount implements the RPC.
func (s *Server) DeactivateAccount(ctx context.Context, r *ordersv1.DeactivateAccountRequest) (*ordersv1.Account, error) {
	return one(account)(s.App.DeactivateAccount(ctx, r.GetId()))
}

// ActivateAccount implements the RPC.
func (s *Server) ActivateAccount(ctx context.Context, r *ordersv1.ActivateAccountRequest) (*ordersv1.Account, error) {
	return one(account)(s.App.ActivateAccount(ctx, r.GetId()))
}

// one encodes the document that a use case answers.
func one[T, M any](encode func(docstore.Doc[T]) *M) func(docstore.Doc[T], error) (*M, error) {
	return func(d docstore.Doc[T], err error) (*M, error) {
		if err != nil {
			return nil, err
		}
		return encode(d), nil
	}
}

// TestIssuer implements the RPC.
func (s *Server) TestIssuer(ctx context.Context, r *ordersv1.TestIssuerRequest) (*ordersv1.TestIssuerResponse, error) {
	return s.App.TestIssuer(ctx, r.GetId())
}

// ListAccounts implements the RPC.
func (s *Server) ListAccounts(ctx context.Context, r *ordersv1.ListAccountsRequest) (*ordersv1.ListAccountsResponse, error) {
	page, err := s.App.ListAccounts(ctx, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &ordersv1.ListAccountsResponse{Accounts: listing.Rows(page.Docs, account), NextPageToken: page.Next}, nil
}

// GetRenewalInfo implements the RPC.
func (s *Server) GetRenewalInfo(ctx context.Context, r *ordersv1.GetRenewalInfoRequest) (*ordersv1.GetRenewalInfoResponse, error) {
	return s.App.GetRenewalInfo(ctx, r)
}

// ListChanges implements the RPC.
func (s *Server) ListChanges(ctx context.Context, r *ordersv1.ListChangesRequest) (*ordersv1.ListChangesResponse, error) {
	docs, next, more, restarted, err := s.App.Changes(ctx, r.GetAfterCursor(), int(r.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &ordersv1.ListChangesResponse{NextCursor: next, More: more, Restarted: restarted}
	for _, d := range docs {
		out.Changes = append(out.Changes, &ordersv1.OrderChange{Order: order(d), Revision: d.Revision, Deleted: d.Tombstone})
	}
	return out, nil
}

func order(d docstore.Doc[domain.Order]) *ordersv1.Order {
	o := d.Body
	m := &ordersv1.Order{
		Id: d.ID, CertificateId: o.CertificateID, IntentNumber: o.IntentNumber, Team: d.Team, Owner: o.Owner, Spec: o.Spec.Message(),
		SpecGeneration: o.SpecGeneration, State: string(o.State), Blocked: o.Blocked.Message(), Problem: o.Problem.Message(),
		CreateTime: timestamppb.New(d.CreatedAt), UpdateTime: timestamppb.New(d.ChangedAt), GiveUpTime: rpc.Stamp(o.GiveUpAt), Cause: o.Cause,
		KeyId: o.KeyID, VersionId: o.VersionID, NextTime: rpc.Stamp(d.WorkAt),
	}
	if o.Replaces != nil {
		m.ReplacesVersionId = o.Replaces.VersionID
	}
	for _, a := range o.Attempts {
		am := &ordersv1.Attempt{
			Number: a.Number, IssuerId: a.IssuerID, AccountId: a.AccountID, State: string(a.State), Url: a.URL, Replaces: a.Replaces,
			Problem: a.Problem.Message(), CreateTime: rpc.Stamp(a.CreatedAt),
		}
		for _, z := range a.Authorizations {
			am.Authorizations = append(am.Authorizations, &ordersv1.Authorization{
				Number: z.Number, Identifier: z.Identifier, Wildcard: z.Wildcard, State: string(z.State), ChallengeId: z.ChallengeID,
				Problem: z.Problem.Message(), ExpireTime: rpc.Stamp(z.ExpiresAt),
			})
			if z.Action != nil {
				m.ActionsRequired = append(m.ActionsRequired, &ordersv1.ActionRequired{
					ChallengeId: z.ChallengeID, Identifier: z.Identifier, Type: z.Action.Type, Location: z.Action.Location, Value: z.Action.Value,
				})
			}
		}
		m.Attempts = append(m.Attempts, am)
	}
	return m
}

func issuer(d docstore.Doc[domain.Issuer]) *ordersv1.Issuer {
	m := app.IssuerMessage(d.Body)
	m.Id, m.Team, m.AccountId, m.Etag = d.ID, d.Team, app.AccountID(d.ID), app.IssuerEtag(d)
	m.CreateTime, m.UpdateTime = timestamppb.New(d.CreatedAt), timestamppb.New(d.ChangedAt)
	return m
}

func account(d docstore.Doc[app.Account]) *ordersv1.Account {
	x := d.Body
	return &ordersv1.Account{
		Id: d.ID, IssuerId: x.IssuerID, Url: x.URL, Contacts: x.Contacts, State: string(x.State), KeyThumbprint: x.Thumbprint, KeyTime: rpc.Stamp(x.KeyAt),
		Problem: x.Problem.Message(), CreateTime: timestamppb.New(d.CreatedAt), Team: d.Team, Pending: pending(d),
	}
}

// pending is what the CA has yet to be told of an account.
func pending(d docstore.Doc[app.Account]) string {
	switch {
	case d.Body.State == app.AccountDeactivating:
		return "deactivate"
	case d.Body.NextThumbprint != "":
		return "rotate_key"
	case d.Body.State == app.AccountValid && d.WorkAt.Before(clock.Never):
		return "update_contacts"
	}
	return ""
}

// Package grpc answers the calls of certwright.keys.v1.
package grpc

import (
	"context"
	"encoding/pem"

	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/keys/internal/app"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/secret"
)

// Server implements keysv1.KeysServiceServer.
type Server struct {
	keysv1.UnimplementedKeysServiceServer
	App *app.App
}

// EnsureCSR answers the CSR of an order.
func (s *Server) EnsureCSR(ctx context.Context, r *keysv1.EnsureCSRRequest) (*keysv1.EnsureCSRResponse, error) {
	if err := only(ctx, "orders"); err != nil {
		return nil, err
	}
	d, err := s.App.EnsureCSR(ctx, domain.Request{
		OrderID: r.GetOrderId(), CertificateID: r.GetCertificateId(), Algorithm: r.GetAlgorithm(), Names: r.GetNames(),
		Team: r.GetTeam(), Owner: r.GetOwner(),
	})
	if err != nil {
		return nil, err
	}
	return &keysv1.EnsureCSRResponse{KeyId: d.ID, CsrDer: d.Body.CSR, SpkiSha256: d.Body.SPKI}, nil
}

// SignRevocation signs a revocation request with the certificate's key.
func (s *Server) SignRevocation(ctx context.Context, r *keysv1.SignRevocationRequest) (*keysv1.SignRevocationResponse, error) {
	if err := only(ctx, "orders"); err != nil {
		return nil, err
	}
	sig, err := s.App.SignRevocation(ctx, r.GetKeyId(), r.GetSigningInput())
	if err != nil {
		return nil, err
	}
	return &keysv1.SignRevocationResponse{Signature: sig.Bytes, Algorithm: sig.Algorithm, Jwk: sig.JWK}, nil
}

// Release answers a key sealed to a receiver. No permission lets a person call it.
func (s *Server) Release(ctx context.Context, r *keysv1.ReleaseRequest) (*keysv1.ReleaseResponse, error) {
	if err := only(ctx, "deployer"); err != nil {
		return nil, err
	}
	sealed, err := s.App.Release(ctx, r.GetKeyId(), r.GetDeploymentId(), r.GetReceiverPublicKey())
	if err != nil {
		return nil, err
	}
	return &keysv1.ReleaseResponse{SealedPkcs8: sealed}, nil
}

// ExportKey answers a key, alone or in a keystore, for a person.
func (s *Server) ExportKey(ctx context.Context, r *keysv1.ExportKeyRequest) (*keysv1.ExportKeyResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	e := material.Export{Format: r.GetFormat(), Password: secret.New(r.GetPassword()), Alias: r.GetAlias()}
	file, err := s.App.Export(ctx, r.GetKeyId(), e, p.Subject, inTeam(p))
	if err != nil {
		return nil, err
	}
	if e.Format == "" || e.Format == material.FormatPEM {
		return &keysv1.ExportKeyResponse{PrivateKeyPem: file.Reveal()}, nil
	}
	return &keysv1.ExportKeyResponse{Content: file.RevealBytes()}, nil
}

// GetCSR answers the CSR of a key.
func (s *Server) GetCSR(ctx context.Context, r *keysv1.GetCSRRequest) (*keysv1.GetCSRResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	der, err := s.App.CSR(ctx, r.GetKeyId(), inTeam(p))
	if err != nil {
		return nil, err
	}
	return &keysv1.GetCSRResponse{CsrPem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}, nil
}

func inTeam(p authz.Principal) func(team string) bool {
	return func(team string) bool { return authz.InTeam(p, team) }
}

// ListKeys lists what is known of keys; no key is in it.
func (s *Server) ListKeys(ctx context.Context, r *keysv1.ListKeysRequest) (*keysv1.ListKeysResponse, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	page, err := s.App.List(ctx, r.GetFilter(), authz.Scope(p), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &keysv1.ListKeysResponse{Keys: listing.Rows(page.Docs, view), NextPageToken: page.Next}, nil
}

func view(d docstore.Doc[domain.Key]) *keysv1.Key {
	return &keysv1.Key{
		Id: d.ID, OrderId: d.Body.OrderID, CertificateId: d.Body.CertificateID, Algorithm: d.Body.Algorithm, State: d.Body.State,
		SpkiSha256: d.Body.SPKI, CreateTime: timestamppb.New(d.CreatedAt), Team: d.Team, VersionId: d.Body.VersionID,
	}
}

// only refuses everybody but the sibling service of this name: these calls hand out or use keys, and nobody has a reason to make them by hand.
func only(ctx context.Context, service string) error {
	p, err := authz.Require(ctx)
	if err == nil && p.Service != service {
		err = errs.New(errs.Forbidden, authz.ReasonDenied, "only the service %s may call this, not %s", service, p.Subject)
	}
	return err
}

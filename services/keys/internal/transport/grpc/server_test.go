package grpc

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
)

func TestCallsThatUseKeysAreForOneServiceAlone(t *testing.T) {
	s := &Server{} // a call that is let through finds no use cases
	person := authz.Principal{Subject: "user:u", Team: authz.AllTeams, Permissions: []string{"*"}}
	calls := map[string]struct {
		allowed string
		call    func(ctx context.Context) error
	}{
		"EnsureCSR": {"orders", func(ctx context.Context) error { _, err := s.EnsureCSR(ctx, &keysv1.EnsureCSRRequest{}); return err }},
		"SignRevocation": {"orders", func(ctx context.Context) error {
			_, err := s.SignRevocation(ctx, &keysv1.SignRevocationRequest{})
			return err
		}},
		"Release": {"deployer", func(ctx context.Context) error { _, err := s.Release(ctx, &keysv1.ReleaseRequest{}); return err }},
	}
	for name, tt := range calls {
		for _, p := range []authz.Principal{person, authz.ForService("gateway"), authz.ForService("renewals")} {
			t.Run(name+" by "+p.Subject+" is refused", func(t *testing.T) {
				err := tt.call(authz.NewContext(t.Context(), p))
				require.Equal(t, authz.ReasonDenied, errs.ReasonOf(err))
				require.ErrorContains(t, err, "only the service "+tt.allowed+" may call this")
			})
		}
		t.Run(name+" by nobody is refused", func(t *testing.T) {
			require.Equal(t, errs.Unauthenticated, errs.KindOf(tt.call(t.Context())))
		})
		t.Run(name+" by "+tt.allowed+" is let through", func(t *testing.T) {
			defer func() { _ = recover() }() // the use cases that are missing here
			require.NotEqual(t, errs.Forbidden, errs.KindOf(tt.call(authz.NewContext(t.Context(), authz.ForService(tt.allowed)))))
		})
	}
}

package system_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// An issuer's whole life at a CA that wants an external account: refused without it, mended by edits, its account's key changed, ended and begun anew.
func TestAnIssuerWithAnExternalAccountIsMendedAndItsAccountsKeyChanged(t *testing.T) {
	const hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	s, issuer := start(t, stage.Options{CA: ca.Options{
		Strict: true, NonceReject: 10, EABKeys: map[string]string{"kid-1": hmac}, AlternateRoots: 1, Profiles: map[string]ca.Profile{"tls": {}, "short": {Validity: 6 * 24 * time.Hour}},
	}})
	ctx := labtest.Deadline(t, 3*time.Minute)
	patch := func(body string) (*ordersv1.Issuer, error) {
		out := &ordersv1.Issuer{}
		text, err := s.Raw(ctx, http.MethodPatch, "/v1/issuers/"+issuer.GetId(), []byte(body))
		if err == nil {
			require.NotContains(t, string(text), hmac[:20])
			err = s.Call(ctx, http.MethodGet, "/v1/issuers/"+issuer.GetId(), nil, out)
		}
		return out, err
	}
	says := func(err error, what string) {
		t.Helper()
		var refused *client.Error
		require.ErrorAs(t, err, &refused)
		require.Contains(t, refused.Body, what)
	}
	probe := func() string {
		test := &ordersv1.TestIssuerResponse{}
		require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers/"+issuer.GetId()+":test", &ordersv1.TestIssuerRequest{}, test))
		require.True(t, test.GetReachable())
		return test.GetProblem().GetReason()
	}
	order := func(name, state string) *ordersv1.Order {
		made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, name)
		require.NoError(t, err)
		o := &ordersv1.Order{}
		require.NoError(t, stage.Until(ctx, s, "/v1/orders/"+made.GetIntent().GetOrderId(), o, func(o *ordersv1.Order) bool {
			return o.GetState() == "issued" || o.GetState() == "failed"
		}))
		require.Equal(t, state, o.GetState(), "%s: %v", name, o.GetProblem())
		return o
	}

	require.Equal(t, "EXTERNAL_ACCOUNT_REQUIRED", probe())
	require.Equal(t, "EXTERNAL_ACCOUNT_REQUIRED", order("unbound.shop.test", "failed").GetProblem().GetReason())
	_, err := patch(`{"issuer":{"acme":{"externalAccount":{"keyId":"kid-1","hmacKey":"no key!"}}}}`)
	says(err, "base64url")
	_, err = patch(`{"issuer":{"acme":{"externalAccount":{"keyId":"kid-2","hmacKey":"` + hmac + `"}}}}`)
	require.NoError(t, err)
	require.Empty(t, probe())
	require.Equal(t, "EXTERNAL_ACCOUNT_REFUSED", order("foreign.shop.test", "failed").GetProblem().GetReason())
	_, err = patch(`{"issuer":{"acme":{"profile":"long","externalAccount":{"keyId":"kid-1","hmacKey":"` + hmac + `"}}}}`)
	require.NoError(t, err)

	require.Equal(t, "PROFILE_UNKNOWN", probe())
	ordered := len(s.CA.Orders())
	unknown := order("profile.shop.test", "failed").GetProblem()
	require.Equal(t, "PROFILE_UNKNOWN", unknown.GetReason())
	require.Contains(t, unknown.GetDetail(), "short, tls")
	require.Len(t, s.CA.Orders(), ordered, "nothing was ordered")

	other := secondRoot(t, s.CA.RootsPEM())
	edited, err := patch(`{"updateMask":"acme.profile,acme.preferredChain","issuer":{"acme":{"profile":"tls","preferredChain":"` + other + `"}}}`)
	require.NoError(t, err)
	require.Equal(t, "kid-1", edited.GetAcme().GetExternalAccount().GetKeyId())
	require.Equal(t, other, topIssuer(ctx, t, s, order("www.shop.test", "issued").GetCertificateId()))

	acc := &ordersv1.Account{}
	get := func() *ordersv1.Account {
		require.NoError(t, s.Call(ctx, http.MethodGet, "/v1/accounts/"+issuer.GetAccountId(), nil, acc))
		return acc
	}
	require.Equal(t, "valid", get().GetCaStatus(), "%v", acc.GetCaProblem())
	_, err = patch(`{"issuer":{"acme":{"contacts":["new@shop.test"]}}}`)
	require.NoError(t, err)
	settled := func(f func(a *ordersv1.Account) bool) {
		t.Helper()
		require.NoError(t, stage.Until(ctx, s, "/v1/accounts/"+issuer.GetAccountId(), acc, func(a *ordersv1.Account) bool { return a.GetPending() == "" && f(a) }))
	}
	settled(func(a *ordersv1.Account) bool { return strings.Join(a.GetCaContacts(), " ") == "new@shop.test" })

	first := get().GetKeyThumbprint()
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/accounts/"+issuer.GetAccountId()+":rotateKey", &ordersv1.RotateAccountKeyRequest{}, nil))
	settled(func(a *ordersv1.Account) bool { return a.GetKeyThumbprint() != first })
	require.Equal(t, "valid", get().GetCaStatus(), "the CA takes the new key: %v %v", acc.GetProblem(), acc.GetCaProblem())
	kept := order("rotated.shop.test", "issued")

	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers/"+issuer.GetId()+":disable", &ordersv1.DisableIssuerRequest{}, nil))
	_, err = s.Request(ctx, issuer.GetId(), "http-01", nil, "door.shop.test")
	says(err, "is disabled")
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/issuers/"+issuer.GetId()+":enable", &ordersv1.EnableIssuerRequest{}, nil))

	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/accounts/"+issuer.GetAccountId()+":deactivate", &ordersv1.DeactivateAccountRequest{}, nil))
	settled(func(a *ordersv1.Account) bool { return a.GetState() == "deactivated" })
	require.Equal(t, "ACCOUNT_DEACTIVATED", order("ended.shop.test", "failed").GetProblem().GetReason())

	// The account is gone, and the certificate's own key still revokes it.
	version := kept.GetVersionId()
	require.NoError(t, stage.Until(ctx, s, "/v1/certificates/"+kept.GetCertificateId(), &inventoryv1.Certificate{}, func(c *inventoryv1.Certificate) bool {
		version = c.GetCurrentVersion().GetFacts().GetVersionId()
		return version != ""
	}))
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+kept.GetCertificateId()+":revoke", &inventoryv1.RevokeCertificateRequest{VersionId: version, Reason: "keyCompromise", NoReplacement: true, Now: true}, nil))
	versionIs(ctx, t, s, kept.GetCertificateId(), version, "revoked")

	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/accounts/"+issuer.GetAccountId()+":activate", &ordersv1.ActivateAccountRequest{}, nil))
	order("anew.shop.test", "issued")
	require.NotEqual(t, first, get().GetKeyThumbprint())
	require.Equal(t, "valid", acc.GetCaStatus())
}

func secondRoot(t *testing.T, roots []byte) string {
	t.Helper()
	_, rest := pem.Decode(roots)
	block, _ := pem.Decode(rest)
	require.NotNil(t, block)
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return c.Subject.CommonName
}

// topIssuer is the common name of the root that the certificate's chain leads to.
func topIssuer(ctx context.Context, t *testing.T, s *stage.Stage, certificate string) string {
	t.Helper()
	got := &inventoryv1.Certificate{}
	require.NoError(t, stage.Until(ctx, s, "/v1/certificates/"+certificate, got, func(c *inventoryv1.Certificate) bool {
		return c.GetCurrentVersion().GetFacts().GetVersionId() != ""
	}))
	out := &inventoryv1.ExportCertificateResponse{}
	require.NoError(t, s.Call(ctx, http.MethodPost, "/v1/certificates/"+certificate+":export", &inventoryv1.ExportCertificateRequest{}, out))
	var last *pem.Block
	for rest := []byte(out.GetChainPem()); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		last = block
	}
	require.NotNil(t, last)
	c, err := x509.ParseCertificate(last.Bytes)
	require.NoError(t, err)
	return c.Issuer.CommonName
}

package app_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
	transport "github.com/certwright/certwright/services/orders/internal/transport/grpc"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
)

const goodKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"

func TestAnIssuerIsEdited(t *testing.T) {
	u := calm(t, authorizing)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	made, err := rpc.CreateIssuer(ctx, &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{DisplayName: "zero", Acme: &ordersv1.AcmeIssuer{
		DirectoryUrl: "https://ca/dir", ExternalAccount: &ordersv1.ExternalAccount{KeyId: "kid-1", HmacKey: goodKey + "="},
	}}})
	require.NoError(t, err)
	require.Equal(t, "kid-1", made.GetAcme().GetExternalAccount().GetKeyId())
	require.Empty(t, made.GetAcme().GetExternalAccount().GetHmacKey(), "it is write-only")
	stored, err := u.memory.Get(t.Context(), "issuers", made.GetId())
	require.NoError(t, err)
	plain, err := base64.RawURLEncoding.DecodeString(goodKey)
	require.NoError(t, err)
	require.NotContains(t, string(stored), goodKey)
	require.NotContains(t, string(stored), string(plain))

	update := func(i *ordersv1.Issuer, etag string, paths ...string) (*ordersv1.Issuer, error) {
		r := &ordersv1.UpdateIssuerRequest{Id: "zero", Issuer: i, Etag: etag}
		if len(paths) > 0 {
			r.UpdateMask = mask(paths...)
		}
		return rpc.UpdateIssuer(ctx, r)
	}
	agreed, err := update(&ordersv1.Issuer{Acme: &ordersv1.AcmeIssuer{TermsAgreed: true, Profile: "tlsserver"}}, made.GetEtag())
	require.NoError(t, err, "without a mask what is set is taken")
	require.True(t, agreed.GetAcme().GetTermsAgreed())
	require.Equal(t, "tlsserver", agreed.GetAcme().GetProfile())
	require.NotEqual(t, made.GetEtag(), agreed.GetEtag())
	_, err = update(&ordersv1.Issuer{DisplayName: "x"}, made.GetEtag())
	require.Equal(t, "ETAG_MISMATCH", errs.ReasonOf(err))

	agreed.Acme.Profile = ""
	agreed.Acme.PreferredChain, agreed.Acme.ProxyUrl = "Root X2", "http://proxy.example.org:3128"
	back, err := update(agreed, "", "acme.profile", "acme.preferred_chain", "acme.proxy_url", "acme.external_account")
	require.NoError(t, err, "what was read can be written back, and the HMAC key stays")
	require.Empty(t, back.GetAcme().GetProfile())
	require.Equal(t, "Root X2", back.GetAcme().GetPreferredChain())
	d, err := u.now.app.GetIssuer(ctx, "zero")
	require.NoError(t, err)
	require.NotEmpty(t, d.Body.EABKey.Ciphertext)

	none, err := update(&ordersv1.Issuer{}, "", "acme.external_account", "acme.proxy_url")
	require.NoError(t, err)
	require.Nil(t, none.GetAcme().GetExternalAccount())
	require.Empty(t, none.GetAcme().GetProxyUrl())
	require.Equal(t, "Root X2", none.GetAcme().GetPreferredChain(), "what the mask does not name stays")

	for _, path := range []string{"acme.directory_url", "team", "acme.account_key_algorithm", "acme", "dreams"} {
		_, err = update(&ordersv1.Issuer{}, "", path)
		require.Equal(t, "BAD_UPDATE_MASK", errs.ReasonOf(err), path)
		require.Contains(t, err.Error(), "acme.terms_agreed", "it says what is allowed")
	}
	_, err = rpc.CreateIssuer(ctx, &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{DisplayName: "other", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca/dir"}}})
	require.NoError(t, err)
	_, err = update(&ordersv1.Issuer{DisplayName: "OTHER"}, "")
	require.Equal(t, "ISSUER_EXISTS", errs.ReasonOf(err))
	_, err = rpc.UpdateIssuer(ctx, &ordersv1.UpdateIssuerRequest{Id: issuerID, Issuer: &ordersv1.Issuer{DisplayName: "mine"}})
	require.Equal(t, errs.NotFound, errs.KindOf(err), "another team's")
}

func TestABadEditIsRefusedAndChangesNothing(t *testing.T) {
	u := calm(t, authorizing)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	made, err := rpc.CreateIssuer(ctx, &ordersv1.CreateIssuerRequest{Issuer: &ordersv1.Issuer{DisplayName: "lab", Acme: &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca/dir"}}})
	require.NoError(t, err)
	eab := func(kid, key string) *ordersv1.AcmeIssuer {
		return &ordersv1.AcmeIssuer{ExternalAccount: &ordersv1.ExternalAccount{KeyId: kid, HmacKey: key}}
	}
	for _, r := range []struct {
		name, field, says string
		acme              *ordersv1.AcmeIssuer
	}{
		{"a key that is not base64url", "externalAccount.hmacKey", "is not base64url", eab("kid", "s3cret key!")},
		{"a key in standard base64", "externalAccount.hmacKey", "write - for + and _ for /", eab("kid", "s3cret+/"+goodKey)},
		{"half a key", "externalAccount.hmacKey", "only 6 bytes long", eab("kid", "c2VjcmV0")},
		{"no key", "externalAccount.hmacKey", "is missing", eab("kid", "")},
		{"no key id", "externalAccount.keyId", "is missing", eab("", goodKey)},
		{"a proxy with a password", "proxyUrl", "user name or password", &ordersv1.AcmeIssuer{ProxyUrl: "http://me:s3cret@proxy:3128"}},
		{"a proxy without a scheme", "proxyUrl", "http, https or socks5", &ordersv1.AcmeIssuer{ProxyUrl: "proxy:3128"}},
		{"a proxy with a path", "proxyUrl", "nothing behind host and port", &ordersv1.AcmeIssuer{ProxyUrl: "http://proxy:3128/x"}},
		{"too long a chain", "preferredChain", "has 201 characters", &ordersv1.AcmeIssuer{PreferredChain: strings.Repeat("x", 201)}},
		{"a contact that is none", "contacts[0]", "plain mail address", &ordersv1.AcmeIssuer{Contacts: []string{"nobody"}}},
	} {
		t.Run(r.name, func(t *testing.T) {
			_, err := rpc.UpdateIssuer(ctx, &ordersv1.UpdateIssuerRequest{Id: made.GetId(), Issuer: &ordersv1.Issuer{Acme: r.acme}})
			e := errs.As(err)
			require.NotNil(t, e)
			require.Equal(t, "BAD_ISSUER", e.Reason)
			require.Len(t, e.Fields, 1)
			require.Equal(t, "issuer.acme."+r.field, e.Fields[0].Name)
			require.Contains(t, e.Fields[0].Msg, r.says)
			require.NotContains(t, e.Fields[0].Msg, "s3cret")
			now, err := rpc.GetIssuer(ctx, &ordersv1.GetIssuerRequest{Id: made.GetId()})
			require.NoError(t, err)
			require.Equal(t, made.GetEtag(), now.GetEtag())
		})
	}
}

func TestAPresetKnowsItsCA(t *testing.T) {
	u := calm(t, authorizing)
	rpc := &transport.Server{App: u.now.app}
	ctx := authz.NewContext(t.Context(), authz.Principal{Subject: "user:ann", Team: "web"})
	create := func(preset string, x *ordersv1.AcmeIssuer) (*ordersv1.Issuer, error) {
		return rpc.CreateIssuer(ctx, &ordersv1.CreateIssuerRequest{Preset: preset, Issuer: &ordersv1.Issuer{DisplayName: preset, Acme: x}})
	}
	i, err := create("letsencrypt", nil)
	require.NoError(t, err)
	require.Equal(t, "https://acme-v02.api.letsencrypt.org/directory", i.GetAcme().GetDirectoryUrl())
	_, err = create("zerossl", &ordersv1.AcmeIssuer{ExternalAccount: &ordersv1.ExternalAccount{KeyId: "kid", HmacKey: goodKey}})
	require.NoError(t, err)
	_, err = create("step-ca", &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca.internal/acme/acme/directory"})
	require.NoError(t, err)
	for _, r := range []struct {
		preset, field, says string
		acme                *ordersv1.AcmeIssuer
	}{
		{"letsencrpyt", "preset", "allowed are letsencrypt, letsencrypt-staging, zerossl", nil},
		{"zerossl", "issuer.acme.externalAccount", "give keyId and hmacKey", nil},
		{"step-ca", "issuer.acme.directoryUrl", "has its own", nil},
		{"letsencrypt", "issuer.acme.directoryUrl", "only one of the two", &ordersv1.AcmeIssuer{DirectoryUrl: "https://ca/dir"}},
	} {
		_, err := create(r.preset, r.acme)
		e := errs.As(err)
		require.NotNil(t, e, r.preset)
		require.Equal(t, r.field, e.Fields[0].Name)
		require.Contains(t, e.Fields[0].Msg, r.says)
	}
	all, err := rpc.ListIssuerPresets(ctx, &ordersv1.ListIssuerPresetsRequest{})
	require.NoError(t, err)
	require.Len(t, all.GetPresets(), len(domain.Presets()))
}

func TestADisabledIssuerOrdersNothing(t *testing.T) {
	u := registered(t)
	rpc := &transport.Server{App: u.now.app}
	i, err := rpc.DisableIssuer(t.Context(), &ordersv1.DisableIssuerRequest{Id: "lab"})
	require.NoError(t, err)
	require.True(t, i.GetDisabled())
	o := u.issue(t, 2)
	require.Equal(t, "ISSUER_DISABLED", o.Problem.Reason)
	i, err = rpc.EnableIssuer(t.Context(), &ordersv1.EnableIssuerRequest{Id: "lab"})
	require.NoError(t, err)
	require.False(t, i.GetDisabled())
	require.Equal(t, domain.Issued, u.issue(t, 3).State)
}

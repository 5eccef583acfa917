package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

func shop() *inventoryv1.Certificate {
	return &inventoryv1.Certificate{
		Id: "crt_1", Etag: "7", Owner: "ann", Labels: []string{"billing=1", "tier=2"}, SpecGeneration: 1,
		Spec: &typesv1.CertificateSpec{Issuer: "iss_1", Names: []string{"www.shop.test", "shop.test"}, Challenge: &typesv1.ChallengeSpec{Type: "auto"}},
	}
}

func TestAnUpdateChangesWhatWasAskedAndNothingElse(t *testing.T) {
	e := newEdge(t)
	e.on("GET /v1/certificates/crt_1", shop())
	e.on("GET /v1/issuers/other", &ordersv1.Issuer{Id: "iss_2"})
	e.on("PATCH /v1/certificates/crt_1", shop())
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "update", "crt_1", "--add-name", "api.shop.test", "--remove-name", "shop.test", "--label", "billing=9", "--remove-label", "tier",
		"--issuer", "other", "--manual", "--challenge", "dns-01"), u.err.String())
	got := &inventoryv1.UpdateCertificateRequest{}
	e.body(t, "PATCH /v1/certificates/crt_1", got)
	require.Equal(t, []string{"labels", "spec.names", "spec.issuer", "spec.challenge"}, got.GetUpdateMask().GetPaths())
	require.Equal(t, "7", got.GetEtag(), "who came between is not overwritten")
	want := shop()
	want.Labels, want.Spec.Issuer = []string{"billing=9"}, "iss_2"
	want.Spec.Names, want.Spec.Challenge = []string{"www.shop.test", "api.shop.test"}, &typesv1.ChallengeSpec{Type: "dns-01", Manual: true}
	require.True(t, proto.Equal(want, got.GetCertificate()), got.String())

	require.Equal(t, ExitOK, u.run("certificates", "update", "crt_1", "--profile", "", "--owner", "bob"), u.err.String())
	e.body(t, "PATCH /v1/certificates/crt_1", got)
	require.Equal(t, []string{"owner", "spec.profile"}, got.GetUpdateMask().GetPaths(), "an empty value is one")
}

func TestAnUpdateThatCannotBeSaysWhy(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		says string
	}{
		"nothing to change":         {nil, "nothing is to be changed; give at least one of --add-name"},
		"a name that it has not":    {[]string{"--remove-name", "x.test"}, `--remove-name is "x.test"; the certificate is for www.shop.test, shop.test`},
		"a label that it has not":   {[]string{"--remove-label", "x"}, `--remove-label is "x"; the certificate's labels are [billing=1 tier=2]`},
		"a label that is none":      {[]string{"--label", "x"}, `--label is "x"; allowed is key=value`},
		"somebody else was quicker": {[]string{"--owner", "bob"}, "was edited meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			e.on("GET /v1/certificates/crt_1", shop())
			e.fails("PATCH /v1/certificates/crt_1", errs.New(errs.Conflict, "ETAG_MISMATCH", "certificate crt_1 was edited meanwhile"))
			u := newUser(t, e)
			require.NotEqual(t, ExitOK, u.run(append([]string{"certificates", "update", "crt_1"}, row.args...)...))
			require.Contains(t, u.err.String(), row.says)
		})
	}
}

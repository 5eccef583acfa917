package inventory_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

func TestACreatedCertificateHasItsFirstIntentOpen(t *testing.T) {
	w := newWorld(t)
	r := request("www.Example.org", "b.example.org", "a.example.org")
	r.Certificate.DisplayName, r.Certificate.Labels = "Shop", []string{"env=prod"}
	c, err := w.api.CreateCertificate(person, r)
	require.NoError(t, err)
	require.Equal(t, "pending", c.GetState())
	require.Equal(t, "ops of default", c.GetOwner(), "who asks answers for it")
	require.Equal(t, "token:tok_default", c.GetCreatedBy())
	require.Equal(t, "default", c.GetTeam())
	require.Equal(t, []string{"www.example.org", "a.example.org", "b.example.org"}, c.GetSpec().GetNames())
	require.Equal(t, "iss_1", c.GetSpec().GetIssuer(), "the display name became the id")
	require.Equal(t, "ECDSA_P256", c.GetSpec().GetKeyAlgorithm())
	require.Equal(t, "auto", c.GetSpec().GetChallenge().GetType())

	facts := told[*certificateeventsv1.Requested](w)
	require.Len(t, facts, 1)
	require.Empty(t, cmpProto(&certificateeventsv1.Requested{
		CertificateId: c.GetId(), IntentNumber: 1, OrderId: c.GetIntent().GetOrderId(), SpecGeneration: 1, Spec: c.GetSpec(), Cause: "created", Owner: "ops of default",
	}, facts[0]))
	require.Equal(t, []string{"requested/1"}, w.awaited(c.GetId()))
}

func TestARepeatedCreateAnswersTheFirstResult(t *testing.T) {
	w := newWorld(t)
	r := request("a.example.org")
	r.RequestId = "r1"
	first, err := w.api.CreateCertificate(person, r)
	require.NoError(t, err)
	w.peers.away = errs.New(errs.Unavailable, "", "orders is away")
	second, err := w.api.CreateCertificate(person, r)
	require.NoError(t, err, "a repeat asks nobody")
	require.Equal(t, first.GetId(), second.GetId())
	require.Len(t, told[*certificateeventsv1.Requested](w), 1)

	other := request("b.example.org")
	other.RequestId = "r1"
	_, err = w.api.CreateCertificate(person, other)
	mustFail(t, errs.AlreadyExists, "REQUEST_ID_REUSED", err)
	require.ErrorContains(t, err, first.GetId())
}

func TestACreateThatWasInterruptedGoesOnWithTheSameID(t *testing.T) {
	w := newWorld(t)
	r := request("a.example.org")
	r.RequestId = "r1"
	w.peers.away = errs.New(errs.Unavailable, "", "orders is away")
	_, err := w.api.CreateCertificate(person, r)
	e := mustFail(t, errs.Unavailable, "ISSUER_NOT_CHECKED", err)
	require.Contains(t, e.Msg, `the issuer "Main CA" could not be checked, nothing was changed; try again`)
	w.peers.away = nil
	_, err = w.api.CreateCertificate(person, r)
	require.NoError(t, err)
	require.Len(t, told[*certificateeventsv1.Requested](w), 1)
}

func TestTheSameIssuerAndNamesTwiceAreRefused(t *testing.T) {
	w := newWorld(t)
	first := w.create("a.example.org", "b.example.org")
	_, err := w.api.CreateCertificate(person, request("B.example.org", "a.example.org"))
	e := mustFail(t, errs.AlreadyExists, "CERTIFICATE_EXISTS", err)
	require.Contains(t, e.Msg, first.GetId())
	require.Contains(t, e.Msg, "allowDuplicate")
	require.Equal(t, first.GetId(), e.Meta["first"])

	_, err = w.api.CreateCertificate(as("red"), request("a.example.org", "b.example.org"))
	e = mustFail(t, errs.AlreadyExists, "CERTIFICATE_EXISTS", err)
	require.NotContains(t, e.Msg, first.GetId(), "what belongs to another team is not named")

	duplicate := request("a.example.org", "b.example.org")
	duplicate.Certificate.AllowDuplicate = true
	_, err = w.api.CreateCertificate(person, duplicate)
	require.NoError(t, err)

	_, err = w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: first.GetId()})
	require.NoError(t, err)
	_, err = w.api.CreateCertificate(person, request("a.example.org", "b.example.org"))
	require.NoError(t, err, "a tombstone takes no place")
}

func TestAnInvalidCertificateIsRefusedFieldByField(t *testing.T) {
	type change func(r *inventoryv1.CreateCertificateRequest)
	spec := func(f func(s *typesv1.CertificateSpec)) change {
		return func(r *inventoryv1.CreateCertificateRequest) { f(r.Certificate.Spec) }
	}
	for name, row := range map[string]struct {
		change change
		field  string
		msg    string
	}{
		"no issuer":            {spec(func(s *typesv1.CertificateSpec) { s.Issuer = "" }), "certificate.spec.issuer", "is required"},
		"an unknown issuer":    {spec(func(s *typesv1.CertificateSpec) { s.Issuer = "nope" }), "certificate.spec.issuer", `there is no issuer "nope"`},
		"a disabled issuer":    {spec(func(s *typesv1.CertificateSpec) { s.Issuer = "iss_2" }), "certificate.spec.issuer", `issuer "Old CA" (iss_2) is disabled`},
		"an issuer of a team":  {spec(func(s *typesv1.CertificateSpec) { s.Issuer = "iss_3" }), "certificate.spec.issuer", `there is no issuer "iss_3"`},
		"no names":             {spec(func(s *typesv1.CertificateSpec) { s.Names = nil }), "certificate.spec.names", "is required"},
		"a bad name":           {spec(func(s *typesv1.CertificateSpec) { s.Names = []string{"a.example.org", "b_c.example"} }), "certificate.spec.names[1]", "underscore"},
		"an address":           {spec(func(s *typesv1.CertificateSpec) { s.Names = []string{"192.0.2.1"} }), "certificate.spec.names[0]", "set spec.profile"},
		"a weak key":           {spec(func(s *typesv1.CertificateSpec) { s.KeyAlgorithm = "RSA_1024" }), "certificate.spec.keyAlgorithm", `"RSA_1024" is too weak, no CA issues for it; allowed: RSA_2048, RSA_3072, RSA_4096, ECDSA_P256, ECDSA_P384`},
		"an unknown key":       {spec(func(s *typesv1.CertificateSpec) { s.KeyAlgorithm = "ED448" }), "certificate.spec.keyAlgorithm", `"ED448" is not known; allowed: RSA_2048`},
		"an unknown challenge": {spec(func(s *typesv1.CertificateSpec) { s.Challenge = &typesv1.ChallengeSpec{Type: "dns-02"} }), "certificate.spec.challenge.type", "allowed: auto, http-01, dns-01, tls-alpn-01"},
		"a wildcard over http-01": {spec(func(s *typesv1.CertificateSpec) {
			s.Names, s.Challenge = []string{"*.example.org"}, &typesv1.ChallengeSpec{Type: "http-01"}
		}), "certificate.spec.names[0]", "choose dns-01 or auto"},
		"an end in the past":      {spec(func(s *typesv1.CertificateSpec) { s.NotAfter = timestamppb.New(start.Add(-time.Second)) }), "certificate.spec.notAfter", "2026-11-22T11:59:59Z is in the past"},
		"a label without a value": {func(r *inventoryv1.CreateCertificateRequest) { r.Certificate.Labels = []string{"a=1", "b"} }, "certificate.labels[1]", `"b" is not of the form key=value`},
		"a label key twice":       {func(r *inventoryv1.CreateCertificateRequest) { r.Certificate.Labels = []string{"a=1", "a=2"} }, "certificate.labels[1]", `the key "a" is the same as in labels[0]`},
		"too long an owner":       {func(r *inventoryv1.CreateCertificateRequest) { r.Certificate.Owner = strings.Repeat("x", 201) }, "certificate.owner", "at most 200"},
		"a target twice":          {func(r *inventoryv1.CreateCertificateRequest) { r.DeployTo = []string{"tgt_1", "tgt_1"} }, "deployTo", "entries that differ"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := request("a.example.org")
			row.change(r)
			_, err := w.api.CreateCertificate(person, r)
			e := mustFail(t, errs.Invalid, "INVALID_ARGUMENT", err)
			require.Equal(t, row.field, e.Fields[0].Name, "%v", e)
			require.Contains(t, e.Fields[0].Msg, row.msg)
			require.Empty(t, w.types())
		})
	}
}

func TestSeveralMistakesAreSaidAtOnce(t *testing.T) {
	w := newWorld(t)
	r := request("a_b.example", "")
	r.Certificate.Spec.KeyAlgorithm = "RSA_1024"
	_, err := w.api.CreateCertificate(person, r)
	require.Len(t, mustFail(t, errs.Invalid, "INVALID_ARGUMENT", err).Fields, 3)
}

func TestAnAddressIsAcceptedWhereAProfileIsNamed(t *testing.T) {
	w := newWorld(t)
	r := request("192.0.2.1")
	r.Certificate.Spec.Profile = "shortlived"
	_, err := w.api.CreateCertificate(person, r)
	require.NoError(t, err)
}

func TestATeamSeesItsOwnCertificatesOnly(t *testing.T) {
	w := newWorld(t)
	r := request("a.example.org")
	r.Certificate.Team = "red"
	_, err := w.api.CreateCertificate(person, r)
	require.ErrorContains(t, err, `team "red" given, allowed: "default", your own`)
	mustFail(t, errs.Forbidden, "TEAM_FORBIDDEN", err)

	c, err := w.api.CreateCertificate(as("*"), r)
	require.NoError(t, err, "who sees all teams may create for one")
	id := c.GetId()
	for name, call := range map[string]func() error{
		"get": func() error {
			_, err := w.api.GetCertificate(person, &inventoryv1.GetCertificateRequest{Id: id})
			return err
		},
		"renew": func() error {
			_, err := w.api.RenewCertificate(person, &inventoryv1.RenewCertificateRequest{Id: id})
			return err
		},
		"update": func() error {
			_, err := w.api.UpdateCertificate(person, &inventoryv1.UpdateCertificateRequest{Id: id})
			return err
		},
		"delete": func() error {
			_, err := w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: id})
			return err
		},
		"revoke": func() error {
			_, err := w.api.RevokeCertificate(person, &inventoryv1.RevokeCertificateRequest{Id: id})
			return err
		},
		"versions": func() error {
			_, err := w.api.ListVersions(person, &inventoryv1.ListVersionsRequest{Id: id})
			return err
		},
		"export": func() error {
			_, err := w.api.ExportCertificate(person, &inventoryv1.ExportCertificateRequest{Id: id})
			return err
		},
	} {
		require.Equal(t, errs.NotFound, errs.KindOf(call()), name)
	}
	list, err := w.api.ListCertificates(person, &inventoryv1.ListCertificatesRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetCertificates())
	changes, err := w.api.ListChanges(person, &inventoryv1.ListChangesRequest{})
	require.NoError(t, err)
	require.Empty(t, changes.GetChanges())
	changes, err = w.api.ListChanges(machine, &inventoryv1.ListChangesRequest{})
	require.NoError(t, err)
	require.Len(t, changes.GetChanges(), 1)
}

func TestListsFilterByEveryDeclaredTerm(t *testing.T) {
	t.Run("in memory", func(t *testing.T) { lists(t, newWorld(t)) })
	t.Run("in SQLite", func(t *testing.T) { lists(t, newWorldOn(t, clock.NewFake(start), testkit.Store(t))) })
}

func lists(t *testing.T, w *world) {
	make := func(name, owner string, labels ...string) *inventoryv1.Certificate {
		r := request(name)
		r.Certificate.Owner, r.Certificate.Labels = owner, labels
		c, err := w.api.CreateCertificate(person, r)
		require.NoError(t, err)
		return c
	}
	pending := make("pending.example.org", "Ann", "env=prod", "tier=1", "note=a AND b")
	active := w.issue(make("active.example.org", "bob", "env=prod"))
	revoked := w.issue(make("revoked.example.org", "bob", "env=test"))
	w.revoke(t, revoked.GetId(), true)
	gone := make("gone.example.org", "bob")
	_, err := w.api.DeleteCertificate(person, &inventoryv1.DeleteCertificateRequest{Id: gone.GetId()})
	require.NoError(t, err)
	p, a, r, g := pending.GetId(), active.GetId(), revoked.GetId(), gone.GetId()

	list := func(filter string) []string {
		out, err := w.api.ListCertificates(person, &inventoryv1.ListCertificatesRequest{Filter: filter})
		require.NoError(t, err, filter)
		ids := []string{}
		for _, c := range out.GetCertificates() {
			ids = append(ids, c.GetId())
		}
		return ids
	}
	for filter, want := range map[string][]string{
		"":                                    {p, a, r},
		"state=pending":                       {p},
		"state=active":                        {a},
		"state=revoked":                       {r},
		"state=expired":                       {},
		"state=deleted":                       {g},
		"owner=ann":                           {p},
		"owner=BOB":                           {a, r},
		"owner=bob AND state=active":          {a},
		"label=env=prod":                      {p, a},
		"label=env=prod AND label=tier=1":     {p},
		`label="note=a AND b"`:                {p},
		"label=env=prod AND state=pending":    {p},
		"name=Active.Example.org":             {a},
		"name=gone.example.org":               {},
		"issuer=iss_1 AND label=env=test":     {r},
		"issuer=iss_2":                        {},
		"team=default":                        {p, a, r},
		"team=red":                            {},
		"expires_before=2027-03-01T00:00:00Z": {a, r},
		"expires_before=2027-02-01T00:00:00Z": {},
		"state=active AND expires_before=2027-03-01T00:00:00Z": {a},
	} {
		require.ElementsMatch(t, want, list(filter), filter)
	}
	w.clk.Advance(91 * 24 * time.Hour)
	require.Equal(t, []string{a}, list("state=expired"))
	require.Equal(t, "expired", w.get(a).GetState())
	require.Equal(t, "revoked", w.get(r).GetState())

	for filter, want := range map[string]string{
		"colour=red":               `the filter names the field "colour"; allowed are owner, team, issuer, name, label, state, expires_before`,
		"state=lost":               "allowed: pending, active, expired, revoked, deleted",
		"expires_before=soon":      "allowed is a moment such as",
		"label=env":                "allowed is label=key=value",
		"state=deleted AND name=x": "can be filtered by team only",
	} {
		_, err := w.api.ListCertificates(person, &inventoryv1.ListCertificatesRequest{Filter: filter})
		require.Contains(t, mustFail(t, errs.Invalid, "BAD_FILTER", err).Msg, want)
	}
	_, err = w.api.ListCertificates(person, &inventoryv1.ListCertificatesRequest{PageSize: 1001})
	mustFail(t, errs.Invalid, "BAD_PAGE_SIZE", err)
	first, err := w.api.ListCertificates(as("*"), &inventoryv1.ListCertificatesRequest{PageSize: 2})
	require.NoError(t, err)
	second, err := w.api.ListCertificates(as("*"), &inventoryv1.ListCertificatesRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	require.NoError(t, err)
	require.Len(t, first.GetCertificates(), 2)
	require.Len(t, second.GetCertificates(), 1)
	require.Empty(t, second.GetNextPageToken())
}

func cmpProto(a, b proto.Message) string {
	if proto.Equal(a, b) {
		return ""
	}
	return protoText(a) + "\nis not\n" + protoText(b)
}

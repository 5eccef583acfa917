package domain

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestThePresetsAreWhole(t *testing.T) {
	names := map[string]Preset{}
	for _, p := range Presets() {
		require.Regexp(t, `^[a-z0-9-]+$`, p.Name)
		require.NotContains(t, names, p.Name, "two presets have one name")
		require.NotEmpty(t, p.DisplayName, p.Name)
		require.NotEmpty(t, p.Note, p.Name)
		for _, text := range []string{p.DirectoryURL, p.DocumentationURL} {
			if p.Name == "step-ca" && text == "" {
				continue
			}
			u, err := url.Parse(text)
			require.NoError(t, err, p.Name)
			require.Equal(t, "https", u.Scheme, "%s: %q", p.Name, text)
			require.NotEmpty(t, u.Host, p.Name)
		}
		names[p.Name] = p
	}
	for _, p := range Presets() {
		if p.Staging != "" {
			require.Contains(t, names, p.Staging)
			require.Equal(t, p.ExternalAccountRequired, names[p.Staging].ExternalAccountRequired)
		}
	}
	_, ok := PresetByName("letsencrypt")
	require.True(t, ok)
	_, ok = PresetByName("nobody")
	require.False(t, ok)
}

func TestWhatSpeaksAgainstAnIssuerIsSaidInOrder(t *testing.T) {
	all := Meta{TermsOfService: "https://ca/terms", ExternalAccountRequired: true}
	require.Equal(t, "TERMS_NOT_AGREED", Issuer{}.Unfit(all).Reason)
	require.Equal(t, "EXTERNAL_ACCOUNT_REQUIRED", Issuer{TermsAgreed: true}.Unfit(all).Reason)
	require.Nil(t, Issuer{TermsAgreed: true, EABKeyID: "k"}.Unfit(all))
	require.Nil(t, Issuer{}.Unfit(Meta{}))
	require.Nil(t, UnknownProfile("", Meta{}))
	require.Nil(t, UnknownProfile("a", Meta{Profiles: []string{"a"}}))
	require.Contains(t, UnknownProfile("c", Meta{Profiles: []string{"a", "b"}}).Detail, "allowed are a, b")
	require.Contains(t, UnknownProfile("c", Meta{}).Detail, "it has none")
}

// cert makes a certificate with these common names.
func cert(t *testing.T, subject, issuer string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject}, NotAfter: t0.Add(time.Hour)}
	parent := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: issuer}}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), key)
	require.NoError(t, err)
	return der
}

func TestTheChainToThePreferredRootIsTaken(t *testing.T) {
	leaf := cert(t, "www.example.org", "R1")
	short, cross := [][]byte{leaf, cert(t, "R1", "Root X1")}, [][]byte{leaf, cert(t, "R1", "Root X1"), cert(t, "Root X1", "Old Root X3")}
	own := [][]byte{leaf, cert(t, "R1", "Root X2"), cert(t, "Root X2", "Root X2")}
	for _, r := range []struct {
		name, wanted string
		chains, want [][][]byte
		why          string
	}{
		{"no wish takes the default", "", [][][]byte{cross, short}, [][][]byte{cross}, ""},
		{"the default may be the one", "Old Root X3", [][][]byte{cross, short}, [][][]byte{cross}, ""},
		{"only the top counts", "Root X1", [][][]byte{cross[:2], cross}, [][][]byte{cross[:2]}, ""},
		{"an alternate is taken", "Root X1", [][][]byte{own, short}, [][][]byte{short}, ""},
		{"a chain may bring its root", "Root X2", [][][]byte{short, own}, [][][]byte{own}, ""},
		{"a wish that cannot be met is said", "Root Y", [][][]byte{short, own}, [][][]byte{short}, `no chain to the root "Root Y"`},
		{"what cannot be read is left to the check", "Root Y", [][][]byte{{{1}}, {}}, [][][]byte{{{1}}}, "the default was taken"},
	} {
		t.Run(r.name, func(t *testing.T) {
			got, why := ChooseChain(r.chains, r.wanted)
			require.Equal(t, r.want[0], got)
			require.Contains(t, why, r.why)
			require.Equal(t, r.why == "", why == "")
		})
	}
	got, why := ChooseChain(nil, "x")
	require.Nil(t, got)
	require.Empty(t, why)
}

func TestAnswersMadeWithAnOldAccountKeyAreAskedForAnew(t *testing.T) {
	o := fresh()
	require.NoError(t, o.OpenAttempt("acc_1", "lease", t0))
	o.Ordered(CAOrder{URL: "https://ca/order/1"})
	_, err := o.NeedAuthorizations([]Authorization{{State: AuthzPending, Identifier: "www.example.org"}}, "lease", t0)
	require.NoError(t, err)
	facts, err := o.KeyChanged(t0)
	require.NoError(t, err)
	require.NotEmpty(t, facts, "the challenge is closed")
	require.Equal(t, Queued, o.State)
	require.Equal(t, "ACCOUNT_KEY_CHANGED", o.Attempts[0].Problem.Reason)
	o.State = Finalizing
	facts, err = o.KeyChanged(t0)
	require.NoError(t, err)
	require.Empty(t, facts, "from finalize on no answer is looked at any more")
}

package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
)

func keyPair(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.example"}, NotAfter: t0.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func TestExportWritesFilesThatOnlyTheRightPeopleCanRead(t *testing.T) {
	leaf, key := keyPair(t)
	chain, foreign := keyPair(t)
	e := newEdge(t)
	e.on("POST /v1/certificates/crt_1:export", &inventoryv1.ExportCertificateResponse{VersionId: "ver_1", CertificatePem: leaf, ChainPem: chain, KeyId: "key_1"})
	e.on("POST /v1/keys/key_1:export", &keysv1.ExportKeyResponse{PrivateKeyPem: key})
	u := newUser(t, e)

	t.Run("without anything the full chain goes to standard output", func(t *testing.T) {
		require.Equal(t, ExitOK, u.run("certificates", "export", "crt_1"), u.err.String())
		require.Equal(t, leaf+chain, u.out.String())
		require.NotContains(t, e.calls, "POST /v1/keys/key_1:export", "no key was asked for")
	})
	t.Run("files, the key for its owner alone even where a readable one was", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "privkey.pem"), []byte("old"), 0o644))
		require.Equal(t, ExitOK, u.run("certificates", "export", "crt_1", "--out", dir, "--with-key"), u.err.String())
		for name, want := range map[string]struct {
			text string
			mode os.FileMode
		}{"cert.pem": {leaf, 0o644}, "chain.pem": {chain, 0o644}, "fullchain.pem": {leaf + chain, 0o644}, "privkey.pem": {key, 0o600}} {
			got, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, want.text, string(got), name)
			info, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, want.mode, info.Mode().Perm(), name)
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, 4, "no temporary file stays")
		require.NotContains(t, u.out.String()+u.err.String(), "PRIVATE KEY")
	})
	t.Run("without --with-key there is no key file", func(t *testing.T) {
		dir := t.TempDir()
		require.Equal(t, ExitOK, u.run("certificates", "export", "crt_1", "--out", dir, "-o", "json"), u.err.String())
		require.NoFileExists(t, filepath.Join(dir, "privkey.pem"))
		require.Contains(t, u.out.String(), `"versionId": "ver_1"`)
	})
	t.Run("standard output only when that is meant", func(t *testing.T) {
		require.Equal(t, ExitOK, u.run("certificates", "export", "crt_1", "--key-to-stdout"), u.err.String())
		require.Equal(t, key+leaf+chain, u.out.String())
	})
	t.Run("a key of another certificate is not written", func(t *testing.T) {
		e.on("POST /v1/keys/key_1:export", &keysv1.ExportKeyResponse{PrivateKeyPem: foreign})
		dir := t.TempDir()
		require.Equal(t, ExitError, u.run("certificates", "export", "crt_1", "--out", dir, "--with-key"))
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
		require.NotContains(t, u.err.String(), "PRIVATE KEY")
	})
}

func TestSecretsComeFromFilesAndAreShownOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("s3cr3t-of-mine\n"), 0o600))
	e := newEdge(t)
	u := newUser(t, e)

	echo := func(m proto.Message) func(*http.Request, []byte) (proto.Message, error) {
		return func(*http.Request, []byte) (proto.Message, error) { return m, nil }
	}
	e.does("POST /v1/dnsAccounts", echo(&dnsv1.DNSAccount{Id: "dac_1"}))
	require.Equal(t, ExitOK, u.run("dns", "create", "internal", "--server", "127.0.0.1:53", "--zone", "example.org", "--tsig-key-name", "k.", "--tsig-secret-file", file), u.err.String())
	d := &dnsv1.CreateDNSAccountRequest{}
	e.body(t, "POST /v1/dnsAccounts", d)
	require.Equal(t, "s3cr3t-of-mine", d.GetDnsAccount().GetRfc2136().GetTsigSecret())
	require.NotContains(t, u.out.String()+u.err.String(), "s3cr3t")

	e.does("POST /v1/channels", echo(&notificationsv1.Channel{Id: "chn_1", Kind: "webhook", Webhook: &notificationsv1.Webhook{Url: "https://x", Secret: "s3cr3t-of-mine"}}))
	require.Equal(t, ExitOK, u.run("channels", "create", "hook", "--webhook-url", "https://x", "--webhook-secret-file", file, "-o", "json"), u.err.String())
	require.NotContains(t, u.out.String()+u.err.String(), "s3cr3t", "a secret of the user's own is not repeated")
	require.Equal(t, ExitOK, u.run("channels", "create", "hook", "--webhook-url", "https://x"), u.err.String())
	require.Contains(t, u.out.String(), "s3cr3t", "a new one is shown once")
	require.Equal(t, ExitUsage, u.run("channels", "create", "hook"), "one kind has to be chosen")

	e.does("POST /v1/tokens", echo(&identityv1.CreateTokenResponse{Token: &identityv1.Token{Id: "tok_1"}, Secret: "new-s3cr3t"}))
	out := filepath.Join(t.TempDir(), "token")
	require.Equal(t, ExitOK, u.run("tokens", "create", "ci", "--permission", "orders.read", "--expires", "90d", "--secret-out", out, "-o", "json"), u.err.String())
	require.NotContains(t, u.out.String()+u.err.String(), "s3cr3t")
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "new-s3cr3t\n", string(got))
	info, err := os.Stat(out)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.Equal(t, ExitUsage, u.run("tokens", "create", "ci"), "a token that may do nothing is a mistake")
}

func TestNoFlagTakesASecretAsItsValue(t *testing.T) {
	root := (&app{Options: newUser(t, nil).o}).root(nil)
	for _, name := range []string{"token", "password", "secret", "tsig-secret", "smtp-password", "webhook-secret"} {
		each(root, func(c *cobra.Command) {
			require.Nil(t, c.Flags().Lookup(name), c.CommandPath())
			require.Nil(t, c.PersistentFlags().Lookup(name), c.CommandPath())
		})
	}
}

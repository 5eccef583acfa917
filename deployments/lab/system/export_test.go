package system_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// A certificate leaves with its key in a keystore, by the command line as a person would do it; every release is in the audit trail.
func TestACertificateIsExportedAsKeystore(t *testing.T) {
	t.Parallel()
	s, issuer := start(t, stage.Options{})
	ctx := labtest.Deadline(t, time.Minute)
	made, err := s.Request(ctx, issuer.GetId(), "http-01", nil, "www.shop.test")
	require.NoError(t, err)
	got, err := s.Version(ctx, made.GetId(), "")
	require.NoError(t, err)
	facts := got.GetCurrentVersion().GetFacts()

	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(password, []byte("correct horse\n"), 0o600))
	roots := filepath.Join(dir, "edge.pem")
	require.NoError(t, os.WriteFile(roots, s.Running.EdgeRoots, 0o600))
	run := func(args ...string) (string, error) {
		c := exec.CommandContext(ctx, binary(t), append([]string{"certificates", "export", "www.shop.test", "--out", dir}, args...)...) //nolint:gosec // our own program
		c.Env = []string{"HOME=" + dir, "CERTWRIGHT_URL=" + s.Running.Edge, "CERTWRIGHT_TOKEN_FILE=" + s.Running.AdminTokenFile, "CERTWRIGHT_CA_FILE=" + roots}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for format, file := range map[string]string{"pkcs12": "keystore.p12", "pkcs12-legacy": "keystore.p12", "jks": "keystore.jks"} {
		out, err := run("--format", format, "--password-file", password)
		require.NoError(t, err, out)
		path := filepath.Join(dir, file)
		fi, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
		if format == "jks" {
			continue // read back where it is made
		}
		text, err := os.ReadFile(path) //nolint:gosec // the test's own
		require.NoError(t, err)
		key, leaf, chain, err := pkcs12.DecodeChain(text, "correct horse")
		require.NoError(t, err)
		require.Equal(t, facts.GetSerial(), leaf.SerialNumber.Text(16))
		require.NotEmpty(t, chain)
		require.NotNil(t, key)
	}
	out, err := run("--format", "csr")
	require.NoError(t, err, out)
	text, err := os.ReadFile(filepath.Join(dir, "request.csr")) //nolint:gosec // the test's own
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, []string{"www.shop.test"}, csr.DNSNames)

	var refused *client.Error
	err = s.Call(ctx, http.MethodPost, "/v1/keys/"+facts.GetKeyId()+":export", &keysv1.ExportKeyRequest{Format: "PFX"}, &keysv1.ExportKeyResponse{})
	require.True(t, errors.As(err, &refused), "%v", err)
	require.Equal(t, http.StatusBadRequest, refused.Status)
	require.Contains(t, refused.Body, "EXPORT_INVALID")
	require.Contains(t, refused.Body, `is \"PFX\"; allowed are PEM, DER, PKCS12, PKCS12_LEGACY, JKS`)

	require.NoError(t, stage.Until(ctx, s, "/v1/audit?filter=subject%3D"+facts.GetKeyId(), &identityv1.ListAuditResponse{}, func(l *identityv1.ListAuditResponse) bool {
		n := 0
		for _, e := range l.GetEntries() {
			if e.GetMethod() == keysv1.KeysService_ExportKey_FullMethodName {
				n++
			}
		}
		return n == 3 // what was refused let no key out
	}))
}

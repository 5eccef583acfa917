package material_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

var now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// issued makes a key, PKCS#8, and a chain of a leaf and its CA.
func issued(t *testing.T, algorithm string) (pkcs8 []byte, chain [][]byte) {
	t.Helper()
	sign := func(n int64, name string, ca bool, parent *x509.Certificate, by, key crypto.Signer) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: ca, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	caKey, err := material.Generate(domain.ECDSAP256)
	require.NoError(t, err)
	key, err := material.Generate(algorithm)
	require.NoError(t, err)
	ca := sign(1, "CA", true, nil, caKey, caKey)
	leaf := sign(2, "www.shop.test", false, ca, caKey, key)
	pkcs8, err = material.PKCS8(key)
	require.NoError(t, err)
	return pkcs8, [][]byte{leaf.Raw, ca.Raw}
}

func TestKeystoresAreReadByOthers(t *testing.T) {
	const password = "correct horse"
	for _, algorithm := range []string{domain.ECDSAP256, domain.ECDSAP384, domain.RSA2048} {
		for _, format := range []string{material.FormatPKCS12, material.FormatPKCS12Legacy} {
			t.Run(algorithm+" as "+format, func(t *testing.T) {
				pkcs8, chain := issued(t, algorithm)
				file, err := material.Keystore(material.Export{Format: format, Password: secret.New(password)}, pkcs8, chain, now)
				require.NoError(t, err)
				key, leaf, cas, err := pkcs12.DecodeChain(file, password)
				require.NoError(t, err)
				got, err := x509.MarshalPKCS8PrivateKey(key)
				require.NoError(t, err)
				require.Equal(t, pkcs8, got)
				require.Equal(t, chain, [][]byte{leaf.Raw, cas[0].Raw})
				_, _, _, err = pkcs12.DecodeChain(file, "another")
				require.ErrorIs(t, err, pkcs12.ErrIncorrectPassword)
				openssl(t, file, password, pkcs8)
			})
		}
		t.Run(algorithm+" as JKS", func(t *testing.T) {
			pkcs8, chain := issued(t, algorithm)
			file, err := material.Keystore(material.Export{Format: material.FormatJKS, Password: secret.New(password), Alias: "tomcat"}, pkcs8, chain, now)
			require.NoError(t, err)
			ks := keystore.New()
			open, err := os.Open(write(t, file))
			require.NoError(t, err)
			defer open.Close() //nolint:errcheck // only read
			require.NoError(t, ks.Load(open, []byte(password)))
			require.Equal(t, []string{"tomcat"}, ks.Aliases())
			entry, err := ks.GetPrivateKeyEntry("tomcat", []byte(password))
			require.NoError(t, err)
			require.Equal(t, pkcs8, entry.PrivateKey)
			require.Len(t, entry.CertificateChain, 2)
			require.Equal(t, chain[0], entry.CertificateChain[0].Content)
			require.True(t, now.Equal(entry.CreationTime))
		})
	}
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keystore")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

// openssl reads the file too, as most people will.
func openssl(t *testing.T, file []byte, password string, pkcs8 []byte) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		testkit.Missing(t, "openssl")
	}
	args := []string{"pkcs12", "-in", write(t, file), "-passin", "pass:" + password, "-nodes", "-nocerts"}
	out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput() //nolint:gosec // the test's own words
	require.NoError(t, err, "%s", out)
	for rest := out; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		require.NotNil(t, block, "openssl finds no key")
		if block.Type == "PRIVATE KEY" {
			require.Equal(t, pkcs8, block.Bytes)
			return
		}
	}
}

func TestAnExportThatCannotBeMadeSaysWhy(t *testing.T) {
	for name, row := range map[string]struct {
		export material.Export
		field  string
		says   string
	}{
		"an unknown format":             {material.Export{Format: "PFX"}, "format", `is "PFX"; allowed are PEM, DER, PKCS12, PKCS12_LEGACY, JKS`},
		"a keystore without a password": {material.Export{Format: "PKCS12"}, "password", "is empty; a PKCS12 keystore is encrypted, give it a password"},
		"a short password for Java":     {material.Export{Format: "JKS", Password: secret.New("short")}, "password", "has 5 characters; Java reads keystores whose password has at least 6"},
		"a password for nothing":        {material.Export{Password: secret.New("x")}, "password", "is given, but PEM is not encrypted; leave it out, or choose PKCS12"},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.export.Validate()
			require.Equal(t, "EXPORT_INVALID", errs.ReasonOf(err))
			require.Equal(t, row.field, errs.As(err).Fields[0].Name)
			require.Equal(t, row.says, errs.As(err).Fields[0].Msg)
		})
	}
}

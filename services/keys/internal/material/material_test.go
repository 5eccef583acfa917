package material

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

func TestEveryAlgorithmMakesAKeyThatSurvivesEncoding(t *testing.T) {
	for _, algorithm := range domain.Algorithms() {
		t.Run(algorithm, func(t *testing.T) {
			key, err := Generate(algorithm)
			require.NoError(t, err)
			switch k := key.(type) {
			case *rsa.PrivateKey:
				require.Equal(t, algorithm[4:], big.NewInt(int64(k.N.BitLen())).String())
			case *ecdsa.PrivateKey:
				require.Equal(t, map[string]elliptic.Curve{domain.ECDSAP256: elliptic.P256(), domain.ECDSAP384: elliptic.P384()}[algorithm], k.Curve)
			default:
				t.Fatalf("%T", key)
			}
			der, err := PKCS8(key)
			require.NoError(t, err)
			back, err := Parse(der)
			require.NoError(t, err)
			require.True(t, key.(interface {
				Equal(x crypto.PrivateKey) bool
			}).Equal(back))
			require.True(t, strings.HasPrefix(string(PEM(der)), "-----BEGIN PRIVATE KEY-----\n"))
		})
	}
	_, err := Generate("RSA_1024")
	require.Error(t, err)
}

func TestCSR(t *testing.T) {
	long := strings.Repeat("a", 63) + ".example"
	tests := map[string]struct {
		names []string
		cn    string
		dns   []string
		ips   []string
	}{
		"the first name is the common name and every name a SAN": {[]string{"b.example", "a.example"}, "b.example", []string{"b.example", "a.example"}, nil},
		"a first name of more than 64 bytes is a SAN only":       {[]string{long, "a.example"}, "", []string{long, "a.example"}, nil},
		"an address is no common name":                           {[]string{"192.0.2.1", "a.example", "2001:db8::1"}, "", []string{"a.example"}, []string{"192.0.2.1", "2001:db8::1"}},
		"a wildcard may be the common name":                      {[]string{"*.a.example"}, "*.a.example", []string{"*.a.example"}, nil},
	}
	key, err := Generate(domain.ECDSAP256)
	require.NoError(t, err)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			der, err := CSR(key, tt.names)
			require.NoError(t, err)
			csr, err := x509.ParseCertificateRequest(der)
			require.NoError(t, err)
			require.NoError(t, csr.CheckSignature())
			require.Equal(t, tt.cn, csr.Subject.CommonName)
			require.Empty(t, cmp.Diff(tt.dns, csr.DNSNames))
			var ips []string
			for _, ip := range csr.IPAddresses {
				ips = append(ips, ip.String())
			}
			require.Empty(t, cmp.Diff(tt.ips, ips))
		})
	}
}

func TestSignaturesVerifyWithTheJWK(t *testing.T) {
	for algorithm, want := range map[string]string{domain.RSA2048: "RS256", domain.ECDSAP256: "ES256", domain.ECDSAP384: "ES384"} {
		t.Run(want, func(t *testing.T) {
			key, err := Generate(algorithm)
			require.NoError(t, err)
			sig, alg, err := Sign(key, []byte("header.payload"))
			require.NoError(t, err)
			require.Equal(t, want, alg)
			text, err := JWK(key.Public())
			require.NoError(t, err)
			var jwk map[string]string
			require.NoError(t, json.Unmarshal([]byte(text), &jwk))
			num := func(name string) *big.Int {
				raw, err := base64.RawURLEncoding.DecodeString(jwk[name])
				require.NoError(t, err)
				return new(big.Int).SetBytes(raw)
			}
			if jwk["kty"] == "RSA" {
				digest := sha256.Sum256([]byte("header.payload"))
				pub := &rsa.PublicKey{N: num("n"), E: int(num("e").Int64())}
				require.NoError(t, rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig))
				return
			}
			pub := &ecdsa.PublicKey{Curve: elliptic.P256(), X: num("x"), Y: num("y")} //nolint:staticcheck // a JWK gives the coordinates (RFC 7518 section 6.2.1)
			sum := sha256.Sum256([]byte("header.payload"))
			digest := sum[:]
			if jwk["crv"] == "P-384" {
				pub.Curve = elliptic.P384()
				sum := sha512.Sum384([]byte("header.payload"))
				digest = sum[:]
			}
			half := len(sig) / 2
			require.True(t, ecdsa.Verify(pub, digest, new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])))
		})
	}
}

func TestOnlyARevocationOfTheKeysOwnCertificateIsSigned(t *testing.T) {
	key, err := Generate(domain.ECDSAP256)
	require.NoError(t, err)
	other, err := Generate(domain.ECDSAP256)
	require.NoError(t, err)
	spki, err := SPKI(key.Public())
	require.NoError(t, err)
	b64 := base64.RawURLEncoding.EncodeToString
	cert := func(pub crypto.PublicKey) string {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.example"}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
		require.NoError(t, err)
		return b64(der)
	}
	head := b64([]byte(`{"alg":"ES256","url":"https://ca/revoke"}`))
	own := b64([]byte(`{"certificate":"` + cert(key.Public()) + `","reason":1}`))
	tests := map[string]struct{ input, why string }{
		"the revocation of its own certificate": {head + "." + own, ""},
		"no JWS":                                {"hello", "it is not of the form header.payload"},
		"an order":                              {head + "." + b64([]byte(`{"identifiers":[]}`)), "the payload names no X.509 certificate"},
		"another key's certificate":             {head + "." + b64([]byte(`{"certificate":"`+cert(other.Public())+`"}`)), "the payload's certificate has another public key"},
		"another algorithm":                     {b64([]byte(`{"alg":"RS256","url":"u"}`)) + "." + own, "the protected header has to have a url and the alg ES256"},
		"a header that is none":                 {"%%." + own, "the protected header is not base64url of a JSON object"},
		"a payload that is none":                {head + ".%%", "the payload is not base64url of a JSON object"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := CheckRevocation(spki, key.Public(), []byte(tt.input))
			if tt.why == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, "NOT_A_REVOCATION", errs.ReasonOf(err))
			require.Contains(t, err.Error(), tt.why)
		})
	}
}

func FuzzCheckRevocation(f *testing.F) {
	key, err := Generate(domain.ECDSAP256)
	require.NoError(f, err)
	f.Add([]byte("e30.e30"))
	f.Add([]byte("."))
	f.Fuzz(func(t *testing.T, input []byte) {
		require.Error(t, CheckRevocation("no such key", key.Public(), input))
	})
}

// Package pki makes throw-away certificates for the lab's own servers. It is never what the platform issues.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/certwright/certwright/shared/clock"
)

const lifetime = 90 * 24 * time.Hour

// Authority is a root that signs directly. The zero value is not usable; see New.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// Pair is a certificate with its key.
type Pair struct {
	CertPEM []byte // leaf first, then the root
	KeyPEM  []byte // PKCS#8; nil when the key is the caller's own
	TLS     tls.Certificate
}

// New makes a root with a fresh P-256 key, valid for 90 days.
func New(commonName string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make root key: %w", err)
	}
	t, err := template(commonName)
	if err != nil {
		return nil, err
	}
	t.IsCA = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse root: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// RootPEM is the root certificate.
func (a *Authority) RootPEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Pool is a pool that holds the root alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Issue makes a server certificate with a fresh P-256 key. Names may be DNS names, wildcards or IP addresses.
func (a *Authority) Issue(names ...string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key: %w", err)
	}
	p, err := a.IssueFor(key.Public(), names...)
	if err != nil {
		return Pair{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key: %w", err)
	}
	p.KeyPEM = encode("PRIVATE KEY", der)
	p.TLS.PrivateKey = key
	return p, nil
}

// IssueFor makes a server certificate for somebody else's public key; the pair has no private key.
func (a *Authority) IssueFor(pub crypto.PublicKey, names ...string) (Pair, error) {
	if len(names) == 0 {
		return Pair{}, fmt.Errorf("a certificate needs at least one name")
	}
	t, err := template(names[0])
	if err != nil {
		return Pair{}, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Pair{}, fmt.Errorf("parse certificate: %w", err)
	}
	return Pair{
		CertPEM: append(encode("CERTIFICATE", der), a.RootPEM()...),
		TLS:     tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, Leaf: leaf},
	}, nil
}

// Fingerprint is the lower-case hex SHA-256 of a certificate in DER.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// FingerprintPEM is the fingerprint of the first certificate in PEM, or "" when there is none.
func FingerprintPEM(chain []byte) string {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return Fingerprint(block.Bytes)
		}
	}
	return ""
}

func template(commonName string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("draw serial: %w", err)
	}
	now := clock.System().Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(lifetime),
		BasicConstraintsValid: true,
	}, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

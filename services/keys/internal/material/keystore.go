package material

import (
	"bytes"
	"crypto/x509"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certwright/certwright/shared/errs"
)

// Keystore puts a key (PKCS#8) with its certificate and chain (DER, the leaf first) into a file of the format that e names, encrypted with its password.
func Keystore(e Export, pkcs8 []byte, chain [][]byte, now time.Time) ([]byte, error) {
	if len(chain) == 0 {
		return nil, errs.New(errs.Internal, "", "a version without a certificate")
	}
	if e.Format == FormatJKS {
		return jks(e, pkcs8, chain, now)
	}
	key, err := Parse(pkcs8)
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, errs.New(errs.Internal, "", "a stored chain cannot be read: %w", err)
		}
	}
	encoder := pkcs12.Modern
	if e.Format == FormatPKCS12Legacy {
		encoder = pkcs12.LegacyDES
	}
	out, err := encoder.Encode(key, certs[0], certs[1:], e.Password.Reveal())
	if err != nil { // of the password: it has characters that the format cannot hold
		return nil, errs.New(errs.Invalid, "EXPORT_INVALID", "the key cannot be exported like this").WithField("password", "does not fit the format: %v", err)
	}
	return out, nil
}

func jks(e Export, pkcs8 []byte, chain [][]byte, now time.Time) ([]byte, error) {
	entry := keystore.PrivateKeyEntry{CreationTime: now, PrivateKey: pkcs8}
	for _, der := range chain {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X509", Content: der})
	}
	password := []byte(e.Password.Reveal())
	defer clear(password)
	ks := keystore.New()
	if err := ks.SetPrivateKeyEntry(e.Alias, entry, password); err != nil {
		return nil, errs.New(errs.Internal, "", "a JKS entry cannot be made: %w", err)
	}
	var out bytes.Buffer
	if err := ks.Store(&out, password); err != nil {
		return nil, errs.New(errs.Internal, "", "a JKS file cannot be made: %w", err)
	}
	return out.Bytes(), nil
}

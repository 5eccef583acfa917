// Package material makes and uses private keys in memory: generation, CSRs, JWS signatures. It stores nothing and logs nothing.
package material

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // ES384
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// Generate makes a key. RSA of 4096 bits takes seconds.
func Generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case domain.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case domain.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case domain.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case domain.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case domain.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, errs.New(errs.Internal, "", "the algorithm %q was let through", algorithm)
}

// PKCS8 encodes a key; the caller clears the result after use.
func PKCS8(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "a key cannot be encoded")
	}
	return der, nil
}

// Parse reads PKCS#8, DER.
func Parse(pkcs8 []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "a stored key cannot be read") // the cause could quote the key
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errs.New(errs.Internal, "", "a stored key cannot sign")
	}
	return signer, nil
}

// PEM encodes PKCS#8 DER as PEM; the caller clears the result after use.
func PEM(pkcs8 []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// CSR makes a PKCS#10 request, DER. Every name is a subject alternative name; the first is the common name too, if it is a DNS name of
// at most 64 bytes (RFC 5280, ub-common-name).
func CSR(key crypto.Signer, names []string) ([]byte, error) {
	t := &x509.CertificateRequest{}
	for i, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		t.DNSNames = append(t.DNSNames, n)
		if i == 0 && len(n) <= 64 {
			t.Subject = pkix.Name{CommonName: n}
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, key)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "a CSR cannot be made: %w", err)
	}
	return der, nil
}

// SPKI returns the hex SHA-256 of the SubjectPublicKeyInfo.
func SPKI(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", errs.New(errs.Internal, "", "a public key cannot be encoded: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Algorithm returns the JWS algorithm of a key (RFC 7518 section 3.1).
func Algorithm(pub crypto.PublicKey) (string, crypto.Hash, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return "RS256", crypto.SHA256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ES256", crypto.SHA256, nil
		case elliptic.P384():
			return "ES384", crypto.SHA384, nil
		}
	}
	return "", 0, errs.New(errs.Internal, "", "a key of type %T signs no JWS", pub)
}

// Sign makes the JWS signature over a signing input (RFC 7518 sections 3.3 and 3.4).
func Sign(key crypto.Signer, input []byte) (signature []byte, algorithm string, err error) {
	algorithm, hash, err := Algorithm(key.Public())
	if err != nil {
		return nil, "", err
	}
	h := hash.New()
	_, _ = h.Write(input) // a hash takes everything
	digest := h.Sum(nil)
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, ec, digest)
		if err != nil {
			return nil, "", errs.New(errs.Internal, "", "signing failed")
		}
		size := (ec.Curve.Params().BitSize + 7) / 8
		signature = make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature, algorithm, nil
	}
	if signature, err = key.Sign(rand.Reader, digest, hash); err != nil {
		return nil, "", errs.New(errs.Internal, "", "signing failed")
	}
	return signature, algorithm, nil
}

// JWK returns the public key as JSON in the canonical form of RFC 7638 section 3.
func JWK(pub crypto.PublicKey) (string, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return `{"e":"` + b64(big.NewInt(int64(k.E)).Bytes()) + `","kty":"RSA","n":"` + b64(k.N.Bytes()) + `"}`, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, X, Y
		if err != nil {
			return "", errs.New(errs.Internal, "", "a public key cannot be encoded: %w", err)
		}
		size := (len(point) - 1) / 2
		return `{"crv":"` + k.Curve.Params().Name + `","kty":"EC","x":"` + b64(point[1:1+size]) + `","y":"` + b64(point[1+size:]) + `"}`, nil
	}
	return "", errs.New(errs.Internal, "", "a key of type %T has no JWK", pub)
}

// CheckRevocation refuses to sign anything but a request to revoke a certificate of this very key (RFC 8555 section 7.6): input must be
// a JWS signing input whose payload names such a certificate. So the key is no oracle for whoever may ask for signatures.
func CheckRevocation(spki string, pub crypto.PublicKey, input []byte) error {
	refuse := func(why string) error {
		return errs.New(errs.Invalid, "NOT_A_REVOCATION", "the signing input is not the request to revoke a certificate of this key: %s", why).
			WithField("signingInput", "%s", why)
	}
	head, body, ok := bytes.Cut(input, []byte{'.'})
	if !ok {
		return refuse("it is not of the form header.payload")
	}
	var header struct {
		Alg string `json:"alg"`
		URL string `json:"url"`
	}
	var payload struct {
		Certificate string `json:"certificate"`
	}
	if err := decode(head, &header); err != nil {
		return refuse("the protected header is not base64url of a JSON object")
	}
	algorithm, _, err := Algorithm(pub)
	if err != nil {
		return err
	}
	if header.Alg != algorithm || header.URL == "" {
		return refuse("the protected header has to have a url and the alg " + algorithm)
	}
	if err := decode(body, &payload); err != nil {
		return refuse("the payload is not base64url of a JSON object")
	}
	der, err := base64.RawURLEncoding.DecodeString(payload.Certificate)
	if err != nil {
		return refuse("the payload's certificate is not base64url")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return refuse("the payload names no X.509 certificate")
	}
	if sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo); hex.EncodeToString(sum[:]) != spki {
		return refuse("the payload's certificate has another public key")
	}
	return nil
}

func decode(text []byte, v any) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

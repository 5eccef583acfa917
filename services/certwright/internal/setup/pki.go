package setup

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/rpc"
)

const (
	caDir    = "ca"
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 825 * 24 * time.Hour
	// backdate allows for clocks that differ.
	backdate = 5 * time.Minute
)

// authority is the installation's internal CA.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	ends time.Time
	now  time.Time
}

// openCA reads the CA, or makes it.
func openCA(w *writer, now time.Time) (*authority, error) {
	if err := w.directory(caDir, false); err != nil {
		return nil, err
	}
	certFile, keyFile := filepath.Join(caDir, "ca.pem"), filepath.Join(caDir, "ca.key")
	text, err := w.read(certFile)
	if err != nil {
		return nil, err
	}
	if text == nil {
		if err := w.keep(keyFile, newKey); err != nil {
			return nil, err
		}
		key, err := readKey(w, keyFile)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: "Certwright internal CA"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true,
			MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		text, err = sign(template, template, key.Public(), key)
		if err != nil {
			return nil, err
		}
		if err := w.put(certFile, text, &w.Made); err != nil {
			return nil, err
		}
	} else {
		w.Kept = append(w.Kept, certFile, keyFile)
	}
	cert, err := parse(certFile, text)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: cert, pem: text, ends: cert.NotAfter, now: now}
	key, err := readKey(w, keyFile)
	switch {
	case os.IsNotExist(err): // kept elsewhere: what needs it says so
	case err != nil:
		return nil, err
	case !samePublic(cert, key):
		return nil, errs.New(errs.Precondition, "INIT_KEY_MISMATCH", "%s is not the key of %s; put the right one back", keyFile, certFile)
	default:
		a.key = key
	}
	return a, nil
}

// certify makes the key and the certificate of a party unless they are there.
func (a *authority) certify(w *writer, name, host string, renew bool) error {
	certFile, keyFile := filepath.Join(name, "tls.crt"), filepath.Join(name, "tls.key")
	text, err := w.read(certFile)
	if err != nil {
		return err
	}
	done := &w.Made
	if text != nil {
		cert, err := parse(certFile, text)
		if err != nil {
			return err
		}
		late := a.now.After(cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3))
		if !late || !renew {
			if late {
				w.warn("%s ends on %s: run this again with --renew", certFile, cert.NotAfter.Format(time.DateOnly))
			}
			w.Kept = append(w.Kept, certFile, keyFile)
			w.ends(cert.NotAfter)
			return nil
		}
		done = &w.Renewed
	}
	if a.key == nil {
		return errs.New(errs.Precondition, "INIT_CA_KEY_MISSING", "%s needs a certificate, and the key of the internal CA is not in %s; put it there for this run", name, filepath.Join(w.dir, caDir, "ca.key"))
	}
	if err := w.keep(keyFile, newKey); err != nil {
		return err
	}
	key, err := readKey(w, keyFile)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: rpc.ServerName(name)}, DNSNames: []string{rpc.ServerName(name), name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: a.now.Add(-backdate), NotAfter: a.now.Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if template.NotAfter.After(a.ends) {
		template.NotAfter = a.ends
	}
	if ip := net.ParseIP(host); ip != nil {
		if !ip.IsLoopback() {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	} else if !slices.Contains(template.DNSNames, host) {
		template.DNSNames = append(template.DNSNames, host)
	}
	if text, err = sign(template, a.cert, key.Public(), a.key); err != nil {
		return err
	}
	w.ends(template.NotAfter)
	return w.put(certFile, text, done)
}

func (w *writer) ends(t time.Time) {
	if w.Ends.IsZero() || t.Before(w.Ends) {
		w.Ends = t
	}
}

// principal makes the key pair that people's identities are signed with, and returns the public half in PEM. The private half is the gateway's alone.
func principal(w *writer) ([]byte, error) {
	if err := w.directory("gateway", true); err != nil {
		return nil, err
	}
	file := filepath.Join("gateway", "principal.key")
	text, err := w.read(file)
	if err != nil {
		return nil, err
	}
	if text == nil {
		for _, name := range names() {
			if there, err := w.read(filepath.Join(name, "principal.pub")); err != nil || there != nil {
				return nil, errs.New(errs.Precondition, "INIT_KEY_MISMATCH", "%s has the public key of a %s that is not there; put that back, or remove every principal.pub to start with a new pair", name, file)
			}
		}
	}
	if err := w.keep(file, func() ([]byte, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return encodeKey(private)
	}); err != nil {
		return nil, err
	}
	key, err := readKey(w, file)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func newKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return encodeKey(key)
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// readKey reads a private key; the error is that of os.ReadFile when the file is not there.
func readKey(w *writer, name string) (crypto.Signer, error) {
	text, err := w.read(name)
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, os.ErrNotExist
	}
	if block, _ := pem.Decode(text); block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, errs.New(errs.Precondition, "INIT_FILES_UNUSABLE", "%s holds no private key in PEM (PKCS #8)", name)
}

func parse(name string, text []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(text); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			return cert, nil
		}
	}
	return nil, errs.New(errs.Precondition, "INIT_FILES_UNUSABLE", "%s holds no certificate in PEM", name)
}

func samePublic(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// sign makes a certificate, in PEM, with a serial number of 127 random bits.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

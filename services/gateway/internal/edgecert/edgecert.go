// Package edgecert gives the edge its certificate: one of a CA of its own that is made on first start, or one from files. Both are renewed while
// the edge runs. It must never hand out a key.
package edgecert

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
)

// The files of the local CA, in the gateway's data directory. Keys have mode 0600.
const (
	RootFile    = "edge-ca.pem"
	rootKeyFile = "edge-ca.key"
	leafFile    = "edge.pem"
	leafKeyFile = "edge.key"
)

const (
	rootLife    = 10 * 365 * 24 * time.Hour
	leafLife    = 90 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	backdate    = time.Hour // for clients whose clock is behind
)

// Source is a certificate that is kept fresh.
type Source interface {
	// Get is a tls.Config's GetCertificate.
	Get(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Refresh renews or reads again what is due. After an error the certificate of before goes on being shown.
	Refresh(ctx context.Context) error
}

// Local is a certificate of a CA that lives beside it.
type Local struct {
	dir    string
	hosts  []string
	clk    clock.Clock
	logger *slog.Logger
	now    atomic.Pointer[tls.Certificate]
}

// OpenLocal reads the CA and the certificate from dir, or makes them. Precondition EDGE_FILES_UNUSABLE when dir cannot be read or written.
func OpenLocal(ctx context.Context, dir string, hosts []string, clk clock.Clock, logger *slog.Logger) (*Local, error) {
	if len(hosts) == 0 {
		return nil, errs.New(errs.Invalid, "CONFIG_INVALID", "hosts is empty; the edge's certificate needs a name, such as localhost")
	}
	l := &Local{dir: dir, hosts: hosts, clk: clk, logger: logger}
	if err := l.Refresh(ctx); err != nil {
		return nil, errs.New(errs.Precondition, "EDGE_FILES_UNUSABLE", "the certificate of the edge cannot be read or made: %w", err)
	}
	return l, nil
}

// Get implements Source.
func (l *Local) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.now.Load(), nil }

// Refresh implements Source: a certificate is renewed when less than 30 of its 90 days are left, or when hosts changed.
func (l *Local) Refresh(ctx context.Context) error {
	if c := l.now.Load(); c != nil && l.fresh(c.Leaf) {
		return nil
	}
	root, key, err := l.root(ctx)
	if err != nil {
		return err
	}
	if l.now.Load() == nil {
		c, err := tls.LoadX509KeyPair(l.path(leafFile), l.path(leafKeyFile))
		if err == nil && l.fresh(c.Leaf) && c.Leaf.CheckSignatureFrom(root) == nil {
			l.now.Store(&c)
			return nil
		}
	}
	c, err := l.issue(root, key)
	if err != nil {
		return err
	}
	l.logger.InfoContext(ctx, "the edge has a new certificate of its local CA", "not_after", c.Leaf.NotAfter, "hosts", l.hosts, "roots", l.path(RootFile))
	l.now.Store(c)
	return nil
}

func (l *Local) fresh(leaf *x509.Certificate) bool {
	if leaf == nil || l.clk.Now().Add(renewBefore).After(leaf.NotAfter) {
		return false
	}
	return !slices.ContainsFunc(l.hosts, func(h string) bool { return leaf.VerifyHostname(h) != nil })
}

// root reads the CA, or makes it when there is none, or when it ends before a certificate made now would.
func (l *Local) root(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	pair, err := tls.LoadX509KeyPair(l.path(RootFile), l.path(rootKeyFile))
	switch {
	case err == nil && pair.Leaf.NotAfter.After(l.clk.Now().Add(leafLife)):
		if key, ok := pair.PrivateKey.(crypto.Signer); ok {
			return pair.Leaf, key, nil
		}
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, err
	}
	if _, statErr := os.Stat(l.path(RootFile)); statErr == nil {
		l.logger.WarnContext(ctx, "the local CA of the edge is made anew: clients have to trust the new one", "roots", l.path(RootFile), "error", err)
	}
	return l.newRoot()
}

func (l *Local) newRoot() (*x509.Certificate, crypto.Signer, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	now := l.clk.Now()
	return l.certify(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Certwright"}, CommonName: fmt.Sprintf("Certwright local CA %x", serial.Bytes()[:4])},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, nil, nil, RootFile, rootKeyFile)
}

func (l *Local) issue(root *x509.Certificate, signer crypto.Signer) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := l.clk.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Certwright edge"}, NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, h := range l.hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	leaf, key, err := l.certify(template, root, signer, leafFile, leafKeyFile)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// certify makes a key and its certificate, signed by parent or, without one, by itself, and stores both: the key first, for a certificate without its key would
// be trusted for nothing. A pair that a crash tore apart does not load, and is made anew.
func (l *Local) certify(template, parent *x509.Certificate, signer crypto.Signer, certName, keyName string) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(pkcs8)
	if err := replace(l.path(keyName), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return nil, nil, err
	}
	if err := replace(l.path(certName), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func (l *Local) path(name string) string { return filepath.Join(l.dir, name) }

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	return serial.SetBit(serial, 126, 1), nil // never short, never negative
}

// replace writes a file so that a crash leaves the old or the new one.
func replace(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Files is a certificate that somebody else renews in place.
type Files struct {
	certFile, keyFile string
	logger            *slog.Logger
	now               atomic.Pointer[tls.Certificate]
}

// OpenFiles reads the certificate. Precondition EDGE_FILES_UNUSABLE when it cannot be used.
func OpenFiles(ctx context.Context, certFile, keyFile string, logger *slog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, logger: logger}
	if err := f.Refresh(ctx); err != nil {
		return nil, errs.New(errs.Precondition, "EDGE_FILES_UNUSABLE", "the edge's certificate %s with the key %s cannot be used: %w", certFile, keyFile, err)
	}
	return f, nil
}

// Get implements Source.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.now.Load(), nil }

// Refresh implements Source: the files are read, and shown when they are another pair than before.
func (f *Files) Refresh(ctx context.Context) error {
	c, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return err
	}
	before := f.now.Load()
	if before != nil && bytes.Equal(before.Certificate[0], c.Certificate[0]) {
		return nil
	}
	f.now.Store(&c)
	if before != nil {
		f.logger.InfoContext(ctx, "the edge shows a new certificate", "file", f.certFile, "not_after", c.Leaf.NotAfter)
	}
	return nil
}

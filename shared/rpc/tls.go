package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// TLS makes the two sides of mutual TLS between services from PEM files: TLS 1.3 only, client certificates required and verified against the
// CA of the installation and nothing else. The certificate is read again when its file changed, so that renewing it needs no restart;
// while the new pair cannot be read, the old one stays in use. Errors are Precondition TLS_FILE and name the file.
func TLS(certFile, keyFile, caFile string) (server, client *tls.Config, err error) {
	text, err := os.ReadFile(caFile) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, nil, errs.New(errs.Precondition, "TLS_FILE", "the CA file cannot be read: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, nil, errs.New(errs.Precondition, "TLS_FILE", "the CA file %q holds no certificate in PEM", caFile)
	}
	p := &pair{certFile: certFile, keyFile: keyFile}
	if _, err := p.get(); err != nil {
		return nil, nil, err
	}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.get() },
	}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.get() },
	}
	return server, client, nil
}

// pair is a certificate with its key, read again when the certificate's file has changed.
type pair struct {
	certFile, keyFile string

	mu      sync.Mutex
	cert    *tls.Certificate
	changed time.Time
	size    int64
}

func (p *pair) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fi, err := os.Stat(p.certFile)
	if err == nil && p.cert != nil && fi.ModTime().Equal(p.changed) && fi.Size() == p.size {
		return p.cert, nil
	}
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(p.certFile, p.keyFile)
	}
	switch {
	case err == nil:
		p.cert, p.changed, p.size = &cert, fi.ModTime(), fi.Size()
	case p.cert == nil:
		return nil, errs.New(errs.Precondition, "TLS_FILE", "the certificate %q with the key %q cannot be read: %w", p.certFile, p.keyFile, err)
	}
	return p.cert, nil
}

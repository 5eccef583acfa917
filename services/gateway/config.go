package gateway

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/certwright/certwright/services/gateway/internal/edgecert"
	"github.com/certwright/certwright/shared/errs"
)

// Config of the service.
type Config struct {
	// HTTPS is the address of the edge, host:port; empty when it answers plainly on HTTP alone.
	HTTPS string `yaml:"https" doc:"Address of the edge, host:port; without a host it listens on all interfaces"`
	// HTTP is a second address without TLS, on a loopback interface only; empty for none.
	HTTP string `yaml:"http" doc:"Address of the edge without TLS, on a loopback interface only, such as 127.0.0.1:8080; empty for none"`
	// CertFile and KeyFile are the edge's own certificate; both empty for one of a local CA that is made on first start.
	CertFile string `yaml:"cert_file" validate:"required_with=KeyFile" doc:"PEM file of the edge's certificate with its chain, read again when it changes; empty for a certificate of the local CA"`
	KeyFile  string `yaml:"key_file" validate:"required_with=CertFile" doc:"PEM file of the key of cert_file"`
	// Hosts are the names and addresses in the local CA's certificate.
	Hosts []string `yaml:"hosts" validate:"dive,hostname_rfc1123|ip" doc:"Names and addresses in the certificate that the local CA makes"`

	// Ready names the services of this process that are not ready; nil when there are no others.
	Ready func() []string `yaml:"-"`
	// Metrics answers /metrics; nil for none.
	Metrics http.Handler `yaml:"-"`
	// Listener replaces HTTPS, so that a test can have a free port; nil for HTTPS.
	Listener net.Listener `yaml:"-"`
}

// Defaults returns the configuration of a laptop: HTTPS on port 8443, for this host's names.
func Defaults() Config {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && name != "" && name != "localhost" {
		hosts = append(hosts, name)
	}
	return Config{HTTPS: ":8443", Hosts: hosts}
}

// Validate says what is wrong with the addresses: Invalid CONFIG_INVALID, a field each.
func (c Config) Validate() error {
	e := errs.New(errs.Invalid, "CONFIG_INVALID", "the configuration of the gateway is not valid")
	if c.HTTPS == "" && c.HTTP == "" && c.Listener == nil {
		e = e.WithField("https", "empty, and http too; give one of them, such as https :8443")
	}
	if c.HTTPS != "" && c.Listener == nil {
		if _, why := hostPort(c.HTTPS); why != "" {
			e = e.WithField("https", "%q given: %s", c.HTTPS, why)
		}
	}
	if c.HTTP != "" {
		host, why := hostPort(c.HTTP)
		switch {
		case why != "":
			e = e.WithField("http", "%q given: %s", c.HTTP, why)
		case !loopback(host):
			e = e.WithField("http", "%q given; without TLS the edge listens on a loopback address only, such as 127.0.0.1:8080: tokens must not cross a network in the clear", c.HTTP)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		e = e.WithField("cert_file", "cert_file and key_file are wanted together; leave both empty for a certificate of the local CA")
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

// hostPort returns the host of an address; why says what is wrong with it, empty when nothing is.
func hostPort(address string) (host, why string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "wanted is host:port or :port"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "the port must be 1 to 65535"
	}
	return host, ""
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// URL is the base URL that reaches the edge from this host, such as https://127.0.0.1:8443.
func (c Config) URL() string {
	scheme, address := "https", c.HTTPS
	switch {
	case c.Listener != nil:
		address = c.Listener.Addr().String()
	case address == "":
		scheme, address = "http", c.HTTP
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return scheme + "://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Roots is the PEM of the local CA in the gateway's data directory, for clients of the edge. It is nil when the edge shows a certificate of
// somebody else's CA, or before the first start.
func (c Config) Roots(dataDir string) []byte {
	if c.CertFile != "" {
		return nil
	}
	pem, err := os.ReadFile(filepath.Join(dataDir, edgecert.RootFile))
	if err != nil {
		return nil
	}
	return pem
}

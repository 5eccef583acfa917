// Package tlsprobe looks at the certificate that a server serves. It judges nothing: a probe wants to see what is there, trusted or not.
package tlsprobe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// Probe looks with a limit of time for one look.
type Probe struct{ Timeout time.Duration }

// Served makes one TLS handshake with address (host:port), asking for serverName, and returns the hex SHA-256 of the leaf that was served. Unavailable
// DEPLOY_PROBE_UNREACHABLE when no certificate was seen.
func (p Probe) Served(ctx context.Context, address, serverName string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	seen := ""
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{
		ServerName: serverName, InsecureSkipVerify: true, //nolint:gosec // it is looked at, not trusted
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 {
				sum := sha256.Sum256(state.PeerCertificates[0].Raw)
				seen = hex.EncodeToString(sum[:])
			}
			return nil
		},
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	if seen != "" { // a server that then wants a client certificate was seen all the same
		return seen, nil
	}
	return "", errs.New(errs.Unavailable, "DEPLOY_PROBE_UNREACHABLE", "no certificate was seen at %s (server name %q): %v", address, serverName, err)
}

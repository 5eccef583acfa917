package domain

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certwright/certwright/shared/errs"
)

// The algorithms of keys.
const (
	RSA2048   = "RSA_2048"
	RSA3072   = "RSA_3072"
	RSA4096   = "RSA_4096"
	ECDSAP256 = "ECDSA_P256"
	ECDSAP384 = "ECDSA_P384"
)

// Algorithms lists the allowed algorithms.
func Algorithms() []string { return []string{ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096} }

// maxNames is how many names a CSR may have: no CA takes more.
const maxNames = 100

var dnsName = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Request is what the key and CSR of an order are made from.
type Request struct {
	OrderID       string
	CertificateID string
	Algorithm     string // empty: ECDSA_P256
	Names         []string
	Team          string
	Owner         string
}

// Validate fills the default algorithm and refuses what no key is made for: Invalid with one field per mistake.
func (r *Request) Validate() error {
	wrong := errs.New(errs.Invalid, "KEY_REQUEST_INVALID", "no key can be made from this request")
	if r.OrderID == "" {
		wrong = wrong.WithField("orderId", "is empty; give the id of the order that the key is for")
	}
	if r.CertificateID == "" {
		wrong = wrong.WithField("certificateId", "is empty; give the id of the certificate that the order is for")
	}
	if r.Algorithm == "" {
		r.Algorithm = ECDSAP256
	}
	if !slices.Contains(Algorithms(), r.Algorithm) {
		wrong = wrong.WithField("algorithm", "is %q; allowed are %s", r.Algorithm, strings.Join(Algorithms(), ", "))
	}
	if len(r.Names) == 0 || len(r.Names) > maxNames {
		wrong = wrong.WithField("names", "has %d names; 1 to %d are allowed", len(r.Names), maxNames)
	}
	for i, n := range r.Names {
		if _, err := netip.ParseAddr(n); err != nil && (len(n) > 253 || !dnsName.MatchString(n)) {
			wrong = wrong.WithField("names["+strconv.Itoa(i)+"]", "is %q; allowed are DNS names in lower case (A-labels, with *. in front for a wildcard) and IP addresses", n)
		}
	}
	if len(wrong.Fields) > 0 {
		return wrong
	}
	return nil
}

package domain

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Verify checks what a CA returned against what was asked for: public key, names, dates, and the chain, which must end in one of the
// roots when there are any. It answers nil or the problem to show.
func (o *Order) Verify(chain [][]byte, roots *x509.CertPool, now time.Time) *Problem {
	wrong := func(format string, args ...any) *Problem {
		return &Problem{Reason: "CERTIFICATE_MISMATCH", Detail: "the CA returned another certificate than asked for: " + fmt.Sprintf(format, args...) +
			"; it was not installed. Ask the CA, and revoke it there"}
	}
	if len(chain) == 0 {
		return wrong("it returned none")
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return wrong("certificate %d of the chain cannot be parsed: %v", i+1, err)
		}
		certs[i] = c
	}
	leaf := certs[0]
	if got := hexSHA256(leaf.RawSubjectPublicKeyInfo); got != o.SPKI {
		return wrong("its public key has the SHA-256 %s, the request's has %s", got, o.SPKI)
	}
	want, got := slices.Clone(o.Spec.Names), names(leaf)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return wrong("its names are %s, asked for were %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	if !leaf.NotAfter.After(now) {
		return wrong("it expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	for i := 0; i+1 < len(certs); i++ {
		if err := certs[i].CheckSignatureFrom(certs[i+1]); err != nil {
			return wrong("certificate %d of its chain is not signed by the next: %v", i+1, err)
		}
	}
	if roots == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	at := now // a CA whose clock is ahead issues certificates that are not valid yet
	if leaf.NotBefore.After(at) {
		at = leaf.NotBefore
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return wrong("its chain does not end in the issuer's roots: %v", err)
	}
	return nil
}

func names(c *x509.Certificate) []string {
	out := make([]string, 0, len(c.DNSNames)+len(c.IPAddresses))
	for _, n := range c.DNSNames {
		out = append(out, strings.ToLower(n))
	}
	for _, ip := range c.IPAddresses {
		out = append(out, net.IP(ip).String())
	}
	return out
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

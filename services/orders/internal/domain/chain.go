package domain

import (
	"crypto/x509"
	"fmt"
	"strings"
)

// ChooseChain returns the chain whose top was issued by, or is, the root with the wanted common name; the first, which is the CA's default, when
// none was or none is wanted. why is empty unless a wish could not be met. A chain is DER, leaf first.
func ChooseChain(chains [][][]byte, wanted string) (chain [][]byte, why string) {
	if len(chains) == 0 {
		return nil, ""
	}
	if wanted == "" {
		return chains[0], ""
	}
	var tops []string
	for _, c := range chains {
		if len(c) == 0 {
			continue
		}
		top, err := x509.ParseCertificate(c[len(c)-1])
		if err != nil {
			continue // Verify says so if it is the one taken
		}
		if top.Issuer.CommonName == wanted || top.Subject.CommonName == wanted {
			return c, ""
		}
		tops = append(tops, fmt.Sprintf("%q", top.Issuer.CommonName))
	}
	return chains[0], fmt.Sprintf("the CA offers no chain to the root %q, the default was taken; offered are %s", wanted, strings.Join(tops, ", "))
}

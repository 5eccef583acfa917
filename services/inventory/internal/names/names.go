// Package names brings the names of a certificate to their canonical form and refuses what no CA would issue. It must never touch the network.
package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/certwright/certwright/shared/errs"
)

// Max is how many names a certificate may have.
const Max = 100

// Options say what the rest of the spec allows.
type Options struct {
	// IPs: the issuer's profile may allow IP identifiers.
	IPs bool
	// ChallengeType is the one that the spec asks for: http-01 and tls-alpn-01 prove no wildcard, dns-01 no address.
	ChallengeType string
}

// Canonical returns the names as lower-case A-labels (RFC 5891) or canonical addresses, the first kept in front and the rest sorted. Otherwise it
// returns the violations, one a name, under path ("certificate.spec.names").
func Canonical(path string, given []string, o Options) ([]string, []errs.Field) {
	var wrong []errs.Field
	field := func(i int, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: fmt.Sprintf("%s[%d]", path, i), Msg: fmt.Sprintf(format, args...)})
	}
	if len(given) == 0 || len(given) > Max {
		return nil, []errs.Field{{Name: path, Msg: fmt.Sprintf("%d names given, allowed: 1 to %d; split a larger set over several certificates", len(given), Max)}}
	}
	out := make([]string, 0, len(given))
	at := map[string]int{}
	for i, raw := range given {
		name, msg := one(raw, o)
		if msg != "" {
			field(i, "%s", msg)
			continue
		}
		if first, twice := at[name]; twice {
			field(i, "%q is the same name as names[%d] %q; remove one of them", raw, first, given[first])
			continue
		}
		at[name] = i
		out = append(out, name)
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	slices.Sort(out[1:])
	return out, nil
}

// one returns the canonical form of a name, or what is wrong with it.
func one(raw string, o Options) (name, msg string) {
	name = strings.TrimSuffix(strings.TrimSpace(raw), ".")
	if !utf8.ValidString(raw) {
		return "", fmt.Sprintf("%q is not valid UTF-8", raw)
	}
	if name == "" {
		return "", "is empty; give a DNS name such as www.example.org"
	}
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		switch {
		case !o.IPs:
			return "", fmt.Sprintf("%q is an IP address, which only some profiles of a CA allow; set spec.profile to one that does, or give a DNS name", raw)
		case ip.Zone() != "":
			return "", fmt.Sprintf("%q has a zone; give the address alone", raw)
		case o.ChallengeType == "dns-01":
			return "", fmt.Sprintf("%q is an IP address, which dns-01 cannot prove; choose http-01, tls-alpn-01 or auto", raw)
		}
		return ip.Unmap().String(), ""
	}
	host, wildcard := strings.CutPrefix(name, "*.")
	switch {
	case strings.Contains(host, "*"):
		return "", fmt.Sprintf("%q has a wildcard that is not the whole leftmost label; allowed is *.example.org", raw)
	case wildcard && (o.ChallengeType == "http-01" || o.ChallengeType == "tls-alpn-01"):
		return "", fmt.Sprintf("%q is a wildcard, which %s cannot prove; choose dns-01 or auto", raw, o.ChallengeType)
	case strings.Contains(host, "_"):
		return "", fmt.Sprintf("%q has an underscore, which no CA issues for; use a name without it", raw)
	case strings.ContainsAny(host, ":/@ "):
		return "", fmt.Sprintf("%q is not a host name; give the name alone, without scheme, port or path", raw)
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err == nil { // what came out must be a name too: not everything that converts is one
		ascii, err = idna.Lookup.ToASCII(ascii)
	}
	if err != nil {
		return "", fmt.Sprintf("%q is not a host name: %s", raw, strings.TrimPrefix(err.Error(), "idna: "))
	}
	if host = ascii; !strings.Contains(host, ".") {
		return "", fmt.Sprintf("%q has a single label; a CA needs a name with a dot, such as www.example.org", raw)
	}
	for _, label := range strings.Split(host, ".") {
		switch {
		case label == "":
			return "", fmt.Sprintf("%q has an empty label; remove the extra dot", raw)
		case len(label) > 63:
			return "", fmt.Sprintf("%q has a label of %d characters (%.20s…), allowed: 63", raw, len(label), label)
		case strings.IndexFunc(label, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) >= 0:
			return "", fmt.Sprintf("%q has characters other than letters, digits and hyphens", raw)
		}
	}
	last := host[strings.LastIndex(host, ".")+1:]
	if strings.Trim(last, "0123456789") == "" {
		return "", fmt.Sprintf("%q ends in a number, which no top-level domain does", raw)
	}
	if wildcard {
		host = "*." + host
	}
	if len(host) > 253 {
		return "", fmt.Sprintf("%.30q… has %d characters, allowed: 253", raw, len(host))
	}
	return host, ""
}

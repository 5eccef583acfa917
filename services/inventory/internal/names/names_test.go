package names_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/inventory/internal/names"
)

func TestNamesAreBroughtToTheirCanonicalForm(t *testing.T) {
	many := make([]string, names.Max)
	for i := range many {
		many[i] = fmt.Sprintf("h%03d.example.org", i)
	}
	for name, row := range map[string]struct {
		given, want []string
		o           names.Options
	}{
		"the first stays first and the rest is sorted":      {given: []string{"www.example.org", "b.example.org", "a.example.org"}, want: []string{"www.example.org", "a.example.org", "b.example.org"}},
		"upper case becomes lower case":                     {given: []string{"WWW.Example.ORG"}, want: []string{"www.example.org"}},
		"a trailing dot and blanks are dropped":             {given: []string{" www.example.org. "}, want: []string{"www.example.org"}},
		"a U-label becomes an A-label":                      {given: []string{"bücher.example"}, want: []string{"xn--bcher-kva.example"}},
		"an A-label stays":                                  {given: []string{"xn--bcher-kva.example"}, want: []string{"xn--bcher-kva.example"}},
		"a wildcard is the leftmost label":                  {given: []string{"*.example.org", "example.org"}, want: []string{"*.example.org", "example.org"}},
		"a wildcard over an IDN":                            {given: []string{"*.bücher.example"}, want: []string{"*.xn--bcher-kva.example"}},
		"an address where a profile may allow it":           {given: []string{"192.0.2.1"}, want: []string{"192.0.2.1"}, o: names.Options{IPs: true}},
		"an address that tls-alpn-01 proves":                {given: []string{"192.0.2.1"}, want: []string{"192.0.2.1"}, o: names.Options{IPs: true, ChallengeType: "tls-alpn-01"}},
		"an IPv6 address gets its canonical form":           {given: []string{"[2001:DB8:0::1]"}, want: []string{"2001:db8::1"}, o: names.Options{IPs: true}},
		"an IPv4-mapped address is the IPv4 address":        {given: []string{"::ffff:192.0.2.1"}, want: []string{"192.0.2.1"}, o: names.Options{IPs: true}},
		"a label of 63 characters":                          {given: []string{strings.Repeat("a", 63) + ".example"}, want: []string{strings.Repeat("a", 63) + ".example"}},
		"as many names as a certificate can have":           {given: many, want: many},
		"a label that is a number, but not the last of all": {given: []string{"42.example.org"}, want: []string{"42.example.org"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, wrong := names.Canonical("n", row.given, row.o)
			require.Empty(t, wrong)
			require.Equal(t, row.want, got)
			again, wrong := names.Canonical("n", got, row.o)
			require.Empty(t, wrong)
			require.Equal(t, got, again, "the canonical form is stable")
		})
	}
}

func TestNamesThatNoCAIssuesForAreRefused(t *testing.T) {
	long := strings.Repeat("a.", 125) + "example"
	for name, row := range map[string]struct {
		given       []string
		o           names.Options
		field, want string
	}{
		"no name at all":                           {nil, names.Options{}, "n", "0 names given, allowed: 1 to 100"},
		"too many":                                 {make([]string, 101), names.Options{}, "n", "101 names given, allowed: 1 to 100; split a larger set"},
		"an empty one":                             {[]string{"a.example", ""}, names.Options{}, "n[1]", "is empty"},
		"an underscore":                            {[]string{"a_b.example"}, names.Options{}, "n[0]", `"a_b.example" has an underscore, which no CA issues for`},
		"a wildcard inside":                        {[]string{"a.*.example"}, names.Options{}, "n[0]", "a wildcard that is not the whole leftmost label; allowed is *.example.org"},
		"a part of a label as wildcard":            {[]string{"www*.example"}, names.Options{}, "n[0]", "not the whole leftmost label"},
		"two wildcards":                            {[]string{"*.*.example"}, names.Options{}, "n[0]", "not the whole leftmost label"},
		"a wildcard of a top-level domain":         {[]string{"*.example"}, names.Options{}, "n[0]", "a single label"},
		"a wildcard that http-01 cannot prove":     {[]string{"*.example.org"}, names.Options{ChallengeType: "http-01"}, "n[0]", "choose dns-01 or auto"},
		"a wildcard that tls-alpn-01 cannot prove": {[]string{"*.example.org"}, names.Options{ChallengeType: "tls-alpn-01"}, "n[0]", `"*.example.org" is a wildcard, which tls-alpn-01 cannot prove; choose dns-01 or auto`},
		"an address without profile":               {[]string{"192.0.2.1"}, names.Options{}, "n[0]", "is an IP address, which only some profiles of a CA allow; set spec.profile"},
		"an address with a zone":                   {[]string{"fe80::1%eth0"}, names.Options{IPs: true}, "n[0]", "has a zone"},
		"an address that dns-01 cannot prove":      {[]string{"192.0.2.1"}, names.Options{IPs: true, ChallengeType: "dns-01"}, "n[0]", "choose http-01, tls-alpn-01 or auto"},
		"something like an address":                {[]string{"192.0.2.256"}, names.Options{}, "n[0]", "ends in a number"},
		"a URL":                                    {[]string{"https://a.example/"}, names.Options{}, "n[0]", "give the name alone"},
		"a port":                                   {[]string{"a.example:443"}, names.Options{}, "n[0]", "give the name alone"},
		"a single label":                           {[]string{"localhost"}, names.Options{}, "n[0]", "a single label"},
		"a label too long":                         {[]string{strings.Repeat("a", 64) + ".example"}, names.Options{}, "n[0]", "64 characters"},
		"a name too long":                          {[]string{long}, names.Options{}, "n[0]", "257 characters, allowed: 253"},
		"an empty label":                           {[]string{"a..example"}, names.Options{}, "n[0]", "empty label"},
		"a hyphen at the end of a label":           {[]string{"a-.example"}, names.Options{}, "n[0]", `invalid label "a-"`},
		"the same in another case":                 {[]string{"a.example", "b.example", "A.EXAMPLE"}, names.Options{}, "n[2]", `"A.EXAMPLE" is the same name as names[0] "a.example"`},
		"the same in IDN form":                     {[]string{"bücher.example", "xn--bcher-kva.example"}, names.Options{}, "n[1]", `is the same name as names[0] "bücher.example"`},
		"a broken A-label":                         {[]string{"xn--0.example"}, names.Options{}, "n[0]", "is not a host name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, wrong := names.Canonical("n", row.given, row.o)
			require.NotEmpty(t, wrong)
			require.Equal(t, row.field, wrong[0].Name)
			require.Contains(t, wrong[0].Msg, row.want)
		})
	}
}

func FuzzNamesAreCanonicalOrRefused(f *testing.F) {
	for _, s := range []string{"a.example", "*.bücher.example", "192.0.2.1", "::1", "xn--", "ａ.example", "a_b.c", "*.*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, wrong := names.Canonical("n", []string{s}, names.Options{IPs: true})
		if len(wrong) > 0 {
			return
		}
		again, wrong := names.Canonical("n", got, names.Options{IPs: true})
		if len(wrong) > 0 || again[0] != got[0] || len(got[0]) > 253 || strings.ToLower(got[0]) != got[0] {
			t.Fatalf("%q became %q and then %q (%v)", s, got, again, wrong)
		}
	})
}

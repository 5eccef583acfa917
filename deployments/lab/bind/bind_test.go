package bind_test

import (
	"slices"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/deployments/lab/bind"
	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/internal/acmetest"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/shared/clock"
)

func insert(t *testing.T, s *bind.Server, k dnsserver.Key, lines ...string) (int, error) {
	t.Helper()
	m := new(dns.Msg)
	m.SetUpdate("lab.test.")
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		require.NoError(t, err)
		m.Insert([]dns.RR{rr})
	}
	name := dns.CanonicalName(k.Name)
	m.SetTsig(name, dns.HmacSHA256, 300, clock.System().Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{name: k.Secret}}
	reply, _, err := c.ExchangeContext(t.Context(), m, s.Addr())
	require.NotNil(t, reply, "%v", err)
	return reply.Rcode, err
}

func TestAWildcardAndItsApexAreProvenThroughBIND(t *testing.T) {
	s := labtest.Bind(t, bind.Options{Zones: []string{"lab.test"}})
	authority := labtest.CA(t, ca.Options{DNSServer: s.Addr()})
	c := acmetest.New(t, authority, "", "")
	chain := c.Obtain(t, []string{"lab.test", "*.lab.test"}, nil, "dns-01", func(proofs []acmetest.Proof) {
		var lines []string
		for _, p := range proofs {
			info := dns01.GetChallengeInfo(p.Domain, p.KeyAuth)
			lines = append(lines, "_acme-challenge."+p.Domain+". 60 IN TXT "+info.Value)
		}
		rcode, err := insert(t, s, s.Key, lines...)
		require.NoError(t, err)
		require.Equal(t, dns.RcodeSuccess, rcode)
	})
	names := acmetest.Leaf(t, authority, chain).DNSNames
	slices.Sort(names)
	require.Equal(t, []string{"*.lab.test", "lab.test"}, names)
	values, err := s.TXT(t.Context(), "_acme-challenge.lab.test")
	require.NoError(t, err)
	require.Len(t, values, 2)
}

func TestBINDResolvesEveryNameAndTakesOnlySignedTXT(t *testing.T) {
	s := labtest.Bind(t, bind.Options{Zones: []string{"lab.test", "other.test"}, Hosts: []string{"www.lab.test"}})
	address := func(name string) int {
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), dns.TypeA)
		m, _, err := new(dns.Client).ExchangeContext(t.Context(), q, s.Addr())
		require.NoError(t, err)
		return len(m.Answer)
	}
	for _, name := range []string{"lab.test", "a.b.lab.test", "www.lab.test", "x.other.test"} {
		require.Equal(t, 1, address(name), name)
	}
	rcode, err := insert(t, s, s.Key, "a.lab.test. 60 IN A 127.0.0.2")
	require.NoError(t, err)
	require.Equal(t, dns.RcodeRefused, rcode, "addresses are not the key's to write")
	stranger, err := dnsserver.NewKey("stranger")
	require.NoError(t, err)
	rcode, _ = insert(t, s, stranger, "_acme-challenge.a.lab.test. 60 IN TXT v")
	require.Equal(t, dns.RcodeNotAuth, rcode)

	rcode, err = insert(t, s, s.Key, "_acme-challenge.a.lab.test. 60 IN TXT v", "_acme-challenge.www.lab.test. 60 IN TXT v")
	require.NoError(t, err)
	require.Equal(t, dns.RcodeSuccess, rcode)
	require.Zero(t, address("a.lab.test"), "the wildcard does not reach a name below which something exists")
	require.Equal(t, 1, address("www.lab.test"), "a host of its own keeps its address")
	require.NoError(t, s.Close())
	_, err = s.TXT(labtest.Deadline(t, 5*time.Second), "lab.test")
	require.Error(t, err)
}

package dnsserver_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/deployments/lab/ca"
	"github.com/certwright/certwright/deployments/lab/dnsserver"
	"github.com/certwright/certwright/deployments/lab/internal/acmetest"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/shared/clock"
)

func TestMain(m *testing.M) {
	// Pebble's validator cannot be ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

func key(t *testing.T, name string) dnsserver.Key {
	t.Helper()
	k, err := dnsserver.NewKey(name)
	require.NoError(t, err)
	return k
}

func ask(t *testing.T, s *dnsserver.Server, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	m, _, err := (&dns.Client{Net: network}).ExchangeContext(t.Context(), q, s.Addr())
	require.NoError(t, err)
	return m
}

func records(t *testing.T, lines ...string) []dns.RR {
	t.Helper()
	var out []dns.RR
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		require.NoError(t, err)
		out = append(out, rr)
	}
	return out
}

// send signs and sends an update and returns the rcode and, if there is one, the TSIG error.
func send(t *testing.T, s *dnsserver.Server, k dnsserver.Key, algorithm string, at time.Time, m *dns.Msg) (int, uint16) {
	t.Helper()
	c := &dns.Client{Net: "tcp"}
	if k.Name != "" {
		name := dns.CanonicalName(k.Name)
		c.TsigSecret = map[string]string{name: k.Secret}
		m.SetTsig(name, algorithm, 300, at.Unix())
	}
	reply, _, err := c.ExchangeContext(t.Context(), m, s.Addr())
	require.NotNil(t, reply, "%v", err)
	if tsig := reply.IsTsig(); tsig != nil {
		if tsig.Error == 0 && reply.Rcode != dns.RcodeNotAuth { // the client verifies no signature under NOTAUTH
			require.NoError(t, err, "the answer's own signature")
		}
		return reply.Rcode, tsig.Error
	}
	return reply.Rcode, 0
}

func update(zone string, change func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(zone)
	change(m)
	return m
}

func TestAnswers(t *testing.T) {
	s := labtest.DNS(t, dnsserver.Options{
		Zones: []string{"lab.test", "sub.lab.test"},
		Records: []string{
			"alias.lab.test. 60 IN CNAME target.sub.lab.test.",
			"away.lab.test. 60 IN CNAME elsewhere.example.",
			"fixed.lab.test. 60 IN A 127.0.0.9",
			"lab.test. 60 IN CAA 0 issue \"lab.invalid\"",
			"loop.lab.test. 60 IN CNAME loop.lab.test.",
			`text.lab.test. 60 IN TXT "one" "two"`,
		},
	})
	for _, row := range []struct {
		name   string
		ask    string
		kind   uint16
		rcode  int
		answer []string
	}{
		{"any name has the wildcard's address", "anything.at.all.lab.test", dns.TypeA, dns.RcodeSuccess, []string{"anything.at.all.lab.test. A 127.0.0.1"}},
		{"an address of its own wins", "fixed.lab.test", dns.TypeA, dns.RcodeSuccess, []string{"fixed.lab.test. A 127.0.0.9"}},
		{"names are matched without regard to case", "FIXED.Lab.Test", dns.TypeA, dns.RcodeSuccess, []string{"fixed.lab.test. A 127.0.0.9"}},
		{"no IPv6 address is no data", "www.lab.test", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"a zone has a SOA", "sub.lab.test", dns.TypeSOA, dns.RcodeSuccess, []string{"sub.lab.test. SOA ns.sub.lab.test."}},
		{"a name inside a zone has none", "www.sub.lab.test", dns.TypeSOA, dns.RcodeSuccess, nil},
		{"a zone has a name server", "lab.test", dns.TypeNS, dns.RcodeSuccess, []string{"lab.test. NS ns.lab.test."}},
		{"CAA is answered", "lab.test", dns.TypeCAA, dns.RcodeSuccess, []string{"lab.test. CAA lab.invalid"}},
		{"an alias is followed into another zone of ours", "alias.lab.test", dns.TypeA, dns.RcodeSuccess, []string{"alias.lab.test. CNAME target.sub.lab.test.", "target.sub.lab.test. A 127.0.0.1"}},
		{"an alias that leads away is given alone", "away.lab.test", dns.TypeTXT, dns.RcodeSuccess, []string{"away.lab.test. CNAME elsewhere.example."}},
		{"an alias to itself is a failure", "loop.lab.test", dns.TypeA, dns.RcodeServerFailure, nil},
		{"a name of another zone is refused", "www.example.com", dns.TypeA, dns.RcodeRefused, nil},
		{"a TXT of two strings is one record", "text.lab.test", dns.TypeTXT, dns.RcodeSuccess, []string{"text.lab.test. TXT onetwo"}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(row.name+" over "+network, func(t *testing.T) {
				m := ask(t, s, network, row.ask, row.kind)
				require.Equal(t, dns.RcodeToString[row.rcode], dns.RcodeToString[m.Rcode])
				if row.rcode == dns.RcodeServerFailure {
					return
				}
				var got []string
				for _, rr := range m.Answer {
					got = append(got, short(rr))
				}
				require.Equal(t, row.answer, got)
				if row.rcode == dns.RcodeSuccess && row.answer == nil {
					require.Len(t, m.Ns, 1, "no data comes with the zone's SOA")
				}
			})
		}
	}
	require.Equal(t, []string{"onetwo"}, s.TXT("text.lab.test"))
	require.Equal(t, 4, s.Asked("fixed.lab.test", dns.TypeA), "in two spellings over two networks")
	require.ErrorContains(t, s.Add("a.example. 60 IN A 127.0.0.1"), "none of the zones")
}

func short(rr dns.RR) string {
	h := rr.Header()
	out := h.Name + " " + dns.TypeToString[h.Rrtype] + " "
	switch r := rr.(type) {
	case *dns.A:
		return out + r.A.String()
	case *dns.SOA:
		return out + r.Ns
	case *dns.NS:
		return out + r.Ns
	case *dns.CAA:
		return out + r.Value
	case *dns.CNAME:
		return out + r.Target
	case *dns.TXT:
		for _, part := range r.Txt {
			out += part
		}
	}
	return out
}

func TestWithoutTheWildcardAnUnknownNameDoesNotExist(t *testing.T) {
	s := labtest.DNS(t, dnsserver.Options{
		Zones: []string{"lab.test"}, NoWildcard: true, Records: []string{"a.b.lab.test. 60 IN A 127.0.0.1"},
	})
	require.Equal(t, dns.RcodeNameError, ask(t, s, "udp", "www.lab.test", dns.TypeA).Rcode)
	require.Equal(t, dns.RcodeSuccess, ask(t, s, "udp", "b.lab.test", dns.TypeA).Rcode, "a parent exists")
}

func TestALongAnswerIsCutOverUDPAndWholeOverTCP(t *testing.T) {
	s := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}})
	for i := range 40 {
		require.NoError(t, s.Add("long.lab.test. 60 IN TXT "+string(rune('A'+i))+"-012345678901234567890123456789"))
	}
	require.True(t, ask(t, s, "udp", "long.lab.test", dns.TypeTXT).Truncated)
	require.Len(t, ask(t, s, "tcp", "long.lab.test", dns.TypeTXT).Answer, 40)
}

func TestSignatures(t *testing.T) {
	good := key(t, "good-key")
	wrong := dnsserver.Key{Name: "good-key", Secret: key(t, "x").Secret}
	now := clock.System().Now()
	for _, row := range []struct {
		name      string
		key       dnsserver.Key
		algorithm string
		at        time.Time
		zone      string
		rcode     int
		tsig      uint16
	}{
		{"a good signature is taken", good, dns.HmacSHA256, now, "lab.test.", dns.RcodeSuccess, 0},
		{"no signature is refused", dnsserver.Key{}, "", now, "lab.test.", dns.RcodeRefused, 0},
		{"another secret is BADSIG", wrong, dns.HmacSHA256, now, "lab.test.", dns.RcodeNotAuth, dns.RcodeBadSig},
		{"an unknown key is BADKEY", key(t, "unknown"), dns.HmacSHA256, now, "lab.test.", dns.RcodeNotAuth, dns.RcodeBadKey},
		{"another algorithm is BADKEY", good, dns.HmacSHA512, now, "lab.test.", dns.RcodeNotAuth, dns.RcodeBadKey},
		{"an hour ago is BADTIME", good, dns.HmacSHA256, now.Add(-time.Hour), "lab.test.", dns.RcodeNotAuth, dns.RcodeBadTime},
		{"a zone that is not ours is NOTAUTH", good, dns.HmacSHA256, now, "other.test.", dns.RcodeNotAuth, 0},
		{"a name inside a zone is no zone", good, dns.HmacSHA256, now, "www.lab.test.", dns.RcodeNotAuth, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}, Keys: []dnsserver.Key{good}})
			rcode, tsig := send(t, s, row.key, row.algorithm, row.at, update(row.zone, func(m *dns.Msg) {
				m.Insert(records(t, "_acme-challenge."+row.zone+" 60 IN TXT value"))
			}))
			require.Equal(t, dns.RcodeToString[row.rcode], dns.RcodeToString[rcode])
			require.Equal(t, row.tsig, tsig)
			if row.rcode == dns.RcodeSuccess {
				require.Equal(t, map[string][]string{"_acme-challenge.lab.test": {"value"}}, s.Snapshot())
				require.Equal(t, 1, s.Updates())
			} else {
				require.Empty(t, s.Snapshot())
				require.Zero(t, s.Updates())
			}
		})
	}
}

func TestUpdates(t *testing.T) {
	k := key(t, "k")
	for _, row := range []struct {
		name   string
		change func(t *testing.T, m *dns.Msg)
		rcode  int
		after  []string // TXT at x.lab.test, where "a" and "b" are before
	}{
		{"a value is added beside the others", func(t *testing.T, m *dns.Msg) {
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeSuccess, []string{"a", "b", "c"}},
		{"a value that is there is not doubled", func(t *testing.T, m *dns.Msg) {
			m.Insert(records(t, "X.lab.test. 120 IN TXT a"))
		}, dns.RcodeSuccess, []string{"a", "b"}},
		{"one value is removed", func(t *testing.T, m *dns.Msg) {
			m.Remove(records(t, "x.lab.test. 0 IN TXT a"))
		}, dns.RcodeSuccess, []string{"b"}},
		{"the set is replaced by a union in one update", func(t *testing.T, m *dns.Msg) {
			m.RemoveRRset(records(t, "x.lab.test. 0 IN TXT \"\""))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c", "x.lab.test. 60 IN TXT d"))
		}, dns.RcodeSuccess, []string{"c", "d"}},
		{"a name is emptied", func(t *testing.T, m *dns.Msg) {
			m.RemoveName(records(t, "x.lab.test. 0 IN A 127.0.0.1"))
		}, dns.RcodeSuccess, nil},
		{"an alias beside other records is ignored", func(t *testing.T, m *dns.Msg) {
			m.Insert(records(t, "x.lab.test. 60 IN CNAME y.lab.test."))
		}, dns.RcodeSuccess, []string{"a", "b"}},
		{"a prerequisite that the set has exactly these values holds", func(t *testing.T, m *dns.Msg) {
			m.Used(records(t, "x.lab.test. 0 IN TXT b", "x.lab.test. 0 IN TXT a"))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeSuccess, []string{"a", "b", "c"}},
		{"a prerequisite that names fewer values fails", func(t *testing.T, m *dns.Msg) {
			m.Used(records(t, "x.lab.test. 0 IN TXT b"))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeNXRrset, []string{"a", "b"}},
		{"a prerequisite that the set exists fails where it does not", func(t *testing.T, m *dns.Msg) {
			m.RRsetUsed(records(t, "y.lab.test. 0 IN TXT \"\""))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeNXRrset, []string{"a", "b"}},
		{"a prerequisite that the set does not exist fails where it does", func(t *testing.T, m *dns.Msg) {
			m.RRsetNotUsed(records(t, "x.lab.test. 0 IN TXT \"\""))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeYXRrset, []string{"a", "b"}},
		{"a prerequisite that the name is in use fails where it is not", func(t *testing.T, m *dns.Msg) {
			m.NameUsed(records(t, "y.lab.test. 0 IN A 127.0.0.1"))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeNameError, []string{"a", "b"}},
		{"a prerequisite that the name is free fails where it is not", func(t *testing.T, m *dns.Msg) {
			m.NameNotUsed(records(t, "x.lab.test. 0 IN A 127.0.0.1"))
			m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
		}, dns.RcodeYXDomain, []string{"a", "b"}},
		{"one record outside the zone undoes the whole update", func(t *testing.T, m *dns.Msg) {
			m.Insert(records(t, "x.lab.test. 60 IN TXT c", "x.other.test. 60 IN TXT c"))
		}, dns.RcodeNotZone, []string{"a", "b"}},
		{"a removal with a TTL is a format error", func(t *testing.T, m *dns.Msg) {
			m.Remove(records(t, "x.lab.test. 0 IN TXT a"))
			m.Ns[0].Header().Ttl = 5
		}, dns.RcodeFormatError, []string{"a", "b"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := labtest.DNS(t, dnsserver.Options{
				Zones: []string{"lab.test"}, Keys: []dnsserver.Key{k},
				Records: []string{"x.lab.test. 60 IN TXT a", "x.lab.test. 60 IN TXT b"},
			})
			m := update("lab.test.", func(m *dns.Msg) { row.change(t, m) })
			rcode, _ := send(t, s, k, dns.HmacSHA256, clock.System().Now(), m)
			require.Equal(t, dns.RcodeToString[row.rcode], dns.RcodeToString[rcode])
			require.Equal(t, row.after, s.TXT("x.lab.test"))
		})
	}
}

func TestTheApexKeepsItsNameServersAndItsSerialGrows(t *testing.T) {
	k := key(t, "k")
	s := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}, Keys: []dnsserver.Key{k}})
	serial := func() uint32 { return ask(t, s, "udp", "lab.test", dns.TypeSOA).Answer[0].(*dns.SOA).Serial }
	before := serial()
	rcode, _ := send(t, s, k, dns.HmacSHA256, clock.System().Now(), update("lab.test.", func(m *dns.Msg) {
		m.RemoveName(records(t, "lab.test. 0 IN A 127.0.0.1"))
	}))
	require.Equal(t, dns.RcodeSuccess, rcode)
	require.Len(t, ask(t, s, "udp", "lab.test", dns.TypeNS).Answer, 1)
	require.Greater(t, serial(), before)
}

func TestFaultsDecideBeforeTheServerDoes(t *testing.T) {
	k := key(t, "k")
	s := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}, Keys: []dnsserver.Key{k}})
	s.SetFault(func(q dns.Question, update bool) int {
		switch {
		case update:
			return dns.RcodeServerFailure
		case q.Name == "silent.lab.test.":
			return dnsserver.Drop
		}
		return dnsserver.Pass
	})
	rcode, _ := send(t, s, k, dns.HmacSHA256, clock.System().Now(), update("lab.test.", func(m *dns.Msg) {
		m.Insert(records(t, "x.lab.test. 60 IN TXT c"))
	}))
	require.Equal(t, dns.RcodeServerFailure, rcode)
	require.Empty(t, s.Snapshot())
	require.Equal(t, dns.RcodeSuccess, ask(t, s, "udp", "www.lab.test", dns.TypeA).Rcode)
	q := new(dns.Msg)
	q.SetQuestion("silent.lab.test.", dns.TypeA)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := new(dns.Client).ExchangeContext(ctx, q, s.Addr())
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	s.SetFault(nil)
	require.Equal(t, dns.RcodeSuccess, ask(t, s, "udp", "silent.lab.test", dns.TypeA).Rcode)
}

func TestAWildcardAndItsApexAreProvenByTwoValuesInOneUpdate(t *testing.T) {
	k := key(t, "acme-key")
	s := labtest.DNS(t, dnsserver.Options{Zones: []string{"lab.test"}, Keys: []dnsserver.Key{k}})
	authority := labtest.CA(t, ca.Options{DNSServer: s.Addr()})
	c := acmetest.New(t, authority, "", "")
	chain := c.Obtain(t, []string{"lab.test", "*.lab.test"}, nil, "dns-01", func(proofs []acmetest.Proof) {
		var lines []string
		for _, p := range proofs {
			info := dns01.GetChallengeInfo(p.Domain, p.KeyAuth)
			lines = append(lines, "_acme-challenge."+p.Domain+". 60 IN TXT "+info.Value)
		}
		rcode, _ := send(t, s, k, dns.HmacSHA256, clock.System().Now(), update("lab.test.", func(m *dns.Msg) {
			m.Insert(records(t, lines...))
		}))
		require.Equal(t, dns.RcodeSuccess, rcode)
	})
	names := acmetest.Leaf(t, authority, chain).DNSNames
	slices.Sort(names)
	require.Equal(t, []string{"*.lab.test", "lab.test"}, names)
	require.Equal(t, 1, s.Updates())
	require.Len(t, s.TXT("_acme-challenge.lab.test"), 2)
}

package look_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/adapters/look"
	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/testkit"
)

// serve answers from records in zone file form, as an authoritative server does, on addr.
func serve(t *testing.T, addr string, records ...string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	require.NoError(t, err)
	var all []mdns.RR
	for _, r := range records {
		rr, err := mdns.NewRR(r)
		require.NoError(t, err)
		all = append(all, rr)
	}
	started := make(chan struct{})
	s := &mdns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetReply(r)
		for _, rr := range all {
			h := rr.Header()
			if strings.EqualFold(h.Name, r.Question[0].Name) && (h.Rrtype == r.Question[0].Qtype || h.Rrtype == mdns.TypeCNAME) {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return conn.LocalAddr().String()
}

func TestEveryNameServerOfTheZoneIsAsked(t *testing.T) {
	port := testkit.FreePort(t)
	at := func(n int) string { return fmt.Sprintf("127.0.0.%d:%d", n, port) }
	const record = "_acme-challenge.www.example.org. 60 IN TXT "
	serve(t, at(1), record+"right")
	serve(t, at(2), record+"right", record+"other")
	serve(t, at(3))
	zone := func(servers ...int) []string {
		var all []string
		for _, n := range servers {
			all = append(all, fmt.Sprintf("example.org. 60 IN NS ns%d.example.org.", n), fmt.Sprintf("ns%d.example.org. 60 IN A 127.0.0.%d", n, n))
		}
		return all
	}
	table := []struct {
		name  string
		zone  []string
		found []string
		wrong string
	}{
		{"all have it", zone(1, 2), []string{"ns1.example.org (" + at(1) + ") has it", "ns2.example.org (" + at(2) + ") has it"}, ""},
		{"one that is slow is named", zone(1, 3), []string{"ns1.example.org (" + at(1) + ") has it", "ns3.example.org (" + at(3) + ") has no TXT record there"},
			"ns1.example.org (" + at(1) + ") has it; ns3.example.org (" + at(3) + ") has no TXT record there; correct the record"},
		{"a name server without address", []string{"example.org. 60 IN NS ns.gone.test."}, nil, "knows no address of ns.gone.test"},
		{"a zone that nobody knows", nil, nil, "the name servers of _acme-challenge.www.example.org are not known (127.0.0.1:"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			e := &look.Eyes{Resolvers: []string{serve(t, "127.0.0.1:0", row.zone...)}, DNSPort: port, Timeout: 2 * time.Second}
			got, err := e.TXT(t.Context(), "_acme-challenge.www.example.org", "right", domain.Check{How: domain.CheckAuthoritative})
			require.NoError(t, err)
			if row.found != nil {
				require.Equal(t, row.found, got.Found)
			}
			if row.wrong == "" {
				require.Empty(t, got.Wrong)
			}
			require.Contains(t, got.Wrong, row.wrong)
		})
	}
	t.Run("the route's resolvers come before the configured ones", func(t *testing.T) {
		e := &look.Eyes{Resolvers: []string{"127.0.0.1:1"}, Timeout: 2 * time.Second}
		got, err := e.TXT(t.Context(), "_acme-challenge.www.example.org", "right", domain.Check{How: domain.CheckResolvers, Resolvers: []string{at(1)}})
		require.NoError(t, err)
		require.Empty(t, got.Wrong)
	})
}

// silent takes questions and answers none.
func silent(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn.LocalAddr().String()
}

func TestAliasesAreFollowed(t *testing.T) {
	alias := func(from, to string) string { return from + ". 60 IN CNAME " + to + "." }
	var long []string
	for i := range 12 {
		long = append(long, alias(fmt.Sprintf("l%d.test", i), fmt.Sprintf("l%d.test", i+1)))
	}
	server := serve(t, "127.0.0.1:0", append(long,
		alias("a.test", "B.test"), alias("b.test", "c.test"), "c.test. 60 IN TXT x", alias("round.test", "trip.test"), alias("trip.test", "round.test"), alias("self.test", "self.test"),
		"plain.test. 60 IN TXT x",
	)...)
	table := []struct {
		name, ask string
		resolvers []string
		names     []string
		unsure    string
		loop      string
	}{
		{"no alias", "plain.test", nil, []string{"plain.test"}, "", ""},
		{"no name", "none.test", nil, []string{"none.test"}, "", ""},
		{"a chain", "a.test", nil, []string{"a.test", "b.test", "c.test"}, "", ""},
		{"a loop", "round.test", nil, nil, "", "round.test comes back to itself: round.test → trip.test → round.test; correct the CNAME records"},
		{"itself", "self.test", nil, nil, "", "self.test comes back to itself: self.test → self.test"},
		{"a chain without end", "l0.test", nil, nil, "", "l0.test is a chain of more than 7 aliases: l0.test → l1.test → "},
		{"nobody answers", "a.test", []string{"127.0.0.1:1"}, []string{"a.test"}, "127.0.0.1:1: no answer", ""},
		{"one that is silent delays nobody", "a.test", []string{silent(t), server}, []string{"a.test", "b.test", "c.test"}, "", ""},
		{"the second one answers", "a.test", []string{"127.0.0.1:1", server}, []string{"a.test", "b.test", "c.test"}, "", ""},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			e := &look.Eyes{Resolvers: []string{server}, Timeout: time.Minute}
			names, unsure, loop, err := e.Follow(t.Context(), row.ask, row.resolvers)
			require.NoError(t, err)
			require.Contains(t, unsure, row.unsure)
			require.Equal(t, row.unsure == "", unsure == "")
			require.Contains(t, loop.Detail, row.loop)
			if row.loop != "" {
				require.Equal(t, "CHALLENGE_ALIAS_LOOP", loop.Reason)
				require.True(t, loop.Retrying, "somebody may mend it")
				return
			}
			require.Empty(t, loop)
			require.Equal(t, row.names, names)
		})
	}
	t.Run("there is nobody to ask", func(t *testing.T) {
		_, unsure, _, err := (&look.Eyes{}).Follow(t.Context(), "a.test", nil)
		require.NoError(t, err)
		require.Contains(t, unsure, "set dns.resolvers")
	})
	t.Run("the end of the step is no verdict", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, _, err := (&look.Eyes{Resolvers: []string{server}, Timeout: time.Second}).Follow(ctx, "a.test", nil)
		require.Error(t, err)
	})
}

// With resolvers configured, names lead where those say.
func TestAddressesComeFromTheConfiguredResolvers(t *testing.T) {
	site, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("tok.key")) })}
	go func() { _ = srv.Serve(site) }()
	t.Cleanup(func() { _ = srv.Close() })
	_, port, err := net.SplitHostPort(site.Addr().String())
	require.NoError(t, err)
	e := &look.Eyes{Hosts: look.HostsBy([]string{serve(t, "127.0.0.1:0", "www.hidden.test. 60 IN A 127.0.0.1")}), Timeout: 5 * time.Second}
	e.Port, err = strconv.Atoi(port)
	require.NoError(t, err)
	got, err := e.HTTP(t.Context(), "www.hidden.test", "tok", "tok.key")
	require.NoError(t, err)
	require.Empty(t, got.Wrong)
	require.Nil(t, look.HostsBy(nil), "without resolvers the system's way is used")
}

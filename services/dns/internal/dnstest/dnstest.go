// Package dnstest is a small name server for tests: TXT records in memory, changed by signed updates, served over TCP on a loopback port.
// It is never linked into the product.
package dnstest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"
)

// The key that the server takes.
const (
	KeyName   = "acme-key"
	Secret    = "c2VjcmV0IG9mIHRoZSB0ZXN0IGtleSwgMzIgYnl0ZXM="
	Algorithm = "hmac-sha256"
)

// Server is a running name server.
type Server struct {
	Addr string // host:port

	mu      sync.Mutex
	zones   []string
	txt     map[string][]string // by name without dot
	aliases map[string]string
	refuse  bool
	lose    bool
	updates int
	server  *mdns.Server
}

// Start serves zones until the test ends.
func Start(t testing.TB, zones ...string) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: l.Addr().String(), zones: zones, txt: map[string][]string{}, aliases: map[string]string{}}
	started := make(chan struct{})
	s.server = &mdns.Server{
		Listener: l, Handler: mdns.HandlerFunc(s.serve), TsigSecret: map[string]string{KeyName + ".": Secret}, NotifyStartedFunc: func() { close(started) },
		// The default refuses updates.
		MsgAcceptFunc: func(mdns.Header) mdns.MsgAcceptAction { return mdns.MsgAccept },
	}
	go func() { _ = s.server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.server.Shutdown() })
	return s
}

// Set puts values at a name, as somebody else would.
func (s *Server) Set(name string, values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.txt[name] = values
}

// Alias makes name a CNAME.
func (s *Server) Alias(name, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aliases[name] = target
}

// Refuse makes the server refuse every update, or take them again.
func (s *Server) Refuse(refuse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// LoseAnswer makes the next update happen, and its answer be lost.
func (s *Server) LoseAnswer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = true
}

// Values returns the TXT values at a name, sorted.
func (s *Server) Values(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.txt[name])
	slices.Sort(all)
	return all
}

// Updates returns how many updates were taken.
func (s *Server) Updates() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updates
}

func (s *Server) serve(w mdns.ResponseWriter, r *mdns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := new(mdns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	if r.Opcode == mdns.OpcodeUpdate {
		s.update(w, r, m)
		if s.lose {
			s.lose = false
			_ = w.Close()
			return
		}
	} else {
		s.answer(r, m)
	}
	_ = w.WriteMsg(m)
}

func (s *Server) answer(r, m *mdns.Msg) {
	name := strings.TrimSuffix(strings.ToLower(r.Question[0].Name), ".")
	header := mdns.RR_Header{Name: r.Question[0].Name, Class: mdns.ClassINET, Ttl: 60}
	if r.Question[0].Qtype == mdns.TypeSOA {
		s.authority(name, m)
		return
	}
	if target, ok := s.aliases[name]; ok {
		header.Rrtype = mdns.TypeCNAME
		m.Answer = append(m.Answer, &mdns.CNAME{Hdr: header, Target: mdns.Fqdn(target)})
		return
	}
	header.Rrtype = mdns.TypeTXT
	for _, v := range s.txt[name] {
		var parts []string
		for len(v) > 255 {
			parts, v = append(parts, v[:255]), v[255:]
		}
		m.Answer = append(m.Answer, &mdns.TXT{Hdr: header, Txt: append(parts, v)})
	}
	if len(m.Answer) == 0 {
		m.Rcode = mdns.RcodeNameError
	}
}

// deepest is the zone that a name is in, or "".
func (s *Server) deepest(name string) string {
	longest := ""
	for _, z := range s.zones {
		if mdns.IsSubDomain(mdns.Fqdn(z), mdns.Fqdn(name)) && len(z) > len(longest) {
			longest = z
		}
	}
	return longest
}

// authority names the zone that a name is in, as a server answers that has no SOA at the name itself.
func (s *Server) authority(name string, m *mdns.Msg) {
	longest := s.deepest(name)
	if longest == "" {
		m.Authoritative, m.Rcode = false, mdns.RcodeRefused
		return
	}
	m.Ns = append(m.Ns, &mdns.SOA{Hdr: mdns.RR_Header{Name: mdns.Fqdn(longest), Rrtype: mdns.TypeSOA, Class: mdns.ClassINET, Ttl: 60}, Ns: "ns.", Mbox: "h.", Minttl: 60})
}

// update knows adding a record and deleting one record (RFC 2136 sections 2.5.1 and 2.5.4); a client that deletes a whole RRset gets FORMERR.
func (s *Server) update(w mdns.ResponseWriter, r, m *mdns.Msg) {
	t := r.IsTsig()
	if t == nil {
		m.Rcode = mdns.RcodeRefused
		return
	}
	m.SetTsig(t.Hdr.Name, t.Algorithm, 300, int64(t.TimeSigned)) //nolint:gosec // a time of this century
	if err := w.TsigStatus(); err != nil {
		m.Rcode = mdns.RcodeNotAuth
		answer := m.IsTsig()
		answer.Error = mdns.RcodeBadSig
		if t.Hdr.Name != KeyName+"." {
			answer.Error = mdns.RcodeBadKey
		}
		return
	}
	zone := strings.TrimSuffix(r.Question[0].Name, ".")
	switch {
	case s.refuse:
		m.Rcode = mdns.RcodeRefused
		return
	case !slices.Contains(s.zones, zone):
		m.Rcode = mdns.RcodeNotAuth
		return
	}
	for _, rr := range r.Ns {
		name := strings.TrimSuffix(rr.Header().Name, ".")
		txt, ok := rr.(*mdns.TXT)
		switch {
		case s.deepest(name) != zone:
			m.Rcode = mdns.RcodeNotZone
			return
		case !ok:
			m.Rcode = mdns.RcodeFormatError
			return
		case s.aliases[name] != "": // silently ignored, RFC 2136 section 3.4.2.2
		default:
			value := strings.Join(txt.Txt, "")
			s.txt[name] = slices.DeleteFunc(slices.Clone(s.txt[name]), func(v string) bool { return v == value })
			if txt.Hdr.Class == mdns.ClassINET {
				s.txt[name] = append(s.txt[name], value)
			}
		}
	}
	s.updates++
}

// Package dnsserver is an authoritative DNS server inside the process, for tests and the demo: UDP and TCP on one
// loopback port, RFC 2136 updates with TSIG, and an address for every name of its zones.
//
// It keeps everything in memory and answers nothing outside its zones. It transfers, signs and delegates nothing.
package dnsserver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/shared/clock"
)

const (
	recordTTL    = 60 // seconds, of what the server makes up
	tsigFudge    = 300
	maxChain     = 8 // CNAMEs followed in one answer
	startTimeout = 5 * time.Second
)

// Key is a TSIG key. The algorithm is always hmac-sha256.
type Key struct {
	Name   string // without or with the dot at the end
	Secret string // base64
}

// NewKey makes a key with 256 random bits.
func NewKey(name string) (Key, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return Key{}, fmt.Errorf("draw key: %w", err)
	}
	return Key{Name: name, Secret: base64.StdEncoding.EncodeToString(secret)}, nil
}

// Options of a server.
type Options struct {
	Addr  string   // loopback address to listen on; empty: a free port
	Zones []string // at least one
	// Keys that may update every zone. Without any, updates are refused.
	Keys    []Key
	Records []string // further records in zone file form, with full names: "www.lab.test. 60 IN CNAME lab.test."
	// Address is what every name of the zones resolves to that has no A record of its own; nil: 127.0.0.1.
	Address net.IP
	// NoWildcard answers only what was put in.
	NoWildcard bool
	Logger     *slog.Logger // nil: none
}

// Fault decides whether one question or update fails. A negative rcode lets it pass, Drop sends no answer.
type Fault func(q dns.Question, update bool) (rcode int)

// Pass and Drop are the two answers of a Fault that are no rcode.
const (
	Pass = -1
	Drop = -2
)

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	zones    []string // canonical, longest first
	keys     map[string]string
	address  net.IP
	log      *slog.Logger
	servers  []*dns.Server
	addr     string
	closeFn  func() error
	finished sync.WaitGroup

	mu      sync.RWMutex
	records map[string]map[uint16][]dns.RR // by canonical name and type
	serials map[string]uint32              // by zone
	updates int
	asked   map[dns.Question]int
	fault   Fault
}

// Start runs a server until Close.
func Start(o Options) (*Server, error) {
	s := &Server{
		keys: map[string]string{}, address: o.Address, log: o.Logger,
		records: map[string]map[uint16][]dns.RR{}, serials: map[string]uint32{}, asked: map[dns.Question]int{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.address == nil && !o.NoWildcard {
		s.address = net.IPv4(127, 0, 0, 1)
	}
	if len(o.Zones) == 0 {
		return nil, errors.New("a DNS server needs at least one zone")
	}
	for _, z := range o.Zones {
		zone := dns.CanonicalName(z)
		s.zones = append(s.zones, zone)
		s.serials[zone] = 1
		s.add(&dns.NS{Hdr: header(zone, dns.TypeNS), Ns: "ns." + zone})
	}
	slices.SortFunc(s.zones, func(a, b string) int { return len(b) - len(a) })
	for _, k := range o.Keys {
		s.keys[dns.CanonicalName(k.Name)] = k.Secret
	}
	if err := s.Add(o.Records...); err != nil {
		return nil, err
	}
	l, p, err := loopback.ListenBoth(o.Addr)
	if err != nil {
		return nil, err
	}
	s.addr = l.Addr().String()
	s.closeFn = sync.OnceValue(s.shutdown)
	return s, s.serve(l, p)
}

func (s *Server) serve(l net.Listener, p net.PacketConn) error {
	started := make(chan struct{}, 2)
	failed := make(chan error, 2)
	for _, d := range []*dns.Server{{Listener: l}, {PacketConn: p}} {
		d.Handler, d.TsigSecret, d.MsgAcceptFunc = dns.HandlerFunc(s.handle), s.keys, accept
		d.NotifyStartedFunc = func() { started <- struct{}{} }
		s.servers = append(s.servers, d)
		s.finished.Go(func() {
			if err := d.ActivateAndServe(); err != nil {
				failed <- err
			}
		})
	}
	late, stop := clock.System().After(startTimeout)
	defer stop()
	for range s.servers {
		select {
		case <-started:
		case err := <-failed:
			return errors.Join(fmt.Errorf("serve DNS: %w", err), s.Close())
		case <-late:
			return errors.Join(errors.New("the DNS server did not start in time"), s.Close())
		}
	}
	return nil
}

// accept lets updates through, which the library's default refuses.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	opcode := int(h.Bits>>11) & 0xF
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case opcode != dns.OpcodeQuery && opcode != dns.OpcodeUpdate:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// Close ends the server. It is safe to call more than once.
func (s *Server) Close() error { return s.closeFn() }

func (s *Server) shutdown() error {
	var errs []error
	for _, d := range s.servers {
		errs = append(errs, d.Shutdown())
	}
	s.finished.Wait()
	return errors.Join(errs...)
}

// Addr is the host:port of the server, for UDP and TCP.
func (s *Server) Addr() string { return s.addr }

// Add puts records in zone file form into the zones, beside those that are there.
func (s *Server) Add(lines ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			return fmt.Errorf("record %q: %w", line, err)
		}
		if rr == nil {
			return fmt.Errorf("record %q is empty", line)
		}
		zone := s.zoneOf(rr.Header().Name)
		if zone == "" {
			return fmt.Errorf("record %q is in none of the zones %v", line, s.zones)
		}
		s.add(rr)
		s.serials[zone]++
	}
	return nil
}

// Remove takes all records of a type from a name (dns.TypeANY: of every type).
func (s *Server) Remove(name string, kind uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(dns.CanonicalName(name), kind)
	s.serials[s.zoneOf(name)]++
}

// TXT are the values at a name, sorted; each value's strings are joined.
func (s *Server) TXT(name string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return values(s.records[dns.CanonicalName(name)][dns.TypeTXT])
}

// Snapshot are all TXT values by name without the dot at the end: an empty map means that everything was cleaned up.
func (s *Server) Snapshot() map[string][]string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := map[string][]string{}
	for name, types := range s.records {
		if v := values(types[dns.TypeTXT]); len(v) > 0 {
			all[strings.TrimSuffix(name, ".")] = v
		}
	}
	return all
}

// Updates is how many updates were carried out.
func (s *Server) Updates() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.updates
}

// Asked is how often a name was asked for a type, whatever the answer.
func (s *Server) Asked(name string, kind uint16) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.asked[dns.Question{Name: dns.CanonicalName(name), Qtype: kind, Qclass: dns.ClassINET}]
}

// SetFault puts a fault in front of every question and update, or with nil takes it away.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *Server) handle(w dns.ResponseWriter, r *dns.Msg) {
	q := r.Question[0]
	q.Name = dns.CanonicalName(q.Name)
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	rcode := s.faulty(q, r.Opcode == dns.OpcodeUpdate)
	switch {
	case rcode == Drop:
		return
	case rcode != Pass:
		m.Rcode = rcode
	case r.IsTsig() != nil && s.tsigError(w, r.IsTsig()) != dns.RcodeSuccess:
		m.Rcode = dns.RcodeNotAuth
	case r.Opcode == dns.OpcodeUpdate:
		m.Rcode = dns.RcodeRefused
		if r.IsTsig() != nil {
			m.Rcode = s.update(r)
		}
		s.log.Debug("dns update", "zone", q.Name, "rcode", dns.RcodeToString[m.Rcode])
	case q.Qclass != dns.ClassINET || s.inZone(q.Name) == "":
		m.Authoritative = false
		m.Rcode = dns.RcodeRefused
	default:
		s.answer(m, q)
	}
	s.finish(w, r, m)
}

// finish adds the EDNS and TSIG records that the request calls for and sends the answer.
func (s *Server) finish(w dns.ResponseWriter, r, m *dns.Msg) {
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, false)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		m.Truncate(size)
	}
	if t := r.IsTsig(); t != nil {
		reply := new(dns.TSIG)
		reply.Hdr = dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY}
		reply.Algorithm, reply.Fudge, reply.OrigId = t.Algorithm, tsigFudge, r.Id
		now := uint64(clock.System().Now().Unix()) //nolint:gosec // not before 1970
		reply.TimeSigned = now
		switch reply.Error = s.tsigError(w, t); reply.Error {
		case dns.RcodeBadTime: // RFC 8945 §5.2.3: signed, with the request's time and ours
			reply.TimeSigned, reply.OtherLen, reply.OtherData = t.TimeSigned, 6, fmt.Sprintf("%012x", now)
		default:
		}
		m.Extra = append(m.Extra, reply)
	}
	if err := w.WriteMsg(m); err != nil {
		s.log.Debug("dns answer not sent", "error", err)
	}
}

// tsigError is the error of RFC 8945 §5.2 that a signed request earns, or 0.
func (s *Server) tsigError(w dns.ResponseWriter, t *dns.TSIG) uint16 {
	_, known := s.keys[t.Hdr.Name]
	err := w.TsigStatus()
	switch {
	case !known, !strings.EqualFold(t.Algorithm, dns.HmacSHA256):
		return dns.RcodeBadKey
	case errors.Is(err, dns.ErrTime):
		return dns.RcodeBadTime
	case err != nil:
		return dns.RcodeBadSig
	}
	return dns.RcodeSuccess
}

func (s *Server) faulty(q dns.Question, update bool) int {
	s.mu.Lock()
	f := s.fault
	if !update {
		s.asked[q]++
	}
	s.mu.Unlock()
	if f == nil {
		return Pass
	}
	return f(q, update)
}

// answer fills in a reply for a name inside the zones.
func (s *Server) answer(m *dns.Msg, q dns.Question) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	name := q.Name
	for range maxChain {
		types := s.records[name]
		if alias := types[dns.TypeCNAME]; len(alias) > 0 && q.Qtype != dns.TypeCNAME {
			m.Answer = append(m.Answer, alias[0])
			name = dns.CanonicalName(alias[0].(*dns.CNAME).Target)
			if s.zoneOf(name) == "" {
				return // the asker follows it elsewhere
			}
			continue
		}
		found := s.lookup(name, q.Qtype)
		m.Answer = append(m.Answer, found...)
		if len(found) == 0 {
			m.Ns = append(m.Ns, s.soa(s.zoneOf(name)))
			if !s.exists(name) {
				m.Rcode = dns.RcodeNameError
			}
		}
		return
	}
	m.Rcode = dns.RcodeServerFailure
}

func (s *Server) lookup(name string, kind uint16) []dns.RR {
	zone := s.zoneOf(name)
	switch {
	case kind == dns.TypeSOA && name == zone:
		return []dns.RR{s.soa(zone)}
	case kind == dns.TypeANY:
		var all []dns.RR
		for _, k := range slices.Sorted(maps.Keys(s.records[name])) {
			all = append(all, s.records[name][k]...)
		}
		return all
	case kind == dns.TypeA && len(s.records[name][kind]) == 0 && s.address != nil:
		return []dns.RR{&dns.A{Hdr: header(name, dns.TypeA), A: s.address}}
	}
	return slices.Clone(s.records[name][kind])
}

// exists reports whether the name is there: by the wildcard address, by a record, or as a parent of one.
func (s *Server) exists(name string) bool {
	if s.address != nil || s.zoneOf(name) == name {
		return true
	}
	for other, types := range s.records {
		if len(types) > 0 && dns.IsSubDomain(name, other) {
			return true
		}
	}
	return false
}

func (s *Server) soa(zone string) dns.RR {
	return &dns.SOA{
		Hdr: header(zone, dns.TypeSOA), Ns: "ns." + zone, Mbox: "hostmaster." + zone, Serial: s.serials[zone],
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 1,
	}
}

func (s *Server) inZone(name string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.zoneOf(name)
}

// zoneOf is the longest zone that the name is in, or "". The zones never change.
func (s *Server) zoneOf(name string) string {
	for _, z := range s.zones {
		if dns.IsSubDomain(z, dns.CanonicalName(name)) {
			return z
		}
	}
	return ""
}

// add needs the lock (or a server not yet started).
func (s *Server) add(rr dns.RR) {
	h := rr.Header()
	h.Name = dns.CanonicalName(h.Name)
	types := s.records[h.Name]
	if types == nil {
		types = map[uint16][]dns.RR{}
		s.records[h.Name] = types
	}
	for i, old := range types[h.Rrtype] {
		if dns.IsDuplicate(old, rr) {
			types[h.Rrtype][i] = rr // a new TTL
			return
		}
	}
	types[h.Rrtype] = append(types[h.Rrtype], rr)
}

func (s *Server) remove(name string, kind uint16) {
	if kind == dns.TypeANY {
		delete(s.records, name)
		return
	}
	delete(s.records[name], kind)
	if len(s.records[name]) == 0 {
		delete(s.records, name)
	}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: recordTTL}
}

func values(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		if txt, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(out)
	return out
}

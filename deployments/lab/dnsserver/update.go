package dnsserver

import (
	"slices"

	"github.com/miekg/dns"
)

// update carries out an RFC 2136 message whose signature was good and returns the rcode. All of it happens or
// nothing.
func (s *Server) update(r *dns.Msg) int {
	zone := dns.CanonicalName(r.Question[0].Name)
	if r.Question[0].Qtype != dns.TypeSOA {
		return dns.RcodeFormatError
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.zones, zone) {
		return dns.RcodeNotAuth
	}
	if rcode := s.prerequisites(zone, r.Answer); rcode != dns.RcodeSuccess {
		return rcode
	}
	if rcode := s.scan(zone, r.Ns); rcode != dns.RcodeSuccess {
		return rcode
	}
	for _, rr := range r.Ns {
		s.apply(zone, rr)
	}
	s.serials[zone]++
	s.updates++
	return dns.RcodeSuccess
}

// prerequisites is RFC 2136 §3.2.
func (s *Server) prerequisites(zone string, rrs []dns.RR) int {
	type set struct {
		name string
		kind uint16
	}
	wanted := map[set][]dns.RR{}
	for _, rr := range rrs {
		h := rr.Header()
		name := dns.CanonicalName(h.Name)
		if h.Ttl != 0 {
			return dns.RcodeFormatError
		}
		if s.zoneOf(name) != zone {
			return dns.RcodeNotZone
		}
		inUse := len(s.records[name]) > 0
		exists := len(s.records[name][h.Rrtype]) > 0
		switch h.Class {
		case dns.ClassANY:
			if h.Rrtype == dns.TypeANY && !inUse {
				return dns.RcodeNameError
			}
			if h.Rrtype != dns.TypeANY && !exists {
				return dns.RcodeNXRrset
			}
		case dns.ClassNONE:
			if h.Rrtype == dns.TypeANY && inUse {
				return dns.RcodeYXDomain
			}
			if h.Rrtype != dns.TypeANY && exists {
				return dns.RcodeYXRrset
			}
		case dns.ClassINET:
			k := set{name, h.Rrtype}
			wanted[k] = append(wanted[k], rr)
		default:
			return dns.RcodeFormatError
		}
	}
	for k, want := range wanted {
		if !sameSet(want, s.records[k.name][k.kind]) {
			return dns.RcodeNXRrset
		}
	}
	return dns.RcodeSuccess
}

// scan is the check before the update of RFC 2136 §3.4.1.
func (s *Server) scan(zone string, rrs []dns.RR) int {
	for _, rr := range rrs {
		h := rr.Header()
		if s.zoneOf(h.Name) != zone {
			return dns.RcodeNotZone
		}
		switch h.Class {
		case dns.ClassINET:
			if h.Rrtype == dns.TypeANY {
				return dns.RcodeFormatError
			}
		case dns.ClassANY:
			if h.Ttl != 0 {
				return dns.RcodeFormatError
			}
		case dns.ClassNONE:
			if h.Ttl != 0 || h.Rrtype == dns.TypeANY {
				return dns.RcodeFormatError
			}
		default:
			return dns.RcodeFormatError
		}
	}
	return dns.RcodeSuccess
}

// apply is RFC 2136 §3.4.2 for one record. The apex keeps its SOA and NS.
func (s *Server) apply(zone string, rr dns.RR) {
	h := rr.Header()
	name := dns.CanonicalName(h.Name)
	apex := name == zone && (h.Rrtype == dns.TypeSOA || h.Rrtype == dns.TypeNS || h.Rrtype == dns.TypeANY)
	switch h.Class {
	case dns.ClassINET:
		alias := len(s.records[name][dns.TypeCNAME]) > 0
		others := len(s.records[name]) > 0 && !alias
		if h.Rrtype == dns.TypeSOA || alias != (h.Rrtype == dns.TypeCNAME) && (alias || others) {
			return // silently, says §3.4.2.2
		}
		if h.Rrtype == dns.TypeCNAME {
			s.remove(name, dns.TypeCNAME)
		}
		s.add(rr)
	case dns.ClassANY:
		if !apex {
			s.remove(name, h.Rrtype)
		}
	case dns.ClassNONE:
		if apex {
			return
		}
		kept := slices.DeleteFunc(slices.Clone(s.records[name][h.Rrtype]), func(old dns.RR) bool { return sameData(old, rr) })
		if len(kept) == 0 {
			s.remove(name, h.Rrtype)
			return
		}
		s.records[name][h.Rrtype] = kept
	}
}

// sameData compares name, type and data, and neither class nor TTL.
func sameData(a, b dns.RR) bool {
	c := dns.Copy(b)
	c.Header().Class = a.Header().Class
	return dns.IsDuplicate(a, c)
}

func sameSet(a, b []dns.RR) bool {
	within := func(x, y []dns.RR) bool {
		for _, rr := range x {
			if !slices.ContainsFunc(y, func(other dns.RR) bool { return sameData(other, rr) }) {
				return false
			}
		}
		return true
	}
	return within(a, b) && within(b, a)
}

package domain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The challenge types that this service answers (RFC 8555 sections 8.3 and 8.4, RFC 8737).
const (
	HTTP01    = "http-01"
	DNS01     = "dns-01"
	TLSALPN01 = "tls-alpn-01"
)

// Auto is the wish to have the type chosen.
const Auto = "auto"

// Solver is who answers a challenge.
type Solver string

// The solvers.
const (
	ByResponder Solver = "responder" // the built-in responder for http-01 or tls-alpn-01
	ByDNS       Solver = "dns"       // a TXT record, written by the dns service
	ByHand      Solver = "manual"    // a person
)

// Responders says which built-in ones are switched on.
type Responders struct{ HTTP, TLS bool }

// Input is all that the choice of a solver looks at.
type Input struct {
	Responders

	Identifier  string
	Wildcard    bool
	WantedType  string // auto, http-01, tls-alpn-01 or dns-01
	Manual      bool
	Offered     []string // challenge types that the CA offers
	DNSAccount  string   // the DNS account that covers the record's name; empty when none does or nobody asked
	DNSExplains string   // what the dns service says about it
	Aliases     []string // from _acme-challenge of the name to the record's; empty when nobody asked, one when it is no alias
	DNSTrouble  Problem  // why dns-01 cannot be answered now
	Route       Candidate
	wants       string // who wants the type or the person, when the spec does not
}

// Finding is one rule's decision: who answers which type, and why. Trouble is set when nobody can.
type Finding struct {
	Rule        string
	Type        string
	Solver      Solver
	Explanation string // one sentence
	Trouble     Problem
	RouteID     string // that decided or added to the decision; empty: none
	Record      string // name of the TXT record; empty: _acme-challenge of the name
	Account     string // the DNS account that the route wants; empty: the one that covers the name
	Check       Check
}

// rule looks at the input and decides, or leaves it to the next.
type rule struct {
	name   string
	decide func(Input) (Finding, bool)
}

// rules is the whole policy, in order. The first that decides wins. A route has changed the input before: see Under.
var rules = []rule{
	{"manual wanted", func(in Input) (Finding, bool) {
		f := Finding{Solver: ByHand, Type: in.WantedType, Explanation: in.who() + " wants a person to place the answer"}
		if in.WantedType == Auto {
			f.Type = firstOf(in.Offered, HTTP01, DNS01, TLSALPN01)
		}
		if in.Wildcard {
			f.Type = DNS01
		}
		return f, in.Manual
	}},
	{"wildcard", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: "control of a wildcard can be proven by dns-01 only"}, in.Wildcard
	}},
	{"dns-01 wanted", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: in.who() + " wants dns-01"}, in.WantedType == DNS01
	}},
	{"http-01 wanted", func(in Input) (Finding, bool) {
		return Finding{Solver: ByResponder, Type: HTTP01, Explanation: in.who() + " wants http-01, answered by the built-in responder"}, in.WantedType == HTTP01
	}},
	{"tls-alpn-01 wanted", func(in Input) (Finding, bool) {
		return Finding{Solver: ByResponder, Type: TLSALPN01, Explanation: in.who() + " wants tls-alpn-01, answered by the built-in responder"}, in.WantedType == TLSALPN01
	}},
	{"a DNS account covers the name", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: in.DNSExplains}, in.DNSAccount != "" && slices.Contains(in.Offered, DNS01)
	}},
	{"the responder answers", func(in Input) (Finding, bool) {
		why := "no DNS account covers the name, so the built-in responder answers http-01"
		if in.DNSAccount != "" {
			why = "the CA does not offer dns-01, so the built-in responder answers http-01"
		}
		return Finding{Solver: ByResponder, Type: HTTP01, Explanation: why}, in.HTTP && slices.Contains(in.Offered, HTTP01)
	}},
	{"the tls-alpn-01 responder answers", func(in Input) (Finding, bool) {
		return Finding{Solver: ByResponder, Type: TLSALPN01, Explanation: "the CA offers tls-alpn-01 alone, so the built-in responder answers it"},
			in.TLS && slices.Equal(in.Offered, []string{TLSALPN01})
	}},
	{"nobody can", func(in Input) (Finding, bool) {
		return Finding{Trouble: Problem{Reason: ReasonNoSolver, Detail: fmt.Sprintf(
			"nobody can answer for %s: the CA offers %s, the built-in responder for http-01 is %s, and %s; switch the responder on, create a DNS account, or ask for manual challenges",
			in.Identifier, list(in.Offered), onOff(in.HTTP), cmp.Or(in.DNSExplains, "no DNS account covers the name"))}}, true
	}},
}

// firstOf is the first that is offered, or the first.
func firstOf(offered []string, wanted ...string) string {
	for _, w := range wanted {
		if slices.Contains(offered, w) {
			return w
		}
	}
	return wanted[0]
}

func (in Input) who() string { return cmp.Or(in.wants, "the certificate's spec") }

// NeedsDNS reports whether the DNS and the dns service have to be asked before anybody can be chosen: for aliases, and for the account.
func NeedsDNS(in Input) bool {
	return slices.Contains(in.Offered, DNS01) && (IsAuto(in) || Choose(in).Type == DNS01)
}

// IsAuto reports whether the choice of the type depends on which DNS account covers the name.
func IsAuto(in Input) bool { return !in.Manual && !in.Wildcard && cmp.Or(in.WantedType, Auto) == Auto }

// Choose decides who answers.
func Choose(in Input) Finding {
	in.WantedType = cmp.Or(in.WantedType, Auto)
	var f Finding
	for _, r := range rules {
		if found, ok := r.decide(in); ok {
			f = found
			f.Rule = r.name
			break
		}
	}
	f.RouteID = in.Route.ID
	if f.Type == DNS01 {
		f.Account, f.Check = in.Route.DNSAccountID, in.Route.Check
		if n := len(in.Aliases); n > 1 {
			f.Record = in.Aliases[n-1]
			f.Explanation += "; the record belongs where " + chain(in.Aliases) + " leads"
		}
	}
	switch {
	case !f.Trouble.IsZero():
	case f.Type != HTTP01 && f.Type != DNS01 && f.Type != TLSALPN01:
		f.Trouble = Problem{Reason: ReasonTypeUnknown, Detail: fmt.Sprintf(
			"the certificate's spec wants the challenge type %q; allowed: auto, http-01, dns-01, tls-alpn-01", in.WantedType)}
	case !slices.Contains(in.Offered, f.Type):
		f.Trouble = Problem{Reason: ReasonNotOffered, Detail: fmt.Sprintf(
			"the CA does not offer %s for %s, only %s, but %s; change the certificate's challenge type", f.Type, in.Identifier, list(in.Offered), f.Explanation)}
	case f.Type == DNS01 && !in.DNSTrouble.IsZero():
		f.Trouble = in.DNSTrouble
	case f.Solver == ByResponder && (f.Type == HTTP01 && !in.HTTP || f.Type == TLSALPN01 && !in.TLS):
		setting := "http01.listen"
		if f.Type == TLSALPN01 {
			setting = "tlsalpn01.listen"
		}
		f.Trouble = Problem{Reason: ReasonResponderOff, Detail: fmt.Sprintf(
			"%s, but the responder is switched off here; set %s of the challenges service, or use dns-01 or manual challenges", f.Explanation, setting)}
	}
	return f
}

func chain(aliases []string) string { return strings.Join(aliases, " → ") }

func list(all []string) string {
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

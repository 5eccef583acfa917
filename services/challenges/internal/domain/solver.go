package domain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The challenge types that this service answers (RFC 8555 sections 8.3 and 8.4).
const (
	HTTP01 = "http-01"
	DNS01  = "dns-01"
)

// Auto is the wish to have the type chosen.
const Auto = "auto"

// Solver is who answers a challenge.
type Solver string

// The solvers.
const (
	ByResponder Solver = "responder" // the built-in HTTP responder
	ByDNS       Solver = "dns"       // a TXT record, written by the dns service
	ByHand      Solver = "manual"    // a person
)

// Input is all that the choice of a solver looks at.
type Input struct {
	Identifier  string
	Wildcard    bool
	WantedType  string // auto, http-01 or dns-01
	Manual      bool
	Offered     []string // challenge types that the CA offers
	Responder   bool     // the built-in responder is switched on
	DNSAccount  string   // the DNS account that covers the name; empty when none does or nobody asked
	DNSExplains string   // what the dns service says about it
}

// Finding is one rule's decision: who answers which type, and why. Trouble is set when nobody can.
type Finding struct {
	Rule        string
	Type        string
	Solver      Solver
	Explanation string // one sentence
	Trouble     Problem
}

// rule looks at the input and decides, or leaves it to the next.
type rule struct {
	name   string
	decide func(Input) (Finding, bool)
}

// rules is the whole policy, in order. The first that decides wins.
var rules = []rule{
	{"manual wanted", func(in Input) (Finding, bool) {
		f := Finding{Solver: ByHand, Type: in.WantedType, Explanation: "the certificate's spec wants a person to place the answer"}
		if in.WantedType == Auto {
			f.Type = HTTP01
		}
		if in.Wildcard {
			f.Type = DNS01
		}
		if in.WantedType == Auto && !slices.Contains(in.Offered, f.Type) {
			f.Type = DNS01
		}
		return f, in.Manual
	}},
	{"wildcard", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: "control of a wildcard can be proven by dns-01 only"}, in.Wildcard
	}},
	{"dns-01 wanted", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: "the certificate's spec wants dns-01"}, in.WantedType == DNS01
	}},
	{"http-01 wanted", func(in Input) (Finding, bool) {
		return Finding{Solver: ByResponder, Type: HTTP01, Explanation: "the certificate's spec wants http-01, answered by the built-in responder"}, in.WantedType == HTTP01
	}},
	{"a DNS account covers the name", func(in Input) (Finding, bool) {
		return Finding{Solver: ByDNS, Type: DNS01, Explanation: in.DNSExplains}, in.DNSAccount != "" && slices.Contains(in.Offered, DNS01)
	}},
	{"the responder answers", func(in Input) (Finding, bool) {
		why := "no DNS account covers the name, so the built-in responder answers http-01"
		if in.DNSAccount != "" {
			why = "the CA does not offer dns-01, so the built-in responder answers http-01"
		}
		return Finding{Solver: ByResponder, Type: HTTP01, Explanation: why}, in.Responder && slices.Contains(in.Offered, HTTP01)
	}},
	{"nobody can", func(in Input) (Finding, bool) {
		return Finding{Trouble: Problem{Reason: ReasonNoSolver, Detail: fmt.Sprintf(
			"nobody can answer for %s: the CA offers %s, the built-in responder for http-01 is %s, and %s; switch the responder on, create a DNS account, or ask for manual challenges",
			in.Identifier, list(in.Offered), onOff(in.Responder), cmp.Or(in.DNSExplains, "no DNS account covers the name"))}}, true
	}},
}

// NeedsDNS reports whether the choice depends on which DNS account covers the name.
func NeedsDNS(in Input) bool {
	return !in.Manual && !in.Wildcard && in.WantedType == Auto && slices.Contains(in.Offered, DNS01)
}

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
	switch {
	case !f.Trouble.IsZero():
	case f.Type != HTTP01 && f.Type != DNS01:
		f.Trouble = Problem{Reason: ReasonTypeUnknown, Detail: fmt.Sprintf("the certificate's spec wants the challenge type %q; allowed: auto, http-01, dns-01", in.WantedType)}
	case !slices.Contains(in.Offered, f.Type):
		f.Trouble = Problem{Reason: ReasonNotOffered, Detail: fmt.Sprintf(
			"the CA does not offer %s for %s, only %s, but %s; change the certificate's challenge type", f.Type, in.Identifier, list(in.Offered), f.Explanation)}
	case f.Solver == ByResponder && !in.Responder:
		f.Trouble = Problem{Reason: ReasonResponderOff, Detail: fmt.Sprintf(
			"%s, but the responder is switched off here; set http01.listen of the challenges service, or use dns-01 or manual challenges", f.Explanation)}
	}
	return f
}

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

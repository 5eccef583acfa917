package domain

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// The solvers that a route may name. Empty: chosen as without a route.
const (
	RouteDNSAccount = "dns_account"
	RouteBuiltin    = "builtin"
	RouteManual     = "manual"
)

// How a TXT record is checked before the CA is asked. Empty: as seen at the server that took it.
const (
	CheckAuthoritative = "authoritative"
	CheckResolvers     = "resolvers"
	CheckWait          = "wait"
)

const (
	longestWait  = time.Hour
	mostPriority = 1000
	maxResolvers = 10
)

var challengeTypes = []string{Auto, HTTP01, TLSALPN01, DNS01}

// Check says how a TXT record is seen before the CA is asked.
type Check struct {
	How       string        `bson:"how"`
	Resolvers []string      `bson:"resolvers"` // host:port; empty: those of the service
	Wait      time.Duration `bson:"wait"`
}

// Route says who answers challenges for the names that it matches, and how. Exactly one of Exact, Suffix and Zone is set.
type Route struct {
	DisplayName  string `bson:"display_name"`
	Exact        string `bson:"exact"`  // this name or address alone
	Suffix       string `bson:"suffix"` // all names below
	Zone         string `bson:"zone"`   // this name and all below
	Type         string `bson:"type"`   // auto, or a challenge type
	Solver       string `bson:"solver"`
	DNSAccountID string `bson:"dns_account_id"`
	DelegateTo   string `bson:"delegate_to"`
	Check        Check  `bson:"check"`
	Priority     int    `bson:"priority"`
}

// Candidate is a stored route.
type Candidate struct {
	ID   string
	Team string
	Route
}

func (c Candidate) name() string { return fmt.Sprintf("the route %s (%s)", c.ID, c.DisplayName) }

// NewRoute brings what a user gave to the form that is stored. It names every mistake, below "route".
func NewRoute(r Route) (Route, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: "route." + field, Msg: fmt.Sprintf(format, args...)})
	}
	r.DisplayName = strings.TrimSpace(r.DisplayName)
	if n := len([]rune(r.DisplayName)); n == 0 || n > 200 {
		fail("displayName", "has %d characters; give a name of 1 to 200 by which people know the route", n)
	}
	given := 0
	for field, name := range map[string]*string{"exact": &r.Exact, "suffix": &r.Suffix, "zone": &r.Zone} {
		if *name == "" {
			continue
		}
		given++
		if ip, err := netip.ParseAddr(*name); err == nil && field == "exact" {
			*name = ip.Unmap().String()
			continue
		}
		clean, why := dnsName(*name)
		if why != "" {
			fail("pattern."+field, "%q %s", *name, why)
		}
		*name = clean
	}
	if given != 1 {
		fail("pattern", "has %d of exact, suffix and zone; give one: the exact name, the suffix that all names below have, or the zone that is both", given)
	}
	r.Type = cmp.Or(r.Type, Auto)
	if !slices.Contains(challengeTypes, r.Type) {
		fail("challengeType", "%q given, allowed: %s", r.Type, strings.Join(challengeTypes, ", "))
	}
	address := net.ParseIP(r.Exact) != nil
	switch r.Solver {
	case "", RouteManual:
	case RouteDNSAccount:
		if r.Type != Auto && r.Type != DNS01 {
			fail("challengeType", "%q given, but a DNS account answers dns-01 alone; leave it out, or choose another solver", r.Type)
		}
	case RouteBuiltin:
		if r.Type == DNS01 {
			fail("challengeType", "%q given, but the built-in responder answers http-01 and tls-alpn-01; leave it out, or choose the solver dns_account", r.Type)
		}
	default:
		fail("solver", "%q given, allowed: dns_account, builtin, manual, or none to have it chosen", r.Solver)
	}
	if address && (r.Solver == RouteDNSAccount || r.Type == DNS01) {
		fail("pattern.exact", "%q is an address, which dns-01 cannot prove; use the solver builtin or manual", r.Exact)
	}
	if r.DNSAccountID != "" && r.Solver != RouteDNSAccount {
		fail("dnsAccountId", "is given, but the solver is %q; set the solver to dns_account, or leave it out", r.Solver)
	}
	if (r.DelegateTo != "" || r.Check.How != "" || len(r.Check.Resolvers) > 0) && (r.Solver == RouteBuiltin || r.Type == HTTP01 || r.Type == TLSALPN01 || address) {
		fail("solver", "the route is not for dns-01, so delegateTo, resolvers and check mean nothing; leave them out")
	}
	if r.DelegateTo != "" {
		clean, why := dnsName(r.DelegateTo)
		if why != "" {
			fail("delegateTo", "%q %s", r.DelegateTo, why)
		}
		r.DelegateTo = clean
	}
	r.Check.Resolvers = resolvers(r.Check.Resolvers, fail)
	switch r.Check.How {
	case "", CheckAuthoritative, CheckResolvers:
		if r.Check.Wait != 0 {
			fail("wait", "is %s, but the check is %q; set the check to wait, or leave it out", r.Check.Wait, r.Check.How)
		}
	case CheckWait:
		if r.Check.Wait < time.Second || r.Check.Wait > longestWait {
			fail("wait", "is %s; with the check wait it has to be 1s to %s", r.Check.Wait, longestWait)
		}
	default:
		fail("check", "%q given, allowed: authoritative, resolvers, wait, or none", r.Check.How)
	}
	if r.Priority < -mostPriority || r.Priority > mostPriority {
		fail("priority", "is %d; it may be -%d to %d", r.Priority, mostPriority, mostPriority)
	}
	return r, wrong
}

func resolvers(given []string, fail func(field, format string, args ...any)) []string {
	if len(given) > maxResolvers {
		fail("resolvers", "has %d entries; at most %d are allowed", len(given), maxResolvers)
	}
	var out []string
	for i, r := range given {
		addr := strings.TrimSpace(r)
		if ip, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
			addr = net.JoinHostPort(ip.String(), "53")
		}
		if _, err := netip.ParseAddrPort(addr); err != nil {
			fail(fmt.Sprintf("resolvers[%d]", i), "%q is not an address; give the resolver as address:port, e.g. 192.0.2.53:53 or [2001:db8::53]:53", r)
		}
		out = append(out, addr)
	}
	return out
}

// dnsName brings a name to lower case without a dot at the end, or says what is wrong with it.
func dnsName(given string) (name, why string) {
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(given)), ".")
	if name == "" || len(name) > 253 {
		return name, fmt.Sprintf("has %d characters; a DNS name has 1 to 253", len(name))
	}
	for _, label := range strings.Split(name, ".") {
		if label == "*" {
			return name, `is a wildcard; give the name without "*.", which matches its wildcard too`
		}
		if label == "" || len(label) > 63 {
			return name, "is not a DNS name: each part between dots has 1 to 63 characters"
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return name, fmt.Sprintf("is not a DNS name: %q is not allowed; use letters, digits, - and _ (international names as xn--…)", r)
			}
		}
	}
	return name, ""
}

// matches says how specific the match is: an exact one is above all, then the longest name; of equals the one that leaves the name itself out. 0: none.
func (r Route) matches(name string) int {
	switch {
	case r.Exact != "" && name == r.Exact:
		return 1 << 20
	case r.Suffix != "" && strings.HasSuffix(name, "."+r.Suffix):
		return 2*len(r.Suffix) + 1
	case r.Zone != "" && (name == r.Zone || strings.HasSuffix(name, "."+r.Zone)):
		return 2 * len(r.Zone)
	}
	return 0
}

// effective is the type that the route is for, auto when that is still open.
func (r Route) effective() string {
	if r.Solver == RouteDNSAccount {
		return DNS01
	}
	return cmp.Or(r.Type, Auto)
}

// unfit says why a route that matches cannot be used, or "".
func (r Route) unfit(in Input) string {
	typ, wanted := r.effective(), cmp.Or(in.WantedType, Auto)
	switch {
	case in.Manual && r.Solver != "" && r.Solver != RouteManual:
		return "the certificate's spec wants a person to place the answer"
	case in.Wildcard && (r.Solver == RouteBuiltin || typ == HTTP01 || typ == TLSALPN01):
		return "it is not for dns-01, which alone proves control of a wildcard"
	case in.Wildcard:
	case wanted != Auto && typ != Auto && typ != wanted:
		return fmt.Sprintf("it is for %s, and the certificate's spec wants %s", typ, wanted)
	case wanted == DNS01 && r.Solver == RouteBuiltin:
		return "it is for the built-in responder, and the certificate's spec wants dns-01"
	case typ != Auto && !slices.Contains(in.Offered, typ):
		return fmt.Sprintf("it is for %s, and the CA offers %s", typ, list(in.Offered))
	}
	return ""
}

// precedence of the solvers; the lower comes first.
var precedence = map[string]int{RouteDNSAccount: 1, RouteBuiltin: 2, RouteManual: 3, "": 4}

var solverNames = map[string]string{RouteDNSAccount: "a DNS account", RouteBuiltin: "the built-in responder", RouteManual: "a person", "": "a route without solver"}

// Passed is a route that matches and does not decide.
type Passed struct{ ID, Name, Why string }

// MayServe reports whether a route of one team is for another's names: those of the shared teams are for all.
func MayServe(owner, team string) bool { return owner == team || owner == "default" || owner == "*" }

// PickRoute picks the route for a name: the most specific pattern, then the highest priority, then the precedence of solvers, then the team's own
// before a shared one, then the oldest. False: none matches.
func PickRoute(all []Candidate, team string, in Input) (best Candidate, ok bool, passed []Passed) {
	var fit []Candidate
	for _, c := range all {
		if !MayServe(c.Team, team) || c.matches(in.Identifier) == 0 {
			continue
		}
		if why := c.unfit(in); why != "" {
			passed = append(passed, Passed{c.ID, c.DisplayName, why})
			continue
		}
		fit = append(fit, c)
	}
	for _, c := range fit {
		if best.ID == "" || before(c, best, team, in.Identifier) != "" {
			best = c
		}
	}
	for _, c := range fit {
		if c.ID != best.ID {
			passed = append(passed, Passed{c.ID, c.DisplayName, before(best, c, team, in.Identifier)})
		}
	}
	return best, best.ID != "", passed
}

// before says why a comes before b, "" when it does not.
func before(a, b Candidate, team, name string) string {
	ra, rb := precedence[a.Solver], precedence[b.Solver]
	for _, rule := range []struct {
		order int
		why   string
	}{
		{cmp.Compare(b.matches(name), a.matches(name)), fmt.Sprintf("the pattern of %s is more specific", a.ID)},
		{cmp.Compare(b.Priority, a.Priority), fmt.Sprintf("the priority of %s is higher (%d)", a.ID, a.Priority)},
		{cmp.Compare(ra, rb), fmt.Sprintf("%s (%s) comes before %s", solverNames[a.Solver], a.ID, solverNames[b.Solver])},
		{compareBool(b.Team == team, a.Team == team), fmt.Sprintf("%s is the team's own", a.ID)},
		{cmp.Compare(a.ID, b.ID), fmt.Sprintf("%s is older", a.ID)},
	} {
		switch {
		case rule.order < 0:
			return rule.why
		case rule.order > 0:
			return ""
		}
	}
	return ""
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Under is the input as the route changes it.
func Under(in Input, c Candidate) Input {
	in.Route = c
	in.WantedType = cmp.Or(in.WantedType, Auto)
	if c.Solver == RouteManual && !in.Manual {
		in.Manual, in.wants = true, c.name()
	}
	if in.WantedType != Auto {
		return in
	}
	in.WantedType = c.effective()
	if c.Solver == RouteBuiltin && in.WantedType == Auto {
		in.WantedType = HTTP01
		if slices.Contains(in.Offered, TLSALPN01) && in.TLS && !(slices.Contains(in.Offered, HTTP01) && in.HTTP) {
			in.WantedType = TLSALPN01
		}
	}
	if in.WantedType != Auto {
		in.wants = c.name()
	}
	return in
}

// NotDelegated is the trouble of a record that the DNS does not have where the route says.
func NotDelegated(c Candidate, name, seen string) Problem {
	what := "is no alias"
	if seen != name {
		what = "leads to " + seen
	}
	return Problem{Reason: ReasonNotDelegated, Retrying: true, Detail: fmt.Sprintf(
		"%s delegates %s to %s, but in the DNS it %s; create the record \"%s. CNAME %s.\", or correct the route's delegateTo", c.name(), name, c.DelegateTo, what, name, c.DelegateTo)}
}

// NoAccount is the trouble of a route whose DNS account cannot write the record.
func NoAccount(c Candidate, explanation string) Problem {
	return Problem{Reason: ReasonRouteAccount, Retrying: true, Detail: fmt.Sprintf("%s wants a DNS account, but %s", c.name(), explanation)}
}

// CheckQuestion reports what is wrong with a name, without "*.", and a challenge type that somebody asks about.
func CheckQuestion(name, typ string) error {
	if typ != "" && !slices.Contains(challengeTypes, typ) {
		return errs.New(errs.Invalid, "INVALID_ARGUMENT", "the challenge type is not valid").WithField("challengeType", "%q given, allowed: %s", typ, strings.Join(challengeTypes, ", "))
	}
	if net.ParseIP(name) != nil {
		return nil
	}
	if _, why := dnsName(name); why != "" {
		return errs.New(errs.Invalid, "INVALID_ARGUMENT", "the name is not valid").WithField("name", "%q %s", name, why)
	}
	return nil
}

// Package domain holds the rules of the dns service: which account serves a name, and what a set of TXT values at one name should be.
//
// It must never call anything: it takes the time and what was found outside, and answers what changed and which facts that made true.
package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/errs"
)

// TTLs of the records, in seconds.
const (
	DefaultTTL = 60
	maxTTL     = 86400
)

// maxZones bounds the zones of one account.
const maxZones = 1000

// sharedTeams are the teams whose accounts serve every team.
var sharedTeams = []string{"*", "default"}

// Account is access to zones at a provider. Its credential is stored beside it, sealed.
type Account struct {
	DisplayName string            `bson:"display_name"`
	Provider    string            `bson:"provider"`
	Settings    map[string]string `bson:"settings"` // what the provider wants to know besides the credential, by its own names
	TTL         int               `bson:"ttl"`      // seconds
	Zones       []string          `bson:"zones"`    // lower case, no dot at the end
	Disabled    bool              `bson:"disabled"`
	TestedAt    time.Time         `bson:"tested_at"`
	TestProblem Problem           `bson:"test_problem"`
}

// NewAccount brings what a user gave to the form that is stored. The fields of the Invalid error are named below path ("dnsAccount").
// What the provider wants is checked by the provider.
func NewAccount(in Account, path string) (Account, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: path + "." + field, Msg: fmt.Sprintf(format, args...)})
	}
	in.DisplayName = strings.TrimSpace(in.DisplayName)
	if n := len([]rune(in.DisplayName)); n == 0 || n > 200 {
		fail("displayName", "has %d characters; give a name of 1 to 200 by which people know the account", n)
	}
	if in.TTL == 0 {
		in.TTL = DefaultTTL
	}
	if in.TTL < 1 || in.TTL > maxTTL {
		fail(in.Provider+".ttlSeconds", "is %d; it may be 1 to %d, or left out for %d", in.TTL, maxTTL, DefaultTTL)
	}
	if len(in.Zones) == 0 || len(in.Zones) > maxZones {
		fail("zones", "has %d entries; give the 1 to %d zones that the account may write to, e.g. example.org", len(in.Zones), maxZones)
	}
	zones := make([]string, 0, len(in.Zones))
	for i, given := range in.Zones {
		zone, why := Name(given)
		field := fmt.Sprintf("zones[%d]", i)
		switch {
		case why != "":
			fail(field, "%q %s", given, why)
		case slices.Contains(zones, zone):
			fail(field, "%q is there twice; leave one out", given)
		}
		zones = append(zones, zone)
	}
	in.Zones = zones
	return in, wrong
}

// Name brings a DNS name to lower case without a dot at the end. why says what is wrong with it, empty when nothing is (RFC 1035 section 2.3.1,
// with the underscore of RFC 8552).
func Name(given string) (name, why string) {
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(given)), ".")
	if name == "" || len(name) > 253 {
		return name, fmt.Sprintf("has %d characters; a DNS name has 1 to 253", len(name))
	}
	for _, label := range strings.Split(name, ".") {
		if label == "*" {
			return name, "is a wildcard; give the name without \"*.\""
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

// challengeLabel is where proofs of control belong (RFC 8555 section 8.4).
const challengeLabel = "_acme-challenge."

// ChallengeName is where the proof for a name belongs: "*." is dropped and _acme-challenge put in front, unless it is there.
func ChallengeName(name string) string {
	name = strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(name), "."), "*.")
	if strings.HasPrefix(name, challengeLabel) {
		return name
	}
	return challengeLabel + name
}

// Candidate is an account that may serve a name.
type Candidate struct {
	ID   string
	Team string
	Account
}

// Choice is the account that serves a name, and why. Any says whether there is an enabled account at all.
type Choice struct {
	Any         bool
	AccountID   string
	Zone        string
	Explanation string // one sentence
}

// MayServe lists the teams whose accounts serve a team.
func MayServe(team string) []string {
	teams := []string{team}
	for _, s := range sharedTeams {
		if s != team {
			teams = append(teams, s)
		}
	}
	return teams
}

// Choose picks the enabled account with the longest zone that name ends in; of two with the same zone the team's own before a shared one, then
// the older. The Choice without an account says what was looked at.
func Choose(candidates []Candidate, team, name string) (Choice, bool) {
	var (
		best     Candidate
		zone     string
		enabled  []string
		sleeping string // an account that would serve the name if it were enabled
	)
	for _, c := range candidates {
		if !slices.Contains(MayServe(team), c.Team) {
			continue
		}
		z := c.covering(name)
		if c.Disabled {
			if z != "" {
				sleeping = c.ID
			}
			continue
		}
		enabled = append(enabled, c.Zones...)
		if z != "" && better(c, z, best, zone, team) {
			best, zone = c, z
		}
	}
	if zone == "" {
		return Choice{Any: len(enabled) > 0, Explanation: nobody(name, enabled, sleeping)}, false
	}
	return Choice{Any: true, AccountID: best.ID, Zone: zone, Explanation: fmt.Sprintf(
		"the DNS account %s (%s) serves the zone %s, the longest one that %s ends in", best.ID, best.DisplayName, zone, name)}, true
}

// ChooseOnly is Choose where one account alone will do, since a route names it.
func ChooseOnly(candidates []Candidate, team, name, account string) (Choice, bool) {
	for _, c := range candidates {
		if c.ID != account || !slices.Contains(MayServe(team), c.Team) {
			continue
		}
		zone := c.covering(name)
		switch {
		case c.Disabled:
			return Choice{Explanation: fmt.Sprintf("the DNS account %s (%s) is disabled; enable it", c.ID, c.DisplayName)}, false
		case zone == "":
			return Choice{Any: true, Explanation: fmt.Sprintf("the DNS account %s (%s) does not serve %s, only %s; choose an account for its zone",
				c.ID, c.DisplayName, name, strings.Join(c.Zones, ", "))}, false
		}
		return Choice{Any: true, AccountID: c.ID, Zone: zone, Explanation: fmt.Sprintf("the DNS account %s (%s) is named and serves the zone %s", c.ID, c.DisplayName, zone)}, true
	}
	return Choice{Explanation: fmt.Sprintf("the DNS account %s does not exist for the team %q; create it, or choose another", account, team)}, false
}

func better(c Candidate, zone string, best Candidate, bestZone, team string) bool {
	switch {
	case len(zone) != len(bestZone):
		return len(zone) > len(bestZone)
	case (c.Team == team) != (best.Team == team):
		return c.Team == team
	}
	return c.ID < best.ID
}

// covering returns the longest zone of the account that name is in, or "".
func (a Account) covering(name string) string {
	longest := ""
	for _, z := range a.Zones {
		if (name == z || strings.HasSuffix(name, "."+z)) && len(z) > len(longest) {
			longest = z
		}
	}
	return longest
}

// Covers reports whether a name is in a zone of the account.
func (a Account) Covers(name string) bool { return a.covering(name) != "" }

func nobody(name string, enabled []string, sleeping string) string {
	text := "no enabled DNS account covers " + name
	if len(enabled) > 0 {
		slices.Sort(enabled)
		enabled = slices.Compact(enabled)
		more := ""
		if len(enabled) > 10 {
			more = fmt.Sprintf(" and %d more", len(enabled)-10)
			enabled = enabled[:10]
		}
		text += "; the enabled accounts serve " + strings.Join(enabled, ", ") + more
	}
	if sleeping != "" {
		return text + "; the account " + sleeping + " would serve it but is disabled: enable it"
	}
	return text + "; create a DNS account for its zone"
}

package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

func TestChoosingAnAccount(t *testing.T) {
	account := func(id, team string, disabled bool, zones ...string) domain.Candidate {
		return domain.Candidate{ID: id, Team: team, Account: domain.Account{DisplayName: "Lab", Zones: zones, Disabled: disabled}}
	}
	all := []domain.Candidate{
		account("dac_1", "web", false, "example.org"),
		account("dac_2", "web", false, "dev.example.org"),
		account("dac_3", "default", false, "example.org", "shared.test"),
		account("dac_4", "web", true, "off.test"),
		account("dac_5", "mail", false, "mail.test"),
		account("dac_6", "web", false, "_acme-challenge.host.delegated.test"),
	}
	table := []struct {
		name, team, ask     string
		id, zone, explained string
	}{
		{"the longest zone wins", "web", "www.dev.example.org", "dac_2", "dev.example.org",
			"the DNS account dac_2 (Lab) serves the zone dev.example.org, the longest one that _acme-challenge.www.dev.example.org ends in"},
		{"the team's own account comes before a shared one", "web", "*.example.org", "dac_1", "example.org",
			"the DNS account dac_1 (Lab) serves the zone example.org, the longest one that _acme-challenge.example.org ends in"},
		{"a shared account serves a team that has none", "mail", "shared.test", "dac_3", "shared.test",
			"the DNS account dac_3 (Lab) serves the zone shared.test, the longest one that _acme-challenge.shared.test ends in"},
		{"a zone that is delegated for the proof alone serves its name", "web", "host.delegated.test", "dac_6", "_acme-challenge.host.delegated.test",
			"the DNS account dac_6 (Lab) serves the zone _acme-challenge.host.delegated.test, the longest one that _acme-challenge.host.delegated.test ends in"},
		{"a suffix that is no parent does not count", "mail", "notmail.test", "", "",
			"no enabled DNS account covers _acme-challenge.notmail.test; the enabled accounts serve example.org, mail.test, shared.test; create a DNS account for its zone"},
		{"a disabled account is named", "web", "off.test", "", "", "no enabled DNS account covers _acme-challenge.off.test; the enabled accounts serve " +
			"_acme-challenge.host.delegated.test, dev.example.org, example.org, shared.test; the account dac_4 would serve it but is disabled: enable it"},
		{"another team's account does not serve", "web", "mail.test", "", "", "no enabled DNS account covers _acme-challenge.mail.test; the enabled accounts serve " +
			"_acme-challenge.host.delegated.test, dev.example.org, example.org, shared.test; create a DNS account for its zone"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			c, ok := domain.Choose(all, row.team, domain.ChallengeName(row.ask))
			require.Equal(t, row.id != "", ok)
			require.Empty(t, cmp.Diff(domain.Choice{Any: true, AccountID: row.id, Zone: row.zone, Explanation: row.explained}, c))
		})
	}
}

func TestAnAccountThatARouteNames(t *testing.T) {
	all := []domain.Candidate{
		{ID: "dac_1", Team: "web", Account: domain.Account{DisplayName: "Lab", Zones: []string{"acme.test"}}},
		{ID: "dac_2", Team: "web", Account: domain.Account{DisplayName: "Old", Zones: []string{"acme.test"}, Disabled: true}},
	}
	for name, row := range map[string]struct{ team, record, account, zone, explained string }{
		"it serves the name":       {"web", "x.acme.test", "dac_1", "acme.test", "the DNS account dac_1 (Lab) is named and serves the zone acme.test"},
		"it does not":              {"web", "x.other.test", "dac_1", "", "the DNS account dac_1 (Lab) does not serve x.other.test, only acme.test; choose an account for its zone"},
		"it is disabled":           {"web", "x.acme.test", "dac_2", "", "the DNS account dac_2 (Old) is disabled; enable it"},
		"it does not exist":        {"web", "x.acme.test", "dac_9", "", `the DNS account dac_9 does not exist for the team "web"; create it, or choose another`},
		"it is another team's own": {"mail", "x.acme.test", "dac_1", "", `the DNS account dac_1 does not exist for the team "mail"; create it, or choose another`},
	} {
		t.Run(name, func(t *testing.T) {
			c, ok := domain.ChooseOnly(all, row.team, row.record, row.account)
			require.Equal(t, row.zone != "", ok)
			require.Equal(t, row.zone, c.Zone)
			require.Equal(t, row.explained, c.Explanation)
		})
	}
}

func TestAnAccountIsCheckedAtTheDoor(t *testing.T) {
	_, wrong := domain.NewAccount(domain.Account{
		Provider: "rfc2136", TTL: 100000, Zones: []string{"Example.ORG.", "*.example.net", "ex ample.org", "example.org", "a..b"},
	}, "dnsAccount")
	require.Empty(t, cmp.Diff([]errs.Field{
		{Name: "dnsAccount.displayName", Msg: "has 0 characters; give a name of 1 to 200 by which people know the account"},
		{Name: "dnsAccount.rfc2136.ttlSeconds", Msg: "is 100000; it may be 1 to 86400, or left out for 60"},
		{Name: "dnsAccount.zones[1]", Msg: `"*.example.net" is a wildcard; give the name without "*."`},
		{Name: "dnsAccount.zones[2]", Msg: `"ex ample.org" is not a DNS name: ' ' is not allowed; use letters, digits, - and _ (international names as xn--…)`},
		{Name: "dnsAccount.zones[3]", Msg: `"example.org" is there twice; leave one out`},
		{Name: "dnsAccount.zones[4]", Msg: `"a..b" is not a DNS name: each part between dots has 1 to 63 characters`},
	}, wrong))
}

func FuzzName(f *testing.F) {
	f.Add("Example.org.")
	f.Add("_acme-challenge.x")
	f.Fuzz(func(t *testing.T, s string) {
		name, why := domain.Name(s)
		if why != "" {
			return
		}
		again, why := domain.Name(name)
		require.Empty(t, why)
		require.Equal(t, name, again)
	})
}

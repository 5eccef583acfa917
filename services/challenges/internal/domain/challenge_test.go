package domain_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

const id = "chl_1-1-0"

var (
	byDNS       = domain.Finding{Solver: domain.ByDNS, Type: domain.DNS01}
	byResponder = domain.Finding{Solver: domain.ByResponder, Type: domain.HTTP01}
	byHand      = domain.Finding{Solver: domain.ByHand, Type: domain.DNS01}
	nobody      = domain.Finding{Trouble: domain.Problem{Reason: "CHALLENGE_NO_SOLVER"}}
)

func pending(t *testing.T) domain.Challenge {
	t.Helper()
	c, err := domain.New(domain.Challenge{
		OrderID: "ord_1", Attempt: 1, Identifier: "Example.org", Expires: now.Add(7 * 24 * time.Hour),
		Offered: []domain.Offer{{Type: "http-01", Token: "th", KeyAuthorization: "th.key"}, {Type: "dns-01", Token: "td", KeyAuthorization: "td.key"}},
	}, now)
	require.NoError(t, err)
	return c
}

// value is the TXT value of the key authorization "td.key".
var value = domain.DNSValue("td.key")

// states are all states that differ in what an event does, each with how to get there.
var states = map[string]func(c *domain.Challenge){
	"pending":           func(*domain.Challenge) {},
	"stalled":           func(c *domain.Challenge) { c.Place(id, nobody, now) },
	"presenting by dns": func(c *domain.Challenge) { c.Place(id, byDNS, now) },
	"refused by dns": func(c *domain.Challenge) {
		c.Place(id, byDNS, now)
		c.RecordFailed(id, value, domain.Problem{Reason: "X", Retrying: true})
	},
	"presenting by itself": func(c *domain.Challenge) { c.Place(id, byResponder, now) },
	"presenting by hand":   func(c *domain.Challenge) { c.Place(id, byHand, now) },
	"presented by dns":     func(c *domain.Challenge) { c.Place(id, byDNS, now); c.RecordPresented(id, value) },
	"presented by itself":  func(c *domain.Challenge) { c.Place(id, byResponder, now); c.Looked(id, 0, domain.Problem{}, nil, now) },
	"cleaning":             func(c *domain.Challenge) { c.Place(id, byDNS, now); c.RecordPresented(id, value); c.Close(id, "valid") },
	"cleaned by dns":       func(c *domain.Challenge) { c.Place(id, byDNS, now); c.Close(id, "valid"); c.RecordRemoved(value) },
	"cleaned":              func(c *domain.Challenge) { c.Place(id, byResponder, now); c.Close(id, "valid") },
	"expired":              func(c *domain.Challenge) { c.Place(id, byResponder, now); c.Expire(id, c.Expires) },
}

var events = map[string]func(c *domain.Challenge) domain.Effect{
	"dns is chosen":           func(c *domain.Challenge) domain.Effect { return c.Place(id, byDNS, now) },
	"the responder is chosen": func(c *domain.Challenge) domain.Effect { return c.Place(id, byResponder, now) },
	"a person is chosen":      func(c *domain.Challenge) domain.Effect { return c.Place(id, byHand, now) },
	"nobody can":              func(c *domain.Challenge) domain.Effect { return c.Place(id, nobody, now) },
	"the record is there":     func(c *domain.Challenge) domain.Effect { return c.RecordPresented(id, value) },
	"another record is there": func(c *domain.Challenge) domain.Effect { return c.RecordPresented(id, "other") },
	"the record is refused for now": func(c *domain.Challenge) domain.Effect {
		return c.RecordFailed(id, value, domain.Problem{Reason: "X", Retrying: true})
	},
	"the record is refused otherwise": func(c *domain.Challenge) domain.Effect {
		return c.RecordFailed(id, value, domain.Problem{Reason: "Y", Retrying: true})
	},
	"the record is refused for good": func(c *domain.Challenge) domain.Effect { return c.RecordFailed(id, value, domain.Problem{Reason: "X"}) },
	"the record is gone":             func(c *domain.Challenge) domain.Effect { return c.RecordRemoved(value) },
	"it is seen":                     func(c *domain.Challenge) domain.Effect { return c.Looked(id, 1, domain.Problem{}, nil, now) },
	"it is not seen": func(c *domain.Challenge) domain.Effect {
		return c.Looked(id, 1, domain.Problem{Reason: "CHALLENGE_NOT_VISIBLE"}, nil, now)
	},
	"the order asks again": func(c *domain.Challenge) domain.Effect { return c.Required() },
	"the order closes it":  func(c *domain.Challenge) domain.Effect { return c.Close(id, "invalid") },
	"a day has passed":     func(c *domain.Challenge) domain.Effect { return c.Remind(id, now.Add(24*time.Hour)) },
	"it has expired":       func(c *domain.Challenge) domain.Effect { return c.Expire(id, now.Add(8*24*time.Hour)) },
}

// table has the pairs in which something happens: the state after, facts told (! when awaited), keys answered (-), answer told again (again).
// In every other pair nothing may change.
var table = map[string]map[string]string{
	"pending": {
		"dns is chosen": "presenting record!", "the responder is chosen": "presenting", "a person is chosen": "presenting action", "nobody can": "pending failed",
		"the order closes it": "cleaned -record -presented", "it has expired": "cleaned failed -record -presented",
	},
	"stalled": {
		"the order asks again": "again failed", "the order closes it": "cleaned -record -presented", "it has expired": "cleaned failed -record -presented",
	},
	"presenting by dns": {
		"the record is there": "presented presented! -record", "the record is refused for now": "presenting failed", "the record is refused otherwise": "presenting failed",
		"the record is refused for good": "presenting failed -record",
		"the order closes it":            "cleaning unwanted! -record -presented", "it has expired": "cleaning unwanted! failed -record -presented",
	},
	"refused by dns": {
		"the record is there": "presented presented! -record", "the record is refused otherwise": "presenting failed",
		"the record is refused for good": "presenting failed -record", "the order asks again": "again failed",
		"the order closes it": "cleaning unwanted! -record -presented", "it has expired": "cleaning unwanted! failed -record -presented",
	},
	"presenting by itself": {
		"it is seen": "presented presented!", "it is not seen": "presenting failed",
		"the order closes it": "cleaned -record -presented", "it has expired": "cleaned failed -record -presented",
	},
	"presenting by hand": {
		"it is seen": "presented presented!", "it is not seen": "presenting", "the order asks again": "again action", "a day has passed": "presenting action",
		"the order closes it": "cleaned -record -presented", "it has expired": "cleaned failed -record -presented",
	},
	"presented by dns": {
		"the order asks again": "again presented", "the order closes it": "cleaning unwanted! -record -presented",
		"it has expired": "cleaning unwanted! failed -record -presented",
	},
	"presented by itself": {
		"the order asks again": "again presented", "the order closes it": "cleaned -record -presented", "it has expired": "cleaned failed -record -presented",
	},
	"cleaning":       {"the record is gone": "cleaned -unwanted"},
	"cleaned by dns": {"the record is there": "again unwanted"},
	"cleaned":        {},
	"expired":        {"the order asks again": "again failed"},
}

func TestEveryEventInEveryState(t *testing.T) {
	require.Len(t, table, len(states))
	for state, reach := range states {
		for event := range table[state] {
			require.Contains(t, events, event)
		}
		for event, happen := range events {
			t.Run(state+": "+event, func(t *testing.T) {
				c := pending(t)
				reach(&c)
				before := c
				e := happen(&c)
				want, something := table[state][event]
				if !something {
					require.Empty(t, e)
					require.Empty(t, cmp.Diff(before, c), "nothing changes")
					return
				}
				var got []string
				if e.Changed {
					got = append(got, string(c.State))
				} else {
					require.Empty(t, cmp.Diff(before, c), "nothing changes")
				}
				for _, f := range e.Facts {
					key := f.Natural
					if f.Await {
						key += "!"
					}
					got = append(got, key)
				}
				for _, k := range e.Answered {
					got = append(got, "-"+k)
				}
				if e.Again != "" {
					got = append(got, "again "+e.Again)
				}
				require.Equal(t, want, strings.Join(got, " "))
			})
		}
	}
}

func TestWhatIsPlacedWhere(t *testing.T) {
	c := pending(t)
	c.Place(id, byDNS, now)
	require.Equal(t, "_acme-challenge.example.org", c.Location)
	require.Equal(t, value, c.Value)

	c = pending(t)
	c.Place(id, byResponder, now)
	require.Equal(t, "http://example.org/.well-known/acme-challenge/th", c.Location)
	require.Equal(t, "th.key", c.Value)

	// A known answer: base64url(SHA-256("abc")).
	require.Equal(t, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0", domain.DNSValue("abc"))
	require.Equal(t, "chl_01J-2-0", domain.ID("ord_01J", 2, 0))
}

func TestWhatIsDueWhen(t *testing.T) {
	later := now.Add(time.Hour)
	end := now.Add(7 * 24 * time.Hour)
	table := []struct {
		state  string
		change func(c *domain.Challenge)
		action domain.Action
		at     time.Time
	}{
		{"pending", nil, domain.Solve, later},
		{"stalled", nil, domain.Expiry, end},
		{"presenting by dns", nil, domain.Expiry, end},
		{"presenting by itself", nil, domain.Look, later},
		{"presenting by itself", func(c *domain.Challenge) { c.RetryAt = later.Add(time.Second) }, domain.Look, later.Add(time.Second)},
		{"presenting by hand", nil, domain.Ask, now.Add(24 * time.Hour)},
		{"presenting by hand", func(c *domain.Challenge) { _, _ = c.Verify(id) }, domain.Look, later},
		{"presented by dns", nil, domain.Expiry, end},
		{"presented by itself", func(c *domain.Challenge) { c.Expires = now }, domain.Expiry, later},
	}
	for _, row := range table {
		t.Run(row.state, func(t *testing.T) {
			c := pending(t)
			states[row.state](&c)
			if row.change != nil {
				row.change(&c)
			}
			action, at, ever := c.Next(later)
			require.True(t, ever)
			require.Equal(t, row.action, action)
			require.Equal(t, row.at, at)
		})
	}
	for _, over := range []string{"cleaning", "cleaned", "expired"} {
		c := pending(t)
		states[over](&c)
		_, _, ever := c.Next(later)
		require.False(t, ever, over)
	}
}

func TestVerifyingWhatIsOverSaysWhereToLook(t *testing.T) {
	c := pending(t)
	states["cleaned"](&c)
	_, err := c.Verify(id)
	require.Equal(t, errs.Precondition, errs.KindOf(err))
	require.EqualError(t, err, "challenge chl_1-1-0 is over (valid); its value is void: look for a newer challenge of order ord_1")
}

func TestTheChoiceOfASolver(t *testing.T) {
	both := []string{"http-01", "dns-01", "tls-alpn-01"}
	table := []struct {
		name string
		in   domain.Input
		want domain.Finding
	}{
		{"a person when the spec says so", domain.Input{Manual: true, WantedType: "auto", Offered: both},
			domain.Finding{Rule: "manual wanted", Type: "http-01", Solver: "manual", Explanation: "the certificate's spec wants a person to place the answer"}},
		{"a person places TXT for a wildcard", domain.Input{Manual: true, Wildcard: true, WantedType: "http-01", Offered: []string{"dns-01"}},
			domain.Finding{Rule: "manual wanted", Type: "dns-01", Solver: "manual", Explanation: "the certificate's spec wants a person to place the answer"}},
		{"dns for a wildcard, whatever is wanted", domain.Input{Wildcard: true, WantedType: "http-01", Offered: []string{"dns-01"}},
			domain.Finding{Rule: "wildcard", Type: "dns-01", Solver: "dns", Explanation: "control of a wildcard can be proven by dns-01 only"}},
		{"dns when wanted", domain.Input{WantedType: "dns-01", Offered: both},
			domain.Finding{Rule: "dns-01 wanted", Type: "dns-01", Solver: "dns", Explanation: "the certificate's spec wants dns-01"}},
		{"the responder when wanted", domain.Input{WantedType: "http-01", Offered: both, Responders: domain.Responders{HTTP: true}},
			domain.Finding{Rule: "http-01 wanted", Type: "http-01", Solver: "responder", Explanation: "the certificate's spec wants http-01, answered by the built-in responder"}},
		{"dns when an account covers the name", domain.Input{Offered: both, Responders: domain.Responders{HTTP: true}, DNSAccount: "dac_1", DNSExplains: "the DNS account dac_1 serves it"},
			domain.Finding{Rule: "a DNS account covers the name", Type: "dns-01", Solver: "dns", Explanation: "the DNS account dac_1 serves it"}},
		{"the responder when no account does", domain.Input{WantedType: "auto", Offered: both, Responders: domain.Responders{HTTP: true}},
			domain.Finding{Rule: "the responder answers", Type: "http-01", Solver: "responder", Explanation: "no DNS account covers the name, so the built-in responder answers http-01"}},
		{"nobody, saying who could", domain.Input{Identifier: "x.test", WantedType: "auto", Offered: both, DNSExplains: "no enabled DNS account covers _acme-challenge.x.test"},
			domain.Finding{Rule: "nobody can", Trouble: domain.Problem{Reason: "CHALLENGE_NO_SOLVER", Detail: "nobody can answer for x.test: the CA offers http-01, dns-01, tls-alpn-01, " +
				"the built-in responder for http-01 is off, and no enabled DNS account covers _acme-challenge.x.test; switch the responder on, create a DNS account, or ask for manual challenges"}}},
		{"what the CA does not offer is named", domain.Input{Identifier: "192.0.2.1", WantedType: "dns-01", Offered: []string{"http-01"}},
			domain.Finding{Rule: "dns-01 wanted", Type: "dns-01", Solver: "dns", Explanation: "the certificate's spec wants dns-01", Trouble: domain.Problem{Reason: "CHALLENGE_NOT_OFFERED",
				Detail: "the CA does not offer dns-01 for 192.0.2.1, only http-01, but the certificate's spec wants dns-01; change the certificate's challenge type"}}},
		{"a responder that is off is named", domain.Input{WantedType: "http-01", Offered: both},
			domain.Finding{Rule: "http-01 wanted", Type: "http-01", Solver: "responder", Explanation: "the certificate's spec wants http-01, answered by the built-in responder",
				Trouble: domain.Problem{Reason: "CHALLENGE_RESPONDER_OFF", Detail: "the certificate's spec wants http-01, answered by the built-in responder, but the responder is switched off here; " +
					"set http01.listen of the challenges service, or use dns-01 or manual challenges"}}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) { require.Empty(t, cmp.Diff(row.want, domain.Choose(row.in))) })
	}
}

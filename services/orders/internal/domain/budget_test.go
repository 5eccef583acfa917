package domain

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var threeIn30s = Limit{Kind: OrdersPerAccount, Capacity: 3, Period: 30 * time.Second}

func TestWhatAnOrderNeedsOfTheLedger(t *testing.T) {
	encrypt := Issuer{DirectoryURL: "https://acme-v02.api.letsencrypt.org/directory"}
	replaced := func(o *Order) {
		o.Replaces = &Replaced{VersionID: "ver_1", IssuerID: "iss_1", ARICertID: "a.b", NotAfter: t0.Add(time.Hour), Names: []string{"www.example.org"}}
	}
	set := func(names ...string) string { return string(PerExactSet) + " " + SetHash(names) }
	for _, r := range []struct {
		name   string
		issuer Issuer
		change func(o *Order)
		want   []string
	}{
		{"of a CA without limits it needs nothing", Issuer{DirectoryURL: "https://ca.example.org/dir"}, func(*Order) {}, nil},
		{
			"a first issuance needs a token of everything", encrypt, func(*Order) {},
			[]string{"orders_per_account ", "certificates_per_registered_domain example.org", set("www.example.org"), "look failed_authorizations_per_identifier www.example.org"},
		},
		{
			"names of one registered domain count once, and public suffixes are no domains", encrypt,
			func(o *Order) { o.Spec.Names = []string{"*.Shop.co.uk", "shop.co.uk", "a.github.io"} },
			[]string{
				"orders_per_account ", "certificates_per_registered_domain a.github.io", "certificates_per_registered_domain shop.co.uk", set("*.shop.co.uk", "a.github.io", "shop.co.uk"),
				"look failed_authorizations_per_identifier a.github.io", "look failed_authorizations_per_identifier shop.co.uk",
			},
		},
		{"a renewal by ARI needs nothing", encrypt, replaced, nil},
		{"a renewal whose ARI the CA refused, of the same names, is exempt from the first two", encrypt, func(o *Order) { replaced(o); o.NoReplaces = true }, []string{set("www.example.org"), "look failed_authorizations_per_identifier www.example.org"}},
		{
			"a renewal of other names without ARI is exempt from nothing", encrypt, func(o *Order) { replaced(o); o.NoReplaces = true; o.Replaces.Names = []string{"old.example.org"} },
			[]string{"orders_per_account ", "certificates_per_registered_domain example.org", set("www.example.org"), "look failed_authorizations_per_identifier www.example.org"},
		},
		{"the third try in a row goes without replaces and needs its tokens", encrypt, func(o *Order) { replaced(o); o.Retries = 2 }, []string{set("www.example.org"), "look failed_authorizations_per_identifier www.example.org"}},
		{
			"a version of another issuer is no renewal here", encrypt, func(o *Order) { replaced(o); o.Replaces.IssuerID = "iss_2" },
			[]string{"orders_per_account ", "certificates_per_registered_domain example.org", set("www.example.org"), "look failed_authorizations_per_identifier www.example.org"},
		},
		{
			"limits that are given take the preset's place, and exempt nothing by themselves", Issuer{DirectoryURL: encrypt.DirectoryURL, Limits: []Limit{threeIn30s}}, replaced,
			[]string{"orders_per_account "},
		},
	} {
		t.Run(r.name, func(t *testing.T) {
			o := fresh()
			r.change(&o)
			var got []string
			for _, c := range o.Claims(r.issuer.EffectiveLimits(), t0) {
				got = append(got, map[bool]string{true: "look "}[c.Look]+string(c.Limit.Kind)+" "+c.Scope)
			}
			require.Equal(t, r.want, got)
		})
	}
}

func TestRegisteredDomains(t *testing.T) {
	for name, want := range map[string]string{
		"www.example.org": "example.org", "*.example.org": "example.org", "EXAMPLE.org": "example.org", "a.b.example.co.uk": "example.co.uk", "co.uk": "co.uk",
		"printer": "printer", "a.lab.test": "lab.test", "192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
	} {
		require.Equal(t, want, RegisteredDomain(name), name)
	}
}

func TestTokensAreTakenAndComeBackOneByOne(t *testing.T) {
	var b Bucket
	for n := range 3 {
		ok, _, _ := b.Reserve(threeIn30s, "o", int64(n), t0, t0)
		require.True(t, ok)
	}
	require.EqualValues(t, 0, b.Left(threeIn30s, t0))
	for n := range 3 {
		require.True(t, b.Sent(threeIn30s, "o", int64(n), t0))
	}
	require.Equal(t, t0.Add(30*time.Second), b.FullAt)
	require.EqualValues(t, 0, b.Left(threeIn30s, t0.Add(9999*time.Millisecond)))
	require.EqualValues(t, 1, b.Left(threeIn30s, t0.Add(10*time.Second)))
	ok, turn, before := b.Reserve(threeIn30s, "p", 1, t0, t0.Add(4*time.Second))
	require.False(t, ok)
	require.Equal(t, t0.Add(10*time.Second), turn)
	require.Zero(t, before)
	require.Equal(t, turn.Add(keepPlace), b.IdleAt, "somebody waits for it")
	ok, _, _ = b.Reserve(threeIn30s, "p", 1, t0, turn)
	require.True(t, ok)
	require.Empty(t, b.Waiting)
	require.EqualValues(t, 3, (&Bucket{FullAt: t0.Add(30 * time.Second)}).Left(threeIn30s, t0.Add(30*time.Second)), "full again")
}

func TestAReservationOutlivesACrashAndIsNotLost(t *testing.T) {
	one := Limit{Kind: PerExactSet, Capacity: 1, Period: 10 * time.Second}
	held := func() Bucket {
		var b Bucket
		ok, _, _ := b.Reserve(one, "o", 1, t0, t0)
		require.True(t, ok)
		return b
	}
	for _, r := range []struct {
		name string
		then func(b *Bucket)
		at   time.Duration // when there is a token again
	}{
		{"never sent and never heard of again: it counts as spent when it runs out", func(*Bucket) {}, HoldFor + 10*time.Second},
		{"asked for again it is found, and prolonged", func(b *Bucket) {
			ok, _, _ := b.Reserve(one, "o", 1, t0, t0.Add(time.Minute))
			require.True(t, ok)
			require.Len(t, b.Holds, 1)
		}, time.Minute + HoldFor + 10*time.Second},
		{"answered by the CA it is spent then", func(b *Bucket) { require.True(t, b.Sent(one, "o", 1, t0.Add(5*time.Second))) }, 15 * time.Second},
		{"of another attempt nothing changes", func(b *Bucket) { require.False(t, b.Release(one, "o", 2, t0.Add(5*time.Second))) }, HoldFor + 10*time.Second},
		{"given back too late it is spent", func(b *Bucket) { require.False(t, b.Release(one, "o", 1, t0.Add(HoldFor))) }, HoldFor + 10*time.Second},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := held()
			r.then(&b)
			require.EqualValues(t, 0, b.Left(one, t0.Add(r.at-time.Millisecond)))
			require.EqualValues(t, 1, b.Left(one, t0.Add(r.at)))
			require.False(t, b.IdleAt.Before(t0.Add(r.at)), "it is kept until it is full: %s", b.IdleAt)
		})
	}
	b := held()
	require.True(t, b.Release(one, "o", 1, t0.Add(5*time.Second)), "certainly not counted")
	require.EqualValues(t, 1, b.Left(one, t0.Add(5*time.Second)))
}

func TestTheMostUrgentGoesFirst(t *testing.T) {
	one := Limit{Kind: OrdersPerAccount, Capacity: 1, Period: 10 * time.Second}
	b := Bucket{FullAt: t0.Add(10 * time.Second)}
	ask := func(order string, urgency time.Duration, now time.Time) string {
		ok, turn, before := b.Reserve(one, order, 1, t0.Add(urgency), now)
		if ok {
			return "goes"
		}
		return fmt.Sprintf("%d before, turn at %s", before, turn.Sub(t0))
	}
	require.Equal(t, "0 before, turn at 10s", ask("first issuance", 7*24*time.Hour, t0))
	require.Equal(t, "0 before, turn at 10s", ask("ends tomorrow", 24*time.Hour, t0))
	require.Equal(t, "1 before, turn at 20s", ask("first issuance", 7*24*time.Hour, t0))
	require.Equal(t, "2 before, turn at 30s", ask("ends in a month", 30*24*time.Hour, t0))
	at := t0.Add(10 * time.Second)
	require.Equal(t, "1 before, turn at 20s", ask("first issuance", 7*24*time.Hour, at), "the token is kept for who is due")
	require.Equal(t, "goes", ask("ends tomorrow", 24*time.Hour, at))
	require.True(t, b.Sent(one, "ends tomorrow", 1, at))
	late := b.Waiting[0].Till
	require.Equal(t, "goes", ask("newcomer", 60*24*time.Hour, late.Add(time.Minute)), "who does not come loses the place")
}

func TestAnOrderThatWaitsElsewhereKeepsItsPlaceForAShortWhile(t *testing.T) {
	one := Limit{Kind: OrdersPerAccount, Capacity: 1, Period: time.Second}
	for _, r := range []struct {
		name string
		wait time.Duration
		goes bool // another order, less urgent, at once
	}{
		{"a wait of minutes: the token is kept for it", yieldFor, false},
		{"a longer wait: nobody waits for it", yieldFor + time.Millisecond, true},
	} {
		t.Run(r.name, func(t *testing.T) {
			var b Bucket
			ok, _, _ := b.Reserve(one, "urgent", 1, t0, t0)
			require.True(t, ok)
			require.True(t, b.Yield(one, "urgent", 1, t0, t0.Add(r.wait), t0))
			require.False(t, b.Yield(one, "urgent", 1, t0, t0.Add(r.wait), t0), "once")
			require.EqualValues(t, 1, b.Left(one, t0), "nothing was sent")
			ok, _, _ = b.Reserve(one, "other", 1, t0.Add(time.Hour), t0)
			require.Equal(t, r.goes, ok)
			if !r.goes {
				ok, _, _ = b.Reserve(one, "urgent", 1, t0, t0.Add(r.wait))
				require.True(t, ok)
			}
		})
	}
}

func TestABucketKeepsTheMostUrgentInOrder(t *testing.T) {
	one := Limit{Kind: OrdersPerAccount, Capacity: 1, Period: time.Second}
	b := Bucket{FullAt: t0.Add(time.Second)}
	for n := range 2 * maxWaiting {
		_, turn, before := b.Reserve(one, fmt.Sprint("o", n), 1, t0.Add(-time.Duration(n)*time.Hour), t0)
		require.Zero(t, before)
		require.Equal(t, t0.Add(time.Second), turn)
	}
	require.Len(t, b.Waiting, maxWaiting)
	require.Equal(t, fmt.Sprint("o", 2*maxWaiting-1), b.Waiting[0].Order)
	_, turn, before := b.Reserve(one, "last", 1, t0.Add(time.Hour), t0)
	require.Equal(t, maxWaiting, before)
	require.False(t, b.Keeps("last"))
	require.Equal(t, t0.Add((maxWaiting+1)*time.Second), turn, "it comes again when those had their turn")
}

func TestACAsWordEmptiesTheBucketItMeans(t *testing.T) {
	encrypt := Issuer{DirectoryURL: "https://acme-v02.api.letsencrypt.org/directory"}.EffectiveLimits()
	o := fresh()
	o.Spec.Names = []string{"www.example.org", "www.example.net"}
	for _, r := range []struct {
		name, says string
		want       []string
		wait       time.Duration
	}{
		{"orders", "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-03-01", []string{"orders_per_account "}, 5 * time.Hour},
		{"a domain", `too many certificates (50) already issued for "example.net" in the last 168h0m0s, retry after`, []string{"certificates_per_registered_domain example.net"}, 5 * time.Hour},
		{"a set", "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s", []string{"certificates_per_exact_set " + SetHash([]string{"www.example.net", "www.example.org"})}, 5 * time.Hour},
		{"failures", `too many failed authorizations (5) for "www.example.org" in the last 1h0m0s`, []string{"failed_authorizations_per_identifier www.example.org"}, 5 * time.Hour},
		{"something that it does not name", "slow down", []string{"orders_per_account "}, time.Hour},
	} {
		t.Run(r.name, func(t *testing.T) {
			claims, until := o.Concerned(encrypt, &Failure{Problem: Problem{Detail: r.says}, RetryAfter: 5 * time.Hour}, t0)
			var got []string
			for _, c := range claims {
				got = append(got, string(c.Limit.Kind)+" "+c.Scope)
			}
			require.Equal(t, r.want, got)
			require.Equal(t, t0.Add(r.wait), until)
		})
	}
	var b Bucket
	b.Close(threeIn30s, t0.Add(time.Hour), t0)
	require.EqualValues(t, 0, b.Left(threeIn30s, t0.Add(59*time.Minute)))
	ok, turn, _ := b.Reserve(threeIn30s, "o", 1, t0, t0)
	require.False(t, ok)
	require.Equal(t, t0.Add(time.Hour), turn)
	require.EqualValues(t, 3, b.Left(threeIn30s, t0.Add(time.Hour)))
}

func TestAnotherLimitTakesOverWhatIsSpent(t *testing.T) {
	var b Bucket
	b.Spend(Limit{Capacity: 2, Period: 2 * 366 * time.Hour}, t0) // a period that was a mistake
	require.EqualValues(t, 2, b.Left(threeIn30s, t0))
	require.Equal(t, time.Time{}, b.NextAt(threeIn30s, t0))
	b.Spend(threeIn30s, t0)
	require.Equal(t, t0.Add(20*time.Second), b.FullAt)
}

func TestTheRefusalSaysWhatIsAllowedAndUntilWhen(t *testing.T) {
	o := fresh()
	claims := o.Claims([]Limit{{Kind: PerRegisteredDomain, Capacity: 50, Period: 7 * 24 * time.Hour}}, t0)
	r := Refusal{IssuerID: "iss_1", Claim: claims[0], Until: t0.Add(time.Hour), Before: 2}
	facts := o.Refused(r, t0)
	require.Len(t, facts, 1)
	require.Equal(t, "BUDGET_EXHAUSTED", o.Blocked.Reason)
	require.True(t, o.Blocked.Retrying)
	require.Equal(t, "certificates_per_registered_domain of example.org: the CA allows 50 in 168h0m0s and no more may go before "+t0.Add(time.Hour).Format(time.RFC3339)+
		", with 2 more urgent orders waiting; it is ordered then by itself. To see the buckets: certwright issuers budget iss_1", o.Blocked.Detail)
	require.Equal(t, Queued, o.State)
	require.Equal(t, t0.Add(time.Hour), o.RetryAt)
	require.Empty(t, o.Refused(r, t0), "the same reason is told once")
	o.Retries = 2 // it was to go without replaces
	o.Refused(r, t0)
	require.Equal(t, t0.Add(bareAgain), o.RetryAt)
	require.Zero(t, o.Retries)
}

// boulder is the CA's own bucket, exact to the nanosecond.
type boulder struct {
	l    Limit
	full time.Time
}

func (c *boulder) takes(now time.Time) bool {
	if c.full.Before(now) {
		c.full = now
	}
	next := c.full.Add(c.l.Period / time.Duration(c.l.Capacity))
	if next.Sub(now) > c.l.Period {
		return false
	}
	c.full = next
	return true
}

// inFlight is an attempt of a replica, between reserving and knowing.
type inFlight struct {
	order   string
	attempt int64
	until   time.Time
	sent    bool
}

func TestNoInterleavingOverstepsABucket(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := Limit{Kind: OrdersPerAccount, Capacity: rapid.Int64Range(1, 5).Draw(rt, "capacity"), Period: time.Duration(rapid.SampledFrom([]int{1, 30, 600, 3600}).Draw(rt, "period")) * time.Second}
		authority := &boulder{l: limit}
		stored, revision := Bucket{}, 0
		now := t0
		var flights []inFlight
		type read struct {
			b        Bucket
			revision int
		}
		replicas := make([]*read, 3) // what each has read and not written yet
		for n := range rapid.IntRange(50, 300).Draw(rt, "steps") {
			r := rapid.IntRange(0, 2).Draw(rt, "replica")
			switch rapid.SampledFrom([]string{"read", "reserve", "reserve", "send", "answer", "release", "crash", "time", "time", "reset"}).Draw(rt, "what") {
			case "read":
				replicas[r] = &read{stored.Clone(), revision}
			case "reserve": // of what was read, however long ago: the guard decides
				have := replicas[r]
				if have == nil {
					have = &read{stored.Clone(), revision}
				}
				replicas[r] = nil
				order, attempt := fmt.Sprint("o", rapid.IntRange(0, 3).Draw(rt, "order")), int64(n)
				if k := len(flights); k > 0 && rapid.Bool().Draw(rt, "again") { // of an attempt that a crash may have left
					if f := flights[rapid.IntRange(0, k-1).Draw(rt, "flight")]; !f.sent {
						order, attempt = f.order, f.attempt
					}
				}
				ok, _, _ := have.b.Reserve(limit, order, attempt, now.Add(time.Duration(n)*time.Minute), now)
				if have.revision != revision {
					continue // conflict
				}
				stored, revision = have.b, revision+1
				if ok {
					flights = append(flights, inFlight{order, attempt, now.Add(HoldFor), false})
				}
			case "send":
				for i := range flights {
					f := &flights[i]
					if !f.sent && !now.After(f.until) {
						for j := range flights { // one newOrder an attempt
							if flights[j].order == f.order && flights[j].attempt == f.attempt {
								flights[j].sent = true
							}
						}
						require.True(rt, authority.takes(now), "more was sent than the CA allows: %+v, left %s of %+v", stored, authority.full.Sub(now), limit)
						break
					}
				}
			case "answer", "release":
				if len(flights) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(flights)-1).Draw(rt, "flight")
				if f := flights[i]; f.sent {
					stored.Sent(limit, f.order, f.attempt, now)
				} else {
					stored.Release(limit, f.order, f.attempt, now)
					for j := range flights {
						if flights[j].order == f.order && flights[j].attempt == f.attempt {
							flights[j].sent = true // who gave it back does not send it
						}
					}
				}
				revision++
			case "crash":
				replicas[r] = nil
				if k := len(flights); k > 0 {
					i := rapid.IntRange(0, k-1).Draw(rt, "flight")
					flights = append(flights[:i:i], flights[i+1:]...)
				}
			case "time":
				now = now.Add(time.Duration(rapid.Int64Range(1, int64(4*time.Minute)).Draw(rt, "passes")).Truncate(time.Millisecond) + time.Millisecond)
			case "reset": // a bucket that has nothing to say is removed
				if !stored.IdleAt.IsZero() && !stored.IdleAt.After(now) {
					stored, revision = Bucket{}, revision+1
				}
			}
			require.GreaterOrEqual(rt, stored.Left(limit, now), int64(0))
		}
		// Nothing is lost for good.
		end := stored.IdleAt.Add(time.Millisecond)
		require.Equal(rt, limit.Capacity, stored.Left(limit, end))
	})
}

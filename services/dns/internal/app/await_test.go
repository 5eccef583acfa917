package app_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/testkit"
)

func TestPresentedIsToldWhenTheProvidersServersHaveTheChange(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() { b.zone.pending = 3 })
	b.tell(wanted("chl_a", "v"))
	for tries := 1; tries < 3; tries++ {
		testkit.Eventually(t, func() bool { return b.rest().Body.Asks == tries }, "question %d", tries)
		require.Equal(t, domain.Await, func() domain.Action { s := b.rest().Body; return s.Next() }())
		require.Empty(t, b.told(), "it is in the zone, but not on all servers")
		b.clock.Advance(time.Minute)
	}
	b.expect(presented("chl_a", "v"))
	require.Empty(t, b.rest().Body.Change)
	require.Equal(t, 1, b.zone.writes)
}

// A provider may say that its servers have a change and still not list it: that is told after three looks, as anywhere else.
func TestWhatIsSettledButNotSeenIsTold(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() { b.zone.pending, b.zone.blind = 1000, true })
	b.tell(wanted("chl_a", "v"))
	for tries := 1; tries <= 3; tries++ {
		testkit.Eventually(t, func() bool { return b.rest().Body.Asks > 0 }, "a question")
		b.zone.set(func() { b.zone.pending = 1 })
		b.clock.Advance(time.Minute)
		testkit.Eventually(t, func() bool { return b.rest().Body.Tries == tries }, "look %d", tries)
		b.zone.set(func() { b.zone.pending = 1000 })
		b.clock.Advance(time.Minute)
	}
	b.expect(failed("chl_a", "v", "DNS_RECORD_NOT_VISIBLE", `the name server took the TXT value "v" for _acme-challenge.example.org, but ns.test has no TXT value there; `+
		`it is written again. Is that server the primary of the zone?`))
}

func TestServersThatTakeTooLongAreTold(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() { b.zone.pending = 100 })
	b.tell(wanted("chl_a", "v"))
	for tries := 1; tries < 8; tries++ {
		testkit.Eventually(t, func() bool { return b.rest().Body.Asks == tries }, "question %d", tries)
		require.Empty(t, b.told())
		b.clock.Advance(time.Minute)
	}
	late := failed("chl_a", "v", "DNS_CHANGE_PENDING", "ns.test took the change of _acme-challenge.example.org, but its servers do not all have it yet; it is asked again")
	b.expect(late)
	b.zone.set(func() { b.zone.pending = 0 })
	b.clock.Advance(time.Minute)
	b.expect(late, presented("chl_a", "v"))
}

func TestAProviderThatLimitsItsCallersIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	b := newBench(t)
	b.account()
	b.zone.set(func() {
		b.zone.err = errs.New(errs.RateLimited, "DNS_THROTTLED", "later").WithRetryAfter(3 * time.Minute)
	})
	b.tell(wanted("chl_a", "v"))
	b.expect(failed("chl_a", "v", "DNS_THROTTLED", "later"))
	require.Equal(t, b.clock.Now().Add(3*time.Minute), b.rest().WorkAt)
}

func TestCredentialsAreRotatedByAnUpdate(t *testing.T) {
	b := newBench(t)
	a := b.account(func(a *dnsv1.DNSAccount) { a.Rfc2136.TsigSecret = "b2xk" })
	b.tell(wanted("chl_a", "v"))
	broken := failed("chl_a", "v", "INTERNAL", "the credential was not opened")
	b.expect(broken)

	update := func(in *dnsv1.DNSAccount, mask ...string) (*dnsv1.DNSAccount, error) {
		req := &dnsv1.UpdateDNSAccountRequest{Id: a.GetId(), DnsAccount: in}
		if len(mask) > 0 {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: mask}
		}
		return b.rpc.UpdateDNSAccount(b.admin, req)
	}
	got, err := update(&dnsv1.DNSAccount{Rfc2136: &dnsv1.RFC2136{Server: "ns2.test:53", TsigKeyName: "new", TsigSecret: "c2VjcmV0"}})
	require.NoError(t, err)
	require.Equal(t, "ns2.test:53", got.GetRfc2136().GetServer())
	require.Empty(t, got.GetRfc2136().GetTsigSecret())
	require.Equal(t, "Lab", got.GetDisplayName())
	b.expect(broken, presented("chl_a", "v")) // at once: the clock stands still

	got, err = update(&dnsv1.DNSAccount{DisplayName: "Other", Zones: []string{"x.test"}}, "display_name")
	require.NoError(t, err)
	require.Equal(t, "Other", got.GetDisplayName())
	require.Equal(t, []string{"example.org"}, got.GetZones())
	got, err = update(&dnsv1.DNSAccount{Zones: []string{"Example.org", "x.test"}})
	require.NoError(t, err)
	require.Equal(t, []string{"example.org", "x.test"}, got.GetZones())
	require.Equal(t, "new", got.GetRfc2136().GetTsigKeyName())

	_, err = update(&dnsv1.DNSAccount{Zones: []string{"*.x.test"}})
	require.EqualError(t, err, `the DNS account is not valid (dnsAccount.zones[0]: "*.x.test" is a wildcard; give the name without "*.")`)
	_, err = update(&dnsv1.DNSAccount{}, "team")
	require.EqualError(t, err, `the field "team" cannot be changed; allowed: display_name, zones, rfc2136 (updateMask: "team" given, allowed: display_name, zones, rfc2136)`)
	_, err = update(&dnsv1.DNSAccount{Cloudflare: &dnsv1.Cloudflare{ApiToken: "t"}})
	require.ErrorContains(t, err, `dnsAccount.cloudflare: belongs to another provider than "rfc2136"`)
	_, err = update(&dnsv1.DNSAccount{Provider: "cloudflare", Cloudflare: &dnsv1.Cloudflare{ApiToken: "t"}})
	require.EqualError(t, err, `the provider of an account stays (dnsAccount.provider: "cloudflare" given, it is "rfc2136"; make another account and disable this one)`)
	_, err = b.rpc.UpdateDNSAccount(b.admin, &dnsv1.UpdateDNSAccountRequest{Id: "dac_nobody", DnsAccount: &dnsv1.DNSAccount{}})
	require.Equal(t, errs.NotFound, errs.KindOf(err))
}

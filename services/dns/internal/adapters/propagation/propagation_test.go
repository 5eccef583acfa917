package propagation_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/adapters/cloudflare"
	"github.com/certwright/certwright/services/dns/internal/adapters/propagation"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/dnstest"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/secret"
)

func TestAChangeIsBelievedSomeTimeAfterItWasAccepted(t *testing.T) {
	const name = "_acme-challenge.example.org"
	s := dnstest.StartCloudflare(t, "example.org")
	now := clock.NewFake(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	kind := propagation.Kind{Kind: cloudflare.Kind{Clock: now, Endpoint: s.URL}, Clock: now, After: 30 * time.Second}
	settings, credential, wrong := kind.Check(domain.Account{Zones: []string{"example.org"}, TTL: 60}, app.Secrets{cloudflare.SecretToken: secret.New(dnstest.CloudflareToken)})
	require.Empty(t, wrong)
	open := func() app.Provider { // as after a restart
		p, err := kind.Open(settings, credential)
		require.NoError(t, err)
		return p
	}
	settled := func(change string) bool {
		done, err := open().(app.Settler).Settled(t.Context(), change)
		require.NoError(t, err)
		return done
	}
	change, err := open().Apply(t.Context(), "example.org", name, []string{"v"}, nil, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"v"}, s.Values(name))
	require.False(t, settled(change))
	now.Advance(29 * time.Second)
	require.False(t, settled(change))
	now.Advance(time.Second)
	require.True(t, settled(change))

	change, err = open().Apply(t.Context(), "example.org", name, nil, []string{"v"}, time.Minute)
	require.NoError(t, err)
	require.Empty(t, change, "nobody waits for a removal")
	require.Empty(t, s.Values(name))
	require.True(t, settled("C2682N5HXP0BZ4"))
}

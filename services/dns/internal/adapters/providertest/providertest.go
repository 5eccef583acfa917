// Package providertest is the conformance suite of app.Provider. Every provider runs it against a server that speaks its protocol.
package providertest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
	"github.com/certwright/certwright/shared/testkit"
)

// Server is the provider's side.
type Server interface {
	// Set puts values at a name, as somebody else would.
	Set(name string, values ...string)
	// Values returns the TXT values at a name, sorted.
	Values(name string) []string
	// LoseAnswer makes the next change happen, and its answer be lost.
	LoseAnswer()
}

// World is a provider with an account.
type World struct {
	Server Server
	Zone   string // of the account and the server
	Kind   app.Kind
	// Settings and Secrets of the account; Wrong are secrets of the right form that the server refuses.
	Settings map[string]string
	Secrets  app.Secrets
	Wrong    app.Secrets
	// Refused and Unknown are the reasons for wrong secrets and for a zone that is not there.
	Refused, Unknown string
	// Throttle makes the server ask for fewer calls, or ends that; nil where the protocol has no such answer. Pause is what it asks for.
	Throttle func(on bool)
	Pause    time.Duration
}

// Account is the world's account as CheckAccount completes it.
func (w World) Account() domain.Account {
	return domain.Account{Zones: []string{w.Zone}, Settings: w.Settings, TTL: 600}
}

// Open makes an access, as each step of the worker does.
func (w World) Open(t testing.TB, secrets app.Secrets) app.Provider {
	t.Helper()
	settings, credential, wrong := w.Kind.Check(w.Account(), secrets)
	require.Empty(t, wrong)
	for _, s := range secrets {
		require.NotContains(t, strings.Join(slices.Collect(mapValues(settings)), " "), s.Reveal(), "a secret is not a setting")
	}
	p, err := w.Kind.Open(settings, credential)
	require.NoError(t, err)
	return p
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if v != "" && !yield(v) {
				return
			}
		}
	}
}

// Run runs the suite; each test has a world of its own.
func Run(t *testing.T, build func(t *testing.T) World) {
	t.Helper()
	type bench struct {
		World
		t    *testing.T
		ctx  context.Context
		name string
		open func() app.Provider
	}
	run := func(name string, f func(t *testing.T, b bench)) {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Deadline)
			t.Cleanup(cancel)
			f(t, bench{World: w, t: t, ctx: ctx, name: "_acme-challenge.www." + w.Zone, open: func() app.Provider { return w.Open(t, w.Secrets) }})
		})
	}
	// apply writes with an access of its own and waits until the servers have it.
	apply := func(b bench, want, drop []string) {
		b.t.Helper()
		p := b.open()
		change, err := p.Apply(b.ctx, b.Zone, b.name, want, drop, 10*time.Minute)
		require.NoError(b.t, err)
		if change == "" {
			return
		}
		settler, ok := p.(app.Settler)
		require.True(b.t, ok, "who names a change can be asked about it")
		for range 10 {
			done, err := settler.Settled(b.ctx, change)
			require.NoError(b.t, err)
			if done {
				return
			}
		}
		require.Fail(b.t, "the change does not settle")
	}
	there := func(b bench, want ...string) {
		b.t.Helper()
		require.Equal(b.t, want, append([]string{}, b.Server.Values(b.name)...))
		read, err := b.open().Read(b.ctx, b.Zone, b.name)
		require.NoError(b.t, err)
		slices.Sort(read)
		require.Equal(b.t, want, append([]string{}, read...))
	}

	run("two values at one name are a union, and leave one by one", func(t *testing.T, b bench) {
		there(b, []string{}...)
		apply(b, []string{"apex"}, nil)
		there(b, "apex")
		apply(b, []string{"apex", "wildcard"}, nil)
		there(b, "apex", "wildcard")
		apply(b, []string{"wildcard"}, []string{"apex"})
		there(b, "wildcard")
		apply(b, nil, []string{"wildcard"})
		there(b, []string{}...)
	})
	run("values of others stay", func(t *testing.T, b bench) {
		b.Server.Set(b.name, "foreign 1", "foreign 2", "foreign 3")
		apply(b, []string{"ours"}, nil)
		there(b, "foreign 1", "foreign 2", "foreign 3", "ours")
		apply(b, nil, []string{"ours"})
		there(b, "foreign 1", "foreign 2", "foreign 3")
	})
	run("a repeat changes nothing", func(t *testing.T, b bench) {
		for range 2 {
			apply(b, []string{"one", "two"}, []string{"never was"})
			there(b, "one", "two")
		}
		for range 2 {
			apply(b, nil, []string{"one", "two"})
			there(b, []string{}...)
		}
	})
	run("a long value is whole", func(t *testing.T, b bench) {
		long := strings.Repeat("x", 300)
		apply(b, []string{long}, nil)
		there(b, long)
		apply(b, nil, []string{long})
		there(b, []string{}...)
	})
	run("the apex of the zone is a name too", func(t *testing.T, b bench) {
		b.name = b.Zone
		apply(b, []string{"v"}, nil)
		there(b, "v")
	})
	run("a crash between the write and its note is written again", func(t *testing.T, b bench) {
		b.Server.Set(b.name, "foreign")
		_, err := b.open().Apply(b.ctx, b.Zone, b.name, []string{"one"}, nil, 10*time.Minute)
		require.NoError(t, err)
		apply(b, []string{"one"}, nil) // nothing was noted
		there(b, "foreign", "one")
	})
	run("a lost answer may have been a change, and says so", func(t *testing.T, b bench) {
		b.Server.Set(b.name, "foreign")
		b.Server.LoseAnswer()
		_, err := b.open().Apply(b.ctx, b.Zone, b.name, []string{"one", "two"}, nil, 10*time.Minute)
		require.Equal(t, errs.Timeout, errs.KindOf(err), "%v", err)
		require.Equal(t, domain.ReasonNoAnswer, errs.ReasonOf(err), "%v", err)
		require.Contains(t, b.Server.Values(b.name), "one")
		apply(b, []string{"one", "two"}, nil)
		there(b, "foreign", "one", "two")
	})
	run("a zone that is not there is named", func(t *testing.T, b bench) {
		const zone = "nowhere.test"
		_, err := b.open().Apply(b.ctx, zone, "_acme-challenge."+zone, []string{"v"}, nil, 10*time.Minute)
		require.Equal(t, errs.Precondition, errs.KindOf(err), "%v", err)
		require.Equal(t, b.Unknown, errs.ReasonOf(err), "%v", err)
		require.ErrorContains(t, err, zone)
		require.Empty(t, b.Server.Values("_acme-challenge."+zone))
	})
	run("wrong credentials are refused and not repeated", func(t *testing.T, b bench) {
		_, err := b.World.Open(t, b.Wrong).Apply(b.ctx, b.Zone, b.name, []string{"v"}, nil, 10*time.Minute)
		require.Equal(t, errs.Forbidden, errs.KindOf(err), "%v", err)
		require.Equal(t, b.Refused, errs.ReasonOf(err), "%v", err)
		for _, s := range b.Wrong {
			noSecret(t, err, s)
		}
		require.Empty(t, b.Server.Values(b.name))
	})
	if build(t).Throttle != nil { // as the world declares
		run("a server that asks for fewer calls is obeyed", func(t *testing.T, b bench) {
			b.Throttle(true)
			_, err := b.open().Apply(b.ctx, b.Zone, b.name, []string{"v"}, nil, 10*time.Minute)
			require.Equal(t, errs.RateLimited, errs.KindOf(err), "%v", err)
			require.Equal(t, domain.ReasonThrottled, errs.ReasonOf(err), "%v", err)
			require.Equal(t, b.Pause, errs.As(err).RetryAfter)
			_, err = b.open().Read(b.ctx, b.Zone, b.name)
			require.Equal(t, errs.RateLimited, errs.KindOf(err), "%v", err)
			require.Empty(t, b.Server.Values(b.name))
			b.Throttle(false)
			apply(b, []string{"v"}, nil)
			there(b, "v")
		})
	}
	run("an ended context ends the call", func(t *testing.T, b bench) {
		ctx, cancel := context.WithCancel(b.ctx)
		cancel()
		_, err := b.open().Apply(ctx, b.Zone, b.name, []string{"v"}, nil, 10*time.Minute)
		require.Error(t, err)
		require.NotNil(t, errs.As(err), "it is classified: %v", err)
		require.Empty(t, b.Server.Values(b.name))
	})
}

// noSecret fails when an error has a secret in it.
func noSecret(t testing.TB, err error, s secret.Value) {
	t.Helper()
	if !s.IsZero() {
		require.NotContains(t, err.Error(), s.Reveal())
	}
}

// Package propagation waits for the servers of providers whose API does not say when they have a change: a CA that looks too early counts a failure.
package propagation

import (
	"context"
	"strconv"
	"time"

	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/secret"
)

// Kind is a provider whose changes are believed some time after they were accepted. The Kind in it must be neither an app.ZoneChecker nor open an app.Settler.
type Kind struct {
	app.Kind
	Clock clock.Clock
	After time.Duration
}

// Open implements app.Kind.
func (k Kind) Open(settings map[string]string, credential secret.Value) (app.Provider, error) {
	p, err := k.Kind.Open(settings, credential)
	if err != nil {
		return nil, err
	}
	return &provider{Provider: p, clock: k.Clock, after: k.After}, nil
}

type provider struct {
	app.Provider
	clock clock.Clock
	after time.Duration
}

var _ app.Settler = &provider{}

// Apply implements app.Provider. The change is the moment when it is believed, so that it holds after a restart; nobody waits for a mere removal.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	change, err := p.Provider.Apply(ctx, zone, fqdn, want, drop, ttl)
	if err != nil || len(want) == 0 || p.after == 0 {
		return change, err
	}
	return strconv.FormatInt(p.clock.Now().Add(p.after).UnixMilli(), 10), nil
}

// Settled implements app.Settler. What is no moment is a change of another time's making, and has been waited for long enough.
func (p *provider) Settled(_ context.Context, change string) (bool, error) {
	at, err := strconv.ParseInt(change, 10, 64)
	return err != nil || p.clock.Now().UnixMilli() >= at, nil
}

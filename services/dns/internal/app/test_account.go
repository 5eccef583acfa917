package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
)

// TestReport is what a test of an account did and found.
type TestReport struct {
	Steps   []string
	Problem domain.Problem
}

// TestAccount writes a harmless TXT value beside what is at _acme-challenge.<zone>, sees it, and removes it. The zone may be left out: then it is the
// first one. A failed test is an answer and no error; the errors are Invalid and NotFound.
func (a *App) TestAccount(ctx context.Context, id, zone string) (TestReport, error) {
	doc, err := a.Account(ctx, id)
	if err != nil {
		return TestReport{}, err
	}
	zone = strings.TrimSuffix(strings.ToLower(zone), ".")
	if zone == "" {
		zone = doc.Body.Zones[0]
	}
	if !slices.Contains(doc.Body.Zones, zone) {
		return TestReport{}, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the zone is not one of the account").
			WithField("zone", "%q given, allowed: %s", zone, strings.Join(doc.Body.Zones, ", "))
	}
	report := a.probe(ctx, doc, zone)
	_, err = a.Accounts.Change(ctx, id, func(doc *AccountDoc) ([]outbox.Fact, error) {
		doc.Body.TestedAt, doc.Body.TestProblem = a.Clock.Now(), report.Problem
		return nil, nil
	})
	if err == nil && report.Problem.IsZero() && !doc.Body.Disabled {
		a.wake(ctx, doc.Team, doc.Body.Account)
	}
	return report, err
}

// probe makes its calls itself: a person waits for each answer, and what a crash leaves the next test removes.
func (a *App) probe(ctx context.Context, doc AccountDoc, zone string) (r TestReport) {
	fail := func(err error) TestReport {
		r.Problem = domain.ProblemOf(err)
		r.Problem.Retrying = false
		r.Steps = append(r.Steps, "failed: "+r.Problem.Detail)
		return r
	}
	p, err := a.open(ctx, doc)
	if err != nil {
		return fail(err)
	}
	fqdn, value, ttl := domain.ChallengeName(zone), "certwright-test-"+doc.ID, time.Duration(doc.Body.TTL)*time.Second

	if err := a.apply(ctx, p, zone, fqdn, []string{value}, nil, ttl); err != nil {
		return fail(err)
	}
	r.Steps = append(r.Steps, fmt.Sprintf("wrote the TXT value %q at %s", value, fqdn))
	seen := a.look(ctx, p, zone, fqdn, value, true)
	if seen == nil {
		r.Steps = append(r.Steps, fmt.Sprintf("saw it on %s", p.Server()))
	}
	if err := a.apply(ctx, p, zone, fqdn, nil, []string{value}, ttl); err != nil {
		return fail(err)
	}
	r.Steps = append(r.Steps, "removed it")
	if seen != nil {
		return fail(seen)
	}
	if err := a.look(ctx, p, zone, fqdn, value, false); err != nil {
		return fail(err)
	}
	r.Steps = append(r.Steps, "saw that it is gone")
	return r
}

// apply writes. It does not wait for a provider's servers: that the provider took the change is what a person wants to know.
func (a *App) apply(ctx context.Context, p Provider, zone, fqdn string, want, drop []string, ttl time.Duration) error {
	return a.bounded(ctx, func(ctx context.Context) error {
		_, err := p.Apply(ctx, zone, fqdn, want, drop, ttl)
		return err
	})
}

// look reads a few times until the value is there, or gone.
func (a *App) look(ctx context.Context, p Provider, zone, fqdn, value string, there bool) error {
	var found []string
	for try := range 3 {
		if try > 0 {
			if err := a.Clock.Sleep(ctx, 500*time.Millisecond); err != nil {
				return errs.New(errs.Canceled, "", "the test was given up: %w", err)
			}
		}
		err := a.bounded(ctx, func(ctx context.Context) (err error) {
			found, err = p.Read(ctx, zone, fqdn)
			return err
		})
		if err != nil {
			return err
		}
		if slices.Contains(found, value) == there {
			return nil
		}
	}
	if there {
		return errs.New(errs.Precondition, domain.ReasonNotVisible, "the name server took the update, but %s does not have %q at %s; is that server the primary of the zone?", p.Server(), value, fqdn)
	}
	return errs.New(errs.Precondition, domain.ReasonNotVisible, "the name server took the removal, but %s still has %q at %s", p.Server(), value, fqdn)
}

// bounded gives one call to a provider its time.
func (a *App) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	return f(ctx)
}

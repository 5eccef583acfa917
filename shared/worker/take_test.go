package worker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

func TestTheWriteThatMakesADocumentDueClaimsIt(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	b.run()
	testkit.Eventually(t, func() bool { // from when Run has begun
		before := b.store.Writes()["jobs"]
		name := fmt.Sprintf("insert %d", before)
		b.insert(name, start)
		testkit.Eventually(t, b.has(name, 1), "stepped")
		return b.store.Writes()["jobs"] == before+2
	}, "an insert and a result, without a claim")
	b.insert("change", clock.Never)
	before := b.store.Writes()["jobs"]
	d, err := b.coll.Change(t.Context(), "change", func(d *doc) ([]outbox.Fact, error) { d.WorkAt = start; return nil, nil })
	require.NoError(t, err)
	require.NotEmpty(t, d.LeaseToken)
	require.Equal(t, start.Add(time.Minute), d.LeaseUntil)
	testkit.Eventually(t, b.has("change", 1), "stepped")
	require.Equal(t, before+2, b.store.Writes()["jobs"])
}

func TestAWriteTakesNothingThatTheWorkerHasNoPlaceFor(t *testing.T) {
	going, goOn := make(chan struct{}), make(chan struct{})
	b := newBench(t, faulty.Faults{}, nil)
	b.step = func(_ context.Context, d doc) (result, error) {
		if d.ID == "slow" {
			going <- struct{}{}
			<-goOn
		}
		return done(clock.Never), nil
	}
	b.run(func(c *worker.Config[job]) { c.Concurrency = 1 })
	b.insert("slow", start)
	<-going
	b.insert("next", start)
	require.Empty(t, b.get("next").LeaseToken, "whoever has a place may claim it")
	_, err := b.coll.Change(t.Context(), "slow", func(d *doc) ([]outbox.Fact, error) { d.Body.Note = "seen"; return nil, nil })
	require.NoError(t, err)
	close(goOn)
	testkit.Eventually(t, b.has("next", 1), "stepped when there is a place")
	testkit.Eventually(t, b.has("slow", 1), "stepped once")
	require.Equal(t, "seen", b.get("slow").Body.Note)
}

func TestAWriteThatFailsTakesNothing(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	b.run(func(c *worker.Config[job]) { c.Concurrency = 1 })
	b.insert("a", start)
	testkit.Eventually(t, b.has("a", 1), "stepped")
	for range 3 { // each would keep the only place for ever
		d := doc{}
		d.ID, d.Team, d.WorkAt = "a", "default", start
		require.Equal(t, errs.AlreadyExists, errs.KindOf(b.coll.Insert(t.Context(), &d)))
	}
	b.insert("b", start)
	testkit.Eventually(t, b.has("b", 1), "stepped")
	require.Equal(t, 1, b.get("a").Body.Steps)
}

func TestAStoppedWorkerTakesNothing(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	_, stop := b.run()
	stop()
	b.insert("a", start)
	require.Empty(t, b.get("a").LeaseToken)
	b.run()
	testkit.Eventually(t, b.has("a", 1), "by the next one")
}

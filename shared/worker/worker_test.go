package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	certificatev1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/faulty"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
	"github.com/certwright/certwright/shared/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type job struct {
	Steps int    `bson:"steps"`
	Note  string `bson:"note"`
}

type (
	doc    = docstore.Doc[job]
	result = worker.Result[job]
)

type bench struct {
	t     testing.TB
	clk   *clock.Fake
	store *faulty.Store
	coll  *outbox.Collection[job]
	end   context.CancelFunc // of the last worker, without waiting

	mu    sync.Mutex
	steps []string
	step  func(ctx context.Context, d doc) (result, error)
}

func newBench(t testing.TB, f faulty.Faults, step func(ctx context.Context, d doc) (result, error)) *bench {
	t.Helper()
	b := &bench{t: t, clk: clock.NewFake(start), step: step}
	b.store = faulty.New(memory.New(b.clk), f)
	out := outbox.New(outbox.Config{Store: b.store, Bus: testkit.Silent{}, Source: "test", Clock: b.clk, Logger: testkit.Logger(t)})
	b.coll = testkit.Open[job](t, out, docstore.Spec{Name: "jobs"})
	return b
}

// run starts a worker; stop ends it and waits.
func (b *bench) run(change ...func(*worker.Config[job])) (w *worker.Worker[job], stop func()) {
	cfg := worker.Config[job]{Name: "jobs", Coll: b.coll, Clock: b.clk, Logger: testkit.Logger(b.t), Step: func(ctx context.Context, d doc) (result, error) {
		b.mu.Lock()
		b.steps = append(b.steps, d.ID)
		b.mu.Unlock()
		return b.step(ctx, d)
	}}
	for _, f := range change {
		f(&cfg)
	}
	w = worker.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	b.end, stop = cancel, func() { cancel(); wg.Wait() }
	b.t.Cleanup(stop)
	return w, stop
}

func (b *bench) stepped() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.steps)
}

func (b *bench) insert(id string, workAt time.Time, change ...func(*doc)) {
	b.t.Helper()
	d := doc{Meta: docstore.Meta{ID: id, Team: "default", WorkAt: workAt}}
	for _, f := range change {
		f(&d)
	}
	require.NoError(b.t, b.coll.Insert(b.t.Context(), &d))
}

func (b *bench) get(id string) doc {
	b.t.Helper()
	d, err := b.coll.Get(context.Background(), id)
	require.NoError(b.t, err)
	return d
}

// finish does one step and rests.
func finish(_ context.Context, _ doc) (result, error) { return done(clock.Never), nil }

func done(next time.Time) result {
	return result{Apply: func(d *doc) ([]outbox.Fact, error) {
		d.Body.Steps++
		d.WorkAt = next
		return nil, nil
	}}
}

func (b *bench) has(id string, steps int) func() bool {
	return func() bool { return b.get(id).Body.Steps == steps }
}

func TestADocumentIsSteppedWhenItIsDue(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	b.insert("before", start)
	b.insert("far", start.Add(time.Hour)) // a sweep's
	b.run()
	testkit.Eventually(t, b.has("before", 1), "what was there at the start")
	b.insert("now", start)
	testkit.Eventually(t, b.has("now", 1), "a write that makes due pokes, no time passes")
	b.insert("soon", start.Add(3*time.Second))
	b.clk.Advance(2 * time.Second)
	require.Zero(t, b.get("soon").Body.Steps)
	testkit.Passes(t, b.clk, time.Second, b.has("soon", 1), "its own timer")
	require.True(t, b.clk.Now().Before(start.Add(5*time.Second)), "no sweep was needed")
	testkit.Passes(t, b.clk, time.Minute, b.has("far", 1), "a sweep finds it")
	d := b.get("far")
	require.Empty(t, d.LeaseToken)
	require.False(t, d.LeaseUntil.After(b.clk.Now()))
}

func TestADocumentPutOffAndCalledBackComesInTime(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	b.insert("a", start.Add(2*time.Second))
	b.run()
	_, err := b.coll.Change(t.Context(), "a", func(d *doc) ([]outbox.Fact, error) { d.WorkAt = start.Add(4 * time.Second); return nil, nil })
	require.NoError(t, err)
	b.clk.Advance(2 * time.Second)
	testkit.Passes(t, b.clk, time.Second/2, b.has("a", 1), "stepped")
	require.False(t, b.clk.Now().Before(start.Add(4*time.Second)))
}

func TestWritesAStep(t *testing.T) {
	for _, c := range []struct {
		name          string
		steps, writes int
	}{
		{"one step is a claim and a result", 1, 2},
		{"steps that follow each other at once share a lease", 5, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, faulty.Faults{}, nil)
			b.step = func(_ context.Context, d doc) (result, error) {
				if d.Body.Steps+1 < c.steps {
					return done(b.clk.Now()), nil
				}
				return done(clock.Never), nil
			}
			b.insert("a", start)
			_, stop := b.run()
			testkit.Eventually(t, b.has("a", c.steps), "stepped")
			stop()
			require.Equal(t, 1+c.writes, b.store.Writes()["jobs"])
			require.Len(t, b.stepped(), c.steps)
		})
	}
}

func TestWhatAStepSaysIsAppliedToTheNewestDocument(t *testing.T) {
	b := newBench(t, faulty.Faults{}, nil)
	b.step = func(ctx context.Context, d doc) (result, error) {
		_, err := b.coll.Change(context.WithoutCancel(ctx), d.ID, func(d *doc) ([]outbox.Fact, error) { d.Body.Note += "!"; return nil, nil })
		return done(clock.Never), err
	}
	b.insert("a", start)
	b.run()
	testkit.Eventually(t, b.has("a", 1), "stepped once")
	require.Equal(t, "!", b.get("a").Body.Note)
}

func TestAPokeWhileAStepIsInHandIsNotForgotten(t *testing.T) {
	b := newBench(t, faulty.Faults{}, nil)
	inHand, goOn := make(chan struct{}, 10), make(chan struct{})
	b.step = func(context.Context, doc) (result, error) {
		inHand <- struct{}{}
		<-goOn
		return result{Apply: func(d *doc) ([]outbox.Fact, error) {
			d.Body.Steps++
			if d.Body.Note == "" || d.Body.Steps > 1 { // nothing new
				d.WorkAt = clock.Never
			}
			return nil, nil
		}}, nil
	}
	b.insert("a", start)
	b.run()
	<-inHand
	_, err := b.coll.Change(t.Context(), "a", func(d *doc) ([]outbox.Fact, error) { d.Body.Note, d.WorkAt = "new", start; return nil, nil })
	require.NoError(t, err)
	close(goOn)
	testkit.Eventually(t, b.has("a", 2), "looked at again, without time passing")
}

func TestALeaseThatWasLostWritesNothingButAnOrphan(t *testing.T) {
	b := newBench(t, faulty.Faults{}, nil)
	b.step = func(ctx context.Context, d doc) (result, error) {
		_, err := b.coll.Change(context.WithoutCancel(ctx), d.ID, func(d *doc) ([]outbox.Fact, error) {
			d.LeaseToken, d.LeaseUntil = "another", start.Add(time.Hour)
			return nil, nil
		})
		res := done(clock.Never)
		res.Orphan = &docstore.Orphan{Kind: "order", Ref: "https://ca/order/1"}
		return res, err
	}
	b.insert("a", start)
	b.run()
	testkit.Eventually(t, func() bool { return len(b.get("a").Orphans) == 1 }, "the orphan is recorded")
	d := b.get("a")
	require.Zero(t, d.Body.Steps)
	require.Equal(t, "another", d.LeaseToken)
	require.Equal(t, docstore.Orphan{Kind: "order", Ref: "https://ca/order/1", At: start}, d.Orphans[0])
}

func TestALeaseOfAnotherIsLeftAloneUntilItEnds(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	b.insert("a", start, func(d *doc) { d.LeaseToken, d.LeaseUntil = "crashed", start.Add(time.Minute) })
	b.run()
	for b.clk.Now().Before(start.Add(59 * time.Second)) {
		b.clk.Advance(time.Second)
		require.Empty(t, b.stepped())
	}
	testkit.Passes(t, b.clk, time.Second, b.has("a", 1), "taken over")
	require.Len(t, b.stepped(), 1)
}

func TestAStepThatFailsIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		fail  func() (result, error)
		waits []time.Duration
	}{
		{"after a growing wait", func() (result, error) { return result{}, errs.New(errs.Unavailable, "", "away") }, []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}},
		{"or as long as the error says", func() (result, error) {
			return result{}, errs.New(errs.RateLimited, "", "slow").WithRetryAfter(3 * time.Second)
		}, []time.Duration{3, 3, 4}},
		{"a panic is an error", func() (result, error) { panic("oh") }, []time.Duration{1, 2}},
		{"no answer is an error", func() (result, error) { return result{}, nil }, []time.Duration{1, 2}},
		{"an error of Apply is an error, and what it did meanwhile is not written", func() (result, error) {
			return result{Apply: func(d *doc) ([]outbox.Fact, error) {
				d.Body.Note = "half"
				return nil, errs.New(errs.Conflict, "", "no")
			}}, nil
		}, []time.Duration{1, 2}},
		{"a panic of Apply is an error", func() (result, error) {
			return result{Apply: func(*doc) ([]outbox.Fact, error) { panic("oh") }}, nil
		}, []time.Duration{1, 2}},
		{"a step that changes nothing and leaves the document due does not spin", func() (result, error) {
			return result{Apply: func(*doc) ([]outbox.Fact, error) { return nil, outbox.ErrUnchanged }}, nil
		}, []time.Duration{1, 2}},
		{"a chain without end is cut", func() (result, error) {
			return result{Apply: func(*doc) ([]outbox.Fact, error) { return nil, nil }}, nil
		}, []time.Duration{1}},
		{"a result that the store refuses is put off", func() (result, error) {
			return result{Apply: func(d *doc) ([]outbox.Fact, error) {
				d.WorkAt = clock.Never
				return []outbox.Fact{outbox.Tell(nil)}, nil
			}}, nil
		}, []time.Duration{1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, faulty.Faults{}, nil)
			var mended atomic.Bool
			b.step = func(ctx context.Context, d doc) (result, error) {
				if mended.Load() {
					return finish(ctx, d)
				}
				return c.fail()
			}
			b.insert("a", start)
			b.run()
			for n, wait := range c.waits {
				testkit.Eventually(t, func() bool { return b.get("a").WorkAt.After(b.clk.Now()) }, "put off")
				d := b.get("a")
				require.Equal(t, wait*time.Second, d.WorkAt.Sub(b.clk.Now()), "wait %d", n+1)
				require.Empty(t, d.LeaseToken)
				require.Empty(t, d.Body.Note)
				if n == len(c.waits)-1 {
					mended.Store(true)
				}
				b.clk.Advance(wait * time.Second)
			}
			testkit.Passes(t, b.clk, time.Second, b.has("a", 1), "mended")
			require.Zero(t, b.get("a").Failures)
		})
	}
}

func TestAStepThatTakesHalfTheLeaseIsEnded(t *testing.T) {
	b := newBench(t, faulty.Faults{}, nil)
	inHand := make(chan struct{}, 10)
	b.step = func(ctx context.Context, _ doc) (result, error) {
		inHand <- struct{}{}
		<-ctx.Done()
		return result{}, ctx.Err()
	}
	b.insert("a", start)
	b.run()
	<-inHand
	b.clk.Advance(30*time.Second - time.Millisecond)
	require.Zero(t, b.get("a").Failures)
	testkit.Passes(t, b.clk, time.Millisecond, func() bool { return b.get("a").Failures == 1 }, "ended")
	require.Less(t, b.clk.Now().Sub(start), 31*time.Second)
}

func TestAProcessThatWasStoppedDoesNotCall(t *testing.T) {
	b := newBench(t, faulty.Faults{}, nil)
	var called atomic.Bool
	answer := make(chan error, 1)
	b.step = func(ctx context.Context, _ doc) (result, error) {
		b.clk.Advance(30 * time.Second) // SIGSTOP, SIGCONT
		err := worker.Call(context.WithoutCancel(ctx), "ca", func(context.Context) error { called.Store(true); return nil })
		answer <- err
		return result{}, err
	}
	b.insert("a", start)
	b.run()
	err := <-answer
	require.Equal(t, "LEASE_ENDED", errs.ReasonOf(err))
	require.False(t, called.Load())
}

func TestACallUnderALeaseOrWithoutOneIsMade(t *testing.T) {
	own := errors.New("own")
	require.ErrorIs(t, worker.Call(t.Context(), "x", func(context.Context) error { return own }), own)
	b := newBench(t, faulty.Faults{}, nil)
	b.step = func(ctx context.Context, _ doc) (result, error) {
		b.clk.Advance(20 * time.Second)
		return done(b.clk.Now()), worker.Call(ctx, "x", func(context.Context) error { return nil })
	}
	b.insert("a", start)
	_, stop := b.run()
	testkit.Eventually(t, func() bool { return b.get("a").Body.Steps > 3 }, "each write of a chain makes the lease whole again")
	stop()
	require.Zero(t, b.get("a").Failures)
}

func TestAStoreThatDoesNotAnswerTheResultIsAskedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		before bool
	}{{"the write was lost", true}, {"the answer was lost", false}} {
		t.Run(c.name, func(t *testing.T) {
			var updates atomic.Int64
			fault := func(op faulty.Op, _ string) error {
				if op == faulty.Update && updates.Add(1) == 2 { // the first is the claim
					return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "away")
				}
				return nil
			}
			f := faulty.Faults{After: fault}
			if c.before {
				f = faulty.Faults{Before: fault}
			}
			b := newBench(t, f, func(context.Context, doc) (result, error) {
				res := done(clock.Never)
				res.Orphan = &docstore.Orphan{Kind: "order", Ref: "1"}
				return res, nil
			})
			b.insert("a", start)
			_, stop := b.run(func(cfg *worker.Config[job]) { cfg.Grace = 10 * time.Millisecond })
			testkit.Passes(t, b.clk, 100*time.Millisecond, b.has("a", 1), "written")
			stop()
			require.Len(t, b.stepped(), 1, "the outside call is not made again")
			require.Empty(t, b.get("a").Orphans)
		})
	}
}

func TestAClaimWhoseAnswerWasLostIsUsed(t *testing.T) {
	var updates atomic.Int64
	b := newBench(t, faulty.Faults{After: func(op faulty.Op, _ string) error {
		if op == faulty.Update && updates.Add(1) == 1 {
			return errs.New(errs.Timeout, "", "no answer")
		}
		return nil
	}}, finish)
	b.insert("a", start)
	b.run()
	testkit.Eventually(t, b.has("a", 1), "without waiting for the lease to end")
}

func TestTheEndOfRunGivesLeasesBack(t *testing.T) {
	for _, c := range []struct {
		name  string
		step  func(ctx context.Context, inHand chan<- struct{}, release <-chan struct{}) (result, error)
		steps int
	}{
		{"of a step that is cut off", func(ctx context.Context, inHand chan<- struct{}, _ <-chan struct{}) (result, error) {
			inHand <- struct{}{}
			<-ctx.Done()
			return result{}, ctx.Err()
		}, 0},
		{"of one that ends in time, with its result", func(_ context.Context, inHand chan<- struct{}, release <-chan struct{}) (result, error) {
			inHand <- struct{}{}
			<-release
			return done(start), nil // more to do at once, by the next start
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inHand, release := make(chan struct{}, 10), make(chan struct{})
			b := newBench(t, faulty.Faults{}, func(ctx context.Context, _ doc) (result, error) { return c.step(ctx, inHand, release) })
			b.insert("a", start)
			_, stop := b.run(func(cfg *worker.Config[job]) {
				if c.steps == 0 {
					cfg.Grace = 10 * time.Millisecond
				}
			})
			<-inHand
			b.end()
			close(release)
			stop()
			d := b.get("a")
			require.Equal(t, c.steps, d.Body.Steps)
			require.Zero(t, d.Failures)
			require.Empty(t, d.LeaseToken)
			require.False(t, d.DueAt.After(b.clk.Now()), "the next start takes it at once")
			require.False(t, d.LeaseUntil.After(b.clk.Now()))
		})
	}
}

func TestAFactThatAwaitsIsToldAgainWithoutAStep(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	d := doc{Meta: docstore.Meta{ID: "a", Team: "default"}}
	require.NoError(t, b.coll.Insert(t.Context(), &d, outbox.Await("work", &certificatev1.Deleted{CertificateId: "a"})))
	_, stop := b.run()
	testkit.Passes(t, b.clk, 10*time.Second, func() bool { return b.get("a").Kept[0].Times == 2 }, "told twice more")
	writes := b.store.Writes()["jobs"]
	b.clk.Advance(time.Minute)
	stop()
	require.Equal(t, writes, b.store.Writes()["jobs"], "and not every moment")
	require.Equal(t, 3, writes)
	require.Empty(t, b.stepped())
}

func TestABacklogIsNotBoundToThePaceOfSweeps(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	for n := range 2500 {
		b.insert(fmt.Sprintf("d%04d", n), start)
	}
	b.run()
	testkit.Eventually(t, func() bool { return len(b.stepped()) == 2500 }, "all are stepped though no time passes")
}

func TestReplicasStepADocumentOnce(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	for n := range 200 {
		b.insert(fmt.Sprintf("d%03d", n), start)
	}
	for range 3 {
		b.run()
	}
	testkit.Eventually(t, func() bool {
		for n := range 200 {
			if !b.has(fmt.Sprintf("d%03d", n), 1)() {
				return false
			}
		}
		return true
	}, "all are stepped")
	require.Len(t, b.stepped(), 200)
}

func TestADocumentThatCannotBeReadHoldsUpNobody(t *testing.T) {
	b := newBench(t, faulty.Faults{}, finish)
	other := testkit.Open[struct {
		Steps string `bson:"steps"`
	}](t, outbox.New(outbox.Config{Store: b.store, Bus: testkit.Silent{}, Source: "x", Clock: b.clk, Logger: testkit.Logger(t)}), docstore.Spec{Name: "jobs"})
	bad := docstore.Doc[struct {
		Steps string `bson:"steps"`
	}]{Meta: docstore.Meta{ID: "bad", Team: "default", WorkAt: start.Add(-time.Hour)}}
	require.NoError(t, other.Insert(t.Context(), &bad))
	b.insert("good", start)
	b.run()
	testkit.Eventually(t, b.has("good", 1), "stepped")
}

func TestThePokesOfOneDocumentAreOne(t *testing.T) {
	var gets atomic.Int64
	b := newBench(t, faulty.Faults{Before: func(op faulty.Op, _ string) error {
		if op == faulty.Get {
			gets.Add(1)
		}
		return nil
	}}, finish)
	b.insert("a", start.Add(3*time.Second))
	w := worker.New(worker.Config[job]{Name: "jobs", Coll: b.coll, Clock: b.clk, Logger: testkit.Logger(t), Step: b.step})
	d := b.get("a")
	for range 500 { // timers of one document
		require.NoError(t, b.coll.Save(t.Context(), &d))
		w.Poke("a")
	}
	before := gets.Load()
	stop := testkit.Run(t, w.Run)
	testkit.Eventually(t, func() bool { return gets.Load() > before }, "poked")
	b.clk.Advance(3 * time.Second)
	testkit.Passes(t, b.clk, time.Second, func() bool { return len(b.store.Writes()) > 0 && gets.Load() >= before+2 }, "stepped")
	stop()
	require.LessOrEqual(t, gets.Load()-before, int64(4))
}

// BenchmarkStep says how many writes of the store, and how much time, a step takes: 2 for one alone (claim and result), 1 more for each that follows
// under the same lease.
func BenchmarkStep(b *testing.B) {
	for _, steps := range []int{1, 10} {
		b.Run(fmt.Sprintf("chain of %d", steps), func(b *testing.B) {
			clk := clock.NewFake(start)
			store := faulty.New(memory.New(clk), faulty.Faults{})
			out := outbox.New(outbox.Config{Store: store, Bus: testkit.Silent{}, Source: "bench", Clock: clk, Logger: testkit.Logger(b)})
			coll := testkit.Open[job](b, out, docstore.Spec{Name: "jobs"})
			var left sync.WaitGroup
			w := worker.New(worker.Config[job]{Name: "jobs", Coll: coll, Clock: clk, Logger: testkit.Logger(b), Step: func(_ context.Context, d doc) (result, error) {
				if d.Body.Steps+1 < steps {
					return done(start), nil
				}
				res := done(clock.Never)
				apply := res.Apply
				res.Apply = func(d *doc) ([]outbox.Fact, error) { defer left.Done(); return apply(d) }
				return res, nil
			}})
			stop := testkit.Run(b, w.Run, out.Run)
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				left.Add(1)
				d := doc{Meta: docstore.Meta{ID: fmt.Sprintf("d%d", n), Team: "default", WorkAt: start}}
				require.NoError(b, coll.Insert(b.Context(), &d, outbox.Tell(&certificatev1.Deleted{CertificateId: d.ID})))
			}
			left.Wait()
			b.StopTimer()
			stop()
			b.ReportMetric(float64(store.Writes()["jobs"]-b.N)/float64(b.N*steps), "writes/step")
		})
	}
}

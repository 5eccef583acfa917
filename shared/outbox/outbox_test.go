package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type thing struct {
	Note string `bson:"note"`
}

// fakeBus remembers what was published, in order.
type fakeBus struct {
	safe time.Duration

	mu        sync.Mutex
	got       []docstore.Entry
	calls     int
	refuse    func([]docstore.Entry) error
	newStream []func()
}

func (b *fakeBus) Publish(ctx context.Context, entries ...docstore.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if ctx.Err() != nil {
		return errs.New(errs.Canceled, "", "publish: %w", ctx.Err())
	}
	if b.refuse != nil {
		if err := b.refuse(entries); err != nil {
			return err
		}
	}
	b.got = append(b.got, entries...)
	return nil
}

func (b *fakeBus) SafeAfter() time.Duration { return b.safe }

func (b *fakeBus) OnNewStream(f func()) { b.newStream = append(b.newStream, f) }

func (b *fakeBus) refuses(f func([]docstore.Entry) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = f
}

func (b *fakeBus) published() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]string, len(b.got))
	for i, e := range b.got {
		ids[i] = e.MsgID
	}
	return ids
}

func (b *fakeBus) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

type bench struct {
	t     *testing.T
	clk   *clock.Fake
	store *faulty.Store
	bus   *fakeBus
	out   *outbox.Outbox
	coll  *outbox.Collection[thing]
}

func newBench(t *testing.T, change ...func(*bench, *outbox.Config)) *bench {
	t.Helper()
	b := &bench{t: t, clk: clock.NewFake(start), bus: &fakeBus{}}
	cfg := outbox.Config{Bus: b.bus, Source: "test", Logger: testkit.Logger(t)}
	for _, f := range change {
		f(b, &cfg)
	}
	if b.store == nil {
		b.store = faulty.New(memory.New(b.clk), faulty.Faults{})
	}
	cfg.Store, cfg.Clock = b.store, b.clk
	b.out = outbox.New(cfg)
	b.coll = testkit.Open[thing](t, b.out, docstore.Spec{Name: "things"})
	b.coll.Watch(func(string, time.Time) {}, nil)
	return b
}

// run starts the relay; stop ends it and waits.
func (b *bench) run() (stop func()) { return testkit.Run(b.t, b.out.Run) }

func (b *bench) insert(id string, facts ...outbox.Fact) docstore.Doc[thing] {
	b.t.Helper()
	doc := docstore.Doc[thing]{Meta: docstore.Meta{ID: id, Team: "default"}}
	require.NoError(b.t, b.coll.Insert(b.t.Context(), &doc, facts...))
	return doc
}

// left returns the message ids in the store's outboxes.
func (b *bench) left() []string {
	pending, err := b.store.Outbox(context.Background(), clock.Never, 100_000)
	require.NoError(b.t, err)
	ids := make([]string, len(pending))
	for i, p := range pending {
		ids[i] = p.Entry.MsgID
	}
	return ids
}

func (b *bench) msgID(doc string, revision, n int) string {
	return fmt.Sprintf("%s-%s-%d-%d", doc, b.out.Epoch(), revision, n)
}

func told(id string) outbox.Fact { return outbox.Tell(&certificatev1.Deleted{CertificateId: id}) }

func unavailable([]docstore.Entry) error {
	return errs.New(errs.Unavailable, "BUS_UNAVAILABLE", "no bus")
}

func TestFactsOfADocumentLeaveInTheOrderOfItsRevisionsWhoeverSaves(t *testing.T) {
	b := newBench(t, func(b *bench, _ *outbox.Config) {
		b.store = faulty.New(memory.New(b.clk), faulty.Faults{After: func(faulty.Op, string) error {
			for range rand.IntN(50) { // the answer of the store comes late to some
				runtime.Gosched()
			}
			return nil
		}})
	})
	b.run()
	const docs, writers, writes = 3, 8, 40
	for d := range docs {
		b.insert(fmt.Sprintf("d%d", d), told("x"))
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range writes {
				_, err := b.coll.Change(t.Context(), fmt.Sprintf("d%d", (n+w)%docs), func(doc *docstore.Doc[thing]) ([]outbox.Fact, error) {
					return []outbox.Fact{told(doc.ID), told(doc.ID)}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, b.out.Flush(t.Context()))
	var want, got [docs][]string
	for d := range docs {
		id := fmt.Sprintf("d%d", d)
		doc, err := b.coll.Get(t.Context(), id)
		require.NoError(t, err)
		want[d] = append(want[d], b.msgID(id, 1, 0))
		for r := 2; r <= int(doc.Revision); r++ {
			want[d] = append(want[d], b.msgID(id, r, 0), b.msgID(id, r, 1))
		}
		for _, m := range b.bus.published() {
			if strings.HasPrefix(m, id+"-") {
				got[d] = append(got[d], m)
			}
		}
	}
	require.Empty(t, cmp.Diff(want, got), "each once, in order")
}

func TestWhileTheBusIsAwayItIsAskedSeldomAndNothingIsLost(t *testing.T) {
	b := newBench(t)
	b.bus.refuses(unavailable)
	stop := b.run()
	var want []string
	for n := range 300 {
		id := fmt.Sprintf("d%03d", n)
		b.insert(id, told(id))
		want = append(want, b.msgID(id, 1, 0))
	}
	testkit.Eventually(t, func() bool { return b.bus.tried() > 0 }, "the relay tries")
	before := b.bus.tried()
	for n := range 300 { // each write wakes the relay
		b.insert(fmt.Sprintf("e%03d", n))
		id := fmt.Sprintf("f%03d", n)
		b.insert(id, told(id))
		want = append(want, b.msgID(id, 1, 0))
	}
	require.LessOrEqual(t, b.bus.tried()-before, 1, "no try a write")

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.out.Flush(short), context.DeadlineExceeded)

	b.bus.refuses(nil)
	b.clk.Advance(5 * time.Second)
	require.NoError(t, b.out.Flush(t.Context()))
	require.Empty(t, cmp.Diff(want, b.bus.published()))
	stop()
	require.Empty(t, b.left(), "cleared at the end")
}

func TestAnEntryThatCanNeverBeSentHoldsUpNobody(t *testing.T) {
	b := newBench(t)
	b.bus.refuses(func(entries []docstore.Entry) error {
		if slices.ContainsFunc(entries, func(e docstore.Entry) bool { return strings.HasPrefix(e.ID, "bad") }) {
			return errs.New(errs.Invalid, "EVENT_TOO_LARGE", "too large")
		}
		return nil
	})
	var want []string
	for n := range 40 {
		id := fmt.Sprintf("d%02d", n)
		if n == 17 || n == 30 {
			id = "bad" + id
		} else {
			want = append(want, b.msgID(id, 1, 0))
		}
		b.insert(id, told(id))
	}
	b.run()
	require.NoError(t, b.out.Flush(t.Context()))
	require.Empty(t, cmp.Diff(want, b.bus.published()))
	bad := []string{b.msgID("badd17", 1, 0), b.msgID("badd30", 1, 0)}
	testkit.Passes(t, b.clk, time.Second, func() bool { return slices.Equal(bad, b.left()) }, "the good ones are cleared, the bad ones stay")
	tried := b.bus.tried()
	for range 20 {
		b.clk.Advance(time.Second)
	}
	b.insert("last", told("last"))
	require.NoError(t, b.out.Flush(t.Context()))
	require.Equal(t, tried+1, b.bus.tried(), "the bad ones are not tried again")
}

func TestAuditEntriesThatWaitDoNotHoldUpFacts(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	var mu sync.Mutex
	var audited []string
	release := make(chan struct{})
	b := newBench(t, func(_ *bench, c *outbox.Config) {
		c.Audit = func(ctx context.Context, entries []docstore.Entry) error {
			if down.Load() {
				select { // an identity that does not answer
				case <-release:
				case <-ctx.Done():
				}
				return errs.New(errs.Timeout, "", "no answer")
			}
			records, err := outbox.Records(entries)
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				audited = append(audited, r.Actor+" "+r.Method+" "+r.Subject)
			}
			return err
		}
	})
	b.run()
	ctx := outbox.WithCall(t.Context(), "token:t", "/x/Create")
	for _, id := range []string{"a", "b"} { // the first write of a call alone is audited
		require.NoError(t, b.coll.Insert(ctx, &docstore.Doc[thing]{Meta: docstore.Meta{ID: id, Team: "default"}}, told(id)))
	}
	require.NoError(t, b.coll.Insert(outbox.WithoutCall(ctx), &docstore.Doc[thing]{Meta: docstore.Meta{ID: "c", Team: "default"}}, told("c")))
	testkit.Eventually(t, func() bool { return len(b.bus.published()) == 3 }, "the facts are sent")
	audit := "a-" + b.out.Epoch() + "-1-audit"
	testkit.Passes(t, b.clk, time.Second, func() bool { return slices.Equal([]string{audit}, b.left()) }, "the facts are cleared, the audit entry waits")

	down.Store(false)
	close(release)
	testkit.Passes(t, b.clk, time.Second, func() bool { return len(b.left()) == 0 }, "the audit entry is cleared on identity's yes")
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"token:t /x/Create a"}, slices.Compact(audited))
}

func TestAServiceWithoutAuditSinkMakesNoAuditEntries(t *testing.T) {
	b := newBench(t)
	doc := docstore.Doc[thing]{Meta: docstore.Meta{ID: "a", Team: "default"}}
	require.NoError(t, b.coll.Insert(outbox.WithCall(t.Context(), "token:t", "/x/Create"), &doc))
	require.Empty(t, b.left())
}

func TestSentEntriesAreClearedWhenTheBusCannotLoseThemAnyMoreEvenUnderLoad(t *testing.T) {
	b := newBench(t, func(b *bench, _ *outbox.Config) { b.bus.safe = 3 * time.Second })
	b.run()
	b.insert("first", told("first"))
	require.NoError(t, b.out.Flush(t.Context()))
	b.clk.Advance(2 * time.Second)
	require.Contains(t, b.left(), b.msgID("first", 1, 0))
	n := 0
	testkit.Passes(t, b.clk, 500*time.Millisecond, func() bool {
		n++
		b.insert(fmt.Sprintf("load%d", n), told("load")) // wakes the relay each time
		return !slices.Contains(b.left(), b.msgID("first", 1, 0))
	}, "cleared though the relay never rests")
	require.Equal(t, 1, len(slices.DeleteFunc(b.bus.published(), func(m string) bool { return m != b.msgID("first", 1, 0) })), "sent once")
}

func TestANewStreamGetsEverythingNotClearedOnceMoreInOrder(t *testing.T) {
	b := newBench(t, func(b *bench, _ *outbox.Config) { b.bus.safe = time.Minute })
	b.run()
	var want []string
	for n := range 30 {
		id := fmt.Sprintf("d%02d", n)
		b.insert(id, told(id))
		want = append(want, b.msgID(id, 1, 0))
	}
	require.NoError(t, b.out.Flush(t.Context()))
	b.bus.mu.Lock()
	b.bus.got = nil
	b.bus.mu.Unlock()

	// A batch is in hand when the stream is lost: the bus took it, and forgot it.
	var once sync.Once
	b.bus.refuses(func(entries []docstore.Entry) error {
		once.Do(func() {
			for _, f := range b.bus.newStream {
				f()
			}
		})
		return nil
	})
	b.insert("d99", told("d99"))
	want = append(want, b.msgID("d99", 1, 0))
	require.NoError(t, b.out.Flush(t.Context()))
	got := b.bus.published()
	require.Equal(t, b.msgID("d99", 1, 0), got[0], "the old stream's")
	require.Empty(t, cmp.Diff(want, got[1:]), "the new stream's")
}

func TestWhatACrashLeftIsSentByASweep(t *testing.T) {
	b := newBench(t) // never runs: it is the crashed one
	b.insert("old", told("old"), told("old"))
	other := newBench(t, func(o *bench, _ *outbox.Config) { o.store, o.clk, o.bus.safe = b.store, b.clk, time.Hour })
	other.insert("own", told("own")) // the sweep sees it, and must not send it twice
	stop := other.run()
	require.NoError(t, other.out.Flush(t.Context()))
	require.Equal(t, []string{b.msgID("own", 1, 0)}, other.bus.published())
	testkit.Passes(t, other.clk, time.Second, func() bool { return len(other.bus.published()) >= 3 }, "the sweep finds what was left")
	for range 30 {
		b.clk.Advance(time.Second)
		runtime.Gosched()
	}
	stop()
	require.Equal(t, []string{b.msgID("own", 1, 0), b.msgID("old", 1, 0), b.msgID("old", 1, 1)}, other.bus.published())
}

func TestASweepSeesPastEntriesThatAreStuck(t *testing.T) {
	b := newBench(t)
	b.bus.refuses(func(entries []docstore.Entry) error {
		if slices.ContainsFunc(entries, func(e docstore.Entry) bool { return strings.HasPrefix(e.ID, "bad") }) {
			return errs.New(errs.Invalid, "EVENT_TOO_LARGE", "too large")
		}
		return nil
	})
	crashed := newBench(t, func(o *bench, _ *outbox.Config) { o.store, o.clk = b.store, b.clk })
	facts := make([]outbox.Fact, 1000)
	for i := range facts {
		facts[i] = told("bad")
	}
	b.insert("bad", facts...)
	crashed.insert("good", told("good"))
	b.run()
	testkit.Passes(t, b.clk, time.Second, func() bool { return slices.Contains(b.bus.published(), b.msgID("good", 1, 0)) }, "the good one is found")
}

func TestAWriteWhoseAnswerWasLostIsToldAllTheSame(t *testing.T) {
	var lose atomic.Bool
	b := newBench(t, func(b *bench, _ *outbox.Config) {
		b.store = faulty.New(memory.New(b.clk), faulty.Faults{After: func(op faulty.Op, _ string) error {
			if op == faulty.Update && lose.Swap(false) {
				return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "the answer was lost")
			}
			return nil
		}})
	})
	b.run()
	doc := b.insert("a")
	lose.Store(true)
	before := doc
	require.ErrorContains(t, b.coll.Save(t.Context(), &doc, told("a")), "the answer was lost")
	require.Empty(t, cmp.Diff(before, doc), "the document is as it was")
	require.Equal(t, errs.Conflict, errs.KindOf(b.coll.Save(t.Context(), &doc, told("a"))), "it was written")
	testkit.Passes(t, b.clk, time.Second, func() bool { return slices.Equal(b.bus.published(), []string{b.msgID("a", 2, 0)}) }, "the fact is found in the store")
}

func TestTheEndOfRunSendsWhatWaits(t *testing.T) {
	b := newBench(t)
	b.bus.refuses(unavailable)
	stop := b.run()
	b.insert("a", told("a"))
	testkit.Eventually(t, func() bool { return b.bus.tried() > 0 }, "the relay tries")
	b.bus.refuses(nil)
	stop() // the pause of the relay has not passed
	require.Equal(t, []string{b.msgID("a", 1, 0)}, b.bus.published())
	require.Empty(t, b.left())
}

func TestChange(t *testing.T) {
	b := newBench(t)
	b.insert("a")
	calls := 0
	doc, err := b.coll.Change(t.Context(), "a", func(d *docstore.Doc[thing]) ([]outbox.Fact, error) {
		if calls++; calls == 1 { // somebody else is quicker
			_, err := b.coll.Change(t.Context(), "a", func(d *docstore.Doc[thing]) ([]outbox.Fact, error) { d.Body.Note = "other"; return nil, nil })
			require.NoError(t, err)
		}
		d.Body.Note += "+mine"
		return []outbox.Fact{told("a")}, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, calls)
	require.Equal(t, "other+mine", doc.Body.Note)
	require.Equal(t, []string{b.msgID("a", 3, 0)}, b.left(), "the facts of the try that failed are told by nobody")

	writes := b.store.Writes()["things"]
	doc, err = b.coll.Change(t.Context(), "a", func(*docstore.Doc[thing]) ([]outbox.Fact, error) {
		return nil, fmt.Errorf("no: %w", outbox.ErrUnchanged)
	})
	require.NoError(t, err)
	require.Equal(t, int64(3), doc.Revision)
	own := errs.New(errs.Conflict, "MINE", "no")
	calls = 0
	_, err = b.coll.Change(t.Context(), "a", func(*docstore.Doc[thing]) ([]outbox.Fact, error) { calls++; return nil, own })
	require.ErrorIs(t, err, own)
	require.Equal(t, 1, calls, "an own conflict is an answer, not a race")
	_, err = b.coll.Change(t.Context(), "none", func(*docstore.Doc[thing]) ([]outbox.Fact, error) { return nil, nil })
	require.Equal(t, errs.NotFound, errs.KindOf(err))
	require.Equal(t, writes, b.store.Writes()["things"], "nothing was written")
}

func TestInsertRefusesADocumentWithoutIDOrTeam(t *testing.T) {
	b := newBench(t)
	for _, m := range []docstore.Meta{{Team: "default"}, {ID: "a"}} {
		require.Error(t, b.coll.Insert(t.Context(), &docstore.Doc[thing]{Meta: m}))
	}
	b.insert("a")
	require.Equal(t, errs.AlreadyExists, errs.KindOf(b.coll.Insert(t.Context(), &docstore.Doc[thing]{Meta: docstore.Meta{ID: "a", Team: "x"}})))
}

func TestAnAwaitedFactIsToldAgainEverLessOftenUntilItIsAnswered(t *testing.T) {
	b := newBench(t)
	b.run()
	doc := b.insert("a", outbox.Await("work", &certificatev1.Deleted{CertificateId: "a"}), outbox.Keep("answer", &certificatev1.Deleted{}), told("a"))
	require.Equal(t, start.Add(time.Minute), doc.DueAt)
	require.Equal(t, clock.Never, doc.WorkAt)
	require.True(t, outbox.Awaits(doc.Meta, "work"))
	require.False(t, outbox.Awaits(doc.Meta, "answer"))

	claim := func() bool {
		t.Helper()
		claimed, err := b.coll.Claim(t.Context(), &doc, "lease", time.Minute)
		require.NoError(t, err)
		return claimed
	}
	require.False(t, claim())
	require.Equal(t, int64(1), doc.Revision, "too early: nothing is written")
	want := b.bus.published
	for k, wait := range []time.Duration{time.Minute, 3 * time.Minute, 9 * time.Minute, 27 * time.Minute, time.Hour, time.Hour} {
		require.Equal(t, b.clk.Now().Add(wait), doc.DueAt, "repeat %d", k+1)
		b.clk.Advance(wait)
		require.False(t, claim(), "there is no work, only something to say")
		require.Empty(t, doc.LeaseToken)
		require.True(t, doc.DueAt.After(b.clk.Now()), "or the worker would spin")
		require.NoError(t, b.out.Flush(t.Context()))
		require.Equal(t, fmt.Sprintf("%s~%d", b.msgID("a", 1, 0), k+1), want()[len(want())-1])
	}
	require.Equal(t, 1, outbox.Unanswered(doc.Meta))
	b.bus.mu.Lock()
	first, last := b.bus.got[0], b.bus.got[len(b.bus.got)-1]
	b.bus.mu.Unlock()
	require.Equal(t, first.ID, last.ID)
	require.Empty(t, cmp.Diff(first.Headers, last.Headers), "id, time and revision stay")

	stored := doc
	require.True(t, outbox.Answered(&doc.Meta, "work"))
	require.False(t, outbox.Answered(&doc.Meta, "work"), "once")
	require.True(t, outbox.Awaits(stored.Meta, "work"), "a copy is not touched")
	require.NoError(t, b.coll.Save(t.Context(), &doc))
	require.Equal(t, clock.Never, doc.DueAt)
	require.Zero(t, outbox.Unanswered(doc.Meta))

	again, err := b.coll.TellAgain(t.Context(), doc, "answer")
	require.NoError(t, err)
	require.True(t, again)
	require.Contains(t, want()[len(want())-1], b.msgID("a", 1, 1)+"~a")
	again, err = b.coll.TellAgain(t.Context(), doc, "nothing")
	require.NoError(t, err)
	require.False(t, again)
	outbox.Forget(&doc.Meta, func(natural string) bool { return natural == "answer" })
	require.Len(t, doc.Kept, 1)
}

func TestAClaim(t *testing.T) {
	for _, c := range []struct {
		name    string
		meta    docstore.Meta
		token   string
		claimed bool
		writes  int
	}{
		{"takes what is due", docstore.Meta{WorkAt: start}, "me", true, 1},
		{"leaves what is not due", docstore.Meta{WorkAt: start.Add(time.Second)}, "me", false, 0},
		{"leaves what another holds", docstore.Meta{WorkAt: start, LeaseToken: "you", LeaseUntil: start.Add(time.Second)}, "me", false, 0},
		{"takes what another held", docstore.Meta{WorkAt: start, LeaseToken: "you", LeaseUntil: start}, "me", true, 1},
		{"knows its own, whose answer was lost", docstore.Meta{WorkAt: start, LeaseToken: "me", LeaseUntil: start.Add(time.Second)}, "me", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			c.meta.ID, c.meta.Team = "a", "default"
			doc := docstore.Doc[thing]{Meta: c.meta}
			require.NoError(t, b.coll.Insert(t.Context(), &doc))
			before := b.store.Writes()["things"]
			claimed, err := b.coll.Claim(t.Context(), &doc, c.token, time.Minute)
			require.NoError(t, err)
			require.Equal(t, c.claimed, claimed)
			require.Equal(t, c.writes, b.store.Writes()["things"]-before)
			if c.writes > 0 {
				require.Equal(t, start.Add(time.Minute), doc.LeaseUntil)
				require.Equal(t, c.token, doc.LeaseToken)
			}
		})
	}
}

func TestAnOldDocumentCannotBeClaimed(t *testing.T) {
	b := newBench(t)
	doc := docstore.Doc[thing]{Meta: docstore.Meta{ID: "a", Team: "default", WorkAt: start}}
	require.NoError(t, b.coll.Insert(t.Context(), &doc))
	old := doc
	require.NoError(t, b.coll.Save(t.Context(), &doc))
	_, err := b.coll.Claim(t.Context(), &old, "me", time.Minute)
	require.Equal(t, errs.Conflict, errs.KindOf(err))
}

func TestTheWorkerIsToldWhenADocumentIsDueForIt(t *testing.T) {
	b := newBench(t)
	var told []time.Time
	b.coll.Watch(func(_ string, at time.Time) { told = append(told, at) }, nil)
	doc := docstore.Doc[thing]{Meta: docstore.Meta{ID: "a", Team: "default"}}
	require.NoError(t, b.coll.Insert(t.Context(), &doc))
	require.Empty(t, told, "never due")
	doc.WorkAt = start
	require.NoError(t, b.coll.Save(t.Context(), &doc))
	claimed, err := b.coll.Claim(t.Context(), &doc, "me", time.Minute)
	require.NoError(t, err)
	require.True(t, claimed)
	require.Equal(t, []time.Time{start, start.Add(time.Minute)}, told, "a claimed one is due for others when its lease ends")
}

func TestPostponeTouchesOnlyWhatIsAwaited(t *testing.T) {
	b := newBench(t)
	m := &certificatev1.Deleted{}
	doc := b.insert("a", outbox.Await("y", m), outbox.Keep("z", m))
	outbox.Postpone(&doc.Meta, "y", start.Add(time.Hour))
	outbox.Postpone(&doc.Meta, "z", start)
	require.NoError(t, b.coll.Save(t.Context(), &doc))
	require.Equal(t, start.Add(time.Hour), doc.DueAt)
}

func TestDueListsWhatIsDueEvenWhatCannotBeDecoded(t *testing.T) {
	b := newBench(t)
	for n, at := range []time.Time{start.Add(time.Second), start, start.Add(-time.Second)} {
		doc := docstore.Doc[thing]{Meta: docstore.Meta{ID: fmt.Sprintf("d%d", n), Team: "default", WorkAt: at}}
		require.NoError(t, b.coll.Insert(t.Context(), &doc))
	}
	other := testkit.Open[struct {
		Note int `bson:"note"`
	}](t, b.out, docstore.Spec{Name: "things"})
	due, err := other.Due(t.Context(), start, 10)
	require.NoError(t, err)
	require.Len(t, due, 2)
	require.Equal(t, "d2", due[0].ID)
	require.Equal(t, "d1", due[1].ID)
}

func TestAllThatMatchesIsRemovedButWhatHasAnOutbox(t *testing.T) {
	b := newBench(t)
	for i := range 1100 { // more than two pages
		b.insert(fmt.Sprintf("old-%04d", i))
	}
	b.insert("old-telling", outbox.Tell(&certificatev1.Deleted{CertificateId: "old-telling"}))
	b.clk.Advance(time.Hour)
	b.insert("young")
	require.NoError(t, b.coll.RemoveAll(t.Context(), docstore.Cond{Field: "changed_at", Op: docstore.Lt, Value: b.clk.Now()}))
	left, err := b.coll.Find(t.Context(), docstore.Query{})
	require.NoError(t, err)
	var ids []string
	for _, d := range left.Docs {
		ids = append(ids, d.ID)
	}
	require.ElementsMatch(t, []string{"old-telling", "young"}, ids)
}

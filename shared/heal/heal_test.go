package heal_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/memory"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/heal"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type thing struct {
	Note string `bson:"note"`
}

type bench struct {
	t    *testing.T
	clk  *clock.Fake
	coll *outbox.Collection[thing]
}

func newBench(t *testing.T) *bench {
	t.Helper()
	clk := clock.NewFake(start)
	out := outbox.New(outbox.Config{Store: memory.New(clk), Bus: testkit.Silent{}, Source: "test", Clock: clk, Logger: testkit.Logger(t)})
	return &bench{t: t, clk: clk, coll: testkit.Open[thing](t, out, docstore.Spec{Name: "things"})}
}

func (b *bench) insert(ids ...string) {
	for _, id := range ids {
		require.NoError(b.t, b.coll.Insert(b.t.Context(), &docstore.Doc[thing]{Meta: docstore.Meta{ID: id, Team: "default"}}))
	}
}

func (b *bench) touch(id string) {
	_, err := b.coll.Change(b.t.Context(), id, func(*docstore.Doc[thing]) ([]outbox.Fact, error) { return nil, nil })
	require.NoError(b.t, err)
}

// read reads page after page until there are no more; restarts counts the pages that said so.
func (b *bench) read(epoch, cursor string, limit int) (ids []string, next string, restarts int) {
	b.t.Helper()
	for pages := 0; ; pages++ {
		require.Less(b.t, pages, 50, "the reading does not end")
		docs, n, more, restarted, err := heal.Changes(b.t.Context(), b.coll, epoch, cursor, limit)
		require.NoError(b.t, err)
		for _, d := range docs {
			ids = append(ids, d.ID)
		}
		if restarted {
			restarts++
		}
		if cursor = n; !more {
			return ids, cursor, restarts
		}
	}
}

func TestChangesArePagedByTheMomentOfTheChange(t *testing.T) {
	b := newBench(t)
	b.insert("d5", "d1", "d3", "d2", "d4") // all of one moment
	b.clk.Advance(time.Hour)
	b.insert("d0")
	b.touch("d3")
	for limit := range 7 {
		ids, cursor, restarts := b.read("e", "", limit)
		require.Empty(t, cmp.Diff([]string{"d1", "d2", "d4", "d5", "d0", "d3"}, ids), "limit %d", limit)
		require.Zero(t, restarts)
		ids, _, _ = b.read("e", cursor, limit)
		require.Empty(t, cmp.Diff([]string{"d0", "d3"}, ids), "what changed in the overlap comes again")
	}
}

func TestACursorCostsWhatChanged(t *testing.T) {
	b := newBench(t)
	b.insert("a", "b", "c")
	_, cursor, _ := b.read("e", "", 0)
	b.clk.Advance(heal.Overlap + time.Second)
	b.touch("b")
	ids, cursor, _ := b.read("e", cursor, 0)
	require.Equal(t, []string{"a", "b", "c"}, sorted(ids), "the first reading was at the moment of the change")
	b.clk.Advance(heal.Overlap + time.Second)
	ids, cursor, _ = b.read("e", cursor, 0)
	require.Equal(t, []string{"b"}, ids)
	for range 40 { // nothing changes for longer than VoidAfter, and the reader comes every day
		b.clk.Advance(24 * time.Hour)
		var restarts int
		ids, cursor, restarts = b.read("e", cursor, 0)
		require.Empty(t, ids)
		require.Zero(t, restarts, "who kept reading need not start over")
	}
}

func sorted(ids []string) []string {
	set := map[string]bool{}
	for _, id := range ids {
		set[id] = true
	}
	var all []string
	for _, id := range []string{"a", "b", "c"} {
		if set[id] {
			all = append(all, id)
		}
	}
	return all
}

func TestAVoidCursorReadsEverythingAndSaysSoOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		epoch  string
		mangle func(string) string
		wait   time.Duration
	}{
		{"of another epoch", "e2", func(s string) string { return s }, 0},
		{"of someone who was away for too long", "e", func(s string) string { return s }, heal.VoidAfter + time.Second},
		{"that is garbage", "e", func(string) string { return "?" }, 0},
		{"that is base64 garbage", "e", func(string) string { return "YWFhYQ" }, 0},
		{"that was cut", "e", func(s string) string { return s[:len(s)-20] }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.insert("a", "b", "c")
			b.clk.Advance(time.Hour)
			_, cursor, _ := b.read("e", "", 0)
			b.clk.Advance(c.wait)
			ids, _, restarts := b.read(c.epoch, c.mangle(cursor), 2)
			require.Equal(t, []string{"a", "b", "c"}, ids)
			require.Equal(t, 1, restarts)
		})
	}
}

func TestACursorInTheMiddleOfAReadingThatBecameVoidStartsOver(t *testing.T) {
	b := newBench(t)
	b.insert("a", "b", "c")
	_, cursor, more, _, err := heal.Changes(t.Context(), b.coll, "e", "", 2)
	require.NoError(t, err)
	require.True(t, more)
	b.clk.Advance(heal.VoidAfter + time.Second)
	ids, _, restarts := b.read("e", cursor, 0)
	require.Equal(t, []string{"a", "b", "c"}, ids)
	require.Equal(t, 1, restarts)
}

type owner struct {
	mu    sync.Mutex
	asked []string // the time since start, and the cursor
	clk   *clock.Fake
	reply func(n int, cursor string) (heal.Page, error)
}

func (o *owner) read(_ context.Context, cursor string) (heal.Page, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, fmt.Sprintf("%s %q", o.clk.Now().Sub(start), cursor))
	return o.reply(len(o.asked), cursor)
}

func (o *owner) calls() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.asked...)
}

func runReader(t *testing.T, o *owner) *heal.Reader {
	t.Helper()
	o.clk = clock.NewFake(start)
	r := &heal.Reader{Name: "test", Clock: o.clk, Logger: testkit.Logger(t), Every: time.Minute, Read: o.read, Now: make(chan struct{}, 1)}
	testkit.Run(t, r.Run)
	return r
}

func TestAReaderGoesOnFromItsCursor(t *testing.T) {
	o := &owner{reply: func(n int, _ string) (heal.Page, error) {
		return heal.Page{Next: fmt.Sprint("c", n), More: n == 1}, nil
	}}
	r := runReader(t, o)
	testkit.Eventually(t, func() bool { return len(o.calls()) == 2 }, "all pages at once")
	r.Poke()
	testkit.Eventually(t, func() bool { return len(o.calls()) == 3 }, "a poke reads at once")
	require.Equal(t, []string{`0s ""`, `0s "c1"`, `0s "c2"`}, o.calls())
	testkit.Passes(t, o.clk, 10*time.Second, func() bool { return len(o.calls()) >= 4 }, "a fourth call")
	require.GreaterOrEqual(t, o.clk.Now().Sub(start), time.Minute)
}

func TestAReaderThatFailsDoesNotSpin(t *testing.T) {
	for name, reply := range map[string]func(int, string) (heal.Page, error){
		"the owner is away":        func(int, string) (heal.Page, error) { return heal.Page{}, errs.New(errs.Unavailable, "", "away") },
		"the owner fails":          func(int, string) (heal.Page, error) { return heal.Page{}, errs.New(errs.Internal, "", "bug") },
		"the owner's cursor stays": func(int, string) (heal.Page, error) { return heal.Page{More: true}, nil },
		"the owner is away between pages": func(n int, _ string) (heal.Page, error) {
			if n == 1 {
				return heal.Page{Next: "c", More: true}, nil
			}
			return heal.Page{}, errs.New(errs.Unavailable, "", "away")
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &owner{reply: reply}
			r := runReader(t, o)
			testkit.Eventually(t, func() bool { return len(o.calls()) >= 1 }, "asked")
			for range 10 {
				r.Poke() // must not make it spin
			}
			testkit.Passes(t, o.clk, 500*time.Millisecond, func() bool { return len(o.calls()) >= 4 }, "a fourth call")
			calls := len(o.calls())
			require.LessOrEqual(t, calls, 2+int(o.clk.Now().Sub(start)/(2*time.Second)), "at least 2 s between two tries")
		})
	}
}

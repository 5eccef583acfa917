package docstoretest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

func roundTrip(e *env) {
	maybe := "perhaps"
	d := widget(1, func(d *docstore.Doc[Widget]) {
		d.Tombstone, d.LeaseToken = true, "token"
		d.Kept = []docstore.Kept{{
			Key: "accepted", Await: true, Times: 3, NextAt: start,
			Entry: docstore.Entry{ID: "a-1", Kind: docstore.EntryEvent, Subject: "s", Headers: map[string]string{"ce-id": "a-1"}, Data: []byte{0, 1, 255}, At: start},
		}}
		d.Orphans = []docstore.Orphan{{Kind: "order", Ref: "https://ca/1", At: start}}
		d.Body.Size, d.Body.Small, d.Body.Active, d.Body.Maybe = 1<<40, 7, true, &maybe
		d.Body.Tags = []string{"b", "a", "b"}
		d.Body.Labels = map[string]string{"x": "ü\n"}
		d.Body.Parts = []Part{{Data: []byte("x"), When: start, Empty: "not"}, {}}
	})
	e.insert(d)
	require.Empty(e, diff(d, e.get(d.ID)))
	require.Equal(e, time.UTC, e.get(d.ID).Body.At.Location())
}

func emptyBody(e *env) {
	d := widget(1)
	d.Meta.DueAt, d.Body = time.Time{}, Widget{Key: "k"}
	e.insert(d)
	got := e.get(d.ID)
	require.Empty(e, diff(d, got))
	require.True(e, got.DueAt.IsZero())
	require.NotNil(e, got.Body.Tags, "a nil slice is stored as an empty array")
	require.NotNil(e, got.Body.Labels, "a nil map is stored as an empty document")
}

func update(e *env) {
	d := widget(1, func(d *docstore.Doc[Widget]) { d.Body.Tags, d.Body.State = []string{"a", "b"}, "new" })
	e.insert(d)
	for i := range 3 {
		d.Body.State = fmt.Sprintf("state-%d", i)
		d.Body.Tags = []string{"b", fmt.Sprint("t", i)}
		require.NoError(e, save(e, &d))
		require.Empty(e, diff(d, e.get(d.ID)))
	}
	require.EqualValues(e, 4, e.get(d.ID).Revision)
	require.Equal(e, numbers(1), e.ids(where(cond("state", docstore.Eq, "state-2"))))
	require.Empty(e, e.ids(where(cond("state", docstore.Eq, "new"))), "the index follows the document")
	require.Equal(e, numbers(1), e.ids(where(cond("tags", docstore.Has, "b"))))
	require.Empty(e, e.ids(where(cond("tags", docstore.Has, "a"))), "the array index follows the document")
	require.Empty(e, e.ids(where(cond("tags", docstore.Has, "t1"))), "the array index follows the document")
	d.Body.Tags = nil
	require.NoError(e, save(e, &d))
	require.Empty(e, e.ids(where(cond("tags", docstore.Has, "b"))))
}

func writeErrors(e *env) {
	d := widget(1)
	e.insert(d)
	_, err := e.s.Get(e.ctx, "widgets", "wid_other")
	e.requireErr(err, errs.NotFound, "DOCUMENT_NOT_FOUND")
	again := widget(1, func(d *docstore.Doc[Widget]) { d.Body.Key = "another" })
	e.requireErr(e.insertErr(again), errs.AlreadyExists, "DUPLICATE_ID")
	e.requireErr(e.insertErr(widget(1)), errs.AlreadyExists, "DUPLICATE_ID") // a repeated insert, before any unique index
	gone := widget(2)
	e.requireErr(save(e, &gone), errs.NotFound, "DOCUMENT_NOT_FOUND")
	stale := d
	require.NoError(e, save(e, &d))
	e.requireErr(save(e, &stale), errs.Conflict, "REVISION_CONFLICT")
	ahead := d
	ahead.Revision = 7
	e.requireErr(save(e, &ahead), errs.Conflict, "REVISION_CONFLICT")
	same, err := docstore.Encode(&d)
	require.NoError(e, err)
	e.requireErr(e.s.Update(e.ctx, "widgets", d.Revision, same, nil), errs.Invalid, "BAD_DOCUMENT")
	for name, raw := range map[string]docstore.Raw{"nothing": nil, "noise": []byte("noise"), "an empty document": {5, 0, 0, 0, 0}} {
		e.requireErr(e.s.Insert(e.ctx, "widgets", raw, nil), errs.Invalid, "BAD_DOCUMENT")
		e.requireErr(e.s.Update(e.ctx, "widgets", 1, raw, nil), errs.Invalid, "BAD_DOCUMENT")
		e.Log("refused:", name)
	}
	require.Empty(e, diff(d, e.get(d.ID)), "what failed changed nothing")
}

func remove(e *env) {
	d := widget(1, func(d *docstore.Doc[Widget]) { d.Body.Tags = []string{"a"} })
	raw, err := docstore.Encode(&d)
	require.NoError(e, err)
	require.NoError(e, e.s.Insert(e.ctx, "widgets", raw, []docstore.Entry{entry("1")}))
	e.requireErr(e.s.Remove(e.ctx, "widgets", "wid_other", 1), errs.NotFound, "DOCUMENT_NOT_FOUND")
	e.requireErr(e.s.Remove(e.ctx, "widgets", d.ID, 2), errs.Conflict, "REVISION_CONFLICT")
	e.requireErr(e.s.Remove(e.ctx, "widgets", d.ID, 1), errs.Conflict, "OUTBOX_PENDING")
	pending := e.pending(later)
	require.Len(e, pending, 1)
	require.NoError(e, e.s.Clear(e.ctx, pending))
	require.NoError(e, e.s.Remove(e.ctx, "widgets", d.ID, 1))
	_, err = e.s.Get(e.ctx, "widgets", d.ID)
	e.requireErr(err, errs.NotFound, "DOCUMENT_NOT_FOUND")
	require.Empty(e, e.ids(where(cond("tags", docstore.Has, "a"))))
	require.Empty(e, e.ids(where()))
	e.insert(widget(1))
}

func unique(e *env) {
	first, second := widget(1), widget(2)
	e.insert(first, second)
	third := widget(3, func(d *docstore.Doc[Widget]) { d.Body.Key = first.Body.Key })
	err := e.insertErr(third)
	e.requireErr(err, errs.AlreadyExists, "DUPLICATE_KEY")
	require.Equal(e, "key", errs.As(err).Meta["index"])
	changed := second
	changed.Body.Key = first.Body.Key
	err = save(e, &changed)
	e.requireErr(err, errs.AlreadyExists, "DUPLICATE_KEY")
	require.Equal(e, "key", errs.As(err).Meta["index"])
	require.Empty(e, diff(second, e.get(second.ID)), "what failed changed nothing")
	first.Body.Key = "free"
	require.NoError(e, save(e, &first))
	require.NoError(e, save(e, &changed), "the value is free again")
	lacking := docstore.Doc[struct{}]{Meta: widget(4).Meta}
	raw, err := docstore.Encode(&lacking)
	require.NoError(e, err)
	e.requireErr(e.s.Insert(e.ctx, "widgets", raw, nil), errs.Invalid, "BAD_DOCUMENT")
}

// older is Widget as a program one version behind knows it.
type older struct {
	Name  string `bson:"name"`
	State string `bson:"state"`
}

func unknownFields(e *env) {
	d := widget(1, func(d *docstore.Doc[Widget]) {
		d.Body.Note, d.Body.Size, d.Body.Tags = "keep me", 5, []string{"a"}
		d.Body.Labels = map[string]string{"x": "y"}
	})
	e.insert(d)
	raw, err := e.s.Get(e.ctx, "widgets", d.ID)
	require.NoError(e, err)
	old, err := docstore.Decode[older](raw)
	require.NoError(e, err)
	old.Body.State, old.Body.Name = "changed", "renamed"
	require.NoError(e, save(e, &old))
	want := d
	want.Meta, want.Body.State, want.Body.Name = old.Meta, "changed", "renamed"
	require.Empty(e, diff(want, e.get(d.ID)))
	require.Equal(e, numbers(1), e.ids(where(cond("state", docstore.Eq, "changed"), cond("size", docstore.Gte, int64(5)))))
	require.Equal(e, numbers(1), e.ids(where(cond("tags", docstore.Has, "a"), cond("name", docstore.Eq, "renamed"))))
	require.Equal(e, numbers(1), e.ids(where(cond("key", docstore.Eq, d.Body.Key))))
}

var later = start.Add(1000 * time.Hour)

func entry(id string) docstore.Entry {
	return docstore.Entry{
		ID: id, MsgID: id, Kind: docstore.EntryEvent, Subject: "certwright.events.widget.made." + id,
		Headers: map[string]string{"ce-id": id}, Data: []byte("data of " + id), At: start,
	}
}

func (e *env) pending(before time.Time) []docstore.Pending {
	e.Helper()
	all, err := e.s.Outbox(e.ctx, before, 1000)
	require.NoError(e, err)
	return all
}

func told(pending []docstore.Pending) []string {
	all := []string{}
	for _, p := range pending {
		all = append(all, p.DocID[len(p.DocID)-1:]+"/"+p.Entry.MsgID)
	}
	return all
}

func outbox(e *env) {
	other := docstore.Spec{Name: "gadgets"}
	require.NoError(e, e.s.Ensure(e.ctx, other))
	require.Empty(e, e.pending(later))
	first, second, third := widget(1), widget(2), widget(3)
	insert := func(collection string, d docstore.Doc[Widget], entries ...docstore.Entry) {
		raw, err := docstore.Encode(&d)
		require.NoError(e, err)
		require.NoError(e, e.s.Insert(e.ctx, collection, raw, entries))
	}
	insert("widgets", first, entry("a"), entry("b"))
	insert("gadgets", second, entry("c"))
	insert("widgets", third)
	first.ChangedAt = start.Add(10 * time.Second)
	require.NoError(e, save(e, &first, entry("d"), entry("e")))
	third.ChangedAt = start.Add(20 * time.Second)
	again := entry("a")
	again.MsgID = "a~1"
	require.NoError(e, save(e, &third, again))

	all := e.pending(later)
	require.Equal(e, []string{"1/a", "1/b", "1/d", "1/e", "2/c", "3/a~1"}, told(all))
	require.Empty(e, diff(docstore.Pending{Collection: "gadgets", DocID: second.ID, Entry: entry("c")}, all[4]))
	require.Empty(e, diff(first, e.get(first.ID)), "the outbox is not part of the body")
	require.Equal(e, []string{"1/a", "1/b", "2/c"}, told(e.pending(start.Add(5*time.Second))), "only what is old enough")
	require.Empty(e, e.pending(start.Add(time.Second)), "an entry of that very moment is not before it")
	some, err := e.s.Outbox(e.ctx, later, 3)
	require.NoError(e, err)
	require.Len(e, some, 3)
	require.Equal(e, []string{"1/a", "1/b"}, told(some)[:2], "the oldest document's leading entries")

	// What stays keeps its order; a fact told again is an entry of its own.
	require.NoError(e, e.s.Clear(e.ctx, []docstore.Pending{all[0], all[2], all[4]}))
	require.Equal(e, []string{"1/b", "1/e", "3/a~1"}, told(e.pending(later)))
	require.Equal(e, []string{"1/b"}, told(e.pending(start.Add(5*time.Second))))
	first.ChangedAt = start.Add(30 * time.Second)
	require.NoError(e, save(e, &first, entry("f")))
	require.Equal(e, []string{"1/b", "1/e", "1/f", "3/a~1"}, told(e.pending(later)))
	require.NoError(e, e.s.Clear(e.ctx, all), "what is gone already is no error")
	require.Equal(e, []string{"1/f"}, told(e.pending(later)))
	require.NoError(e, e.s.Clear(e.ctx, e.pending(later)))
	require.Empty(e, e.pending(later))
	require.NoError(e, e.s.Clear(e.ctx, nil))
	require.NoError(e, e.s.Clear(e.ctx, []docstore.Pending{{Collection: "widgets", DocID: "wid_other", Entry: entry("x")}}))
	require.Empty(e, diff(first, e.get(first.ID)), "clearing does not touch the document")

	// A failed write adds nothing.
	stale := first
	stale.Revision = 1
	require.Error(e, save(e, &stale, entry("g")))
	require.Empty(e, e.pending(later))
}

// Racers is the case of twenty writers at one revision; see RaceOver for stores that share a file.
func Racers(e *env) { race(e.T, []docstore.Store{e.s}) }

// RaceOver lets twenty writers, spread over the stores, which all open the same data, race for each revision of one document.
func RaceOver(t *testing.T, stores ...docstore.Store) {
	t.Helper()
	for _, s := range stores {
		require.NoError(t, s.Ensure(context.Background(), Spec()))
	}
	race(t, stores)
}

func race(t *testing.T, stores []docstore.Store) {
	t.Helper()
	const writers, rounds = 20, 15
	ctx := context.Background()
	d := widget(1)
	raw, err := docstore.Encode(&d)
	require.NoError(t, err)
	require.NoError(t, stores[0].Insert(ctx, "widgets", raw, nil))
	for round := range rounds {
		guard := int64(round + 1)
		var wins atomic.Int32
		var winner atomic.Value
		var all sync.WaitGroup
		failures := make(chan error, writers)
		for w := range writers {
			all.Go(func() {
				mine := d
				mine.Revision = guard + 1
				mine.Body.Note = fmt.Sprintf("round %d writer %d", round, w)
				raw, err := docstore.Encode(&mine)
				if err == nil {
					err = stores[w%len(stores)].Update(ctx, "widgets", guard, raw, []docstore.Entry{entry(mine.Body.Note)})
				}
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store(mine.Body.Note)
				case errs.KindOf(err) != errs.Conflict:
					failures <- err
				}
			})
		}
		all.Wait()
		close(failures)
		for err := range failures {
			require.NoError(t, err)
		}
		require.EqualValues(t, 1, wins.Load(), "round %d", round)
		for _, s := range stores {
			raw, err := s.Get(ctx, "widgets", d.ID)
			require.NoError(t, err)
			got, err := docstore.Decode[Widget](raw)
			require.NoError(t, err)
			require.Equal(t, guard+1, got.Revision)
			require.Equal(t, winner.Load(), got.Body.Note)
		}
	}
	pending, err := stores[0].Outbox(ctx, later, 1000)
	require.NoError(t, err)
	require.Len(t, pending, rounds, "one fact for each win, none for a loss")
}

func endedContext(e *env) {
	d := widget(1)
	e.insert(d)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := e.s.Get(ctx, "widgets", d.ID)
	e.requireErr(err, errs.Canceled, "")
	_, err = e.s.Find(ctx, "widgets", where())
	e.requireErr(err, errs.Canceled, "")
	other := widget(2)
	raw, err := docstore.Encode(&other)
	require.NoError(e, err)
	e.requireErr(e.s.Insert(ctx, "widgets", raw, nil), errs.Canceled, "")
	expired, stop := context.WithDeadline(context.Background(), start.AddDate(-10, 0, 0))
	defer stop()
	_, err = e.s.Get(expired, "widgets", d.ID)
	e.requireErr(err, errs.Timeout, "")
	require.Equal(e, numbers(1), e.ids(where()))
}

func closed(e *env) {
	e.insert(widget(1))
	require.NoError(e, e.s.Close())
	_, err := e.s.Get(e.ctx, "widgets", "wid_000001")
	e.requireErr(err, errs.Unavailable, "")
	e.requireErr(e.insertErr(widget(2)), errs.Unavailable, "")
	_, err = e.s.Outbox(e.ctx, later, 1)
	e.requireErr(err, errs.Unavailable, "")
	require.NoError(e, e.s.Close(), "closing twice is no error")
}

func reopening(e *env) {
	d := widget(1, func(d *docstore.Doc[Widget]) { d.Body.Tags = []string{"a"} })
	raw, err := docstore.Encode(&d)
	require.NoError(e, err)
	require.NoError(e, e.s.Insert(e.ctx, "widgets", raw, []docstore.Entry{entry("1")}))
	epoch := e.s.Epoch()
	require.Len(e, epoch, 26, "a ULID")
	e.s = e.can.Reopen(e.T, e.s)
	require.Equal(e, epoch, e.s.Epoch())
	require.NoError(e, e.s.Ensure(e.ctx, Spec()))
	require.Empty(e, diff(d, e.get(d.ID)))
	require.Equal(e, numbers(1), e.ids(where(cond("tags", docstore.Has, "a"))))
	require.Equal(e, []string{"1/1"}, told(e.pending(later)))
	require.NoError(e, save(e, &d))
}

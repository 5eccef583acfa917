// Package docstoretest is the conformance suite of docstore: every adapter passes it, so that a service tested on one runs on all.
package docstoretest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Capabilities say what can be asked of the server under an adapter. What is left out is said in the test's output.
type Capabilities struct {
	// Concurrent: updates are atomic under concurrency, and ten thousand documents are no burden.
	Concurrent bool
	// Reopen closes the store and opens it again; nil when it does not outlive its process.
	Reopen func(*testing.T, docstore.Store) docstore.Store
}

// Run runs the suite; open returns an empty store each time and closes it when the test ends.
func Run(t *testing.T, open func(*testing.T) docstore.Store, can Capabilities) {
	t.Helper()
	if !can.Concurrent {
		t.Log("NOT PROVEN HERE: concurrency (one revision, many writers; paging while inserting) and the limit of filtered rows;" +
			" proven: dialect, errors, paging, declaring of indexes, outbox")
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.concurrent && !can.Concurrent {
				t.Skip("the server under this adapter cannot be asked for this")
			}
			if c.reopens && can.Reopen == nil {
				t.Skip("the store does not outlive its process")
			}
			s := open(t)
			require.NoError(t, docstore.Check[Widget](Spec()))
			require.NoError(t, s.Ensure(context.Background(), Spec()))
			c.run(&env{T: t, ctx: context.Background(), s: s, can: can})
		})
	}
}

type suiteCase struct {
	name       string
	run        func(*env)
	concurrent bool
	reopens    bool
}

var cases = []suiteCase{
	{name: "a document comes back as it was inserted", run: roundTrip},
	{name: "an empty body comes back empty", run: emptyBody},
	{name: "an update replaces the document and moves its revision", run: update},
	{name: "writes that cannot succeed say why", run: writeErrors},
	{name: "a document is removed only at its revision and with an empty outbox", run: remove},
	{name: "a unique index names itself when it is violated", run: unique},
	{name: "an update by an older program keeps the fields it does not know, also in the indexes", run: unknownFields},
	{name: "conditions find what they say", run: conditions},
	{name: "queries without a fitting index and with bad values are refused", run: refusedQueries},
	{name: "pages follow each other without gap or repetition", run: paging},
	{name: "documents without the order field come first", run: missingOrder},
	{name: "a cursor from elsewhere is refused", run: cursors},
	{name: "a count stops at its limit", run: counts},
	{name: "a filter applies to rows of the index", run: filters},
	{name: "an index declared later finds what was there before", run: laterIndex},
	{name: "an index is never altered", run: alteredIndex},
	{name: "undeclared collections are refused", run: undeclared},
	{name: "the outbox keeps order until it is cleared", run: outbox},
	{name: "a context that has ended ends the call", run: endedContext},
	{name: "a closed store says so", run: closed},
	{name: "everything and the epoch outlive a reopening", run: reopening, reopens: true},
	{name: "of twenty writers at one revision exactly one wins", run: Racers, concurrent: true},
	{name: "paging is stable while others insert", run: pagingWhileInserting, concurrent: true},
	{name: "a filter that looks at too many rows is refused", run: tooBroad, concurrent: true},
}

// Widget is the body of the suite's documents.
type Widget struct {
	Name   string            `bson:"name"`
	State  string            `bson:"state"`
	Size   int64             `bson:"size"`
	Small  int               `bson:"small"`
	Active bool              `bson:"active"`
	At     time.Time         `bson:"at"`
	Tags   []string          `bson:"tags"`
	Key    string            `bson:"key"`
	Note   string            `bson:"note"`
	Maybe  *string           `bson:"maybe"`
	Labels map[string]string `bson:"labels"`
	Parts  []Part            `bson:"parts"`
}

// Part is something nested.
type Part struct {
	Data  []byte    `bson:"data"`
	When  time.Time `bson:"when"`
	Empty string    `bson:"empty,omitempty"`
}

// Spec declares the suite's collection.
func Spec() docstore.Spec {
	return docstore.Spec{Name: "widgets", Indexes: []docstore.Index{
		{Fields: []string{"name"}},
		{Fields: []string{"state", "size"}},
		{Fields: []string{"team", "at"}},
		{Fields: []string{"active", "small"}},
		{Fields: []string{"key"}, Unique: true},
		{Fields: []string{"tags", "name"}, Array: "tags"},
		{Fields: []string{"team", "tags"}, Array: "tags"},
		{Fields: []string{"maybe"}},
		{Fields: []string{"size", "state", "name"}},
	}}
}

type env struct {
	*testing.T
	ctx context.Context //nolint:containedctx // one test's
	s   docstore.Store
	can Capabilities
}

var start = time.Date(2026, 11, 22, 10, 0, 0, 123_000_000, time.UTC)

// widget builds document number n; numbers give time-ordered ids and different keys.
func widget(n int, change ...func(*docstore.Doc[Widget])) docstore.Doc[Widget] {
	d := docstore.Doc[Widget]{
		Meta: docstore.Meta{
			ID: fmt.Sprintf("wid_%06d", n), Revision: 1, Team: "default", CreatedAt: start, ChangedAt: start.Add(time.Duration(n) * time.Second),
			DueAt: clock.Never, LeaseUntil: start,
		},
		Body: Widget{Name: fmt.Sprintf("name-%06d", n), State: "new", Key: fmt.Sprintf("key-%06d", n), At: start},
	}
	for _, c := range change {
		c(&d)
	}
	return d
}

func (e *env) insert(docs ...docstore.Doc[Widget]) {
	e.Helper()
	for i := range docs {
		raw, err := docstore.Encode(&docs[i])
		require.NoError(e, err)
		require.NoError(e, e.s.Insert(e.ctx, "widgets", raw, nil))
	}
}

func (e *env) insertErr(d docstore.Doc[Widget]) error {
	raw, err := docstore.Encode(&d)
	require.NoError(e, err)
	return e.s.Insert(e.ctx, "widgets", raw, nil)
}

// save writes d as the successor of the revision that it has.
func save[T any](e *env, d *docstore.Doc[T], entries ...docstore.Entry) error {
	e.Helper()
	guard := d.Revision
	next := *d
	next.Revision++
	next.ChangedAt = next.ChangedAt.Add(time.Second)
	raw, err := docstore.Encode(&next)
	require.NoError(e, err)
	if err := e.s.Update(e.ctx, "widgets", guard, raw, entries); err != nil {
		return err
	}
	*d = next
	return nil
}

func (e *env) get(id string) docstore.Doc[Widget] {
	e.Helper()
	raw, err := e.s.Get(e.ctx, "widgets", id)
	require.NoError(e, err)
	d, err := docstore.Decode[Widget](raw)
	require.NoError(e, err)
	return d
}

// ids returns the ids that a query finds, on all its pages.
func (e *env) ids(q docstore.Query) []string {
	e.Helper()
	all := []string{}
	for {
		page, err := e.s.Find(e.ctx, "widgets", q)
		require.NoError(e, err)
		for _, raw := range page.Docs {
			id, _ := docstore.Field(raw, "_id")
			all = append(all, id.(string)) //nolint:forcetypeassert // a wrong type fails the test
		}
		if page.Next == "" {
			return all
		}
		require.NotEmpty(e, page.Docs, "an empty page with a cursor would never end")
		q.After = page.Next
	}
}

func (e *env) requireErr(err error, kind errs.Kind, reason string) {
	e.Helper()
	require.Error(e, err)
	require.NotNil(e, errs.As(err), "unclassified: %v", err)
	require.Equal(e, kind.String(), errs.KindOf(err).String(), "%v", err)
	if reason != "" {
		require.Equal(e, reason, errs.ReasonOf(err), "%v", err)
	}
}

func diff(want, got any) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }

func where(conds ...docstore.Cond) docstore.Query { return docstore.Query{Where: conds} }

func cond(field string, op docstore.Op, value any) docstore.Cond {
	return docstore.Cond{Field: field, Op: op, Value: value}
}

func numbers(ns ...int) []string {
	all := make([]string, len(ns))
	for i, n := range ns {
		all[i] = fmt.Sprintf("wid_%06d", n)
	}
	return all
}

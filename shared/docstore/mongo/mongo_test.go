package mongo

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

const uriEnv = "MONGODB_URI"

// server returns the URI of a real server to test on.
func server(t *testing.T) string {
	t.Helper()
	uri := os.Getenv(uriEnv)
	if uri == "" {
		t.Skip("no MongoDB: set " + uriEnv + " to prove concurrency and index use; dialect and wire are proven in ./ferrettest without it")
	}
	return uri
}

func openFresh(t *testing.T, uri string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{URI: uri, Database: "docstoretest_" + strings.ToLower(ulid.Make().String())})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		again, err := Open(context.Background(), Options{URI: uri, Database: s.db.Name()})
		require.NoError(t, err)
		require.NoError(t, again.db.Drop(context.Background()))
		require.NoError(t, again.Close())
	})
	return s
}

func TestConformanceOnARealServer(t *testing.T) {
	uri := server(t)
	docstoretest.Run(t, func(t *testing.T) docstore.Store {
		t.Helper()
		return openFresh(t, uri)
	}, docstoretest.Capabilities{Concurrent: true, Reopen: func(t *testing.T, s docstore.Store) docstore.Store {
		t.Helper()
		name := s.(*Store).db.Name() //nolint:forcetypeassert // made above
		require.NoError(t, s.Close())
		again, err := Open(context.Background(), Options{URI: uri, Database: name})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, again.Close()) })
		return again
	}})
}

func TestEveryQueryUsesAnIndexOnARealServer(t *testing.T) {
	s := openFresh(t, server(t))
	ctx := context.Background()
	require.NoError(t, s.Ensure(ctx, docstoretest.Spec()))
	for name, q := range plannable {
		p, err := s.schemas["widgets"].Plan(q)
		require.NoError(t, err, name)
		filter, some := filterOf(p)
		require.True(t, some, name)
		explained, err := s.db.RunCommand(ctx, bson.D{
			{Key: "explain", Value: bson.D{{Key: "find", Value: "widgets"}, {Key: "filter", Value: filter}, {Key: "sort", Value: sortOf(p)}}},
			{Key: "verbosity", Value: "queryPlanner"},
		}).Raw()
		require.NoError(t, err, name)
		winning, err := explained.LookupErr("queryPlanner", "winningPlan")
		require.NoError(t, err, name)
		require.NotContains(t, winning.String(), "COLLSCAN", name)
	}
}

var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// plannable are queries on docstoretest.Spec of every shape.
var plannable = map[string]docstore.Query{
	"equality, by the next field": {Where: []docstore.Cond{{Field: "state", Op: docstore.Eq, Value: "new"}}},
	"equality and range": {Where: []docstore.Cond{
		{Field: "state", Op: docstore.Eq, Value: "new"}, {Field: "size", Op: docstore.Gt, Value: int64(1)},
		{Field: "size", Op: docstore.Lte, Value: int64(9)},
	}},
	"several, descending": {Where: []docstore.Cond{{Field: "state", Op: docstore.In, Value: []string{"b", "a"}}}, Desc: true},
	"prefix":              {Where: []docstore.Cond{{Field: "name", Op: docstore.Prefix, Value: "ab"}}},
	"membership":          {Where: []docstore.Cond{{Field: "tags", Op: docstore.Has, Value: "x"}}},
	"due":                 {Where: []docstore.Cond{{Field: "due_at", Op: docstore.Lte, Value: start}}},
}

func d(pairs ...any) bson.D {
	var doc bson.D
	for i := 0; i < len(pairs); i += 2 {
		doc = append(doc, bson.E{Key: fmt.Sprint(pairs[i]), Value: pairs[i+1]})
	}
	return doc
}

func TestPlansBecomeFilters(t *testing.T) {
	schema, err := plan.New(docstoretest.Spec())
	require.NoError(t, err)
	want := map[string]bson.D{
		"equality, by the next field": d("state", "new"),
		"equality and range":          d("$and", bson.A{d("state", "new"), d("size", d("$gt", int64(1), "$lte", int64(9)))}),
		"several, descending":         d("state", d("$in", []any{"a", "b"})),
		"prefix":                      d("name", d("$gte", "ab", "$lt", "ac")),
		"membership":                  d("tags", "x"),
		"due":                         d("due_at", d("$lte", start)),
	}
	for name, q := range plannable {
		p, err := schema.Plan(q)
		require.NoError(t, err, name)
		filter, some := filterOf(p)
		require.True(t, some)
		require.Empty(t, cmp.Diff(want[name], filter), name)
	}
	p, err := schema.Plan(docstore.Query{Where: []docstore.Cond{{Field: "name", Op: docstore.In, Value: []string{}}}})
	require.NoError(t, err)
	_, some := filterOf(p)
	require.False(t, some, "one of no values is nothing")
}

func TestThePositionBecomesACondition(t *testing.T) {
	id := func(op string) bson.D { return d(op, "i") }
	for _, c := range []struct {
		name string
		p    plan.Plan
		want bson.A
	}{
		{"by id", plan.Plan{Order: "_id"}, bson.A{d("_id", id("$gt"))}},
		{"by id, descending", plan.Plan{Order: "_id", Desc: true}, bson.A{d("_id", id("$lt"))}},
		{
			"by a field, with a bound for the index", plan.Plan{Order: "f", After: &plan.Position{Value: "v"}},
			bson.A{d("f", d("$gte", "v")), d("$or", bson.A{d("f", d("$gt", "v")), d("f", "v", "_id", id("$gt"))})},
		},
		{
			"descending, those without the field come last", plan.Plan{Order: "f", Desc: true, After: &plan.Position{Value: "v"}},
			bson.A{d("$or", bson.A{d("f", d("$lt", "v")), d("f", "v", "_id", id("$lt")), d("f", nil)})},
		},
		{
			"descending in a range nobody lacks the field",
			plan.Plan{Order: "f", Desc: true, Low: &plan.Bound{Value: "a"}, After: &plan.Position{Value: "v"}},
			bson.A{d("f", d("$lte", "v")), d("$or", bson.A{d("f", d("$lt", "v")), d("f", "v", "_id", id("$lt"))})},
		},
		{
			"after one without the field", plan.Plan{Order: "f", After: &plan.Position{}},
			bson.A{d("$or", bson.A{d("f", nil, "_id", id("$gt")), d("f", d("$ne", nil))})},
		},
		{
			"descending, after one without the field", plan.Plan{Order: "f", Desc: true, After: &plan.Position{}},
			bson.A{d("f", nil, "_id", id("$lt"))},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.p.After == nil {
				c.p.After = &plan.Position{}
			}
			c.p.After.ID = "i"
			require.Empty(t, cmp.Diff(c.want, after(&c.p)))
		})
	}
}

func TestClearingLeavesWhatWasNotSent(t *testing.T) {
	entry := func(id, msgID string) docstore.Entry { return docstore.Entry{ID: id, MsgID: msgID} }
	state := outboxState{ID: "x", Revision: 3, Clears: 2, Items: []outboxItem{
		{Entry: entry("a", "a"), Added: start}, {Entry: entry("a", "a~1"), Added: start.Add(time.Second)}, {Entry: entry("b", "b"), Added: start.Add(time.Minute)},
	}}
	w, err := clearing(state, []docstore.Entry{entry("c", "c")})
	require.NoError(t, err)
	require.Nil(t, w, "nothing of it was sent")
	w, err = clearing(state, []docstore.Entry{entry("a", "a")})
	require.NoError(t, err)
	raw, err := docstore.Marshal(w)
	require.NoError(t, err)
	filter, _ := docstore.Field(bson.Raw(raw).Lookup("filter").Document(), "outbox_clears")
	require.EqualValues(t, 2, filter, "guarded against another clearing at the same time")
	set := bson.Raw(raw).Lookup("update", "$set").Document()
	items, err := set.Lookup("outbox").Array().Values()
	require.NoError(t, err)
	require.Len(t, items, 2)
	at, _ := docstore.Field(set, "outbox_at")
	require.Equal(t, start.Add(time.Second), at)
	pending, _ := docstore.Field(set, "outbox_pending")
	require.Equal(t, true, pending)
}

func TestWhatCannotBeReachedIsUnavailable(t *testing.T) {
	ctx := context.Background()
	_, err := Open(ctx, Options{URI: "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50", Database: "x"})
	require.Equal(t, errs.Unavailable.String(), errs.KindOf(err).String(), "%v", err)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = Open(short, Options{URI: "mongodb://127.0.0.1:1", Database: "x"})
	require.Equal(t, errs.Timeout.String(), errs.KindOf(err).String(), "%v", err)
}

func TestABadURIIsRefusedWithoutQuotingIt(t *testing.T) {
	ctx := context.Background()
	for _, o := range []Options{
		{URI: "mongodb://user:geheim@host:port/", Database: "x"}, {URI: "postgres://user:geheim@host/", Database: "x"}, {URI: "mongodb://127.0.0.1"},
	} {
		_, err := Open(ctx, o)
		require.Equal(t, "BAD_URI", errs.ReasonOf(err))
		require.NotContains(t, err.Error(), "geheim")
	}
}

package docstoretest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

const (
	eq     = docstore.Eq
	in     = docstore.In
	lt     = docstore.Lt
	lte    = docstore.Lte
	gt     = docstore.Gt
	gte    = docstore.Gte
	prefix = docstore.Prefix
	has    = docstore.Has
)

// shelf inserts ten widgets with all kinds of values.
func shelf(e *env) {
	names := []string{"", "alpha", "alpha-1", "alphabet", "Alpha", "beta", "alpha.%_*x", "älpha", "al\U0010ffff", "zeta"}
	states := []string{"new", "open", "done"}
	for n, name := range names {
		e.insert(widget(n, func(d *docstore.Doc[Widget]) {
			d.Team = []string{"red", "blue"}[n%2]
			d.DueAt = start.Add(time.Duration(n) * time.Minute)
			d.Body.Name, d.Body.State = name, states[n%3]
			d.Body.Size, d.Body.Small = int64(n-5)*1_000_000_007, n-5
			d.Body.Active = n >= 5
			d.Body.At = start.Add(time.Duration(n-5) * time.Hour)
			for i := range n % 4 {
				d.Body.Tags = append(d.Body.Tags, fmt.Sprintf("tag=%d", i))
			}
		}))
	}
}

func conditions(e *env) {
	shelf(e)
	for _, c := range []struct {
		name  string
		where []docstore.Cond
		want  []int
	}{
		{"nothing asked finds all by id", nil, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"by id", []docstore.Cond{cond("_id", eq, "wid_000003")}, []int{3}},
		{"by several ids", []docstore.Cond{cond("_id", in, []string{"wid_000009", "wid_000001", "wid_000001", "nobody"})}, []int{1, 9}},
		{"by a range of ids", []docstore.Cond{cond("_id", gt, "wid_000003"), cond("_id", lte, "wid_000006")}, []int{4, 5, 6}},
		{"by a prefix of ids", []docstore.Cond{cond("_id", prefix, "wid_00000")}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"a string is equal only in the same case", []docstore.Cond{cond("name", eq, "alpha")}, []int{1}},
		{"the empty string is a value", []docstore.Cond{cond("name", eq, "")}, []int{0}},
		{"a prefix is anchored, literal and case-sensitive", []docstore.Cond{cond("name", prefix, "alpha")}, []int{1, 2, 6, 3}},
		{"a prefix knows no wildcards", []docstore.Cond{cond("name", prefix, "alpha.%")}, []int{6}},
		{"an empty prefix finds all strings in their order", []docstore.Cond{cond("name", prefix, "")}, []int{0, 4, 1, 2, 6, 3, 8, 5, 9, 7}},
		{"a prefix that ends with the highest rune", []docstore.Cond{cond("name", prefix, "al\U0010ffff")}, []int{8}},
		{"a prefix beyond ASCII", []docstore.Cond{cond("name", prefix, "ä")}, []int{7}},
		{"several strings in the order of the index", []docstore.Cond{cond("name", in, []string{"zeta", "beta", "alpha"})}, []int{1, 5, 9}},
		{"no strings find nothing", []docstore.Cond{cond("name", in, []string{})}, nil},
		{"strings below", []docstore.Cond{cond("name", lt, "alpha")}, []int{0, 4}},
		{"strings between", []docstore.Cond{cond("name", gte, "alpha"), cond("name", lt, "beta")}, []int{1, 2, 6, 3, 8}},
		{"an equality orders by the next field", []docstore.Cond{cond("state", eq, "new")}, []int{0, 3, 6, 9}},
		{"integers below", []docstore.Cond{cond("state", eq, "open"), cond("size", lt, int64(0))}, []int{1, 4}},
		{"integers from", []docstore.Cond{cond("state", eq, "open"), cond("size", gte, int64(2_000_000_014))}, []int{7}},
		{"integers beyond 32 bits", []docstore.Cond{cond("state", eq, "new"), cond("size", lte, int64(-5_000_000_035))}, []int{0}},
		{"several states with a range", []docstore.Cond{cond("state", in, []string{"new", "done"}), cond("size", gt, int64(0))}, []int{6, 8, 9}},
		{"small integers equal wide ones", []docstore.Cond{cond("active", eq, false), cond("small", gte, int64(-2))}, []int{3, 4}},
		{"a boolean", []docstore.Cond{cond("active", eq, true)}, []int{5, 6, 7, 8, 9}},
		{"times before", []docstore.Cond{cond("team", eq, "red"), cond("at", lt, start)}, []int{0, 2, 4}},
		{"times from, in any zone", []docstore.Cond{cond("team", eq, "red"), cond("at", gte, start.In(time.FixedZone("x", 3600)))}, []int{6, 8}},
		{"an exact time", []docstore.Cond{cond("team", eq, "blue"), cond("at", eq, start)}, []int{5}},
		{"what is due", []docstore.Cond{cond("due_at", lte, start.Add(2*time.Minute))}, []int{0, 1, 2}},
		{"what changed after", []docstore.Cond{cond("changed_at", gt, start.Add(7*time.Second))}, []int{8, 9}},
		{"members of an array, by the next field", []docstore.Cond{cond("tags", has, "tag=1")}, []int{2, 6, 3, 7}},
		{"nobody is a member", []docstore.Cond{cond("tags", has, "tag=9")}, nil},
		{"a prefix of a member is no member", []docstore.Cond{cond("tags", has, "tag=")}, nil},
		{"members with a prefix of the next field", []docstore.Cond{cond("tags", has, "tag=0"), cond("name", prefix, "alpha")}, []int{1, 2, 6, 3}},
		{"members after an equality", []docstore.Cond{cond("tags", has, "tag=0"), cond("team", eq, "blue")}, []int{1, 3, 5, 7, 9}},
		{"members in several teams, by id", []docstore.Cond{cond("team", in, []string{"red", "blue"}), cond("tags", has, "tag=2")}, []int{3, 7}},
		{"a short part of a long index", []docstore.Cond{cond("size", gt, int64(2_000_000_014))}, []int{8, 9}},
		{"another type finds nothing", []docstore.Cond{cond("name", eq, int64(1))}, nil},
		{"a range of another type finds nothing", []docstore.Cond{cond("name", gte, int64(1))}, nil},
	} {
		e.Run(c.name, func(t *testing.T) {
			inner := &env{T: t, ctx: e.ctx, s: e.s}
			want := append([]string{}, numbers(c.want...)...)
			for _, limit := range []int{0, 1, 3} {
				q := docstore.Query{Where: c.where, Limit: limit}
				require.Equal(t, want, inner.ids(q), "limit %d", limit)
				q.Desc = true
				backwards := slices.Clone(want)
				slices.Reverse(backwards)
				require.Equal(t, backwards, inner.ids(q), "limit %d, descending", limit)
			}
			n, err := e.s.Count(e.ctx, "widgets", docstore.Query{Where: c.where}, 1000)
			require.NoError(t, err)
			require.Equal(t, len(want), n)
		})
	}
}

func refusedQueries(e *env) {
	for _, c := range []struct {
		name   string
		q      docstore.Query
		reason string
	}{
		{"a field without index", where(cond("note", eq, "x")), "NO_INDEX"},
		{"a field that is not leading", where(cond("size", gt, int64(1)), cond("name", eq, "x")), "NO_INDEX"},
		{"two ranges", where(cond("state", gt, "x"), cond("size", gt, int64(1))), "NO_INDEX"},
		{"a range that is not next", where(cond("size", eq, int64(1)), cond("name", gt, "x")), "NO_INDEX"},
		{"equality on an array", where(cond("tags", eq, "x")), "NO_INDEX"},
		{"membership in what is no array", where(cond("name", has, "x")), "NO_INDEX"},
		{"an array index without membership", where(cond("tags", prefix, "x")), "NO_INDEX"},
		{"the same field twice", where(cond("name", eq, "x"), cond("name", eq, "y")), "NO_INDEX"},
		{"a number of a kind that is not stored", where(cond("size", gt, 1.5)), "BAD_VALUE"},
		{"no value", where(cond("name", eq, nil)), "BAD_VALUE"},
		{"a list for equality", where(cond("name", eq, []string{"x"})), "BAD_VALUE"},
		{"one value for a list", where(cond("name", in, "x")), "BAD_VALUE"},
		{"a prefix that is no string", where(cond("size", prefix, int64(1))), "BAD_VALUE"},
		{"an unknown operator", where(cond("name", "like", "x")), "BAD_VALUE"},
		{"one end of a range twice", where(cond("name", gt, "x"), cond("name", gte, "y")), "BAD_VALUE"},
		{"a range with a prefix", where(cond("name", gt, "x"), cond("name", prefix, "y")), "BAD_VALUE"},
		{"a range of two types", where(cond("name", gt, "x"), cond("name", lt, int64(1))), "BAD_VALUE"},
		{"a bad filter", docstore.Query{Filter: []docstore.Cond{cond("note", "like", "x")}}, "BAD_VALUE"},
		{"too long a page", docstore.Query{Limit: 1001}, "BAD_LIMIT"},
		{"a negative page", docstore.Query{Limit: -1}, "BAD_LIMIT"},
	} {
		e.Run(c.name, func(t *testing.T) {
			inner := &env{T: t, ctx: e.ctx, s: e.s}
			_, err := e.s.Find(e.ctx, "widgets", c.q)
			inner.requireErr(err, errs.Invalid, c.reason)
			if c.reason == "NO_INDEX" {
				require.Contains(t, err.Error(), "(state,size)", "the answer names what is declared")
			}
		})
	}
	_, err := e.s.Count(e.ctx, "widgets", where(cond("note", eq, "x")), 10)
	e.requireErr(err, errs.Invalid, "NO_INDEX")
	_, err = e.s.Count(e.ctx, "widgets", where(), 0)
	e.requireErr(err, errs.Invalid, "BAD_LIMIT")
}

func paging(e *env) {
	const n = 60
	for i := range n {
		e.insert(widget(i, func(d *docstore.Doc[Widget]) {
			d.Body.Size, d.Body.State = int64(i/7%3), "open" // many equal values
			d.ChangedAt = start.Add(time.Duration(i/10) * time.Second)
			d.Body.Tags = []string{"t", "u"}
			d.Body.Name = fmt.Sprint(i % 4)
		}))
	}
	for _, q := range []docstore.Query{
		{}, where(cond("state", eq, "open")), where(cond("changed_at", gte, start)), where(cond("tags", has, "t")),
		where(cond("state", in, []string{"open", "done"})), where(cond("size", gte, int64(0))),
		where(cond("team", eq, "default"), cond("tags", has, "u")),
	} {
		q.Limit = 1000
		whole := e.ids(q)
		require.Len(e, whole, n)
		require.True(e, q.Where == nil || !slices.IsSorted(whole) || q.Where[0].Field == "changed_at" || q.Where[0].Field == "team")
		backwards := slices.Clone(whole)
		slices.Reverse(backwards)
		limits := []int{1, 7, 20, 59, 60, 61}
		if !e.can.Concurrent {
			limits = []int{20, 60} // each page is slow there
		}
		for _, limit := range limits {
			q.Limit, q.Desc = limit, false
			require.Equal(e, whole, e.ids(q), "%v limit %d", q.Where, limit)
			q.Desc = true
			require.Equal(e, backwards, e.ids(q), "%v limit %d descending", q.Where, limit)
		}
	}
	page, err := e.s.Find(e.ctx, "widgets", docstore.Query{Limit: n})
	require.NoError(e, err)
	require.Empty(e, page.Next, "no cursor after the last document")
	// A document removed between two pages takes its own place with it and no other.
	first, err := e.s.Find(e.ctx, "widgets", docstore.Query{Limit: 10})
	require.NoError(e, err)
	require.NoError(e, e.s.Remove(e.ctx, "widgets", "wid_000009", 1))
	require.NoError(e, e.s.Remove(e.ctx, "widgets", "wid_000010", 1))
	rest := e.ids(docstore.Query{Limit: 10, After: first.Next})
	require.Equal(e, "wid_000011", rest[0])
	require.Len(e, rest, n-11)
}

func missingOrder(e *env) {
	text := "b"
	for n := range 6 {
		e.insert(widget(n, func(d *docstore.Doc[Widget]) {
			if n%2 == 1 {
				d.Body.Maybe = &text
			}
		}))
	}
	all := docstore.Query{Where: []docstore.Cond{cond("team", eq, "default")}}
	require.Equal(e, numbers(0, 1, 2, 3, 4, 5), e.ids(all))
	require.Equal(e, numbers(1, 3, 5), e.ids(where(cond("maybe", gte, ""))), "a range does not find what is not there")
	require.Equal(e, numbers(1, 3, 5), e.ids(where(cond("maybe", lt, "c"))))
	require.Equal(e, numbers(1, 3, 5), e.ids(where(cond("maybe", eq, "b"))))
	require.NoError(e, e.s.Ensure(e.ctx, docstore.Spec{Name: "holes", Indexes: []docstore.Index{{Fields: []string{"team", "maybe"}}}}))
	for n := range 6 {
		d := widget(n, func(d *docstore.Doc[Widget]) {
			if n%2 == 1 {
				d.Body.Maybe = &text
			}
		})
		raw, err := docstore.Encode(&d)
		require.NoError(e, err)
		require.NoError(e, e.s.Insert(e.ctx, "holes", raw, nil))
	}
	for _, limit := range []int{1, 2, 3, 4, 10} {
		for _, desc := range []bool{false, true} {
			want := numbers(0, 2, 4, 1, 3, 5)
			if desc {
				slices.Reverse(want)
			}
			got := []string{}
			q := docstore.Query{Where: all.Where, Limit: limit, Desc: desc}
			for {
				page, err := e.s.Find(e.ctx, "holes", q)
				require.NoError(e, err)
				for _, raw := range page.Docs {
					id, _ := docstore.Field(raw, "_id")
					got = append(got, fmt.Sprint(id))
				}
				if q.After = page.Next; q.After == "" {
					break
				}
			}
			require.Equal(e, want, got, "limit %d desc %v", limit, desc)
		}
	}
}

func cursors(e *env) {
	for n := range 5 {
		e.insert(widget(n))
	}
	page, err := e.s.Find(e.ctx, "widgets", docstore.Query{Limit: 2})
	require.NoError(e, err)
	require.NotEmpty(e, page.Next)
	for name, after := range map[string]string{
		"garbage": "%%%", "other text": "hello", "an empty document": base64.RawURLEncoding.EncodeToString([]byte{5, 0, 0, 0, 0}),
		"cut off": page.Next[:len(page.Next)/2], "padded": page.Next + "=",
	} {
		_, err := e.s.Find(e.ctx, "widgets", docstore.Query{After: after})
		e.requireErr(err, errs.Invalid, "BAD_CURSOR")
		e.Log("refused:", name)
	}
	_, err = e.s.Find(e.ctx, "widgets", docstore.Query{After: page.Next, Desc: true})
	e.requireErr(err, errs.Invalid, "BAD_CURSOR")
	q := where(cond("state", eq, "new"))
	q.After = page.Next
	_, err = e.s.Find(e.ctx, "widgets", q)
	e.requireErr(err, errs.Invalid, "BAD_CURSOR")
}

func counts(e *env) {
	for n := range 30 {
		e.insert(widget(n, func(d *docstore.Doc[Widget]) { d.Body.State = []string{"new", "open", "done"}[n%3] }))
	}
	for _, c := range []struct {
		q           docstore.Query
		limit, want int
	}{
		{where(), 1000, 30},
		{where(), 30, 30},
		{where(), 7, 7},
		{where(cond("state", eq, "open")), 1000, 10},
		{where(cond("state", eq, "open")), 3, 3},
		{docstore.Query{Filter: []docstore.Cond{cond("state", eq, "open")}}, 1000, 10},
		{docstore.Query{Filter: []docstore.Cond{cond("state", eq, "open")}}, 4, 4},
		{docstore.Query{Where: []docstore.Cond{cond("state", eq, "open")}, Limit: 2, Desc: true}, 1000, 10},
	} {
		n, err := e.s.Count(e.ctx, "widgets", c.q, c.limit)
		require.NoError(e, err)
		require.Equal(e, c.want, n, "%v up to %d", c.q, c.limit)
	}
}

func filters(e *env) {
	shelf(e)
	for _, c := range []struct {
		name   string
		where  []docstore.Cond
		filter []docstore.Cond
		want   []int
	}{
		{"a field without index", nil, []docstore.Cond{cond("small", gt, int64(2))}, []int{8, 9}},
		{"two filters both apply", nil, []docstore.Cond{cond("active", eq, true), cond("state", in, []string{"new", "open"})}, []int{6, 7, 9}},
		{"a filter on an array", nil, []docstore.Cond{cond("tags", has, "tag=2")}, []int{3, 7}},
		{"a filter on a time", nil, []docstore.Cond{cond("at", lte, start.Add(-4*time.Hour))}, []int{0, 1}},
		{"a filter by prefix", nil, []docstore.Cond{cond("name", prefix, "alpha.")}, []int{6}},
		{"beside an index, in its order", []docstore.Cond{cond("state", eq, "new")}, []docstore.Cond{cond("team", eq, "red")}, []int{0, 6}},
		{"a field that nobody has", nil, []docstore.Cond{cond("nothing", eq, "x")}, nil},
		{"null is no value", nil, []docstore.Cond{cond("maybe", lt, "x")}, nil},
	} {
		e.Run(c.name, func(t *testing.T) {
			inner := &env{T: t, ctx: e.ctx, s: e.s}
			for _, limit := range []int{0, 1, 2} {
				q := docstore.Query{Where: c.where, Filter: c.filter, Limit: limit}
				require.Equal(t, append([]string{}, numbers(c.want...)...), inner.ids(q), "limit %d", limit)
			}
		})
	}
}

func laterIndex(e *env) {
	text := "x"
	for n := range 5 {
		e.insert(widget(n, func(d *docstore.Doc[Widget]) {
			d.Body.Note, d.Body.Tags = fmt.Sprint("note", n%2), []string{"a", fmt.Sprint(n)}
			d.Body.Maybe = &text
		}))
	}
	_, err := e.s.Find(e.ctx, "widgets", where(cond("note", eq, "note1")))
	e.requireErr(err, errs.Invalid, "NO_INDEX")
	spec := Spec()
	spec.Indexes = append(spec.Indexes, docstore.Index{Fields: []string{"note"}},
		docstore.Index{Fields: []string{"state", "tags"}, Array: "tags"}, docstore.Index{Fields: []string{"note", "key"}, Unique: true})
	require.NoError(e, e.s.Ensure(e.ctx, spec))
	require.NoError(e, e.s.Ensure(e.ctx, spec), "declaring again changes nothing")
	require.Equal(e, numbers(1, 3), e.ids(where(cond("note", eq, "note1"))))
	require.Equal(e, numbers(0, 1, 2, 3, 4), e.ids(where(cond("state", eq, "new"), cond("tags", has, "a"))))
	require.Equal(e, numbers(3), e.ids(where(cond("state", eq, "new"), cond("tags", has, "3"))))
	d := e.get("wid_000003")
	d.Body.Note = "other"
	require.NoError(e, save(e, &d))
	e.insert(widget(7, func(d *docstore.Doc[Widget]) { d.Body.Note, d.Body.Tags = "note1", []string{"a"} }))
	require.Equal(e, numbers(1, 7), e.ids(where(cond("note", eq, "note1"))))
	require.Equal(e, numbers(0, 1, 2, 3, 4, 7), e.ids(where(cond("state", eq, "new"), cond("tags", has, "a"))))
}

func alteredIndex(e *env) {
	spec := docstore.Spec{Name: "widgets", Indexes: []docstore.Index{{Fields: []string{"name"}, Unique: true}}}
	e.requireErr(e.s.Ensure(e.ctx, spec), errs.Precondition, "INDEX_CHANGED")
	for name, bad := range map[string]docstore.Spec{
		"a unique array":      {Name: "x", Indexes: []docstore.Index{{Fields: []string{"tags"}, Array: "tags", Unique: true}}},
		"a foreign array":     {Name: "x", Indexes: []docstore.Index{{Fields: []string{"name"}, Array: "tags"}}},
		"no fields":           {Name: "x", Indexes: []docstore.Index{{}}},
		"a nested field":      {Name: "x", Indexes: []docstore.Index{{Fields: []string{"a.b"}}}},
		"twice the same":      {Name: "x", Indexes: []docstore.Index{{Fields: []string{"a"}}, {Fields: []string{"a"}}}},
		"no collection name":  {},
		"a name with a quote": {Name: `x"y`},
	} {
		e.requireErr(e.s.Ensure(e.ctx, bad), errs.Invalid, "BAD_SPEC")
		e.Log("refused:", name)
	}
	e.insert(widget(1))
	require.Equal(e, numbers(1), e.ids(where(cond("name", prefix, "name"))), "what was refused changed nothing")
}

func undeclared(e *env) {
	d := widget(1)
	raw, err := docstore.Encode(&d)
	require.NoError(e, err)
	_, err = e.s.Get(e.ctx, "nowhere", "x")
	e.requireErr(err, errs.Invalid, "UNKNOWN_COLLECTION")
	_, err = e.s.Find(e.ctx, "nowhere", where())
	e.requireErr(err, errs.Invalid, "UNKNOWN_COLLECTION")
	_, err = e.s.Count(e.ctx, "nowhere", where(), 1)
	e.requireErr(err, errs.Invalid, "UNKNOWN_COLLECTION")
	e.requireErr(e.s.Insert(e.ctx, "nowhere", raw, nil), errs.Invalid, "UNKNOWN_COLLECTION")
	e.requireErr(e.s.Update(e.ctx, "nowhere", 0, raw, nil), errs.Invalid, "UNKNOWN_COLLECTION")
	e.requireErr(e.s.Remove(e.ctx, "nowhere", "x", 1), errs.Invalid, "UNKNOWN_COLLECTION")
}

func pagingWhileInserting(e *env) {
	const n, more = 200, 200
	for i := range n {
		e.insert(widget(i, func(d *docstore.Doc[Widget]) { d.Body.State, d.Body.Size = "open", int64(i%5) }))
	}
	stop := make(chan struct{})
	failure := make(chan error, 1)
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := range more {
			d := widget(n+i, func(d *docstore.Doc[Widget]) { d.Body.State, d.Body.Size = "open", int64(i%5) })
			raw, err := docstore.Encode(&d)
			if err == nil {
				err = e.s.Insert(e.ctx, "widgets", raw, nil)
			}
			if err != nil {
				failure <- err
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for _, desc := range []bool{false, true} {
		seen := map[string]int{}
		for _, id := range e.ids(docstore.Query{Where: []docstore.Cond{cond("state", eq, "open")}, Limit: 9, Desc: desc}) {
			seen[id]++
		}
		for i := range n {
			require.Equal(e, 1, seen[numbers(i)[0]], "document %d was there all the time and comes up exactly once", i)
		}
		for id, times := range seen {
			require.Equal(e, 1, times, id)
		}
	}
	close(stop)
	writer.Wait()
	close(failure)
	require.NoError(e, <-failure)
}

func tooBroad(e *env) {
	const writers = 32
	var all sync.WaitGroup
	failures := make(chan error, writers)
	for w := range writers {
		all.Go(func() {
			for i := w; i <= docstore.MaxScan; i += writers {
				d := widget(i, func(d *docstore.Doc[Widget]) { d.Body.Active = i < 50 })
				raw, err := docstore.Encode(&d)
				if err == nil {
					err = e.s.Insert(e.ctx, "widgets", raw, nil)
				}
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	require.NoError(e, <-failures)
	active := []docstore.Cond{cond("active", eq, true)}
	_, err := e.s.Find(e.ctx, "widgets", docstore.Query{Filter: active})
	e.requireErr(err, errs.Invalid, "FILTER_TOO_BROAD")
	_, err = e.s.Count(e.ctx, "widgets", docstore.Query{Filter: active}, 1000)
	e.requireErr(err, errs.Invalid, "FILTER_TOO_BROAD")
	page, err := e.s.Find(e.ctx, "widgets", docstore.Query{Filter: active, Limit: 50})
	require.NoError(e, err, "the page is full before the limit")
	require.Len(e, page.Docs, 50)
	got := e.ids(docstore.Query{Where: []docstore.Cond{cond("_id", gte, "wid_000001")}, Filter: active})
	require.Len(e, got, 49, "exactly as many rows as may be looked at")
	n, err := e.s.Count(e.ctx, "widgets", docstore.Query{}, 20_000)
	require.NoError(e, err)
	require.Equal(e, docstore.MaxScan+1, n)
}

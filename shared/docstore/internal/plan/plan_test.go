package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

func schema(t testing.TB, indexes ...docstore.Index) *Schema {
	t.Helper()
	s, err := New(docstore.Spec{Name: "things", Indexes: indexes})
	require.NoError(t, err)
	return s
}

func TestTheFirstFittingIndexOrdersTheRows(t *testing.T) {
	s := schema(
		t, docstore.Index{Fields: []string{"team", "state", "at"}}, docstore.Index{Fields: []string{"team", "name"}},
		docstore.Index{Fields: []string{"team", "at"}}, docstore.Index{Fields: []string{"state", "team"}},
	)
	eq := func(f string) docstore.Cond { return docstore.Cond{Field: f, Op: docstore.Eq, Value: "x"} }
	gt := func(f string) docstore.Cond { return docstore.Cond{Field: f, Op: docstore.Gt, Value: "x"} }
	for _, c := range []struct {
		name  string
		where []docstore.Cond
		index string
		order string
	}{
		{"one that leaves one field is taken before one that leaves two", []docstore.Cond{eq("team")}, "team,name", "name"},
		{"a range picks the order", []docstore.Cond{eq("team"), gt("at")}, "team,at", "at"},
		{"equalities come in any order", []docstore.Cond{eq("state"), eq("team")}, "team,state,at", "at"},
		{"nothing left to order by but the id", []docstore.Cond{eq("team"), eq("name")}, "team,name", "_id"},
		{"a range in the middle of a long one", []docstore.Cond{gt("state"), eq("team")}, "team,state,at", "state"},
		{"what is due", []docstore.Cond{gt("due_at")}, "due_at", "due_at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := s.Plan(docstore.Query{Where: c.where})
			require.NoError(t, err)
			require.Equal(t, c.index, p.Index.Name)
			require.Equal(t, c.order, p.Order)
		})
	}
}

func TestTheSuccessorIsAboveEveryStringWithThePrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"a": "b", "az": "a{", "\u007f": "\u0080", "\ud7ff": "\ue000", "a\U0010ffff": "b", "\U0010ffff": "", "": "", "ä": "å",
	} {
		got, ok := successor(prefix)
		require.Equal(t, want, got, "%q", prefix)
		require.Equal(t, want != "", ok)
		if ok {
			require.Less(t, prefix+"\U0010ffff\U0010ffff", got)
		}
	}
}

func doc(t testing.TB, fields bson.D) *Doc {
	t.Helper()
	raw, err := bson.Marshal(append(bson.D{
		{Key: "_id", Value: "a"}, {Key: "revision", Value: int64(1)}, {Key: "changed_at", Value: time.UnixMilli(0)},
	}, fields...))
	require.NoError(t, err)
	d, err := Parse(raw)
	require.NoError(t, err)
	return d
}

func TestMergingKeepsUnknownFieldsAsTheyWere(t *testing.T) {
	nested := bson.D{{Key: "x", Value: bson.A{1, "two", nil}}}
	old := doc(t, bson.D{{Key: "both", Value: "old"}, {Key: "unknown", Value: nested}, {Key: "null", Value: nil}})
	merged := Merge(old, doc(t, bson.D{{Key: "both", Value: "new"}, {Key: "added", Value: true}}))
	require.NoError(t, bson.Raw(merged.Raw).Validate())
	want := doc(t, bson.D{{Key: "both", Value: "new"}, {Key: "added", Value: true}, {Key: "unknown", Value: nested}, {Key: "null", Value: nil}})
	require.Equal(t, bson.Raw(want.Raw).String(), bson.Raw(merged.Raw).String())
	require.Equal(t, "new", merged.Value("both"))
	require.True(t, merged.Has("unknown"))
}

// Whatever a caller hands over as a cursor is accepted as a position or refused as BAD_CURSOR.
func FuzzCursor(f *testing.F) {
	s := schema(f, docstore.Index{Fields: []string{"name"}})
	q := docstore.Query{Where: []docstore.Cond{{Field: "name", Op: docstore.Gte, Value: "a"}}}
	p, err := s.Plan(q)
	require.NoError(f, err)
	valid, err := p.cursor(doc(f, bson.D{{Key: "name", Value: "b"}}).Raw)
	require.NoError(f, err)
	f.Add(valid)
	f.Add("BQAAAAA")
	f.Add("%")
	f.Fuzz(func(t *testing.T, after string) {
		q := q
		q.After = after
		p, err := s.Plan(q)
		switch {
		case err != nil:
			require.Equal(t, "BAD_CURSOR", errs.ReasonOf(err))
		case after != "":
			require.NotEmpty(t, p.After.ID)
		}
	})
}

// Whatever is handed over as a document is taken apart or refused as BAD_DOCUMENT.
func FuzzParse(f *testing.F) {
	f.Add([]byte(doc(f, bson.D{{Key: "tags", Value: bson.A{"a", 1}}}).Raw))
	f.Add([]byte{5, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{6, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Parse(raw)
		if err != nil {
			require.Equal(t, "BAD_DOCUMENT", errs.ReasonOf(err))
			return
		}
		require.NotEmpty(t, d.ID)
		for _, field := range d.fields {
			d.Scalar(string(field.key))
			d.Strings(string(field.key))
		}
		require.Equal(t, raw, []byte(Merge(d, d).Raw))
	})
}

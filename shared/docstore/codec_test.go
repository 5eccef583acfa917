package docstore_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

type state string

type good struct {
	Name   string            `bson:"name"`
	State  state             `bson:"state"`
	Count  int               `bson:"count"`
	When   *time.Time        `bson:"when"`
	Tags   []string          `bson:"tags"`
	Money  float64           `bson:"money"`
	Inner  inner             `bson:"inner"`
	Flat   inner             `bson:",inline"`
	Labels map[string]string `bson:"labels"`
	Skip   string            `bson:"-"`
	Plain  bool
}

type inner struct {
	Deep string `bson:"deep,omitempty"`
}

// flat is good without the inlined omitempty.
type flat struct {
	Name  string     `bson:"name"`
	State state      `bson:"state"`
	Count int        `bson:"count"`
	When  *time.Time `bson:"when"`
	Tags  []string   `bson:"tags"`
	Money float64    `bson:"money"`
	Inner inner      `bson:"inner"`
	Skip  string     `bson:"-"`
	Plain bool
}

func check[T any](indexes ...docstore.Index) func() error {
	return func() error { return docstore.Check[T](docstore.Spec{Name: "things", Indexes: indexes}) }
}

func on(fields ...string) docstore.Index { return docstore.Index{Fields: fields} }

func TestCheckRefusesWhatCouldNotBeStoredOrFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		check func() error
		says  string // part of the refusal; empty when it is accepted
	}{
		{"fields of the body and of Meta can be indexed", check[flat](on("name", "team"), on("state", "count", "when"), on("plain")), ""},
		{"an array of strings can be indexed as an array", check[flat](docstore.Index{Fields: []string{"team", "tags"}, Array: "tags"}), ""},
		{"a nested omitempty is harmless", check[struct{ In inner }](), ""},
		{"an empty body", check[struct{}](), ""},
		{"an inlined omitempty is one at the top level", check[good](), "omitempty"},
		{"omitempty at the top level", check[struct {
			A string `bson:"a,omitempty"`
		}](), "omitempty"},
		{"a name of Meta", check[struct {
			A string `bson:"team"`
		}](), `"team"`},
		{"a name of Meta by default", check[struct{ Revision int }](), `"revision"`},
		{"a name of an adapter", check[struct{ Outbox int }](), `"outbox"`},
		{"the same name twice", check[struct {
			A string `bson:"x"`
			B string `bson:"x"`
		}](), "twice"},
		{"an inlined map", check[struct {
			A map[string]string `bson:",inline"`
		}](), "inlined"},
		{"a body that is no struct", check[map[string]string](), "struct"},
		{"an index on nothing", check[flat](on("nothing")), `"nothing"`},
		{"an index on a field by its Go name", check[flat](on("Name")), `"Name"`},
		{"an index on a skipped field", check[flat](on("skip")), `"skip"`},
		{"an index on a struct", check[flat](on("inner")), "cannot be indexed"},
		{"an index on a float", check[flat](on("money")), "cannot be indexed"},
		{"an array index without saying so", check[flat](on("tags")), "cannot be indexed"},
		{"a scalar declared as an array", check[flat](docstore.Index{Fields: []string{"name"}, Array: "name"}), "slice of strings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.check()
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, "BAD_SPEC", errs.ReasonOf(err))
			require.Equal(t, errs.Invalid, errs.KindOf(err))
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestEncodingKeepsWhatADatabaseKeeps(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	when := time.Date(2026, 11, 22, 11, 0, 0, 1_999_999, berlin)
	d := docstore.Doc[flat]{Meta: docstore.Meta{ID: "a", Revision: 1, CreatedAt: when}, Body: flat{State: "x", When: &when}}
	raw, err := docstore.Encode(&d)
	require.NoError(t, err)
	got, err := docstore.Decode[flat](raw)
	require.NoError(t, err)
	want := time.Date(2026, 11, 22, 10, 0, 0, 1_000_000, time.UTC)
	require.Equal(t, want, got.CreatedAt)
	require.Equal(t, want, *got.Body.When)
	require.Equal(t, []string{}, got.Body.Tags)
	require.Equal(t, []docstore.Kept{}, got.Kept)
	_, err = docstore.Decode[flat]([]byte("noise"))
	require.Equal(t, "CORRUPT_DOCUMENT", errs.ReasonOf(err))
	_, err = docstore.Encode(&docstore.Doc[struct{ F func() }]{})
	require.Equal(t, "BAD_DOCUMENT", errs.ReasonOf(err))
}

func TestAFieldIsReadFromAnEncodedDocument(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123).UTC()
	raw, err := bson.Marshal(bson.D{
		{Key: "s", Value: "x"}, {Key: "b", Value: true}, {Key: "i", Value: int32(7)}, {Key: "l", Value: int64(1 << 40)}, {Key: "t", Value: now},
		{Key: "a", Value: bson.A{"x", 1, "y"}}, {Key: "n", Value: nil}, {Key: "d", Value: bson.D{}}, {Key: "f", Value: 1.5},
	})
	require.NoError(t, err)
	for name, want := range map[string]any{
		"s": "x", "b": true, "i": int64(7), "l": int64(1 << 40), "t": now, "a": []string{"x", "y"}, "n": nil, "d": nil, "f": nil,
	} {
		got, ok := docstore.Field(raw, name)
		require.True(t, ok, name)
		require.Empty(t, cmp.Diff(want, got), name)
	}
	_, ok := docstore.Field(raw, "nothing")
	require.False(t, ok)
	_, ok = docstore.Field([]byte("noise"), "s")
	require.False(t, ok)
}

package listing_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		name        string
		asked       int32
		want        int
		isForbidden bool
	}{
		{"none is 100", 0, 100, false},
		{"the smallest", 1, 1, false},
		{"the largest", 1000, 1000, false},
		{"too large", 1001, 0, true},
		{"negative", -1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := listing.Size(c.asked)
			require.Equal(t, c.want, got)
			require.Equal(t, c.isForbidden, errs.ReasonOf(err) == "BAD_PAGE_SIZE")
		})
	}
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name, filter string
		want         map[string]string
		bad          string // in the message
	}{
		{"nothing", "", map[string]string{}, ""},
		{"blanks", "  ", map[string]string{}, ""},
		{"one term", "state=issued", map[string]string{"state": "issued"}, ""},
		{"two terms, with blanks and quotes", ` state = "issued"  AND  tags=billing=1234 `, map[string]string{"state": "issued", "tags": "billing=1234"}, ""},
		{"the word AND in quotes", `state="a AND b=c" AND tags=x`, map[string]string{"state": "a AND b=c", "tags": "x"}, ""},
		{"a field that is not allowed", "owner=x", nil, "allowed are state, tags"},
		{"a field twice", "state=a AND state=b", nil, "twice"},
		{"no value", "state=", nil, "field=value"},
		{"an empty value", `state=""`, nil, "field=value"},
		{"no comparison", "state", nil, "field=value"},
		{"an open quote", `state="a AND tags=x`, nil, "field=value"},
		{"nothing after AND", "state=a AND ", nil, "field=value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := listing.Filter(c.filter, "state", "tags")
			if c.bad != "" {
				require.Equal(t, "BAD_FILTER", errs.ReasonOf(err))
				require.ErrorContains(t, err, c.bad)
				return
			}
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(c.want, got))
		})
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`state="a AND b" AND tags=x=y`)
	f.Fuzz(func(t *testing.T, filter string) {
		got, err := listing.Filter(filter, "state", "tags")
		if err != nil {
			require.Equal(t, errs.Invalid, errs.KindOf(err))
			return
		}
		for name, value := range got {
			require.Contains(t, []string{"state", "tags"}, name)
			require.NotEmpty(t, value)
		}
	})
}

func TestTheFirstTermIsLookedUpAndTheOthersFilter(t *testing.T) {
	cond := func(field, value string) docstore.Cond {
		return docstore.Cond{Field: field, Op: docstore.Eq, Value: value}
	}
	got := listing.By(docstore.Query{Limit: 7}, listing.Term{"owner", ""}, listing.Term{"state", "issued"}, listing.Term{"team", "web"}, listing.Term{"tag", ""})
	require.Empty(t, cmp.Diff(docstore.Query{Limit: 7, Where: []docstore.Cond{cond("state", "issued")}, Filter: []docstore.Cond{cond("team", "web")}}, got))
	require.Empty(t, cmp.Diff(docstore.Query{}, listing.By(docstore.Query{}, listing.Term{"team", ""})))
}

func TestRows(t *testing.T) {
	docs := []docstore.Doc[int]{{Meta: docstore.Meta{ID: "a"}}, {Meta: docstore.Meta{ID: "b"}}}
	require.Equal(t, []string{"a", "b"}, listing.Rows(docs, func(d docstore.Doc[int]) string { return d.ID }))
}

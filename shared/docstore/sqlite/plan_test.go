package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
)

// Every query walks its index in order: no scan of the table, and nothing to sort.
func TestQueriesWalkTheirIndex(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, Options{Path: filepath.Join(t.TempDir(), "store.db")})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.NoError(t, s.Ensure(ctx, docstoretest.Spec()))
	c, err := s.of("widgets")
	require.NoError(t, err)
	cond := func(field string, op docstore.Op, value any) docstore.Cond {
		return docstore.Cond{Field: field, Op: op, Value: value}
	}
	now := time.UnixMilli(0)
	for _, row := range []struct {
		name  string
		where []docstore.Cond
		want  string // the index
	}{
		{"everything", nil, "sqlite_autoindex_c_widgets_1"},
		{"a range of ids", []docstore.Cond{cond("_id", docstore.Gt, "x")}, "sqlite_autoindex_c_widgets_1"},
		{"what is due", []docstore.Cond{cond("due_at", docstore.Lte, now)}, "i:widgets:due_at"},
		{"what changed", []docstore.Cond{cond("changed_at", docstore.Gte, now)}, "i:widgets:changed_at"},
		{"an equality", []docstore.Cond{cond("state", docstore.Eq, "x")}, "i:widgets:state,size"},
		{"an equality and a range", []docstore.Cond{cond("state", docstore.Eq, "x"), cond("size", docstore.Gt, 1)}, "i:widgets:state,size"},
		{"a prefix", []docstore.Cond{cond("name", docstore.Prefix, "x")}, "i:widgets:name"},
		{"a unique value", []docstore.Cond{cond("key", docstore.Eq, "x")}, "i:widgets:key"},
		{"membership", []docstore.Cond{cond("tags", docstore.Has, "x")}, "i:x:widgets:tags,name"},
		{"membership in a team", []docstore.Cond{cond("tags", docstore.Has, "x"), cond("team", docstore.Eq, "x")}, "i:x:widgets:team,tags"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, desc := range []bool{false, true} {
				q := docstore.Query{Where: row.where, Desc: desc}
				p, err := c.schema.Plan(q)
				require.NoError(t, err)
				for _, after := range []*plan.Position{nil, {Value: "x", ID: "x"}} {
					p.After = after
					sql, args := c.statement(p)
					explain(t, s, sql, args, row.want)
				}
			}
		})
	}
}

func explain(t *testing.T, s *Store, sql string, args []any, want string) {
	t.Helper()
	var steps string
	require.NoError(t, s.read(context.Background(), func(conn *sqlite.Conn) error {
		return query(conn, "EXPLAIN QUERY PLAN "+sql, args, func(st *sqlite.Stmt) error {
			steps += st.ColumnText(3) + "; "
			return nil
		})
	}))
	require.Contains(t, steps, want)
	require.NotContains(t, steps, "TEMP B-TREE")
	require.NotContains(t, steps, "AUTOMATIC")
}

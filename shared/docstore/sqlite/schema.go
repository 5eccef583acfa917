package sqlite

import (
	"context"
	"slices"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
)

// collection is a table as this program declared it.
type collection struct {
	schema *plan.Schema
	table  string // quoted
	sqlGet string
}

// layout is a table as the file has it: also with indexes that another version of the program declared, so that they stay
// true. It belongs to the writer goroutine.
type layout struct {
	*collection
	indexes []plan.Index
	scalars []string // columns f_…
}

func indexName(collection, index string) string { return "i:" + collection + ":" + index }

func sideTable(collection, index string) string { return "x:" + collection + ":" + index }

// Ensure implements docstore.Store. New indexes are filled from the documents in the same transaction.
func (s *Store) Ensure(ctx context.Context, spec docstore.Spec) error {
	schema, err := plan.New(spec)
	if err != nil {
		return err
	}
	c := &collection{schema: schema, table: quote("c_" + schema.Name)}
	c.sqlGet = "SELECT c.doc FROM " + c.table + " c WHERE c.id = ?"
	return s.write(ctx, &request{quiet: true, run: func(conn *sqlite.Conn) error {
		s.seen.schema = 0 // read all layouts again after this transaction, whatever becomes of it
		err := run(conn, "CREATE TABLE IF NOT EXISTS "+c.table+" (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, doc BLOB NOT NULL)")
		if err != nil {
			return err
		}
		l := &layout{collection: c}
		if err := l.load(conn); err != nil {
			return err
		}
		for _, ix := range schema.Indexes {
			if err := l.ensure(conn, ix); err != nil {
				return err
			}
		}
		s.layouts[schema.Name] = l
		return nil
	}, committed: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.collections[schema.Name] = c
	}})
}

// load reads from the catalog which indexes the file has.
func (l *layout) load(conn *sqlite.Conn) error {
	l.indexes, l.scalars = nil, nil
	return query(conn, "SELECT name, fields, array_field, is_unique FROM catalog WHERE collection = ? ORDER BY name",
		[]any{l.schema.Name}, func(st *sqlite.Stmt) error {
			l.add(plan.Index{Name: st.ColumnText(0), Index: docstore.Index{
				Fields: strings.Split(st.ColumnText(1), ","), Array: st.ColumnText(2), Unique: st.ColumnBool(3),
			}})
			return nil
		})
}

func (l *layout) add(ix plan.Index) {
	l.indexes = append(l.indexes, ix)
	if ix.Array != "" {
		return
	}
	for _, f := range ix.Fields {
		if !slices.Contains(l.scalars, f) {
			l.scalars = append(l.scalars, f)
		}
	}
}

// ensure makes one index with its columns, if the file has none of this name.
func (l *layout) ensure(conn *sqlite.Conn, ix plan.Index) error {
	for _, has := range l.indexes {
		if has.Name == ix.Name {
			if has.Unique != ix.Unique || has.Array != ix.Array {
				return plan.IndexChanged(l.schema.Name, ix.Name)
			}
			return nil
		}
	}
	err := run(conn, "INSERT INTO catalog (collection, name, fields, array_field, is_unique) VALUES (?, ?, ?, ?, ?)",
		l.schema.Name, ix.Name, strings.Join(ix.Fields, ","), ix.Array, ix.Unique)
	if err != nil {
		return err
	}
	known := slices.Clone(l.scalars)
	l.add(ix)
	if ix.Array != "" {
		return l.ensureSide(conn, ix)
	}
	var fresh, columns []string
	for _, f := range ix.Fields {
		columns = append(columns, columnOf(f))
		if slices.Contains(known, f) {
			continue
		}
		fresh = append(fresh, f)
		if err := run(conn, "ALTER TABLE "+l.table+" ADD COLUMN "+columnOf(f)+" DEFAULT -9223372036854775808"); err != nil {
			return err
		}
	}
	if len(fresh) > 0 {
		err := l.each(conn, func(d *plan.Doc) error { return l.fill(conn, d, fresh) })
		if err != nil {
			return err
		}
	}
	unique := ""
	if ix.Unique {
		unique = "UNIQUE "
	} else {
		columns = append(columns, "id")
	}
	err = run(conn, "CREATE "+unique+"INDEX "+quote(indexName(l.schema.Name, ix.Name))+" ON "+l.table+" ("+
		strings.Join(columns, ", ")+")")
	return l.duplicate(conn, err, "")
}

// ensureSide makes and fills the table of an index with an array field.
func (l *layout) ensureSide(conn *sqlite.Conn, ix plan.Index) error {
	side := sideTable(l.schema.Name, ix.Name)
	columns := make([]string, len(ix.Fields))
	for i, f := range ix.Fields {
		columns[i] = columnOf(f)
	}
	list := strings.Join(columns, ", ")
	for _, q := range []string{
		"CREATE TABLE " + quote(side) + " (id TEXT NOT NULL, " + list + ")",
		"CREATE INDEX " + quote("i:"+side) + " ON " + quote(side) + " (" + list + ", id)",
		"CREATE INDEX " + quote("d:"+side) + " ON " + quote(side) + " (id)",
	} {
		if err := run(conn, q); err != nil {
			return err
		}
	}
	return l.each(conn, func(d *plan.Doc) error { return l.putSide(conn, ix, nil, d) })
}

// each calls f for every document; f may write, so the ids are walked in portions.
func (l *layout) each(conn *sqlite.Conn, f func(*plan.Doc) error) error {
	last := ""
	for {
		var portion []*plan.Doc
		err := query(conn, "SELECT c.doc FROM "+l.table+" c WHERE c.id > ? ORDER BY c.id LIMIT 500", []any{last},
			func(st *sqlite.Stmt) error {
				d, err := plan.Parse(blob(st, 0))
				portion = append(portion, d)
				return err
			})
		if err != nil {
			return err
		}
		for _, d := range portion {
			if err := f(d); err != nil {
				return err
			}
			last = d.ID
		}
		if len(portion) == 0 {
			return nil
		}
	}
}

func (l *layout) fill(conn *sqlite.Conn, d *plan.Doc, fields []string) error {
	set := make([]string, len(fields))
	args := make([]any, 0, len(fields)+1)
	for i, f := range fields {
		set[i] = columnOf(f) + " = ?"
		args = append(args, d.Scalar(f))
	}
	return run(conn, "UPDATE "+l.table+" SET "+strings.Join(set, ", ")+" WHERE id = ?", append(args, d.ID)...)
}

// putSide brings the rows of one document in the table of an array index from the old document to the new one; nil is none.
func (l *layout) putSide(conn *sqlite.Conn, ix plan.Index, old, d *plan.Doc) error {
	if old != nil && d != nil && sameFields(ix, old, d) {
		return nil
	}
	side := quote(sideTable(l.schema.Name, ix.Name))
	if old != nil {
		if err := run(conn, "DELETE FROM "+side+" WHERE id = ?", old.ID); err != nil {
			return err
		}
	}
	if d == nil {
		return nil
	}
	sql := "INSERT INTO " + side + " VALUES (?" + strings.Repeat(", ?", len(ix.Fields)) + ")"
	for _, member := range d.Strings(ix.Array) {
		args := []any{d.ID}
		for _, f := range ix.Fields {
			if f == ix.Array {
				args = append(args, member)
			} else {
				args = append(args, d.Scalar(f))
			}
		}
		if err := run(conn, sql, args...); err != nil {
			return err
		}
	}
	return nil
}

func sameFields(ix plan.Index, a, b *plan.Doc) bool {
	for _, f := range ix.Fields {
		if f == ix.Array {
			if !slices.Equal(a.Strings(f), b.Strings(f)) {
				return false
			}
		} else if a.Scalar(f) != b.Scalar(f) {
			return false
		}
	}
	return true
}

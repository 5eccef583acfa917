package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

// errStop ends a query early without being a failure.
var errStop = errors.New("stop")

// missing stands in a column for a field that is null or not there. It sorts before every value, as null does in BSON, and, unlike NULL,
// compares with everything.
const missing = math.MinInt64

// query runs one statement, cached by its text, and calls row for each row of the result.
func query(conn *sqlite.Conn, sql string, args []any, row func(*sqlite.Stmt) error) (err error) {
	st, err := conn.Prepare(sql)
	if err != nil {
		return err
	}
	defer func() {
		if err2 := st.Reset(); err == nil {
			err = err2
		}
	}()
	for i, a := range args {
		bind(st, i+1, a)
	}
	for {
		more, err := st.Step()
		if err != nil || !more {
			return err
		}
		if row == nil {
			continue
		}
		if err := row(st); err != nil {
			return err
		}
	}
}

// run is query without a result.
func run(conn *sqlite.Conn, sql string, args ...any) error { return query(conn, sql, args, nil) }

// bind binds the values that documents and plans have; everything else is a missing value.
func bind(st *sqlite.Stmt, i int, v any) {
	switch x := v.(type) {
	case string:
		st.BindText(i, x)
	case []byte:
		st.BindBytes(i, x)
	case int:
		st.BindInt64(i, int64(x))
	case int64:
		st.BindInt64(i, x)
	case bool:
		st.BindBool(i, x)
	case time.Time:
		st.BindInt64(i, x.UnixMilli())
	default:
		st.BindInt64(i, missing)
	}
}

func blob(st *sqlite.Stmt, column int) []byte {
	b := make([]byte, st.ColumnLen(column))
	st.ColumnBytes(column, b)
	return b
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func columnOf(field string) string { return quote("f_" + field) }

// selection is FROM and WHERE of a plan with their values. The collection is c, the table of an array index x.
func (c *collection) selection(p *plan.Plan) (sql string, args []any) {
	from := "FROM " + c.table + " c"
	switch {
	case p.Index == nil:
	case p.Index.Array != "":
		side := sideTable(c.schema.Name, p.Index.Name)
		from = "FROM " + quote(side) + " x INDEXED BY " + quote("i:"+side) + " CROSS JOIN " + c.table + " c ON c.id = x.id"
	default:
		from += " INDEXED BY " + quote(indexName(c.schema.Name, p.Index.Name))
	}
	var where []string
	add := func(cond string, values ...any) {
		where = append(where, cond)
		args = append(args, values...)
	}
	for _, e := range p.Equal {
		column := c.column(p, e.Field)
		if len(e.Values) == 1 {
			add(column+" = ?", e.Values[0])
			continue
		}
		list, _ := json.Marshal(e.Values) // strings only; they always encode
		add(column+" IN (SELECT value FROM json_each(?))", string(list))
	}
	order := c.column(p, p.Order)
	if p.Low != nil {
		add(order+pick(p.Low.Inclusive, " >= ?", " > ?"), p.Low.Value)
	}
	if p.High != nil {
		add(order+pick(p.High.Inclusive, " <= ?", " < ?"), p.High.Value)
	}
	switch _, text := rangeValue(p).(string); {
	case text && p.Low == nil:
		add(order + " >= ''") // not the missing ones
	case text && p.High == nil:
	case p.High != nil && p.Low == nil:
		add(order+" > ?", int64(missing))
	case p.Low != nil && p.High == nil:
		add(order + " < ''") // numbers only
	}
	if p.After != nil {
		compare := pick(p.Desc, "<", ">")
		if p.Order == plan.ID {
			add(order+" "+compare+" ?", p.After.ID)
		} else {
			add("("+order+", "+c.column(p, plan.ID)+") "+compare+" (?, ?)", p.After.Value, p.After.ID)
		}
	}
	sql = from
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql, args
}

// statement reads the documents of a plan in its order.
func (c *collection) statement(p *plan.Plan) (sql string, args []any) {
	from, args := c.selection(p)
	direction := pick(p.Desc, " DESC", "")
	order := " ORDER BY " + c.column(p, p.Order) + direction
	if p.Order != plan.ID {
		order += ", " + c.column(p, plan.ID) + direction
	}
	return "SELECT c.doc " + from + order + " LIMIT ?", append(args, p.Rows())
}

func rangeValue(p *plan.Plan) any {
	switch {
	case p.Low != nil:
		return p.Low.Value
	case p.High != nil:
		return p.High.Value
	default:
		return nil
	}
}

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// column names the column of a field in the table that the plan walks.
func (c *collection) column(p *plan.Plan, field string) string {
	alias := "c."
	if p.Index != nil && p.Index.Array != "" {
		alias = "x."
	}
	if field == plan.ID {
		return alias + "id"
	}
	return alias + columnOf(field)
}

// retryBusy repeats f while another process holds what it needs, for at most lockTimeout.
func retryBusy(ctx context.Context, f func() error) error {
	const least, most = 250 * time.Microsecond, 2 * time.Millisecond
	pause := least
	for waited := time.Duration(0); ; waited += pause {
		err := f()
		if err == nil || !busy(err) || waited > lockTimeout {
			return err
		}
		if clock.System().Sleep(ctx, pause) != nil {
			return err
		}
		pause = min(2*pause, most)
	}
}

func busy(err error) bool {
	code := sqlite.ErrCode(err).ToPrimary()
	return code == sqlite.ResultBusy || code == sqlite.ResultLocked || code == sqlite.ResultProtocol
}

// classify brings an error of SQLite to the kinds of errs; classified ones pass.
func classify(ctx context.Context, err error) error {
	if err == nil || errs.As(err) != nil {
		return err
	}
	if ctx.Err() != nil {
		return plan.Ctx(ctx, err)
	}
	switch code := sqlite.ErrCode(err).ToPrimary(); {
	case busy(err):
		return errs.New(errs.Unavailable, "STORE_BUSY", "another process holds the store: %w", err)
	case code == sqlite.ResultFull || code == sqlite.ResultIOErr || code == sqlite.ResultCantOpen ||
		code == sqlite.ResultReadOnly || code == sqlite.ResultPerm || code == sqlite.ResultNoMem:
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "the store's file cannot be used: %w", err)
	case code == sqlite.ResultCorrupt || code == sqlite.ResultNotADB:
		return errs.New(errs.Internal, "STORE_CORRUPT", "the store's file is damaged: %w", err)
	default:
		return errs.New(errs.Internal, "", "store: %w", err)
	}
}

// duplicate turns a violated uniqueness into the error that says of what. A document inserted a second time violates its unique
// indexes too, but the answer is that its id is there; inserted is empty for other writes.
func (l *layout) duplicate(conn *sqlite.Conn, err error, inserted string) error {
	code := sqlite.ErrCode(err)
	if code == sqlite.ResultConstraintPrimaryKey {
		return plan.DuplicateID(l.schema.Name, inserted)
	}
	if code != sqlite.ResultConstraintUnique {
		return err
	}
	if inserted != "" {
		there := query(conn, l.sqlGet, []any{inserted}, func(*sqlite.Stmt) error { return errStop })
		if there == errStop { //nolint:errorlint // the sentinel is never wrapped
			return plan.DuplicateID(l.schema.Name, inserted)
		}
	}
	_, columns, _ := strings.Cut(err.Error(), "UNIQUE constraint failed: ")
	for _, ix := range l.indexes {
		if ix.Unique && columns == violated(l.schema.Name, ix) {
			return plan.DuplicateKey(l.schema.Name, ix.Name)
		}
	}
	return err
}

// violated is how SQLite names the columns of an index in its message.
func violated(collection string, ix plan.Index) string {
	columns := make([]string, len(ix.Fields))
	for i, f := range ix.Fields {
		columns[i] = "c_" + collection + ".f_" + f
	}
	return strings.Join(columns, ", ")
}

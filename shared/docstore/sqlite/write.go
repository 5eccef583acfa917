package sqlite

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

// maxBatch is how many writes one transaction takes at most.
const maxBatch = 512

// The states of a request: in the queue, taken by the writer, or given up by its caller.
const (
	queued int32 = iota
	taken
	abandoned
)

// request is one write in the queue.
type request struct {
	run       func(*sqlite.Conn) error // inside the transaction, in a savepoint of its own
	committed func()                   // after the commit, before the caller is answered; may be nil
	quiet     bool                     // does not count as a write
	state     atomic.Int32
	err       error
	done      chan struct{}
}

// versions are the file's counters by which changes of other connections are seen.
type versions struct{ schema, data int64 }

// write queues the request and waits for the answer. A context that ends before the writer took it up takes it back;
// after that the answer is waited for, because only it says what happened.
func (s *Store) write(ctx context.Context, r *request) error {
	r.done = make(chan struct{})
	if err := s.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(queued, abandoned) {
			return plan.Ctx(ctx, ctx.Err())
		}
		<-r.done
	}
	return r.err
}

func (s *Store) enqueue(ctx context.Context, r *request) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return plan.Closed()
	}
	if ctx.Err() != nil {
		return plan.Ctx(ctx, ctx.Err())
	}
	select {
	case s.queue <- r:
		return nil
	case <-ctx.Done():
		return plan.Ctx(ctx, ctx.Err())
	}
}

// writer is the one goroutine that writes. While it commits, the next writes gather in the queue.
func (s *Store) writer() {
	defer close(s.done)
	for r := range s.queue {
		s.batch(r)
	}
}

// batch writes the request and everything else that waits in one transaction and answers them all.
func (s *Store) batch(first *request) {
	ctx := context.Background()
	if err := s.begin(ctx); err != nil {
		answer(s.gather(first), classify(ctx, err))
		return
	}
	others, err := s.refresh()
	if err != nil {
		answer(s.gather(first), classify(ctx, rollback(s.conn, err)))
		return
	}
	all := s.gather(first)
	good := make([]*request, 0, len(all))
	for _, r := range all {
		if len(all) == 1 { // its failure undoes the transaction, and nothing else is in it
			r.err = classify(ctx, r.run(s.conn))
		} else {
			r.err = s.apply(r)
		}
		if s.conn.AutocommitEnabled() { // a full disk and the like end the whole transaction
			s.seen = versions{}
			answer(all, r.err)
			return
		}
		if r.err == nil {
			good = append(good, r)
		}
	}
	if err := s.commit(good); err != nil {
		s.seen = versions{}
		err = classify(ctx, rollback(s.conn, err))
		for _, r := range good {
			r.err = err
		}
	}
	for _, r := range all {
		close(r.done)
	}
	if others && len(s.queue) > 0 {
		// Another process writes too: leave the lock alone for longer than its pause between two attempts.
		_ = clock.System().Sleep(ctx, 2*time.Millisecond)
	}
}

// gather takes up what waits, without waiting.
func (s *Store) gather(first *request) []*request {
	var all []*request
	if first.state.CompareAndSwap(queued, taken) {
		all = append(all, first)
	}
	// Callers that were just answered are about to come back with their next write: let them run first, once.
	runtime.Gosched()
	for len(all) < maxBatch {
		select {
		case r, ok := <-s.queue:
			if !ok {
				return all
			}
			if r.state.CompareAndSwap(queued, taken) {
				all = append(all, r)
			}
		default:
			return all
		}
	}
	return all
}

func (s *Store) commit(good []*request) error {
	if len(good) == 0 {
		return run(s.conn, "ROLLBACK")
	}
	if err := run(s.conn, "COMMIT"); err != nil {
		return err
	}
	s.commits.Add(1)
	for _, r := range good {
		if !r.quiet {
			s.writes.Add(1)
		}
		if r.committed != nil {
			r.committed()
		}
	}
	return nil
}

func answer(all []*request, err error) {
	for _, r := range all {
		r.err = err
		close(r.done)
	}
}

// apply runs one request so that its failure undoes nothing but itself.
func (s *Store) apply(r *request) error {
	ctx := context.Background()
	if err := run(s.conn, "SAVEPOINT w"); err != nil {
		return classify(ctx, err)
	}
	err := r.run(s.conn)
	if err != nil && !s.conn.AutocommitEnabled() {
		if err2 := run(s.conn, "ROLLBACK TO w"); err2 != nil {
			return classify(ctx, err2)
		}
	}
	if !s.conn.AutocommitEnabled() {
		if err2 := run(s.conn, "RELEASE w"); err == nil {
			err = err2
		}
	}
	return classify(ctx, err)
}

// begin takes the write lock of the file, waiting while another process has it.
func (s *Store) begin(ctx context.Context) error {
	return retryBusy(ctx, func() error { return run(s.conn, "BEGIN IMMEDIATE") })
}

func rollback(conn *sqlite.Conn, cause error) error {
	if !conn.AutocommitEnabled() {
		_ = run(conn, "ROLLBACK") // the cause says more
	}
	return cause
}

// refresh looks whether others wrote since the last transaction, and reads the catalog again if they changed the schema.
func (s *Store) refresh() (others bool, err error) {
	var now versions
	for sql, into := range map[string]*int64{"PRAGMA schema_version": &now.schema, "PRAGMA data_version": &now.data} {
		err := query(s.conn, sql, nil, func(st *sqlite.Stmt) error {
			*into = st.ColumnInt64(0)
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	if now.schema != s.seen.schema {
		for _, l := range s.layouts {
			if err := l.load(s.conn); err != nil {
				return false, err
			}
		}
	}
	others = now.data != s.seen.data
	s.seen = now
	return others, nil
}

// Insert implements docstore.Store.
func (s *Store) Insert(ctx context.Context, collection string, raw docstore.Raw, entries []docstore.Entry) error {
	c, doc, rows, err := s.prepare(collection, raw, entries)
	if err != nil {
		return err
	}
	if err := c.schema.CheckUnique(doc); err != nil {
		return err
	}
	return s.write(ctx, &request{run: func(conn *sqlite.Conn) error {
		l := s.layouts[collection]
		var columns strings.Builder
		args := []any{doc.ID, doc.Revision, doc.Raw}
		for _, f := range l.scalars {
			columns.WriteString(", " + columnOf(f))
			args = append(args, doc.Scalar(f))
		}
		err := run(conn, "INSERT INTO "+c.table+" (id, revision, doc"+columns.String()+") VALUES (?, ?, ?"+
			strings.Repeat(", ?", len(l.scalars))+")", args...)
		if err != nil {
			return l.duplicate(conn, err, doc.ID)
		}
		return l.finish(conn, nil, doc, rows)
	}})
}

// Update implements docstore.Store.
func (s *Store) Update(ctx context.Context, collection string, guard int64, raw docstore.Raw, entries []docstore.Entry) error {
	c, doc, rows, err := s.prepare(collection, raw, entries)
	if err != nil {
		return err
	}
	if err := plan.CheckUpdate(doc, guard); err != nil {
		return err
	}
	return s.write(ctx, &request{run: func(conn *sqlite.Conn) error {
		l := s.layouts[collection]
		old, err := c.at(conn, doc.ID, guard)
		if err != nil {
			return err
		}
		merged := plan.Merge(old, doc)
		if err := c.schema.CheckUnique(merged); err != nil {
			return err
		}
		set := "revision = ?, doc = ?"
		args := []any{merged.Revision, merged.Raw}
		for _, f := range l.scalars {
			if v := merged.Scalar(f); v != old.Scalar(f) {
				set += ", " + columnOf(f) + " = ?"
				args = append(args, v)
			}
		}
		if err := run(conn, "UPDATE "+c.table+" SET "+set+" WHERE id = ?", append(args, doc.ID)...); err != nil {
			return l.duplicate(conn, err, "")
		}
		return l.finish(conn, old, merged, rows)
	}})
}

// Remove implements docstore.Store.
func (s *Store) Remove(ctx context.Context, collection, id string, guard int64) error {
	c, err := s.of(collection)
	if err != nil {
		return err
	}
	return s.write(ctx, &request{run: func(conn *sqlite.Conn) error {
		old, err := c.at(conn, id, guard)
		if err != nil {
			return err
		}
		err = query(conn, "SELECT 1 FROM outbox WHERE collection = ? AND doc = ? LIMIT 1", []any{collection, id},
			func(*sqlite.Stmt) error { return plan.OutboxPending(collection, id) })
		if err != nil {
			return err
		}
		if err := run(conn, "DELETE FROM "+c.table+" WHERE id = ?", id); err != nil {
			return err
		}
		return s.layouts[collection].finish(conn, old, nil, nil)
	}})
}

// Clear implements docstore.Store. It is one write, however many entries.
func (s *Store) Clear(ctx context.Context, sent []docstore.Pending) error {
	if len(sent) == 0 {
		return nil
	}
	return s.write(ctx, &request{run: func(conn *sqlite.Conn) error {
		for _, p := range sent {
			err := run(conn, "DELETE FROM outbox WHERE collection = ? AND doc = ? AND entry_id = ? AND msg_id = ?",
				p.Collection, p.DocID, p.Entry.ID, p.Entry.MsgID)
			if err != nil {
				return err
			}
		}
		return nil
	}})
}

// outboxRow is an encoded entry.
type outboxRow struct {
	id, msgID string
	entry     []byte
}

// prepare does what needs no connection, so that the writer goroutine does not have to.
func (s *Store) prepare(collection string, raw docstore.Raw, entries []docstore.Entry) (*collection, *plan.Doc, []outboxRow, error) {
	c, err := s.of(collection)
	if err != nil {
		return nil, nil, nil, err
	}
	doc, err := plan.Parse(raw)
	if err != nil {
		return nil, nil, nil, err
	}
	rows := make([]outboxRow, 0, len(entries))
	for _, e := range entries {
		encoded, err := plan.EncodeEntry(e)
		if err != nil {
			return nil, nil, nil, err
		}
		rows = append(rows, outboxRow{id: e.ID, msgID: e.MsgID, entry: encoded})
	}
	return c, doc, rows, nil
}

// at returns the document if its revision is still guard.
func (c *collection) at(conn *sqlite.Conn, id string, guard int64) (*plan.Doc, error) {
	var raw docstore.Raw
	err := query(conn, c.sqlGet, []any{id}, func(st *sqlite.Stmt) error {
		raw = blob(st, 0)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, plan.NotFound(c.schema.Name, id)
	}
	doc, err := plan.Parse(raw)
	if err != nil {
		return nil, errs.New(errs.Internal, "CORRUPT_DOCUMENT", "document %q: %w", id, err)
	}
	if doc.Revision != guard {
		return nil, plan.Moved(c.schema.Name, id, guard)
	}
	return doc, nil
}

// finish writes what goes with a document: its rows in the tables of array indexes, and its outbox.
func (l *layout) finish(conn *sqlite.Conn, old, doc *plan.Doc, rows []outboxRow) error {
	for _, ix := range l.indexes {
		if ix.Array == "" {
			continue
		}
		if err := l.putSide(conn, ix, old, doc); err != nil {
			return err
		}
	}
	for _, r := range rows {
		err := run(conn, "INSERT INTO outbox (collection, doc, at, entry_id, msg_id, entry) VALUES (?, ?, ?, ?, ?, ?)",
			l.schema.Name, doc.ID, doc.ChangedAt, r.id, r.msgID, r.entry)
		if err != nil {
			return err
		}
	}
	return nil
}

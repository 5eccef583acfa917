// Package sqlite is the embedded docstore adapter: one file, pure Go, every write synced before it is answered.
//
// All writes of a process go through one goroutine that commits together what waits (group commit): many writers share
// one fsync, and a single writer waits for nobody. Several processes may use one file; SQLite's own lock orders their
// transactions. Reads have connections of their own and never wait for a writer.
//
// A collection is a table c_<name> with the document as BSON and one column f_<field> for each indexed field; an index with an array
// field is a table x:<name>:<fields> with a row for each member. Never edit the tables by hand: the columns are copies.
package sqlite

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

const (
	busyTimeout = 10 * time.Second // of readers, and while opening
	lockTimeout = 30 * time.Second // of the writer, for the write lock of the file
	queueLength = 1024
	readers     = 4
)

// Options say where the store is. Path is required; its directory is made with mode 0700, the file with 0600.
type Options struct {
	Path      string
	Clock     clock.Clock // gives the moment in the epoch; nil is the system's
	Recovered bool        // the file was restored from a backup: begin a new epoch
	Readers   int         // connections for reading; 0 means 4
}

// Store is a docstore.Store in one SQLite file.
type Store struct {
	epoch string
	pool  *sqlitex.Pool
	conn  *sqlite.Conn // the writer goroutine's own, like layouts and seen

	layouts map[string]*layout
	seen    versions

	mu          sync.RWMutex // guards collections
	collections map[string]*collection

	gate   sync.RWMutex // held for reading while a request enters the queue, for writing to close it
	closed bool
	queue  chan *request
	done   chan struct{} // closed when the writer goroutine has ended

	writes, commits atomic.Int64
}

var _ docstore.Store = (*Store)(nil)

// Open opens or makes the store. Errors are Invalid (BAD_PATH), Unavailable and Internal (STORE_CORRUPT).
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Path == "" || o.Path == ":memory:" {
		return nil, errs.New(errs.Invalid, "BAD_PATH", "the store needs a file, not %q", o.Path)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	if o.Readers < 1 {
		o.Readers = readers
	}
	if err := touch(o.Path); err != nil {
		return nil, err
	}
	conn, err := openWriter(ctx, o.Path)
	if err != nil {
		return nil, classify(ctx, err)
	}
	s := &Store{
		conn: conn, layouts: map[string]*layout{}, collections: map[string]*collection{},
		queue: make(chan *request, queueLength), done: make(chan struct{}),
	}
	if err := s.prepareFile(ctx, o); err != nil {
		_ = conn.Close()
		return nil, classify(ctx, err)
	}
	s.pool, err = sqlitex.NewPool(o.Path, sqlitex.PoolOptions{
		Flags: sqlite.OpenReadWrite, PoolSize: o.Readers, PrepareConn: prepareReader,
	})
	if err != nil {
		_ = conn.Close()
		return nil, classify(ctx, err)
	}
	go s.writer()
	return s, nil
}

// touch makes the file before SQLite does, so that it and its -wal and -shm are the owner's alone.
func touch(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "make the store's directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the configuration names the file
	if err != nil {
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "open the store: %w", err)
	}
	if err := f.Close(); err != nil {
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "open the store: %w", err)
	}
	return nil
}

// openWriter turns the write-ahead log on; another process doing the same at this moment makes it busy.
func openWriter(ctx context.Context, path string) (*sqlite.Conn, error) {
	var conn *sqlite.Conn
	err := retryBusy(ctx, func() (err error) {
		conn, err = sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenWAL)
		return err
	})
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(busyTimeout)
	// FULL syncs the log at each commit. 16384 pages are 64 MiB of log between two checkpoints.
	for _, pragma := range []string{
		"PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=16384", "PRAGMA cache_size=-16384", "PRAGMA temp_store=MEMORY",
	} {
		if err := sqlitex.ExecuteTransient(conn, pragma, nil); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	conn.SetBusyTimeout(0) // begin waits in a fairer way, and nothing after it can be busy
	return conn, nil
}

func prepareReader(conn *sqlite.Conn) error {
	conn.SetBusyTimeout(busyTimeout)
	if err := sqlitex.ExecuteTransient(conn, "PRAGMA cache_size=-8192", nil); err != nil {
		return err
	}
	return sqlitex.ExecuteTransient(conn, "PRAGMA query_only=1", nil)
}

// prepareFile makes the tables that every store has and reads or begins the epoch.
func (s *Store) prepareFile(ctx context.Context, o Options) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	err := func() error {
		for _, q := range []string{
			`CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)`,
			`CREATE TABLE IF NOT EXISTS catalog (collection TEXT NOT NULL, name TEXT NOT NULL, fields TEXT NOT NULL,
				array_field TEXT NOT NULL, is_unique INTEGER NOT NULL, PRIMARY KEY (collection, name))`,
			`CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, collection TEXT NOT NULL, doc TEXT NOT NULL,
				at INTEGER NOT NULL, entry_id TEXT NOT NULL, msg_id TEXT NOT NULL, entry BLOB NOT NULL)`,
			`CREATE INDEX IF NOT EXISTS outbox_doc ON outbox (collection, doc)`,
		} {
			if err := run(s.conn, q); err != nil {
				return err
			}
		}
		fresh := ulid.MustNew(ulid.Timestamp(o.Clock.Now()), ulid.DefaultEntropy()).String()
		verb := "INSERT OR IGNORE"
		if o.Recovered {
			verb = "INSERT OR REPLACE"
		}
		if err := run(s.conn, verb+" INTO meta (key, value) VALUES ('epoch', ?)", fresh); err != nil {
			return err
		}
		return query(s.conn, "SELECT value FROM meta WHERE key = 'epoch'", nil, func(st *sqlite.Stmt) error {
			s.epoch = st.ColumnText(0)
			return nil
		})
	}()
	if err != nil {
		return rollback(s.conn, err)
	}
	return run(s.conn, "COMMIT")
}

// Epoch implements docstore.Store.
func (s *Store) Epoch() string { return s.epoch }

// Stats returns how many writes succeeded and in how many transactions, which is the number of times the disk was synced.
func (s *Store) Stats() (writes, commits int64) { return s.writes.Load(), s.commits.Load() }

// Close implements docstore.Store: what is in the queue is still written.
func (s *Store) Close() error {
	s.gate.Lock()
	if s.closed {
		s.gate.Unlock()
		return nil
	}
	s.closed = true
	close(s.queue)
	s.gate.Unlock()
	<-s.done
	err := s.pool.Close()
	if err2 := s.conn.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return classify(context.Background(), err)
	}
	return nil
}

func (s *Store) of(name string) (*collection, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := s.collections[name]
	if c == nil {
		return nil, plan.UnknownCollection(name)
	}
	return c, nil
}

// read runs f on a connection for reading.
func (s *Store) read(ctx context.Context, f func(*sqlite.Conn) error) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return plan.Closed()
	}
	conn, err := s.pool.Take(ctx)
	if err != nil {
		return classify(ctx, err)
	}
	defer s.pool.Put(conn)
	return classify(ctx, f(conn))
}

// Get implements docstore.Store.
func (s *Store) Get(ctx context.Context, collection, id string) (docstore.Raw, error) {
	c, err := s.of(collection)
	if err != nil {
		return nil, err
	}
	var doc docstore.Raw
	err = s.read(ctx, func(conn *sqlite.Conn) error {
		return query(conn, c.sqlGet, []any{id}, func(st *sqlite.Stmt) error {
			doc = blob(st, 0)
			return nil
		})
	})
	if err == nil && doc == nil {
		err = plan.NotFound(collection, id)
	}
	return doc, err
}

// Find implements docstore.Store.
func (s *Store) Find(ctx context.Context, collection string, q docstore.Query) (docstore.RawPage, error) {
	c, err := s.of(collection)
	if err != nil {
		return docstore.RawPage{}, err
	}
	p, err := c.schema.Plan(q)
	if err != nil {
		return docstore.RawPage{}, err
	}
	var page docstore.RawPage
	err = s.read(ctx, func(conn *sqlite.Conn) (err error) {
		page, err = p.Collect(rows(conn, c, p))
		return err
	})
	return page, err
}

// Count implements docstore.Store.
func (s *Store) Count(ctx context.Context, collection string, q docstore.Query, limit int) (int, error) {
	q, err := plan.ForCount(q, limit)
	if err != nil {
		return 0, err
	}
	c, err := s.of(collection)
	if err != nil {
		return 0, err
	}
	p, err := c.schema.Plan(q)
	if err != nil {
		return 0, err
	}
	n := 0
	err = s.read(ctx, func(conn *sqlite.Conn) (err error) {
		if p.Filtered() {
			n, err = p.Count(rows(conn, c, p), limit)
			return err
		}
		from, args := c.selection(p)
		return query(conn, "SELECT count(*) FROM (SELECT 1 "+from+" LIMIT ?)", append(args, limit), func(st *sqlite.Stmt) error {
			n = st.ColumnInt(0)
			return nil
		})
	})
	return n, err
}

func rows(conn *sqlite.Conn, c *collection, p *plan.Plan) iter.Seq2[docstore.Raw, error] {
	sql, args := c.statement(p)
	return func(yield func(docstore.Raw, error) bool) {
		err := query(conn, sql, args, func(st *sqlite.Stmt) error {
			if !yield(blob(st, 0), nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop { //nolint:errorlint // the sentinel is never wrapped
			yield(nil, err)
		}
	}
}

// Backup writes a consistent copy of the store to a new file, mode 0600, while reading and writing go on. The copy has the epoch of the store:
// open it with Options.Recovered. A file that is there already is refused.
func (s *Store) Backup(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // an operator names the file
	if err != nil {
		return errs.New(errs.Precondition, "BACKUP_FILE", "the backup's file cannot be made: %w", err)
	}
	err = s.read(ctx, func(conn *sqlite.Conn) error { return backup(conn, path) })
	if err == nil {
		if err2 := f.Sync(); err2 != nil {
			err = errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "sync the backup: %w", err2)
		}
	}
	if err2 := f.Close(); err == nil && err2 != nil {
		err = errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "close the backup: %w", err2)
	}
	if err != nil {
		_ = os.Remove(path) // half a backup is none
	}
	return err
}

// backup fills an empty file; a connection for reading has to be told that this once it may write.
func backup(conn *sqlite.Conn, path string) (err error) {
	if err := run(conn, "PRAGMA query_only=0"); err != nil {
		return err
	}
	defer func() {
		if err2 := run(conn, "PRAGMA query_only=1"); err == nil {
			err = err2
		}
	}()
	return run(conn, "VACUUM INTO ?", path)
}

// Outbox implements docstore.Store.
func (s *Store) Outbox(ctx context.Context, before time.Time, limit int) ([]docstore.Pending, error) {
	g := plan.NewGather(before, limit)
	err := s.read(ctx, func(conn *sqlite.Conn) error {
		err := query(conn, "SELECT collection, doc, at, entry FROM outbox ORDER BY seq", nil, func(st *sqlite.Stmt) error {
			at := time.UnixMilli(st.ColumnInt64(2)).UTC()
			more, err := g.Offer(st.ColumnText(0), st.ColumnText(1), at, func() (docstore.Entry, error) {
				return plan.DecodeEntry(blob(st, 3))
			})
			if err == nil && !more {
				err = errStop
			}
			return err
		})
		if err == errStop { //nolint:errorlint // the sentinel is never wrapped
			return nil
		}
		return err
	})
	return g.Pending(), err
}

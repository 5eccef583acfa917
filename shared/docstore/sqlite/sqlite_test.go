package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/docstore/docstoretest"
	store "github.com/certwright/certwright/shared/docstore/sqlite"
	"github.com/certwright/certwright/shared/errs"
)

const processEnv = "DOCSTORE_SQLITE_PROCESS"

func TestMain(m *testing.M) {
	if path := os.Getenv(processEnv); path != "" {
		os.Exit(secondProcess(path))
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestConformance(t *testing.T) {
	paths := map[docstore.Store]string{}
	docstoretest.Run(t, func(t *testing.T) docstore.Store {
		t.Helper()
		path := filepath.Join(t.TempDir(), "data", "store.db")
		s := open(t, path)
		paths[s] = path
		return s
	}, docstoretest.Capabilities{Concurrent: true, Reopen: func(t *testing.T, s docstore.Store) docstore.Store {
		t.Helper()
		require.NoError(t, s.Close())
		return open(t, paths[s])
	}})
}

func TestTwoStoresOnOneFileShareTheWork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	docstoretest.RaceOver(t, open(t, path), open(t, path))
}

// counter is a body that several processes count up.
type counter struct {
	N    int64  `bson:"n"`
	Name string `bson:"name"`
}

var counters = docstore.Spec{Name: "counters", Indexes: []docstore.Index{{Fields: []string{"n"}}}}

func newCounter(id string) docstore.Doc[counter] {
	return docstore.Doc[counter]{Meta: docstore.Meta{ID: id, Revision: 1, DueAt: clock.Never}}
}

func insert[T any](ctx context.Context, s docstore.Store, collection string, d docstore.Doc[T]) error {
	raw, err := docstore.Encode(&d)
	if err != nil {
		return err
	}
	return s.Insert(ctx, collection, raw, nil)
}

// increment loads, adds one and saves until it succeeds.
func increment(ctx context.Context, s docstore.Store, id string) error {
	for {
		raw, err := s.Get(ctx, "counters", id)
		if err != nil {
			return err
		}
		d, err := docstore.Decode[counter](raw)
		if err != nil {
			return err
		}
		guard := d.Revision
		d.Revision++
		d.Body.N++
		if raw, err = docstore.Encode(&d); err != nil {
			return err
		}
		if err = s.Update(ctx, "counters", guard, raw, nil); errs.KindOf(err) != errs.Conflict || err == nil {
			return err
		}
	}
}

const steps = 100

// secondProcess is the body of a second process that counts up.
func secondProcess(path string) int {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{Path: path})
	if err == nil {
		err = s.Ensure(ctx, counters)
	}
	for range steps {
		if err == nil {
			err = increment(ctx, s, "cnt_1")
		}
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestSeveralProcessesCountUpWithoutLosingAStep(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	require.NoError(t, s.Ensure(ctx, counters))
	require.NoError(t, insert(ctx, s, "counters", newCounter("cnt_1")))
	self, err := os.Executable()
	require.NoError(t, err)
	const processes = 3
	var all sync.WaitGroup
	failures := make(chan error, processes+1)
	for range processes {
		all.Go(func() {
			cmd := exec.CommandContext(ctx, self)
			cmd.Env = append(os.Environ(), processEnv+"="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				failures <- fmt.Errorf("%w: %s", err, out)
			}
		})
	}
	all.Go(func() {
		for range steps {
			if err := increment(ctx, s, "cnt_1"); err != nil {
				failures <- err
				return
			}
		}
	})
	all.Wait()
	close(failures)
	require.NoError(t, <-failures)
	raw, err := s.Get(ctx, "counters", "cnt_1")
	require.NoError(t, err)
	d, err := docstore.Decode[counter](raw)
	require.NoError(t, err)
	require.EqualValues(t, (processes+1)*steps, d.Body.N)
}

func TestConcurrentWritesShareOneCommit(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	require.NoError(t, s.Ensure(ctx, counters))
	for i := range 10 {
		require.NoError(t, insert(ctx, s, "counters", newCounter(fmt.Sprintf("cnt_a%d", i))))
	}
	writes, commits := s.Stats()
	require.EqualValues(t, 10, writes)
	require.EqualValues(t, 11, commits, "a lone writer has a commit each; one is Ensure's")

	const goroutines, each = 32, 50
	var all sync.WaitGroup
	failures := make(chan error, goroutines)
	for g := range goroutines {
		all.Go(func() {
			id := fmt.Sprintf("cnt_b%02d", g)
			err := insert(ctx, s, "counters", newCounter(id))
			for range each {
				if err == nil {
					err = increment(ctx, s, id)
				}
			}
			if err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	close(failures)
	require.NoError(t, <-failures)
	after, commitsAfter := s.Stats()
	require.EqualValues(t, goroutines*(each+1), after-writes)
	require.Less(t, commitsAfter-commits, (after-writes)/2, "at least two writes a sync")
	t.Logf("%d writes in %d commits", after-writes, commitsAfter-commits)
}

func TestAFailingWriteFailsAlone(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	require.NoError(t, s.Ensure(ctx, counters))
	const goroutines = 40
	var all sync.WaitGroup
	outcome := make([]error, goroutines)
	for g := range goroutines {
		all.Go(func() { outcome[g] = insert(ctx, s, "counters", newCounter(fmt.Sprintf("cnt_%02d", g/2))) })
	}
	all.Wait()
	for g := 0; g < goroutines; g += 2 {
		won, lost := outcome[g], outcome[g+1]
		if won != nil {
			won, lost = lost, won
		}
		require.NoError(t, won)
		require.Equal(t, "DUPLICATE_ID", errs.ReasonOf(lost))
	}
	n, err := s.Count(ctx, "counters", docstore.Query{}, 1000)
	require.NoError(t, err)
	require.Equal(t, goroutines/2, n)
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, filepath.Join(dir, "store.db"))
	require.NoError(t, s.Ensure(ctx, counters))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	files, err := filepath.Glob(filepath.Join(dir, "store.db*"))
	require.NoError(t, err)
	require.Len(t, files, 3, "the file, its log and the log's index")
	for _, f := range files {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), f)
	}
}

func TestARecoveredStoreBeginsANewEpoch(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	first := open(t, path)
	require.NoError(t, first.Close())
	second, err := store.Open(ctx, store.Options{Path: path, Recovered: true})
	require.NoError(t, err)
	require.NotEqual(t, first.Epoch(), second.Epoch())
	require.NoError(t, second.Close())
	require.Equal(t, second.Epoch(), open(t, path).Epoch())
}

func TestWhatIsNoStoreIsRefused(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	require.NoError(t, os.WriteFile(path, []byte("this is no database, only text that is long enough"), 0o600))
	_, err := store.Open(ctx, store.Options{Path: path})
	require.Equal(t, "STORE_CORRUPT", errs.ReasonOf(err), "%v", err)
	_, err = store.Open(ctx, store.Options{})
	require.Equal(t, "BAD_PATH", errs.ReasonOf(err), "%v", err)
}

type named struct {
	N    int64    `bson:"n"`
	Name string   `bson:"name"`
	Tags []string `bson:"tags"`
}

// A program one version behind, open on the same file since before the newer one added indexes, has to keep them true.
func TestAnOlderProgramKeepsTheIndexesOfANewerOne(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "store.db")
	older := open(t, path)
	require.NoError(t, older.Ensure(ctx, counters))
	newer := open(t, path)
	spec := docstore.Spec{Name: "counters", Indexes: []docstore.Index{
		{Fields: []string{"n"}}, {Fields: []string{"name"}}, {Fields: []string{"tags"}, Array: "tags"},
	}}
	require.NoError(t, newer.Ensure(ctx, spec))
	d := docstore.Doc[named]{Meta: docstore.Meta{ID: "cnt_1", Revision: 1}, Body: named{Name: "x", Tags: []string{"a"}}}
	require.NoError(t, insert(ctx, older, "counters", d))
	for _, q := range []docstore.Cond{{Field: "name", Op: docstore.Eq, Value: "x"}, {Field: "tags", Op: docstore.Has, Value: "a"}} {
		n, err := newer.Count(ctx, "counters", docstore.Query{Where: []docstore.Cond{q}}, 10)
		require.NoError(t, err)
		require.Equal(t, 1, n, q.Field)
	}
}

// A write waits while another process holds the file, and its caller may give up.
func TestAWriteWaitsForTheLockUntilItsContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	require.NoError(t, s.Ensure(context.Background(), counters))
	other, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	require.NoError(t, sqlitex.ExecuteTransient(other, "BEGIN IMMEDIATE", nil))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err = insert(ctx, s, "counters", newCounter("cnt_1"))
	require.Equal(t, errs.Timeout, errs.KindOf(err), "%v", err)
	done := make(chan error, 1)
	go func() { done <- insert(context.Background(), s, "counters", newCounter("cnt_2")) }()
	_, err = s.Get(context.Background(), "counters", "cnt_1")
	require.Equal(t, errs.NotFound, errs.KindOf(err), "reading does not wait: %v", err)
	require.NoError(t, sqlitex.ExecuteTransient(other, "ROLLBACK", nil))
	require.NoError(t, <-done)
	_, err = s.Get(context.Background(), "counters", "cnt_1")
	require.Equal(t, errs.NotFound, errs.KindOf(err), "what was given up is not written: %v", err)
}

func TestABackupIsAWholeStore(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store.db"))
	require.NoError(t, s.Ensure(ctx, counters))
	require.NoError(t, insert(ctx, s, "counters", newCounter("cnt_1")))
	path := filepath.Join(dir, "backup.db")
	require.NoError(t, s.Backup(ctx, path))
	require.Equal(t, "BACKUP_FILE", errs.ReasonOf(s.Backup(ctx, path)), "nothing is written over")
	require.NoError(t, insert(ctx, s, "counters", newCounter("cnt_2")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	restored, err := store.Open(ctx, store.Options{Path: path, Recovered: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, restored.Close()) }()
	require.NoError(t, restored.Ensure(ctx, counters))
	page, err := restored.Find(ctx, "counters", docstore.Query{})
	require.NoError(t, err)
	require.Len(t, page.Docs, 1)
	require.NotEqual(t, s.Epoch(), restored.Epoch())
}

func BenchmarkUpdates(b *testing.B) {
	for _, writers := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			ctx := context.Background()
			s := open(b, filepath.Join(b.TempDir(), "store.db"))
			require.NoError(b, s.Ensure(ctx, counters))
			for w := range writers {
				require.NoError(b, insert(ctx, s, "counters", newCounter(fmt.Sprintf("cnt_%02d", w))))
			}
			_, before := s.Stats()
			b.ResetTimer()
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for i := w; i < b.N; i += writers {
						if err := increment(ctx, s, fmt.Sprintf("cnt_%02d", w)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			_, after := s.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			b.ReportMetric(float64(b.N)/float64(after-before), "writes/commit")
		})
	}
}

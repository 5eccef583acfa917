package testkit_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/testkit"
)

func TestTheServerKeepsItsStreamsOverARestartAndLosesThemWhenDeleted(t *testing.T) {
	s := testkit.NATS(t)
	nc := s.Conn()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "A", Subjects: []string{"a.>"}})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "a.b", []byte("x"))
	require.NoError(t, err)

	s.Restart()
	testkit.Eventually(t, func() bool {
		stream, err := js.Stream(t.Context(), "A")
		return err == nil && stream.CachedInfo().State.Msgs == 1
	}, "the stream did not come back at %s", s.URL)

	s.DeleteAll(t.Context())
	_, err = js.Stream(t.Context(), "A")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestFreePortIsFree(t *testing.T) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// spy is a test that notes how it ended.
type spy struct {
	testing.TB
	skipped, failed string
}

var errEnded = errors.New("the test ended")

func (*spy) Helper() {}

func (s *spy) Skip(args ...any) {
	s.skipped = fmt.Sprint(args...)
	panic(errEnded)
}

func (s *spy) Fatalf(format string, args ...any) {
	s.failed = fmt.Sprintf(format, args...)
	panic(errEnded)
}

func TestAMissingProgramSkipsOrFails(t *testing.T) {
	for _, row := range []struct{ name, requireAll, skipped, failed string }{
		{"a developer's machine skips", "", "no-such-program is not installed: install package no-such-package", ""},
		{"CI fails", "1", "", "no-such-program is not installed: install package no-such-package (REQUIRE_ALL=1 forbids to skip)"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("REQUIRE_ALL", row.requireAll)
			s := &spy{TB: t}
			require.PanicsWithValue(t, errEnded, func() { testkit.RequireBinary(s, "no-such-program", "no-such-package") })
			require.Equal(t, row.skipped, s.skipped)
			require.Equal(t, row.failed, s.failed)
		})
	}
	require.NotEmpty(t, testkit.RequireBinary(t, "sh", "dash"))
}

func TestStoresAreEmptyAndWork(t *testing.T) {
	for name, s := range map[string]docstore.Store{"sqlite": testkit.Store(t), "memory": testkit.MemoryStore(t, clock.System())} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, s.Ensure(t.Context(), docstore.Spec{Name: "things"}))
			page, err := s.Find(t.Context(), "things", docstore.Query{})
			require.NoError(t, err)
			require.Empty(t, page.Docs)
			require.NotEmpty(t, s.Epoch())
		})
	}
}

func TestTheLoggerMayOutliveItsTest(t *testing.T) {
	var logger = testkit.Logger(t)
	t.Run("a test that ends", func(t *testing.T) { logger = testkit.Logger(t) })
	logger.Info("this would panic")
}

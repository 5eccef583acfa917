package testkit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	certificatev1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/bus"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/outbox"
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

func (s *spy) Errorf(format string, args ...any) { s.failed = fmt.Sprintf(format, args...) }

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

func TestARecorderRemembersTheFactsOfAnOutbox(t *testing.T) {
	clk := clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	var recorder testkit.Recorder
	out := outbox.New(outbox.Config{Store: testkit.MemoryStore(t, clk), Bus: &recorder, Source: "inventory", Clock: clk, Logger: testkit.Logger(t)})
	things := testkit.Open[struct{}](t, out, docstore.Spec{Name: "things"})
	testkit.Run(t, out.Run)
	tell := func(id string) {
		doc := docstore.Doc[struct{}]{Meta: docstore.Meta{ID: id, Team: "web"}}
		require.NoError(t, things.Insert(t.Context(), &doc, outbox.Tell(&certificatev1.Deleted{CertificateId: id})))
		require.NoError(t, out.Flush(t.Context()))
	}
	tell("a")
	require.Equal(t, []string{"certificate.deleted"}, testkit.Types(t, recorder.Take()))
	require.Empty(t, recorder.Take())
	tell("b")
	require.Len(t, recorder.Take(), 1)
	all := testkit.Events(t, recorder.Entries())
	require.Len(t, all, 2)
	require.Equal(t, "b", all[1].Subject)
	m := testkit.Message(t, all[1])
	require.True(t, proto.Equal(&certificatev1.Deleted{CertificateId: "b"}, m), m)
	made := testkit.Event(t, m, bus.Event{ID: "x", Subject: "b"})
	require.Equal(t, "certificate.deleted", made.Type)
	require.True(t, proto.Equal(m, testkit.Message(t, made)))
}

func TestTimePassesUntilItIsEnough(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clk := clock.NewFake(start)
	for range 2 { // the second finds it already so
		testkit.Passes(t, clk, 25*time.Minute, func() bool { return clk.Now().Sub(start) >= time.Hour }, "an hour")
		require.Equal(t, start.Add(75*time.Minute), clk.Now())
	}
}

func TestAPartThatFailsInTheBackgroundFailsTheTest(t *testing.T) {
	s := &spy{TB: t}
	ended := false
	stop := testkit.Run(s, func(context.Context) error { return errors.New("broken") }, func(ctx context.Context) error {
		<-ctx.Done()
		ended = true
		return nil
	})
	stop()
	stop()
	require.True(t, ended)
	require.Equal(t, "in the background: broken", s.failed)
}

func TestTheLoggerMayOutliveItsTest(t *testing.T) {
	var logger = testkit.Logger(t)
	t.Run("a test that ends", func(t *testing.T) { logger = testkit.Logger(t) })
	logger.Info("this would panic")
}

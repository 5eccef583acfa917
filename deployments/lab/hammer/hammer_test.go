package hammer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certwright/certwright/deployments/lab/hammer"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/deployments/lab/pki"
	"github.com/certwright/certwright/deployments/lab/site"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFailuresAreKept(t *testing.T) {
	stranger, err := pki.New("stranger")
	require.NoError(t, err)
	s := labtest.Site(t, site.Options{Names: []string{"www.lab.test"}})
	for _, row := range []struct {
		name    string
		options hammer.Options
		says    string
	}{
		{"a certificate of an unknown root is a failure", hammer.Options{Addr: s.Addr(), ServerName: "www.lab.test", Roots: stranger.Pool()}, "unknown authority"},
		{"nobody listening is a failure", hammer.Options{Addr: "127.0.0.1:1"}, "connection refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := labtest.Hammer(t, row.options)
			require.NoError(t, h.Wait(labtest.Deadline(t, 10*time.Second), func(r hammer.Report) bool { return r.Failed >= 3 }))
			report := h.Stop()
			require.Zero(t, report.Handshakes)
			require.ErrorContains(t, report.Err(), row.says)
			require.Empty(t, report.Served)
		})
	}
}

func TestAnythingIsSeenWhenNothingIsVerified(t *testing.T) {
	s := labtest.Site(t, site.Options{Names: []string{"www.lab.test"}})
	h := labtest.Hammer(t, hammer.Options{Addr: s.Addr()})
	require.NoError(t, h.WaitServed(labtest.Deadline(t, 10*time.Second), s.Fingerprint()))
	report := h.Stop()
	require.NoError(t, report.Err())
	require.Equal(t, []string{"www.lab.test"}, report.Served[0].Names)
	require.Equal(t, report.Handshakes, h.Stop().Handshakes, "it has stopped")
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	s := labtest.Site(t, site.Options{Names: []string{"www.lab.test"}})
	h := labtest.Hammer(t, hammer.Options{Addr: s.Addr()})
	err := h.WaitServed(labtest.Deadline(t, 50*time.Millisecond), "never")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

package failpoint

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain is also the program that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("FAILPOINT_TEST_CHILD") == "1" {
		_ = Around("store.orders.insert", func() error { return nil })
		_ = Around("store.orders.insert", func() error { return nil })
		Hit("call.finalize.before")
		os.Exit(7)
	}
	os.Exit(m.Run())
}

func TestTheProcessDiesAtTheNamedPoint(t *testing.T) {
	const before, after = "store.orders.insert.before", "store.orders.insert.after"
	for _, c := range []struct {
		name, kill string
		survives   bool
		log        []string
	}{
		{"at the first hit when no number is given", before, false, []string{before}},
		{"at the hit of the number given", before + "#2", false, []string{before, after, before}},
		{"after the step", after, false, []string{before, after}},
		{"at a point that Hit names", "call.finalize.before", false, []string{before, after, before, after, "call.finalize.before"}},
		{"not when the point is hit less often", before + "#3", true, []string{before, after, before, after, "call.finalize.before"}},
		{"not for another name", "store.orders", true, []string{before, after, before, after, "call.finalize.before"}},
		{"not when nothing is asked", "", true, []string{before, after, before, after, "call.finalize.before"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "points")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = append(os.Environ(), "FAILPOINT_TEST_CHILD=1", "CERTWRIGHT_FAILPOINT_LOG="+log, "CERTWRIGHT_FAILPOINT_KILL="+c.kill)
			err := cmd.Run()
			require.NoError(t, ctx.Err())
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, c.survives, exit.ExitCode() == 7, "exit: %v", err)
			text, err := os.ReadFile(log)
			require.NoError(t, err)
			require.Equal(t, c.log, strings.Fields(string(text)))
		})
	}
}

func TestNothingHappensUnlessAsked(t *testing.T) {
	require.Nil(t, load("", ""))
	require.Nil(t, active, "no failpoint is set for the tests themselves")
	Hit("x")
	failed := errors.New("failed")
	require.ErrorIs(t, Around("x", func() error { return failed }), failed)
}

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certwright/certwright/services/certwright/internal/cli"
	"github.com/certwright/certwright/shared/clock"
)

var update = flag.Bool("update", false, "write docs/cli.md")

func TestTheReferenceIsThatOfThisProgram(t *testing.T) {
	var out, wrong bytes.Buffer
	o := cli.Options{
		Version: "v0", In: strings.NewReader(""), Out: &out, Err: &wrong, Getenv: func(string) string { return "" }, Home: t.TempDir(), Clock: clock.System(), Zone: time.UTC,
	}
	require.Equal(t, cli.ExitOK, cli.Run(t.Context(), o, []string{"docs", "cli"}, commands()...), wrong.String())
	file := filepath.Join("..", "..", "..", "..", "docs", "cli.md")
	if *update {
		require.NoError(t, os.WriteFile(file, out.Bytes(), 0o644)) //nolint:gosec // a page of the documentation
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String(), "write it anew: certwright docs cli > docs/cli.md")
}

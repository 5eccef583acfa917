package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

func TestTheConfigurationReferenceIsUpToDate(t *testing.T) {
	stored, err := os.ReadFile("../../../../../docs/config.md")
	require.NoError(t, err)
	if diff := cmp.Diff(string(stored), page()); diff != "" {
		t.Errorf("docs/config.md is not up to date; from the top of the repository run\n\tgo run ./services/certwright/internal/cmd/refgen > docs/config.md\n%s", diff)
	}
}

func TestThePageHasEveryServiceThatHasAProgram(t *testing.T) {
	programs, err := filepath.Glob("../../../../*/cmd/*/main.go")
	require.NoError(t, err)
	require.NotEmpty(t, programs)
	text := page()
	for _, p := range programs {
		if name := filepath.Base(filepath.Dir(p)); name != "certwright" {
			require.Contains(t, text, "the section service of "+name+"\n")
		}
	}
	require.NotContains(t, text, "\n| `version`", "what no user can set is not on the page")
	home, err := os.UserHomeDir()
	require.NoError(t, err)
	require.False(t, strings.Contains(text, home), "the page names this machine's home directory")
}

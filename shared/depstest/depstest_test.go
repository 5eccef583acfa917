package depstest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder stands for the test that is checked.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestCheck(t *testing.T) {
	for name, row := range map[string]struct {
		pattern string
		banned  []string
		want    string // Part of the one error; empty when there must be none.
	}{
		"a package that is imported directly is found":     {".", []string{"os/exec"}, "depstest → os/exec\nreason: because"},
		"a package that is imported indirectly is found":   {".", []string{"syscall"}, " → syscall\nreason: because"},
		"a prefix does not match half a path element":      {".", []string{"os/ex"}, ""},
		"a package that is not reached is no error":        {".", []string{"net/http"}, ""},
		"a pattern that names no package is a mistake":     {"./nothing/...", []string{"os"}, "./nothing/..."},
		"a pattern that cannot be listed is said, with it": {"./missing", []string{"os"}, "./missing"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			Check(r, map[string][]string{row.pattern: row.banned}, "because")
			if row.want == "" {
				require.Empty(t, r.errors)
				return
			}
			require.Len(t, r.errors, 1)
			require.Contains(t, r.errors[0], row.want)
		})
	}
}

func TestOnly(t *testing.T) {
	t.Run("the standard library and what is allowed pass", func(t *testing.T) {
		r := &recorder{TB: t}
		Only(r, ".", nil, "because")
		Only(r, "../errs", []string{"github.com/certwright/certwright/shared"}, "because")
		require.Empty(t, r.errors)
	})
	t.Run("anything else is named with the reason", func(t *testing.T) {
		r := &recorder{TB: t}
		Only(r, "github.com/stretchr/testify/require", []string{"github.com/google"}, "because")
		require.NotEmpty(t, r.errors)
		require.True(t, strings.Contains(r.errors[0], "github.com/stretchr/testify/require imports ") && strings.HasSuffix(r.errors[0], "reason: because"), r.errors[0])
	})
}

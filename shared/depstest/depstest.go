// Package depstest keeps the direction of dependencies: a module's deps_test.go says which packages may not be reached from which, and why.
// It asks "go list", so what counts is what would be linked, through any number of steps. It must never be imported outside tests.
package depstest

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"sort"
	"strings"
	"testing"
)

// Check fails t when a package that a pattern names ("./internal/domain/...", relative to the test's folder) reaches, through any number of
// imports, a package whose path is one of the banned prefixes or lies below it. The message shows the chain of imports and the reason.
// A pattern that names no package fails too: a rule about nothing is a mistake.
func Check(t testing.TB, banned map[string][]string, reason string) {
	t.Helper()
	patterns := make([]string, 0, len(banned))
	for p := range banned {
		patterns = append(patterns, p)
	}
	sort.Strings(patterns)
	for _, pattern := range patterns {
		g, err := load(pattern)
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
			continue
		}
		for _, chain := range g.chains(func(p pkg) bool { return below(p.path, banned[pattern]) }) {
			t.Errorf("%s\nreason: %s", chain, reason)
		}
	}
}

// Only fails t when a package that pattern names reaches a package that is neither of the standard library, nor named by the pattern itself,
// nor one of the allowed prefixes, nor below one. What an allowed package imports is its own affair.
func Only(t testing.TB, pattern string, allowed []string, reason string) {
	t.Helper()
	g, err := load(pattern)
	if err != nil {
		t.Errorf("%s: %v", pattern, err)
		return
	}
	for _, root := range g.roots {
		for _, imported := range g.packages[root].imports {
			p := g.packages[imported]
			if !p.standard && !g.isRoot(imported) && !below(imported, allowed) {
				t.Errorf("%s imports %s\nreason: %s", root, imported, reason)
			}
		}
	}
}

// pkg is one package and what it imports itself.
type pkg struct {
	path     string
	standard bool
	imports  []string
}

type graph struct {
	packages map[string]pkg
	roots    []string // The packages that the pattern names, in order.
}

func load(pattern string) (*graph, error) {
	names, err := list(pattern)
	if err != nil {
		return nil, err
	}
	g := &graph{packages: map[string]pkg{}, roots: strings.Fields(names)}
	if len(g.roots) == 0 {
		return nil, errors.New("the pattern names no package")
	}
	lines, err := list("-deps", "-f", "{{.Standard}} {{.ImportPath}}{{range .Imports}} {{.}}{{end}}", pattern)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		g.packages[f[1]] = pkg{path: f[1], standard: f[0] == "true", imports: f[2:]}
	}
	return g, nil
}

func list(args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go list %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

func (g *graph) isRoot(path string) bool {
	for _, r := range g.roots {
		if r == path {
			return true
		}
	}
	return false
}

// chains answers, for each wrong package that is reached, the shortest way to it ("a → b → c"); it does not look behind a wrong one.
func (g *graph) chains(wrong func(pkg) bool) []string {
	from := map[string]string{}
	queue := append([]string(nil), g.roots...)
	for _, r := range g.roots {
		from[r] = ""
	}
	var found []string
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		for _, next := range g.packages[path].imports {
			if _, seen := from[next]; seen {
				continue
			}
			from[next] = path
			if p, known := g.packages[next]; known && wrong(p) {
				chain := next
				for at := path; at != ""; at = from[at] {
					chain = at + " → " + chain
				}
				found = append(found, chain)
				continue
			}
			queue = append(queue, next)
		}
	}
	return found
}

// below says whether path is one of the prefixes or a folder under one.
func below(path string, prefixes []string) bool {
	for _, p := range prefixes {
		p = strings.TrimSuffix(p, "/")
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

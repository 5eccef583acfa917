package lab_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/deployments/lab/labtest"
	"github.com/certwright/certwright/shared/errs"
)

// root is the top of the repository, from this folder.
const root = "../.."

var (
	// capitals is how reasons look, and few other texts.
	capitals = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	single   = regexp.MustCompile(`^[A-Z][A-Z0-9]+$`)
	holding  = regexp.MustCompile(`^(?:[rR]eason|Finding)`) // names of constants

	// notReasons are the texts in capitals that are something else: environment variables, key algorithms and formats.
	notReasons = regexp.MustCompile(`^(CERTWRIGHT_.*|AZURE_.*|MONGODB_URI|REQUIRE_ALL|XDG_CONFIG_HOME|(RSA|ECDSA)_P?\d+|PKCS12_LEGACY)$`)
)

// reasons are those of the code of services and shared, with the kinds that calls of errs.New give them, and where they stand.
type reasons struct {
	kinds map[string]map[string]bool
	where map[string]string
	named map[string]map[string]string // by directory and name: the constants that hold one
}

// value is the reason that an expression in a file of dir stands for, or "".
func (r *reasons) value(dir string, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		return literal(e)
	case *ast.Ident:
		return r.named[dir][e.Name]
	case *ast.SelectorExpr:
		pkg, ok := e.X.(*ast.Ident)
		if !ok {
			return ""
		}
		for other, names := range r.named { // the package of that name in the same service, or in shared
			if filepath.Base(other) == pkg.Name && (module(other) == module(dir) || module(other) == "shared") && names[e.Sel.Name] != "" {
				return names[e.Sel.Name]
			}
		}
	}
	return ""
}

// module is "shared", or the service that dir belongs to.
func module(dir string) string {
	parts := strings.Split(filepath.ToSlash(strings.TrimPrefix(dir, root+"/")), "/")
	if parts[0] == "services" {
		return parts[1]
	}
	return parts[0]
}

func (r *reasons) add(pos token.Position, reason string) {
	if notReasons.MatchString(reason) {
		return
	}
	if r.kinds[reason] == nil {
		r.kinds[reason] = map[string]bool{}
		r.where[reason] = pos.String()
	}
}

// inspect adds what one node says.
func (r *reasons) inspect(files *token.FileSet, n ast.Node) {
	at := func() token.Position { return files.Position(n.Pos()) }
	switch n := n.(type) {
	case *ast.BasicLit:
		if s := literal(n); capitals.MatchString(s) {
			r.add(at(), s)
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "New" || len(n.Args) < 3 {
			return
		}
		if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "errs" {
			return
		}
		reason := r.value(filepath.Dir(at().Filename), n.Args[1])
		if reason == "" {
			return
		}
		r.add(at(), reason)
		if kind, ok := n.Args[0].(*ast.SelectorExpr); ok && !notReasons.MatchString(reason) {
			r.kinds[reason][kind.Sel.Name] = true
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Reason" {
			if s := literal(n.Value); single.MatchString(s) {
				r.add(at(), s)
			}
		}
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if i < len(n.Values) && holding.MatchString(name.Name) {
				if s := literal(n.Values[i]); single.MatchString(s) {
					r.add(at(), s)
				}
			}
		}
	}
}

func literal(e ast.Expr) string {
	b, ok := e.(*ast.BasicLit)
	if !ok || b.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(b.Value)
	if err != nil {
		return ""
	}
	return s
}

func reasonsOfTheCode(t *testing.T) reasons {
	t.Helper()
	r := reasons{map[string]map[string]bool{}, map[string]string{}, map[string]map[string]string{}}
	files, parsed := token.NewFileSet(), []*ast.File{}
	for _, dir := range []string{"services", "shared"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "testkit" || strings.HasSuffix(d.Name(), "test")):
				return fs.SkipDir // what tests are made of
			case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			parsed = append(parsed, f)
			return err
		}))
	}
	r.constants(files, parsed)
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool {
			if n != nil {
				r.inspect(files, n)
			}
			return true
		})
	}
	return r
}

// constants collects the package-level names of texts.
func (r *reasons) constants(files *token.FileSet, parsed []*ast.File) {
	for _, f := range parsed {
		dir := filepath.Dir(files.Position(f.Pos()).Filename)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, name := range v.Names {
					if i < len(v.Values) && literal(v.Values[i]) != "" {
						if r.named[dir] == nil {
							r.named[dir] = map[string]string{}
						}
						r.named[dir][name.Name] = literal(v.Values[i])
					}
				}
			}
		}
	}
}

// row is a row of a table of docs/errors.md.
var row = regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| ([^|]*) \\| ([^|]*) \\| ([^|]*) \\|")

func TestEveryReasonIsOnTheErrorsPageAndNoOther(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "errors.md"))
	require.NoError(t, err)
	code := reasonsOfTheCode(t)
	require.Greater(t, len(code.kinds), 200, "the search finds too little")
	ofKinds := map[string]bool{}
	for _, k := range errs.Kinds() {
		ofKinds[strings.ToUpper(k.String())] = true
	}

	told := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		reason, kind, cause, remedy := m[1], m[2], m[3], m[4]
		if told[reason] != "" && !ofKinds[reason] {
			t.Errorf("%s is on the page twice", reason)
		}
		told[reason] = kind
		if strings.TrimSpace(cause) == "" || strings.TrimSpace(remedy) == "" {
			t.Errorf("%s has no cause or no remedy", reason)
		}
		if code.kinds[reason] == nil && !ofKinds[reason] {
			t.Errorf("%s is on the page, but the code does not give it", reason)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(code.kinds)) {
		if told[reason] == "" {
			t.Errorf("%s (%s) is not on the page docs/errors.md: add a row with kind, cause and remedy", reason, code.where[reason])
			continue
		}
		for kind := range code.kinds[reason] {
			if !ofKinds[reason] && !slices.Contains(strings.Split(told[reason], ", "), snake(kind)) {
				t.Errorf("%s is of kind %s (%s), the page says %q", reason, snake(kind), code.where[reason], told[reason])
			}
		}
	}
	for kind := range ofKinds {
		require.Contains(t, told, kind, "the kind is not on the page")
	}
}

// snake writes RateLimited as rate_limited, as errs.Kind prints it.
func snake(name string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_${2}"))
}

// A link of a page of docs to another file of the repository leads somewhere.
func TestTheLinksOfTheDocsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	seen := 0
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(page), -1) {
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			}
		}
		return nil
	}))
	require.NotZero(t, seen)
}

// alert is a rule of deployments/prometheus/rules.yml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deployments", "prometheus", "rules.yml"))
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(text, &file))
	var out []alert
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	require.NotEmpty(t, out)
	return out
}

func TestEveryAlertHasARunbookAndEveryRunbookIsListed(t *testing.T) {
	dir := filepath.Join(root, "docs", "runbooks")
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(t, err)
	known := map[string]bool{}
	eventType := regexp.MustCompile(`type="([^"]+)"`)
	for _, a := range alerts(t) {
		known[a.Alert] = true
		require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"], a.Alert)
		require.NotEmpty(t, a.Annotations["summary"], a.Alert)
		page, err := os.ReadFile(filepath.Join(root, a.Annotations["runbook"]))
		require.NoError(t, err, a.Alert)
		require.Contains(t, string(page), "`"+a.Alert+"`", "the runbook does not name its alert")
		require.Contains(t, string(index), "`"+a.Alert+"`", "the index does not name the alert")
		for _, m := range eventType.FindAllStringSubmatch(a.Expr, -1) {
			_, ok := events.New(m[1])
			require.True(t, ok, "%s looks for the event %s, which no contract knows", a.Alert, m[1])
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
	require.NoError(t, err)
	named := regexp.MustCompile("`(Certwright[A-Za-z]+)`")
	for _, p := range pages {
		text, err := os.ReadFile(p)
		require.NoError(t, err)
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			require.True(t, known[m[1]], "%s names the alert %s, which there is not", p, m[1])
		}
		if name := filepath.Base(p); name != "README.md" {
			require.Contains(t, string(index), "("+name+")", "the index does not link to %s", name)
			for _, part := range []string{"## Meaning", "## First look", "## Remedy", "## Afterwards"} {
				require.Contains(t, string(text), part, p)
			}
		}
	}
}

// Every command that the docs tell people to run is one of the reference of the command line.
func TestTheCommandsOfTheDocsExist(t *testing.T) {
	reference, err := os.ReadFile(filepath.Join(root, "docs", "cli.md"))
	require.NoError(t, err)
	have := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (certwright [a-z-]+(?: [a-z-]+)?)$`).FindAllStringSubmatch(string(reference), -1) {
		have[m[1]] = true
	}
	require.Greater(t, len(have), 40)
	said := regexp.MustCompile("(?m)(?:`|^|^\\$ )certwright ([a-z]+)(?: ([a-z][a-z-]*))?")
	pages := []string{"errors.md", "tutorial.md", "issuers.md"}
	runbooks, err := filepath.Glob(filepath.Join(root, "docs", "runbooks", "*.md"))
	require.NoError(t, err)
	for _, p := range runbooks {
		pages = append(pages, filepath.Join("runbooks", filepath.Base(p)))
	}
	for _, p := range pages {
		text, err := os.ReadFile(filepath.Join(root, "docs", p))
		require.NoError(t, err)
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			if one := "certwright " + m[1]; m[2] == "" || !have[one+" "+m[2]] {
				single := have[one] && (m[2] == "" || !strings.Contains(string(reference), "\n### "+one+" "))
				require.True(t, single, "docs/%s says %q, which docs/cli.md does not have", p, strings.TrimSpace(m[0]))
			}
		}
	}
}

// promtool is Prometheus' own judge of rules.
func TestTheAlertRulesPassTheirTests(t *testing.T) {
	labtest.Need(t, "promtool", "prometheus")
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		c := exec.CommandContext(t.Context(), "promtool", args...)
		c.Dir = filepath.Join(root, "deployments", "prometheus")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "promtool %s\n%s", strings.Join(args, " "), out)
	}
}

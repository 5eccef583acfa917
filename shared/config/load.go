// Package config fills a service's configuration struct: defaults < YAML file < environment < flags.
//
// The struct is the schema. Fields carry `yaml:"first_repeat"` (the key), `doc:"…"` (one sentence for the reference), and `validate:"…"`
// (validator/v10). The caller passes the struct filled with its defaults. A key that does not exist is an error and never ignored; every
// error says what was given, what is allowed, and where it was set.
//
// It never prints the content of a secret.Value, and keeps no state.
package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// ReasonInvalid is the reason of every error of Load.
const ReasonInvalid = "CONFIG_INVALID"

// Source says where Load looks.
type Source struct {
	// Service is the middle of the environment names: CERTWRIGHT_<SERVICE>_<PATH>. When empty they are CERTWRIGHT_<PATH>: this is how a
	// composition whose struct has one section per service gets the same names as the services alone.
	Service string
	// File is the YAML file; empty for none. Only its owner should write it.
	File string
	// Env is the environment as os.Environ gives it. NAME_FILE for a secret NAME names a file that holds it.
	Env []string
	// IgnoreEnv lists variables of this prefix that belong to somebody else. A name that ends in "_" covers all that begin with it.
	// CERTWRIGHT_FAILPOINT_ and what Kubernetes injects for a service are always ignored.
	IgnoreEnv []string
	// Flags maps keys ("http.listen"; "-" and "_" are the same) to values. Only flags that were given belong here. A secret is refused:
	// the command line is visible to everybody on the host.
	Flags map[string]string
}

// Load fills cfg, a pointer to a struct that holds the defaults, and validates it, first by its tags, then by its own method
// Validate() error if it has one. The error is Invalid CONFIG_INVALID with one field per mistake.
func Load(cfg any, src Source) error {
	root := reflect.ValueOf(cfg)
	if root.Kind() != reflect.Pointer || root.Elem().Kind() != reflect.Struct {
		return errs.New(errs.Internal, "", "config.Load wants a pointer to a struct, not %T", cfg)
	}
	l := &loader{root: root.Elem(), leaves: leavesOf(root.Elem(), src.Service), origins: map[string]string{}}
	l.file(src.File)
	l.environment(src)
	l.flags(src.Flags)
	if len(l.wrong) == 0 {
		l.wrong = violations(cfg, configNames, l.origin)
	}
	if len(l.wrong) > 0 {
		return failure(src, l.wrong)
	}
	if v, ok := cfg.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			if e := errs.As(err); e != nil && len(e.Fields) > 0 {
				wrong := make([]errs.Field, len(e.Fields))
				for i, f := range e.Fields {
					wrong[i] = errs.Field{Name: f.Name, Msg: f.Msg + " (set in " + l.origin(f.Name) + ")"}
				}
				return failure(src, wrong)
			}
			return errs.New(errs.Invalid, ReasonInvalid, "the configuration of %s is not valid: %w", nameOf(src), err)
		}
	}
	return nil
}

func failure(src Source, wrong []errs.Field) error {
	e := errs.New(errs.Invalid, ReasonInvalid, "the configuration of %s is not valid", nameOf(src))
	e.Fields = wrong
	return e
}

func nameOf(src Source) string { return cmp.Or(src.Service, "certwright") }

type loader struct {
	root    reflect.Value
	leaves  []leaf
	origins map[string]string // path of a key, or of a parent of it, to where it was set
	wrong   []errs.Field
}

func (l *loader) fail(path, format string, args ...any) {
	l.wrong = append(l.wrong, errs.Field{Name: path, Msg: fmt.Sprintf(format, args...)})
}

// origin says where path was set: itself, or the nearest of its parents that was set as a whole.
func (l *loader) origin(path string) string {
	for p := path; p != ""; {
		if at, ok := l.origins[p]; ok {
			return at
		}
		p = p[:max(strings.LastIndexAny(p, ".["), 0)]
	}
	return "the defaults"
}

// file reads the YAML file.
func (l *loader) file(path string) {
	if path == "" {
		return
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		l.fail("(file)", "cannot be read: %v", err)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.fail("(file)", "%s is not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if len(doc.Content) == 0 { // an empty file
		return
	}
	l.set(l.root, doc.Content[0], "", func(n *yaml.Node) string { return fmt.Sprintf("%s line %d", path, n.Line) })
}

// kubernetes matches what Kubernetes injects into every container for a service whose name begins like ours.
var kubernetes = regexp.MustCompile(`(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

func (l *loader) environment(src Source) {
	prefix := envPrefix(src.Service)
	byName := map[string]leaf{}
	for _, lf := range l.leaves {
		byName[lf.env] = lf
	}
	for _, kv := range slices.Sorted(slices.Values(src.Env)) { // errors in a stable order
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, prefix) || ignored(name, src.IgnoreEnv) {
			continue
		}
		at := "environment variable " + name
		if lf, ok := byName[name]; ok {
			if strings.HasPrefix(value, "tcp://") && strings.HasSuffix(name, "_PORT") {
				continue // Kubernetes again: NAME_PORT=tcp://10.0.0.1:80
			}
			l.text(lf, value, at)
			continue
		}
		if base, ok := strings.CutSuffix(name, "_FILE"); ok && byName[base].isSecret() {
			l.secretFile(byName[base], value, at)
			continue
		}
		if kubernetes.MatchString(name) || (strings.HasSuffix(name, "_PORT") && strings.HasPrefix(value, "tcp://")) {
			continue
		}
		l.fail(name, "no such environment variable%s", suggestion(name, slices.Collect(maps.Keys(byName))))
	}
}

func ignored(name string, list []string) bool {
	for _, i := range append([]string{"CERTWRIGHT_FAILPOINT_"}, list...) {
		if name == i || (strings.HasSuffix(i, "_") && strings.HasPrefix(name, i)) {
			return true
		}
	}
	return false
}

func (l *loader) flags(flags map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(flags)) {
		path := strings.ReplaceAll(k, "-", "_")
		i := slices.IndexFunc(l.leaves, func(lf leaf) bool { return lf.path == path })
		switch {
		case i < 0:
			paths := make([]string, len(l.leaves))
			for j, lf := range l.leaves {
				paths[j] = lf.path
			}
			l.fail(k, "no such key, given as flag --%s%s", k, suggestion(path, paths))
		case l.leaves[i].isSecret():
			l.fail(path, "a secret cannot be given as a flag, where everybody on the host can read it; use %s_FILE", l.leaves[i].env)
		default:
			l.text(l.leaves[i], flags[k], "flag --"+k)
		}
	}
}

func (l *loader) secretFile(lf leaf, path, at string) {
	v, err := secret.FromFile(path)
	if err != nil {
		l.fail(lf.path, "%v (set in %s)", err, at)
		return
	}
	target, _ := lf.value.Addr().Interface().(*secret.Value)
	*target = v
	l.origins[lf.path] = at
}

// text sets a leaf from the text of an environment variable or a flag.
func (l *loader) text(lf leaf, text, at string) {
	where := func(*yaml.Node) string { return at }
	if isScalar(lf.value.Type()) {
		l.set(lf.value, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}, lf.path, where)
		return
	}
	// "a, b" for a list of scalars and "k=v, k=v" for a map of them; anything else is written in YAML's (or JSON's) flow style.
	trimmed := strings.TrimSpace(text)
	if !strings.HasPrefix(trimmed, "[") && !strings.HasPrefix(trimmed, "{") {
		if n := shortForm(lf.value.Type(), trimmed); n != nil {
			l.set(lf.value, n, lf.path, where)
			return
		}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		l.fail(lf.path, "%q given, wanted %s in YAML's flow style, e.g. [a, b] or {k: v} (set in %s)", text, typeName(lf.value.Type()), at)
		return
	}
	l.set(lf.value, doc.Content[0], lf.path, where)
}

func shortForm(t reflect.Type, text string) *yaml.Node {
	str := func(s string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(s)}
	}
	var parts []string
	if text != "" {
		parts = strings.Split(text, ",")
	}
	switch {
	case t.Kind() == reflect.Slice && isScalar(t.Elem()):
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, p := range parts {
			n.Content = append(n.Content, str(p))
		}
		return n
	case t.Kind() == reflect.Map && isScalar(t.Elem()):
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, p := range parts {
			k, v, ok := strings.Cut(p, "=")
			if !ok {
				return nil
			}
			n.Content = append(n.Content, str(k), str(v))
		}
		return n
	}
	return nil
}

// set decodes node into v. Every failure is recorded, none stops the walk.
func (l *loader) set(v reflect.Value, n *yaml.Node, path string, where func(*yaml.Node) string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "key:" without a value leaves the default
	}
	if path != "" {
		l.origins[path] = where(n)
	}
	t := v.Type()
	if t == secretType && n.Kind == yaml.MappingNode {
		l.secretRef(v, n, path, where)
		return
	}
	if isScalar(t) {
		if n.Kind != yaml.ScalarNode {
			l.fail(path, "wanted %s, given a %s (set in %s)", typeName(t), kindName(n), where(n))
			return
		}
		if err := setScalar(v, n.Value); err != nil {
			given := fmt.Sprintf("%q given", n.Value)
			if t == secretType {
				given = "not taken"
			}
			l.fail(path, "%s, wanted %v (set in %s)", given, err, where(n))
		}
		return
	}
	switch t.Kind() { //nolint:exhaustive // the rest is no configuration type and answered by default
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(t.Elem()))
		}
		l.set(v.Elem(), n, path, where)
	case reflect.Struct:
		l.setStruct(v, n, path, where)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			l.fail(path, "wanted a list, given a %s (set in %s)", kindName(n), where(n))
			return
		}
		out := reflect.MakeSlice(t, len(n.Content), len(n.Content))
		for i, item := range n.Content {
			l.set(out.Index(i), item, fmt.Sprintf("%s[%d]", path, i), where)
		}
		v.Set(out)
	case reflect.Map:
		l.setMap(v, n, path, where)
	default:
		l.fail(path, "the type %s cannot be configured", t)
	}
}

func (l *loader) setMap(v reflect.Value, n *yaml.Node, path string, where func(*yaml.Node) string) {
	t := v.Type()
	if n.Kind != yaml.MappingNode || t.Key().Kind() != reflect.String {
		l.fail(path, "wanted a mapping, given a %s (set in %s)", kindName(n), where(n))
		return
	}
	out := reflect.MakeMapWithSize(t, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		item := reflect.New(t.Elem()).Elem()
		l.set(item, n.Content[i+1], join(path, n.Content[i].Value), where)
		out.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(t.Key()), item)
	}
	v.Set(out)
}

func (l *loader) setStruct(v reflect.Value, n *yaml.Node, path string, where func(*yaml.Node) string) {
	if n.Kind != yaml.MappingNode {
		l.fail(cmp.Or(path, "(file)"), "wanted a mapping of keys, given a %s (set in %s)", kindName(n), where(n))
		return
	}
	fields := fieldsOf(v)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if seen[key] {
			l.fail(join(path, key), "given twice (set in %s)", where(n.Content[i]))
			continue
		}
		seen[key] = true
		j := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if j < 0 {
			keys := make([]string, len(fields))
			for k, f := range fields {
				keys[k] = f.key
			}
			l.fail(join(path, key), "no such key, set in %s%s", where(n.Content[i]), suggestion(key, keys))
			continue
		}
		l.set(fields[j].value, n.Content[i+1], join(path, key), where)
	}
}

// secretRef reads {file: PATH} or {env: NAME}.
func (l *loader) secretRef(v reflect.Value, n *yaml.Node, path string, where func(*yaml.Node) string) {
	if len(n.Content) != 2 || (n.Content[0].Value != "file" && n.Content[0].Value != "env") {
		l.fail(path, "a secret is given as {file: PATH}, {env: NAME} or its text (set in %s)", where(n))
		return
	}
	read := secret.FromFile
	if n.Content[0].Value == "env" {
		read = secret.FromEnv
	}
	s, err := read(n.Content[1].Value)
	if err != nil {
		l.fail(path, "%v (set in %s)", err, where(n))
		return
	}
	v.Set(reflect.ValueOf(s))
}

var (
	secretType = reflect.TypeFor[secret.Value]()
	textType   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	case yaml.ScalarNode, yaml.DocumentNode, yaml.AliasNode:
	}
	return fmt.Sprintf("value %q", n.Value)
}

var errNoScalar = errors.New("a configurable type")

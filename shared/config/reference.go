package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Reference renders the keys of a configuration as a Markdown table: key, type, default, environment variable, description. defaults is the
// struct (or a pointer to it) filled with its defaults; the description is the `doc` tag, with what the `validate` tag allows.
func Reference(service string, defaults any) string {
	root := reflect.ValueOf(defaults)
	for root.Kind() == reflect.Pointer {
		root = root.Elem()
	}
	copied := reflect.New(root.Type()).Elem() // addressable, so that methods of pointers are seen
	copied.Set(root)

	var b strings.Builder
	b.WriteString("| key | type | default | environment | description |\n|---|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, l := range leavesOf(copied, service) {
		env := "`" + l.env + "`"
		if l.isSecret() {
			env += " or `" + l.env + "_FILE`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", l.path, typeName(l.value.Type()), cell.Replace(defaultOf(l.value)), env, cell.Replace(describe(l.tag)))
	}
	return b.String()
}

func defaultOf(v reflect.Value) string {
	if v.Type() == secretType || v.IsZero() && v.Kind() != reflect.Bool && v.Kind() != reflect.Int && v.Type() != durationType {
		return ""
	}
	return "`" + plain(v) + "`"
}

func plain(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return short(d)
	}
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			return string(text)
		}
	}
	switch v.Kind() { //nolint:exhaustive // fmt knows the rest
	case reflect.Pointer:
		return plain(v.Elem())
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = plain(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// short writes 15m0s as 15m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// describe joins the doc tag and what the validate tag says that a reader can use.
func describe(tag reflect.StructTag) string {
	parts := []string{}
	if doc := tag.Get("doc"); doc != "" {
		parts = append(parts, strings.TrimSuffix(doc, ".")+".")
	}
	words := map[string]string{"min": "At least", "gte": "At least", "max": "At most", "lte": "At most", "gt": "More than", "lt": "Less than"}
	for _, rule := range strings.Split(tag.Get("validate"), ",") {
		name, param, _ := strings.Cut(rule, "=")
		switch {
		case name == "dive": // what follows is about the entries
			return strings.Join(parts, " ")
		case name == "required":
			parts = append(parts, "Required.")
		case name == "oneof":
			parts = append(parts, "One of: "+strings.Join(strings.Fields(param), ", ")+".")
		case words[name] != "":
			parts = append(parts, words[name]+" "+param+".")
		}
	}
	return strings.Join(parts, " ")
}

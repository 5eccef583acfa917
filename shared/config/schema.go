package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var durationType = reflect.TypeFor[time.Duration]()

// field is one exported field of a struct. Embedded structs without a key of their own are flattened.
type field struct {
	key   string
	value reflect.Value
	tag   reflect.StructTag
}

func fieldsOf(v reflect.Value) []field {
	var out []field
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if options == "inline" || (f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct) {
			out = append(out, fieldsOf(v.Field(i))...)
			continue
		}
		if name == "" {
			name = snake(f.Name)
		}
		out = append(out, field{key: name, value: v.Field(i), tag: f.Tag})
	}
	return out
}

// leaf is a key that has a value of its own: everything but a struct.
type leaf struct {
	path  string // "http.listen"
	env   string // "CERTWRIGHT_GATEWAY_HTTP_LISTEN"
	value reflect.Value
	tag   reflect.StructTag
}

func (l leaf) isSecret() bool { return l.value.IsValid() && l.value.Type() == secretType }

func leavesOf(root reflect.Value, service string) []leaf {
	var out []leaf
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for _, f := range fieldsOf(v) {
			p := join(path, f.key)
			if f.value.Kind() == reflect.Struct && !isScalar(f.value.Type()) {
				walk(f.value, p)
				continue
			}
			out = append(out, leaf{path: p, env: envPrefix(service) + envWord(p), value: f.value, tag: f.tag})
		}
	}
	walk(root, "")
	return out
}

func envPrefix(service string) string {
	if service == "" {
		return "CERTWRIGHT_"
	}
	return "CERTWRIGHT_" + envWord(service) + "_"
}

func envWord(path string) string {
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// snake turns FirstRepeat into first_repeat and HTTPListen into http_listen.
func snake(name string) string {
	var b strings.Builder
	r := []rune(name)
	upper := func(i int) bool { return i >= 0 && i < len(r) && r[i] >= 'A' && r[i] <= 'Z' }
	for i := range r {
		if upper(i) && i > 0 && (!upper(i-1) || (i+1 < len(r) && !upper(i+1))) {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToLower(string(r[i])))
	}
	return b.String()
}

// isScalar reports whether a value of type t is written as one word.
func isScalar(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		return false
	}
	if reflect.PointerTo(t).Implements(textType) {
		return true
	}
	switch t.Kind() { //nolint:exhaustive // the rest is not scalar
	case reflect.String, reflect.Bool,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return true
	}
	return false
}

// setScalar sets v from text; the error says what is wanted.
func setScalar(v reflect.Value, text string) error {
	t := v.Type()
	if t == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("a duration such as 90s, 15m or 24h") //nolint:err113 // becomes part of a field's message
		}
		v.SetInt(int64(d))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%s: %w", typeName(t), err)
		}
		return nil
	}
	var err error
	switch t.Kind() { //nolint:exhaustive // isScalar lists them
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		var b bool
		if b, err = strconv.ParseBool(text); err == nil {
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if i, err = strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, t.Bits()); err == nil {
			v.SetInt(i)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var u uint64
		if u, err = strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 0, t.Bits()); err == nil {
			v.SetUint(u)
		}
	case reflect.Float32, reflect.Float64:
		var f float64
		if f, err = strconv.ParseFloat(text, t.Bits()); err == nil {
			v.SetFloat(f)
		}
	default:
		err = errNoScalar
	}
	if err != nil {
		return errors.New(typeName(t)) //nolint:err113 // becomes part of a field's message
	}
	return nil
}

// typeName says what is wanted, in words.
func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == secretType:
		return "secret"
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case isScalar(t) && reflect.PointerTo(t).Implements(textType):
		return t.String()
	}
	switch t.Kind() { //nolint:exhaustive // the rest is named by its type
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number from 0"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Struct:
		return "mapping"
	}
	return t.String()
}

// suggestion names the nearest known name, or all of them when none is near and they are few.
func suggestion(given string, known []string) string {
	best, least := "", 1<<30
	for _, k := range known {
		if d := distance(strings.ToLower(given), strings.ToLower(k)); d < least || (d == least && k < best) {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; the nearest known one is %q", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unicode"

	"github.com/go-playground/validator/v10"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Validate checks the validator/v10 tags of a struct, e.g. a command of a use case. The error is Invalid INVALID_ARGUMENT with one field per
// violation, named by its path in JSON form ("spec.names[3]").
func Validate(v any) error {
	wrong := violations(v, jsonNames, nil)
	if len(wrong) == 0 {
		return nil
	}
	e := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the input is not valid")
	e.Fields = wrong
	return e
}

// The two validators differ in how they name fields. They are made once and never changed.
var (
	jsonNames   = sync.OnceValue(func() *validator.Validate { return newValidator(jsonName) })
	configNames = sync.OnceValue(func() *validator.Validate { return newValidator(yamlName) })
)

func newValidator(name validator.TagNameFunc) *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(name)
	v.RegisterCustomTypeFunc(func(f reflect.Value) any {
		s, _ := f.Interface().(secret.Value)
		return s.Reveal() // so that required, min and the like work; messages never show it
	}, secret.Value{})
	return v
}

func jsonName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
		return name
	}
	r := []rune(f.Name)
	for i := range r { // ID → id, IssuerID → issuerID, HTTPPort → httpPort
		if i > 0 && i+1 < len(r) && unicode.IsLower(r[i+1]) {
			break
		}
		if !unicode.IsUpper(r[i]) {
			break
		}
		r[i] = unicode.ToLower(r[i])
	}
	return string(r)
}

func yamlName(f reflect.StructField) string {
	if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
		return name
	}
	return snake(f.Name)
}

func violations(v any, with func() *validator.Validate, origin func(string) string) []errs.Field {
	err := with().Struct(v)
	if err == nil {
		return nil
	}
	var all validator.ValidationErrors
	if !errors.As(err, &all) {
		return []errs.Field{{Name: "(root)", Msg: err.Error()}}
	}
	out := make([]errs.Field, len(all))
	for i, fe := range all {
		_, path, _ := strings.Cut(fe.Namespace(), ".")
		msg := message(fe, isSecretAt(v, fe))
		if origin != nil {
			msg += " (set in " + origin(path) + ")"
		}
		out[i] = errs.Field{Name: path, Msg: msg}
	}
	return out
}

// isSecretAt reports whether the field is a secret, whose content may not be shown: the validator gives its text away as a string.
func isSecretAt(v any, fe validator.FieldError) bool {
	value := reflect.ValueOf(v)
	_, path, _ := strings.Cut(fe.StructNamespace(), ".")
	for _, name := range strings.Split(path, ".") {
		name, index, indexed := strings.Cut(name, "[")
		for value.Kind() == reflect.Pointer || value.Kind() == reflect.Interface {
			value = value.Elem()
		}
		if value.Kind() != reflect.Struct {
			return true // not understood: show nothing
		}
		value = value.FieldByName(name)
		if !value.IsValid() {
			return true
		}
		if indexed {
			_ = index
			t := value.Type()
			for t.Kind() == reflect.Pointer {
				t = t.Elem()
			}
			if t.Kind() != reflect.Slice && t.Kind() != reflect.Array && t.Kind() != reflect.Map {
				return true
			}
			value = reflect.New(t.Elem()).Elem()
			if value.Kind() == reflect.Pointer {
				value = reflect.New(t.Elem().Elem())
			}
		}
	}
	t := value.Type()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t == secretType
}

// units says what a size is counted in.
func units(k reflect.Kind) string {
	switch k { //nolint:exhaustive // numbers have no unit
	case reflect.String:
		return " characters"
	case reflect.Slice, reflect.Array, reflect.Map:
		return " entries"
	}
	return ""
}

// formats are the tags that name a form of text, in words.
var formats = map[string]string{
	"url": "a URL such as https://host/path", "http_url": "an http or https URL", "uri": "a URI", "email": "a mail address",
	"fqdn": "a fully qualified domain name", "hostname": "a host name", "hostname_rfc1123": "a host name",
	"hostname_port": "host:port such as 127.0.0.1:8080", "ip": "an IP address", "cidr": "an address range such as 10.0.0.0/8",
	"file": "an existing file", "dir": "an existing directory", "filepath": "a file path", "dirpath": "a directory path",
	"timezone": "a time zone such as Europe/Berlin", "cron": "a cron expression", "uuid": "a UUID", "ulid": "a ULID", "json": "JSON",
	"alphanum": "letters and digits only", "lowercase": "lower case only", "uppercase": "upper case only", "unique": "entries that differ",
	"base64": "base64", "hexadecimal": "hexadecimal digits", "port": "a port from 1 to 65535", "datetime": "a time of the form",
	"startswith": "text that begins with", "endswith": "text that ends with", "excludesall": "text without any of", "contains": "text that contains",
}

// message says what was given and what is allowed.
func message(fe validator.FieldError, hidden bool) string {
	given := fmt.Sprintf("%v given", fe.Value())
	if s, ok := fe.Value().(string); ok {
		given = fmt.Sprintf("%q given", s)
	}
	if hidden {
		given = "the secret given is not right"
	}
	size := func(relation string) string {
		what := fe.Param() + units(fe.Kind())
		if u := units(fe.Kind()); u != "" && !hidden {
			given = fmt.Sprintf("%d%s given", reflect.ValueOf(fe.Value()).Len(), u)
		}
		return fmt.Sprintf("%s, allowed: %s %s", given, relation, what)
	}
	switch tag := fe.Tag(); tag {
	case "required":
		return "is required"
	case "required_if", "required_with", "required_unless", "required_without", "required_with_all", "required_without_all":
		return fmt.Sprintf("is required (%s %s)", strings.ReplaceAll(strings.TrimPrefix(tag, "required_"), "_", " "), fe.Param())
	case "excluded_with", "excluded_if", "excluded_unless", "excluded_without":
		return fmt.Sprintf("%s, but must be absent (%s %s)", given, strings.TrimPrefix(tag, "excluded_"), fe.Param())
	case "oneof", "oneofci":
		return fmt.Sprintf("%s, allowed: %s", given, strings.Join(strings.Fields(fe.Param()), ", "))
	case "min", "gte":
		return size("at least")
	case "max", "lte":
		return size("at most")
	case "gt":
		return size("more than")
	case "lt":
		return size("less than")
	case "len":
		return size("exactly")
	case "eq":
		return fmt.Sprintf("%s, allowed: %s", given, fe.Param())
	case "ne":
		return fmt.Sprintf("%s, which is not allowed", given)
	case "gtfield", "gtefield", "ltfield", "ltefield", "eqfield", "nefield":
		relation := map[string]string{"gt": "more than", "gte": "at least", "lt": "less than", "lte": "at most", "eq": "the same as", "ne": "not the same as"}
		return fmt.Sprintf("%s, allowed: %s the field %s", given, relation[strings.TrimSuffix(tag, "field")], fe.Param())
	default:
		if words, ok := formats[tag]; ok {
			return strings.TrimSpace(fmt.Sprintf("%s, wanted %s %s", given, words, fe.Param()))
		}
		return strings.TrimSuffix(fmt.Sprintf("%s, which does not satisfy %s=%s", given, tag, fe.Param()), "=")
	}
}

package docstore

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/errs"
)

// Reserved names at the top level of a stored document belong to adapters; a body may not have them.
var reserved = []string{"outbox", "outbox_pending", "outbox_at", "outbox_clears"}

// Marshal encodes a struct the way every document is encoded: nil slices as empty arrays, nil maps as empty documents,
// times in UTC milliseconds. Errors are Internal with Reason BAD_DOCUMENT.
func Marshal(v any) (Raw, error) {
	var buf bytes.Buffer
	enc := bson.NewEncoder(bson.NewDocumentWriter(&buf))
	enc.NilSliceAsEmpty()
	enc.NilByteSliceAsEmpty()
	enc.NilMapAsEmpty()
	if err := enc.Encode(v); err != nil {
		return nil, errs.New(errs.Internal, "BAD_DOCUMENT", "encode %T: %w", v, err)
	}
	return buf.Bytes(), nil
}

// Encode brings a document to the form that a Store takes. Errors are Internal with Reason BAD_DOCUMENT.
func Encode[T any](d *Doc[T]) (Raw, error) { return Marshal(d) }

// Decode reads what a Store returned. Fields that T does not have are ignored; times are UTC. Errors are Internal with
// Reason CORRUPT_DOCUMENT.
func Decode[T any](raw Raw) (Doc[T], error) {
	var d Doc[T]
	if err := bson.Unmarshal(raw, &d); err != nil {
		return Doc[T]{}, errs.New(errs.Internal, "CORRUPT_DOCUMENT", "decode %T: %w", d.Body, err)
	}
	return d, nil
}

// Field reads one top-level field of an encoded document: string, bool, int64, time.Time (UTC), []string for an array (its
// strings), or nil for null and for everything that no query can ask for. False means that there is no such field.
func Field(raw Raw, name string) (any, bool) {
	v, err := bson.Raw(raw).LookupErr(name)
	if err != nil {
		return nil, false
	}
	return FieldValue(v), true
}

// FieldValue is Field for a value already looked up.
func FieldValue(v bson.RawValue) any {
	switch v.Type {
	case bson.TypeString:
		return v.StringValue()
	case bson.TypeBoolean:
		return v.Boolean()
	case bson.TypeInt32:
		return int64(v.Int32())
	case bson.TypeInt64:
		return v.Int64()
	case bson.TypeDateTime:
		return time.UnixMilli(v.DateTime()).UTC()
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			return nil
		}
		all := make([]string, 0, len(values))
		for _, e := range values {
			if s, ok := e.StringValueOK(); ok {
				all = append(all, s)
			}
		}
		return all
	default:
		return nil
	}
}

// Check refuses a body type or a declaration that could not be stored or found again: top-level fields of T with omitempty,
// with a name of Meta or of an adapter, inlined maps, and indexed fields that exist in neither or hold what no index can
// order. Errors are Invalid with Reason BAD_SPEC.
func Check[T any](spec Spec) error {
	meta := map[string]reflect.Type{}
	if err := fieldsOf(reflect.TypeFor[Meta](), meta); err != nil {
		return err
	}
	body := map[string]reflect.Type{}
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return badSpec("collection %q: the body must be a struct, not %s", spec.Name, t)
	}
	if err := fieldsOf(t, body); err != nil {
		return err
	}
	for name := range body {
		if _, taken := meta[name]; taken || slices.Contains(reserved, name) {
			return badSpec("collection %q: %s has the field %q, which the store keeps for itself", spec.Name, t, name)
		}
	}
	for _, ix := range spec.Indexes {
		for _, name := range ix.Fields {
			ft, ok := meta[name]
			if !ok {
				ft, ok = body[name]
			}
			switch {
			case !ok:
				return badSpec("collection %q: no field %q to index", spec.Name, name)
			case name == ix.Array && !isStrings(ft):
				return badSpec("collection %q: the array field %q must be a slice of strings, not %s", spec.Name, name, ft)
			case name != ix.Array && !isScalar(ft):
				return badSpec("collection %q: %q of type %s cannot be indexed", spec.Name, name, ft)
			}
		}
	}
	return nil
}

func badSpec(format string, args ...any) error {
	return errs.New(errs.Invalid, "BAD_SPEC", format, args...)
}

// fieldsOf adds the top-level bson fields of the struct t by name, following inlined structs.
func fieldsOf(t reflect.Type, into map[string]reflect.Type) error {
	for f := range t.Fields() {
		if !f.IsExported() {
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("bson"), ",")
		if f.Tag.Get("bson") == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		options := strings.Split(opts, ",")
		if slices.Contains(options, "inline") {
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			if ft.Kind() != reflect.Struct {
				return badSpec("%s.%s: only structs can be inlined", t, f.Name)
			}
			if err := fieldsOf(ft, into); err != nil {
				return err
			}
			continue
		}
		if slices.Contains(options, "omitempty") || slices.Contains(options, "omitzero") {
			return badSpec("%s.%s: omitempty would leave the old value in the store when the field becomes empty", t, f.Name)
		}
		if _, twice := into[name]; twice {
			return badSpec("%s.%s: the field name %q occurs twice", t, f.Name, name)
		}
		into[name] = f.Type
	}
	return nil
}

func isStrings(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String
}

func isScalar(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Time]() {
		return true
	}
	switch t.Kind() { //nolint:exhaustive // the rest cannot be ordered alike by every adapter
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return true
	default:
		return false
	}
}

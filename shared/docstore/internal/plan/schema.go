// Package plan is what the adapters of docstore share: checked declarations, the choice of an index for a query, cursors,
// filters and the cutting of pages. It touches no storage.
package plan

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// ID is the field that every order ends with.
const ID = "_id"

var (
	collectionName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	fieldName      = regexp.MustCompile(`^[a-z][a-zA-Z0-9_]{0,62}$`)
)

// Index is a declared or implicit index. Its name is its fields joined by commas.
type Index struct {
	docstore.Index
	Name string
}

// Schema is a checked Spec with the implicit indexes added.
type Schema struct {
	Name    string
	Indexes []Index  // the implicit ones first; the one of _id is not among them
	Scalars []string // every indexed field that is not an array, each once, in a stable order
}

// New checks a declaration. Errors are Invalid with Reason BAD_SPEC.
func New(spec docstore.Spec) (*Schema, error) {
	if !collectionName.MatchString(spec.Name) {
		return nil, badSpec("collection name %q: want lower-case letters, digits and underscores", spec.Name)
	}
	s := &Schema{Name: spec.Name}
	s.add(docstore.Index{Fields: []string{"due_at"}})
	s.add(docstore.Index{Fields: []string{"changed_at"}})
	for _, ix := range spec.Indexes {
		name := strings.Join(ix.Fields, ",")
		switch {
		case len(ix.Fields) == 0:
			return nil, badSpec("collection %q: an index without fields", spec.Name)
		case ix.Unique && ix.Array != "":
			return nil, badSpec("collection %q: index %q over an array cannot be unique", spec.Name, name)
		case ix.Array != "" && !slices.Contains(ix.Fields, ix.Array):
			return nil, badSpec("collection %q: index %q does not have its array field %q", spec.Name, name, ix.Array)
		}
		for i, f := range ix.Fields {
			if !fieldName.MatchString(f) || slices.Contains(ix.Fields[:i], f) {
				return nil, badSpec("collection %q: index %q: %q is no field name, or is there twice", spec.Name, name, f)
			}
		}
		if name == "due_at" || name == "changed_at" {
			continue
		}
		if s.Index(name) != nil {
			return nil, badSpec("collection %q: index %q is declared twice", spec.Name, name)
		}
		s.add(ix)
	}
	return s, nil
}

func badSpec(format string, args ...any) error {
	return errs.New(errs.Invalid, "BAD_SPEC", format, args...)
}

func (s *Schema) add(ix docstore.Index) {
	s.Indexes = append(s.Indexes, Index{Index: ix, Name: strings.Join(ix.Fields, ",")})
	for _, f := range ix.Fields {
		if f != ix.Array && !slices.Contains(s.Scalars, f) {
			s.Scalars = append(s.Scalars, f)
		}
	}
}

// Index returns the index of this name, or nil.
func (s *Schema) Index(name string) *Index {
	for i := range s.Indexes {
		if s.Indexes[i].Name == name {
			return &s.Indexes[i]
		}
	}
	return nil
}

// Doc is a document taken apart at its top level.
type Doc struct {
	Raw       docstore.Raw
	ID        string
	Revision  int64
	ChangedAt time.Time
	fields    []field
}

// field is one top-level element; both point into the document.
type field struct {
	key     []byte
	element bsoncore.Element
}

// elements takes BSON apart at its top level. It is called several times for each write, so it makes one slice and nothing else.
func elements(raw docstore.Raw) ([]field, error) {
	length, rest, ok := bsoncore.ReadLength(raw)
	if !ok || int(length) != len(raw) || length < 5 || raw[length-1] != 0 {
		return nil, bsoncore.NewInsufficientBytesError(raw, rest)
	}
	all := make([]field, 0, 48)
	for rest = raw[4 : length-1]; len(rest) > 0; {
		var e bsoncore.Element
		if e, rest, ok = bsoncore.ReadElement(rest); !ok {
			return nil, bsoncore.NewInsufficientBytesError(raw, rest)
		}
		if err := e.Validate(); err != nil {
			return nil, err
		}
		all = append(all, field{key: e.KeyBytes(), element: e})
	}
	return all, nil
}

// Parse takes a document apart and checks what every document must have. Errors are Invalid with Reason BAD_DOCUMENT.
func Parse(raw docstore.Raw) (*Doc, error) {
	fields, err := elements(raw)
	if err != nil {
		return nil, errs.New(errs.Invalid, "BAD_DOCUMENT", "the document is not BSON: %w", err)
	}
	d := &Doc{Raw: raw, fields: fields}
	var ok [3]bool
	d.ID, ok[0] = d.Value(ID).(string)
	d.Revision, ok[1] = d.Value("revision").(int64)
	d.ChangedAt, ok[2] = d.Value("changed_at").(time.Time)
	if ok != [3]bool{true, true, true} || d.ID == "" {
		return nil, errs.New(errs.Invalid, "BAD_DOCUMENT", "a document needs a string _id, a revision and changed_at")
	}
	return d, nil
}

// Value returns a top-level field as docstore.Field does, or nil.
func (d *Doc) Value(name string) any {
	e, ok := d.find(name)
	if !ok {
		return nil
	}
	return docstore.FieldValue(bson.RawElement(e).Value())
}

// find looks from the end: of a field that is there twice the last one counts.
func (d *Doc) find(name string) (bsoncore.Element, bool) {
	for i := len(d.fields) - 1; i >= 0; i-- {
		if string(d.fields[i].key) == name {
			return d.fields[i].element, true
		}
	}
	return nil, false
}

// Has tells whether the document has the field, be it null.
func (d *Doc) Has(name string) bool {
	_, ok := d.find(name)
	return ok
}

// Scalar returns an indexable value of the field, or nil for null, arrays and everything else.
func (d *Doc) Scalar(name string) any {
	v := d.Value(name)
	if _, array := v.([]string); array {
		return nil
	}
	return v
}

// Strings returns the different strings of an array field, in order of first occurrence.
func (d *Doc) Strings(name string) []string {
	all, _ := d.Value(name).([]string)
	different := make([]string, 0, len(all))
	for _, s := range all {
		if !slices.Contains(different, s) {
			different = append(different, s)
		}
	}
	return different
}

// CheckUnique refuses a document that lacks a field of a unique index.
func (s *Schema) CheckUnique(d *Doc) error { return s.checkUnique(d, true) }

// CheckUniqueUpdate is CheckUnique for an update that has not been merged: a field that is not in it keeps its stored value.
func (s *Schema) CheckUniqueUpdate(d *Doc) error { return s.checkUnique(d, false) }

func (s *Schema) checkUnique(d *Doc, whole bool) error {
	for _, ix := range s.Indexes {
		if !ix.Unique {
			continue
		}
		for _, f := range ix.Fields {
			if d.Scalar(f) == nil && (whole || d.Has(f)) {
				return errs.New(errs.Invalid, "BAD_DOCUMENT", "collection %q: field %q of the unique index %q is missing",
					s.Name, f, ix.Name)
			}
		}
	}
	return nil
}

// Merge returns the new document with those top-level fields of the old one that the new one does not have.
func Merge(old, updated *Doc) *Doc {
	var unknown []field
	for _, f := range old.fields {
		if !updated.Has(string(f.key)) {
			unknown = append(unknown, f)
		}
	}
	if len(unknown) == 0 {
		return updated
	}
	merged := &Doc{ID: updated.ID, Revision: updated.Revision, ChangedAt: updated.ChangedAt, fields: append(slices.Clone(updated.fields), unknown...)}
	body := slices.Clone(updated.Raw[:len(updated.Raw)-1]) // without the closing zero byte
	for _, f := range unknown {
		body = append(body, f.element...)
	}
	body = append(body, 0)
	n := uint32(len(body)) //nolint:gosec // a document is far below 4 GiB
	body[0], body[1], body[2], body[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	merged.Raw = body
	return merged
}

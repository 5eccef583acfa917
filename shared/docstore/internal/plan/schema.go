// Package plan is what the adapters of docstore share: checked declarations, the choice of an index for a query, cursors,
// filters and the cutting of pages. It touches no storage.
package plan

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

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
	fields    map[string]bson.RawValue
}

// Parse takes a document apart and checks what every document must have. Errors are Invalid with Reason BAD_DOCUMENT.
func Parse(raw docstore.Raw) (*Doc, error) {
	elements, err := bson.Raw(raw).Elements()
	if err != nil {
		return nil, errs.New(errs.Invalid, "BAD_DOCUMENT", "the document is not BSON: %w", err)
	}
	d := &Doc{Raw: raw, fields: make(map[string]bson.RawValue, len(elements))}
	for _, e := range elements {
		d.fields[e.Key()] = e.Value()
	}
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
	v, ok := d.fields[name]
	if !ok {
		return nil
	}
	return docstore.FieldValue(v)
}

// Has tells whether the document has the field, be it null.
func (d *Doc) Has(name string) bool {
	_, ok := d.fields[name]
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
func Merge(old, updated *Doc) (*Doc, error) {
	elements, err := bson.Raw(old.Raw).Elements()
	if err != nil {
		return nil, errs.New(errs.Internal, "CORRUPT_DOCUMENT", "document %q: %w", old.ID, err)
	}
	var unknown []bson.RawElement
	for _, e := range elements {
		if !updated.Has(e.Key()) {
			unknown = append(unknown, e)
		}
	}
	if len(unknown) == 0 {
		return updated, nil
	}
	merged := &Doc{ID: updated.ID, Revision: updated.Revision, ChangedAt: updated.ChangedAt}
	merged.fields = make(map[string]bson.RawValue, len(updated.fields)+len(unknown))
	for k, v := range updated.fields {
		merged.fields[k] = v
	}
	body := slices.Clone(updated.Raw[:len(updated.Raw)-1]) // without the closing zero byte
	for _, e := range unknown {
		body = append(body, e...)
		merged.fields[e.Key()] = e.Value()
	}
	body = append(body, 0)
	n := uint32(len(body)) //nolint:gosec // a document is far below 4 GiB
	body[0], body[1], body[2], body[3] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	merged.Raw = body
	return merged, nil
}

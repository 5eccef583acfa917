// Package listing holds what every list of the API has in common: page sizes, filters of the form `field=value AND field=value` (a subset of AIP-160)
// over declared fields, their way to an index, and the rows of a page.
package listing

import (
	"slices"
	"strings"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

// Size clamps an asked page size: 0 becomes 100. Invalid when it is negative or above 1000.
func Size(asked int32) (int, error) {
	switch {
	case asked == 0:
		return 100, nil
	case asked < 0 || asked > 1000:
		return 0, errs.New(errs.Invalid, "BAD_PAGE_SIZE", "pageSize is %d; it may be 1 to 1000, or left out for 100", asked)
	}
	return int(asked), nil
}

// Filter parses a filter into field → value. A value with " AND " in it, or with spaces around, stands in double quotes. Invalid/BAD_FILTER names
// what was given and which fields are allowed; a field may come once.
func Filter(filter string, allowed ...string) (map[string]string, error) {
	out := map[string]string{}
	if strings.TrimSpace(filter) == "" {
		return out, nil
	}
	for _, term := range Split(filter) {
		name, value, ok := strings.Cut(term, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		if !ok || value == "" || strings.Contains(value, `"`) {
			return nil, errs.New(errs.Invalid, "BAD_FILTER", "the filter term %q is not of the form field=value", term)
		}
		if !slices.Contains(allowed, name) {
			return nil, errs.New(errs.Invalid, "BAD_FILTER", "the filter names the field %q; allowed are %s", name, strings.Join(allowed, ", "))
		}
		if _, twice := out[name]; twice {
			return nil, errs.New(errs.Invalid, "BAD_FILTER", "the filter names the field %q twice", name)
		}
		out[name] = value
	}
	return out, nil
}

// Split returns the terms of a filter: what stands between " AND " outside of quotes.
func Split(filter string) (all []string) {
	const and = " AND "
	quoted, start := false, 0
	for i := 0; i < len(filter); i++ {
		switch {
		case filter[i] == '"':
			quoted = !quoted
		case !quoted && strings.HasPrefix(filter[i:], and):
			all = append(all, filter[start:i])
			i += len(and) - 1
			start = i + 1
		}
	}
	return append(all, filter[start:])
}

// Term is a field and the value that it has to have; "" for any.
type Term [2]string

// By asks the index of the first term that has a value; those after it filter what is found there. Give the most telling one first.
func By(q docstore.Query, terms ...Term) docstore.Query {
	for _, t := range terms {
		switch c := (docstore.Cond{Field: t[0], Op: docstore.Eq, Value: t[1]}); {
		case c.Value == "":
		case len(q.Where) == 0:
			q.Where = append(q.Where, c)
		default:
			q.Filter = append(q.Filter, c)
		}
	}
	return q
}

// Rows shows each document of a page.
func Rows[T, V any](docs []docstore.Doc[T], show func(docstore.Doc[T]) V) []V {
	var out []V
	for _, d := range docs {
		out = append(out, show(d))
	}
	return out
}

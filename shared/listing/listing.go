// Package listing holds what every list of the API has in common: page sizes, and filters of the form
// `field=value AND field=value` (a subset of AIP-160) over declared fields.
package listing

import (
	"slices"
	"strings"

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
	for _, term := range terms(filter) {
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

// terms splits at each " AND " outside of quotes.
func terms(filter string) (all []string) {
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

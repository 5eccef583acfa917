package plan

import (
	"encoding/base64"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	maxIn        = 1000
)

// Equal is an equality on a leading field of the index: one value, or several for In. For the index's array field it is
// membership.
type Equal struct {
	Field  string
	Values []any
}

// Bound is one end of a range. A nil *Bound is no end.
type Bound struct {
	Value     any
	Inclusive bool
}

// Position is the place of the last row of the page before.
type Position struct {
	Value any // of the order field; nil when the order is _id, or the document has none
	ID    string
}

// Plan is a query for which an index was found. Rows are ordered by Order and then by _id.
type Plan struct {
	Index     *Index // nil: the one of _id
	Equal     []Equal
	Low, High *Bound // on Order
	Order     string
	Desc      bool
	Limit     int
	After     *Position
	filter    []docstore.Cond
	scope     string // for messages
}

// Plan finds the index for a query: the first declared one that fits and leaves at most one field after the equalities
// (so that the order costs nothing), else the first that fits. A caller who wants another order adds a range on the
// field to order by. Errors are Invalid: NO_INDEX naming the declared ones, BAD_VALUE, BAD_LIMIT, BAD_CURSOR.
func (s *Schema) Plan(q docstore.Query) (*Plan, error) {
	p := &Plan{Desc: q.Desc, Limit: q.Limit, scope: s.Name}
	if p.Limit == 0 {
		p.Limit = defaultLimit
	}
	if p.Limit < 1 || p.Limit > maxLimit {
		return nil, errs.New(errs.Invalid, "BAD_LIMIT", "a page has 1 to %d documents, not %d", maxLimit, q.Limit)
	}
	equal, ranges, err := split(q.Where)
	if err != nil {
		return nil, err
	}
	if err := s.choose(p, equal, ranges); err != nil {
		return nil, err
	}
	if p.Low, p.High, err = bounds(ranges); err != nil {
		return nil, err
	}
	for _, c := range q.Filter {
		if c.Value, err = normal(c); err != nil {
			return nil, err
		}
		p.filter = append(p.filter, c)
	}
	if q.After != "" {
		if p.After, err = p.parseCursor(q.After); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// split parts the conditions in equalities and the range; values are brought to their normal form.
func split(where []docstore.Cond) (equal, ranges []docstore.Cond, err error) {
	for _, c := range where {
		if c.Value, err = normal(c); err != nil {
			return nil, nil, err
		}
		switch c.Op {
		case docstore.Eq, docstore.In, docstore.Has:
			equal = append(equal, c)
		case docstore.Lt, docstore.Lte, docstore.Gt, docstore.Gte, docstore.Prefix:
			ranges = append(ranges, c)
		}
	}
	return equal, ranges, nil
}

func (s *Schema) choose(p *Plan, equal, ranges []docstore.Cond) error {
	asked := make([]string, 0, len(equal)+len(ranges))
	for _, c := range equal {
		if slices.Contains(asked, c.Field) {
			return s.noIndex("two conditions on %q", c.Field)
		}
		asked = append(asked, c.Field)
	}
	if len(ranges) > 0 {
		f := ranges[0].Field
		if slices.Contains(asked, f) || slices.ContainsFunc(ranges, func(c docstore.Cond) bool { return c.Field != f }) {
			return s.noIndex("at most one range, on a field without another condition")
		}
		asked = append(asked, f)
	}
	if len(asked) == 0 || slices.Equal(asked, []string{ID}) {
		if len(equal) == 1 && equal[0].Op == docstore.Has {
			return s.noIndex("%q is no array", ID)
		}
		p.take(nil, equal, ID)
		return nil
	}
	var found *Index
	for i := range s.Indexes {
		ix := &s.Indexes[i]
		if !fits(ix, equal, ranges) {
			continue
		}
		if len(ix.Fields)-len(equal) <= 1 {
			found = ix
			break
		}
		if found == nil {
			found = ix
		}
	}
	if found == nil {
		return s.noIndex("none fits conditions on %s", strings.Join(asked, ", "))
	}
	order := ID
	if len(found.Fields) > len(equal) {
		order = found.Fields[len(equal)]
	}
	p.take(found, equal, order)
	return nil
}

// take sets the index and puts the equalities in its order.
func (p *Plan) take(ix *Index, equal []docstore.Cond, order string) {
	p.Index, p.Order = ix, order
	for _, c := range equal {
		e := Equal{Field: c.Field, Values: []any{c.Value}}
		if in, ok := c.Value.([]string); ok {
			e.Values = make([]any, len(in))
			for i, v := range in {
				e.Values[i] = v
			}
		}
		p.Equal = append(p.Equal, e)
	}
	if ix != nil {
		slices.SortFunc(p.Equal, func(a, b Equal) int {
			return slices.Index(ix.Fields, a.Field) - slices.Index(ix.Fields, b.Field)
		})
	}
}

func fits(ix *Index, equal, ranges []docstore.Cond) bool {
	if len(equal) > len(ix.Fields) {
		return false
	}
	leading := ix.Fields[:len(equal)]
	if ix.Array != "" && !slices.Contains(leading, ix.Array) {
		return false // one document would come up many times
	}
	for _, c := range equal {
		if !slices.Contains(leading, c.Field) || (c.Op == docstore.Has) != (c.Field == ix.Array) {
			return false
		}
	}
	if len(ranges) == 0 {
		return true
	}
	return len(ix.Fields) > len(equal) && ix.Fields[len(equal)] == ranges[0].Field
}

func (s *Schema) noIndex(format string, args ...any) error {
	return errs.New(errs.Invalid, "NO_INDEX", "collection %q: %s; declared are %s", s.Name, fmt.Sprintf(format, args...),
		s.declared())
}

func (s *Schema) declared() string {
	names := []string{"(_id)"}
	for _, ix := range s.Indexes {
		name := ix.Name
		if ix.Array != "" {
			name += ", has " + ix.Array
		}
		names = append(names, "("+name+")")
	}
	return strings.Join(names, " ")
}

// bounds turns the conditions on the range field into its two ends.
func bounds(ranges []docstore.Cond) (low, high *Bound, err error) {
	for _, c := range ranges {
		b := &Bound{Value: c.Value, Inclusive: c.Op == docstore.Gte || c.Op == docstore.Lte}
		switch {
		case c.Op == docstore.Prefix && len(ranges) > 1:
			return nil, nil, badValue(c, "a prefix stands alone")
		case c.Op == docstore.Prefix:
			prefix, _ := c.Value.(string)
			low = &Bound{Value: prefix, Inclusive: true}
			if next, ok := successor(prefix); ok {
				high = &Bound{Value: next}
			}
		case (c.Op == docstore.Gt || c.Op == docstore.Gte) && low == nil:
			low = b
		case (c.Op == docstore.Lt || c.Op == docstore.Lte) && high == nil:
			high = b
		default:
			return nil, nil, badValue(c, "the same end of the range twice")
		}
	}
	if low != nil && high != nil && reflect.TypeOf(low.Value) != reflect.TypeOf(high.Value) {
		return nil, nil, badValue(ranges[0], "the two ends of a range have different types")
	}
	return low, high, nil
}

// successor is the least valid string above all strings with this prefix; there is none for "" and for the highest runes.
func successor(prefix string) (string, bool) {
	runes := []rune(prefix)
	for i := len(runes) - 1; i >= 0; i-- {
		switch next := runes[i] + 1; {
		case next == 0xD800:
			return string(runes[:i]) + string(rune(0xE000)), true
		case next <= utf8.MaxRune:
			return string(runes[:i]) + string(next), true
		}
	}
	return "", false
}

func badValue(c docstore.Cond, format string, args ...any) error {
	return errs.New(errs.Invalid, "BAD_VALUE", "condition %s %s: %s", c.Field, c.Op, fmt.Sprintf(format, args...))
}

// normal brings the value of a condition to string, bool, int64, time.Time, or []string without repetitions for In.
func normal(c docstore.Cond) (any, error) {
	switch c.Op {
	case docstore.Eq, docstore.Lt, docstore.Lte, docstore.Gt, docstore.Gte:
		return scalar(c)
	case docstore.Prefix, docstore.Has:
		v, err := scalar(c)
		if _, ok := v.(string); err == nil && !ok {
			return nil, badValue(c, "want a string, got %T", c.Value)
		}
		return v, err
	case docstore.In:
		v := reflect.ValueOf(c.Value)
		if !v.IsValid() || v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.String {
			return nil, badValue(c, "want a list of strings, got %T", c.Value)
		}
		if v.Len() > maxIn {
			return nil, badValue(c, "at most %d values, not %d", maxIn, v.Len())
		}
		all := make([]string, 0, v.Len())
		for i := range v.Len() {
			all = append(all, v.Index(i).String())
		}
		slices.Sort(all)
		return slices.Compact(all), nil
	default:
		return nil, badValue(c, "unknown operator")
	}
}

func scalar(c docstore.Cond) (any, error) {
	if t, ok := c.Value.(time.Time); ok {
		return time.UnixMilli(t.UnixMilli()).UTC(), nil
	}
	switch v := reflect.ValueOf(c.Value); v.Kind() { //nolint:exhaustive // the rest is refused
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return nil, badValue(c, "not valid UTF-8")
		}
		return v.String(), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	default:
		return nil, badValue(c, "want a string, bool, int64 or time, got %T", c.Value)
	}
}

// Rows is how many rows the adapter has to offer at most to Collect.
func (p *Plan) Rows() int {
	if p.Filtered() {
		return docstore.MaxScan + 1
	}
	return p.Limit + 1
}

// Filtered tells whether rows have to be looked at one by one.
func (p *Plan) Filtered() bool { return len(p.filter) > 0 }

// Collect reads rows in the plan's order until the page is full.
func (p *Plan) Collect(rows iter.Seq2[docstore.Raw, error]) (docstore.RawPage, error) {
	var page docstore.RawPage
	looked, more := 0, false
	for doc, err := range rows {
		if err != nil {
			return docstore.RawPage{}, err
		}
		full := len(page.Docs) == p.Limit
		if looked == docstore.MaxScan && p.Filtered() {
			if !full {
				return docstore.RawPage{}, p.tooBroad()
			}
			more = true
			break
		}
		looked++
		if !p.matches(doc) {
			continue
		}
		if full {
			more = true
			break
		}
		page.Docs = append(page.Docs, doc)
	}
	if more {
		var err error
		if page.Next, err = p.cursor(page.Docs[len(page.Docs)-1]); err != nil {
			return docstore.RawPage{}, err
		}
	}
	return page, nil
}

// Count counts the rows that pass the filter, up to limit.
func (p *Plan) Count(rows iter.Seq2[docstore.Raw, error], limit int) (int, error) {
	looked, n := 0, 0
	for doc, err := range rows {
		if err != nil {
			return 0, err
		}
		if looked == docstore.MaxScan && p.Filtered() {
			return 0, p.tooBroad()
		}
		looked++
		if p.matches(doc) {
			n++
		}
		if n == limit {
			break
		}
	}
	return n, nil
}

// ForCount drops what has no meaning when counting, and checks the limit.
func ForCount(q docstore.Query, limit int) (docstore.Query, error) {
	if limit < 1 {
		return q, errs.New(errs.Invalid, "BAD_LIMIT", "a count needs a limit of at least 1, not %d", limit)
	}
	return docstore.Query{Where: q.Where, Filter: q.Filter}, nil
}

func (p *Plan) tooBroad() error {
	used := ID
	if p.Index != nil {
		used = p.Index.Name
	}
	return errs.New(errs.Invalid, "FILTER_TOO_BROAD",
		"collection %q: more than %d rows by index (%s) and too few pass the filter; narrow the indexed condition or add one",
		p.scope, docstore.MaxScan, used).WithMeta("index", used)
}

func (p *Plan) matches(raw docstore.Raw) bool {
	for _, c := range p.filter {
		v, _ := docstore.Field(raw, c.Field)
		if !match(c, v) {
			return false
		}
	}
	return true
}

func match(c docstore.Cond, v any) bool {
	switch c.Op {
	case docstore.Has:
		all, _ := v.([]string)
		want, _ := c.Value.(string)
		return slices.Contains(all, want)
	case docstore.In:
		s, ok := v.(string)
		all, _ := c.Value.([]string)
		return ok && slices.Contains(all, s)
	case docstore.Prefix:
		s, ok := v.(string)
		want, _ := c.Value.(string)
		return ok && strings.HasPrefix(s, want)
	case docstore.Eq, docstore.Lt, docstore.Lte, docstore.Gt, docstore.Gte:
		order, ok := compare(v, c.Value)
		if !ok {
			return false
		}
		switch c.Op { //nolint:exhaustive // the outer case leaves five
		case docstore.Lt:
			return order < 0
		case docstore.Lte:
			return order <= 0
		case docstore.Gt:
			return order > 0
		case docstore.Gte:
			return order >= 0
		default:
			return order == 0
		}
	}
	return false
}

// compare orders two values of one type; false when their types differ.
func compare(a, b any) (int, bool) {
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	case int64:
		y, ok := b.(int64)
		return cmpInt(x, y), ok
	case bool:
		y, ok := b.(bool)
		return cmpInt(boolInt(x), boolInt(y)), ok
	case time.Time:
		y, ok := b.(time.Time)
		return x.Compare(y), ok
	default:
		return 0, false
	}
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// place is a cursor's content: which order it belongs to, and the last row's place in it.
type place struct {
	Order string `bson:"o"`
	Desc  bool   `bson:"d"`
	Value any    `bson:"v"`
	ID    string `bson:"i"`
}

func (p *Plan) cursor(last docstore.Raw) (string, error) {
	at := place{Order: p.Order, Desc: p.Desc}
	id, _ := docstore.Field(last, ID)
	at.ID, _ = id.(string)
	if p.Order != ID {
		at.Value, _ = docstore.Field(last, p.Order)
	}
	raw, err := bson.Marshal(at)
	if err != nil {
		return "", errs.New(errs.Internal, "BAD_CURSOR", "encode a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

func (p *Plan) parseCursor(s string) (*Position, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || bson.Raw(raw).Validate() != nil {
		return nil, badCursor("not a cursor of this store")
	}
	id, _ := docstore.Field(raw, "i")
	order, _ := docstore.Field(raw, "o")
	desc, _ := docstore.Field(raw, "d")
	value, _ := docstore.Field(raw, "v")
	pos := &Position{Value: value}
	pos.ID, _ = id.(string)
	if _, array := value.([]string); array || pos.ID == "" {
		return nil, badCursor("not a cursor of this store")
	}
	if order != p.Order || desc != p.Desc {
		return nil, badCursor("the cursor belongs to a query with another order")
	}
	return pos, nil
}

func badCursor(msg string) error { return errs.New(errs.Invalid, "BAD_CURSOR", "%s", msg) }

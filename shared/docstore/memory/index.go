package memory

import (
	"encoding/binary"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/certwright/certwright/shared/docstore/internal/plan"
)

// index is a sorted list of keys. A key is the values of the fields and then the _id, each in a form whose byte order
// is the order of the values.
type index struct {
	plan.Index
	entries []entry
}

type entry struct {
	key    string
	record *record
}

// Each encoded value begins with its type's rank, in the order of BSON: null, numbers, strings, booleans, dates.
const (
	rankNull   = 0x05
	rankInt    = 0x10
	rankString = 0x20
	rankBool   = 0x30
	rankTime   = 0x40
)

func encodeValue(v any) string {
	switch x := v.(type) {
	case string:
		return string(rune(rankString)) + escape(x) + "\x00\x01"
	case int64:
		return number(rankInt, x)
	case bool:
		if x {
			return string([]byte{rankBool, 1})
		}
		return string([]byte{rankBool, 0})
	case time.Time:
		return number(rankTime, x.UnixMilli())
	default:
		return string(rune(rankNull))
	}
}

// escape keeps a string's order when more follows it.
func escape(s string) string { return strings.ReplaceAll(s, "\x00", "\x00\xff") }

func number(rank byte, n int64) string {
	b := [9]byte{rank}
	binary.BigEndian.PutUint64(b[1:], uint64(n)^(1<<63)) //nolint:gosec // the bits, with the sign turned
	return string(b[:])
}

// above is the least key above all keys with this prefix; "" means there is none.
func above(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// values returns the key without the _id, once for each member of the array field.
func (ix *index) values(d *plan.Doc) []string {
	all := []string{""}
	for _, f := range ix.Fields {
		if f != ix.Array {
			v := encodeValue(d.Scalar(f))
			for i := range all {
				all[i] += v
			}
			continue
		}
		var each []string
		for _, member := range d.Strings(f) {
			for _, k := range all {
				each = append(each, k+encodeValue(member))
			}
		}
		all = each
	}
	return all
}

func (ix *index) keys(d *plan.Doc) []string {
	all := ix.values(d)
	for i := range all {
		all[i] += encodeValue(d.ID)
	}
	return all
}

// taken tells whether the index is unique and another document has the same values.
func (ix *index) taken(d *plan.Doc) bool {
	if !ix.Unique {
		return false
	}
	prefix := ix.values(d)[0]
	i := ix.search(prefix)
	return i < len(ix.entries) && strings.HasPrefix(ix.entries[i].key, prefix) && ix.entries[i].record.doc.ID != d.ID
}

func (ix *index) search(key string) int {
	return sort.Search(len(ix.entries), func(i int) bool { return ix.entries[i].key >= key })
}

func (ix *index) insert(e entry) {
	ix.entries = slices.Insert(ix.entries, ix.search(e.key), e)
}

func (ix *index) remove(key string) {
	if i := ix.search(key); i < len(ix.entries) && ix.entries[i].key == key {
		ix.entries = slices.Delete(ix.entries, i, i+1)
	}
}

// span is a run of entries with the same equalities.
type span struct {
	entries []entry
	prefix  int  // length of the equalities in the keys
	exact   bool // the entries are in the plan's order
}

func (s span) walk(desc bool) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i := range s.entries {
			if desc {
				i = len(s.entries) - 1 - i
			}
			if !yield(s.entries[i]) {
				return
			}
		}
	}
}

// spans cuts out of the index what the plan asks for: one run for each combination of its equalities.
func (ix *index) spans(p *plan.Plan) []span {
	prefixes := []string{""}
	for _, e := range p.Equal {
		var longer []string
		for _, v := range e.Values {
			for _, prefix := range prefixes {
				longer = append(longer, prefix+encodeValue(v))
			}
		}
		prefixes = longer
	}
	exact := inOrder(p)
	all := make([]span, 0, len(prefixes))
	for _, prefix := range prefixes {
		low, high := limits(prefix, p)
		from, to := ix.search(low), len(ix.entries)
		if high != "" {
			to = ix.search(high)
		}
		if from < to {
			all = append(all, span{entries: ix.entries[from:to], prefix: len(prefix), exact: exact})
		}
	}
	return all
}

// inOrder tells whether a run of the index is in the plan's order: nothing but the order field stands between the
// equalities and the _id.
func inOrder(p *plan.Plan) bool {
	if p.Index == nil {
		return len(p.Equal) == 0
	}
	return len(p.Index.Fields)-len(p.Equal) <= 1
}

// limits returns the first key wanted and the first not wanted any more ("" is none).
func limits(prefix string, p *plan.Plan) (low, high string) {
	low, high = prefix, above(prefix)
	if p.Low != nil {
		low = prefix + encodeValue(p.Low.Value)
		high = above(low[:len(prefix)+1]) // same type
		if !p.Low.Inclusive {
			low = above(low)
		}
	}
	if p.High != nil {
		bound := prefix + encodeValue(p.High.Value)
		if p.Low == nil {
			low = bound[:len(prefix)+1]
		}
		high = bound
		if p.High.Inclusive {
			high = above(bound)
		}
	}
	if p.After == nil || !inOrder(p) {
		return low, high // sorted cuts
	}
	at := prefix
	if p.Order != plan.ID {
		at += encodeValue(p.After.Value)
	}
	at += encodeValue(p.After.ID)
	if p.Desc {
		if high == "" || at < high {
			high = at
		}
	} else if next := above(at); next > low {
		low = next
	}
	return low, high
}

// sorted merges runs into the plan's order: the order field, then _id.
func sorted(spans []span, p *plan.Plan) []entry {
	type placed struct {
		entry
		order string
	}
	at := ""
	if p.After != nil {
		at = encodeValue(p.After.ID)
		if p.Order != plan.ID {
			at = encodeValue(p.After.Value) + at
		}
	}
	var all []placed
	for _, s := range spans {
		for _, e := range s.entries {
			order := encodeValue(e.record.doc.ID)
			if p.Order != plan.ID {
				order = encodeValue(e.record.doc.Scalar(p.Order)) + order
			}
			if at != "" && (p.Desc && order >= at || !p.Desc && order <= at) {
				continue
			}
			all = append(all, placed{e, order})
		}
	}
	slices.SortFunc(all, func(a, b placed) int {
		if p.Desc {
			return strings.Compare(b.order, a.order)
		}
		return strings.Compare(a.order, b.order)
	})
	entries := make([]entry, len(all))
	for i, e := range all {
		entries[i] = e.entry
	}
	return entries
}

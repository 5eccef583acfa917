package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// column is one column of a table.
type column[T any] struct {
	title string
	cell  func(T) string
}

// pair is one line of the view of a single thing; an empty value is left out.
type pair struct{ name, value string }

// show prints m as asked for: as JSON or YAML in the shape of the API, or as a person reads it.
func (a *app) show(m proto.Message, person func(io.Writer) error) error {
	if a.output == outputTable {
		return person(a.Out)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return errs.New(errs.Internal, "", "encoding the answer: %w", err)
	}
	return a.showJSON(text)
}

// showJSON prints a JSON text in the format asked for. protojson spaces its output at random; here it is always the same.
func (a *app) showJSON(text []byte) error {
	if a.output == outputYAML {
		out, err := yaml.JSONToYAML(text)
		if err != nil {
			return errs.New(errs.Internal, "", "writing YAML: %w", err)
		}
		_, err = a.Out.Write(out)
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return errs.New(errs.Internal, "", "writing JSON: %w", err)
	}
	b.WriteByte('\n')
	_, err := a.Out.Write(b.Bytes())
	return err
}

// showPairs prints m, for a person as one line per pair.
func (a *app) showPairs(m proto.Message, pairs []pair) error {
	return a.show(m, func(w io.Writer) error { return writePairs(w, pairs) })
}

func writePairs(w io.Writer, pairs []pair) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		if p.value != "" {
			fmt.Fprintf(t, "%s:\t%s\n", p.name, printable(p.value))
		}
	}
	return t.Flush()
}

func writeTable[T any](w io.Writer, rows []T, columns []column[T]) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, c := range columns {
		fmt.Fprint(t, c.title, end(i, len(columns)))
	}
	for _, r := range rows {
		for i, c := range columns {
			v := printable(c.cell(r))
			if v == "" {
				v = "-"
			}
			fmt.Fprint(t, v, end(i, len(columns)))
		}
	}
	return t.Flush()
}

func end(i, n int) string {
	if i == n-1 {
		return "\n"
	}
	return "\t"
}

// stamp is a moment as tables show it, "" when unset.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Truncate(time.Second).Format(time.RFC3339)
}

// soon is a moment as progress shows it: the time alone when it is today.
func (a *app) soon(t *timestamppb.Timestamp) string {
	at, now := t.AsTime().In(a.Zone), a.Clock.Now().In(a.Zone)
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format(time.TimeOnly)
	}
	return at.Format(time.DateTime)
}

// short names the first and counts the others.
func short(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return names[0] + " +" + strconv.Itoa(len(names)-1)
}

func list(values []string) string { return strings.Join(values, ", ") }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// why is a problem as one sentence and its reason.
func why(p *typesv1.Problem) string {
	if p == nil {
		return ""
	}
	s := p.GetDetail()
	for _, sub := range p.GetSubproblems() {
		if text := sub.GetIdentifier() + ": " + sub.GetDetail(); !strings.Contains(s, text) { // the detail of a failed order has them already
			s += "; " + text
		}
	}
	if p.GetReason() != "" {
		s = strings.TrimSpace(s + " (" + p.GetReason() + ")")
	}
	return s
}

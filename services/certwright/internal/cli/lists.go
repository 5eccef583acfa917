package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/shared/errs"
)

// pageSize is how many are asked for at once; the edge allows up to 1000.
const pageSize = 200

// page is an answer of a list of the API.
type page interface {
	proto.Message
	GetNextPageToken() string
}

// listing is a list of the API: where it is, and how a person reads it.
type listing[R page, T proto.Message] struct {
	path    string
	items   func(R) []T
	columns []column[T]
}

// filter is a flag that is one term of the list's filter.
type filter struct {
	flag, field, usage string
	kind               filterKind
	values             []string // completion
}

type filterKind int

const (
	text   filterKind = iota
	truth             // --flag is field=true
	many              // may be given several times
	moment            // a moment, or how long from now
)

// fetch reads pages until limit rows are there (0: all), merged into one answer, which keeps the token of the next page if there is more.
func (l listing[R, T]) fetch(ctx context.Context, c *client, filter string, limit int) (R, error) {
	all := fresh[R]()
	token := ""
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(l.items(all)))
		}
		q := url.Values{"pageSize": {strconv.Itoa(size)}}
		if filter != "" {
			q.Set("filter", filter)
		}
		if token != "" {
			q.Set("pageToken", token)
		}
		next := fresh[R]()
		if err := c.call(ctx, http.MethodGet, l.path, q, nil, next); err != nil {
			return all, err
		}
		proto.Merge(all, next)
		if t := next.GetNextPageToken(); t == "" || t == token { // the last page, or an edge that goes round in circles
			clearToken(all)
			return all, nil
		}
		if token = next.GetNextPageToken(); limit > 0 && len(l.items(all)) >= limit {
			return all, nil
		}
	}
}

func fresh[R proto.Message]() R {
	var zero R
	made, _ := zero.ProtoReflect().New().Interface().(R)
	return made
}

func clearToken(m proto.Message) {
	r := m.ProtoReflect()
	if f := r.Descriptor().Fields().ByName("next_page_token"); f != nil {
		r.Clear(f)
	}
}

// command is the verb "list".
func (l listing[R, T]) command(a *app, short string, filters ...filter) *cobra.Command {
	given := make([][]string, len(filters))
	flags := make([]bool, len(filters))
	var extra string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var terms []string
			for i, f := range filters {
				if flags[i] {
					terms = append(terms, f.field+"=true")
				}
				for _, v := range given[i] {
					term, err := a.term(f, v)
					if err != nil {
						return err
					}
					terms = append(terms, term)
				}
			}
			if extra != "" {
				terms = append(terms, extra)
			}
			if limit < 0 {
				return usage("--limit is %d; allowed: 0 (all) or more", limit)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := l.fetch(cmd.Context(), client, strings.Join(terms, " AND "), limit)
			if err != nil {
				return err
			}
			if all.GetNextPageToken() != "" {
				fmt.Fprintf(a.Err, "there are more than these %d; use --limit 0 for all\n", limit)
			}
			return a.show(all, func(w io.Writer) error { return writeTable(w, l.items(all), l.columns) })
		},
	}
	for i, f := range filters {
		switch f.kind {
		case truth:
			c.Flags().BoolVar(&flags[i], f.flag, false, f.usage)
		case text, many, moment:
			c.Flags().Var(&filterValue{into: &given[i], many: f.kind == many}, f.flag, f.usage)
		}
		if len(f.values) > 0 {
			complete(c, f.flag, f.values...)
		}
	}
	if len(filters) > 0 {
		c.Flags().StringVar(&extra, "filter", "", "further `terms`, field=value joined by AND, as in the API")
	}
	c.Flags().IntVar(&limit, "limit", 500, "show at most this many, 0: all")
	return c
}

// term is what a value of the flag says in the API's filter.
func (a *app) term(f filter, v string) (string, error) {
	if f.kind == moment {
		at, err := a.moment("--"+f.flag, v)
		if err != nil {
			return "", err
		}
		v = at.Format(time.RFC3339)
	}
	if strings.Contains(v, " AND ") {
		return "", usage("--%s is %q, which cannot be filtered by", f.flag, v)
	}
	return f.field + "=" + v, nil
}

// filterValue collects the values of a flag: the last one, or all.
type filterValue struct {
	into *[]string
	many bool
}

func (v *filterValue) String() string { return "" }
func (v *filterValue) Type() string   { return "string" }
func (v *filterValue) Set(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	if !v.many {
		*v.into = nil
	}
	*v.into = append(*v.into, s)
	return nil
}

// named is what has an id and a name that people gave it.
type named interface {
	proto.Message
	GetId() string
	GetDisplayName() string
}

// resolve turns a display name into an id; what begins with the prefix of an id is one. NotFound when nothing has the name, Invalid/NAME_AMBIGUOUS when
// several have.
func resolve[R page, T named](ctx context.Context, a *app, l listing[R, T], prefix, given string) (string, error) {
	if strings.HasPrefix(given, prefix) {
		return given, nil
	}
	c, err := a.client()
	if err != nil {
		return "", err
	}
	all, err := l.fetch(ctx, c, "", 0)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, item := range l.items(all) {
		if item.GetDisplayName() == given {
			ids = append(ids, item.GetId())
		}
	}
	noun := strings.TrimPrefix(l.path, "/v1/")
	switch len(ids) {
	case 0:
		return "", errs.New(errs.NotFound, "NOT_FOUND", "none of the %s is named %q; an id begins with %s", noun, given, prefix)
	case 1:
		return ids[0], nil
	}
	return "", errs.New(errs.Invalid, "NAME_AMBIGUOUS", "several of the %s are named %q: %s; give an id", noun, given, list(ids))
}

// ids completes arguments or flags with ids; the name is shown beside. It stays silent when the edge cannot be asked.
func ids[R page, T named](a *app, l listing[R, T], args int) cobra.CompletionFunc {
	return suggestions(a, args, l, func(t T) string { return t.GetId() + "\t" + t.GetDisplayName() })
}

func suggestions[R page, T proto.Message](a *app, args int, l listing[R, T], text func(T) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if args > 0 && len(have) >= args {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
		defer cancel()
		all, err := l.fetch(ctx, c, "", pageSize)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, item := range l.items(all) {
			out = append(out, printableTab(text(item)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// printableTab keeps the one tab between a completion and its description.
func printableTab(s string) string {
	id, name, _ := strings.Cut(s, "\t")
	return printable(id) + "\t" + printable(name)
}

// moment reads a moment (RFC 3339), a day (its end in UTC), or how long from now ("36h", "30d").
func (a *app) moment(flag, v string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, v); err == nil {
		return at.UTC(), nil
	}
	if day, err := time.Parse(time.DateOnly, v); err == nil {
		return day.AddDate(0, 0, 1).Add(-time.Second), nil
	}
	if d, err := period(v); err == nil && d > 0 {
		return a.Clock.Now().Add(d), nil
	}
	return time.Time{}, usage("%s is %q; allowed is a moment such as 2027-01-31T00:00:00Z, a day such as 2027-01-31, or how long from now such as 30d or 36h", flag, v)
}

// period is time.ParseDuration with days.
func period(v string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n > 36500 {
			return 0, fmt.Errorf("%q is not a number of days", v)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(v)
}

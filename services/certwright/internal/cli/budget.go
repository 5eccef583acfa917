package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
)

var limitKinds = []string{"orders_per_account", "certificates_per_registered_domain", "certificates_per_exact_set", "failed_authorizations_per_identifier"}

// issuerBudget is "issuers budget".
func (a *app) issuerBudget(ids cobra.CompletionFunc) *cobra.Command {
	var kind, name string
	cmd := a.verb("budget ID|NAME", "Show what is left of the CA's limits, and when the next order may go", 1, func(ctx context.Context, c *client, args []string) error {
		q := url.Values{"pageSize": {strconv.Itoa(pageSize)}}
		for k, v := range map[string]string{"kind": kind, "name": name} {
			if v != "" {
				q.Set(k, v)
			}
		}
		all := &ordersv1.GetIssuerBudgetResponse{}
		for {
			next := &ordersv1.GetIssuerBudgetResponse{}
			if err := c.call(ctx, http.MethodGet, path("/v1/issuers/", args[0], "/budget"), q, nil, next); err != nil {
				return err
			}
			limits, token := next.GetLimits(), next.GetNextPageToken()
			next.Limits, next.NextPageToken = nil, ""
			proto.Merge(all, next)
			if all.Limits = limits; token == "" || token == q.Get("pageToken") {
				break
			}
			q.Set("pageToken", token)
		}
		return a.show(all, func(w io.Writer) error { return a.writeBudget(w, all) })
	})
	cmd.Example = "  certwright issuers budget letsencrypt --name www.example.org"
	cmd.Flags().StringVar(&kind, "kind", "", "only limits of this `kind`")
	cmd.Flags().StringVar(&name, "name", "", "only limits that count this `name`")
	complete(cmd, "kind", limitKinds...)
	cmd.ValidArgsFunction = ids
	return cmd
}

func (a *app) writeBudget(w io.Writer, r *ordersv1.GetIssuerBudgetResponse) error {
	if len(r.GetLimits()) == 0 {
		fmt.Fprintln(a.Err, "the issuer has no limits: nothing is held back")
		return nil
	}
	type b = *ordersv1.IssuerBudget
	return writeTable(w, r.GetBudgets(), []column[b]{
		{"LIMIT", b.GetKind},
		{"OF", func(b b) string {
			if len(b.GetNames()) > 0 {
				return short(b.GetNames())
			}
			return b.GetScope()
		}},
		{"LEFT", func(b b) string { return fmt.Sprintf("%d of %d", b.GetLeft(), b.GetCapacity()) }},
		{"IN", func(b b) string { return inWords(b.GetPeriod()) }},
		{"NEXT ORDER", func(b b) string {
			if b.GetNextTime() == nil {
				return "now"
			}
			return stamp(b.GetNextTime())
		}},
		{"FULL", func(b b) string { return stamp(b.GetFullTime()) }},
		{"WAITING", func(b b) string { return number(b.GetWaiting()) }},
	})
}

// inWords shows a duration without the zeros that Go writes.
func inWords(d *durationpb.Duration) string {
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// limitFlags adds --limit; what was given is read by the function returned.
func limitFlags(cmd *cobra.Command) func() ([]*ordersv1.IssuerLimit, error) {
	var given []string
	cmd.Flags().StringArrayVar(&given, "limit", nil, "what the CA allows, as `kind=capacity/period[,exempt]`; may be repeated; default: the known limits of the directory, if any")
	return func() (out []*ordersv1.IssuerLimit, err error) {
		for _, text := range given {
			l, err := parseLimit(text)
			if err != nil {
				return nil, err
			}
			out = append(out, l)
		}
		return out, nil
	}
}

func parseLimit(text string) (*ordersv1.IssuerLimit, error) {
	terms := strings.Split(text, ",")
	kind, amount, _ := strings.Cut(terms[0], "=")
	capacity, in, _ := strings.Cut(amount, "/")
	n, err := strconv.ParseInt(capacity, 10, 64)
	d, errIn := period(in)
	if err != nil || errIn != nil || kind == "" {
		return nil, usage("--limit is %q; give it as kind=capacity/period[,exempt], such as orders_per_account=300/3h,ari,renewal; kinds: %s", text, strings.Join(limitKinds, ", "))
	}
	return &ordersv1.IssuerLimit{Kind: kind, Capacity: n, Period: durationpb.New(d), Exempt: terms[1:]}, nil
}

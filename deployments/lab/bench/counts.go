package bench

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/certwright/certwright/deployments/lab/ca"
)

// Counts is what has happened, by name. Names are "<service>/<collection>", fact types, gRPC methods, and CA endpoints.
type Counts struct {
	Writes, Syncs, Messages, Handled, Calls, CA map[string]float64
}

// Counts returns the totals since the start.
func (b *Bench) Counts() (Counts, error) {
	c := Counts{
		Writes: map[string]float64{}, Syncs: map[string]float64{}, Messages: map[string]float64{}, Handled: map[string]float64{},
		Calls: map[string]float64{}, CA: map[string]float64{},
	}
	b.mu.Lock()
	stores, syncs := maps.Clone(b.stores), maps.Clone(b.syncs)
	b.mu.Unlock()
	for service, s := range stores {
		for collection, n := range s.Writes() {
			c.Writes[service+"/"+collection] = float64(n)
		}
	}
	for service, s := range syncs {
		_, n := s.Stats()
		c.Syncs[service] = float64(n)
	}
	families, err := b.telemetry.Registry().Gather()
	if err != nil {
		return c, err
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch name := f.GetName(); {
			case name == "certwright_bus_published_total":
				c.Messages[label(m, "type")] += m.GetCounter().GetValue()
			case name == "certwright_bus_handled_total":
				c.Handled[label(m, "consumer")] += m.GetCounter().GetValue()
			case strings.HasPrefix(name, "rpc_server_") && strings.HasSuffix(name, "duration_seconds"):
				c.Calls[label(m, "rpc_service")+"/"+label(m, "rpc_method")] += float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	for endpoint, t := range b.CA.Counts().Endpoints {
		c.CA[string(endpoint)] = float64(t.Requests)
	}
	delete(c.CA, string(ca.Directory))
	return c, nil
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// PerCertificate gets n certificates through the platform, c at a time, waits until it rests, and returns what one of them cost. What is
// done for many at once, like clearing outboxes, comes out as a fraction.
func (b *Bench) PerCertificate(ctx context.Context, n, c int) (Counts, error) {
	if err := b.rest(ctx); err != nil {
		return Counts{}, err
	}
	before, err := b.Counts()
	if err != nil {
		return before, err
	}
	if err := b.round(ctx, &Series{}, b.ByPlatform, "", n, c); err != nil {
		return before, err
	}
	if err := b.rest(ctx); err != nil {
		return before, err
	}
	after, err := b.Counts()
	return Counts{
		Writes: per(before.Writes, after.Writes, n), Syncs: per(before.Syncs, after.Syncs, n), Messages: per(before.Messages, after.Messages, n),
		Handled: per(before.Handled, after.Handled, n), Calls: per(before.Calls, after.Calls, n), CA: per(before.CA, after.CA, n),
	}, err
}

func per(before, after map[string]float64, n int) map[string]float64 {
	out := map[string]float64{}
	for name, v := range after {
		if d := v - before[name]; d > 0 {
			out[name] = d / float64(n)
		}
	}
	return out
}

// Sum adds up one kind of count.
func Sum(m map[string]float64) (total float64) {
	for _, v := range m {
		total += v
	}
	return total
}

// Write writes the counts as Markdown.
func (c Counts) Write(w io.Writer) {
	_, _ = fmt.Fprintln(w, "| what | per certificate | of these |\n|---|---|---|")
	for _, r := range []struct {
		title string
		of    map[string]float64
	}{
		{"store writes", c.Writes}, {"disk syncs", c.Syncs}, {"facts published", c.Messages}, {"facts handled", c.Handled}, {"gRPC calls", c.Calls},
		{"CA round trips", c.CA},
	} {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(r.of)) {
			parts = append(parts, fmt.Sprintf("%s %s", name, short(r.of[name])))
		}
		_, _ = fmt.Fprintf(w, "| %s | %s | %s |\n", r.title, short(Sum(r.of)), strings.Join(parts, ", "))
	}
}

func short(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") }

package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certwright/certwright/shared/clock"
)

// Series is one way at one degree of concurrency, over all its rounds.
type Series struct {
	Certificates int
	Took         time.Duration // sum over rounds
	CPU          time.Duration // of the whole process, the CA included
	Rates        []float64     // certificates a second, by round
	latencies    []time.Duration
}

// Rate is certificates a second over all rounds.
func (s *Series) Rate() float64 { return float64(s.Certificates) / s.Took.Seconds() }

// Quantile is a latency, q from 0 to 1.
func (s *Series) Quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	slices.Sort(s.latencies)
	return s.latencies[min(int(q*float64(len(s.latencies))), len(s.latencies)-1)]
}

// Pair are both ways at one degree of concurrency.
type Pair struct {
	Concurrency       int
	Library, Platform Series
}

// Plan says how much is measured.
type Plan struct {
	Concurrency []int
	Rounds      int     // of each way, in turn
	Scale       float64 // of the certificates in a round; 1 is about ten seconds for the platform
}

func (p Plan) certificates(concurrency int) int {
	return max(int(p.Scale*float64(min(100+20*concurrency, 800))), concurrency)
}

// Throughput measures both ways in turn, so that what else the machine does hits both alike.
func (b *Bench) Throughput(ctx context.Context, p Plan, progress io.Writer) ([]*Pair, error) {
	var out []*Pair
	for _, c := range p.Concurrency {
		pair := &Pair{Concurrency: c}
		n := p.certificates(c)
		for round := range p.Rounds {
			if err := b.round(ctx, &pair.Library, b.ByLibrary, libraryHost, n, c); err != nil {
				return out, fmt.Errorf("the library, %d at a time: %w", c, err)
			}
			if err := b.round(ctx, &pair.Platform, b.ByPlatform, "", n, c); err != nil {
				return out, fmt.Errorf("the platform, %d at a time: %w", c, err)
			}
			if err := b.rest(ctx); err != nil {
				return out, err
			}
			l, f := pair.Library.Rates[round], pair.Platform.Rates[round]
			_, _ = fmt.Fprintf(progress, "  %2d at a time, round %d: library %.1f/s, platform %.1f/s, ratio %.2f\n", c, round+1, l, f, f/l)
		}
		out = append(out, pair)
	}
	return out, nil
}

// round gets n certificates, c at a time.
func (b *Bench) round(ctx context.Context, s *Series, obtain Obtain, host string, n, c int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	names := make([]string, n)
	for i := range names {
		names[i] = b.Name(host)
	}
	clk := clock.System()
	latencies := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	cpu, began := cpuTime(), clk.Now()
	for range c {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				one, end := context.WithTimeout(ctx, patience)
				from := clk.Now()
				if err := obtain(one, names[i]); err != nil {
					cancel(err)
				}
				latencies[i] = clk.Now().Sub(from)
				end()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	took := clk.Now().Sub(began)
	s.Certificates += n
	s.Took += took
	s.CPU += cpuTime() - cpu
	s.Rates = append(s.Rates, float64(n)/took.Seconds())
	s.latencies = append(s.latencies, latencies...)
	return nil
}

// cpuTime is what this process used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Table writes the pairs as Markdown.
func Table(w io.Writer, pairs []*Pair) {
	_, _ = fmt.Fprintln(w, "| at a time | library/s | platform/s | rate ratio (by round) | library p50 / p99 | platform p50 / p99 | p50 ratio | CPU per certificate, library / platform |")
	_, _ = fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	for _, p := range pairs {
		l, f := &p.Library, &p.Platform
		low, high := f.Rates[0]/l.Rates[0], 0.0
		for i := range f.Rates {
			low, high = min(low, f.Rates[i]/l.Rates[i]), max(high, f.Rates[i]/l.Rates[i])
		}
		_, _ = fmt.Fprintf(w, "| %d | %.1f | %.1f | **%.2f** (%.2f to %.2f) | %s / %s | %s / %s | %.1f | %s / %s |\n", p.Concurrency, l.Rate(), f.Rate(), f.Rate()/l.Rate(),
			low, high, ms(l.Quantile(.5)), ms(l.Quantile(.99)), ms(f.Quantile(.5)), ms(f.Quantile(.99)),
			float64(f.Quantile(.5))/float64(l.Quantile(.5)), ms(l.CPU/time.Duration(l.Certificates)), ms(f.CPU/time.Duration(f.Certificates)))
	}
}

func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
}

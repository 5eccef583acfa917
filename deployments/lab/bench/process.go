package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certwright/certwright/deployments/lab/client"
	"github.com/certwright/certwright/deployments/lab/loopback"
	"github.com/certwright/certwright/deployments/lab/platform"
	"github.com/certwright/certwright/shared/clock"
)

const program = "github.com/certwright/certwright/services/certwright/cmd/certwright"

// Process builds the one-process program and measures it at rest: size, from start to ready, memory and CPU while nothing happens, and how
// much of the binary each dependency is. It must be called inside the repository, with the Go tool in the path.
func Process(ctx context.Context, w io.Writer) error {
	dir, remove, err := platform.Free()
	if err != nil {
		return err
	}
	defer remove()
	whole, err := build(ctx, filepath.Join(dir, "certwright-whole"))
	if err != nil {
		return err
	}
	stripped, err := build(ctx, filepath.Join(dir, "certwright"), "-ldflags", "-s -w")
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "\nThe one-process program, static:\n  binary %s, stripped %s\n", mib(whole), mib(stripped))
	if err := rest(ctx, w, dir); err != nil {
		return err
	}
	sizes, err := weigh(ctx, filepath.Join(dir, "certwright-whole"))
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(w, "  code and constants in the binary, by module (sums of symbols):")
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return int(sizes[b] - sizes[a]) })
	for _, name := range names[:min(20, len(names))] {
		_, _ = fmt.Fprintf(w, "    %-46s %s\n", name, mib(sizes[name]))
	}
	return nil
}

// build returns the size of the binary.
func build(ctx context.Context, out string, flags ...string) (int64, error) {
	args := append(append([]string{"build", "-trimpath"}, flags...), "-o", out, program)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	info, err := os.Stat(out)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// idle is how long the process is watched while nothing happens.
const idle = 20 * time.Second

func rest(ctx context.Context, w io.Writer, dir string) error {
	edge, err := loopback.Port()
	if err != nil {
		return err
	}
	responder, err := loopback.Port()
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	config := filepath.Join(dir, "certwright.yaml")
	text := fmt.Sprintf("data_dir: %s\nlog: {level: warn}\ngateway: {https: \"127.0.0.1:%d\"}\nchallenges: {http01: {listen: \"127.0.0.1:%d\"}, tlsalpn01: {listen: \"\"}}\n", data, edge, responder)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	var again []time.Duration
	for start := range 6 {
		p := &child{binary: filepath.Join(dir, "certwright"), config: config, data: data, edge: fmt.Sprintf("https://127.0.0.1:%d", edge)}
		took, err := p.start(ctx)
		if err != nil {
			return err
		}
		if start == 0 {
			_, _ = fmt.Fprintf(w, "  from start to ready: %s on an empty directory", ms(took))
		} else {
			again = append(again, took)
		}
		if start == 5 {
			slices.Sort(again)
			_, _ = fmt.Fprintf(w, ", %s after that (median of %d, %s to %s)\n", ms(again[len(again)/2]), len(again), ms(again[0]), ms(again[len(again)-1]))
			err = p.watch(ctx, w)
		}
		if stopErr := p.stop(); err == nil {
			err = stopErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type child struct {
	binary, config, data, edge string
	cmd                        *exec.Cmd
	said                       bytes.Buffer
}

// start returns how long it took until the edge says that everything is ready.
func (c *child) start(ctx context.Context) (time.Duration, error) {
	clk := clock.System()
	began := clk.Now()
	c.cmd = exec.CommandContext(ctx, c.binary, "serve", "--config", c.config) //nolint:gosec // built above
	c.said.Reset()
	c.cmd.Stdout, c.cmd.Stderr = &c.said, &c.said
	if err := c.cmd.Start(); err != nil {
		return 0, err
	}
	var api *client.Client
	for clk.Now().Sub(began) < 30*time.Second {
		if roots, err := os.ReadFile(filepath.Join(c.data, "gateway", "edge-ca.pem")); err == nil && api == nil {
			api, _ = client.New(c.edge, roots, filepath.Join(c.data, "admin.token")) // made anew while a file is missing
		}
		if api != nil {
			if _, err := api.Raw(ctx, "GET", "/readyz", nil); err == nil {
				return clk.Now().Sub(began), nil
			}
		}
		if err := clk.Sleep(ctx, 2*time.Millisecond); err != nil {
			break
		}
	}
	return 0, errors.Join(fmt.Errorf("%s was not ready within 30 s", c.binary), c.stop(), errors.New(c.said.String()))
}

func (c *child) stop() error {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return c.cmd.Wait()
}

// watch says what the process uses while nothing happens.
func (c *child) watch(ctx context.Context, w io.Writer) error {
	if err := clock.System().Sleep(ctx, idle/2); err != nil {
		return err
	}
	before, err := c.ticks()
	if err != nil {
		return err
	}
	if err := clock.System().Sleep(ctx, idle); err != nil {
		return err
	}
	after, err := c.ticks()
	if err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "  at rest: %.2f %% of a processor", float64(after-before)/100/idle.Seconds()*100)
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		for _, field := range []string{"VmRSS", "RssAnon", "Threads"} {
			if v, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
				_, _ = fmt.Fprintf(w, ", %s %s", field, strings.TrimSpace(v))
			}
		}
	}
	_, _ = fmt.Fprintln(w)
	return nil
}

// ticks is the CPU time used so far, in hundredths of a second (proc(5), fields utime and stime).
func (c *child) ticks() (int64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("the process's stat line is %q", stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return user + system, err
}

// weigh adds up the sizes of the symbols of each module.
func weigh(ctx context.Context, binary string) (map[string]int64, error) {
	text, err := exec.CommandContext(ctx, "go", "tool", "nm", "-size", binary).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool nm: %w", err)
	}
	sizes := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() { // "  address  size  type  symbol"
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.ContainsAny(fields[2], "TtRr") { // code and constants; data may be zeroed memory that the file does not have
			continue
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		sizes[moduleOf(fields[3])] += size
	}
	return sizes, nil
}

// moduleOf guesses the module of a symbol by its import path; close enough to see who is heavy.
func moduleOf(symbol string) string {
	symbol = strings.ReplaceAll(strings.TrimLeft(strings.TrimPrefix(symbol, "type:"), "*"), "%2e", ".")
	if strings.HasPrefix(symbol, "go:") || strings.HasPrefix(symbol, ".") || strings.HasPrefix(symbol, "runtime.pclntab") || strings.HasPrefix(symbol, "runtime.findfunctab") {
		return "tables of the linker: stack traces, strings, types"
	}
	if i := strings.IndexAny(symbol, "(["); i > 0 { // a method, or a type argument
		if j := strings.LastIndexByte(symbol[:i], '/'); j < 0 && !strings.Contains(symbol[:i], ".") {
			symbol = strings.TrimLeft(symbol[i:], "([*")
		}
	}
	parts := strings.Split(symbol, "/")
	host := parts[0]
	if len(parts) == 1 || !strings.Contains(host, ".") {
		return "Go: runtime and standard library"
	}
	n := 2
	if host == "github.com" || host == "cloud.google.com" || host == "golang.org" || host == "google.golang.org" || host == "go.opentelemetry.io" {
		n = 3
	}
	if host == "google.golang.org" || host == "go.opentelemetry.io" {
		n = 2
	}
	parts = parts[:min(n, len(parts))]
	last := parts[len(parts)-1]
	if i := strings.IndexByte(last, '.'); i > 0 && len(parts) > 1 && !strings.HasPrefix(last[i:], ".go") {
		parts[len(parts)-1] = last[:i]
	}
	return strings.Join(parts, "/")
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

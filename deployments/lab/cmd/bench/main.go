// Command bench measures the whole platform, see docs/benchmarks.md. The parts are chosen by name; without any, all run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/certwright/certwright/deployments/lab/bench"
	"github.com/certwright/certwright/deployments/lab/platform"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "client" { // one certificate by the library's own client, as a process
		return bench.ClientMain(ctx, args[1:])
	}
	flags := flag.NewFlagSet("bench [throughput] [counts] [clients] [process]", flag.ContinueOnError)
	atATime := flags.String("c", "1,8,32,64", "how many certificates at a time")
	rounds := flags.Int("rounds", 3, "rounds of each way, in turn")
	scale := flags.Float64("scale", 1, "size of a round")
	profiles := flags.String("profile", "", "directory for CPU, block and mutex profiles of 32 at a time through the platform")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted := func(part string) bool { return flags.NArg() == 0 || slices.Contains(flags.Args(), part) }
	plan := bench.Plan{Rounds: *rounds, Scale: *scale}
	for _, s := range strings.Split(*atATime, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-c %q: wanted numbers with commas between them", *atATime)
		}
		plan.Concurrency = append(plan.Concurrency, n)
	}
	if wanted("process") && *profiles == "" {
		if err := bench.Process(ctx, os.Stdout); err != nil {
			return err
		}
	}
	if !wanted("throughput") && !wanted("counts") && !wanted("clients") && *profiles == "" {
		return nil
	}
	dir, remove, err := platform.Free()
	if err != nil {
		return err
	}
	defer remove()
	b, err := bench.Start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if *profiles != "" {
		return b.Profile(ctx, *profiles, 32, plan)
	}
	return measure(ctx, b, plan, wanted)
}

func measure(ctx context.Context, b *bench.Bench, plan bench.Plan, wanted func(string) bool) error {
	if wanted("counts") {
		fmt.Println("\nWhat one http-01 certificate costs, 32 at a time:")
		c, err := b.PerCertificate(ctx, 320, 32)
		if err != nil {
			return err
		}
		c.Write(os.Stdout)
		fmt.Println("\nand one at a time:")
		if c, err = b.PerCertificate(ctx, 20, 1); err != nil {
			return err
		}
		c.Write(os.Stdout)
	}
	if wanted("throughput") {
		fmt.Println("\nCertificates through the whole platform and by the bare library, at the same CA:")
		pairs, err := b.Throughput(ctx, plan, os.Stdout)
		if err != nil {
			return err
		}
		fmt.Println()
		bench.Table(os.Stdout, pairs)
	}
	if wanted("clients") {
		fmt.Println("\nOther clients, each a process of its own:")
		return b.Clients(ctx, os.Stdout)
	}
	return nil
}

// Command certwright is the platform in one process, and the command line of a running one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/certwright/certwright/services/certwright/internal/cli"
	"github.com/certwright/certwright/services/certwright/internal/setup"
	"github.com/certwright/certwright/shared/service"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	return cli.Run(ctx, cli.System(service.Version()), args, commands()...)
}

// commands lists what the program can do beside being a client of a running one.
func commands() []*cobra.Command {
	return []*cobra.Command{
		cli.Serve(serve),
		setup.Command(),
	}
}

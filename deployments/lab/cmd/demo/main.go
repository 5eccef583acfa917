// Command demo runs the whole product on embedded parts and shows its main job: a certificate is requested, validated, issued, deployed, renewed
// and revoked. With --exit it ends with a summary, and with status 0 only if every step was seen to happen; without, it keeps everything running.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/certwright/certwright/deployments/lab/demo"
	"github.com/certwright/certwright/deployments/lab/site"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "reload" { // the site's reload command, called by the deployer
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		fingerprint, err := site.Control(ctx, "reload", os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(fingerprint)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err == nil {
		err = demo.Run(ctx, demo.Options{
			Out: os.Stdout, Exit: slices.Contains(os.Args[1:], "--exit"), Verbose: slices.Contains(os.Args[1:], "--verbose"),
			Reload: func(control string) []string { return []string{self, "reload", control} },
		})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

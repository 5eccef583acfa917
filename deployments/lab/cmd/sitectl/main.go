// Command sitectl tells a site of the lab to reload its certificate, as a host's named reload command would:
//
//	sitectl reload 127.0.0.1:40001
//	sitectl fingerprint 127.0.0.1:40001
//
// It prints the fingerprint served and exits with 0, or prints the reason and exits with 1.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/certwright/certwright/deployments/lab/site"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sitectl reload|fingerprint CONTROL_ADDRESS")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	fingerprint, err := site.Control(ctx, os.Args[1], os.Args[2])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(fingerprint)
}

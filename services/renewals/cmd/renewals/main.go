// Command renewals runs the renewals service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/renewals"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("renewals", renewals.Defaults(), renewals.Run))
}

// Command gateway runs the gateway service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/gateway"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("gateway", gateway.Defaults(), gateway.Run))
}

// Command deployer runs the deployer service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/deployer"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("deployer", deployer.Defaults(), deployer.Run))
}

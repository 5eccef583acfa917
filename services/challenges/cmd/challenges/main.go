// Command challenges runs the challenges service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/challenges"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("challenges", challenges.Defaults(), challenges.Run))
}

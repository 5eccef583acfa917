// Command identity runs the identity service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/identity"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("identity", identity.Defaults(), identity.Run))
}

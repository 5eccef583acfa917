// Command keys runs the keys service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/keys"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("keys", keys.Defaults(), keys.Run))
}

// Command inventory runs the inventory service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/inventory"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("inventory", inventory.Defaults(), inventory.Run))
}

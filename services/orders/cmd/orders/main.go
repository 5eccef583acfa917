// Command orders runs the orders service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/orders"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	cfg := orders.Defaults()
	cfg.Version = service.Version()
	os.Exit(service.Main("orders", cfg, orders.Run))
}

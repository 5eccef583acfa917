// Command orders runs the orders service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/orders"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("orders", orders.Defaults(), orders.Run))
}

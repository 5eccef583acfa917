// Command dns runs the dns service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/dns"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("dns", dns.Defaults(), dns.Run))
}

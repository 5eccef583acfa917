// Command notifications runs the notifications service of Certwright as a process of its own.
package main

import (
	"os"

	"github.com/certwright/certwright/services/notifications"
	"github.com/certwright/certwright/shared/service"
)

func main() {
	os.Exit(service.Main("notifications", notifications.Defaults(), notifications.Run))
}

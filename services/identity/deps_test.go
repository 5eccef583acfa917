package identity

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestServicesMeetOnlyInTheAPI(t *testing.T) {
	const services = "github.com/certwright/certwright/services/"
	depstest.Check(t, map[string][]string{".": {
		services + "inventory", services + "keys", services + "orders", services + "challenges", services + "dns", services + "renewals",
		services + "deployer", services + "notifications", services + "gateway", services + "certwright",
	}}, "services meet only in api")
}

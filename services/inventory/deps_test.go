package inventory_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

const module = "github.com/certwright/certwright/services/inventory"

func TestTheDomainKnowsNoOutside(t *testing.T) {
	depstest.Only(t, "./internal/domain", []string{
		"github.com/certwright/certwright/shared/errs", "github.com/certwright/certwright/api/certwright/events",
		"github.com/certwright/certwright/api/certwright/types", "google.golang.org/protobuf",
	}, "the domain is pure: it builds the published language and reads neither clock nor store")
	depstest.Only(t, "./internal/names", []string{"github.com/certwright/certwright/shared/errs", "golang.org/x/net/idna"},
		"what a name is depends on nothing but the standards")
}

func TestDependenciesPointOneWay(t *testing.T) {
	depstest.Check(t, map[string][]string{"./internal/app": {module + "/internal/adapters", module + "/internal/transport", "github.com/certwright/certwright/api/certwright/inventory"}},
		"use cases know neither how they are called nor how their ports are implemented")
	depstest.Check(t, map[string][]string{"./internal/adapters/...": {module + "/internal/transport"}}, "an adapter is not called by transports only")
	others := []string{}
	for _, s := range []string{"challenges", "deployer", "dns", "gateway", "identity", "keys", "notifications", "orders", "renewals", "certwright"} {
		others = append(others, "github.com/certwright/certwright/services/"+s)
	}
	depstest.Check(t, map[string][]string{"./...": others}, "services meet only in the contracts of api")
}

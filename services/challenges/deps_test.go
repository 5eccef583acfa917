package challenges_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDirectionOfDependencies(t *testing.T) {
	const module = "github.com/certwright/certwright/"
	depstest.Only(t, "./internal/domain/...", []string{module + "shared/errs", module + "api", "google.golang.org/protobuf"},
		"the domain is pure: it knows errors and the words of the contracts, and neither stores nor networks")
	depstest.Check(t, map[string][]string{
		"./internal/app/...": {module + "services/challenges/internal/adapters", module + "services/challenges/internal/transport", "github.com/miekg/dns", "google.golang.org/grpc"},
	}, "use cases know ports, not who implements them or who calls")
	depstest.Check(t, map[string][]string{"./...": {
		module + "services/certwright", module + "services/dns", module + "services/orders", module + "services/inventory", module + "services/keys", module + "services/gateway",
		module + "deployments", "github.com/go-acme/lego",
	}}, "services meet in the contracts alone, and only orders talks to a CA")
}

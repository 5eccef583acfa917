package renewals_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDependenciesPointInward(t *testing.T) {
	const base = "github.com/certwright/certwright/"
	depstest.Only(t, "./internal/domain", []string{base + "shared/errs", base + "api", "google.golang.org/protobuf"},
		"the domain is rules alone: the standard library, classified errors and the events it causes")
	depstest.Check(t, map[string][]string{"./...": {
		base + "services/orders", base + "services/inventory", base + "services/deployer", base + "services/certwright", "github.com/go-acme/lego",
	}}, "services meet only in api, and renewals never talks to a CA")
}

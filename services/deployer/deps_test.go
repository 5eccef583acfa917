package deployer

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDependenciesPointInward(t *testing.T) {
	const base = "github.com/certwright/certwright/"
	depstest.Only(t, "./internal/domain", []string{base + "shared/errs", base + "api", "google.golang.org/protobuf/proto", "google.golang.org/protobuf/types"},
		"the domain is rules alone: the standard library, classified errors and the events it causes")
	depstest.Only(t, "./internal/adapters/...", []string{base + "shared/errs", base + "shared/failpoint", base + "services/deployer/internal/domain"},
		"what touches a host knows neither store nor bus")
	depstest.Check(t, map[string][]string{"./...": {base + "services/orders", base + "services/inventory", base + "services/keys", base + "services/certwright"}},
		"services meet only in api")
}

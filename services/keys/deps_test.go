package keys_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDependenciesPointInward(t *testing.T) {
	const base = "github.com/certwright/certwright/"
	depstest.Only(t, "./internal/domain", []string{base + "shared/errs", base + "api", "google.golang.org/protobuf/proto"},
		"the domain is rules alone: the standard library, classified errors and the events it causes")
	depstest.Only(t, "./internal/material", []string{
		base + "shared/errs", base + "shared/secret", base + "services/keys/internal/domain", "software.sslmate.com/src/go-pkcs12", "github.com/pavlo-v-chernykh/keystore-go/v4",
	},
		"what handles keys in the clear knows neither store nor network")
	depstest.Check(t, map[string][]string{"./...": {base + "services/orders", base + "services/inventory", base + "services/deployer", base + "services/certwright"}},
		"services meet only in api")
}

package notifications_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDependenciesPointInward(t *testing.T) {
	const base = "github.com/certwright/certwright/"
	const here = base + "services/notifications/internal/"
	depstest.Only(t, "./internal/domain", []string{base + "shared/errs", base + "api"}, "the domain is rules alone: the standard library, classified errors, and the names of events")
	depstest.Only(t, "./internal/text", []string{base + "shared/errs", base + "api", here + "domain", "google.golang.org/protobuf"}, "words know neither store nor network")
	depstest.Check(t, map[string][]string{"./internal/app": {here + "adapters", here + "transport", base + "shared/bus/jetstream", "github.com/wneessen"}},
		"use cases know their adapters only as ports")
	depstest.Check(t, map[string][]string{".": {here + "mailtest", "github.com/emersion"}}, "test servers are not linked into the product")
	depstest.Check(t, map[string][]string{"./...": {base + "services/orders", base + "services/inventory", base + "services/deployer", base + "services/certwright"}},
		"services meet only in api")
}

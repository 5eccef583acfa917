package orders_test

import (
	"testing"

	"github.com/certwright/certwright/shared/depstest"
)

func TestDependenciesPointInward(t *testing.T) {
	const base = "github.com/certwright/certwright/"
	const here = base + "services/orders/internal/"
	depstest.Only(t, "./internal/domain", []string{base + "shared/errs", base + "api/certwright/events", base + "api/certwright/types", "google.golang.org/protobuf", "golang.org/x/net/publicsuffix"},
		"the domain is rules alone: the standard library, classified errors, the facts that it tells, and the table of public suffixes")
	depstest.Check(t, map[string][]string{"./internal/domain": {"google.golang.org/grpc", "github.com/go-acme", "go.mongodb.org", "github.com/nats-io"}},
		"the domain knows no network")
	depstest.Check(t, map[string][]string{"./internal/app": {here + "transport"}, "./internal/adapters/...": {here + "app", here + "transport"}},
		"domain ← app ← transport; adapters know the domain alone")
	depstest.Check(t, map[string][]string{"./...": {
		base + "services/inventory", base + "services/challenges", base + "services/keys", base + "services/renewals", base + "services/certwright", base + "deployments",
	}}, "services meet only in api")
	depstest.Check(t, map[string][]string{".": {"github.com/letsencrypt/pebble", "github.com/go-acme/lego/v4/providers"}}, "test CAs and DNS providers are not linked into this service")
}

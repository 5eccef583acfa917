package cli

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

// order is ord_1 in a state; change may make it more special.
func order(state string, change ...func(*ordersv1.Order)) *ordersv1.Order {
	o := &ordersv1.Order{Id: "ord_1", CertificateId: "crt_1", IntentNumber: 1, SpecGeneration: 1, State: state}
	for _, c := range change {
		c(o)
	}
	return o
}

func attempt(states ...string) func(*ordersv1.Order) {
	return func(o *ordersv1.Order) {
		a := &ordersv1.Attempt{Number: 1, State: "open", Url: "https://ca.example/order/7"}
		for i, s := range states {
			a.Authorizations = append(a.Authorizations, &ordersv1.Authorization{Number: int64(i), Identifier: []string{"www.example.org", "example.org"}[i], State: s, ChallengeId: []string{"chl_1", "chl_2"}[i]})
		}
		o.Attempts = []*ordersv1.Attempt{a}
		o.KeyId = "key_1"
	}
}

func waitingEdge(t *testing.T) *edge {
	t.Helper()
	e := newEdge(t)
	open := exampleCertificate()
	open.CurrentVersion, open.State = nil, "pending"
	open.Intent.Outcome = "open"
	e.on("POST /v1/certificates", open)
	e.on("GET /v1/certificates/crt_1", exampleCertificate())
	e.on("GET /v1/orders/ord_1/challenges", &challengesv1.ListChallengesResponse{Challenges: []*challengesv1.Challenge{{Id: "chl_1", Type: "http-01"}, {Id: "chl_2", Type: "dns-01"}}})
	e.on("GET /v1/bindings", &deployerv1.ListBindingsResponse{})
	e.on("GET /v1/deployments", &deployerv1.ListDeploymentsResponse{})
	return e
}

func problem(reason, detail string) *typesv1.Problem {
	return &typesv1.Problem{Reason: reason, Detail: detail}
}

func TestWaitingShowsEveryStepOnce(t *testing.T) {
	e := waitingEdge(t)
	open := exampleCertificate()
	open.Intent.Outcome = "open"
	e.then("GET /v1/certificates/crt_1", open, exampleCertificate())
	e.then("GET /v1/orders/ord_1",
		errs.New(errs.NotFound, "NOT_FOUND", "there is no order"),
		order("queued"), order("queued"),
		errs.New(errs.Unavailable, "STARTING", "orders is starting"),
		order("queued", func(o *ordersv1.Order) {
			o.Blocked, o.NextTime = problem("CA_UNREACHABLE", "the CA does not answer"), at(4*time.Minute+5*time.Second)
		}),
		order("authorizing", attempt("pending", "pending")),
		order("authorizing", attempt("presented", "pending"), func(o *ordersv1.Order) {
			o.Blocked = problem("ACTION_REQUIRED", "a person")
			o.ActionsRequired = []*ordersv1.ActionRequired{{ChallengeId: "chl_2", Identifier: "example.org", Type: "dns-01", Location: "_acme-challenge.example.org.", Value: "t0k3n"}}
		}),
		order("authorizing", attempt("valid", "presented")),
		order("finalizing", attempt("valid", "valid")),
		order("issued", attempt("valid", "valid"), func(o *ordersv1.Order) { o.VersionId = "ver_1" }),
	)
	e.on("GET /v1/bindings", &deployerv1.ListBindingsResponse{Bindings: []*deployerv1.Binding{{TargetId: "tgt_1"}}})
	dep := func(state string, change ...func(*deployerv1.Deployment)) *deployerv1.ListDeploymentsResponse {
		d := &deployerv1.Deployment{TargetId: "tgt_1", VersionId: "ver_1", Generation: 2, State: state}
		for _, c := range change {
			c(d)
		}
		old := &deployerv1.Deployment{TargetId: "tgt_1", VersionId: "ver_0", Generation: 1, State: "succeeded"}
		return &deployerv1.ListDeploymentsResponse{Deployments: []*deployerv1.Deployment{old, d}}
	}
	e.then("GET /v1/deployments", &deployerv1.ListDeploymentsResponse{}, dep("installing"),
		dep("failed", func(d *deployerv1.Deployment) {
			d.Problem, d.RetryAt = problem("RELOAD_FAILED", "nginx said no"), at(24*time.Hour)
		}), dep("succeeded"))
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "request", "www.example.org", "example.org", "--issuer", "iss_1", "--wait"), u.err.String())
	golden(t, "wait.txt", u.err.String())
	require.Contains(t, u.out.String(), "crt_1", "the result is on stdout")
}

func TestWaitingEndsAsTheOrderDoes(t *testing.T) {
	cert := func(change func(*inventoryv1.Certificate)) *inventoryv1.Certificate {
		c := exampleCertificate()
		change(c)
		return c
	}
	other := order("issued", func(o *ordersv1.Order) { o.Id, o.IntentNumber, o.SpecGeneration, o.VersionId = "ord_2", 2, 2, "ver_2" })
	second := cert(func(c *inventoryv1.Certificate) {
		c.SpecGeneration = 2
		c.Intent = &inventoryv1.Intent{Number: 2, OrderId: "ord_2", SpecGeneration: 2, Outcome: "issued"}
		c.CurrentVersion.Facts.OrderId, c.CurrentVersion.Facts.VersionId = "ord_2", "ver_2"
	})
	for _, c := range []struct {
		name        string
		order       *ordersv1.Order
		certificate *inventoryv1.Certificate
		deployments []*deployerv1.Deployment
		code        int
		says        []string
	}{
		{
			name: "failed", order: order("failed", func(o *ordersv1.Order) { o.Problem = problem("VALIDATION_FAILED", "no TXT record") }), certificate: cert(func(c *inventoryv1.Certificate) { c.Intent.Outcome = "failed" }),
			code: ExitOrderFailed, says: []string{"ord_1 was not fulfilled", "no TXT record", "reason: VALIDATION_FAILED"},
		},
		{name: "cancelled", order: order("cancelled"), certificate: cert(func(c *inventoryv1.Certificate) { c.Intent.Outcome = "cancelled" }), code: ExitOrderFailed, says: []string{"cancelled"}},
		{name: "rejected", order: order("rejected"), certificate: cert(func(c *inventoryv1.Certificate) { c.Intent.Outcome = "rejected" }), code: ExitOrderFailed, says: []string{"rejected"}},
		{
			name: "the certificate was refused", order: order("issued"), certificate: cert(func(c *inventoryv1.Certificate) {
				c.Intent.Outcome, c.Intent.Problem = "failed", problem("VERSION_REFUSED", "deleted")
			}),
			code: ExitOrderFailed, says: []string{"refused", "VERSION_REFUSED"},
		},
		{name: "changed meanwhile: the order that follows counts", order: order("cancelled"), certificate: second, code: ExitOK, says: []string{"following the order ord_2", "issued ver_2"}},
		{
			name: "the deployment failed for good", order: order("issued"), certificate: exampleCertificate(), deployments: []*deployerv1.Deployment{{TargetId: "tgt_1", VersionId: "ver_1", State: "rolled_back", Problem: problem("RELOAD_FAILED", "no")}},
			code: ExitOrderFailed, says: []string{"deployment to tgt_1 rolled back: no (RELOAD_FAILED)", "reason: DEPLOYMENT_FAILED"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := waitingEdge(t)
			e.on("GET /v1/orders/ord_1", c.order)
			e.on("GET /v1/orders/ord_2", other)
			e.on("GET /v1/certificates/crt_1", c.certificate)
			if c.deployments != nil {
				e.on("GET /v1/bindings", &deployerv1.ListBindingsResponse{Bindings: []*deployerv1.Binding{{TargetId: "tgt_1"}}})
				e.on("GET /v1/deployments", &deployerv1.ListDeploymentsResponse{Deployments: c.deployments})
			}
			u := newUser(t, e)
			require.Equal(t, c.code, u.run("certificates", "request", "a.example", "--issuer", "iss_1", "--wait"), u.err.String())
			for _, s := range c.says {
				require.Contains(t, u.err.String(), s)
			}
		})
	}
}

func TestRenewingFollowsToTheGenerationThatWasAskedFor(t *testing.T) {
	e := waitingEdge(t)
	e.on("POST /v1/certificates/crt_1:renew", &inventoryv1.RequestVersionResponse{CertificateId: "crt_1", OrderId: "ord_1", SpecGeneration: 2, NextIntentFollows: true})
	e.on("GET /v1/orders/ord_1", order("issued"))
	e.then("GET /v1/orders/ord_2", order("finalizing"), order("issued", func(o *ordersv1.Order) { o.Id, o.IntentNumber, o.SpecGeneration = "ord_2", 2, 2 }))
	second := exampleCertificate()
	second.Intent = &inventoryv1.Intent{Number: 2, OrderId: "ord_2", SpecGeneration: 2, Outcome: "issued"}
	second.CurrentVersion.Facts.OrderId, second.CurrentVersion.Facts.VersionId = "ord_2", "ver_2"
	e.on("GET /v1/certificates/crt_1", second)
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "renew", "crt_1", "--wait"), u.err.String())
	require.Contains(t, u.err.String(), "following the order ord_2\nfinalizing\nissued ver_2 valid until 2026-05-30T21:00:00Z\n")

	e.on("POST /v1/certificates/crt_1:renew", &inventoryv1.RequestVersionResponse{CertificateId: "crt_1", NothingToDo: true, Explanation: "replaced already"})
	require.Equal(t, ExitOK, u.run("certificates", "renew", "crt_1", "--wait"))
	require.Contains(t, u.out.String(), "replaced already")
}

func TestTheTimeToWaitPasses(t *testing.T) {
	e := waitingEdge(t)
	e.on("GET /v1/orders/ord_1", order("queued"))
	u := newUser(t, e)
	require.Equal(t, ExitTimeout, u.run("certificates", "request", "a.example", "--issuer", "iss_1", "--wait", "--timeout", "1m"), u.err.String())
	require.Contains(t, u.err.String(), "waited 1m0s; the order ord_1 has not ended")
}

func TestAnInterruptStopsTheWaitingAndNotTheOrder(t *testing.T) {
	e := waitingEdge(t)
	ctx, cancel := context.WithCancel(t.Context())
	e.does("GET /v1/orders/ord_1", func(*http.Request, []byte) (proto.Message, error) {
		cancel()
		return order("queued"), nil
	})
	u := newUser(t, e)
	u.ctx = ctx
	require.Equal(t, ExitError, u.run("certificates", "request", "a.example", "--issuer", "iss_1", "--wait"))
	require.Contains(t, u.err.String(), "stopped waiting; the order goes on: certwright orders get ord_1")
	require.NotContains(t, e.calls, "POST /v1/orders/ord_1:cancel")
}

func TestWhoMayNotSeeDeploymentsStillWaitsForTheOrder(t *testing.T) {
	e := waitingEdge(t)
	e.on("GET /v1/orders/ord_1", order("issued"))
	e.fails("GET /v1/bindings", errs.New(errs.Forbidden, "PERMISSION_DENIED", "no"))
	u := newUser(t, e)
	require.Equal(t, ExitOK, u.run("certificates", "request", "a.example", "--issuer", "iss_1", "--wait"), u.err.String())
	require.Contains(t, u.err.String(), "may not see deployments")
}

// Package app has the use cases of the challenges service: it hears what has to be proven, has it answered, sees the answer where the CA will
// look, and cleans up.
//
// It must never tell an order that an answer is there before somebody saw it.
package app

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/certwright/certwright/services/challenges/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/outbox"
)

// Doc is a stored challenge.
type Doc = docstore.Doc[domain.Challenge]

// DNS is the question to the dns service.
type DNS interface {
	// Resolve returns the account that would serve the name, empty when none does, and one sentence about it. Unavailable while the service is away.
	Resolve(ctx context.Context, name, team string) (account, explanation string, err error)
}

// Eyes look where a CA will look. What they find wrong is a sentence; an error is trouble of our own, such as the end of ctx.
type Eyes interface {
	// TXT asks the configured resolvers whether value is among the TXT values of fqdn. Empty: all that answered have it.
	TXT(ctx context.Context, fqdn, value string) (wrong string, err error)
	// HTTP asks http://identifier/.well-known/acme-challenge/token as a CA does. Empty: it answers value.
	HTTP(ctx context.Context, identifier, token, value string) (wrong string, err error)
	// Responder asks the built-in responder the same. Empty: it answers value, or nobody wants it asked.
	Responder(ctx context.Context, identifier, token, value string) (wrong string, err error)
}

// ClosedOrder marks an order that is over, so that an authorization heard of late is not solved any more.
type ClosedOrder struct {
	Outcome string `bson:"outcome"`
}

// App is the use cases.
type App struct {
	Challenges *outbox.Collection[domain.Challenge]
	Orders     *outbox.Collection[ClosedOrder]
	DNS        DNS
	Eyes       Eyes
	Clock      clock.Clock
	Logger     *slog.Logger
	// Responder says whether the built-in HTTP responder is switched on.
	Responder bool
	// VerifyWait is how long Verify waits for the verdict.
	VerifyWait time.Duration
	// Closed counts closed challenges by type, solver and outcome; nil counts nothing.
	Closed metric.Int64Counter
}

// ChallengesSpec declares the collection of challenges.
func ChallengesSpec() docstore.Spec {
	return docstore.Spec{Name: "challenges", Indexes: []docstore.Index{
		{Fields: []string{"order_id"}},
		{Fields: []string{"token"}}, // the responder's
		{Fields: []string{"team"}},
		{Fields: []string{"state"}},
		{Fields: []string{"identifier"}},
		{Fields: []string{"action_required"}},
		{Fields: []string{"team", "state"}},
		{Fields: []string{"team", "identifier"}},
		{Fields: []string{"team", "action_required"}},
		{Fields: []string{"state", "changed_at"}}, // the janitor's
	}}
}

// OrdersSpec declares the collection of closed orders.
func OrdersSpec() docstore.Spec { return docstore.Spec{Name: "closed_orders"} }

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
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
)

// Doc is a stored challenge.
type Doc = docstore.Doc[domain.Challenge]

// DNS is the question to the dns service.
type DNS interface {
	// Resolve returns the account that would serve what is asked, with an empty ID when none does. Unavailable while the service is away.
	Resolve(ctx context.Context, ask Ask) (Account, error)
}

// Ask is the question which DNS account would write a TXT record.
type Ask struct {
	Name   string // a name to be proven, or with Record that of the TXT record itself
	Record bool
	Team   string
	Only   string // id of the only account that will do; empty: any
}

// Account is the answer. Explanation is one sentence in any case; Any says whether the team may use an enabled account at all.
type Account struct {
	ID, Zone, Explanation string
	Any                   bool
}

// Sight is what a look found.
type Sight struct {
	Wrong string   // one sentence, empty when the answer is where the CA will look
	Found []string // a line for each server that was asked
}

// Eyes look where a CA will look. What they find wrong is in the Sight; an error is trouble of our own, such as the end of ctx.
type Eyes interface {
	// TXT asks, as the check says, whether value is among the TXT values of fqdn. Every server that answers has to have it, and one has to answer.
	TXT(ctx context.Context, fqdn, value string, check domain.Check) (Sight, error)
	// HTTP asks http://identifier/.well-known/acme-challenge/token as a CA does.
	HTTP(ctx context.Context, identifier, token, value string) (Sight, error)
	// TLS makes an acme-tls/1 handshake with port 443 of the identifier as a CA does.
	TLS(ctx context.Context, identifier, value string) (Sight, error)
	// Responder asks the built-in responder for the type the same, unless nobody wants it asked.
	Responder(ctx context.Context, typ, identifier, token, value string) (Sight, error)
	// Follow follows the aliases (CNAME) that begin at fqdn, and returns all names on the way, fqdn first. What the names lead to that could not be asked
	// about is a sentence in unsure. A chain that is too long or comes back to itself is a Problem.
	Follow(ctx context.Context, fqdn string, resolvers []string) (names []string, unsure string, loop domain.Problem, err error)
}

// ClosedOrder marks an order that is over, so that an authorization heard of late is not solved any more.
type ClosedOrder struct {
	Outcome string `bson:"outcome"`
}

// App is the use cases.
type App struct {
	Challenges *outbox.Collection[domain.Challenge]
	Orders     *outbox.Collection[ClosedOrder]
	Routes     *outbox.Collection[domain.Route]
	Requests   *once.Requests
	DNS        DNS
	Eyes       Eyes
	Clock      clock.Clock
	Logger     *slog.Logger
	// Responders says which built-in ones are switched on.
	Responders domain.Responders
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

// RoutesSpec declares the collection of routes.
func RoutesSpec() docstore.Spec {
	return docstore.Spec{Name: "routes", Indexes: []docstore.Index{{Fields: []string{"tombstone"}}, {Fields: []string{"team"}}, {Fields: []string{"tombstone", "changed_at"}}}}
}

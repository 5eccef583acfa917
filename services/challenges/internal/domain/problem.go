// Package domain holds the rules of the challenges service: who answers a challenge, and the life of one from the order's wish to the clean-up.
//
// It must never call anything: it takes the time and what was found outside, and answers what changed and which facts that made true.
package domain

import typesv1 "github.com/certwright/certwright/api/certwright/types/v1"

// The reasons that this service introduces; docs/errors.md lists each with cause and remedy.
const (
	ReasonNoSolver     = "CHALLENGE_NO_SOLVER"
	ReasonNotOffered   = "CHALLENGE_NOT_OFFERED"
	ReasonTypeUnknown  = "CHALLENGE_TYPE_UNKNOWN"
	ReasonResponderOff = "CHALLENGE_RESPONDER_OFF"
	ReasonNotAnswering = "CHALLENGE_RESPONDER_NOT_ANSWERING"
	ReasonNotVisible   = "CHALLENGE_NOT_VISIBLE"
	ReasonExpired      = "CHALLENGE_EXPIRED"
	ReasonOver         = "CHALLENGE_OVER"
	ReasonAliasLoop    = "CHALLENGE_ALIAS_LOOP"
	ReasonNotDelegated = "CHALLENGE_NOT_DELEGATED"
	ReasonRouteAccount = "ROUTE_DNS_ACCOUNT_UNUSABLE"
	ReasonRouteInvalid = "ROUTE_INVALID"
)

// Problem is why something does not go on, as users see it. The zero Problem is none.
type Problem struct {
	Reason   string `bson:"reason"`
	Detail   string `bson:"detail"`
	Retrying bool   `bson:"retrying"`
}

// IsZero reports whether there is no problem.
func (p Problem) IsZero() bool { return p.Reason == "" }

// Proto is the problem on the wire, nil when there is none.
func (p Problem) Proto() *typesv1.Problem {
	if p.IsZero() {
		return nil
	}
	return &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Retrying: p.Retrying}
}

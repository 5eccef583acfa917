// Package app is inventory's use cases, a file each. It must never wait for a sibling inside a consumer's handler.
package app

import "context"

// Issuer is what inventory needs to know of one.
type Issuer struct {
	ID          string
	DisplayName string
	Team        string
	Disabled    bool
}

// Issuers answers which issuer an id or display name means. NotFound when none; Unavailable while orders is away.
type Issuers interface {
	Issuer(ctx context.Context, idOrName string) (Issuer, error)
}

// Bindings makes the binding of a certificate and a target, or finds it, and returns its id.
type Bindings interface {
	EnsureBinding(ctx context.Context, certificate, target, team, owner string) (string, error)
}

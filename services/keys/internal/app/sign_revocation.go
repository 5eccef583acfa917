package app

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
)

// Signature is a JWS signature with what its receiver needs to check it.
type Signature struct {
	Bytes     []byte
	Algorithm string // JWS, e.g. ES256
	JWK       string // of the public key
}

// SignRevocation signs the JWS signing input of a request to revoke a certificate of this key, and nothing else. With an empty input it
// answers algorithm and JWK alone, which the request's protected header needs. Invalid NOT_A_REVOCATION; Precondition KEY_DESTROYED.
func (a *App) SignRevocation(ctx context.Context, keyID string, input []byte) (Signature, error) {
	d, err := a.get(ctx, keyID, anyTeam)
	if err != nil {
		return Signature{}, err
	}
	if err := d.Body.CanSign(keyID); err != nil {
		return Signature{}, err
	}
	pkcs8, err := a.open(ctx, d)
	if err != nil {
		return Signature{}, err
	}
	defer clear(pkcs8)
	key, err := material.Parse(pkcs8)
	if err != nil {
		return Signature{}, err
	}
	var s Signature
	if s.JWK, err = material.JWK(key.Public()); err != nil {
		return Signature{}, err
	}
	if len(input) == 0 {
		s.Algorithm, _, err = material.Algorithm(key.Public())
		return s, err
	}
	if err := material.CheckRevocation(d.Body.SPKI, key.Public(), input); err != nil {
		return Signature{}, err
	}
	if s.Bytes, s.Algorithm, err = material.Sign(key, input); err != nil {
		return Signature{}, err
	}
	return s, a.use(ctx, keyID, (*domain.Key).CanSign, func(k *domain.Key, _ time.Time) []proto.Message {
		k.Signatures++
		return nil
	})
}

package app

import (
	"bytes"
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/services/keys/internal/domain"
	"github.com/certwright/certwright/services/keys/internal/material"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

// Release seals the key (PKCS#8, DER) to the receiver's X25519 public key, bound to "release:" and the deployment's id, counts it and tells it. The count
// is written before the key leaves. Precondition KEY_DESTROYED or KEY_COMPROMISED; Invalid RECEIVER_KEY.
func (a *App) Release(ctx context.Context, keyID, deploymentID string, receiver []byte) ([]byte, error) {
	if deploymentID == "" {
		return nil, errs.New(errs.Invalid, "RELEASE_INVALID", "a key is released for one deployment").WithField("deploymentId", "is empty; give the id of the deployment")
	}
	d, err := a.get(ctx, keyID, anyTeam)
	if err != nil {
		return nil, err
	}
	if err := d.Body.Deployable(keyID); err != nil {
		return nil, err
	}
	pkcs8, err := a.open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer clear(pkcs8)
	sealed, err := seal.SealTo(receiver, pkcs8, []byte("release:"+deploymentID))
	if err != nil {
		return nil, err
	}
	return sealed, a.released(ctx, keyID, "deployment:"+deploymentID, "deployment", (*domain.Key).Deployable)
}

// Export returns a file with the key for a person: alone, or in a keystore with the certificate and chain that inventory has of its version. It counts
// and tells it. Invalid EXPORT_INVALID; Precondition KEY_NOT_ACTIVE or KEY_DESTROYED.
func (a *App) Export(ctx context.Context, keyID string, e material.Export, principal string, inTeam func(team string) bool) (secret.Value, error) {
	if err := e.Validate(); err != nil {
		return secret.Value{}, err
	}
	d, err := a.get(ctx, keyID, inTeam)
	if err != nil {
		return secret.Value{}, err
	}
	if err := d.Body.Exportable(keyID); err != nil {
		return secret.Value{}, err
	}
	var chain [][]byte
	if e.Keystore() {
		v, err := a.Inventory.GetVersionStatus(ctx, &inventoryv1.GetVersionStatusRequest{VersionId: d.Body.VersionID})
		if err != nil {
			return secret.Value{}, err
		}
		chain = v.GetChainDer()
	}
	pkcs8, err := a.open(ctx, d)
	if err != nil {
		return secret.Value{}, err
	}
	defer clear(pkcs8)
	file, err := encode(e, pkcs8, chain, a.Clock.Now())
	if err != nil {
		return secret.Value{}, err
	}
	defer clear(file)
	out := secret.NewBytes(file)
	return out, a.released(ctx, keyID, principal, "export", (*domain.Key).Exportable)
}

func encode(e material.Export, pkcs8 []byte, chain [][]byte, now time.Time) ([]byte, error) {
	switch e.Format {
	case material.FormatPEM:
		return material.PEM(pkcs8), nil
	case material.FormatDER:
		return bytes.Clone(pkcs8), nil
	}
	return material.Keystore(e, pkcs8, chain, now)
}

// CSR returns the request that the key was made for, DER.
func (a *App) CSR(ctx context.Context, keyID string, inTeam func(team string) bool) ([]byte, error) {
	d, err := a.get(ctx, keyID, inTeam)
	return d.Body.CSR, err
}

func (a *App) released(ctx context.Context, keyID, receiver, purpose string, allowed func(*domain.Key, string) error) error {
	return a.use(ctx, keyID, allowed, func(k *domain.Key, now time.Time) []proto.Message { return k.Released(keyID, receiver, purpose, now) })
}

// use writes a use of the key down, unless the key changed so that it is allowed no more.
func (a *App) use(ctx context.Context, keyID string, allowed func(*domain.Key, string) error, f func(k *domain.Key, now time.Time) []proto.Message) error {
	_, err := a.Keys.Change(ctx, keyID, func(d *doc) ([]outbox.Fact, error) {
		if err := allowed(&d.Body, keyID); err != nil {
			return nil, err
		}
		return stored(d, f(&d.Body, a.Clock.Now())), nil
	})
	return err
}

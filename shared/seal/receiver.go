package seal

import (
	"crypto/ecdh"
	"crypto/hpke"

	"github.com/certwright/certwright/shared/errs"
)

// The one HPKE suite (RFC 9180, base mode): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.X25519()), hpke.HKDFSHA256(), hpke.AES256GCM()
}

// Receiver is a process that others can seal to: it makes a key pair, registers the public half and opens what comes. It is safe for
// concurrent use.
type Receiver struct{ key hpke.PrivateKey }

// NewReceiver makes a receiver with a fresh key that lives in memory only.
func NewReceiver() (*Receiver, error) {
	kem, _, _ := suite()
	key, err := kem.GenerateKey()
	if err != nil {
		return nil, errs.New(errs.Internal, "", "making a receiver's key: %w", err)
	}
	return &Receiver{key: key}, nil
}

// Public returns the public key, 32 bytes (X25519).
func (r *Receiver) Public() []byte { return r.key.PublicKey().Bytes() }

// SealTo seals plaintext so that only the receiver with this public key opens it, and only when it gives the same info: the purpose
// and the ids that the content belongs to. It proves nothing about the sender. Invalid RECEIVER_KEY: pub is not an X25519 public key.
func SealTo(pub, plaintext, info []byte) ([]byte, error) {
	kem, kdf, aead := suite()
	key, err := kem.NewPublicKey(pub)
	if err != nil {
		return nil, errs.New(errs.Invalid, "RECEIVER_KEY", "the receiver's public key is not one of X25519 (32 bytes are wanted, %d given)", len(pub))
	}
	out, err := hpke.Seal(key, kdf, aead, info, plaintext)
	if err != nil {
		return nil, errs.New(errs.Invalid, "RECEIVER_KEY", "cannot seal to the receiver's public key: %w", err)
	}
	return out, nil
}

// Open opens what SealTo made for this receiver with the same info; Precondition SEAL_BROKEN otherwise.
func (r *Receiver) Open(sealed, info []byte) ([]byte, error) {
	_, kdf, aead := suite()
	out, err := hpke.Open(r.key, kdf, aead, info, sealed)
	if err != nil {
		return nil, errs.New(errs.Precondition, reasonBroken, "a sealed message does not open: it was changed, or is for another receiver or purpose")
	}
	return out, nil
}

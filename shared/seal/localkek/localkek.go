// Package localkek keeps a key-encryption key in a local file that only its owner may read.
//
// The file is PEM, made once and never overwritten. The key's id is derived from the key, so a file whose content was exchanged is
// noticed. Back the file up apart from the store: who has both reads every secret, who has lost the file reads none.
package localkek

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/certwright/certwright/shared/errs"
)

// Reasons of the errors of this package.
const (
	ReasonMissing    = "KEK_MISSING"    // the file does not exist
	ReasonMode       = "KEK_FILE_MODE"  // others than the owner may read the file
	ReasonUnreadable = "KEK_UNREADABLE" // the file cannot be read, or is not a key file
)

const (
	blockType = "CERTWRIGHT KEY ENCRYPTION KEY"
	keySize   = 32
	maxFile   = 4096
)

// Key is a key-encryption key read from a file. It implements seal.KEK.
type Key struct {
	id   string
	aead *subtle.AESGCM
}

// Load reads the key file at path. Errors are Precondition with one of this package's reasons, and say how to mend it.
func Load(path string) (*Key, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.New(errs.Precondition, ReasonMissing, "the key file %q does not exist; restore it from its backup", path).WithMeta("path", path)
	case err != nil:
		return nil, errs.New(errs.Precondition, ReasonUnreadable, "the key file cannot be looked at: %w", err).WithMeta("path", path)
	case !fi.Mode().IsRegular() || fi.Size() > maxFile:
		return nil, errs.New(errs.Precondition, ReasonUnreadable, "%q is not a key file (a regular file of at most %d bytes)", path, maxFile).WithMeta("path", path)
	}
	// Windows has no such bits; there the directory's access list protects the file.
	if mode := fi.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, errs.New(errs.Precondition, ReasonMode, "the key file %q has mode %#o, so others than its owner can use it; run: chmod 600 %s", path, mode, path).
			WithMeta("path", path)
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, errs.New(errs.Precondition, ReasonUnreadable, "the key file cannot be read: %w", err).WithMeta("path", path)
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil || block.Type != blockType || len(block.Bytes) != keySize {
		return nil, errs.New(errs.Precondition, ReasonUnreadable, "%q holds no %s; restore it from its backup", path, blockType).WithMeta("path", path)
	}
	defer clear(block.Bytes)
	if want := block.Headers["Id"]; want != idOf(block.Bytes) {
		return nil, errs.New(errs.Precondition, ReasonUnreadable, "the key in %q is not the one that its Id line names (%s): the file was changed; restore it from its backup", path, want).
			WithMeta("path", path)
	}
	return newKey(block.Bytes)
}

// Create makes a new key and its file, and the directory if need be (mode 0700). The file appears at path complete and synced, or not at
// all, and only if nothing is there: otherwise the error matches fs.ErrExist and what is there stays as it is.
func Create(path string) (*Key, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cannotCreate(err)
	}
	raw := make([]byte, keySize)
	defer clear(raw)
	_, _ = rand.Read(raw) // never fails, crypto/rand
	text := pem.EncodeToMemory(&pem.Block{Type: blockType, Headers: map[string]string{"Id": idOf(raw)}, Bytes: raw})
	defer clear(text)

	// os.CreateTemp opens with O_EXCL and mode 0600.
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, cannotCreate(err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, cannotCreate(err)
	}
	// A link fails when the name is taken, also when another process takes it at this moment; a rename would overwrite.
	if err := os.Link(tmp.Name(), path); err != nil {
		return nil, cannotCreate(err)
	}
	if err := syncDir(dir); err != nil {
		return nil, cannotCreate(err)
	}
	return newKey(raw)
}

func cannotCreate(err error) error {
	return errs.New(errs.Precondition, ReasonUnreadable, "the key file cannot be made: %w", err)
}

func newKey(raw []byte) (*Key, error) {
	aead, err := subtle.NewAESGCM(raw)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "localkek: %w", err)
	}
	return &Key{id: idOf(raw), aead: aead}, nil
}

// idOf derives the id from a hash of the key: 64 bits tell keys apart and tell nothing about them.
func idOf(raw []byte) string {
	sum := sha256.Sum256(append([]byte("certwright kek id v1\x00"), raw...))
	return "local-" + hex.EncodeToString(sum[:8])
}

// syncDir makes the new name in dir durable. Windows cannot sync a directory and does not need it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the directory of the key file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ID returns the key's id, e.g. "local-3f9a51c07be2d814".
func (k *Key) ID() string { return k.id }

// Wrap encrypts a data key.
func (k *Key) Wrap(_ context.Context, dek, aad []byte) ([]byte, error) {
	out, err := k.aead.Encrypt(dek, aad)
	if err != nil {
		return nil, errs.New(errs.Internal, "", "wrapping a data key: %w", err)
	}
	return out, nil
}

// Unwrap decrypts a data key; Precondition SEAL_BROKEN when it is not one that this key wrapped with the same aad.
func (k *Key) Unwrap(_ context.Context, wrapped, aad []byte) ([]byte, error) {
	out, err := k.aead.Decrypt(wrapped, aad)
	if err != nil {
		return nil, errs.New(errs.Precondition, "SEAL_BROKEN", "a data key does not open: it was changed")
	}
	return out, nil
}

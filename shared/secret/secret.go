// Package secret holds values that must never be seen by accident: passwords, tokens, private keys, webhook URLs with a key.
//
// A Value prints, formats, logs and marshals as "[secret]", also when it is an unexported field of a printed struct. The one way
// to the content is Reveal or RevealBytes, so that every use can be found by searching for these names. A Value is never stored
// as it is: encoding one to BSON or gob is an error, for a store gets only what package seal has sealed.
package secret

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/certwright/certwright/shared/errs"
)

// Placeholder is what a Value shows instead of its content.
const Placeholder = "[secret]"

// maxFile bounds what FromFile reads, in bytes.
const maxFile = 1 << 20

// Value is a secret. The zero Value is empty. A Value must not be compared with ==; use Equal.
//
// The content is behind two pointers on purpose: package fmt cannot call methods on unexported fields of a struct that it prints, and
// follows one pointer when the verb does not fit (%s), but never two.
type Value struct{ content **[]byte }

// New makes a secret from a string.
func New(s string) Value {
	if s == "" {
		return Value{}
	}
	return wrap([]byte(s))
}

// NewBytes makes a secret from a copy of b.
func NewBytes(b []byte) Value {
	if len(b) == 0 {
		return Value{}
	}
	return wrap(bytes.Clone(b))
}

func wrap(b []byte) Value {
	p := &b
	return Value{content: &p}
}

// FromFile reads a secret from a file of at most 1 MiB; one newline at the end is not part of the secret. A missing file is Precondition
// SECRET_FILE_MISSING, an unreadable, empty or oversized one Precondition SECRET_FILE_UNREADABLE.
func FromFile(path string) (Value, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if os.IsNotExist(err) {
		return Value{}, errs.New(errs.Precondition, "SECRET_FILE_MISSING", "the secret file %q does not exist; create it or correct the path", path)
	}
	if err != nil {
		return Value{}, errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "the secret file cannot be opened: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Value{}, errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "the secret file cannot be read: %w", err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	switch {
	case len(b) == 0:
		return Value{}, errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "the secret file %q is empty", path)
	case len(b) > maxFile:
		return Value{}, errs.New(errs.Precondition, "SECRET_FILE_UNREADABLE", "the secret file %q is larger than %d bytes", path, maxFile)
	}
	return NewBytes(b), nil
}

// FromEnv reads a secret from an environment variable. A variable that is unset or empty is Precondition SECRET_ENV_MISSING.
func FromEnv(name string) (Value, error) {
	s := os.Getenv(name)
	if s == "" {
		return Value{}, errs.New(errs.Precondition, "SECRET_ENV_MISSING", "the environment variable %s is not set; it has to hold the secret", name)
	}
	return New(s), nil
}

// Reveal returns the content as a string.
func (v Value) Reveal() string { return string(v.raw()) }

// RevealBytes returns a copy of the content, nil when empty. The caller may overwrite it after use.
func (v Value) RevealBytes() []byte { return bytes.Clone(v.raw()) }

// IsZero reports whether there is no content.
func (v Value) IsZero() bool { return len(v.raw()) == 0 }

// Equal compares in a time that depends on the lengths alone.
func (v Value) Equal(other Value) bool { return subtle.ConstantTimeCompare(v.raw(), other.raw()) == 1 }

func (v Value) raw() []byte {
	if v.content == nil {
		return nil
	}
	return **v.content
}

// String returns the placeholder.
func (Value) String() string { return Placeholder }

// GoString returns the placeholder.
func (Value) GoString() string { return Placeholder }

// Format writes the placeholder whatever the verb and flags are.
func (Value) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Placeholder) }

// LogValue returns the placeholder.
func (Value) LogValue() slog.Value { return slog.StringValue(Placeholder) }

// MarshalText returns the placeholder; JSON and map keys come here too.
func (Value) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON returns the placeholder as a JSON string.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// MarshalYAML returns the placeholder.
func (Value) MarshalYAML() (any, error) { return Placeholder, nil }

// UnmarshalText takes the content from configuration. The placeholder itself is refused: it means that somebody fed back what was
// printed.
func (v *Value) UnmarshalText(text []byte) error {
	if string(text) == Placeholder {
		return errs.New(errs.Invalid, "SECRET_PLACEHOLDER", "%q is what a secret looks like when it is printed, not a secret", Placeholder)
	}
	*v = NewBytes(text)
	return nil
}

var errStored = errs.New(errs.Internal, "SECRET_NOT_SEALED", "a secret may be stored only sealed (package seal)")

// MarshalBSONValue refuses: a secret is stored only sealed.
func (Value) MarshalBSONValue() (typ byte, data []byte, err error) { return 0, nil, errStored }

// GobEncode refuses: a secret is stored only sealed.
func (Value) GobEncode() ([]byte, error) { return nil, errStored }

package app

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Secrets are the secrets of an account by the provider's names for them; one that was not given is missing or empty.
type Secrets map[string]secret.Value

// Pack makes one credential of the secrets that are there, to be sealed.
func (s Secrets) Pack() secret.Value {
	plain := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if v := s[name]; !v.IsZero() {
			plain[name] = v.Reveal()
		}
	}
	b, _ := json.Marshal(plain) // strings can always be encoded
	return secret.NewBytes(b)
}

// Unpack opens what Pack made.
func Unpack(credential secret.Value) (Secrets, error) {
	plain := map[string]string{}
	if err := json.Unmarshal(credential.RevealBytes(), &plain); err != nil {
		return nil, errs.New(errs.Internal, "", "the stored credential is not what this version wrote") // the cause would quote it
	}
	s := Secrets{}
	for name, v := range plain {
		s[name] = secret.New(v)
	}
	return s, nil
}

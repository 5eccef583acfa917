package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/services/inventory/internal/names"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/config"
	"github.com/certwright/certwright/shared/errs"
)

// Input is what a person says of a certificate, as given.
type Input struct {
	DisplayName    string    `json:"displayName" validate:"max=200"`
	Owner          string    `json:"owner" validate:"max=200"`
	Team           string    `json:"team" validate:"max=63"`
	Labels         []string  `json:"labels" validate:"max=50,dive,max=200"`
	AllowDuplicate bool      `json:"allowDuplicate"`
	Spec           SpecInput `json:"spec"`
}

// SpecInput is a spec as given.
type SpecInput struct {
	Issuer       string         `json:"issuer" validate:"required,max=200"`
	Names        []string       `json:"names" validate:"required"`
	KeyAlgorithm string         `json:"keyAlgorithm"`
	Profile      string         `json:"profile" validate:"max=63"`
	Challenge    ChallengeInput `json:"challenge"`
	NotAfter     time.Time      `json:"notAfter"` // zero: the CA's default
}

// ChallengeInput is the way to prove control, as given.
type ChallengeInput struct {
	Type   string `json:"type" validate:"omitempty,oneof=auto http-01 dns-01 tls-alpn-01"`
	Manual bool   `json:"manual"`
}

// command is an input in the place where the API has it, so that violations carry its path.
type command struct {
	Certificate Input    `json:"certificate"`
	DeployTo    []string `json:"deployTo" validate:"max=50,unique,dive,required,max=64"`
}

const defaultKeyAlgorithm = "ECDSA_P256"

func keyAlgorithms() []string {
	return []string{"RSA_2048", "RSA_3072", "RSA_4096", defaultKeyAlgorithm, "ECDSA_P384"}
}

// check validates everything that can be without asking anybody, and returns the spec in canonical form with the issuer as given. The error is Invalid with
// one field a mistake.
func check(c command, now time.Time) (domain.Spec, error) {
	invalid := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the certificate is not valid")
	if e := errs.As(config.Validate(c)); e != nil {
		invalid.Fields = e.Fields
	}
	wrong := func(path, format string, args ...any) {
		invalid.Fields = append(invalid.Fields, errs.Field{Name: "certificate." + path, Msg: fmt.Sprintf(format, args...)})
	}
	in := c.Certificate.Spec
	s := domain.Spec{
		Issuer: strings.TrimSpace(in.Issuer), KeyAlgorithm: cmp.Or(strings.ToUpper(in.KeyAlgorithm), defaultKeyAlgorithm), Profile: in.Profile,
		ChallengeType: cmp.Or(in.Challenge.Type, "auto"), Manual: in.Challenge.Manual, NotAfter: in.NotAfter,
	}
	if !slices.Contains(keyAlgorithms(), s.KeyAlgorithm) {
		what := "is not known"
		if slices.Contains([]string{"RSA_512", "RSA_768", "RSA_1024", "RSA_1536", "ECDSA_P224", "ECDSA_P192", "DSA"}, s.KeyAlgorithm) {
			what = "is too weak, no CA issues for it"
		}
		wrong("spec.keyAlgorithm", "%q %s; allowed: %s", in.KeyAlgorithm, what, strings.Join(keyAlgorithms(), ", "))
	}
	if strings.IndexFunc(s.Profile, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		wrong("spec.profile", "%q has characters other than printable ASCII; give the profile's name as the CA lists it", s.Profile)
	}
	if !s.NotAfter.IsZero() && !s.NotAfter.After(now) {
		wrong("spec.notAfter", "%s is in the past; give a later moment, or none for the CA's default", s.NotAfter.Format(time.RFC3339))
	}
	if len(in.Names) > 0 {
		var fields []errs.Field
		s.Names, fields = names.Canonical("certificate.spec.names", in.Names, names.Options{IPs: s.Profile != "", ChallengeType: s.ChallengeType})
		invalid.Fields = append(invalid.Fields, fields...)
	}
	seen := map[string]int{}
	for i, l := range c.Certificate.Labels {
		path := fmt.Sprintf("labels[%d]", i)
		key, _, ok := strings.Cut(l, "=")
		first, twice := seen[key]
		switch {
		case !ok || strings.TrimSpace(key) != key || key == "":
			wrong(path, "%q is not of the form key=value", l)
		case strings.IndexFunc(l, unicode.IsControl) >= 0:
			wrong(path, "%q has control characters", l)
		case twice:
			wrong(path, "the key %q is the same as in labels[%d]; give each key once", key, first)
		}
		seen[key] = i
	}
	for path, text := range map[string]string{"owner": c.Certificate.Owner, "displayName": c.Certificate.DisplayName} {
		if strings.IndexFunc(text, unicode.IsControl) >= 0 {
			wrong(path, "%q has control characters", text)
		}
	}
	if len(invalid.Fields) > 0 {
		return s, invalid
	}
	return s, nil
}

// issuer asks orders which issuer is meant and checks that certificates of the team may use it. It returns the id.
func (a *App) issuer(ctx context.Context, given, team string) (string, error) {
	refused := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "INVALID_ARGUMENT", "the certificate is not valid").WithField("certificate.spec.issuer", format, args...)
	}
	is, err := a.Issuers.Issuer(ctx, given)
	switch {
	case isNotFound(err), err == nil && is.Team != "" && is.Team != authz.DefaultTeam && is.Team != team:
		return "", refused("there is no issuer %q; allowed is the id or the display name of one that GET /v1/issuers lists", given)
	case err != nil:
		return "", errs.New(errs.KindOf(err), "ISSUER_NOT_CHECKED", "the issuer %q could not be checked, nothing was changed; try again: %w", given, err)
	case is.Disabled:
		return "", refused("issuer %q (%s) is disabled; choose another one or enable it", is.DisplayName, is.ID)
	}
	return is.ID, nil
}

// uniqueKey is the same for the same issuer and set of names.
func uniqueKey(s domain.Spec) string {
	sorted := slices.Sorted(slices.Values(s.Names))
	sum := sha256.Sum256([]byte(s.Issuer + "\x00" + strings.Join(sorted, "\x00")))
	return hex.EncodeToString(sum[:])
}

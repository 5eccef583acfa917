package app

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/certwright/certwright/services/inventory/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// Update is an edit. Mask names the fields to change, in the API's proto spelling; see UpdateMask.
type Update struct {
	ID          string
	Certificate Input
	Mask        []string
	Etag        string // empty: whatever it is now
}

// UpdateMask are the fields that may be changed.
func UpdateMask() []string {
	return []string{
		"display_name", "owner", "labels", "spec.names", "spec.issuer", "spec.key_algorithm", "spec.profile", "spec.challenge", "spec.not_after",
	}
}

// Etag of a certificate: what people edit. Machines' writes do not void it.
func Etag(doc Certificate) string { return strconv.FormatInt(doc.Body.EditNumber, 10) }

// UpdateCertificate changes what the mask names. Conflict/ETAG_MISMATCH when somebody edited meanwhile; a changed spec asks for a new version.
func (a *App) UpdateCertificate(ctx context.Context, u Update) (Certificate, error) {
	doc, err := a.visible(ctx, u.ID)
	if err != nil {
		return doc, err
	}
	mask := u.Mask
	if len(mask) == 0 {
		mask = setFields(u.Certificate)
	}
	for _, path := range mask {
		if !slices.Contains(UpdateMask(), path) {
			return doc, errs.New(errs.Invalid, "BAD_UPDATE_MASK", "the field %q cannot be changed; allowed: %s", path, strings.Join(UpdateMask(), ", ")).
				WithField("updateMask", "%q given, allowed: %s", path, strings.Join(UpdateMask(), ", "))
		}
	}
	has := func(path string) bool { return slices.Contains(mask, path) }
	issuer := ""
	if has("spec.issuer") {
		if issuer, err = a.issuer(ctx, strings.TrimSpace(u.Certificate.Spec.Issuer), doc.Team); err != nil {
			return doc, err
		}
	}
	m := a.moment(ctx, u.ID)
	key := ""
	changed, err := a.change(ctx, m, func(doc *Certificate) (domain.Outcome, error) {
		if err := checkEtag(*doc, u.Etag); err != nil {
			return domain.Outcome{}, err
		}
		merged := merge(doc.Body, u.Certificate, has)
		if issuer != "" {
			merged.Spec.Issuer = issuer
		}
		now := m.Now
		if !has("spec.not_after") { // what was in the future once may be past by now
			now = doc.CreatedAt
		}
		spec, err := check(command{Certificate: merged}, now)
		if err != nil {
			return domain.Outcome{}, err
		}
		key = uniqueKey(spec)
		return doc.Body.Edit(domain.Edit{
			DisplayName: &merged.DisplayName, Owner: &merged.Owner, Labels: &merged.Labels, Spec: &spec,
		}, m)
	})
	if isExists(err) {
		return changed, a.exists(ctx, key, err)
	}
	return changed, err
}

func checkEtag(doc Certificate, given string) error {
	if given != "" && given != Etag(doc) {
		return errs.New(errs.Conflict, "ETAG_MISMATCH", "certificate %s was edited meanwhile: etag %q given, it is %q now; read it again", doc.ID, given, Etag(doc))
	}
	return nil
}

// setFields are the fields that an input without mask sets.
func setFields(in Input) []string {
	set := map[string]bool{
		"display_name": in.DisplayName != "", "owner": in.Owner != "", "labels": len(in.Labels) > 0, "spec.names": len(in.Spec.Names) > 0,
		"spec.issuer": in.Spec.Issuer != "", "spec.key_algorithm": in.Spec.KeyAlgorithm != "", "spec.profile": in.Spec.Profile != "",
		"spec.challenge": in.Spec.Challenge != ChallengeInput{}, "spec.not_after": !in.Spec.NotAfter.IsZero(),
	}
	return slices.DeleteFunc(UpdateMask(), func(path string) bool { return !set[path] })
}

// merge is the certificate as it would be, as an input to check.
func merge(c domain.Certificate, in Input, has func(string) bool) Input {
	s := c.Spec
	out := Input{
		DisplayName: c.DisplayName, Owner: c.Owner, Labels: c.Labels, Spec: SpecInput{
			Issuer: s.Issuer, Names: s.Names, KeyAlgorithm: s.KeyAlgorithm, Profile: s.Profile, NotAfter: s.NotAfter,
			Challenge: ChallengeInput{Type: s.ChallengeType, Manual: s.Manual},
		},
	}
	take := map[string]func(){
		"display_name":       func() { out.DisplayName = in.DisplayName },
		"owner":              func() { out.Owner = in.Owner },
		"labels":             func() { out.Labels = in.Labels },
		"spec.names":         func() { out.Spec.Names = in.Spec.Names },
		"spec.key_algorithm": func() { out.Spec.KeyAlgorithm = in.Spec.KeyAlgorithm },
		"spec.profile":       func() { out.Spec.Profile = in.Spec.Profile },
		"spec.challenge":     func() { out.Spec.Challenge = in.Spec.Challenge },
		"spec.not_after":     func() { out.Spec.NotAfter = in.Spec.NotAfter },
	}
	for path, f := range take {
		if has(path) {
			f()
		}
	}
	if out.Owner == "" {
		out.Owner = c.Owner // a certificate without owner is one that nobody hears of
	}
	return out
}

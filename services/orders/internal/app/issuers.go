package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

var keyAlgorithms = []string{"ECDSA_P256", "ECDSA_P384", "RSA_2048", "RSA_3072", "RSA_4096"}

// CreateIssuer stores an issuer. The CA is not asked; TestIssuer does that.
func (a *App) CreateIssuer(ctx context.Context, r *ordersv1.CreateIssuerRequest) (docstore.Doc[domain.Issuer], error) {
	var none docstore.Doc[domain.Issuer]
	p, err := authz.Require(ctx)
	if err != nil {
		return none, err
	}
	in, err := preset(r.GetIssuer(), r.GetPreset())
	if err != nil {
		return none, err
	}
	if err := checkIssuer(in); err != nil {
		return none, err
	}
	team := cmp.Or(in.GetTeam(), authz.TeamOf(p))
	if !authz.InTeam(p, team) {
		return none, errs.New(errs.Forbidden, "WRONG_TEAM", "team %q was given; you act for team %q", team, p.Team)
	}
	issID, err := a.Requests.ID(ctx, p.Subject, "CreateIssuer", r.GetRequestId(), "iss", in)
	if err != nil {
		return none, err
	}
	doc := docstore.Doc[domain.Issuer]{
		Meta: docstore.Meta{ID: issID, Team: team},
		Body: domain.Issuer{Kind: "acme", DirectoryURL: in.GetAcme().GetDirectoryUrl(), AccountKeyAlgorithm: cmp.Or(in.GetAcme().GetAccountKeyAlgorithm(), "ECDSA_P256")},
	}
	sealed, err := a.sealExternalKey(ctx, issID, in.GetAcme().GetExternalAccount().GetHmacKey())
	if err != nil {
		return doc, err
	}
	edit(&doc, in, sealed, IssuerMask())
	err = a.Issuers.Insert(ctx, &doc)
	if errs.KindOf(err) != errs.AlreadyExists {
		return doc, err
	}
	if errs.ReasonOf(err) == "DUPLICATE_ID" {
		return a.Issuers.Get(ctx, issID)
	}
	return doc, issuerExists(team, in.GetDisplayName())
}

func issuerExists(team, name string) error {
	return errs.New(errs.AlreadyExists, "ISSUER_EXISTS", "team %s has an issuer named %q already; choose another displayName", team, name)
}

func uniqueName(team, name string) string { return team + "/" + strings.ToLower(name) }

// preset returns the issuer with what a preset knows of it.
func preset(in *ordersv1.Issuer, name string) (*ordersv1.Issuer, error) {
	if name == "" {
		return in, nil
	}
	bad := func(field, format string, args ...any) (*ordersv1.Issuer, error) {
		return nil, errs.New(errs.Invalid, "BAD_ISSUER", "the issuer is not valid").WithField(field, format, args...)
	}
	known, ok := domain.PresetByName(name)
	if !ok {
		var names []string
		for _, p := range domain.Presets() {
			names = append(names, p.Name)
		}
		return bad("preset", "is %q; allowed are %s; for any other CA give issuer.acme.directoryUrl instead", name, strings.Join(names, ", "))
	}
	out := &ordersv1.Issuer{}
	proto.Merge(out, in)
	if out.GetAcme() == nil {
		out.Acme = &ordersv1.AcmeIssuer{}
	}
	switch given := out.GetAcme().GetDirectoryUrl(); {
	case known.DirectoryURL != "" && given != "" && given != known.DirectoryURL:
		return bad("issuer.acme.directoryUrl", "is %q, but the directory of the preset %s is %s; give only one of the two", given, name, known.DirectoryURL)
	case known.DirectoryURL == "" && given == "":
		return bad("issuer.acme.directoryUrl", "is missing; every installation of %s has its own", known.DisplayName)
	case known.ExternalAccountRequired && out.GetAcme().GetExternalAccount().GetKeyId() == "":
		return bad("issuer.acme.externalAccount", "is missing; %s takes only accounts that are bound to one you have there: give keyId and hmacKey as it shows them (%s)",
			known.DisplayName, known.DocumentationURL)
	}
	out.Acme.DirectoryUrl = cmp.Or(out.Acme.DirectoryUrl, known.DirectoryURL)
	return out, nil
}

func checkIssuer(in *ordersv1.Issuer) error {
	e := errs.New(errs.Invalid, "BAD_ISSUER", "the issuer is not valid")
	bad := func(field, format string, args ...any) { e = e.WithField(field, format, args...) }
	if n := in.GetDisplayName(); n == "" || len(n) > 100 {
		bad("issuer.displayName", "has %d characters; 1 to 100 are allowed", len(n))
	}
	if k := in.GetKind(); k != "" && k != "acme" {
		bad("issuer.kind", "is %q; allowed is acme", k)
	}
	x := in.GetAcme()
	if u, err := url.Parse(x.GetDirectoryUrl()); err != nil || u.Scheme != "https" || u.Host == "" {
		bad("issuer.acme.directoryUrl", "is %q; it must be an https URL such as https://acme-v02.api.letsencrypt.org/directory (RFC 8555 section 6.1)", x.GetDirectoryUrl())
	}
	for _, f := range []struct{ name, value string }{{"trustRootsPem", x.GetTrustRootsPem()}, {"issuedRootsPem", x.GetIssuedRootsPem()}} {
		if f.value == "" {
			continue
		}
		if err := checkPEM(f.value); err != "" {
			bad("issuer.acme."+f.name, "%s; give one or more PEM certificates", err)
		}
	}
	for i, c := range x.GetContacts() {
		if addr, err := mail.ParseAddress(c); err != nil || addr.Address != c {
			bad(fmt.Sprintf("issuer.acme.contacts[%d]", i), "is %q; it must be a plain mail address without mailto:", c)
		}
	}
	if alg := x.GetAccountKeyAlgorithm(); alg != "" && !slices.Contains(keyAlgorithms, alg) {
		bad("issuer.acme.accountKeyAlgorithm", "is %q; allowed are %s", alg, strings.Join(keyAlgorithms, ", "))
	}
	if n := len(x.GetPreferredChain()); n > 200 {
		bad("issuer.acme.preferredChain", "has %d characters; the common name of a root is wanted, 200 are allowed", n)
	}
	checkLimits(x.GetLimits(), bad)
	if why := checkProxy(x.GetProxyUrl()); why != "" {
		bad("issuer.acme.proxyUrl", "%s", why)
	}
	if x.GetExternalAccount() != nil {
		for field, why := range checkExternalAccount(x.GetExternalAccount()) {
			bad("issuer.acme.externalAccount."+field, "%s", why)
		}
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

// keptKey stands for the HMAC key that is stored, in the check of an edit that leaves it: any that is well formed.
const keptKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func checkExternalAccount(x *ordersv1.ExternalAccount) map[string]string {
	wrong := map[string]string{}
	switch key := x.GetHmacKey(); {
	case x.GetKeyId() == "" && key == "": // none
	case x.GetKeyId() == "":
		wrong["keyId"] = "is missing; the CA shows it beside the HMAC key"
	case key == "":
		wrong["hmacKey"] = "is missing; the CA shows it beside the key id"
	default:
		if _, why := hmacKey(key); why != "" {
			wrong["hmacKey"] = why
		}
	}
	return wrong
}

// hmacKey reads a key as CAs show it, with or without padding. What is wrong with it is said without a letter of it.
func hmacKey(text string) (key []byte, why string) {
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	switch {
	case err != nil && strings.ContainsAny(text, "+/"):
		return nil, "is base64 of the standard alphabet; it has to be base64url: write - for + and _ for /"
	case err != nil:
		return nil, "is not base64url (RFC 4648 section 5: letters, digits, - and _); copy it as the CA shows it, without spaces or quotes"
	case len(key) < 16:
		return nil, fmt.Sprintf("is only %d bytes long; CAs give 32. Was it copied as a whole?", len(key))
	}
	return key, ""
}

func checkProxy(text string) string {
	if text == "" {
		return ""
	}
	const allowed = "it must be a URL such as http://proxy.example.org:3128, with http, https or socks5"
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		return "holds a user name or password, which would be shown to everyone who may read issuers; let the proxy know this machine by its address"
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		return fmt.Sprintf("is %q; %s", text, allowed)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return fmt.Sprintf("is %q; %s, and nothing behind host and port", text, allowed)
	}
	return ""
}

func checkPEM(text string) string {
	rest := []byte(text)
	n := 0
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return "holds a PEM block of type " + b.Type
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return "holds a certificate that cannot be parsed: " + err.Error()
		}
		n++
	}
	if n == 0 {
		return "holds no PEM certificate"
	}
	return ""
}

// IssuerMask are the fields that may be changed.
func IssuerMask() []string {
	return []string{
		"display_name", "disabled", "acme.contacts", "acme.terms_agreed", "acme.trust_roots_pem", "acme.issued_roots_pem", "acme.profile", "acme.preferred_chain",
		"acme.proxy_url", "acme.external_account", "acme.limits",
	}
}

// setIssuerFields are the fields that an input without mask sets.
func setIssuerFields(in *ordersv1.Issuer) []string {
	x := in.GetAcme()
	set := map[string]bool{
		"display_name": in.GetDisplayName() != "", "disabled": in.GetDisabled(), "acme.contacts": len(x.GetContacts()) > 0, "acme.terms_agreed": x.GetTermsAgreed(),
		"acme.trust_roots_pem": x.GetTrustRootsPem() != "", "acme.issued_roots_pem": x.GetIssuedRootsPem() != "", "acme.profile": x.GetProfile() != "",
		"acme.preferred_chain": x.GetPreferredChain() != "", "acme.proxy_url": x.GetProxyUrl() != "", "acme.external_account": x.GetExternalAccount() != nil,
		"acme.limits": len(x.GetLimits()) > 0,
	}
	return slices.DeleteFunc(IssuerMask(), func(path string) bool { return !set[path] })
}

// IssuerEtag changes with every edit.
func IssuerEtag(d docstore.Doc[domain.Issuer]) string { return strconv.FormatInt(d.Body.Edits, 10) }

// UpdateIssuer changes what the mask names. Conflict ETAG_MISMATCH when somebody edited meanwhile.
func (a *App) UpdateIssuer(ctx context.Context, r *ordersv1.UpdateIssuerRequest) (docstore.Doc[domain.Issuer], error) {
	d, err := a.GetIssuer(ctx, r.GetId())
	if err != nil {
		return d, err
	}
	mask, in := r.GetUpdateMask().GetPaths(), r.GetIssuer()
	if len(mask) == 0 {
		mask = setIssuerFields(in)
	}
	for _, path := range mask {
		if slices.Contains([]string{"acme", "acme.directory_url", "acme.account_key_algorithm", "kind", "team"}, path) {
			return d, errs.New(errs.Invalid, "BAD_UPDATE_MASK", "the field %q cannot be changed; allowed: %s. Another CA or account key is another issuer: create it and give it to the certificates", path, strings.Join(IssuerMask(), ", "))
		}
		if !slices.Contains(IssuerMask(), path) {
			return d, errs.New(errs.Invalid, "BAD_UPDATE_MASK", "the field %q cannot be changed; allowed: %s", path, strings.Join(IssuerMask(), ", "))
		}
	}
	given := in.GetAcme().GetExternalAccount()
	sealed, err := domain.Sealed{}, error(nil)
	if slices.Contains(mask, "acme.external_account") {
		if why := checkExternalAccount(given); given.GetHmacKey() != "" && len(why) == 0 {
			sealed, err = a.sealExternalKey(ctx, d.ID, given.GetHmacKey())
		}
	}
	if err != nil {
		return d, err
	}
	etag := cmp.Or(r.GetEtag(), in.GetEtag())
	contacts := slices.Contains(mask, "acme.contacts")
	if contacts { // whatever becomes of this process
		if err := a.poke(ctx, d.ID, 30*time.Second); err != nil {
			return d, err
		}
	}
	changed, err := a.changeIssuer(ctx, d.ID, func(doc *docstore.Doc[domain.Issuer]) error {
		if etag != "" && etag != IssuerEtag(*doc) {
			return errs.New(errs.Conflict, "ETAG_MISMATCH", "the issuer %s was edited meanwhile: etag %q given, it is %q now; read it again", doc.ID, etag, IssuerEtag(*doc))
		}
		key := sealed
		if given.GetHmacKey() == "" && given.GetKeyId() != "" && given.GetKeyId() == doc.Body.EABKeyID {
			key = doc.Body.EABKey // what was read is written back
		}
		edit(doc, in, key, mask)
		return checkIssuer(asGiven(doc.Body, given.GetHmacKey()))
	})
	if errs.KindOf(err) == errs.AlreadyExists {
		err = issuerExists(d.Team, in.GetDisplayName())
	}
	if err == nil && contacts {
		err = a.poke(ctx, d.ID, 0)
	}
	return changed, err
}

// SetIssuerDisabled lets an issuer be used, or not. Orders that the CA has already go on.
func (a *App) SetIssuerDisabled(ctx context.Context, ref string, disabled bool) (docstore.Doc[domain.Issuer], error) {
	d, err := a.GetIssuer(ctx, ref)
	if err != nil {
		return d, err
	}
	return a.changeIssuer(ctx, d.ID, func(doc *docstore.Doc[domain.Issuer]) error {
		if doc.Body.Disabled == disabled {
			return outbox.ErrUnchanged
		}
		doc.Body.Disabled = disabled
		return nil
	})
}

func (a *App) changeIssuer(ctx context.Context, id string, f func(doc *docstore.Doc[domain.Issuer]) error) (docstore.Doc[domain.Issuer], error) {
	d, err := a.Issuers.Change(ctx, id, func(doc *docstore.Doc[domain.Issuer]) ([]outbox.Fact, error) {
		if doc.Tombstone {
			return nil, notFound("issuer", id)
		}
		if err := f(doc); err != nil {
			return nil, err
		}
		doc.Body.Edits++
		return nil, nil
	})
	a.edited(id)
	return d, err
}

// edit takes what the mask names from in. key is the sealed HMAC key of the external account.
func edit(doc *docstore.Doc[domain.Issuer], in *ordersv1.Issuer, key domain.Sealed, mask []string) {
	i, x := &doc.Body, in.GetAcme()
	take := map[string]func(){
		"display_name": func() {
			i.DisplayName, i.UniqueName = in.GetDisplayName(), uniqueName(doc.Team, in.GetDisplayName())
		},
		"disabled":              func() { i.Disabled = in.GetDisabled() },
		"acme.contacts":         func() { i.Contacts = x.GetContacts() },
		"acme.terms_agreed":     func() { i.TermsAgreed = x.GetTermsAgreed() },
		"acme.trust_roots_pem":  func() { i.TrustRootsPEM = x.GetTrustRootsPem() },
		"acme.issued_roots_pem": func() { i.IssuedRootsPEM = x.GetIssuedRootsPem() },
		"acme.profile":          func() { i.Profile = x.GetProfile() },
		"acme.preferred_chain":  func() { i.PreferredChain = x.GetPreferredChain() },
		"acme.proxy_url":        func() { i.ProxyURL = x.GetProxyUrl() },
		"acme.external_account": func() { i.EABKeyID, i.EABKey = x.GetExternalAccount().GetKeyId(), key },
		"acme.limits":           func() { i.Limits = limits(x.GetLimits()) },
	}
	for _, path := range mask {
		take[path]()
	}
}

// asGiven is a stored issuer as a user would give it, to be checked. hmac is what was given with the edit; where one is stored and none given, it is kept.
func asGiven(i domain.Issuer, hmac string) *ordersv1.Issuer {
	m := IssuerMessage(i)
	if x := m.GetAcme().GetExternalAccount(); x != nil {
		if x.HmacKey = hmac; hmac == "" && len(i.EABKey.Ciphertext) > 0 {
			x.HmacKey = keptKey
		}
	} else if hmac != "" {
		m.Acme.ExternalAccount = &ordersv1.ExternalAccount{HmacKey: hmac}
	}
	return m
}

// IssuerMessage is an issuer as it travels; its secret does not.
func IssuerMessage(i domain.Issuer) *ordersv1.Issuer {
	m := &ordersv1.Issuer{
		DisplayName: i.DisplayName, Kind: i.Kind, Disabled: i.Disabled,
		Acme: &ordersv1.AcmeIssuer{
			DirectoryUrl: i.DirectoryURL, TrustRootsPem: i.TrustRootsPEM, IssuedRootsPem: i.IssuedRootsPEM, Contacts: i.Contacts,
			TermsAgreed: i.TermsAgreed, AccountKeyAlgorithm: i.AccountKeyAlgorithm, Profile: i.Profile, PreferredChain: i.PreferredChain, ProxyUrl: i.ProxyURL,
			Limits: LimitMessages(i.Limits),
		},
	}
	if i.EABKeyID != "" {
		m.Acme.ExternalAccount = &ordersv1.ExternalAccount{KeyId: i.EABKeyID}
	}
	return m
}

// externalAAD binds the sealed HMAC key to its issuer.
func externalAAD(issuerID string) []byte { return []byte(issuerID + "/external account") }

// sealExternalKey seals a checked HMAC key; none stays none.
func (a *App) sealExternalKey(ctx context.Context, issuerID, text string) (domain.Sealed, error) {
	if text == "" {
		return domain.Sealed{}, nil
	}
	key, _ := hmacKey(text)
	defer clear(key)
	sealed, err := a.Sealer.Seal(ctx, key, externalAAD(issuerID))
	return domain.Sealed(sealed), err
}

// externalKey opens the HMAC key of an issuer's external account; zero when it has none.
func (a *App) externalKey(ctx context.Context, issuer docstore.Doc[domain.Issuer]) (secret.Value, error) {
	if issuer.Body.EABKeyID == "" {
		return secret.Value{}, nil
	}
	key, err := a.Sealer.Open(ctx, seal.Sealed(issuer.Body.EABKey), externalAAD(issuer.ID))
	if err != nil {
		return secret.Value{}, cannotOpen("the external account key of the issuer "+issuer.Body.DisplayName, err)
	}
	defer clear(key)
	return secret.NewBytes(key), nil
}

// DeleteIssuer removes an issuer that no open order uses.
func (a *App) DeleteIssuer(ctx context.Context, ref string) error {
	d, err := a.GetIssuer(ctx, ref)
	if err != nil {
		return err
	}
	page, err := a.Orders.Find(ctx, docstore.Query{
		Where:  []docstore.Cond{{Field: "open", Op: docstore.Eq, Value: true}},
		Filter: []docstore.Cond{{Field: "issuer_id", Op: docstore.Eq, Value: d.ID}}, Limit: 1,
	})
	if err != nil {
		return err
	}
	if len(page.Docs) > 0 {
		return errs.New(errs.Precondition, "ISSUER_IN_USE", "the issuer %s has the open order %s; wait for it or cancel it first", d.Body.DisplayName, page.Docs[0].ID)
	}
	_, err = a.Issuers.Change(ctx, d.ID, func(doc *docstore.Doc[domain.Issuer]) ([]outbox.Fact, error) {
		doc.Tombstone, doc.Body.Disabled, doc.Body.UniqueName = true, true, doc.ID
		return nil, nil
	})
	return err
}

// TestIssuer reads the CA's directory and says what it supports. An unreachable CA is an answer, not an error.
func (a *App) TestIssuer(ctx context.Context, ref string) (*ordersv1.TestIssuerResponse, error) {
	d, err := a.GetIssuer(ctx, ref)
	if err != nil {
		return nil, err
	}
	dir, err := a.CA.Directory(ctx, d.Body)
	if f := failureOf(err); f != nil {
		return &ordersv1.TestIssuerResponse{Problem: f.Problem.Message()}, nil
	}
	if err != nil {
		return nil, err
	}
	problem := domain.UnknownProfile(d.Body.Profile, dir.Meta)
	if acc, err := a.Accounts.Get(ctx, AccountID(d.ID)); err != nil || acc.Body.State != AccountValid {
		problem = cmp.Or(d.Body.Unfit(dir.Meta), problem)
	}
	return &ordersv1.TestIssuerResponse{
		Reachable: true, Problem: problem.Message(), Profiles: dir.Profiles, RenewalInfo: dir.RenewalInfo, ExternalAccountRequired: dir.ExternalAccountRequired,
		TermsOfService: dir.TermsOfService, CaaIdentities: dir.CAAIdentities, Website: dir.Website, ClockSkewMs: dir.Skew.Milliseconds(),
	}, nil
}

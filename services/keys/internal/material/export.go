package material

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// The formats in which a key leaves for a person.
const (
	FormatPEM          = "PEM"           // the key alone, PKCS#8
	FormatDER          = "DER"           // the same, binary
	FormatPKCS12       = "PKCS12"        // RFC 7292 with AES-256 and PBKDF2, as OpenSSL 3 and Java 12 write it
	FormatPKCS12Legacy = "PKCS12_LEGACY" // RFC 7292 with 3DES and SHA-1, for what reads no newer one
	FormatJKS          = "JKS"           // Java's keystore before PKCS#12
)

// Formats lists them all.
func Formats() []string {
	return []string{FormatPEM, FormatDER, FormatPKCS12, FormatPKCS12Legacy, FormatJKS}
}

// minJKSPassword is what Java's keytool asks for, in characters.
const minJKSPassword = 6

// Export is what a person asks for.
type Export struct {
	Format   string // empty: PEM
	Password secret.Value
	Alias    string // of a JKS entry; empty: "certificate"
}

// Validate fills the defaults and refuses what cannot be made: Invalid with one field per mistake.
func (e *Export) Validate() error {
	if e.Format == "" {
		e.Format = FormatPEM
	}
	if e.Alias == "" {
		e.Alias = "certificate"
	}
	wrong := errs.New(errs.Invalid, "EXPORT_INVALID", "the key cannot be exported like this")
	switch n := utf8.RuneCountInString(e.Password.Reveal()); {
	case !slices.Contains(Formats(), e.Format):
		wrong = wrong.WithField("format", "is %q; allowed are %s", e.Format, strings.Join(Formats(), ", "))
	case !e.Keystore() && n > 0:
		wrong = wrong.WithField("password", "is given, but %s is not encrypted; leave it out, or choose PKCS12", e.Format)
	case e.Keystore() && n == 0:
		wrong = wrong.WithField("password", "is empty; a %s keystore is encrypted, give it a password", e.Format)
	case e.Format == FormatJKS && n < minJKSPassword:
		wrong = wrong.WithField("password", "has %d characters; Java reads keystores whose password has at least %d", n, minJKSPassword)
	}
	if len(wrong.Fields) > 0 {
		return wrong
	}
	return nil
}

// Keystore reports whether certificate and chain go with the key.
func (e *Export) Keystore() bool {
	return e.Format == FormatPKCS12 || e.Format == FormatPKCS12Legacy || e.Format == FormatJKS
}

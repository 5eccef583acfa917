package domain

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/errs"
)

// Version is the body of a stored version. It never changes: what it is right now follows from its certificate, see VersionState.
type Version struct {
	CertificateID string   `bson:"certificate_id"`
	Facts         Facts    `bson:"facts"`
	Chain         [][]byte `bson:"chain"` // leaf first, each DER
	// Unneeded: it came after another had taken its place. It is never current and never deployed.
	Unneeded bool `bson:"unneeded"`
	// Replaces is the version that was current when it came; empty for the first.
	Replaces string `bson:"replaces"`
}

// The states of a version.
const (
	VersionCurrent    = "current"
	VersionSuperseded = "superseded"
	VersionRevoking   = "revoking"
	VersionRevoked    = "revoked"
	VersionUnneeded   = "unneeded"
)

// VersionState derives the state of a version of this certificate, and its revocation if there is one. The state is empty for a version that the
// certificate does not point to yet.
func (c *Certificate) VersionState(v Version) (string, *Revocation) {
	id := v.Facts.VersionID
	if r := c.revocation(id); r != nil {
		if r.State == RevocationDone {
			return VersionRevoked, r
		}
		return VersionRevoking, r
	}
	switch {
	case c.Current != nil && c.Current.VersionID == id:
		return VersionCurrent, nil
	case c.Intent.IsOpen() && c.Intent.OrderID == v.Facts.OrderID:
		return "", nil
	case v.Unneeded:
		return VersionUnneeded, nil
	}
	return VersionSuperseded, nil
}

// Verdict is what becomes of an issued order.
type Verdict string

// The verdicts. The reasons of a refusal are published.
const (
	TakenAsCurrent  Verdict = "current"
	TakenAsUnneeded Verdict = "unneeded"
	RefusedDeleted  Verdict = "deleted"
	RefusedUnknown  Verdict = "unknown_intent"
)

// Refused reports whether the verdict makes no version.
func (v Verdict) Refused() bool { return v == RefusedDeleted || v == RefusedUnknown }

// Judge says what becomes of an issued order, and says the same each time. stored tells whether a version was made of it already.
func (c *Certificate) Judge(order string, number int64, stored bool) Verdict {
	open := c.Intent.IsOpen() && c.Intent.OrderID == order
	switch {
	case c.Current != nil && c.Current.OrderID == order:
		return TakenAsCurrent
	case c.Deleted() && (open || !stored):
		return RefusedDeleted
	case c.Deleted():
		return TakenAsUnneeded
	case open:
		return TakenAsCurrent
	case number > c.Intent.Number, number == c.Intent.Number && c.Intent.OrderID != order:
		return RefusedUnknown
	}
	return TakenAsUnneeded
}

// Refuse answers an issued order that makes no version.
func (c *Certificate) Refuse(order string, verdict Verdict, m Moment) Outcome {
	out := Outcome{Changed: true}
	out.keep(VersionKey(order), &certificateeventsv1.VersionRefused{CertificateId: m.ID, OrderId: order, Reason: string(verdict)})
	if c.Intent.IsOpen() && c.Intent.OrderID == order {
		c.close(Cancelled, &Problem{Reason: "CERTIFICATE_DELETED", Detail: "the certificate was deleted before its order had ended"}, true, m, &out)
	}
	return out
}

// AddVersion takes a stored version as judged. A version that is pointed to already is only answered again.
func (c *Certificate) AddVersion(v Version, verdict Verdict, m Moment) Outcome {
	out := Outcome{Changed: true}
	f, before := v.Facts, c.Current
	added := &certificateeventsv1.VersionAdded{
		CertificateId: m.ID, Version: f.Message(), State: string(verdict), Owner: c.Owner, IntentNumber: f.Number,
	}
	if verdict == TakenAsCurrent {
		added.ReplacesVersionId = v.Replaces
	}
	out.keep(VersionKey(f.OrderID), added)
	if verdict != TakenAsCurrent || before != nil && before.VersionID == f.VersionID {
		return out
	}
	c.Current, c.CurrentRevoked, c.NoReplacement, c.NotAfter = &f, false, false, f.NotAfter
	if before == nil {
		out.tell(&certificateeventsv1.Issued{CertificateId: m.ID, Version: f.Message(), Owner: c.Owner})
	} else {
		out.tell(&certificateeventsv1.Renewed{
			CertificateId: m.ID, Version: f.Message(), ReplacesVersionId: before.VersionID, Owner: c.Owner, ReplacedNotAfter: Stamp(before.NotAfter),
		})
	}
	c.close(Issued, nil, false, m, &out)
	c.release(m, &out)
	return out
}

// ReadLeaf fills the facts that the certificate itself states. Invalid/BAD_CHAIN when the chain is empty or its leaf cannot be read.
func ReadLeaf(f Facts, chain [][]byte) (Facts, error) {
	if len(chain) == 0 {
		return f, errs.New(errs.Invalid, "BAD_CHAIN", "order %s brought no certificate", f.OrderID)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return f, errs.New(errs.Invalid, "BAD_CHAIN", "the certificate of order %s cannot be read: %w", f.OrderID, err)
	}
	fingerprint, spki := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	f.Names = append(f.Names, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		f.Names = append(f.Names, ip.String())
	}
	if len(f.Names) == 0 {
		f.Names = []string{leaf.Subject.CommonName}
	}
	f.NotBefore, f.NotAfter = normal(leaf.NotBefore), normal(leaf.NotAfter)
	f.Serial = leaf.SerialNumber.Text(16)
	f.FingerprintSHA256, f.SPKISHA256 = hex.EncodeToString(fingerprint[:]), hex.EncodeToString(spki[:])
	f.ARICertID = ariCertID(leaf.AuthorityKeyId, leaf.SerialNumber)
	f.KeyAlgorithm = keyAlgorithm(leaf)
	f.IssuerName = leaf.Issuer.String()
	return f, nil
}

// ariCertID is base64url(AKI keyIdentifier) "." base64url(content octets of the DER serial), RFC 9773 section 4.1; empty without a key identifier.
func ariCertID(aki []byte, serial *big.Int) string {
	if len(aki) == 0 {
		return ""
	}
	octets := serial.Bytes()
	if len(octets) == 0 || octets[0]&0x80 != 0 { // DER integers are signed
		octets = append([]byte{0}, octets...)
	}
	return base64.RawURLEncoding.EncodeToString(aki) + "." + base64.RawURLEncoding.EncodeToString(octets)
}

func keyAlgorithm(leaf *x509.Certificate) string {
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA_%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA_P%d", k.Curve.Params().BitSize)
	case ed25519.PublicKey:
		return "ED25519"
	}
	return leaf.PublicKeyAlgorithm.String()
}

func normal(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

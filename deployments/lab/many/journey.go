package many

import (
	"context"
	"fmt"
	"net/http"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	"github.com/certwright/certwright/deployments/lab/stage"
)

// Journey takes one certificate through its life at the stage's CA, by http-01, and checks each step from outside: issued, deployed to the target, renewed
// with "replaces", deployed again, revoked. The issuer is made under the name given. served waits until the target has the certificate of this fingerprint; say is told of every step seen.
func Journey(ctx context.Context, s *stage.Stage, name, target string, served func(ctx context.Context, fingerprint string) error, say func(format string, args ...any)) error {
	issuer, err := s.Issuer(ctx, name)
	if err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	made, err := s.Request(ctx, issuer.GetId(), "http-01", []string{target}, "www."+stage.Zone)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	issued, err := s.Version(ctx, made.GetId(), "")
	if err != nil {
		return fmt.Errorf("issue: %w", err)
	}
	first := issued.GetCurrentVersion().GetFacts()
	say("issued by http-01: %s", first.GetVersionId())
	if err := served(ctx, first.GetFingerprintSha256()); err != nil {
		return fmt.Errorf("deploy: %w", err)
	}
	say("deployed")

	if err := s.Call(ctx, http.MethodPost, "/v1/certificates/"+made.GetId()+":renew", &inventoryv1.RenewCertificateRequest{}, nil); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	renewed, err := s.Version(ctx, made.GetId(), first.GetVersionId())
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	second := renewed.GetCurrentVersion().GetFacts()
	if err := served(ctx, second.GetFingerprintSha256()); err != nil {
		return fmt.Errorf("deploy again: %w", err)
	}
	for _, o := range s.CA.Orders() {
		if o.CertID == second.GetAriCertId() && o.Replaces != first.GetAriCertId() {
			return fmt.Errorf("the CA saw replaces %q, meant was %q", o.Replaces, first.GetAriCertId())
		}
	}
	say("renewed and deployed again: %s", second.GetVersionId())

	if err := s.Call(ctx, http.MethodPost, "/v1/certificates/"+made.GetId()+":revoke",
		&inventoryv1.RevokeCertificateRequest{Reason: "cessationOfOperation", NoReplacement: true}, &inventoryv1.Version{}); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	if err := stage.Until(ctx, s, "/v1/certificates/"+made.GetId(), &inventoryv1.Certificate{}, func(c *inventoryv1.Certificate) bool { return c.GetState() == "revoked" }); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	if _, known, err := s.CA.Revoked(second.GetSerial()); err != nil || !known {
		return fmt.Errorf("the CA does not know of the revocation (%w)", err)
	}
	say("revoked: %s", second.GetSerial())
	if finalized := Finalized(s); finalized != 2 {
		return fmt.Errorf("the CA finalized %d orders for two intents", finalized)
	}
	return nil
}

// Finalized is how many orders the CA finalized.
func Finalized(s *stage.Stage) int {
	n := 0
	for _, o := range s.CA.Orders() {
		if o.Finalized {
			n++
		}
	}
	return n
}

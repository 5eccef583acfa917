package cli

import (
	"context"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
)

// issuerFlags are what can be told of an issuer when it is made and afterwards.
type issuerFlags struct {
	acme          *ordersv1.AcmeIssuer
	trust, issued string
	keyID, hmac   string
	limits        func() ([]*ordersv1.IssuerLimit, error)
}

func (i *issuerFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&i.trust, "trust-roots", "", "PEM `file` of the roots that the CA's server is verified with; default: the system's")
	f.StringVar(&i.issued, "issued-roots", "", "PEM `file` of the roots that issued chains must end in")
	f.StringArrayVar(&i.acme.Contacts, "contact", nil, "mail `address` for the CA; may be repeated")
	f.BoolVar(&i.acme.TermsAgreed, "agree-terms", false, "the CA's terms of service were read and are agreed to")
	f.StringVar(&i.acme.Profile, "profile", "", "`profile` of certificates that name none")
	f.StringVar(&i.acme.PreferredChain, "preferred-chain", "", "common `name` of the root that chains should end in; default: the CA's choice")
	f.StringVar(&i.acme.ProxyUrl, "proxy", "", "`URL` of the proxy to the CA; default: as the server's environment says")
	i.limits = limitFlags(cmd)
	f.StringVar(&i.keyID, "eab-key-id", "", "key `id` of the external account that the CA wants")
	f.StringVar(&i.hmac, "eab-hmac-file", "", "`file` that holds the HMAC key of the external account in base64url, - for standard input")
}

// read completes the issuer from the files.
func (i *issuerFlags) read(a *app) (err error) {
	if (i.keyID == "") != (i.hmac == "") {
		return usage("--eab-key-id and --eab-hmac-file belong together")
	}
	if i.acme.Limits, err = i.limits(); err != nil {
		return err
	}
	if i.acme.TrustRootsPem, err = textFile(i.trust); err != nil {
		return err
	}
	if i.acme.IssuedRootsPem, err = textFile(i.issued); err != nil {
		return err
	}
	if i.keyID == "" {
		return nil
	}
	i.acme.ExternalAccount = &ordersv1.ExternalAccount{KeyId: i.keyID}
	i.acme.ExternalAccount.HmacKey, err = a.secretFile(i.hmac)
	return err
}

func (a *app) updateIssuer(k kind) *cobra.Command {
	in := issuerFlags{acme: &ordersv1.AcmeIssuer{}}
	i := &ordersv1.Issuer{Acme: in.acme}
	var noExternal bool
	var etag string
	fields := map[string]string{
		"name": "display_name", "trust-roots": "acme.trust_roots_pem", "issued-roots": "acme.issued_roots_pem", "contact": "acme.contacts", "agree-terms": "acme.terms_agreed",
		"profile": "acme.profile", "preferred-chain": "acme.preferred_chain", "proxy": "acme.proxy_url", "eab-key-id": "acme.external_account", "no-eab": "acme.external_account",
		"limit": "acme.limits",
	}
	var cmd *cobra.Command
	cmd = a.verb("update ID|NAME", "Change what is given of an issuer; an empty value takes it away", 1, func(ctx context.Context, c *client, args []string) error {
		mask := &fieldmaskpb.FieldMask{}
		for flag, field := range fields {
			if cmd.Flags().Changed(flag) {
				mask.Paths = append(mask.Paths, field)
			}
		}
		mask.Normalize()
		if len(mask.GetPaths()) == 0 {
			return usage("nothing to change was given")
		}
		if noExternal && in.keyID != "" {
			return usage("--no-eab and --eab-key-id contradict each other")
		}
		if err := in.read(a); err != nil {
			return err
		}
		if len(in.acme.Contacts) == 1 && in.acme.Contacts[0] == "" {
			in.acme.Contacts = nil
		}
		id, err := k.find(ctx, args[0])
		if err != nil {
			return err
		}
		changed := &ordersv1.Issuer{}
		if err := c.call(ctx, http.MethodPatch, path(k.path, id), nil, &ordersv1.UpdateIssuerRequest{Issuer: i, UpdateMask: mask, Etag: etag}, changed); err != nil {
			return err
		}
		return a.showIssuer(changed)
	})
	cmd.Example = "  certwright issuers update zerossl --eab-key-id kid_1 --eab-hmac-file zerossl.hmac --agree-terms"
	cmd.ValidArgsFunction = k.complete
	in.add(cmd)
	f := cmd.Flags()
	f.StringVar(&i.DisplayName, "name", "", "new `name`")
	f.BoolVar(&noExternal, "no-eab", false, "take the external account away")
	f.StringVar(&etag, "etag", "", "change it only if its `etag` is still this one")
	return cmd
}

func (a *app) presets() *cobra.Command {
	type p = *ordersv1.IssuerPreset
	columns := []column[p]{
		{"PRESET", p.GetName},
		{"CA", p.GetDisplayName},
		{"EXTERNAL ACCOUNT", func(p p) string { return yes(p.GetExternalAccountRequired()) }},
		{"STAGING", p.GetStaging},
		{"DIRECTORY", p.GetDirectoryUrl},
		{"DOCUMENTATION", p.GetDocumentationUrl},
		{"NOTE", p.GetNote},
	}
	return a.verb("presets", "List the CAs that are known by name", 0, func(ctx context.Context, c *client, _ []string) error {
		all := &ordersv1.ListIssuerPresetsResponse{}
		if err := c.call(ctx, http.MethodGet, "/v1/issuerPresets", nil, nil, all); err != nil {
			return err
		}
		return a.show(all, func(w io.Writer) error { return writeTable(w, all.GetPresets(), columns) })
	})
}

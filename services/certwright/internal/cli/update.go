package cli

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
)

// edit is what a person wants changed of a certificate. A flag that was not given changes nothing.
type edit struct {
	displayName, owner, issuer, algorithm, profile, challenge string
	manual                                                    bool
	addNames, removeNames, labels, removeLabels               []string
}

func (a *app) updateCertificate() *cobra.Command {
	var (
		e       edit
		wait    bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "update ID|NAME", Short: "Change what a certificate should be", Args: cobra.ExactArgs(1),
		Long: `Change what a certificate should be. A change of names, issuer, key, profile or challenge orders a new version at once; an order that is open for
the old wish is cancelled unless its certificate is about to come. Who edits it meanwhile is not overwritten: then the command says so.`,
		Example: `  certwright certificates update www.example.org --add-name shop.example.org --wait
  certwright certificates update www.example.org --owner web@example.org --label billing=1234 --remove-label old`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.findCertificate(ctx, args[0])
			if err != nil {
				return err
			}
			crt, err := a.readCertificate(ctx, c, id)
			if err != nil {
				return err
			}
			if e.issuer != "" {
				if e.issuer, err = a.chooseIssuer(ctx, c, e.issuer); err != nil {
					return err
				}
			}
			mask, err := e.apply(crt, cmd.Flags().Changed)
			if err != nil {
				return err
			}
			before, changed := crt.GetSpecGeneration(), &inventoryv1.Certificate{}
			req := &inventoryv1.UpdateCertificateRequest{Certificate: crt, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, Etag: crt.GetEtag()}
			if err := c.call(ctx, http.MethodPatch, path("/v1/certificates/", id), nil, req, changed); err != nil {
				return err
			}
			if !wait || changed.GetSpecGeneration() == before {
				return a.showCertificate(changed)
			}
			return a.waitAndShow(ctx, c, timeout, goal{certificate: id, order: changed.GetIntent().GetOrderId(), generation: changed.GetSpecGeneration()})
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.displayName, "display-name", "", "`name` to show for it; empty: none")
	f.StringVar(&e.owner, "owner", "", "`who` answers for it: a mail address or a name")
	f.StringArrayVar(&e.addNames, "add-name", nil, "one more DNS `name` or IP address; may be repeated")
	f.StringArrayVar(&e.removeNames, "remove-name", nil, "a `name` that it is for no longer; may be repeated")
	f.StringArrayVar(&e.labels, "label", nil, "label to set, `key=value`; may be repeated")
	f.StringArrayVar(&e.removeLabels, "remove-label", nil, "`key` of a label to remove; may be repeated")
	f.StringVar(&e.issuer, "issuer", "", "`name` or id of the issuer")
	f.StringVar(&e.algorithm, "key-algorithm", "", "`algorithm` of the key: "+list(keyAlgorithms))
	f.StringVar(&e.profile, "profile", "", "`profile` of the CA; empty: the CA's default")
	f.StringVar(&e.challenge, "challenge", "", "`way` to prove control of the names: auto, http-01, tls-alpn-01 or dns-01")
	f.BoolVar(&e.manual, "manual", false, "a person places the answers")
	waitFlags(cmd, &wait, &timeout)
	complete(cmd, "key-algorithm", keyAlgorithms...)
	complete(cmd, "challenge", "auto", "http-01", "dns-01", "tls-alpn-01")
	must(cmd.RegisterFlagCompletionFunc("issuer", ids(a, issuerList(), 0)))
	return cmd
}

// apply makes crt what it should be and returns the mask of what was asked for.
func (e edit) apply(crt *inventoryv1.Certificate, given func(flag string) bool) (mask []string, err error) {
	s := crt.GetSpec()
	if s.GetChallenge() == nil {
		s.Challenge = &typesv1.ChallengeSpec{}
	}
	for _, n := range e.removeNames {
		if !slices.Contains(s.GetNames(), n) {
			return nil, usage("--remove-name is %q; the certificate is for %s", n, strings.Join(s.GetNames(), ", "))
		}
		s.Names = slices.DeleteFunc(s.GetNames(), func(name string) bool { return name == n })
	}
	s.Names = append(s.GetNames(), e.addNames...)
	if crt.Labels, err = e.relabel(crt.GetLabels()); err != nil {
		return nil, err
	}
	for _, field := range []struct {
		path  string
		flags []string
		set   func()
	}{
		{"display_name", []string{"display-name"}, func() { crt.DisplayName = e.displayName }},
		{"owner", []string{"owner"}, func() { crt.Owner = e.owner }},
		{"labels", []string{"label", "remove-label"}, func() {}},
		{"spec.names", []string{"add-name", "remove-name"}, func() {}},
		{"spec.issuer", []string{"issuer"}, func() { s.Issuer = e.issuer }},
		{"spec.key_algorithm", []string{"key-algorithm"}, func() { s.KeyAlgorithm = e.algorithm }},
		{"spec.profile", []string{"profile"}, func() { s.Profile = e.profile }},
		{"spec.challenge", []string{"challenge"}, func() { s.Challenge.Type = e.challenge }},
		{"spec.challenge", []string{"manual"}, func() { s.Challenge.Manual = e.manual }},
	} {
		if slices.ContainsFunc(field.flags, given) {
			field.set()
			mask = append(mask, field.path)
		}
	}
	if len(mask) == 0 {
		return nil, usage("nothing is to be changed; give at least one of --add-name, --remove-name, --owner, --display-name, --label, --remove-label, --issuer, --key-algorithm, --profile, --challenge and --manual")
	}
	return slices.Compact(mask), nil
}

func (e edit) relabel(labels []string) ([]string, error) {
	drop := func(key string) bool {
		n := len(labels)
		labels = slices.DeleteFunc(labels, func(l string) bool { return strings.HasPrefix(l, key+"=") })
		return len(labels) < n
	}
	for _, key := range e.removeLabels {
		if !drop(key) {
			return nil, usage("--remove-label is %q; the certificate's labels are %s", key, fmt.Sprint(labels))
		}
	}
	for _, l := range e.labels {
		key, _, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, usage("--label is %q; allowed is key=value", l)
		}
		drop(key)
		labels = append(labels, l)
	}
	return labels, nil
}

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
)

func renewalList() listing[*renewalsv1.ListRenewalsResponse, *renewalsv1.Renewal] {
	type r = *renewalsv1.Renewal
	return listing[*renewalsv1.ListRenewalsResponse, r]{
		path: "/v1/renewals", items: (*renewalsv1.ListRenewalsResponse).GetRenewals,
		columns: []column[r]{
			{"CERTIFICATE", r.GetCertificateId},
			{"NAMES", func(r r) string { return short(r.GetNames()) }},
			{"STATE", r.GetState},
			{"DUE", func(r r) string { return stamp(r.GetDueAt()) }},
			{"BASIS", r.GetBasis},
			{"VALID UNTIL", func(r r) string { return stamp(r.GetNotAfter()) }},
			{"FAILURES", func(r r) string { return number(r.GetFailures()) }},
			{"OWNER", r.GetOwner},
		},
	}
}

func (a *app) renewals() *cobra.Command {
	k := a.certificateKind()
	k.path = "/v1/renewals/"
	return group("renewals", "Look at what is renewed when, and why",
		renewalList().command(
			a, "List renewal plans",
			filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"waiting", "ordered", "held"}},
			filter{flag: "owner", field: "owner", usage: "only those of this `owner`"},
			filter{flag: "due-before", field: "due_before", usage: "only those due before this `moment` (2027-01-31), or within this time (7d)", kind: moment},
		),
		about(a, k, "get CERTIFICATE", "Show when and why a certificate is renewed", "", nil, func(r *renewalsv1.Renewal) error {
			return a.showPairs(r, renewalPairs(r))
		}),
		about(a, k, "explain CERTIFICATE", "Say what will be done when and why, rule by rule", ":explain", nil, a.showExplanation),
	)
}

func (a *app) showExplanation(e *renewalsv1.ExplainRenewalResponse) error {
	return a.show(e, func(w io.Writer) error {
		if err := writePairs(w, renewalPairs(e.GetRenewal())); err != nil {
			return err
		}
		fmt.Fprintln(w, "\nrules (* decides):")
		for _, f := range e.GetFindings() {
			mark := " "
			if f.GetDecisive() {
				mark = "*"
			}
			fmt.Fprintf(w, "%s %s: %s\n", mark, printable(f.GetReason()), printable(f.GetSentence()))
		}
		return nil
	})
}

func renewalPairs(r *renewalsv1.Renewal) []pair {
	window := ""
	if r.GetWindowStart() != nil {
		window = stamp(r.GetWindowStart()) + " to " + stamp(r.GetWindowEnd())
	}
	return []pair{
		{"certificate", r.GetCertificateId()},
		{"names", list(r.GetNames())},
		{"state", r.GetState()},
		{"due", stamp(r.GetDueAt())},
		{"basis", r.GetBasis()},
		{"explanation", r.GetExplanation()},
		{"version", r.GetVersionId()},
		{"valid until", stamp(r.GetNotAfter())},
		{"the CA's window", window},
		{"the CA is asked", stamp(r.GetAriCheckAt())},
		{"order", r.GetOrderId()},
		{"failures", number(r.GetFailures())},
		{"owner", r.GetOwner()},
		{"team", r.GetTeam()},
	}
}

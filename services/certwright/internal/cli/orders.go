package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/shared/errs"
)

func orderList() listing[*ordersv1.ListOrdersResponse, *ordersv1.Order] {
	type o = *ordersv1.Order
	return listing[*ordersv1.ListOrdersResponse, o]{
		path: "/v1/orders", items: (*ordersv1.ListOrdersResponse).GetOrders,
		columns: []column[o]{
			{"ID", o.GetId},
			{"NAMES", func(o o) string { return short(o.GetSpec().GetNames()) }},
			{"STATE", o.GetState},
			{"CAUSE", o.GetCause},
			{"CERTIFICATE", o.GetCertificateId},
			{"CREATED", func(o o) string { return stamp(o.GetCreateTime()) }},
			{"HELD UP BY", func(o o) string { return reasonOf(o) }},
		},
	}
}

func reasonOf(o *ordersv1.Order) string {
	if o.GetProblem() != nil {
		return o.GetProblem().GetReason()
	}
	return o.GetBlocked().GetReason()
}

func (a *app) orders() *cobra.Command {
	l := orderList()
	var wait bool
	var timeout time.Duration
	retry := a.verb("retry ID", "Try an open order now, or ask for a new one when it has ended", 1, func(ctx context.Context, c *client, args []string) error {
		answer := &ordersv1.RetryOrderResponse{}
		if err := c.call(ctx, http.MethodPost, path("/v1/orders/", args[0], ":retry"), nil, &ordersv1.RetryOrderRequest{}, answer); err != nil {
			return err
		}
		if wait && answer.GetOrderId() != "" {
			o, err := readOrder(ctx, c, args[0])
			if err != nil {
				return err
			}
			return a.waitAndShow(ctx, c, timeout, goal{certificate: o.GetCertificateId(), order: answer.GetOrderId()})
		}
		return a.showPairs(answer, []pair{{"order", answer.GetOrderId()}, {"new order", yes(answer.GetNewOrder())}, {"explanation", answer.GetExplanation()}})
	})
	waitFlags(retry, &wait, &timeout)
	k := nameless(a, l, func(o *ordersv1.Order) string {
		return o.GetId() + "\t" + short(o.GetSpec().GetNames()) + " " + o.GetState()
	})
	retry.ValidArgsFunction = k.complete
	return group("orders", "Look at orders, retry and cancel them",
		l.command(
			a, "List orders",
			filter{flag: "certificate", field: "certificate", usage: "only those of the certificate with this `id`"},
			filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"queued", "authorizing", "finalizing", "issued", "failed", "rejected", "cancelled"}},
			filter{flag: "issuer", field: "issuer", usage: "only those at the issuer with this `id`"},
			filter{flag: "owner", field: "owner", usage: "only those of this `owner`"},
			filter{flag: "open", field: "open", usage: "only those that have not ended", kind: truth},
		),
		about(a, k, "get ID", "Show an order with its attempts and authorizations", "", nil, a.showOrder),
		retry,
		about(a, k, "cancel ID", "Cancel an order that is not yet finalizing", ":cancel", &ordersv1.CancelOrderRequest{}, a.showOrder),
	)
}

func readOrder(ctx context.Context, c *client, id string) (*ordersv1.Order, error) {
	o := &ordersv1.Order{}
	return o, c.call(ctx, http.MethodGet, path("/v1/orders/", id), nil, nil, o)
}

func (a *app) showOrder(o *ordersv1.Order) error {
	pairs := []pair{
		{"id", o.GetId()},
		{"certificate", o.GetCertificateId()},
		{"names", list(o.GetSpec().GetNames())},
		{"state", o.GetState()},
		{"cause", o.GetCause()},
		{"owner", o.GetOwner()},
		{"team", o.GetTeam()},
		{"blocked", why(o.GetBlocked())},
		{"problem", why(o.GetProblem())},
		{"next try", stamp(o.GetNextTime())},
		{"gives up", stamp(o.GetGiveUpTime())},
		{"version", o.GetVersionId()},
	}
	for _, at := range o.GetAttempts() {
		pairs = append(pairs, pair{fmt.Sprintf("attempt %d", at.GetNumber()), strings.TrimSpace(at.GetState() + " " + at.GetUrl() + " " + why(at.GetProblem()))})
		for _, z := range at.GetAuthorizations() {
			pairs = append(pairs, pair{"  authorization", strings.TrimSpace(nameOf(z) + " " + z.GetState() + " " + z.GetChallengeId() + " " + why(z.GetProblem()))})
		}
	}
	for _, r := range o.GetActionsRequired() {
		pairs = append(pairs, pair{"action required", action(r)})
	}
	return a.showPairs(o, append(pairs, pair{"created", stamp(o.GetCreateTime())}, pair{"updated", stamp(o.GetUpdateTime())}))
}

func nameOf(z *ordersv1.Authorization) string {
	if z.GetWildcard() && !strings.HasPrefix(z.GetIdentifier(), "*.") {
		return "*." + z.GetIdentifier()
	}
	return z.GetIdentifier()
}

// action says what a person has to place, and what to run then.
func action(r *ordersv1.ActionRequired) string {
	what := "place a file at " + r.GetLocation() + " with the content " + r.GetValue()
	if r.GetType() == "dns-01" {
		what = "place TXT " + r.GetLocation() + " = " + r.GetValue()
	}
	return what + ", then: certwright challenges verify " + r.GetChallengeId()
}

func challengeList() listing[*challengesv1.ListChallengesResponse, *challengesv1.Challenge] {
	type h = *challengesv1.Challenge
	return listing[*challengesv1.ListChallengesResponse, h]{
		path: "/v1/challenges", items: (*challengesv1.ListChallengesResponse).GetChallenges,
		columns: []column[h]{
			{"ID", h.GetId},
			{"IDENTIFIER", h.GetIdentifier},
			{"TYPE", h.GetType},
			{"SOLVER", h.GetSolver},
			{"STATE", func(h h) string { return strings.TrimSpace(h.GetState() + " " + h.GetOutcome()) }},
			{"ACTION REQUIRED", func(h h) string { return yes(h.GetActionRequired()) }},
			{"ORDER", h.GetOrderId},
		},
	}
}

func (a *app) challenges() *cobra.Command {
	l := challengeList()
	k := nameless(a, l, func(h *challengesv1.Challenge) string {
		return h.GetId() + "\t" + h.GetIdentifier() + " " + h.GetState()
	})
	return group("challenges", "Look at challenges, verify those placed by hand",
		l.command(
			a, "List challenges",
			filter{flag: "order", field: "order", usage: "only those of the order with this `id`"},
			filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"pending", "presenting", "presented", "cleaning", "cleaned"}},
			filter{flag: "identifier", field: "identifier", usage: "only those for this `name`"},
			filter{flag: "action-required", field: "action_required", usage: "only those that wait for a person", kind: truth},
		),
		about(a, k, "get ID", "Show a challenge, and what to place where", "", nil, a.showChallenge),
		about(a, k, "verify ID", "Check now whether the answer that you placed is visible", ":verify", &challengesv1.VerifyChallengeRequest{}, a.showChallenge),
	)
}

func (a *app) showChallenge(h *challengesv1.Challenge) error {
	return a.showPairs(h, []pair{
		{"id", h.GetId()},
		{"identifier", h.GetIdentifier()},
		{"type", h.GetType()},
		{"solver", h.GetSolver()},
		{"state", strings.TrimSpace(h.GetState() + " " + h.GetOutcome())},
		{"action required", yes(h.GetActionRequired())},
		{"place at", h.GetLocation()},
		{"value", h.GetValue()},
		{"how", h.GetInstructions()},
		{"last look", why(h.GetProblem())},
		{"found", strings.Join(h.GetFound(), "; ")},
		{"route", h.GetRouteId()},
		{"why so", h.GetExplanation()},
		{"order", h.GetOrderId()},
		{"certificate", h.GetCertificateId()},
		{"expires", stamp(h.GetExpireTime())},
	})
}

func issuerList() listing[*ordersv1.ListIssuersResponse, *ordersv1.Issuer] {
	type i = *ordersv1.Issuer
	return listing[*ordersv1.ListIssuersResponse, i]{
		path: "/v1/issuers", items: (*ordersv1.ListIssuersResponse).GetIssuers,
		columns: []column[i]{
			{"ID", i.GetId},
			{"NAME", i.GetDisplayName},
			{"KIND", i.GetKind},
			{"DIRECTORY", func(i i) string { return i.GetAcme().GetDirectoryUrl() }},
			{"TEAM", i.GetTeam},
			{"ACCOUNT", i.GetAccountId},
			{"DISABLED", func(i i) string { return yes(i.GetDisabled()) }},
		},
	}
}

// chooseIssuer returns the id of the issuer named, or of the only one.
func (a *app) chooseIssuer(ctx context.Context, c *client, given string) (string, error) {
	if strings.HasPrefix(given, "iss_") {
		return given, nil
	}
	if given != "" {
		i := &ordersv1.Issuer{}
		err := c.call(ctx, http.MethodGet, path("/v1/issuers/", given), nil, nil, i)
		return i.GetId(), err
	}
	l := issuerList()
	all, err := l.fetch(ctx, c, "", 0)
	if err != nil {
		return "", err
	}
	var usable []*ordersv1.Issuer
	var names []string
	for _, i := range l.items(all) {
		if !i.GetDisabled() {
			usable, names = append(usable, i), append(names, i.GetDisplayName())
		}
	}
	switch len(usable) {
	case 0:
		return "", errs.New(errs.Precondition, "NO_ISSUER", "there is no issuer yet; make one with certwright issuers create")
	case 1:
		fmt.Fprintf(a.Err, "issuer: %s\n", printable(names[0]))
		return usable[0].GetId(), nil
	}
	return "", usage("there are several issuers: %s; choose with --issuer", list(names))
}

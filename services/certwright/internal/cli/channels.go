package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
)

func channelList() listing[*notificationsv1.ListChannelsResponse, *notificationsv1.Channel] {
	type h = *notificationsv1.Channel
	return listing[*notificationsv1.ListChannelsResponse, h]{
		path: "/v1/channels", items: (*notificationsv1.ListChannelsResponse).GetChannels,
		columns: []column[h]{
			{"ID", h.GetId},
			{"NAME", h.GetDisplayName},
			{"KIND", h.GetKind},
			{"TO", func(h h) string { return whereTo(h) }},
			{"TEAM", h.GetTeam},
			{"DISABLED", func(h h) string { return yes(h.GetDisabled()) }},
		},
	}
}

func whereTo(h *notificationsv1.Channel) string {
	if h.GetWebhook() != nil {
		return h.GetWebhook().GetUrl()
	}
	to := h.GetSmtp().GetTo()
	if h.GetSmtp().GetToOwner() {
		to = append(append([]string(nil), to...), "the certificate's owner")
	}
	return list(to)
}

func (a *app) channels() *cobra.Command {
	k := kindOf(a, channelList(), "chn_")
	return group("channels", "Manage who is told of what happens", a.createChannel(), channelList().command(a, "List channels"),
		about(a, k, "test ID|NAME", "Send a test message over a channel", ":test", &notificationsv1.TestChannelRequest{}, func(r *notificationsv1.TestChannelResponse) error {
			return a.tested(r, nil, "sent", "the test message was not delivered")
		}),
		a.deleting(k, "delete ID|NAME", "Delete a channel", "channel", &notificationsv1.DeleteChannelResponse{}, nil),
	)
}

func (a *app) createChannel() *cobra.Command {
	smtp, hook := &notificationsv1.SMTP{}, &notificationsv1.Webhook{}
	h := &notificationsv1.Channel{}
	var password, hookSecret, roots, keep string
	cmd := a.verb("create NAME", "Add a channel: mail (--smtp-server) or a webhook (--webhook-url)", 1, func(ctx context.Context, c *client, args []string) error {
		pem, err := textFile(roots)
		if err != nil {
			return err
		}
		switch {
		case (smtp.GetServer() == "") == (hook.GetUrl() == ""):
			return usage("give either --smtp-server or --webhook-url")
		case smtp.GetServer() != "":
			h.Kind, h.Smtp, smtp.TrustRootsPem = "smtp", smtp, pem
			smtp.Password, err = a.secretFile(password)
		default:
			h.Kind, h.Webhook, hook.TrustRootsPem = "webhook", hook, pem
			hook.Secret, err = a.secretFile(hookSecret)
		}
		if err != nil {
			return err
		}
		h.DisplayName = args[0]
		made := &notificationsv1.Channel{}
		if err := c.call(ctx, http.MethodPost, "/v1/channels", nil, &notificationsv1.CreateChannelRequest{RequestId: a.requestID(), Channel: h}, made); err != nil {
			return err
		}
		shown := ""
		if hookSecret != "" && made.GetWebhook() != nil { // the user has it already
			made.Webhook.Secret = ""
		}
		if s := made.GetWebhook().GetSecret(); s != "" {
			if keep != "" {
				if err := keepSecret(keep, s); err != nil {
					return err
				}
				made.Webhook.Secret = ""
				fmt.Fprintf(a.Err, "the secret that messages are signed with is in %s\n", printable(keep))
			} else {
				shown = s
				fmt.Fprintln(a.Err, "the secret that messages are signed with is shown only now")
			}
		}
		return a.showPairs(made, []pair{
			{"id", made.GetId()},
			{"name", made.GetDisplayName()},
			{"team", made.GetTeam()},
			{"kind", made.GetKind()},
			{"to", whereTo(made)},
			{"server", made.GetSmtp().GetServer()},
			{"events", list(made.GetEvents())},
			{"secret", shown},
		})
	})
	f := cmd.Flags()
	f.StringVar(&smtp.Server, "smtp-server", "", "mail server, `host:port`")
	f.StringVar(&smtp.Security, "smtp-security", "", "`how` the mail server is spoken to: none, starttls or tls (default starttls)")
	f.StringVar(&smtp.Username, "smtp-username", "", "`user` at the mail server")
	f.StringVar(&password, "smtp-password-file", "", "`file` that holds the password, - for standard input")
	f.StringVar(&smtp.From, "from", "", "`address` that mail comes from")
	f.StringArrayVar(&smtp.To, "to", nil, "`address` that mail goes to; may be repeated")
	f.BoolVar(&smtp.ToOwner, "to-owner", false, "also to the certificate's owner when that is a mail address")
	f.StringVar(&hook.Url, "webhook-url", "", "`URL` that events are posted to")
	f.StringVar(&hookSecret, "webhook-secret-file", "", "`file` that holds the secret (whsec_…) to sign with, - for standard input; default: a new one, shown once")
	f.StringVar(&keep, "secret-out", "", "new `file` (0600) for a new webhook secret, instead of showing it")
	f.StringVar(&roots, "trust-roots", "", "PEM `file` of the roots that the server is verified with; default: the system's")
	f.StringArrayVar(&h.Events, "event", nil, "`type` of events to tell, such as certificate.issued; may be repeated; default: what people should know")
	f.StringVar(&h.Team, "team", "", "`team` that it belongs to; default: the token's")
	complete(cmd, "smtp-security", "none", "starttls", "tls")
	return cmd
}

func (a *app) deliveries() *cobra.Command {
	type d = *notificationsv1.Delivery
	l := listing[*notificationsv1.ListDeliveriesResponse, d]{
		path: "/v1/deliveries", items: (*notificationsv1.ListDeliveriesResponse).GetDeliveries,
		columns: []column[d]{
			{"ID", d.GetId},
			{"CHANNEL", d.GetChannelId},
			{"EVENT", d.GetEventType},
			{"SUBJECT", d.GetSubject},
			{"STATE", d.GetState},
			{"ATTEMPTS", func(d d) string { return number(d.GetAttempts()) }},
			{"CREATED", func(d d) string { return stamp(d.GetCreateTime()) }},
			{"PROBLEM", func(d d) string { return why(d.GetProblem()) }},
		},
	}
	return group("deliveries", "Look at what was told over which channel", l.command(
		a, "List deliveries",
		filter{flag: "channel", field: "channel", usage: "only those over the channel with this `id`"},
		filter{flag: "state", field: "state", usage: "only those in this `state`", values: []string{"queued", "delivered", "failed"}},
		filter{flag: "event-type", field: "event_type", usage: "only those of events of this `type`"},
	))
}

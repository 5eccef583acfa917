// Package grpc answers the calls of NotificationsService. It decodes, checks the team, calls, and encodes; it has no rules.
package grpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/authz"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/rpc"
	"github.com/certwright/certwright/shared/secret"
)

// Server implements notificationsv1.NotificationsServiceServer.
type Server struct {
	notificationsv1.UnimplementedNotificationsServiceServer
	App *app.App
}

// CreateChannel implements notificationsv1.NotificationsServiceServer. A channel goes to the caller's team, or to the one it names if the caller may; "*",
// for who sees all teams, tells every team's events.
func (s *Server) CreateChannel(ctx context.Context, req *notificationsv1.CreateChannelRequest) (*notificationsv1.Channel, error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	in := req.GetChannel()
	if in == nil {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "the channel is missing").WithField("channel", "is required")
	}
	team := in.GetTeam()
	if team == "" {
		team = authz.TeamOf(p)
	}
	if !authz.InTeam(p, team) {
		return nil, errs.New(errs.Forbidden, authz.ReasonDenied, "%s may not make channels for the team %q; leave channel.team out for %q", p.Subject, team, authz.TeamOf(p))
	}
	given := secret.New(in.GetSmtp().GetPassword())
	if in.GetWebhook() != nil {
		given = secret.New(in.GetWebhook().GetSecret())
	}
	channel, wrong := domain.NewChannel(fromProto(in), in.GetSmtp() != nil, in.GetWebhook() != nil, in.GetSmtp().GetPassword() != "")
	if wrong = append(wrong, app.CheckSecret(channel.Kind, given)...); len(wrong) > 0 {
		e := errs.New(errs.Invalid, "INVALID_ARGUMENT", "the channel is not valid")
		e.Fields = wrong
		return nil, e
	}
	id, err := s.App.Requests.ID(ctx, p.Subject, "CreateChannel", req.GetRequestId(), "chn", withoutSecrets(req))
	if err != nil {
		return nil, err
	}
	doc, made, err := s.App.CreateChannel(ctx, id, team, channel, given)
	if err != nil {
		return nil, err
	}
	out := toChannel(doc)
	if !made.IsZero() {
		out.Webhook.Secret = made.Reveal()
	}
	return out, nil
}

// withoutSecrets is what a repeat of a request is known by: a hash of a password would let the store's reader guess it.
func withoutSecrets(req *notificationsv1.CreateChannelRequest) proto.Message {
	body, _ := proto.Clone(req).(*notificationsv1.CreateChannelRequest)
	body.RequestId = ""
	mask := func(s *string) {
		if *s != "" {
			*s = secret.Placeholder
		}
	}
	if m := body.GetChannel().GetSmtp(); m != nil {
		mask(&m.Password)
	}
	if w := body.GetChannel().GetWebhook(); w != nil {
		mask(&w.Secret)
	}
	return body
}

// ListChannels implements notificationsv1.NotificationsServiceServer.
func (s *Server) ListChannels(ctx context.Context, req *notificationsv1.ListChannelsRequest) (*notificationsv1.ListChannelsResponse, error) {
	team, size, err := scope(ctx, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	page, err := s.App.ListChannels(ctx, team, size, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &notificationsv1.ListChannelsResponse{Channels: listing.Rows(page.Docs, toChannel), NextPageToken: page.Next}, nil
}

// DeleteChannel implements notificationsv1.NotificationsServiceServer.
func (s *Server) DeleteChannel(ctx context.Context, req *notificationsv1.DeleteChannelRequest) (*notificationsv1.DeleteChannelResponse, error) {
	if err := s.mine(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &notificationsv1.DeleteChannelResponse{}, s.App.DeleteChannel(ctx, req.GetId())
}

// TestChannel implements notificationsv1.NotificationsServiceServer.
func (s *Server) TestChannel(ctx context.Context, req *notificationsv1.TestChannelRequest) (*notificationsv1.TestChannelResponse, error) {
	if err := s.mine(ctx, req.GetId()); err != nil {
		return nil, err
	}
	found, err := s.App.TestChannel(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &notificationsv1.TestChannelResponse{Ok: found.IsZero(), Problem: toProblem(found)}, nil
}

// ListDeliveries implements notificationsv1.NotificationsServiceServer. The newest come first.
func (s *Server) ListDeliveries(ctx context.Context, req *notificationsv1.ListDeliveriesRequest) (*notificationsv1.ListDeliveriesResponse, error) {
	team, size, err := scope(ctx, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	filter, err := listing.Filter(req.GetFilter(), "channel", "state", "event_type")
	if err != nil {
		return nil, err
	}
	for field, allowed := range map[string][]string{"state": domain.States(), "event_type": domain.EventTypes()} {
		if v, ok := filter[field]; ok && !slices.Contains(allowed, v) {
			return nil, errs.New(errs.Invalid, "BAD_FILTER", "the filter asks for the %s %q; allowed are %s", field, v, strings.Join(allowed, ", "))
		}
	}
	page, err := s.App.ListDeliveries(ctx, team, filter, size, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &notificationsv1.ListDeliveriesResponse{Deliveries: listing.Rows(page.Docs, toDelivery), NextPageToken: page.Next}, nil
}

// mine is NotFound unless the channel exists and the caller's team may see it.
func (s *Server) mine(ctx context.Context, id string) error {
	doc, err := s.App.Channel(ctx, id)
	if err != nil {
		return err
	}
	return authz.RequireTeam(ctx, doc.Team, "channel "+id)
}

// scope returns the team to list, empty for all, and the page size.
func scope(ctx context.Context, pageSize int32) (team string, size int, err error) {
	p, err := authz.Require(ctx)
	if err != nil {
		return "", 0, err
	}
	size, err = listing.Size(pageSize)
	return authz.Scope(p), size, err
}

func fromProto(in *notificationsv1.Channel) domain.Channel {
	m, w := in.GetSmtp(), in.GetWebhook()
	return domain.Channel{
		DisplayName: in.GetDisplayName(), Kind: in.GetKind(), Events: in.GetEvents(), Disabled: in.GetDisabled(),
		SMTP: domain.SMTP{
			Server: m.GetServer(), Security: m.GetSecurity(), Username: m.GetUsername(), From: m.GetFrom(), To: m.GetTo(), ToOwner: m.GetToOwner(),
			RootsPEM: m.GetTrustRootsPem(),
		},
		Webhook: domain.Webhook{URL: w.GetUrl(), RootsPEM: w.GetTrustRootsPem()},
	}
}

func toChannel(d app.ChannelDoc) *notificationsv1.Channel {
	c := d.Body.Channel
	out := &notificationsv1.Channel{
		Id: d.ID, DisplayName: c.DisplayName, Team: d.Team, Kind: c.Kind, Events: c.Events, Disabled: c.Disabled, CreateTime: timestamppb.New(d.CreatedAt),
	}
	if c.Kind == domain.KindWebhook {
		out.Webhook = &notificationsv1.Webhook{Url: c.Webhook.URL, TrustRootsPem: c.Webhook.RootsPEM}
		return out
	}
	out.Smtp = &notificationsv1.SMTP{
		Server: c.SMTP.Server, Security: c.SMTP.Security, Username: c.SMTP.Username, From: c.SMTP.From, To: c.SMTP.To, ToOwner: c.SMTP.ToOwner,
		TrustRootsPem: c.SMTP.RootsPEM,
	}
	return out
}

func toDelivery(d app.DeliveryDoc) *notificationsv1.Delivery {
	b := d.Body
	return &notificationsv1.Delivery{
		Id: d.ID, ChannelId: b.ChannelID, EventId: b.EventID, EventType: b.EventType, Subject: b.EventSubject, State: b.State, Attempts: int64(b.Attempts),
		Problem: toProblem(b.Problem), CreateTime: timestamppb.New(d.CreatedAt), Team: d.Team, Receiver: b.Receiver,
		NextTime: rpc.Stamp(b.NextAt),
	}
}

func toProblem(p domain.Problem) *typesv1.Problem {
	if p.IsZero() {
		return nil
	}
	return &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Retrying: p.Retrying}
}

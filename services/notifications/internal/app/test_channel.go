package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/services/notifications/internal/text"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

// TypeTest is the event type of test messages. Nobody tells it on the bus.
const TypeTest = "channel.test"

// TestChannel sends a test message, also over a disabled channel, and stores what came of it. Mail goes to the fixed receivers, or to the sender when
// there are none. The problem is zero when the message was taken; an error means that the store failed.
func (a *App) TestChannel(ctx context.Context, channelID string) (domain.Problem, error) {
	doc, err := a.Channel(ctx, channelID)
	if err != nil {
		return domain.Problem{}, err
	}
	found := a.try(ctx, doc)
	now := a.Clock.Now()
	_, err = a.Channels.Change(ctx, channelID, func(doc *ChannelDoc) ([]outbox.Fact, error) {
		doc.Body.TestedAt, doc.Body.TestProblem = now, found
		return nil, nil
	})
	return found, err
}

func (a *App) try(ctx context.Context, doc ChannelDoc) domain.Problem {
	now := a.Clock.Now()
	to := Target{Channel: doc.Body.Channel, Receivers: doc.Body.Receivers("")}
	if len(to.Receivers) == 0 {
		from, _ := domain.Address(doc.Body.SMTP.From)
		to.Receivers = []string{from}
	}
	var err error
	if to.Secret, err = a.open(ctx, doc); err != nil {
		return problemOf(err)
	}
	words := text.Test(doc.ID, doc.Body.DisplayName, now)
	testID := id.New("tst", now)
	body, err := json.Marshal(webhookBody{ID: testID, Type: TypeTest, Time: now.Format(time.RFC3339Nano), Subject: doc.ID, Team: doc.Team, Data: json.RawMessage("{}")})
	if err != nil {
		return problemOf(err)
	}
	if err := a.send(ctx, to, Message{
		ID: testID, EventID: testID, EventType: TypeTest, At: now, Subject: words.Subject, Text: words.Text, HTML: words.HTML, JSON: body,
	}); err != nil {
		p := problemOf(err)
		p.Retrying = false
		return p
	}
	return domain.Problem{}
}

// problemOf is the problem that an error means.
func problemOf(err error) domain.Problem {
	e := errs.As(err)
	if e == nil {
		return domain.Problem{Reason: "INTERNAL", Detail: "the message could not be sent for an unexpected reason; the log of the notifications service says more", Retrying: true}
	}
	return domain.Problem{Reason: errs.ReasonOf(err), Detail: e.Msg, Retrying: errs.Transient(err)}
}

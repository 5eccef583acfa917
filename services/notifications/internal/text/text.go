// Package text writes what people read: of each event a subject, plain text and simple HTML, which say what happened, to which certificate, who answers
// for it, and what to do next. It must never write anything that is not in the event, and no event holds a secret.
package text

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/api/events"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/errs"
)

// Limits in characters.
const (
	maxSubject = 150
	maxValue   = 2000
)

// Event is what is told.
type Event struct {
	ID   string
	Type string
	Time time.Time
	Data []byte // protobuf JSON
}

// Message is an event in words.
type Message struct {
	Subject string
	Text    string // lines end with \n
	HTML    string
}

// Decode reads an event's data. Invalid EVENT_UNREADABLE when no contract knows the type, or the data is not of it.
func Decode(eventType string, data []byte) (proto.Message, error) {
	m, ok := events.New(eventType)
	if !ok {
		return nil, errs.New(errs.Invalid, domain.ReasonEventUnreadable, "no contract knows the event type %q", eventType)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return nil, errs.New(errs.Invalid, domain.ReasonEventUnreadable, "the data of a %s cannot be read: %w", eventType, err)
	}
	return m, nil
}

// Owner is who answers for the certificate that an event is about, empty when the event does not say.
func Owner(m proto.Message) string {
	switch m := m.(type) {
	case interface{ GetOwner() string }:
		return m.GetOwner()
	case deploymentEvent:
		return m.GetSubject().GetOwner()
	}
	return ""
}

// Write puts an event into words. Invalid EVENT_UNREADABLE when it cannot be read, or people are not told of its type.
func Write(e Event) (Message, error) {
	m, err := Decode(e.Type, e.Data)
	if err != nil {
		return Message{}, err
	}
	w, ok := compose(m)
	if !ok {
		return Message{}, errs.New(errs.Invalid, domain.ReasonEventUnreadable, "there are no words for the event type %q", e.Type)
	}
	w.foot = fmt.Sprintf("Event %s (%s) of %s.", e.Type, e.ID, moment(e.Time))
	return w.message(), nil
}

// Test is the message that tries a channel.
func Test(channelID, displayName string, now time.Time) Message {
	return words{
		what: "test of the channel " + displayName,
		lead: "This is a test. Messages of this channel arrive here; nothing happened to any certificate.",
		facts: []fact{
			{"Channel", channelID},
			{"Name", displayName},
		},
		foot: "Sent at " + moment(now) + ".",
	}.message()
}

// words is a message before it has a form.
type words struct {
	what     string // the subject, without the product's name
	lead     string // what happened
	facts    []fact
	todo     string   // what to do
	commands []string // to run
	foot     string
}

type fact struct{ Label, Value string }

func (w words) message() Message {
	facts := make([]fact, 0, len(w.facts))
	for _, f := range w.facts {
		if f.Value = domain.OneLine(f.Value, maxValue); f.Value != "" {
			facts = append(facts, f)
		}
	}
	w.facts = facts
	w.what, w.lead, w.foot = domain.OneLine(w.what, maxSubject), domain.OneLine(w.lead, maxValue), domain.OneLine(w.foot, maxValue)
	return Message{Subject: "[certwright] " + w.what, Text: w.plain(), HTML: w.html()}
}

func (w words) plain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", w.lead)
	for _, f := range w.facts {
		fmt.Fprintf(&b, "%-14s %s\n", f.Label+":", f.Value)
	}
	if w.todo != "" {
		fmt.Fprintf(&b, "\n%s\n", w.todo)
	}
	for _, c := range w.commands {
		fmt.Fprintf(&b, "\n    %s\n", c)
	}
	fmt.Fprintf(&b, "\n-- \n%s\n", w.foot)
	return b.String()
}

var page = template.Must(template.New("mail").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.What}}</title></head>
<body style="font-family:sans-serif;line-height:1.4">
<h2 style="font-size:1.2em">{{.What}}</h2>
<p>{{.Lead}}</p>
<table>
{{- range .Facts}}
<tr><th style="text-align:left;vertical-align:top;padding-right:1em">{{.Label}}</th><td>{{.Value}}</td></tr>
{{- end}}
</table>
{{- if .Todo}}
<p>{{.Todo}}</p>
{{- end}}
{{- range .Commands}}
<pre>{{.}}</pre>
{{- end}}
<p style="color:#666">{{.Foot}}</p>
</body></html>
`))

func (w words) html() string {
	var b strings.Builder
	// Writing to memory does not fail, and the fields are there: the golden tests write every message.
	_ = page.Execute(&b, struct {
		What, Lead, Todo, Foot string
		Facts                  []fact
		Commands               []string
	}{w.what, w.lead, w.todo, w.foot, w.facts, w.commands})
	return b.String()
}

func moment(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

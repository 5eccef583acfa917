package main

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

const eventsIntro = `# Events

<!-- Generated from api/certwright/events by "make gen". Do not edit. -->

A fact that one service tells and everybody may hear. Each is published on the stream ` + "`EVENTS`" + ` under the subject
` + "`certwright.events.<type>.<aggregate id>`" + `, as a CloudEvent in binary mode: the attributes are NATS headers, the data is the protobuf JSON of the
message named below. Readers ignore fields that they do not know; inside a major version fields are only added.

| header | meaning |
|---|---|
| ` + "`ce-id`" + ` | id of the event; the same when it is told again with the same words |
| ` + "`ce-type`" + ` | type of the event, the headings of this page |
| ` + "`ce-source`" + ` | the service that tells it |
| ` + "`ce-subject`" + ` | id of the aggregate that it is about |
| ` + "`ce-time`" + ` | when it happened (RFC 3339, UTC) |
| ` + "`ce-revision`" + ` | revision of the aggregate that caused it |
| ` + "`ce-correlationid`" + ` | what the event belongs to, from the first cause on |
| ` + "`ce-causationid`" + ` | id of the event or request that caused it |
| ` + "`ce-team`" + ` | the team that owns the aggregate |
| ` + "`traceparent`" + ` | W3C trace context |

`

func eventsMarkdown(c *catalogue) []byte {
	var b bytes.Buffer
	b.WriteString(eventsIntro)
	b.WriteString("## All events\n\n| type | told by | acted on by | meaning |\n|---|---|---|---|\n")
	for _, ctx := range c.contexts {
		for _, e := range ctx.events {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s | %s |\n", e.typ, anchor(e.typ), e.toldBy, orDash(strings.Join(e.actedOnBy, ", ")), cell(meaning(e.message)))
		}
	}
	others := map[protoreflect.FullName]protoreflect.MessageDescriptor{}
	for _, ctx := range c.contexts {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", ctx.name, ctx.comment)
		for _, e := range ctx.events {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\nTold by %s", e.typ, comment(e.message), e.toldBy)
			if len(e.actedOnBy) > 0 {
				fmt.Fprintf(&b, "; acted on by %s", strings.Join(e.actedOnBy, ", "))
			}
			fmt.Fprintf(&b, ". Message `%s`.\n\n", e.message.FullName())
			fieldTable(&b, e.message)
			collect(e.message, others)
		}
	}
	if len(others) > 0 {
		b.WriteString("\n## Messages inside events\n")
		names := make([]string, 0, len(others))
		for n := range others {
			names = append(names, string(n))
		}
		sort.Strings(names)
		for _, n := range names {
			m := others[protoreflect.FullName(n)]
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", n, comment(m))
			fieldTable(&b, m)
		}
	}
	return b.Bytes()
}

func fieldTable(b *bytes.Buffer, m protoreflect.MessageDescriptor) {
	if m.Fields().Len() == 0 {
		b.WriteString("No fields.\n")
		return
	}
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.JSONName(), typeText(f), cell(comment(f)))
	}
}

// typeText names a field's type as it stands in JSON.
func typeText(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "map of " + scalarText(f.MapKey()) + " to " + scalarText(f.MapValue())
	}
	if f.IsList() {
		return "list of " + scalarText(f)
	}
	return scalarText(f)
}

func scalarText(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch f.Message().FullName() {
		case "google.protobuf.Timestamp":
			return "timestamp"
		case "google.protobuf.Duration":
			return "duration"
		}
		if wellKnown(f.Message()) {
			return string(f.Message().Name())
		}
		return fmt.Sprintf("[%s](#%s)", f.Message().Name(), anchor(string(f.Message().FullName())))
	case protoreflect.EnumKind:
		return string(f.Enum().Name())
	case protoreflect.BytesKind:
		return "bytes (base64)"
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return f.Kind().String() + " (string)"
	default:
		return f.Kind().String()
	}
}

// collect gathers the messages that m's fields hold, at any depth.
func collect(m protoreflect.MessageDescriptor, into map[protoreflect.FullName]protoreflect.MessageDescriptor) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.IsMap() {
			f = f.MapValue()
		}
		n := f.Message()
		if n == nil || wellKnown(n) || into[n.FullName()] != nil {
			continue
		}
		into[n.FullName()] = n
		collect(n, into)
	}
}

func wellKnown(m protoreflect.MessageDescriptor) bool {
	return m.ParentFile().Package() == "google.protobuf"
}

// meaning is the comment without the name that it begins with.
func meaning(m protoreflect.MessageDescriptor) string {
	s := strings.TrimSpace(strings.TrimPrefix(comment(m), string(m.Name())+":"))
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// anchor is the fragment that Markdown renderers give a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.ToLower(heading), ".", "")
}

func cell(s string) string {
	return orDash(strings.ReplaceAll(s, "|", "\\|"))
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

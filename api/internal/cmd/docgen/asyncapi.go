package main

import (
	"sort"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"
)

type object = map[string]any

// asyncAPI writes an AsyncAPI 3.0 document: one channel and one message an event, and who sends it.
func asyncAPI(c *catalogue) ([]byte, error) {
	channels, operations, messages, schemas := object{}, object{}, object{}, object{}
	for _, ctx := range c.contexts {
		for _, e := range ctx.events {
			addSchema(e.message, schemas)
			messages[e.typ] = object{
				"name":        e.typ,
				"title":       string(e.message.Name()),
				"summary":     comment(e.message),
				"contentType": "application/json",
				"headers":     object{"$ref": "#/components/schemas/CloudEventHeaders"},
				"payload":     object{"$ref": "#/components/schemas/" + string(e.message.FullName())},
				"x-told-by":   e.toldBy,
				"x-acted-on-by": func() []string {
					if e.actedOnBy == nil {
						return []string{}
					}
					return e.actedOnBy
				}(),
			}
			channels[e.typ] = object{
				"address":    "certwright.events." + e.typ + ".{aggregateId}",
				"parameters": object{"aggregateId": object{"description": "Id of the aggregate that the event is about."}},
				"messages":   object{e.typ: object{"$ref": "#/components/messages/" + e.typ}},
			}
			operations["tell."+e.typ] = object{
				"action":   "send",
				"channel":  object{"$ref": "#/channels/" + e.typ},
				"messages": []any{object{"$ref": "#/channels/" + e.typ + "/messages/" + e.typ}},
				"tags":     []any{object{"name": e.toldBy}},
			}
		}
	}
	schemas["CloudEventHeaders"] = cloudEventHeaders()
	doc := object{
		"asyncapi": "3.0.0",
		"info": object{
			"title":       "Certwright events",
			"version":     "v1",
			"description": "Facts on the JetStream stream EVENTS: CloudEvents 1.0 in binary mode over NATS headers, data as protobuf JSON.",
			"license":     object{"name": "Apache-2.0"},
		},
		"defaultContentType": "application/json",
		"channels":           channels,
		"operations":         operations,
		"components":         object{"messages": messages, "schemas": schemas},
	}
	raw, err := yaml.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return append([]byte("# Generated from api/certwright/events by \"make gen\". Do not edit.\n"), raw...), nil
}

func cloudEventHeaders() object {
	properties := object{}
	for name, text := range map[string]string{
		"ce-specversion":   "Version of CloudEvents, 1.0.",
		"ce-id":            "Id of the event.",
		"ce-type":          "Type of the event.",
		"ce-source":        "The service that tells it.",
		"ce-subject":       "Id of the aggregate that it is about.",
		"ce-time":          "When it happened (RFC 3339, UTC).",
		"ce-revision":      "Revision of the aggregate that caused it.",
		"ce-correlationid": "What the event belongs to, from the first cause on.",
		"ce-causationid":   "Id of the event or request that caused it.",
		"ce-team":          "The team that owns the aggregate.",
		"traceparent":      "W3C trace context.",
	} {
		properties[name] = object{"type": "string", "description": text}
	}
	return object{"type": "object", "properties": properties, "required": []string{"ce-id", "ce-source", "ce-type"}}
}

// addSchema writes m and what it holds as JSON Schema, as protobuf JSON shows it.
func addSchema(m protoreflect.MessageDescriptor, schemas object) {
	if wellKnown(m) || schemas[string(m.FullName())] != nil {
		return
	}
	properties := object{}
	schema := object{"type": "object", "properties": properties}
	if s := comment(m); s != "" {
		schema["description"] = s
	}
	schemas[string(m.FullName())] = schema
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		p := fieldSchema(f, schemas)
		if s := comment(f); s != "" {
			if p["$ref"] != nil {
				p = object{"allOf": []any{p}}
			}
			p["description"] = s
		}
		properties[f.JSONName()] = p
	}
}

func fieldSchema(f protoreflect.FieldDescriptor, schemas object) object {
	if f.IsMap() {
		return object{"type": "object", "additionalProperties": valueSchema(f.MapValue(), schemas)}
	}
	if f.IsList() {
		return object{"type": "array", "items": valueSchema(f, schemas)}
	}
	return valueSchema(f, schemas)
}

func valueSchema(f protoreflect.FieldDescriptor, schemas object) object {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.StringKind:
		return object{"type": "string"}
	case protoreflect.BytesKind:
		return object{"type": "string", "contentEncoding": "base64"}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return object{"type": "number"}
	case protoreflect.EnumKind:
		var values []string
		for i := range f.Enum().Values().Len() {
			values = append(values, string(f.Enum().Values().Get(i).Name()))
		}
		return object{"type": "string", "enum": values}
	case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return object{"type": "string", "format": f.Kind().String()}
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch name := f.Message().FullName(); {
		case name == "google.protobuf.Timestamp":
			return object{"type": "string", "format": "date-time"}
		case name == "google.protobuf.Duration":
			return object{"type": "string", "pattern": `^-?[0-9]+(\.[0-9]{1,9})?s$`}
		case wellKnown(f.Message()):
			return object{"description": string(name)}
		default:
			addSchema(f.Message(), schemas)
			return object{"$ref": "#/components/schemas/" + string(name)}
		}
	default:
		return object{"type": "integer", "format": strings.ToLower(f.Kind().String())}
	}
}

// sortedKeys answers m's keys in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

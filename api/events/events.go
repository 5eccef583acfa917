// Package events names every event of the platform: it makes the empty message of an event type and tells the type of a message.
// The types themselves are constants beside their messages (certificateeventsv1.TypeIssued). It must never know who tells or hears an event.
package events

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"
)

// Prefix is what every event's subject begins with: certwright.events.<type>.<aggregate id>.
const Prefix = "certwright.events."

// Options answers the event option of m, nil when m is no event.
func Options(m proto.Message) *optionsv1.EventOptions {
	o, ok := m.ProtoReflect().Descriptor().Options().(*descriptorpb.MessageOptions)
	if !ok || !proto.HasExtension(o, optionsv1.E_Event) {
		return nil
	}
	e, _ := proto.GetExtension(o, optionsv1.E_Event).(*optionsv1.EventOptions)
	return e
}

// TypeOf answers the event type of m ("certificate.issued"), empty when m is no event.
func TypeOf(m proto.Message) string {
	return Options(m).GetType()
}

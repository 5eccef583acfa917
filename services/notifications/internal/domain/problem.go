package domain

import (
	"strings"
	"unicode"
)

// The reasons that this service introduces; docs/errors.md lists each with cause and remedy.
const (
	ReasonMailUnreachable    = "MAIL_SERVER_UNREACHABLE"
	ReasonMailDeferred       = "MAIL_DEFERRED"
	ReasonMailRefused        = "MAIL_REFUSED"
	ReasonMailAuthRefused    = "MAIL_AUTH_REFUSED"
	ReasonWebhookUnreachable = "WEBHOOK_UNREACHABLE"
	ReasonWebhookFailed      = "WEBHOOK_FAILED"
	ReasonWebhookRefused     = "WEBHOOK_REFUSED"
	ReasonChannelGone        = "CHANNEL_GONE"
	ReasonChannelUnreadable  = "CHANNEL_SECRET_UNREADABLE"
	ReasonEventUnreadable    = "EVENT_UNREADABLE"
	ReasonDeliveryEnded      = "DELIVERY_ENDED"
)

// Problem is why a delivery does not go on, as users see it. The zero Problem is none.
type Problem struct {
	Reason   string `bson:"reason"`
	Detail   string `bson:"detail"`
	Retrying bool   `bson:"retrying"`
}

// IsZero reports whether there is no problem.
func (p Problem) IsZero() bool { return p.Reason == "" }

// OneLine makes foreign text fit to be shown: one line of at most limit characters, without control characters.
func OneLine(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

package bus

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Message is a pointer to a generated message M.
type Message[M any] interface {
	*M
	proto.Message
}

// Route takes the facts of one type.
type Route struct {
	eventType string
	take      func(ctx context.Context, e Event) error
}

// On takes the facts of M's type: f gets them decoded.
func On[M any, P Message[M]](f func(ctx context.Context, e Event, m P) error) Route {
	return Route{TypeOf(P(new(M))), func(ctx context.Context, e Event) error {
		m := P(new(M))
		if err := e.Decode(m); err != nil {
			return err
		}
		return f(ctx, e, m)
	}}
}

// Routed is a consumer that hears what its routes take. Any other fact is acknowledged: it comes from a durable consumer that another version made.
func Routed(name string, routes ...Route) Consumer {
	c, takes := Consumer{Name: name}, map[string]func(context.Context, Event) error{}
	for _, r := range routes {
		c.Types = append(c.Types, r.eventType)
		takes[r.eventType] = r.take
	}
	c.Handle = func(ctx context.Context, e Event) error {
		if take, ok := takes[e.Type]; ok {
			return take(ctx, e)
		}
		return nil
	}
	return c
}

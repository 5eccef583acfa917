// Package consumer hears the events that people are told of. It decodes and calls; it has no rules.
package consumer

import (
	"context"

	"github.com/certwright/certwright/services/notifications/internal/app"
	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/bus"
)

// New hears what people are told of.
func New(a *app.App) bus.Consumer {
	return bus.Consumer{
		Name:  "notifications-events",
		Types: domain.EventTypes(),
		Handle: func(ctx context.Context, e bus.Event) error {
			return a.Tell(ctx, app.Event{ID: e.ID, Type: e.Type, Subject: e.Subject, Team: e.Team, Time: e.Time, Data: e.Data})
		},
	}
}

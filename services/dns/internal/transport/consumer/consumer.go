// Package consumer hears the facts that the dns service acts on. It decodes and calls; it has no rules.
package consumer

import (
	"context"

	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/shared/bus"
)

// Records hears what challenges want in the DNS.
func Records(a *app.App) bus.Consumer {
	return bus.Consumer{
		Name:  "dns-records",
		Types: []string{challengeeventsv1.TypeRecordWanted, challengeeventsv1.TypeRecordUnwanted},
		Handle: func(ctx context.Context, e bus.Event) error {
			if e.Type == challengeeventsv1.TypeRecordWanted {
				var m challengeeventsv1.RecordWanted
				if err := e.Decode(&m); err != nil {
					return err
				}
				return a.RecordWanted(ctx, e.Team, m.GetChallengeId(), m.GetFqdn(), m.GetValue())
			}
			var m challengeeventsv1.RecordUnwanted
			if err := e.Decode(&m); err != nil {
				return err
			}
			return a.RecordUnwanted(ctx, e.Team, m.GetChallengeId(), m.GetFqdn(), m.GetValue())
		},
	}
}

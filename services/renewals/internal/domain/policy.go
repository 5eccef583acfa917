package domain

import "time"

const day = 24 * time.Hour

// Policy is the configurable part of the decisions.
type Policy struct {
	LifeLeft      float64         // part of a life that is left when a version is replaced without ARI
	ShortLifeLeft float64         // the same for lives shorter than ShortLife
	ShortLife     time.Duration   //
	ARIMin        time.Duration   // between two looks at ARI, at the least
	ARIMax        time.Duration   // and at the most
	Review        time.Duration   // after which a hold without a safe limit is told again
	AskAgain      time.Duration   // after which the inventory is asked again about an order that has not ended
	OverdueAfter  time.Duration   // after which a wanted version is overdue, or OverduePart of the life if that is longer
	OverduePart   float64         //
	OverdueFirst  time.Duration   // after which a first version is overdue
	Expiring      []time.Duration // time left at which a warning is told, falling
}

// Defaults is the policy of an installation that configures nothing.
func Defaults() Policy {
	return Policy{
		LifeLeft: 1.0 / 3, ShortLifeLeft: 0.5, ShortLife: 10 * day, ARIMin: time.Minute, ARIMax: day / 2, Review: 7 * day, AskAgain: time.Hour,
		OverdueAfter: 6 * time.Hour, OverduePart: 0.1, OverdueFirst: day, Expiring: []time.Duration{14 * day, 7 * day, day},
	}
}

// left is the part of a life at whose beginning a version is replaced.
func (p Policy) left(v Version) float64 {
	if v.Life() < p.ShortLife {
		return p.ShortLifeLeft
	}
	return p.LifeLeft
}

// drawLife draws the moment at which a version is replaced when there is no ARI: when left is left, plus up to 2 % of the life and at most a day, never
// in the first minute of an hour, in which everybody else asks.
func (p Policy) drawLife(v Version, m Moment) time.Time {
	life := v.Life()
	at := v.NotAfter.Add(-part(life, p.left(v))).Add(part(min(life/50, day), m.Draw()))
	if life >= day && at.Minute() == 0 {
		at = at.Add(time.Minute)
	}
	if safe := v.SafeLimit(); at.After(safe) {
		at = safe
	}
	return at
}

// backoffs are how long is waited after the first, second, … failure.
var backoffs = [...]time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, day}

func backoff(failures int64) time.Duration {
	return backoffs[min(max(failures, 1), int64(len(backoffs)))-1]
}

// drawRetry draws the moment of the next order after a failure: the backoff, give or take a tenth. Past the safe limit it is 100 minutes at most, and the
// limit itself is never waited through.
func (p *Plan) drawRetry(m Moment) time.Time {
	wait := backoff(p.Failed)
	urgent := min(wait, 100*time.Minute)
	at := m.Now.Add(wait - wait/10 + part(wait/5, m.Draw()))
	if safe := p.Version.SafeLimit(); at.After(safe) {
		at = m.Now.Add(urgent - urgent/10 + part(urgent/5, m.Draw()))
		if at.Before(safe) {
			at = safe
		}
	}
	return at
}

// part is f of d, in whole milliseconds.
func part(d time.Duration, f float64) time.Duration {
	return time.Duration(float64(d) * f).Truncate(time.Millisecond)
}

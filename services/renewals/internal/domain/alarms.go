package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
)

// Alarms tells what did not happen in time: a wanted version that did not come, a version that comes to its end, one that has ended. Each is told once; of several
// thresholds passed at once, after a long suspend, only the last.
func (p *Plan) Alarms(m Moment) (facts []Fact) {
	due := func(at time.Time) bool { return !at.After(m.Now) }
	v := p.Version
	if base, at := p.overdueAt(m.Policy); due(at) {
		p.OverdueTold = true
		facts = append(facts, &renewaleventsv1.Overdue{
			CertificateId: m.ID, VersionId: v.ID, NotAfter: timestampOf(v.NotAfter), WasDueAt: timestampOf(base), Owner: p.Owner,
		})
	}
	if due(p.expiredAt()) {
		p.ExpiredTold, p.WarnedTo = true, v.NotAfter
		facts = append(facts, &renewaleventsv1.Expired{
			CertificateId: m.ID, VersionId: v.ID, Names: v.Names, NotAfter: timestampOf(v.NotAfter), Owner: p.Owner,
		})
	}
	last := time.Duration(0)
	for _, left := range p.warnings(m.Policy) {
		if due(v.NotAfter.Add(-left)) && (last == 0 || left < last) {
			last = left
		}
	}
	if last > 0 {
		p.WarnedTo = v.NotAfter.Add(-last)
		facts = append(facts, &renewaleventsv1.Expiring{
			CertificateId: m.ID, VersionId: v.ID, Names: v.Names, NotAfter: timestampOf(v.NotAfter), Threshold: period(last), Owner: p.Owner,
		})
	}
	return facts
}

// alarmAt is the moment of the next alarm, should nothing happen until then.
func (p *Plan) alarmAt(policy Policy) time.Time {
	_, at := p.overdueAt(policy)
	all := []time.Time{at, p.expiredAt()}
	for _, left := range p.warnings(policy) {
		all = append(all, p.Version.NotAfter.Add(-left))
	}
	return slices.MinFunc(all, time.Time.Compare)
}

// overdueAt is when a wanted version is overdue, and since when it is wanted. Nothing is overdue that a person holds.
func (p *Plan) overdueAt(policy Policy) (base, at time.Time) {
	if p.OverdueTold || p.State == Held {
		return Never, Never
	}
	if base = p.WantedAt; base.IsZero() {
		base = p.DueAt
	}
	wait := policy.OverdueFirst
	if p.Version.ID != "" {
		life := p.Version.Life()
		wait = max(min(policy.OverdueAfter, life/4), part(life, policy.OverduePart))
	}
	return base, base.Add(wait)
}

// expiredAt is when the version's end is told; a revoked one ended before.
func (p *Plan) expiredAt() time.Time {
	if p.Version.ID == "" || p.ExpiredTold || !p.Version.RevokedAt.IsZero() {
		return Never
	}
	return p.Version.NotAfter
}

// warnings are the times left of the thresholds not yet passed by what was told. The first is at most a fifth of the life, each next one at most half of that.
func (p *Plan) warnings(policy Policy) []time.Duration {
	if p.Version.ID == "" || !p.Version.RevokedAt.IsZero() {
		return nil
	}
	out := make([]time.Duration, 0, len(policy.Expiring))
	most := (p.Version.Life() / 5).Truncate(time.Second)
	for _, left := range policy.Expiring {
		left = min(left, most)
		if left > 0 && p.Version.NotAfter.Add(-left).After(p.WarnedTo) {
			out = append(out, left)
		}
		most = (most / 2).Truncate(time.Second)
	}
	return out
}

// period writes d as ISO 8601 does, in whole seconds: P14D, PT28H48M.
func period(d time.Duration) string {
	d = d.Truncate(time.Second)
	if d >= day && d%day == 0 {
		return fmt.Sprintf("P%dD", d/day)
	}
	var b strings.Builder
	b.WriteString("PT")
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "H"}, {time.Minute, "M"}, {time.Second, "S"}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	if b.Len() == len("PT") {
		return "PT0S"
	}
	return b.String()
}

func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() || t.Equal(Never) {
		return nil
	}
	return timestamppb.New(t)
}

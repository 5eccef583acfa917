package domain

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
)

// ARI is the CA's suggestion for the version (RFC 9773), as it was last read.
type ARI struct {
	Read           bool      `bson:"read"` // the CA has answered
	Supported      bool      `bson:"supported"`
	WindowStart    time.Time `bson:"window_start"`
	WindowEnd      time.Time `bson:"window_end"`
	MomentAt       time.Time `bson:"moment_at"` // drawn once a window
	ExplanationURL string    `bson:"explanation_url"`
	CheckAt        time.Time `bson:"check_at"`
	Problem        *Problem  `bson:"problem"` // why the last look failed; the window before it stays good
}

// Info is one answer about a version.
type Info struct {
	Supported      bool
	Start, End     time.Time
	ExplanationURL string
	RetryAt        time.Time // zero: not said
	Problem        *Problem  // the CA could not be asked
}

// ReadARI takes the answer about version. A new window gets its moment; a moved one is told, with the new moment.
func (p *Plan) ReadARI(version string, i Info, m Moment) []Fact {
	if p.Version.ID != version {
		return nil // about a version that has been replaced meanwhile
	}
	a := &p.ARI
	a.CheckAt = i.RetryAt
	if earliest := m.Now.Add(m.Policy.ARIMin); a.CheckAt.Before(earliest) {
		a.CheckAt = earliest
	}
	if latest := m.Now.Add(m.Policy.ARIMax); i.RetryAt.IsZero() || a.CheckAt.After(latest) {
		a.CheckAt = latest
	}
	if i.Problem == nil && i.Supported && !i.End.After(i.Start) {
		i.Problem = &Problem{Reason: "ARI_INVALID", Retrying: true, Detail: "the suggested window ends before it starts"}
	}
	if a.Problem = i.Problem; i.Problem != nil {
		return nil
	}
	known := a.Read && a.Supported
	a.Read, a.Supported, a.ExplanationURL = true, i.Supported, i.ExplanationURL
	if !i.Supported {
		a.WindowStart, a.WindowEnd, a.MomentAt = time.Time{}, time.Time{}, time.Time{}
		return nil
	}
	if known && a.WindowStart.Equal(i.Start) && a.WindowEnd.Equal(i.End) {
		return nil
	}
	a.WindowStart, a.WindowEnd = i.Start, i.End
	a.MomentAt = p.drawMoment(m)
	if !known {
		return nil
	}
	return []Fact{&renewaleventsv1.WindowMoved{
		CertificateId: m.ID, VersionId: version, Start: timestamppb.New(i.Start), End: timestamppb.New(i.End), DueAt: timestamppb.New(a.MomentAt),
		ExplanationUrl: i.ExplanationURL,
	}}
}

// drawMoment draws a moment of the window, uniformly as RFC 9773 section 4.2 wants, but not after the safe limit; a moment in the past is now.
func (p *Plan) drawMoment(m Moment) time.Time {
	start, end := p.ARI.WindowStart, p.ARI.WindowEnd
	if safe := p.Version.SafeLimit(); safe.After(start) && safe.Before(end) {
		end = safe
	}
	return later(later(start.Add(part(end.Sub(start), m.Draw())), m.Now), p.CalmTill)
}

// ARIAt is when ARI is read next: not while an order is open, nor for what is revoked, expired, or has no identifier.
func (p *Plan) ARIAt() time.Time {
	v := p.Version
	if v.ID == "" || v.ARICertID == "" || p.State == Ordered || !v.RevokedAt.IsZero() || !p.ARI.CheckAt.Before(v.NotAfter) {
		return Never
	}
	return p.ARI.CheckAt
}

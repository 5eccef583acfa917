package domain

import (
	"fmt"
	"slices"
	"time"
)

// Pending is a target whose binding is still to be made.
type Pending struct {
	TargetID string    `bson:"target_id"`
	Tries    int       `bson:"tries"`
	NextAt   time.Time `bson:"next_at"`
}

// Binding is what was last heard of a target that serves the certificate: a projection with the revision of its source.
type Binding struct {
	ID           string `bson:"id"`
	TargetID     string `bson:"target_id"`
	VersionID    string `bson:"version_id"`
	Served       bool   `bson:"served"` // VersionID is seen to be served
	DeploymentID string `bson:"deployment_id"`
	Generation   int64  `bson:"generation"`
	Epoch        string `bson:"epoch"`
	Revision     int64  `bson:"revision"`
}

// newerThan reports whether b tells more than old: a later generation of the binding, or a later revision of the same deployment.
func (b Binding) newerThan(old Binding) bool {
	if b.Generation != old.Generation || b.DeploymentID != old.DeploymentID {
		return b.Generation >= old.Generation
	}
	return b.Epoch > old.Epoch || b.Epoch == old.Epoch && b.Revision > old.Revision
}

// Deployed projects the news of a deployment. reason is empty when it began or succeeded (b.Served), else what went wrong, which becomes a finding.
func (c *Certificate) Deployed(b Binding, reason, detail string, m Moment) Outcome {
	var out Outcome
	if c.Deleted() {
		return out
	}
	i := slices.IndexFunc(c.Bindings, func(old Binding) bool { return old.ID == b.ID })
	switch {
	case i < 0:
		c.Bindings = append(c.Bindings, b)
	case b.newerThan(c.Bindings[i]):
		c.Bindings[i] = b
	default:
		return out
	}
	out.Changed = true
	switch {
	case reason != "":
		c.Findings = slices.DeleteFunc(c.Findings, func(f Finding) bool { return f.Subject == b.ID && f.Reason != reason })
		c.find(reason, detail, b.ID, Never, m)
	case b.Served:
		c.unfind(b.ID)
	}
	c.release(m, &out)
	return out
}

// BindingMade records that the target's binding exists.
func (c *Certificate) BindingMade(target, binding string, m Moment) Outcome {
	out := Outcome{Changed: true}
	c.DeployTo = slices.DeleteFunc(c.DeployTo, func(p Pending) bool { return p.TargetID == target })
	c.unfind(target, "BINDING_FAILED")
	if !c.Deleted() && !slices.ContainsFunc(c.Bindings, func(b Binding) bool { return b.ID == binding }) {
		c.Bindings = append(c.Bindings, Binding{ID: binding, TargetID: target})
	}
	c.release(m, &out)
	return out
}

// BindingFailed records that the binding could not be made; it is tried again after a growing wait, up to an hour.
func (c *Certificate) BindingFailed(target, detail string, m Moment) Outcome {
	var out Outcome
	for i := range c.DeployTo {
		p := &c.DeployTo[i]
		if p.TargetID != target {
			continue
		}
		p.NextAt = m.Now.Add(min(10*time.Second<<min(p.Tries, 10), time.Hour))
		p.Tries++
		out.Changed = true
		c.find("BINDING_FAILED", fmt.Sprintf("target %s is not bound yet: %s", target, detail), target, Never, m)
	}
	return out
}

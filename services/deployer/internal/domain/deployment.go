package domain

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

// State of a deployment.
type State = string

// The states. Succeeded and Superseded are final.
const (
	Queued      State = "queued"       // inventory is asked whether the version is still wanted
	Installing  State = "installing"   // files are written
	Activating  State = "activating"   // the host's server is told to read them
	Verifying   State = "verifying"    // what is served is looked at
	Succeeded   State = "succeeded"    // the version is served
	RollingBack State = "rolling_back" // the files before are put back, read and looked at
	RolledBack  State = "rolled_back"  // the version before is served; tried again at RetryAt
	Stuck       State = "stuck"        // neither is seen to be served; tried again at RetryAt
	Failed      State = "failed"       // nothing was changed that could be put back; tried again at RetryAt
	Superseded  State = "superseded"   // another version is wanted, or none
)

// States lists every state.
func States() []State {
	return []State{Queued, Installing, Activating, Verifying, Succeeded, RollingBack, RolledBack, Stuck, Failed, Superseded}
}

// The phases of rolling back.
const (
	PhaseRestore = "restore"
	PhaseReload  = "reload"
	PhaseVerify  = "verify"
)

// maxSteps bounds the log in a deployment's document.
const maxSteps = 60

// forgetAfter is how long the record of a final deployment is kept.
const forgetAfter = 400 * 24 * time.Hour

// Problem is what is wrong, as users see it. The zero Problem is none.
type Problem struct {
	Reason   string `bson:"reason"` // stable id
	Detail   string `bson:"detail"`
	Retrying bool   `bson:"retrying"`
}

// ProblemOf describes an error to users. What is not classified stays hidden.
func ProblemOf(err error) Problem {
	e := errs.As(err)
	if e == nil || e.Kind == errs.Internal {
		return Problem{Reason: "DEPLOY_INTERNAL", Detail: "an internal error; the log has it in full"}
	}
	return Problem{Reason: errs.ReasonOf(err), Detail: e.Error()}
}

// Proto is the problem in the published language; nil when there is none.
func (p Problem) Proto() *typesv1.Problem {
	if p.Reason == "" {
		return nil
	}
	return &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Retrying: p.Retrying}
}

// Step is one line of the log.
type Step struct {
	At     time.Time `bson:"at"`
	Step   string    `bson:"step"`
	Detail string    `bson:"detail"`
	OK     bool      `bson:"ok"`
}

// Deployment is one version's way to one target.
type Deployment struct {
	BindingID     string `bson:"binding_id"`
	TargetID      string `bson:"target_id"`
	CertificateID string `bson:"certificate_id"`
	VersionID     string `bson:"version_id"`
	Owner         string `bson:"owner"`
	Generation    int64  `bson:"generation"`

	State   State   `bson:"state"`
	Open    bool    `bson:"open"`  // not final
	Phase   string  `bson:"phase"` // of rolling back
	Problem Problem `bson:"problem"`
	Steps   []Step  `bson:"steps"`

	Attempts    int64     `bson:"attempts"`
	NextAt      time.Time `bson:"next_at"`
	RetryAt     time.Time `bson:"retry_at"`
	VerifyUntil time.Time `bson:"verify_until"`
	ForgetAt    time.Time `bson:"forget_at"`

	// What inventory said of the version; the chain is dropped when the deployment is final.
	KeyID       string   `bson:"key_id"`
	Fingerprint string   `bson:"fingerprint"` // hex SHA-256 of the leaf
	ServerName  string   `bson:"server_name"` // first name of the certificate
	Chain       [][]byte `bson:"chain"`

	Unchanged bool   `bson:"unchanged"` // nothing had to be installed
	Previous  string `bson:"previous"`  // fingerprint of what was restored, empty when unknown
	Served    string `bson:"served"`    // fingerprint last seen to be served
	Settled   bool   `bson:"settled"`   // the binding knows of the success
}

// Features is what a target has, as far as the way depends on it.
type Features struct{ Reload, Probe bool }

// NewDeployment queues the deployment of a binding's generation.
func NewDeployment(bindingID string, b Binding, now time.Time) Deployment {
	return Deployment{
		BindingID: bindingID, TargetID: b.TargetID, CertificateID: b.CertificateID, VersionID: b.DesiredVersionID, Owner: b.Owner,
		Generation: b.Generation, State: Queued, Open: true, Attempts: 1, NextAt: now, ForgetAt: Never,
	}
}

// Due is when the worker has something to do; zero: never.
func (d *Deployment) Due() time.Time {
	switch {
	case d.State == Superseded, d.State == Succeeded && d.Settled:
		return time.Time{}
	case d.State == Failed, d.State == RolledBack, d.State == Stuck:
		return d.RetryAt
	}
	return d.NextAt
}

func (d *Deployment) in(states ...State) error {
	if slices.Contains(states, d.State) {
		return nil
	}
	return errs.New(errs.Precondition, "DEPLOYMENT_STATE", "the deployment is %s", d.State)
}

func (d *Deployment) to(s State, now time.Time) {
	d.State, d.NextAt = s, now
	d.Open = s != Succeeded && s != Superseded
	if !d.Open {
		d.Chain, d.ForgetAt, d.RetryAt = nil, now.Add(forgetAfter), time.Time{}
	}
}

// Log adds a line to the log.
func (d *Deployment) Log(now time.Time, step, detail string, ok bool) {
	d.Steps = append(slices.Clone(d.Steps), Step{At: now, Step: step, Detail: detail, OK: ok})
	if n := len(d.Steps) - maxSteps; n > 0 {
		d.Steps = d.Steps[n:]
	}
}

// Version is what is to be installed.
type Version struct {
	KeyID, Fingerprint, ServerName string
	Chain                          [][]byte
}

// Admit goes on with a version that inventory still wants.
func (d *Deployment) Admit(id string, v Version, now time.Time) ([]proto.Message, error) {
	if err := d.in(Queued); err != nil {
		return nil, err
	}
	d.KeyID, d.Fingerprint, d.ServerName, d.Chain = v.KeyID, v.Fingerprint, v.ServerName, v.Chain
	d.Problem = Problem{}
	d.to(Installing, now)
	if d.Attempts > 1 {
		return nil, nil
	}
	return []proto.Message{&deploymenteventsv1.Started{Subject: d.subject(id)}}, nil
}

// Wait keeps the state and says what is waited for.
func (d *Deployment) Wait(p Problem, now time.Time, wait time.Duration) error {
	if err := d.in(Queued, Installing, Activating, Verifying, RollingBack); err != nil {
		return err
	}
	p.Retrying = true
	d.Problem, d.NextAt = p, now.Add(wait)
	return nil
}

// Found goes on when the files are there already. active: this deployment knows that they have been read.
func (d *Deployment) Found(id string, active bool, f Features, verifyFor time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(Installing); err != nil {
		return nil, err
	}
	d.Problem = Problem{}
	switch {
	case active && f.Probe:
		d.Unchanged = true
		d.verify(now, verifyFor)
		return nil, nil
	case active:
		d.Unchanged = true
		return d.succeed(id, now), nil
	}
	return d.Installed(id, f, verifyFor, now)
}

// Installed goes on when the files have been written.
func (d *Deployment) Installed(id string, f Features, verifyFor time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(Installing); err != nil {
		return nil, err
	}
	d.Problem, d.Unchanged = Problem{}, false
	if f.Reload {
		d.to(Activating, now)
		return nil, nil
	}
	return d.activated(id, f, verifyFor, now), nil
}

// Activated goes on when the host's server has been told to read the files.
func (d *Deployment) Activated(id string, f Features, verifyFor time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(Activating); err != nil {
		return nil, err
	}
	return d.activated(id, f, verifyFor, now), nil
}

func (d *Deployment) activated(id string, f Features, verifyFor time.Duration, now time.Time) []proto.Message {
	if f.Probe {
		d.verify(now, verifyFor)
		return nil
	}
	return d.succeed(id, now)
}

func (d *Deployment) verify(now time.Time, verifyFor time.Duration) {
	d.VerifyUntil = now.Add(verifyFor)
	d.to(Verifying, now)
}

func (d *Deployment) succeed(id string, now time.Time) []proto.Message {
	d.Problem = Problem{}
	d.to(Succeeded, now)
	return []proto.Message{&deploymenteventsv1.Succeeded{Subject: d.subject(id), ServedFingerprintSha256: d.Served, Unchanged: d.Unchanged}}
}

// Verified judges what the probe saw: served is a fingerprint, or p says why nothing was seen. It is looked again every poll until VerifyUntil.
func (d *Deployment) Verified(id, served string, p Problem, f Features, poll time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(Verifying); err != nil {
		return nil, err
	}
	d.Served = served
	switch {
	case served == d.Fingerprint:
		return d.succeed(id, now), nil
	case d.Unchanged && f.Reload: // the files were there, but the server has not read them
		d.Unchanged = false
		d.to(Activating, now)
		return nil, nil
	case now.Before(d.VerifyUntil):
		d.NextAt = now.Add(poll)
		return nil, nil
	}
	return nil, d.Break(p, now)
}

// Break begins to roll back because of p.
func (d *Deployment) Break(p Problem, now time.Time) error {
	if err := d.in(Activating, Verifying); err != nil {
		return err
	}
	p.Retrying = true
	d.Problem, d.Phase = p, PhaseRestore
	d.to(RollingBack, now)
	return nil
}

// Fail ends an attempt that has changed nothing, or nothing that could be put back.
func (d *Deployment) Fail(id string, p Problem, now time.Time) ([]proto.Message, error) {
	if err := d.in(Queued, Installing, RollingBack); err != nil {
		return nil, err
	}
	d.end(Failed, p, now)
	return []proto.Message{&deploymenteventsv1.Failed{Subject: d.subject(id), Problem: d.Problem.Proto(), RetryAt: timestamppb.New(d.RetryAt)}}, nil
}

func (d *Deployment) end(s State, p Problem, now time.Time) {
	p.Retrying = true
	d.Problem, d.Phase = p, ""
	d.to(s, now)
	d.RetryAt = now.Add(Backoff(d.Attempts))
}

// Restored goes on when the files before were put back. previous is the fingerprint of their certificate, empty when it could not be read.
func (d *Deployment) Restored(id, previous string, f Features, verifyFor time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(RollingBack); err != nil {
		return nil, err
	}
	d.Previous, d.Phase, d.NextAt = previous, PhaseReload, now
	if f.Reload {
		return nil, nil
	}
	return d.Reread(id, f, verifyFor, now)
}

// Reread goes on when the host's server has been told to read the files before.
func (d *Deployment) Reread(id string, f Features, verifyFor time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(RollingBack); err != nil {
		return nil, err
	}
	if !f.Probe {
		return d.rolledBack(id, now), nil
	}
	d.Phase, d.VerifyUntil, d.NextAt = PhaseVerify, now.Add(verifyFor), now
	return nil, nil
}

// RollbackSeen judges what the probe saw after the roll-back.
func (d *Deployment) RollbackSeen(id, served string, p Problem, poll time.Duration, now time.Time) ([]proto.Message, error) {
	if err := d.in(RollingBack); err != nil {
		return nil, err
	}
	d.Served = served
	switch {
	case served != "" && (served == d.Previous || d.Previous == ""):
		return d.rolledBack(id, now), nil
	case now.Before(d.VerifyUntil):
		d.NextAt = now.Add(poll)
		return nil, nil
	}
	return d.GetStuck(id, p, now)
}

func (d *Deployment) rolledBack(id string, now time.Time) []proto.Message {
	d.end(RolledBack, d.Problem, now)
	return []proto.Message{&deploymenteventsv1.RolledBack{Subject: d.subject(id), Problem: d.Problem.Proto(), RetryAt: timestamppb.New(d.RetryAt)}}
}

// GetStuck ends a roll-back that did not work. The detail keeps why the deployment failed in the first place.
func (d *Deployment) GetStuck(id string, p Problem, now time.Time) ([]proto.Message, error) {
	if err := d.in(RollingBack); err != nil {
		return nil, err
	}
	if d.Problem.Reason != "" {
		p.Detail = d.Problem.Detail + "; rolling back failed too: " + p.Detail
		p.Reason = d.Problem.Reason
	}
	d.end(Stuck, p, now)
	return []proto.Message{&deploymenteventsv1.Stuck{Subject: d.subject(id), Problem: d.Problem.Proto(), RetryAt: timestamppb.New(d.RetryAt)}}, nil
}

// Retry queues the next attempt.
func (d *Deployment) Retry(now time.Time) error {
	if err := d.in(Failed, RolledBack, Stuck); err != nil {
		return err
	}
	d.Attempts++
	d.Unchanged, d.RetryAt = false, time.Time{}
	d.to(Queued, now)
	return nil
}

// Hurry makes the deployment due now. Precondition DEPLOYMENT_FINAL when it has ended for good.
func (d *Deployment) Hurry(now time.Time) error {
	if !d.Open {
		return errs.New(errs.Precondition, "DEPLOYMENT_FINAL", "the deployment is %s: there is nothing to try again", d.State)
	}
	if d.in(Failed, RolledBack, Stuck) == nil {
		d.RetryAt = now
	}
	d.NextAt = now
	return nil
}

// Supersede ends the deployment because it is not wanted any more; it reports whether it was open.
func (d *Deployment) Supersede(p Problem, now time.Time) bool {
	if !d.Open {
		return false
	}
	d.Problem, d.Phase = p, ""
	d.to(Superseded, now)
	return true
}

// Settle records that the binding knows of the success.
func (d *Deployment) Settle() error {
	if err := d.in(Succeeded); err != nil {
		return err
	}
	d.Settled = true
	return nil
}

func (d *Deployment) subject(id string) *deploymenteventsv1.Subject {
	return &deploymenteventsv1.Subject{
		DeploymentId: id, BindingId: d.BindingID, TargetId: d.TargetID, CertificateId: d.CertificateID, VersionId: d.VersionID,
		Generation: d.Generation, Owner: d.Owner,
	}
}

// Backoff is how long is waited after the attempt of this number: 1, 10, 100 minutes, then a day.
func Backoff(attempt int64) time.Duration {
	switch {
	case attempt <= 1:
		return time.Minute
	case attempt == 2:
		return 10 * time.Minute
	case attempt == 3:
		return 100 * time.Minute
	}
	return 24 * time.Hour
}

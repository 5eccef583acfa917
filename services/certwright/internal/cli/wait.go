package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/shared/errs"
)

// How often the state is asked for: soon after something has changed, then ever less often.
const (
	firstPoll = 200 * time.Millisecond
	lastPoll  = 3 * time.Second
)

// goal is what is waited for.
type goal struct {
	certificate string
	// order is the one that is open now; another follows when the spec was changed meanwhile.
	order string
	// generation of the spec that is wanted at least.
	generation int64
	// targets that get the version beside those that are bound already.
	targets []string
}

// wait follows the goal to its end and shows every step on stderr. It returns nil when the version is issued and deployed.
func (a *app) wait(ctx context.Context, c *client, timeout time.Duration, g goal) error {
	f := &follower{app: a, client: c, goal: g, progress: &progress{out: a.Err, soon: a.soon, last: map[string]string{}}}
	within := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		within, cancel = a.deadline(ctx, timeout)
		defer cancel()
	}
	err := f.follow(within)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &stoppedError{fmt.Sprintf("stopped waiting; the order goes on: certwright orders get %s shows it, certwright orders cancel %s ends it", f.goal.order, f.goal.order)}
	case within.Err() != nil:
		return &waitedError{fmt.Sprintf("waited %s; %s. It goes on: certwright orders get %s shows it", timeout, f.reached(), f.goal.order)}
	}
	return err
}

// deadline is a context that ends when d has passed on the app's clock.
func (a *app) deadline(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	passed, stop := a.Clock.After(d)
	go func() {
		defer stop()
		select {
		case <-passed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// follower polls the state and compares it with the goal.
type follower struct {
	*app
	client   *client
	goal     goal
	progress *progress
	version  string // of the order, once it is issued
	issued   bool
	pending  []string // targets that do not have the version yet
}

// reached says how far it came.
func (f *follower) reached() string {
	if f.issued {
		return "the version " + f.version + " is issued, but not deployed to " + list(f.pending)
	}
	return "the order " + f.goal.order + " has not ended"
}

func (f *follower) follow(ctx context.Context) error {
	pause := firstPoll
	for {
		lines := f.progress.count
		done, err := f.look(ctx)
		if err != nil && ctx.Err() == nil && errs.As(err) != nil && exitCode(err) == ExitUnavailable {
			f.progress.say("connection", err.Error()+"; trying again")
			err = nil
		}
		if done || err != nil {
			return err
		}
		if f.progress.count != lines {
			pause = firstPoll
		}
		if err := f.Clock.Sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(pause*3/2, lastPoll)
	}
}

// look reads the state once and says what is new.
func (f *follower) look(ctx context.Context) (done bool, err error) {
	if f.issued {
		return f.deployed(ctx)
	}
	o, err := readOrder(ctx, f.client, f.goal.order)
	if errs.As(err) != nil && errs.KindOf(err) == errs.NotFound { // orders has not heard of the intent yet
		f.progress.say("state", "queued")
		return false, nil
	}
	if err != nil {
		return false, err
	}
	delete(f.progress.last, "connection")
	var hs []*challengesv1.Challenge
	if o.GetState() == "authorizing" {
		l := challengeList()
		l.path = path("/v1/orders/", o.GetId(), "/challenges")
		got, err := l.fetch(ctx, f.client, "", 0)
		if err == nil { // who may not see them sees less
			hs = got.GetChallenges()
		}
	}
	f.progress.order(o, hs)
	switch o.GetState() {
	case "issued", "failed", "rejected", "cancelled":
		return f.ended(ctx, o)
	}
	return false, nil
}

// ended decides what the end of an order means: the certificate's own document has the last word.
func (f *follower) ended(ctx context.Context, o *ordersv1.Order) (bool, error) {
	crt, err := f.readCertificate(ctx, f.client, o.GetCertificateId())
	if err != nil {
		return false, err
	}
	i := crt.GetIntent()
	switch {
	case i.GetNumber() == o.GetIntentNumber() && i.GetOutcome() == "open" || i.GetNumber() < o.GetIntentNumber():
		return false, nil // inventory has not heard of it yet
	case i.GetNumber() > o.GetIntentNumber() && (o.GetSpecGeneration() < f.goal.generation || o.GetState() != "issued" && i.GetSpecGeneration() > o.GetSpecGeneration()):
		f.progress.say("state", "the certificate was changed meanwhile; following the order "+i.GetOrderId())
		f.goal.order = i.GetOrderId()
		f.progress.next()
		return false, nil
	case o.GetState() != "issued":
		return false, &endedError{"the order " + o.GetId() + " was " + endOf(o), o.GetProblem().GetReason()}
	case i.GetNumber() == o.GetIntentNumber() && i.GetOutcome() != "issued":
		return false, &endedError{"the certificate of order " + o.GetId() + " was refused: " + why(i.GetProblem()), i.GetProblem().GetReason()}
	}
	f.issued = true
	facts := crt.GetCurrentVersion().GetFacts()
	f.version = facts.GetVersionId()
	if facts.GetOrderId() != "" && facts.GetOrderId() != o.GetId() {
		f.version = o.GetVersionId() // a newer one is there already
		f.progress.say("state", "issued "+f.version+", replaced by "+facts.GetVersionId()+" meanwhile")
		return true, nil
	}
	f.progress.say("state", "issued "+f.version+" valid until "+stamp(facts.GetNotAfter()))
	return f.deployed(ctx)
}

func endOf(o *ordersv1.Order) string {
	end := o.GetState()
	if end == "failed" {
		end = "not fulfilled"
	}
	if p := o.GetProblem(); p != nil {
		return end + ": " + why(p)
	}
	return end
}

// deployed looks whether every bound target has got the version.
func (f *follower) deployed(ctx context.Context) (bool, error) {
	term := "certificate=" + f.goal.certificate
	bound, err := bindingList().fetch(ctx, f.client, term, 0)
	if errs.As(err) != nil && errs.KindOf(err) == errs.Forbidden {
		f.progress.say("deployments", "the token may not see deployments; they go on by themselves")
		return true, nil
	}
	if err != nil {
		return false, err
	}
	wanted := map[string]bool{}
	for _, t := range f.goal.targets {
		wanted[t] = true
	}
	for _, b := range bound.GetBindings() {
		wanted[b.GetTargetId()] = true
	}
	if len(wanted) == 0 {
		return true, nil
	}
	all, err := deploymentList().fetch(ctx, f.client, term, 0)
	if err != nil {
		return false, err
	}
	newest := map[string]*deployerv1.Deployment{} // by target
	for _, d := range all.GetDeployments() {
		if known := newest[d.GetTargetId()]; d.GetVersionId() == f.version && (known == nil || known.GetGeneration() <= d.GetGeneration()) {
			newest[d.GetTargetId()] = d
		}
	}
	f.pending = nil
	var bad []string
	for _, t := range slices.Sorted(maps.Keys(wanted)) {
		d := newest[t]
		f.progress.deployment(t, d)
		switch d.GetState() {
		case "succeeded", "superseded":
		case "rolled_back", "stuck":
			bad = append(bad, t)
		default:
			f.pending = append(f.pending, t)
		}
	}
	switch {
	case len(f.pending) > 0:
		return false, nil
	case len(bad) > 0:
		return false, &endedError{"the version " + f.version + " is issued, but its deployment to " + list(bad) + " failed; certwright deployments list --certificate " + f.goal.certificate + " shows why", "DEPLOYMENT_FAILED"}
	}
	return true, nil
}

// progress says each step once.
type progress struct {
	out   io.Writer
	soon  func(*timestamppb.Timestamp) string
	last  map[string]string // what was last said, by subject
	count int
}

// say prints text unless it is what was last said of the subject.
func (p *progress) say(subject, text string) {
	if p.last[subject] == text {
		return
	}
	p.last[subject] = text
	p.count++
	fmt.Fprintln(p.out, printable(text))
}

// next forgets what was said of an order, for the one that follows.
func (p *progress) next() { p.last = map[string]string{} }

func (p *progress) order(o *ordersv1.Order, hs []*challengesv1.Challenge) {
	state := o.GetState()
	open := false
	for _, at := range o.GetAttempts() {
		p.attempt(at, hs)
		open = open || at.GetState() == "open"
	}
	switch {
	case state == "awaiting_approval":
		p.say("state", "waiting for approval")
	case state == "queued":
		p.say("state", "queued")
		if o.GetKeyId() == "" && !open && o.GetBlocked() == nil {
			p.say("csr", "waiting for CSR")
		}
	case state == "finalizing":
		p.say("state", "finalizing")
	}
	for _, r := range o.GetActionsRequired() {
		p.say("action "+r.GetChallengeId(), "action required: "+action(r))
	}
	b := o.GetBlocked()
	switch {
	case b == nil:
		delete(p.last, "blocked")
	case b.GetReason() == "ACTION_REQUIRED" && len(o.GetActionsRequired()) > 0: // said above, with the value
	default:
		text := "blocked: " + why(b)
		if o.GetNextTime() != nil {
			text += " (next try " + p.soon(o.GetNextTime()) + ")"
		}
		p.say("blocked", text)
	}
}

func (p *progress) attempt(at *ordersv1.Attempt, hs []*challengesv1.Challenge) {
	subject := fmt.Sprintf("attempt %d", at.GetNumber())
	if at.GetUrl() != "" {
		p.say(subject, fmt.Sprintf("ordered at %s (attempt %d)", at.GetUrl(), at.GetNumber()))
	}
	for _, z := range at.GetAuthorizations() {
		text := "authorizing " + nameOf(z)
		switch z.GetState() {
		case "pending":
		case "presented":
			text += ": presented" + how(z, hs)
		case "validating":
			text += ": the CA validates" + how(z, hs)
		case "invalid":
			text += ": refused, " + why(z.GetProblem())
		default:
			text += ": " + z.GetState()
		}
		p.say(fmt.Sprintf("%s %d %s", subject, z.GetNumber(), nameOf(z)), text)
	}
	switch at.GetState() {
	case "dead", "abandoned_after_finalize":
		text := fmt.Sprintf("attempt %d ended", at.GetNumber())
		if at.GetProblem() != nil {
			text += ": " + why(at.GetProblem())
		}
		p.say(subject+" end", text)
	}
}

// how names the challenge that answers an authorization, " by http-01".
func how(z *ordersv1.Authorization, hs []*challengesv1.Challenge) string {
	for _, h := range hs {
		if h.GetId() == z.GetChallengeId() {
			return " by " + h.GetType()
		}
	}
	return ""
}

func (p *progress) deployment(target string, d *deployerv1.Deployment) {
	subject := "deployment " + target
	switch d.GetState() {
	case "":
		p.say(subject, "waiting for the deployment to "+target)
	case "succeeded":
		p.say(subject, "deployed to "+target)
	case "superseded":
		p.say(subject, "the deployment to "+target+" was replaced by a newer one")
	case "rolled_back", "stuck", "failed":
		text := "deployment to " + target + " " + strings.ReplaceAll(d.GetState(), "_", " ")
		if d.GetProblem() != nil {
			text += ": " + why(d.GetProblem())
		}
		if d.GetState() == "failed" && d.GetRetryAt() != nil {
			text += " (next try " + p.soon(d.GetRetryAt()) + ")"
		}
		p.say(subject, text)
	default:
		p.say(subject, "deploying to "+target+": "+d.GetState())
	}
}

package app

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/deployer/internal/adapters/filehost"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/worker"
)

// result is what a step of a deployment makes of the document.
type result = worker.Result[domain.Deployment]

// move is a transition; it may add to the log.
type move func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error)

// apply makes a result of a transition. It is not applied to a deployment that has gone another way meanwhile, e.g. was superseded.
func (a *App) apply(was deploymentDoc, f move) (result, error) {
	return result{Apply: func(d *deploymentDoc) ([]outbox.Fact, error) {
		if d.Body.State != was.Body.State || d.Body.Phase != was.Body.Phase || d.Body.Attempts != was.Body.Attempts {
			return nil, outbox.ErrUnchanged
		}
		events, err := f(&d.Body, d.ID, a.Clock.Now())
		if err != nil {
			return nil, err
		}
		return storedDeployment(d, events), nil
	}}, nil
}

// wait keeps the state because something is away for the moment, and says so.
func (a *App) wait(was deploymentDoc, err error) (result, error) {
	return result{Apply: func(d *deploymentDoc) ([]outbox.Fact, error) {
		if d.Body.State != was.Body.State {
			return nil, outbox.ErrUnchanged
		}
		d.Failures++
		wait := max(min(time.Second<<min(d.Failures-1, 10), 5*time.Minute), retryAfter(err))
		if err := d.Body.Wait(domain.ProblemOf(err), a.Clock.Now(), wait); err != nil {
			return nil, err
		}
		return storedDeployment(d, nil), nil
	}}, nil
}

func retryAfter(err error) time.Duration {
	if e := errs.As(err); e != nil {
		return e.RetryAfter
	}
	return 0
}

// Step is the worker's step of deployments: one state at a time, each of which may be done again after a crash.
func (a *App) Step(ctx context.Context, d docstore.Doc[domain.Deployment]) (worker.Result[domain.Deployment], error) {
	next := a.restore
	switch d.Body.State {
	case domain.Queued:
		return a.admit(ctx, d)
	case domain.Installing:
		next = a.install
	case domain.Activating:
		next = a.activate
	case domain.Verifying:
		next = a.verify
	case domain.RollingBack:
		switch d.Body.Phase {
		case domain.PhaseReload:
			next = a.reloadBack
		case domain.PhaseVerify:
			next = a.verifyBack
		}
	case domain.Failed, domain.RolledBack, domain.Stuck:
		return a.apply(d, func(d *domain.Deployment, _ string, now time.Time) ([]proto.Message, error) { return nil, d.Retry(now) })
	case domain.Succeeded:
		return a.settle(ctx, d)
	default:
		return a.apply(d, func(*domain.Deployment, string, time.Time) ([]proto.Message, error) { return nil, nil })
	}
	w, err := a.way(ctx, d)
	if err != nil {
		return a.failed(ctx, d, err)
	}
	return next(ctx, d, w)
}

// way is where a deployment goes.
type way struct {
	target domain.Target
	host   Host
	what   filehost.Installation
	leaf   *x509.Certificate
}

func (w way) features() domain.Features {
	return domain.Features{Reload: w.target.File.Reload != "", Probe: w.target.ProbeAddress != ""}
}

func (w way) serverName(d domain.Deployment) string {
	if w.target.ProbeServerName != "" {
		return w.target.ProbeServerName
	}
	return d.ServerName
}

// way looks the target up, and checks again what its host allows: the configuration may have changed since the target was made.
func (a *App) way(ctx context.Context, d deploymentDoc) (way, error) {
	t, err := a.Targets.Get(ctx, d.Body.TargetID)
	if err == nil && t.Tombstone || errs.KindOf(err) == errs.NotFound {
		return way{}, errs.New(errs.Precondition, "DEPLOY_TARGET_GONE", "the target %s was deleted", d.Body.TargetID)
	}
	if err != nil {
		return way{}, err
	}
	w := way{target: t.Body}
	if w.host, err = a.Hosts.Host(t.Body.File.Host); err != nil {
		return way{}, err
	}
	if err := w.host.Check(t.Body.File); err != nil {
		return way{}, err
	}
	if len(d.Body.Chain) == 0 {
		return way{}, errs.New(errs.Precondition, "DEPLOY_VERSION_NOT_DEPLOYABLE", "inventory has no chain of the version %s", d.Body.VersionID)
	}
	if w.leaf, err = x509.ParseCertificate(d.Body.Chain[0]); err != nil {
		return way{}, errs.New(errs.Precondition, "DEPLOY_VERSION_NOT_DEPLOYABLE", "the certificate of the version %s cannot be read: %w", d.Body.VersionID, err)
	}
	files, err := t.Body.File.Files(d.Body.Chain)
	if err != nil {
		return way{}, err
	}
	w.what = filehost.Installation{Binding: d.Body.BindingID, Generation: d.Body.Generation, Fingerprint: d.Body.Fingerprint, Files: files}
	return w, nil
}

// failed ends the attempt in the way of its state. What is away for the moment is waited for.
func (a *App) failed(ctx context.Context, d deploymentDoc, err error) (result, error) {
	if ctx.Err() != nil {
		return result{}, err // the service stops, or the lease is half over: the same step is done again
	}
	switch errs.KindOf(err) { //nolint:exhaustive // the others end the attempt
	case errs.Unavailable, errs.Timeout, errs.RateLimited, errs.Canceled:
		return a.wait(d, err)
	case errs.Internal:
		return result{}, err // the worker logs it in full and tries again
	}
	p := domain.ProblemOf(err)
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		d.Log(now, d.State, p.Detail, false)
		switch d.State {
		case domain.Activating, domain.Verifying:
			return nil, d.Break(p, now)
		case domain.RollingBack:
			return d.GetStuck(id, p, now)
		}
		return d.Fail(id, p, now)
	})
}

// admit asks inventory whether the version is still the one to be served.
func (a *App) admit(ctx context.Context, d deploymentDoc) (result, error) {
	var s *inventoryv1.VersionStatus
	err := worker.Call(ctx, "inventory.GetVersionStatus", func(ctx context.Context) (err error) {
		s, err = a.Inventory.GetVersionStatus(ctx, &inventoryv1.GetVersionStatusRequest{VersionId: d.Body.VersionID})
		return err
	})
	if ignoreNotFound(err) != nil {
		return a.failed(ctx, d, err)
	}
	facts := s.GetVersion().GetFacts()
	why := ""
	switch state := s.GetVersion().GetState(); {
	case s == nil:
		why = "inventory does not know the version"
	case s.GetCertificateDeleted():
		why = "the certificate was deleted"
	case state != "current":
		why = "the version is " + state
	case facts.GetNotAfter() != nil && !facts.GetNotAfter().AsTime().After(a.Clock.Now()):
		why = "the version expired on " + facts.GetNotAfter().AsTime().Format(time.RFC3339)
	}
	if why != "" {
		return a.apply(d, func(d *domain.Deployment, _ string, now time.Time) ([]proto.Message, error) {
			d.Log(now, "superseded", why, true)
			d.Supersede(domain.Problem{Reason: "DEPLOY_VERSION_NOT_DEPLOYABLE", Detail: why + "; it is not deployed"}, now)
			return nil, nil
		})
	}
	v := domain.Version{KeyID: facts.GetKeyId(), Fingerprint: facts.GetFingerprintSha256(), Chain: s.GetChainDer()}
	if names := facts.GetNames(); len(names) > 0 {
		v.ServerName = names[0]
		if len(v.ServerName) > 2 && v.ServerName[:2] == "*." {
			v.ServerName = "certwright-probe" + v.ServerName[1:] // any name below the wildcard
		}
	}
	if len(v.Chain) > 0 { // what is compared with what is served is computed from what is installed
		sum := sha256.Sum256(v.Chain[0])
		v.Fingerprint = hex.EncodeToString(sum[:])
	}
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		return d.Admit(id, v, now)
	})
}

// install writes the files. The release of the key and the writing are one step, since the key may be in the clear in this process only between the two: the one
// place where a step calls a sibling and touches a host.
func (a *App) install(ctx context.Context, d deploymentDoc, w way) (result, error) {
	cur, err := w.host.Look(w.what, w.leaf.PublicKey)
	if err == nil && cur.Equal {
		f := w.features()
		active := !cur.Pending && (cur.Confirmed || f.Probe)
		return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
			d.Log(now, "installing", "the files are there already", true)
			return d.Found(id, active, f, a.VerifyFor, now)
		})
	}
	if err == nil {
		err = worker.Call(ctx, "host.install", func(ctx context.Context) error { return a.releaseAndInstall(ctx, d, w) })
	}
	if errs.ReasonOf(err) == "DEPLOY_FENCED" {
		return a.fenced(ctx, d, err)
	}
	if err != nil {
		return a.failed(ctx, d, err)
	}
	f := w.features()
	if !f.Reload && !f.Probe {
		a.confirm(ctx, w)
	}
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		d.Log(now, "installing", strconv.Itoa(len(w.what.Files))+" files were written", true)
		return d.Installed(id, f, a.VerifyFor, now)
	})
}

func (a *App) releaseAndInstall(ctx context.Context, d deploymentDoc, w way) error {
	if !w.target.File.HasKey() {
		return w.host.Install(ctx, w.what, nil)
	}
	unavailable := func(kind errs.Kind, format string, args ...any) error {
		return errs.New(kind, "DEPLOY_KEY_UNAVAILABLE", format, args...)
	}
	if d.Body.KeyID == "" {
		return unavailable(errs.Precondition, "the key of the version %s is not in the custody of this platform; bind it to a target without keyPath and bundlePath, or request it with a key made here", d.Body.VersionID)
	}
	res, err := a.Keys.Release(ctx, &keysv1.ReleaseRequest{KeyId: d.Body.KeyID, DeploymentId: d.ID, ReceiverPublicKey: a.Receiver.Public()})
	if err != nil {
		return unavailable(errs.KindOf(err), "the key %s was not released: %w", d.Body.KeyID, err)
	}
	pkcs8, err := a.Receiver.Open(res.GetSealedPkcs8(), []byte("release:"+d.ID))
	if err != nil {
		return unavailable(errs.Precondition, "the key %s does not open: %w", d.Body.KeyID, err)
	}
	defer clear(pkcs8)
	if !fits(pkcs8, w.leaf.PublicKey) {
		return errs.New(errs.Precondition, "DEPLOY_KEY_MISMATCH", "the key %s is not that of the version %s; nothing was installed", d.Body.KeyID, d.Body.VersionID)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	defer clear(text)
	return w.host.Install(ctx, w.what, text)
}

func fits(pkcs8 []byte, public crypto.PublicKey) bool {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return false
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	equal, ok := signer.Public().(interface{ Equal(x crypto.PublicKey) bool })
	return ok && equal.Equal(public)
}

// fenced ends a deployment that a later one has overtaken on the host. If this is the latest that the store knows, the store has been recovered from a backup: the
// binding goes on above what the host has.
func (a *App) fenced(ctx context.Context, d deploymentDoc, why error) (result, error) {
	found, _ := strconv.ParseInt(errs.As(why).Meta["generation"], 10, 64)
	if _, err := a.changeBinding(ctx, d.Body.BindingID, func(b *domain.Binding, now time.Time) bool { return b.Outrun(found, now) }); ignoreNotFound(err) != nil {
		return result{}, err
	}
	return a.apply(d, func(d *domain.Deployment, _ string, now time.Time) ([]proto.Message, error) {
		d.Log(now, "superseded", why.Error(), true)
		d.Supersede(domain.ProblemOf(why), now)
		return nil, nil
	})
}

// confirm notes on the host that the files are in use. If it cannot, the next installation keeps an older copy to go back to.
func (a *App) confirm(ctx context.Context, w way) {
	if err := w.host.Confirm(w.what); err != nil {
		a.Logger.WarnContext(ctx, "the host does not note that the files are in use", "binding", w.what.Binding, "error", err)
	}
}

// activate has the host's server read the files.
func (a *App) activate(ctx context.Context, d deploymentDoc, w way) (result, error) {
	output, err := a.reload(ctx, w)
	if err != nil {
		return a.failed(ctx, d, err)
	}
	f := w.features()
	if !f.Probe {
		a.confirm(ctx, w)
	}
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		d.Log(now, "activating", detail(w.target.File.Reload, output), true)
		return d.Activated(id, f, a.VerifyFor, now)
	})
}

func (a *App) reload(ctx context.Context, w way) (output string, err error) {
	err = worker.Call(ctx, "host.reload", func(ctx context.Context) (err error) {
		output, err = w.host.Reload(ctx, w.target.File.Reload)
		return err
	})
	return output, err
}

func detail(command, output string) string {
	if output == "" {
		return "the command " + strconv.Quote(command) + " succeeded"
	}
	return "the command " + strconv.Quote(command) + " succeeded: " + output
}

// probe answers what is served, or the problem of not seeing it.
func (a *App) probe(ctx context.Context, d deploymentDoc, w way, wanted string) (served string, p domain.Problem, err error) {
	name := w.serverName(d.Body)
	err = worker.Call(ctx, "host.probe", func(ctx context.Context) (err error) {
		served, err = a.Prober.Served(ctx, w.target.ProbeAddress, name)
		return err
	})
	if err != nil {
		if ctx.Err() != nil || errs.ReasonOf(err) == "LEASE_ENDED" {
			return "", p, err
		}
		return "", domain.ProblemOf(err), nil
	}
	return served, domain.Problem{
		Reason: "DEPLOY_WRONG_CERTIFICATE",
		Detail: w.target.ProbeAddress + " (server name " + strconv.Quote(name) + ") serves the certificate with the SHA-256 fingerprint " + served + ", not " + wanted +
			"; see that the server reads the installed files and that the reload command makes it do so",
	}, nil
}

// verify looks whether the version is served.
func (a *App) verify(ctx context.Context, d deploymentDoc, w way) (result, error) {
	served, p, err := a.probe(ctx, d, w, d.Body.Fingerprint)
	if err != nil {
		return result{}, err
	}
	if served == d.Body.Fingerprint {
		a.confirm(ctx, w)
	}
	f := w.features()
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		events, err := d.Verified(id, served, p, f, a.VerifyPoll, now)
		switch d.State {
		case domain.Succeeded:
			d.Log(now, "verifying", w.target.ProbeAddress+" serves it", true)
		case domain.RollingBack:
			d.Log(now, "verifying", p.Detail, false)
		}
		return events, err
	})
}

// restore puts the files before back.
func (a *App) restore(ctx context.Context, d deploymentDoc, w way) (result, error) {
	var previous string
	var restored bool
	err := worker.Call(ctx, "host.restore", func(context.Context) (err error) {
		previous, restored, err = w.host.Restore(w.what)
		return err
	})
	if errs.ReasonOf(err) == "DEPLOY_FENCED" {
		return a.fenced(ctx, d, err)
	}
	if err != nil {
		return a.failed(ctx, d, err)
	}
	f := w.features()
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		if !restored {
			d.Log(now, "rolling_back", "there were no files before; the new ones stay", true)
			p := d.Problem
			p.Detail += "; there was nothing before to go back to, so the new files stay"
			return d.Fail(id, p, now)
		}
		d.Log(now, "rolling_back", "the files before are back", true)
		return d.Restored(id, previous, f, a.VerifyFor, now)
	})
}

// reloadBack has the host's server read the files before.
func (a *App) reloadBack(ctx context.Context, d deploymentDoc, w way) (result, error) {
	output, err := a.reload(ctx, w)
	if err != nil {
		return a.failed(ctx, d, err)
	}
	f := w.features()
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		d.Log(now, "rolling_back", detail(w.target.File.Reload, output), true)
		return d.Reread(id, f, a.VerifyFor, now)
	})
}

// verifyBack looks whether the version before is served again.
func (a *App) verifyBack(ctx context.Context, d deploymentDoc, w way) (result, error) {
	served, p, err := a.probe(ctx, d, w, d.Body.Previous)
	if err != nil {
		return result{}, err
	}
	return a.apply(d, func(d *domain.Deployment, id string, now time.Time) ([]proto.Message, error) {
		events, err := d.RollbackSeen(id, served, p, a.VerifyPoll, now)
		switch d.State {
		case domain.RolledBack:
			d.Log(now, "rolling_back", w.target.ProbeAddress+" serves the version before", true)
		case domain.Stuck:
			d.Log(now, "rolling_back", p.Detail, false)
		}
		return events, err
	})
}

// settle tells the binding what is served.
func (a *App) settle(ctx context.Context, d deploymentDoc) (result, error) {
	_, err := a.changeBinding(ctx, d.Body.BindingID, func(b *domain.Binding, _ time.Time) bool { return b.Served(d.Body.VersionID, d.Body.Generation) })
	if ignoreNotFound(err) != nil {
		return result{}, err
	}
	return a.apply(d, func(d *domain.Deployment, _ string, _ time.Time) ([]proto.Message, error) { return nil, d.Settle() })
}

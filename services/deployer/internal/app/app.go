// Package app is what the service deployer does: a file for each use case. A private key is in the clear here only during the one step that installs it.
package app

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	"github.com/certwright/certwright/services/deployer/internal/adapters/filehost"
	"github.com/certwright/certwright/services/deployer/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/once"
	"github.com/certwright/certwright/shared/outbox"
)

// Inventory answers what certificates and versions are right now.
type Inventory interface {
	GetCertificate(ctx context.Context, in *inventoryv1.GetCertificateRequest, opts ...grpc.CallOption) (*inventoryv1.Certificate, error)
	GetVersionStatus(ctx context.Context, in *inventoryv1.GetVersionStatusRequest, opts ...grpc.CallOption) (*inventoryv1.VersionStatus, error)
	ListChanges(ctx context.Context, in *inventoryv1.ListChangesRequest, opts ...grpc.CallOption) (*inventoryv1.ListChangesResponse, error)
}

// Keys releases private keys, sealed to a receiver.
type Keys interface {
	Release(ctx context.Context, in *keysv1.ReleaseRequest, opts ...grpc.CallOption) (*keysv1.ReleaseResponse, error)
}

// Receiver opens what was sealed to this process.
type Receiver interface {
	Public() []byte
	Open(sealed, info []byte) ([]byte, error)
}

// Host puts files in their places and runs commands; *filehost.Host is one.
type Host interface {
	Check(t domain.FileTarget) error
	Look(in filehost.Installation, public crypto.PublicKey) (filehost.Current, error)
	Install(ctx context.Context, in filehost.Installation, key []byte) error
	Confirm(in filehost.Installation) error
	Restore(in filehost.Installation) (fingerprint string, restored bool, err error)
	Reload(ctx context.Context, name string) (output string, err error)
}

// Hosts finds a host by its name. Invalid DEPLOY_HOST_UNKNOWN names those that there are.
type Hosts interface {
	Host(name string) (Host, error)
}

// Prober looks at what is served.
type Prober interface {
	Served(ctx context.Context, address, serverName string) (fingerprint string, err error)
}

// App is the service's use cases.
type App struct {
	Targets     *outbox.Collection[domain.Target]
	Bindings    *outbox.Collection[domain.Binding]
	Deployments *outbox.Collection[domain.Deployment]
	Requests    *once.Requests
	Inventory   Inventory
	Keys        Keys
	Receiver    Receiver
	Hosts       Hosts
	Prober      Prober
	Clock       clock.Clock
	Logger      *slog.Logger
	VerifyFor   time.Duration // how long is looked for the new certificate to be served
	VerifyPoll  time.Duration // how often
	DetachedFor time.Duration // how long the binding of a deleted certificate is remembered
}

// Specs declares the collections.
func Specs() (targets, bindings, deployments docstore.Spec) {
	index := func(fields ...string) docstore.Index { return docstore.Index{Fields: fields} }
	return docstore.Spec{Name: "targets", Indexes: []docstore.Index{index("team"), index("forget_at")}},
		docstore.Spec{Name: "bindings", Indexes: []docstore.Index{
			{Fields: []string{"slot"}, Unique: true},
			index("certificate_id"),
			index("target_id"),
			index("team"),
			index("forget_at"),
		}},
		docstore.Spec{Name: "deployments", Indexes: []docstore.Index{
			index("binding_id", "open"),
			index("version_id", "open"),
			index("binding_id"),
			index("certificate_id"),
			index("target_id"),
			index("state"),
			index("team"),
			index("forget_at"),
		}}
}

type (
	targetDoc     = docstore.Doc[domain.Target]
	bindingDoc    = docstore.Doc[domain.Binding]
	deploymentDoc = docstore.Doc[domain.Deployment]
)

// storedBinding sets what follows from the binding's state. It is the one place where the due time is derived.
func storedBinding(d *bindingDoc) { d.WorkAt, d.Tombstone = d.Body.Due(), !d.Body.Attached }

// changeBinding applies f, which reports whether anything changed.
func (a *App) changeBinding(ctx context.Context, id string, f func(b *domain.Binding, now time.Time) bool) (bindingDoc, error) {
	return a.Bindings.Change(ctx, id, func(d *bindingDoc) ([]outbox.Fact, error) {
		if !f(&d.Body, a.Clock.Now()) {
			return nil, outbox.ErrUnchanged
		}
		storedBinding(d)
		return nil, nil
	})
}

// storedDeployment sets what follows from the deployment's state, and makes facts of its events. It is the one place where the due time is derived.
func storedDeployment(d *deploymentDoc, events []proto.Message) []outbox.Fact {
	d.WorkAt = d.Body.Due()
	facts := make([]outbox.Fact, len(events))
	for i, e := range events {
		facts[i] = outbox.Tell(e)
	}
	return facts
}

func (a *App) supersede(ctx context.Context, id string, p domain.Problem) error {
	_, err := a.Deployments.Change(ctx, id, func(d *deploymentDoc) ([]outbox.Fact, error) {
		if !d.Body.Supersede(p, a.Clock.Now()) {
			return nil, outbox.ErrUnchanged
		}
		d.Body.Log(a.Clock.Now(), "superseded", p.Detail, true)
		return storedDeployment(d, nil), nil
	})
	return ignoreNotFound(err)
}

// each calls f for every document that the conditions match.
func each[T any](ctx context.Context, c *outbox.Collection[T], f func(d docstore.Doc[T]) error, where ...docstore.Cond) error {
	q := docstore.Query{Where: where, Limit: 1000}
	for {
		page, err := c.Find(ctx, q)
		if err != nil {
			return err
		}
		for _, d := range page.Docs {
			if err := f(d); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		q.After = page.Next
	}
}

func eq(field string, value any) docstore.Cond {
	return docstore.Cond{Field: field, Op: docstore.Eq, Value: value}
}

func ignoreNotFound(err error) error {
	if errs.KindOf(err) == errs.NotFound {
		return nil
	}
	return err
}

// Forget removes what is remembered of things long gone.
func (a *App) Forget(ctx context.Context) error {
	old := docstore.Cond{Field: "forget_at", Op: docstore.Lte, Value: a.Clock.Now()}
	return errors.Join(a.Bindings.RemoveAll(ctx, old), a.Targets.RemoveAll(ctx, old), a.Deployments.RemoveAll(ctx, old), a.Requests.Sweep(ctx))
}

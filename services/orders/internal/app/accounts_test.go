package app_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	certev "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/services/orders/internal/app"
	"github.com/certwright/certwright/services/orders/internal/domain"
	transport "github.com/certwright/certwright/services/orders/internal/transport/grpc"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
	"github.com/certwright/certwright/shared/outbox"
)

var accountID = app.AccountID(issuerID)

// registered is a universe in which nothing goes wrong, with an account that has brought a certificate.
func registered(t *testing.T) *universe {
	t.Helper()
	u := newUniverse(t, t, 1, 0, 0)
	t.Cleanup(u.end)
	u.ca.forgets = true
	u.issue(t, 1)
	return u
}

// issue brings a certificate and returns its order.
func (u *universe) issue(t *testing.T, n int) domain.Order {
	t.Helper()
	r := u.request(n, []string{"a.example.org"}, "")
	require.NoError(t, u.tell(r))
	u.run(0)
	d, err := u.now.app.Orders.Get(t.Context(), r.GetOrderId())
	require.NoError(t, err)
	return d.Body
}

func (u *universe) account(t *testing.T) app.Account {
	t.Helper()
	d, err := u.now.app.Accounts.Get(t.Context(), accountID)
	require.NoError(t, err)
	return d.Body
}

// until lets time pass until f holds of the account.
func (u *universe) until(t *testing.T, f func(x app.Account) bool) app.Account {
	t.Helper()
	for range 20_000 {
		if x := u.account(t); f(x) {
			return x
		}
		u.pass()
	}
	require.Fail(t, "the account does not get there", "%+v", u.account(t))
	return app.Account{}
}

func settledKey(x app.Account) bool { return x.NextThumbprint == "" }

func TestTheKeyOfAnAccountIsChanged(t *testing.T) {
	u := registered(t)
	before := u.account(t)
	rpc := &transport.Server{App: u.now.app}
	m, err := rpc.RotateAccountKey(t.Context(), &ordersv1.RotateAccountKeyRequest{Id: accountID})
	require.NoError(t, err)
	require.Equal(t, "rotate_key", m.GetPending())
	require.Equal(t, before.Thumbprint, m.GetKeyThumbprint())
	after := u.until(t, settledKey)
	require.NotEqual(t, before.Thumbprint, after.Thumbprint)
	require.Equal(t, after.Thumbprint, u.ca.accountKey)
	require.Equal(t, before.URL, after.URL)
	require.Equal(t, 1, u.ca.keyChanges)
	require.False(t, after.KeyAt.IsZero())
	require.Equal(t, domain.Issued, u.issue(t, 2).State, "orders go on with the new key")
	require.Equal(t, 1, u.ca.registers)
	seen, err := rpc.GetAccount(t.Context(), &ordersv1.GetAccountRequest{Id: accountID})
	require.NoError(t, err)
	require.Equal(t, "valid", seen.GetCaStatus())
	require.Empty(t, seen.GetPending())
}

func TestAKeyChangeWhoseAnswerIsLostIsFoundOut(t *testing.T) {
	u := registered(t)
	u.ca.changed = func(error) error {
		u.ca.changed = nil
		return &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_TIMEOUT", Detail: "no answer", Retrying: true}}
	}
	_, err := u.now.app.RotateKey(t.Context(), accountID)
	require.NoError(t, err)
	require.Equal(t, u.until(t, settledKey).Thumbprint, u.ca.accountKey)
	require.Equal(t, 1, u.ca.keyChanges)
	require.Equal(t, domain.Issued, u.issue(t, 2).State)
}

func TestACrashRightAfterTheCAChangedTheKeyLosesNoAccount(t *testing.T) {
	u := registered(t)
	died := make(chan struct{})
	u.ca.changed = func(err error) error {
		u.ca.changed = nil
		u.now.dead.Store(true) // nothing of this life is stored any more
		close(died)
		return err
	}
	_, err := u.now.app.RotateKey(t.Context(), accountID)
	require.NoError(t, err)
	for over := false; !over; {
		select {
		case <-died:
			over = true
		default:
			u.pass()
		}
	}
	raw, err := u.memory.Get(t.Context(), "accounts", accountID) // past the process that is dead
	require.NoError(t, err)
	stored, err := docstore.Decode[app.Account](raw)
	require.NoError(t, err)
	require.NotEqual(t, stored.Body.Thumbprint, u.ca.accountKey, "the CA has the new key and the store the old one")
	u.crash()
	require.Equal(t, u.until(t, settledKey).Thumbprint, u.ca.accountKey)
	require.Equal(t, 1, u.ca.keyChanges)
	require.Equal(t, domain.Issued, u.issue(t, 2).State)
	require.Equal(t, 1, u.ca.registers, "it is the same account")
}

func TestAKeyThatTheCARefusesLeavesTheOldOneInUse(t *testing.T) {
	u := registered(t)
	before := u.account(t).Thumbprint
	u.ca.changed = func(error) error {
		u.ca.accountKey = before
		return &domain.Failure{Problem: domain.Problem{Reason: "KEY_CHANGE_UNSUPPORTED", Detail: "cannot"}}
	}
	_, err := u.now.app.RotateKey(t.Context(), accountID)
	require.NoError(t, err)
	x := u.until(t, settledKey)
	require.Equal(t, before, x.Thumbprint)
	require.Equal(t, "KEY_CHANGE_UNSUPPORTED", x.Problem.Reason)
	require.Equal(t, domain.Issued, u.issue(t, 2).State)
}

func TestAKeyChangeThatCameTrueAfterItWasGivenUpIsFoundOut(t *testing.T) {
	u := registered(t)
	before := u.account(t).Thumbprint
	late := ""
	u.ca.changed = func(error) error {
		u.ca.changed = nil
		late, u.ca.accountKey = u.ca.accountKey, before
		return &domain.Failure{Problem: domain.Problem{Reason: "RATE_LIMITED", Detail: "slowly", Retrying: true}}
	}
	_, err := u.now.app.RotateKey(t.Context(), accountID)
	require.NoError(t, err)
	require.Equal(t, before, u.until(t, settledKey).Thumbprint)
	u.ca.accountKey = late // by a request that was on its way
	require.Equal(t, domain.Issued, u.issue(t, 2).State)
	require.Equal(t, late, u.account(t).Thumbprint)
	require.Equal(t, 1, u.ca.registers)
}

func TestACAThatNeverAnswersAKeyChangeDoesNotHoldTheOrdersUp(t *testing.T) {
	u := registered(t)
	before := u.account(t).Thumbprint
	tries := 0
	u.ca.changed = func(err error) error {
		u.ca.accountKey = before
		if tries++; tries > 5 {
			return err // it was only asked
		}
		return &domain.Failure{Unknown: true, Problem: domain.Problem{Reason: "CA_ERROR", Detail: "oops", Retrying: true}}
	}
	_, err := u.now.app.RotateKey(t.Context(), accountID)
	require.NoError(t, err)
	x := u.until(t, settledKey)
	require.Equal(t, before, x.Thumbprint)
	require.Equal(t, 6, tries, "%+v", x.Problem)
	require.Equal(t, domain.Issued, u.issue(t, 2).State)
}

func TestAnAnswerMadeWithTheOldKeyIsNotSent(t *testing.T) {
	u := registered(t)
	_, err := u.now.app.Orders.Change(t.Context(), "ord_1", func(d *docstore.Doc[domain.Order]) ([]outbox.Fact, error) {
		done := d.Body
		d.Body = domain.FromRequested(u.asked[0], u.clock.Now())
		authorizing(&d.Body)
		d.Body.CSR, d.Body.KeyID, d.Body.SPKI = done.CSR, done.KeyID, done.SPKI
		d.Body.Attempts[0].AccountID, d.Body.Attempts[0].AccountKey = accountID, "another"
		d.Body.Attempts[0].Authorizations[0].State = domain.AuthzPresented
		d.Body.Attempts[0].Authorizations[0].Answered = "http-01"
		d.WorkAt = u.clock.Now()
		return nil, nil
	})
	require.NoError(t, err)
	u.heard = map[string]bool{}
	u.closed = map[string]bool{}
	u.run(0)
	d, err := u.now.app.Orders.Get(t.Context(), "ord_1")
	require.NoError(t, err)
	require.Equal(t, domain.Issued, d.Body.State)
	require.Equal(t, "ACCOUNT_KEY_CHANGED", d.Body.Attempts[0].Problem.Reason)
	require.Equal(t, domain.AttemptDone, d.Body.Attempts[len(d.Body.Attempts)-1].State) // the second, unless time went by before an answer was written
}

func TestADeactivatedAccountOrdersNothingUntilItIsActivated(t *testing.T) {
	u := registered(t)
	before := u.account(t)
	rpc := &transport.Server{App: u.now.app}
	m, err := rpc.DeactivateAccount(t.Context(), &ordersv1.DeactivateAccountRequest{Id: accountID})
	require.NoError(t, err)
	require.Equal(t, "deactivating", m.GetState())
	require.Equal(t, "deactivate", m.GetPending())
	u.until(t, func(x app.Account) bool { return x.State == app.AccountDeactivated })
	require.True(t, u.ca.ended)
	_, err = rpc.RotateAccountKey(t.Context(), &ordersv1.RotateAccountKeyRequest{Id: accountID})
	require.Equal(t, "ACCOUNT_STATE", errs.ReasonOf(err))

	o := u.issue(t, 2)
	require.Equal(t, domain.Failed, o.State)
	require.Equal(t, "ACCOUNT_DEACTIVATED", o.Problem.Reason)
	require.Contains(t, o.Problem.Detail, "activate it")
	require.Equal(t, 1, u.ca.registers)

	m, err = rpc.ActivateAccount(t.Context(), &ordersv1.ActivateAccountRequest{Id: accountID})
	require.NoError(t, err)
	require.Equal(t, "registering", m.GetState())
	require.Equal(t, domain.Issued, u.issue(t, 3).State)
	require.NotEqual(t, before.URL, u.account(t).URL)
	require.NotEqual(t, before.Thumbprint, u.account(t).Thumbprint, "no CA takes the key of a deactivated account again")
}

func TestTheCAHearsOfNewContacts(t *testing.T) {
	u := registered(t)
	rpc := &transport.Server{App: u.now.app}
	_, err := rpc.UpdateIssuer(t.Context(), &ordersv1.UpdateIssuerRequest{
		Id: "lab", Issuer: &ordersv1.Issuer{Acme: &ordersv1.AcmeIssuer{Contacts: []string{"new@example.org"}}}, UpdateMask: mask("acme.contacts"),
	})
	require.NoError(t, err)
	u.until(t, func(x app.Account) bool { return len(x.Contacts) == 1 })
	require.Equal(t, []string{"new@example.org"}, u.ca.contacts)
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestARevocationThatTheAccountMayNotAskForIsAskedForByTheKey(t *testing.T) {
	for _, r := range []struct {
		name, account, key string
		change             func(t *testing.T, u *universe)
		state              domain.RevocationState
		reason             string
		byKey              int
	}{
		{"the account may", accountID, "key_ord_1", func(*testing.T, *universe) {}, domain.RevocationDone, "", 0},
		{"another account ordered it", accountID, "key_ord_1", func(_ *testing.T, u *universe) { u.ca.foreign = true }, domain.RevocationDone, "", 1},
		{"the account is not known here", "acc_gone", "key_ord_1", func(*testing.T, *universe) {}, domain.RevocationDone, "", 1},
		{"the account is deactivated", accountID, "key_ord_1", func(t *testing.T, u *universe) {
			_, err := u.now.app.DeactivateAccount(t.Context(), accountID)
			require.NoError(t, err)
		}, domain.RevocationDone, "", 1},
		{"there is no key", "acc_gone", "", func(*testing.T, *universe) {}, domain.RevocationFailed, "REVOCATION_KEY_MISSING", 0},
		{"the key is destroyed", "acc_gone", "key_2", func(*testing.T, *universe) {}, domain.RevocationFailed, "KEY_DESTROYED", 0},
	} {
		t.Run(r.name, func(t *testing.T) {
			u := registered(t)
			r.change(t, u)
			require.NoError(t, u.tell(&certev.RevocationRequested{
				CertificateId: "crt_1", Reason: "keyCompromise", By: "user:ann", CertificateDer: []byte{1},
				Version: &typesv1.VersionFacts{VersionId: "ver_1", IssuerId: issuerID, AccountId: r.account, KeyId: r.key},
			}))
			var got domain.Revocation
			for range 20_000 {
				d, err := u.now.app.Revocations.Get(context.Background(), id.Derive("rvk", "ver_1"))
				require.NoError(t, err)
				if got = d.Body; got.State != domain.RevocationPending {
					break
				}
				u.pass()
			}
			require.Equal(t, r.state, got.State, "%+v", got.Problem)
			require.Equal(t, r.byKey, u.ca.byKey)
			if r.reason != "" {
				require.Equal(t, r.reason, got.Problem.Reason)
			}
		})
	}
}

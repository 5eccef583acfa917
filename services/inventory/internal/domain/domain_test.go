package domain

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	"github.com/certwright/certwright/shared/errs"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(n int) Moment {
	return Moment{ID: "crt_1", Now: start.Add(time.Duration(n) * time.Minute), Order: fmt.Sprintf("ord_%d", n)}
}

func version(order string, number int64) Version {
	return Version{CertificateID: "crt_1", Chain: [][]byte{{1}}, Facts: Facts{
		VersionID: "ver_" + strings.TrimPrefix(order, "ord_"), OrderID: order, Number: number, Names: []string{"a.example.org"}, NotAfter: start.Add(90 * 24 * time.Hour),
	}}
}

func spec(names ...string) Spec {
	return Spec{Issuer: "iss_1", Names: names, KeyAlgorithm: "ECDSA_P256", ChallengeType: "auto"}
}

// The situations that a certificate can be in, as far as its events differ.
func situations() map[string]func() Certificate {
	fresh := func() Certificate {
		c, _ := New(Certificate{Spec: spec("a.example.org"), Owner: "ops"}, at(1))
		return c
	}
	issued := func() Certificate {
		c := fresh()
		c.AddVersion(version("ord_1", 1), TakenAsCurrent, at(2))
		return c
	}
	edit := func(c Certificate) Certificate {
		s := spec("b.example.org")
		_, _ = c.Edit(Edit{Spec: &s}, at(4))
		return c
	}
	renewing := func() Certificate {
		c := issued()
		c.RequestVersion(Ask{Cause: "schedule"}, at(3))
		return c
	}
	revoking := func() Certificate {
		c := issued()
		v := version("ord_1", 1)
		_, _ = c.Revoke(RevokeAsk{Version: v.Facts, DER: v.Chain[0], Reason: "superseded", Now: true}, at(3))
		return c
	}
	deleted := func(c Certificate) Certificate {
		c.Delete(at(5))
		return c
	}
	return map[string]func() Certificate{
		"first order open":            fresh,
		"first order open and edited": func() Certificate { return edit(fresh()) },
		"first order failed":          func() Certificate { c := fresh(); c.CloseIntent("ord_1", Failed, nil, false, at(2)); return c },
		"active":                      issued,
		"renewing":                    renewing,
		"renewing and edited":         func() Certificate { return edit(renewing()) },
		"revoking and renewing":       revoking,
		"deleted with an order open":  func() Certificate { return deleted(renewing()) },
		"deleted":                     func() Certificate { return deleted(issued()) },
	}
}

// The events; each acts on the order that is open or was last.
func eventsOf() map[string]func(c *Certificate) Outcome {
	m := at(9)
	issued := func(c *Certificate, order string, number int64, stored bool) Outcome {
		verdict := c.Judge(order, number, stored)
		if verdict.Refused() {
			return c.Refuse(order, verdict, m)
		}
		return c.AddVersion(version(order, number), verdict, m)
	}
	end := func(outcome string, user bool) func(c *Certificate) Outcome {
		return func(c *Certificate) Outcome {
			return c.CloseIntent(c.Intent.OrderID, outcome, &Problem{Reason: "X"}, user, m)
		}
	}
	return map[string]func(c *Certificate) Outcome{
		"ask": func(c *Certificate) Outcome {
			_, o := c.RequestVersion(Ask{Cause: "manual", Person: true}, m)
			return o
		},
		"edit": func(c *Certificate) Outcome {
			s := spec("c.example.org")
			o, _ := c.Edit(Edit{Spec: &s}, m)
			return o
		},
		"accepted":          func(c *Certificate) Outcome { return c.Accept(c.Intent.OrderID) },
		"issued":            func(c *Certificate) Outcome { return issued(c, c.Intent.OrderID, c.Intent.Number, false) },
		"an older issued":   func(c *Certificate) Outcome { return issued(c, "ord_0", 0, false) },
		"a foreign issued":  func(c *Certificate) Outcome { return issued(c, "ord_x", c.Intent.Number, false) },
		"failed":            end(Failed, false),
		"rejected":          end(Rejected, false),
		"cancelled":         end(Cancelled, true),
		"an older failed":   func(c *Certificate) Outcome { return c.CloseIntent("ord_0", Failed, nil, false, m) },
		"delete":            func(c *Certificate) Outcome { return c.Delete(m) },
		"revoke":            func(c *Certificate) Outcome { return revoke(c, RevokeAsk{Reason: "unspecified", Wait: time.Hour}, m) },
		"key compromised":   func(c *Certificate) Outcome { return revoke(c, RevokeAsk{Reason: ReasonKeyCompromise}, m) },
		"revocation done":   func(c *Certificate) Outcome { return c.RevocationEnded("ver_1", false, nil, m) },
		"revocation failed": func(c *Certificate) Outcome { return c.RevocationEnded("ver_1", false, &Problem{Detail: "no"}, m) },
		"planned": func(c *Certificate) Outcome {
			return c.Planned(Renewal{State: "planned", Epoch: "e", Revision: 1}, c.Intent.Number)
		},
	}
}

func revoke(c *Certificate, a RevokeAsk, m Moment) Outcome {
	if c.Current == nil {
		return Outcome{}
	}
	a.Version, a.DER = *c.Current, []byte{1}
	o, _ := c.Revoke(a, m)
	return o
}

// says renders what happened: the facts with their keys ("!" awaited), what was answered and forgotten, and the intent after.
func says(c Certificate, o Outcome) string {
	if !o.Changed && len(o.Answered) == 0 {
		return "-"
	}
	var parts []string
	for _, f := range o.Facts {
		s := strings.TrimPrefix(string(proto.MessageName(f.Message)), "certwright.events.certificate.v1.")
		if f.Key != "" {
			s += "(" + f.Key + ")"
		}
		if f.Await {
			s += "!"
		}
		parts = append(parts, s)
	}
	parts = append(parts, fmt.Sprintf("→ #%d %s", c.Intent.Number, c.Intent.Outcome))
	return strings.Join(parts, " ")
}

func TestEveryEventInEverySituation(t *testing.T) {
	want := map[string]map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(line, "|")
		require.Len(t, cells, 3, line)
		s, e := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1])
		if want[s] == nil {
			want[s] = map[string]string{}
		}
		want[s][e] = strings.TrimSpace(cells[2])
	}
	for situation, make := range situations() {
		for event, apply := range eventsOf() {
			t.Run(situation+": "+event, func(t *testing.T) {
				c := make()
				deleted := c.Deleted()
				o := apply(&c)
				require.Equal(t, want[situation][event], says(c, o), "%s | %s | %s", situation, event, says(c, o))
				if deleted {
					require.True(t, c.Deleted())
				}
			})
		}
	}
}

func TestADoorThatAnswersWhyNothingIsToDo(t *testing.T) {
	make := situations()
	for name, row := range map[string]struct {
		c    Certificate
		ask  Ask
		want string
	}{
		"a deleted certificate asks for nothing":                   {make["deleted"](), Ask{}, "the certificate was deleted"},
		"a version that is replaced already":                       {make["active"](), Ask{Replaces: "ver_0"}, "version ver_0 is not current any more; ver_1 is"},
		"a version that never was":                                 {make["first order failed"](), Ask{Replaces: "ver_0"}, "the certificate has no version ver_0"},
		"a retry of a first issuance that has succeeded meanwhile": {make["active"](), Ask{First: true}, "version ver_1 exists"},
		"a repeated request whose order has ended":                 {make["active"](), Ask{AskedAt: start}, "the request was answered by order ord_1, which has ended: issued"},
	} {
		t.Run(name, func(t *testing.T) {
			a, o := row.c.RequestVersion(row.ask, at(9))
			require.True(t, a.NothingToDo)
			require.Equal(t, row.want, a.Explanation)
			require.False(t, o.Changed)
		})
	}
	c := make["renewing and edited"]()
	a, o := c.RequestVersion(Ask{Replaces: "ver_0"}, at(9))
	require.Equal(t, Answer{OrderID: "ord_3", SpecGeneration: 2, IntentNumber: 2, NextFollows: true}, a)
	require.False(t, o.Changed)
}

func TestAVersionRevokedWithoutReplacementIsReplacedByPeopleOnly(t *testing.T) {
	c := situations()["active"]()
	o := revoke(&c, RevokeAsk{Reason: "cessationOfOperation", NoReplacement: true}, at(3))
	require.Equal(t, "RevocationRequested(revoke/ver_1)! → #1 issued", says(c, o))
	a, _ := c.RequestVersion(Ask{Cause: "revocation"}, at(4))
	require.True(t, a.NothingToDo)
	require.Contains(t, a.Explanation, "only a person may ask for another")
	a, _ = c.RequestVersion(Ask{Cause: "manual", Person: true}, at(4))
	require.Equal(t, "ord_4", a.OrderID)
	require.False(t, c.NoReplacement)
}

func TestARevocationWaitsUntilItsReplacementIsServed(t *testing.T) {
	served := func(version string, revision int64) Binding {
		return Binding{ID: "bnd_1", VersionID: version, Served: true, DeploymentID: "dep_" + version, Generation: revision, Epoch: "e", Revision: 1}
	}
	c := situations()["active"]()
	c.Deployed(served("ver_1", 1), "", "", at(2))
	o := revoke(&c, RevokeAsk{Reason: "superseded", Wait: 24 * time.Hour}, at(3))
	require.Equal(t, "Requested(requested/2)! → #2 open", says(c, o))
	require.Equal(t, start.Add(3*time.Minute+24*time.Hour), c.WorkAt())

	o = c.AddVersion(version("ord_3", 2), TakenAsCurrent, at(4))
	require.Equal(t, "VersionAdded(version/ord_3) Renewed IntentClosed(closed/2)! → #2 issued", says(c, o), "it is not served yet")
	o = c.Deployed(Binding{ID: "bnd_1", VersionID: "ver_3", DeploymentID: "dep_ver_3", Generation: 2, Epoch: "e", Revision: 1}, "", "", at(5))
	require.Empty(t, o.Facts, "a deployment that began does not serve yet")
	b := served("ver_3", 2)
	b.Revision = 2
	o = c.Deployed(b, "", "", at(6))
	require.Equal(t, "RevocationRequested(revoke/ver_1)! → #2 issued", says(c, o))
	require.Equal(t, Never, c.WorkAt())

	o = c.RevocationEnded("ver_1", true, nil, at(7))
	require.Equal(t, "VersionRevoked → #2 issued", says(c, o))
	require.False(t, o.Facts[0].Message.(*certificateeventsv1.VersionRevoked).GetCurrent())
	require.False(t, c.CurrentRevoked)
	state, r := c.VersionState(version("ord_1", 1))
	require.Equal(t, VersionRevoked, state)
	require.Nil(t, r.DER, "the certificate is not kept twice")
}

func TestARevocationIsSentAfterItsWaitWhateverBecomesOfTheReplacement(t *testing.T) {
	c := situations()["active"]()
	revoke(&c, RevokeAsk{Reason: "superseded", Wait: time.Hour}, at(3))
	c.CloseIntent("ord_3", Failed, nil, false, at(4))
	require.Empty(t, c.Release(at(62)).Facts)
	require.Equal(t, "RevocationRequested(revoke/ver_1)! → #2 failed", says(c, c.Release(at(63))))
	require.False(t, c.Release(at(64)).Changed)
}

func TestARevocationThatWaitsIsHurriedByAWorseReason(t *testing.T) {
	c := situations()["active"]()
	revoke(&c, RevokeAsk{Reason: "superseded", Wait: time.Hour}, at(3))
	require.False(t, revoke(&c, RevokeAsk{Reason: "unspecified", Wait: time.Hour}, at(4)).Changed)
	o := revoke(&c, RevokeAsk{Reason: ReasonKeyCompromise}, at(5))
	require.Equal(t, "RevocationRequested(revoke/ver_1)! → #2 open", says(c, o))
	require.Equal(t, ReasonKeyCompromise, o.Facts[0].Message.(*certificateeventsv1.RevocationRequested).GetReason())
}

func TestAnExpiredVersionIsNotRevoked(t *testing.T) {
	c := situations()["active"]()
	_, err := c.Revoke(RevokeAsk{Version: *c.Current, Reason: "unspecified"}, Moment{ID: "crt_1", Now: start.Add(91 * 24 * time.Hour)})
	require.True(t, errors.Is(err, errs.New(errs.Precondition, "VERSION_EXPIRED", "")))
	require.ErrorContains(t, err, "there is nothing to revoke")
}

func TestARefusedRevocationLeavesTheVersionAndAFinding(t *testing.T) {
	c := situations()["revoking and renewing"]()
	o := c.RevocationEnded("ver_1", false, &Problem{Detail: "not yours"}, at(9))
	require.Equal(t, "RevocationFailed → #2 open", says(c, o))
	state, _ := c.VersionState(version("ord_1", 1))
	require.Equal(t, VersionCurrent, state)
	require.Equal(t, "the CA refuses to revoke version ver_1: not yours", c.ShownFindings(start)[0].Detail)
	require.Empty(t, c.ShownFindings(start.Add(90*24*time.Hour)), "it does not matter any more when the version has expired")
}

func TestDeletingSaysWhatStaysValid(t *testing.T) {
	make := situations()
	for name, want := range map[string]string{
		"active":                "Version ver_1 for a.example.org stays valid wherever it is installed until 2027-02-20T12:00:00Z, unless it is revoked.",
		"first order open":      "It had no version yet. Order ord_1 is cancelled if it is not being finalized already; a certificate that still comes is not stored.",
		"revoking and renewing": "Nothing of it is valid any more. Order ord_3 is cancelled",
	} {
		c := make[name]()
		require.True(t, strings.HasPrefix(c.Notice(start), want), "%s: %s", name, c.Notice(start))
	}
}

func TestARevocationThatWaitsIsSentWhenTheCertificateIsDeleted(t *testing.T) {
	c := situations()["active"]()
	revoke(&c, RevokeAsk{Reason: "superseded", Wait: time.Hour}, at(3))
	require.Equal(t, "Deleted(deleted)! RevocationRequested(revoke/ver_1)! → #2 open", says(c, c.Delete(at(4))))
	require.Equal(t, "IntentClosed → #2 cancelled", says(c, c.CloseIntent("ord_3", Cancelled, nil, false, at(5))))
	require.True(t, c.Revoking())
	require.Equal(t, "VersionRevoked → #2 cancelled", says(c, c.RevocationEnded("ver_1", false, nil, at(6))))
	require.False(t, c.Revoking())
}

func TestNewsOfDeploymentsThatAreNotNewerChangeNothing(t *testing.T) {
	b := Binding{ID: "bnd_1", DeploymentID: "dep_1", Generation: 2, Epoch: "e1", Revision: 5}
	for name, row := range map[string]struct {
		change func(*Binding)
		newer  bool
	}{
		"the same again":                               {func(*Binding) {}, false},
		"an older revision":                            {func(b *Binding) { b.Revision = 4 }, false},
		"an older revision of a later epoch":           {func(b *Binding) { b.Epoch, b.Revision = "e2", 1 }, true},
		"a later revision of an older epoch":           {func(b *Binding) { b.Epoch, b.Revision = "e0", 9 }, false},
		"an older generation with a later revision":    {func(b *Binding) { b.DeploymentID, b.Generation, b.Revision = "dep_0", 1, 9 }, false},
		"a later generation of another deployment":     {func(b *Binding) { b.DeploymentID, b.Generation, b.Revision = "dep_2", 3, 1 }, true},
		"a later revision of the same one":             {func(b *Binding) { b.Revision = 6 }, true},
		"the first news of a binding not heard of yet": {func(b *Binding) { b.ID = "bnd_2" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := situations()["active"]()
			c.Deployed(b, "DEPLOYMENT_STUCK", "stuck", at(3))
			next := b
			row.change(&next)
			require.Equal(t, row.newer, c.Deployed(next, "DEPLOYMENT_FAILED", "failed", at(4)).Changed)
		})
	}
	c := situations()["active"]()
	c.Deployed(b, "DEPLOYMENT_STUCK", "stuck", at(3))
	b.Revision, b.Served = 6, true
	c.Deployed(b, "", "", at(4))
	require.Empty(t, c.Findings, "what is served needs no finding")
}

func TestABindingThatCannotBeMadeIsTriedMoreAndMoreSeldom(t *testing.T) {
	c, _ := New(Certificate{Spec: spec("a.example.org"), DeployTo: []Pending{{TargetID: "tgt_1", NextAt: start}}}, at(0))
	for _, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		c.BindingFailed("tgt_1", "no such target", at(1))
		require.Equal(t, at(1).Now.Add(wait), c.WorkAt())
	}
	for range 20 {
		c.BindingFailed("tgt_1", "no such target", at(1))
	}
	require.Equal(t, at(1).Now.Add(time.Hour), c.WorkAt())
	require.Equal(t, "target tgt_1 is not bound yet: no such target", c.Findings[0].Detail)
	require.Len(t, c.Findings, 1)
	c.BindingMade("tgt_1", "bnd_1", at(2))
	require.Equal(t, Never, c.WorkAt())
	require.Empty(t, c.Findings)
}

func TestStatesAreDerived(t *testing.T) {
	make := situations()
	later := start.Add(91 * 24 * time.Hour)
	for name, row := range map[string]struct {
		c    Certificate
		now  time.Time
		want string
	}{
		"no version yet":          {make["first order open"](), start, StatePending},
		"a valid version":         {make["renewing"](), start, StateActive},
		"an expired version":      {make["active"](), later, StateExpired},
		"a tombstone":             {make["deleted"](), later, StateDeleted},
		"a revoked version first": {func() Certificate { c := make["active"](); c.CurrentRevoked = true; return c }(), later, StateRevoked},
	} {
		require.Equal(t, row.want, row.c.State(row.now), name)
	}
}

// What every event does in every situation: the facts with the keys under which they are kept (! awaited), and the intent after.
const table = `
active | a foreign issued | VersionRefused(version/ord_x) → #1 issued
active | accepted | -
active | an older failed | -
active | an older issued | VersionAdded(version/ord_0) → #1 issued
active | ask | Requested(requested/2)! → #2 open
active | cancelled | -
active | delete | Deleted → #1 issued
active | edit | Requested(requested/2)! → #2 open
active | failed | -
active | issued | VersionAdded(version/ord_1) → #1 issued
active | key compromised | RevocationRequested(revoke/ver_1)! Requested(requested/2)! → #2 open
active | planned | → #1 issued
active | rejected | -
active | revocation done | -
active | revocation failed | -
active | revoke | Requested(requested/2)! → #2 open
deleted with an order open | a foreign issued | VersionRefused(version/ord_x) → #2 open
deleted with an order open | accepted | → #2 open
deleted with an order open | an older failed | -
deleted with an order open | an older issued | VersionRefused(version/ord_0) → #2 open
deleted with an order open | ask | -
deleted with an order open | cancelled | IntentClosed → #2 cancelled
deleted with an order open | delete | -
deleted with an order open | edit | -
deleted with an order open | failed | IntentClosed → #2 failed
deleted with an order open | issued | VersionRefused(version/ord_3) IntentClosed → #2 cancelled
deleted with an order open | key compromised | RevocationRequested(revoke/ver_1)! → #2 open
deleted with an order open | planned | -
deleted with an order open | rejected | IntentClosed → #2 rejected
deleted with an order open | revocation done | -
deleted with an order open | revocation failed | -
deleted with an order open | revoke | RevocationRequested(revoke/ver_1)! → #2 open
deleted | a foreign issued | VersionRefused(version/ord_x) → #1 issued
deleted | accepted | -
deleted | an older failed | -
deleted | an older issued | VersionRefused(version/ord_0) → #1 issued
deleted | ask | -
deleted | cancelled | -
deleted | delete | -
deleted | edit | -
deleted | failed | -
deleted | issued | VersionAdded(version/ord_1) → #1 issued
deleted | key compromised | RevocationRequested(revoke/ver_1)! → #1 issued
deleted | planned | -
deleted | rejected | -
deleted | revocation done | -
deleted | revocation failed | -
deleted | revoke | RevocationRequested(revoke/ver_1)! → #1 issued
first order failed | a foreign issued | VersionRefused(version/ord_x) → #1 failed
first order failed | accepted | -
first order failed | an older failed | -
first order failed | an older issued | VersionAdded(version/ord_0) → #1 failed
first order failed | ask | Requested(requested/2)! → #2 open
first order failed | cancelled | -
first order failed | delete | Deleted → #1 failed
first order failed | edit | Requested(requested/2)! → #2 open
first order failed | failed | -
first order failed | issued | VersionAdded(version/ord_1) → #1 failed
first order failed | key compromised | -
first order failed | planned | → #1 failed
first order failed | rejected | -
first order failed | revocation done | -
first order failed | revocation failed | -
first order failed | revoke | -
first order open and edited | a foreign issued | VersionRefused(version/ord_x) → #1 open
first order open and edited | accepted | → #1 open
first order open and edited | an older failed | -
first order open and edited | an older issued | VersionAdded(version/ord_0) → #1 open
first order open and edited | ask | -
first order open and edited | cancelled | IntentClosed(closed/1)! Requested(requested/2)! → #2 open
first order open and edited | delete | Deleted(deleted)! → #1 open
first order open and edited | edit | SpecChanged(spec/ord_1)! → #1 open
first order open and edited | failed | IntentClosed(closed/1)! Requested(requested/2)! → #2 open
first order open and edited | issued | VersionAdded(version/ord_1) Issued IntentClosed(closed/1)! Requested(requested/2)! → #2 open
first order open and edited | key compromised | -
first order open and edited | planned | → #1 open
first order open and edited | rejected | IntentClosed(closed/1)! Requested(requested/2)! → #2 open
first order open and edited | revocation done | -
first order open and edited | revocation failed | -
first order open and edited | revoke | -
first order open | a foreign issued | VersionRefused(version/ord_x) → #1 open
first order open | accepted | → #1 open
first order open | an older failed | -
first order open | an older issued | VersionAdded(version/ord_0) → #1 open
first order open | ask | -
first order open | cancelled | IntentClosed(closed/1)! → #1 cancelled
first order open | delete | Deleted(deleted)! → #1 open
first order open | edit | SpecChanged(spec/ord_1)! → #1 open
first order open | failed | IntentClosed(closed/1)! → #1 failed
first order open | issued | VersionAdded(version/ord_1) Issued IntentClosed(closed/1)! → #1 issued
first order open | key compromised | -
first order open | planned | → #1 open
first order open | rejected | IntentClosed(closed/1)! → #1 rejected
first order open | revocation done | -
first order open | revocation failed | -
first order open | revoke | -
renewing and edited | a foreign issued | VersionRefused(version/ord_x) → #2 open
renewing and edited | accepted | → #2 open
renewing and edited | an older failed | -
renewing and edited | an older issued | VersionAdded(version/ord_0) → #2 open
renewing and edited | ask | -
renewing and edited | cancelled | IntentClosed(closed/2)! Requested(requested/3)! → #3 open
renewing and edited | delete | Deleted(deleted)! → #2 open
renewing and edited | edit | SpecChanged(spec/ord_3)! → #2 open
renewing and edited | failed | IntentClosed(closed/2)! Requested(requested/3)! → #3 open
renewing and edited | issued | VersionAdded(version/ord_3) Renewed IntentClosed(closed/2)! Requested(requested/3)! → #3 open
renewing and edited | key compromised | RevocationRequested(revoke/ver_1)! → #2 open
renewing and edited | planned | → #2 open
renewing and edited | rejected | IntentClosed(closed/2)! Requested(requested/3)! → #3 open
renewing and edited | revocation done | -
renewing and edited | revocation failed | -
renewing and edited | revoke | → #2 open
renewing | a foreign issued | VersionRefused(version/ord_x) → #2 open
renewing | accepted | → #2 open
renewing | an older failed | -
renewing | an older issued | VersionAdded(version/ord_0) → #2 open
renewing | ask | -
renewing | cancelled | IntentClosed(closed/2)! → #2 cancelled
renewing | delete | Deleted(deleted)! → #2 open
renewing | edit | SpecChanged(spec/ord_3)! → #2 open
renewing | failed | IntentClosed(closed/2)! → #2 failed
renewing | issued | VersionAdded(version/ord_3) Renewed IntentClosed(closed/2)! → #2 issued
renewing | key compromised | RevocationRequested(revoke/ver_1)! → #2 open
renewing | planned | → #2 open
renewing | rejected | IntentClosed(closed/2)! → #2 rejected
renewing | revocation done | -
renewing | revocation failed | -
renewing | revoke | → #2 open
revoking and renewing | a foreign issued | VersionRefused(version/ord_x) → #2 open
revoking and renewing | accepted | → #2 open
revoking and renewing | an older failed | -
revoking and renewing | an older issued | VersionAdded(version/ord_0) → #2 open
revoking and renewing | ask | -
revoking and renewing | cancelled | IntentClosed(closed/2)! → #2 cancelled
revoking and renewing | delete | Deleted(deleted)! → #2 open
revoking and renewing | edit | SpecChanged(spec/ord_3)! → #2 open
revoking and renewing | failed | IntentClosed(closed/2)! → #2 failed
revoking and renewing | issued | VersionAdded(version/ord_3) Renewed IntentClosed(closed/2)! → #2 issued
revoking and renewing | key compromised | -
revoking and renewing | planned | → #2 open
revoking and renewing | rejected | IntentClosed(closed/2)! → #2 rejected
revoking and renewing | revocation done | VersionRevoked → #2 open
revoking and renewing | revocation failed | RevocationFailed → #2 open
revoking and renewing | revoke | -
`

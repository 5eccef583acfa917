package domain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/id"
)

var now = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

const verifyFor = 30 * time.Second

func in(state State) Deployment {
	d := NewDeployment("bnd_1", Binding{CertificateID: "crt_1", TargetID: "tgt_1", DesiredVersionID: "ver_1", Generation: 3}, now)
	d.State, d.Fingerprint, d.Previous, d.Chain = state, "new", "old", [][]byte{{1}}
	if d.Open = state != Succeeded && state != Superseded; !d.Open {
		d.Chain = nil
	}
	d.Phase = map[bool]string{true: PhaseRestore}[state == RollingBack]
	d.VerifyUntil = now
	return d
}

// TestEveryPair walks each state with each thing that can happen to a deployment.
func TestEveryPair(t *testing.T) {
	both, neither := Features{Reload: true, Probe: true}, Features{}
	p := Problem{Reason: "R", Detail: "d"}
	type happening func(d *Deployment) ([]proto.Message, error)
	plain := func(f func(d *Deployment) error) happening {
		return func(d *Deployment) ([]proto.Message, error) { return nil, f(d) }
	}
	happen := map[string]struct {
		do   happening
		want map[State]State // where it is legal
		told int
	}{
		"admitted":                  {func(d *Deployment) ([]proto.Message, error) { return d.Admit("dep", Version{}, now) }, map[State]State{Queued: Installing}, 1},
		"waits":                     {plain(func(d *Deployment) error { return d.Wait(p, now, time.Second) }), map[State]State{Queued: Queued, Installing: Installing, Activating: Activating, Verifying: Verifying, RollingBack: RollingBack}, 0},
		"installed, to be reloaded": {func(d *Deployment) ([]proto.Message, error) { return d.Installed("dep", both, verifyFor, now) }, map[State]State{Installing: Activating}, 0},
		"installed, to be looked at": {func(d *Deployment) ([]proto.Message, error) {
			return d.Installed("dep", Features{Probe: true}, verifyFor, now)
		}, map[State]State{Installing: Verifying}, 0},
		"installed and that is all": {func(d *Deployment) ([]proto.Message, error) { return d.Installed("dep", neither, verifyFor, now) }, map[State]State{Installing: Succeeded}, 1},
		"found in use": {func(d *Deployment) ([]proto.Message, error) {
			return d.Found("dep", true, Features{Reload: true}, verifyFor, now)
		}, map[State]State{Installing: Succeeded}, 1},
		"found, to be looked at":     {func(d *Deployment) ([]proto.Message, error) { return d.Found("dep", true, both, verifyFor, now) }, map[State]State{Installing: Verifying}, 0},
		"found, not yet read":        {func(d *Deployment) ([]proto.Message, error) { return d.Found("dep", false, both, verifyFor, now) }, map[State]State{Installing: Activating}, 0},
		"activated, to be looked at": {func(d *Deployment) ([]proto.Message, error) { return d.Activated("dep", both, verifyFor, now) }, map[State]State{Activating: Verifying}, 0},
		"activated and that is all": {func(d *Deployment) ([]proto.Message, error) {
			return d.Activated("dep", Features{Reload: true}, verifyFor, now)
		}, map[State]State{Activating: Succeeded}, 1},
		"seen": {func(d *Deployment) ([]proto.Message, error) {
			return d.Verified("dep", "new", p, both, time.Second, now)
		}, map[State]State{Verifying: Succeeded}, 1},
		"not seen in time": {func(d *Deployment) ([]proto.Message, error) {
			return d.Verified("dep", "old", p, both, time.Second, now)
		}, map[State]State{Verifying: RollingBack}, 0},
		"not seen yet": {func(d *Deployment) ([]proto.Message, error) {
			return d.Verified("dep", "old", p, both, time.Second, now.Add(-1))
		}, map[State]State{Verifying: Verifying}, 0},
		"broken":                     {plain(func(d *Deployment) error { return d.Break(p, now) }), map[State]State{Activating: RollingBack, Verifying: RollingBack}, 0},
		"fails":                      {func(d *Deployment) ([]proto.Message, error) { return d.Fail("dep", p, now) }, map[State]State{Queued: Failed, Installing: Failed, RollingBack: Failed}, 1},
		"restored, to be reloaded":   {func(d *Deployment) ([]proto.Message, error) { return d.Restored("dep", "old", both, verifyFor, now) }, map[State]State{RollingBack: RollingBack}, 0},
		"restored and that is all":   {func(d *Deployment) ([]proto.Message, error) { return d.Restored("dep", "old", neither, verifyFor, now) }, map[State]State{RollingBack: RolledBack}, 1},
		"read back, to be looked at": {func(d *Deployment) ([]proto.Message, error) { return d.Reread("dep", both, verifyFor, now) }, map[State]State{RollingBack: RollingBack}, 0},
		"the version before is seen": {func(d *Deployment) ([]proto.Message, error) { return d.RollbackSeen("dep", "old", p, time.Second, now) }, map[State]State{RollingBack: RolledBack}, 1},
		"something else is seen":     {func(d *Deployment) ([]proto.Message, error) { return d.RollbackSeen("dep", "x", p, time.Second, now) }, map[State]State{RollingBack: Stuck}, 1},
		"the roll-back is not seen yet": {func(d *Deployment) ([]proto.Message, error) {
			return d.RollbackSeen("dep", "", p, time.Second, now.Add(-1))
		}, map[State]State{RollingBack: RollingBack}, 0},
		"gets stuck":     {func(d *Deployment) ([]proto.Message, error) { return d.GetStuck("dep", p, now) }, map[State]State{RollingBack: Stuck}, 1},
		"is tried again": {plain(func(d *Deployment) error { return d.Retry(now) }), map[State]State{Failed: Queued, RolledBack: Queued, Stuck: Queued}, 0},
		"is hurried": {plain(func(d *Deployment) error { return d.Hurry(now) }), map[State]State{
			Queued: Queued, Installing: Installing, Activating: Activating, Verifying: Verifying, RollingBack: RollingBack, Failed: Failed, RolledBack: RolledBack, Stuck: Stuck,
		}, 0},
		"is settled": {plain(func(d *Deployment) error { return d.Settle() }), map[State]State{Succeeded: Succeeded}, 0},
	}
	for event, tt := range happen {
		for _, state := range States() {
			t.Run(event+" in "+state, func(t *testing.T) {
				d := in(state)
				before := d
				events, err := tt.do(&d)
				want, legal := tt.want[state]
				if !legal {
					require.Equal(t, errs.Precondition, errs.KindOf(err))
					require.Empty(t, cmp.Diff(before, d), "a refused step changes nothing")
					require.Empty(t, events)
					return
				}
				require.NoError(t, err)
				require.Equal(t, want, d.State)
				require.Len(t, events, tt.told)
				require.Equal(t, want != Succeeded && want != Superseded, d.Open)
				due := d.Due()
				require.Equal(t, d.State == Succeeded && d.Settled, due.IsZero(), "everything open has a next moment")
				if want == Failed || want == RolledBack || want == Stuck {
					if event != "is hurried" {
						require.Equal(t, now.Add(time.Minute), due)
						require.True(t, d.Problem.Retrying)
					}
				}
				if !d.Open {
					require.Nil(t, d.Chain)
				}
			})
		}
	}
	for _, state := range States() {
		d := in(state)
		require.Equal(t, state != Succeeded && state != Superseded, d.Supersede(Problem{}, now), state)
		require.False(t, d.Open)
	}
}

func TestFilesThatWereThereButNotReadAreReloadedBeforeGivingUp(t *testing.T) {
	d := in(Verifying)
	d.Unchanged = true
	events, err := d.Verified("dep", "old", Problem{}, Features{Reload: true, Probe: true}, time.Second, now)
	require.NoError(t, err)
	require.Empty(t, events)
	require.Equal(t, Activating, d.State)
	require.False(t, d.Unchanged)
}

func TestBackoff(t *testing.T) {
	for attempt, want := range map[int64]time.Duration{1: time.Minute, 2: 10 * time.Minute, 3: 100 * time.Minute, 4: 24 * time.Hour, 99: 24 * time.Hour} {
		require.Equal(t, want, Backoff(attempt))
	}
}

func TestBinding(t *testing.T) {
	b := NewBinding("crt_1", "tgt_1", "o", now)
	require.Equal(t, now, b.Due(), "a new binding asks for the current version")
	require.True(t, b.Desire("ver_2", 2, now))
	require.False(t, b.Desire("ver_2", 2, now), "the same again is nothing new")
	require.False(t, b.Desire("ver_1", 1, now), "an older version is never wanted again")
	require.EqualValues(t, 1, b.Generation)
	require.False(t, b.Dispatched(0))
	require.True(t, b.Dispatched(1))
	b.Resolved()
	require.True(t, b.Due().IsZero())

	require.True(t, b.Outrun(7, now))
	require.EqualValues(t, 8, b.Generation)
	require.False(t, b.Outrun(7, now))

	require.True(t, b.Served("ver_2", 8))
	require.False(t, b.Served("ver_1", 1), "what is served does not go back")

	require.True(t, b.Detach("bnd_1", ByUser, now, now))
	require.False(t, b.Detach("bnd_1", ByUser, now, now))
	require.Equal(t, "bnd_1", b.Slot, "the target is free for another certificate")
	require.Equal(t, Never, b.ForgetAt, "its generation is remembered")
	require.False(t, b.Desire("ver_3", 3, now))
	require.True(t, b.Attach("o", now))
	require.False(t, b.Attach("o", now))
	require.True(t, b.Desire("ver_2", 2, now), "attached again, the same version is deployed again")
	require.EqualValues(t, 9, b.Generation)
	b.Detach("bnd_1", CertificateDeleted, now, now.Add(time.Hour))
	require.Equal(t, now.Add(time.Hour), b.ForgetAt)
}

func TestDerivedIDs(t *testing.T) {
	crt := id.New("crt", now)
	b := BindingID(crt, "tgt_1")
	require.True(t, id.Valid("bnd", b), b)
	require.Equal(t, b, BindingID(crt, "tgt_1"))
	require.NotEqual(t, b, BindingID(crt, "tgt_2"))
	require.Equal(t, crt[4:14], b[4:14])
	d := DeploymentID(b, 1)
	require.True(t, id.Valid("dep", d), d)
	require.NotEqual(t, d, DeploymentID(b, 2))
	require.NotEqual(t, BindingID("a", "bc"), BindingID("ab", "c"))
}

func TestTargetValidate(t *testing.T) {
	file := func(f FileTarget) Target { return Target{File: f} }
	tests := map[string]struct {
		t    Target
		want []errs.Field
	}{
		"no certificate anywhere": {
			file(FileTarget{KeyPath: "/etc/ssl/key.pem"}),
			[]errs.Field{{Name: "target.file", Msg: "names no file for the certificate; give certificatePath, fullchainPath or bundlePath"}},
		},
		"a relative path": {
			file(FileTarget{CertificatePath: "cert.pem"}), []errs.Field{{Name: "target.file.certificatePath", Msg: `is "cert.pem"; give an absolute path`}},
		},
		"the same file twice": {
			file(FileTarget{CertificatePath: "/a/x.pem", KeyPath: "/a/./x.pem"}),
			[]errs.Field{{Name: "target.file.keyPath", Msg: "is the same file as certificatePath; each content has its own file (bundlePath is leaf, chain and key in one)"}},
		},
		"a key that everybody may read": {
			file(FileTarget{CertificatePath: "/a/x.pem", KeyMode: "0644"}),
			[]errs.Field{{Name: "target.file.keyMode", Msg: `is "0644"; give octal permissions with nothing for others, e.g. 0600 or 0640`}},
		},
		"a mode that is none": {
			file(FileTarget{CertificatePath: "/a/x.pem", Mode: "rw"}), []errs.Field{{Name: "target.file.mode", Msg: `is "rw"; give octal permissions of at most 0777, e.g. 0644`}},
		},
		"a probe without port": {
			Target{File: FileTarget{CertificatePath: "/a/x.pem"}, ProbeAddress: "www.example.com"},
			[]errs.Field{{Name: "target.probeAddress", Msg: `is "www.example.com"; give host:port, e.g. www.example.com:443`}},
		},
		"a kind that is none": {
			Target{Kind: "iis", File: FileTarget{CertificatePath: "/a/x.pem"}}, []errs.Field{{Name: "target.kind", Msg: `is "iis"; allowed is "file"`}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.t.Validate()
			require.Equal(t, "TARGET_INVALID", errs.ReasonOf(err))
			require.Empty(t, cmp.Diff(tt.want, errs.As(err).Fields))
		})
	}
	ok := file(FileTarget{BundlePath: "/a/x.pem"})
	require.NoError(t, ok.Validate())
	require.Equal(t, FileTarget{Host: "local", BundlePath: "/a/x.pem", Mode: "0644", KeyMode: "0600"}, ok.File)
}

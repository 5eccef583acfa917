package domain

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	keyeventsv1 "github.com/certwright/certwright/api/certwright/events/key/v1"
	"github.com/certwright/certwright/shared/errs"
)

var (
	now   = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)
	times = Times{Unanswered: 31 * 24 * time.Hour, Review: 30 * 24 * time.Hour, Retention: 30 * 24 * time.Hour, Forget: 400 * 24 * time.Hour}
)

const keyID = "key_1"

func keyIn(state State) Key {
	k, _ := New(keyID, Request{OrderID: "ord_1", CertificateID: "crt_1", Algorithm: ECDSAP256, Names: []string{"a.example"}},
		[]byte("csr"), "spki", Sealed{KEK: "kek", DEK: []byte("dek"), Ciphertext: []byte("sealed")}, now, times)
	switch state {
	case Active:
		k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1}, now, times)
	case Deactivated:
		k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1}, now, times)
		k.Supersede()
	case Compromised:
		k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1}, now, times)
		k.Compromise()
	case Destroyed:
		k.Destroy(keyID, OrderEnded, now, times)
	}
	return k
}

// TestEveryPair walks each state with each thing that can happen to a key.
func TestEveryPair(t *testing.T) {
	happen := map[string]func(k *Key) ([]proto.Message, bool){
		"version added": func(k *Key) ([]proto.Message, bool) {
			return k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1}, now, times)
		},
		"version unneeded": func(k *Key) ([]proto.Message, bool) {
			return k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1, Unneeded: true}, now, times)
		},
		"order ended": func(k *Key) ([]proto.Message, bool) { return k.OrderEnded(keyID, OrderEnded, now, times) },
		"superseded":  func(k *Key) ([]proto.Message, bool) { return nil, k.Supersede() },
		"compromised": func(k *Key) ([]proto.Message, bool) { return nil, k.Compromise() },
		"destroy":     func(k *Key) ([]proto.Message, bool) { return k.Destroy(keyID, Superseded, now, times) },
	}
	want := map[string]map[State]State{
		"version added":    {PreActive: Active, Active: Active, Deactivated: Deactivated, Compromised: Compromised, Destroyed: Destroyed},
		"version unneeded": {PreActive: Deactivated, Active: Active, Deactivated: Deactivated, Compromised: Compromised, Destroyed: Destroyed},
		"order ended":      {PreActive: Destroyed, Active: Active, Deactivated: Deactivated, Compromised: Compromised, Destroyed: Destroyed},
		"superseded":       {PreActive: PreActive, Active: Deactivated, Deactivated: Deactivated, Compromised: Compromised, Destroyed: Destroyed},
		"compromised":      {PreActive: Compromised, Active: Compromised, Deactivated: Compromised, Compromised: Compromised, Destroyed: Destroyed},
		"destroy":          {PreActive: Destroyed, Active: Destroyed, Deactivated: Destroyed, Compromised: Destroyed, Destroyed: Destroyed},
	}
	require.Len(t, want, len(happen))
	for event, f := range happen {
		for _, state := range States() {
			t.Run(event+" on "+state, func(t *testing.T) {
				k := keyIn(state)
				before := k
				events, changed := f(&k)
				require.Equal(t, want[event][state], k.State)
				require.Equal(t, before.State != k.State, changed)
				if !changed {
					require.Empty(t, cmp.Diff(before, k))
				}
				require.Equal(t, k.State != Destroyed, k.Live)
				if k.State == Destroyed {
					require.Equal(t, Sealed{}, k.Sealed, "what is destroyed is erased in the same write")
					require.True(t, k.Due().IsZero())
					require.Equal(t, now.Add(times.Forget), k.ForgetAt)
				}
				told := changed && (k.State == Active || k.State == Destroyed)
				require.Len(t, events, map[bool]int{true: 1}[told])
				after := k
				events, changed = f(&k)
				require.False(t, changed, "the same again changes nothing")
				require.Empty(t, events)
				require.Empty(t, cmp.Diff(after, k))
			})
		}
	}
}

func TestVersionThatCountsFollowsOneThatDoesNot(t *testing.T) {
	k := keyIn(PreActive)
	_, changed := k.VersionAdded(keyID, Version{ID: "ver_1b", Number: 2, Unneeded: true}, now, times)
	require.True(t, changed)
	require.Equal(t, now.Add(times.Retention), k.DestroyAt)
	events, changed := k.VersionAdded(keyID, Version{ID: "ver_1", Number: 1}, now, times)
	require.True(t, changed)
	require.Equal(t, Active, k.State)
	require.True(t, k.DestroyAt.IsZero())
	require.Empty(t, cmp.Diff("ver_1", events[0].(*keyeventsv1.Activated).GetVersionId()))
}

func TestJudge(t *testing.T) {
	version := func(state State, number int64) Key { return Key{State: state, Live: true, VersionNumber: number} }
	tests := map[string]struct {
		keys map[string]Key
		keep int
		want []Verdict
	}{
		"the newest stays and the one before is kept": {
			map[string]Key{"a": version(Active, 1), "b": version(Active, 2)}, 1, []Verdict{{KeyID: "a"}},
		},
		"what is older than the previous is destroyed": {
			map[string]Key{"a": version(Deactivated, 1), "b": version(Active, 2), "c": version(Active, 3)}, 1,
			[]Verdict{{KeyID: "b"}, {KeyID: "a", Destroy: true}},
		},
		"nothing is kept when nothing is to be kept": {
			map[string]Key{"a": version(Active, 1), "b": version(Active, 2)}, 0, []Verdict{{KeyID: "a", Destroy: true}},
		},
		"a compromised key is destroyed as soon as there is a newer one": {
			map[string]Key{"a": version(Compromised, 1), "b": version(Active, 2)}, 1, []Verdict{{KeyID: "a", Destroy: true}},
		},
		"a compromised key stays while it is the newest": {map[string]Key{"a": version(Compromised, 1)}, 1, nil},
		"keys without a version and unneeded ones are not touched": {
			map[string]Key{"a": version(PreActive, 0), "b": version(Active, 2), "c": {State: Deactivated, Live: true, Unneeded: true, VersionNumber: 1}}, 0, nil,
		},
		"settling again finds nothing to do": {
			map[string]Key{"a": version(Deactivated, 1), "b": version(Active, 2)}, 1, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, cmp.Diff(tt.want, Judge(tt.keys, tt.keep)))
		})
	}
}

func TestReviewed(t *testing.T) {
	month := 32 * 24 * time.Hour
	tests := map[string]struct {
		key  func() Key
		says Status
		want State
		due  bool // destruction is planned
	}{
		"a key that no version was made with is destroyed":     {func() Key { return keyIn(PreActive) }, Status{}, Destroyed, false},
		"a lost version_added is made up for":                  {func() Key { return keyIn(PreActive) }, Status{Known: true, Version: Version{ID: "ver_1", Number: 1}}, Active, false},
		"a key in use stays":                                   {func() Key { return keyIn(Active) }, Status{Known: true}, Active, false},
		"an unknown version destroys nothing at once":          {func() Key { return keyIn(Active) }, Status{}, Active, true},
		"a deleted certificate plans the destruction":          {func() Key { return keyIn(Active) }, Status{Known: true, Gone: true}, Active, true},
		"a planned destruction is done when it still holds":    {func() Key { k := keyIn(Active); k.CertificateGone(now, times); return k }, Status{Known: true, Gone: true}, Destroyed, false},
		"a planned destruction is dropped when the fact fails": {func() Key { k := keyIn(Active); k.CertificateGone(now, times); return k }, Status{Known: true}, Active, false},
		"an unneeded key is destroyed in the end": {func() Key {
			k := keyIn(PreActive)
			k.VersionAdded(keyID, Version{ID: "v", Number: 2, Unneeded: true}, now, times)
			return k
		}, Status{Known: true, Version: Version{Unneeded: true}}, Destroyed, false},
		"a destroyed key stays destroyed": {func() Key { return keyIn(Destroyed) }, Status{Known: true}, Destroyed, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := tt.key()
			k.Reviewed(keyID, tt.says, now.Add(month), times)
			require.Equal(t, tt.want, k.State)
			require.Equal(t, tt.due, !k.DestroyAt.IsZero())
			if k.State != Destroyed {
				require.True(t, k.Due().After(now.Add(month)), "it is looked at again, later")
			}
		})
	}
	k := keyIn(Active)
	before := k
	k.Reviewed(keyID, Status{}, now.Add(time.Hour), times)
	require.Empty(t, cmp.Diff(before, k), "nothing is due, so a late answer changes nothing")
}

func TestWhatMayLeave(t *testing.T) {
	tests := map[State]struct{ deploy, export, sign string }{
		PreActive:   {"", "KEY_NOT_ACTIVE", ""},
		Active:      {"", "", ""},
		Deactivated: {"", "", ""},
		Compromised: {"KEY_COMPROMISED", "", ""},
		Destroyed:   {"KEY_DESTROYED", "KEY_DESTROYED", "KEY_DESTROYED"},
	}
	for _, state := range States() {
		t.Run(state, func(t *testing.T) {
			k := keyIn(state)
			for want, err := range map[string]error{"d" + tests[state].deploy: k.Deployable(keyID), "e" + tests[state].export: k.Exportable(keyID), "s" + tests[state].sign: k.CanSign(keyID)} {
				if want[1:] == "" {
					require.NoError(t, err)
					continue
				}
				require.Equal(t, want[1:], errs.ReasonOf(err))
			}
		})
	}
}

func TestReleasesAreCountedAndTheLastOnesNamed(t *testing.T) {
	k := keyIn(Active)
	for range 12 {
		events := k.Released(keyID, "deployment:dep_1", "deployment", now)
		require.Len(t, events, 1)
	}
	require.EqualValues(t, 12, k.Releases)
	require.Len(t, k.LastReleases, 10)
}

func TestRequestIsRefusedSayingWhatIsAllowed(t *testing.T) {
	tests := map[string]struct {
		r    Request
		want []errs.Field
	}{
		"a weak key": {
			Request{OrderID: "o", CertificateID: "c", Algorithm: "RSA_1024", Names: []string{"a.example"}},
			[]errs.Field{{Name: "algorithm", Msg: `is "RSA_1024"; allowed are ECDSA_P256, ECDSA_P384, RSA_2048, RSA_3072, RSA_4096`}},
		},
		"an unknown curve": {
			Request{OrderID: "o", CertificateID: "c", Algorithm: "ED25519", Names: []string{"a.example"}},
			[]errs.Field{{Name: "algorithm", Msg: `is "ED25519"; allowed are ECDSA_P256, ECDSA_P384, RSA_2048, RSA_3072, RSA_4096`}},
		},
		"no names": {
			Request{OrderID: "o", CertificateID: "c"}, []errs.Field{{Name: "names", Msg: "has 0 names; 1 to 100 are allowed"}},
		},
		"a name that is none": {
			Request{OrderID: "o", CertificateID: "c", Names: []string{"a.example", "A b"}},
			[]errs.Field{{Name: "names[1]", Msg: `is "A b"; allowed are DNS names in lower case (A-labels, with *. in front for a wildcard) and IP addresses`}},
		},
		"no order": {
			Request{CertificateID: "c", Names: []string{"*.a.example", "10.0.0.1", "2001:db8::1"}},
			[]errs.Field{{Name: "orderId", Msg: "is empty; give the id of the order that the key is for"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.r.Validate()
			require.Equal(t, "KEY_REQUEST_INVALID", errs.ReasonOf(err))
			require.Empty(t, cmp.Diff(tt.want, errs.As(err).Fields))
		})
	}
	ok := Request{OrderID: "o", CertificateID: "c", Names: []string{"a.example"}}
	require.NoError(t, ok.Validate())
	require.Equal(t, ECDSAP256, ok.Algorithm)
}

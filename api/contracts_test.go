package api_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"
	"github.com/certwright/certwright/api/events"
)

// services are the names that rules and events may speak of.
var services = []string{"gateway", "identity", "inventory", "keys", "orders", "challenges", "dns", "renewals", "deployer", "fleet", "notifications"}

var permissionGrammar = regexp.MustCompile(`^[a-z][a-zA-Z]*\.[a-z][a-zA-Z]*$`)

func eachFile(visit func(protoreflect.FileDescriptor)) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "certwright.") {
			visit(f)
		}
		return true
	})
}

func eachMethod(visit func(protoreflect.MethodDescriptor)) {
	eachFile(func(f protoreflect.FileDescriptor) {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				visit(f.Services().Get(i).Methods().Get(j))
			}
		}
	})
}

func TestEveryMethodSaysWhoMayCallIt(t *testing.T) {
	n := 0
	eachMethod(func(m protoreflect.MethodDescriptor) {
		n++
		t.Run(string(m.FullName()), func(t *testing.T) {
			require.True(t, proto.HasExtension(m.Options(), optionsv1.E_Rule), "the option (certwright.options.v1.rule) is missing")
			rule := proto.GetExtension(m.Options(), optionsv1.E_Rule).(*optionsv1.Rule)
			if rule.GetPublic() {
				require.Empty(t, rule.GetPermission(), "a public method needs no permission")
			} else {
				require.True(t, rule.GetPermission() != "" || len(rule.GetServices()) > 0, "nobody may call it: it is not public, and names neither a permission nor a service")
			}
			if p := rule.GetPermission(); p != "" {
				require.Regexp(t, permissionGrammar, p, "a permission is <plural noun>.<verb>")
			}
			for _, s := range rule.GetServices() {
				require.Contains(t, services, s)
			}
		})
	})
	require.NotZero(t, n)
}

func TestNoSafeVerbChangesAnything(t *testing.T) {
	eachMethod(func(m protoreflect.MethodDescriptor) {
		if !proto.HasExtension(m.Options(), annotations.E_Http) {
			return
		}
		http := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		rule := proto.GetExtension(m.Options(), optionsv1.E_Rule).(*optionsv1.Rule)
		if http.GetGet() != "" {
			require.False(t, rule.GetMutating(), "%s changes something and is bound to GET", m.FullName())
		} else if http.GetDelete() != "" || http.GetPatch() != "" || http.GetPut() != "" {
			require.True(t, rule.GetMutating(), "%s is bound to a verb that changes something and is not called mutating", m.FullName())
		}
	})
}

// eventMessages answers the messages with an event option, by their type.
func eventMessages(t *testing.T) map[string]protoreflect.MessageDescriptor {
	t.Helper()
	found := map[string]protoreflect.MessageDescriptor{}
	eachFile(func(f protoreflect.FileDescriptor) {
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			if !proto.HasExtension(m.Options(), optionsv1.E_Event) {
				continue
			}
			o := proto.GetExtension(m.Options(), optionsv1.E_Event).(*optionsv1.EventOptions)
			require.NotContains(t, found, o.GetType(), "two messages have one event type")
			found[o.GetType()] = m
		}
	})
	require.NotEmpty(t, found)
	return found
}

func TestEventsAreNamedByTheirContext(t *testing.T) {
	for typ, m := range eventMessages(t) {
		t.Run(typ, func(t *testing.T) {
			context, event, ok := strings.Cut(typ, ".")
			require.True(t, ok, "a type is <context>.<event>")
			require.Regexp(t, `^[a-z]+$`, context)
			require.Regexp(t, `^[a-z]+(_[a-z]+)*$`, event)
			require.Equal(t, "certwright.events."+context+".v1", string(m.ParentFile().Package()))
			o := proto.GetExtension(m.Options(), optionsv1.E_Event).(*optionsv1.EventOptions)
			require.Contains(t, services, o.GetToldBy())
			for _, s := range o.GetActedOnBy() {
				require.Contains(t, services, s)
				require.NotEqual(t, o.GetToldBy(), s, "a service does not wait for its own events")
			}
		})
	}
}

func TestEveryMessageOfAnEventPackageIsAnEventOrInsideOne(t *testing.T) {
	inside := map[protoreflect.FullName]bool{}
	for _, m := range eventMessages(t) {
		inside[m.FullName()] = true
		eachField(m, map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor) {
			if f.Message() != nil {
				inside[f.Message().FullName()] = true
			}
		})
	}
	eachFile(func(f protoreflect.FileDescriptor) {
		if !strings.HasPrefix(string(f.Package()), events.Prefix) {
			return
		}
		for i := range f.Messages().Len() {
			require.True(t, inside[f.Messages().Get(i).FullName()], "%s has no event option", f.Messages().Get(i).FullName())
		}
	})
}

func TestTheListOfEventsIsComplete(t *testing.T) {
	want := eventMessages(t)
	require.Len(t, events.Types(), len(want))
	for _, typ := range events.Types() {
		require.Contains(t, want, typ)
		m, ok := events.New(typ)
		require.True(t, ok)
		require.Equal(t, want[typ].FullName(), m.ProtoReflect().Descriptor().FullName())
		require.Equal(t, typ, events.TypeOf(m))
	}
	_, ok := events.New("certificate.unheard_of")
	require.False(t, ok)
	require.Empty(t, events.TypeOf(&optionsv1.Rule{}), "a message that is no event has no type")
}

// A private key, a password or a credential is never on the bus. A field may name a key by its id.
func TestNoEventHasRoomForASecret(t *testing.T) {
	secret := regexp.MustCompile(`private|secret|password|passphrase|credential|key_pem|hmac|bearer`)
	for typ, m := range eventMessages(t) {
		eachField(m, map[protoreflect.FullName]bool{}, func(f protoreflect.FieldDescriptor) {
			require.NotRegexp(t, secret, string(f.Name()), "%s in event %s", f.FullName(), typ)
		})
	}
}

// eachField visits the fields of m and of all that it holds.
func eachField(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, visit func(protoreflect.FieldDescriptor)) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		visit(f)
		if f.Message() != nil && !slices.Contains([]protoreflect.FullName{"google.protobuf"}, f.Message().ParentFile().Package()) {
			eachField(f.Message(), seen, visit)
		}
	}
}

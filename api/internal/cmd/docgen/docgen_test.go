package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"
)

// image answers the descriptor set of one real event package, after change has had its way with it.
func image(t *testing.T, change func(*descriptorpb.FileDescriptorProto)) []byte {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		file := protodesc.ToFileDescriptorProto(f)
		if f == certificateeventsv1.File_certwright_events_certificate_v1_certificate_proto {
			change(file)
		}
		set.File = append(set.File, file)
	}
	add(certificateeventsv1.File_certwright_events_certificate_v1_certificate_proto)
	raw, err := proto.Marshal(set)
	require.NoError(t, err)
	return raw
}

func setType(m *descriptorpb.DescriptorProto, typ string) {
	o := proto.GetExtension(m.GetOptions(), optionsv1.E_Event).(*optionsv1.EventOptions)
	o = proto.Clone(o).(*optionsv1.EventOptions)
	o.Type = typ
	m.Options = proto.Clone(m.GetOptions()).(*descriptorpb.MessageOptions)
	proto.SetExtension(m.Options, optionsv1.E_Event, o)
}

func TestRunWritesEverything(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "image"), image(t, func(*descriptorpb.FileDescriptorProto) {}), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "openapi"), []byte("info: {title: T}\npaths: {}\ncomponents: {}\n"), 0o600))
	require.NoError(t, run(filepath.Join(dir, "image"), filepath.Join(dir, "openapi"), dir))
	for file, want := range map[string]string{
		"docs/events.md":                                    "### certificate.requested",
		"api/asyncapi/certwright.asyncapi.yaml":             "certwright.events.certificate.requested.{aggregateId}",
		"api/openapi/certwright.openapi.yaml":               "securitySchemes",
		"api/openapi/certwright.openapi.json":               `"securitySchemes"`,
		"api/events/events.gen.go":                          "case certificateeventsv1.TypeRequested:",
		"api/certwright/events/certificate/v1/types.gen.go": `TypeRequested = "certificate.requested"`,
	} {
		raw, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Contains(t, strings.Join(strings.Fields(string(raw)), " "), want, file)
	}
}

func TestLoadRefusesWhatReadersWouldTripOver(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*descriptorpb.FileDescriptorProto)
		want   string
	}{
		"a type of another context": {
			func(f *descriptorpb.FileDescriptorProto) { setType(f.MessageType[0], "order.requested") },
			`the event type "order.requested" does not begin with its context "certificate"`,
		},
		"one type for two messages": {
			func(f *descriptorpb.FileDescriptorProto) { setType(f.MessageType[1], "certificate.requested") },
			`the event type "certificate.requested" is already that of`,
		},
		"a go_package without the package's name": {
			func(f *descriptorpb.FileDescriptorProto) {
				f.Options = &descriptorpb.FileOptions{GoPackage: proto.String("example.org/x")}
			},
			"go_package must be",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(image(t, row.change))
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestOpenAPIRefusesAMethodWithoutARule(t *testing.T) {
	doc := []byte("info: {}\ncomponents: {}\npaths:\n  /v1/things:\n    get: {operationId: Things_List}\n")
	_, _, err := openAPI(&catalogue{methods: map[string]method{"Things_List": {}}}, doc)
	require.ErrorContains(t, err, "GET /v1/things: the method Things_List has no rule option")

	_, asJSON, err := openAPI(&catalogue{methods: map[string]method{"Things_List": {found: true, permission: "things.read"}}}, doc)
	require.NoError(t, err)
	require.Contains(t, string(asJSON), `"x-permission": "things.read"`)
}

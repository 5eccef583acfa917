package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	eventsPrefix  = "certwright.events."
	eventOption   = "certwright.options.v1.event"
	ruleOption    = "certwright.options.v1.rule"
	packageFieldN = 2 // Field number of FileDescriptorProto.package, where a package's comment hangs.
)

// catalogue is what the contracts say, in a fixed order: contexts by name, events in the order of their file.
type catalogue struct {
	contexts []*eventContext
	methods  map[string]method // By "<Service>_<Method>", the operation ids of OpenAPI.
	goPaths  []string          // Import path of every generated package, in order.
}

// eventContext is one package below certwright/events.
type eventContext struct {
	name    string // "certificate"
	comment string
	goPath  string // import path of the generated package
	goName  string
	dir     string // folder of the generated package, from the repository's root
	events  []event
	shared  []protoreflect.MessageDescriptor // Messages of the package that are no events.
}

// event is one message that is told on the bus.
type event struct {
	typ       string
	toldBy    string
	actedOnBy []string
	message   protoreflect.MessageDescriptor
}

// method is who may call an RPC.
type method struct {
	permission string
	public     bool
	services   []string
	mutating   bool
	found      bool
}

// load reads a serialised FileDescriptorSet.
func load(raw []byte) (*catalogue, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		return nil, fmt.Errorf("descriptor set: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("descriptor set: %w", err)
	}
	opts := options{types: dynamicpb.NewTypes(files)}
	c := &catalogue{methods: map[string]method{}}
	byName := map[string]*eventContext{}
	seen := map[string]protoreflect.FullName{}
	var failed error
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if failed = c.addMethods(f, opts); failed != nil {
			return false
		}
		pkg := string(f.Package())
		if goPath, _, ok := strings.Cut(f.Options().(*descriptorpb.FileOptions).GetGoPackage(), ";"); ok && strings.HasPrefix(pkg, "certwright.") {
			c.goPaths = append(c.goPaths, goPath)
		}
		if !strings.HasPrefix(pkg, eventsPrefix) {
			return true
		}
		failed = c.addEvents(f, opts, byName, seen)
		return failed == nil
	})
	if failed != nil {
		return nil, failed
	}
	slices.Sort(c.goPaths)
	c.goPaths = slices.Compact(c.goPaths)
	sort.Slice(c.contexts, func(i, j int) bool { return c.contexts[i].name < c.contexts[j].name })
	return c, nil
}

func (c *catalogue) addEvents(f protoreflect.FileDescriptor, opts options, byName map[string]*eventContext, seen map[string]protoreflect.FullName) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(string(f.Package()), eventsPrefix), ".")
	ctx := byName[string(f.Package())]
	if ctx == nil {
		goPath, goName, ok := strings.Cut(f.Options().(*descriptorpb.FileOptions).GetGoPackage(), ";")
		if !ok {
			return fmt.Errorf("%s: go_package must be \"<import path>;<name>\"", f.Path())
		}
		ctx = &eventContext{name: name, goPath: goPath, goName: goName, dir: "api/" + f.Path()[:strings.LastIndex(f.Path(), "/")]}
		byName[string(f.Package())] = ctx
		c.contexts = append(c.contexts, ctx)
	}
	if text := clean(f.SourceLocations().ByPath(protoreflect.SourcePath{packageFieldN}).LeadingComments); text != "" {
		ctx.comment = strings.TrimSpace(ctx.comment + "\n" + text)
	}
	for i := range f.Messages().Len() {
		m := f.Messages().Get(i)
		o, err := opts.get(m, eventOption)
		if err != nil {
			return err
		}
		if o == nil {
			ctx.shared = append(ctx.shared, m)
			continue
		}
		e := event{typ: text(o, "type"), toldBy: text(o, "told_by"), actedOnBy: texts(o, "acted_on_by"), message: m}
		if !strings.HasPrefix(e.typ, name+".") {
			return fmt.Errorf("%s: the event type %q does not begin with its context %q", m.FullName(), e.typ, name)
		}
		if other, ok := seen[e.typ]; ok {
			return fmt.Errorf("%s: the event type %q is already that of %s", m.FullName(), e.typ, other)
		}
		seen[e.typ] = m.FullName()
		ctx.events = append(ctx.events, e)
	}
	return nil
}

func (c *catalogue) addMethods(f protoreflect.FileDescriptor, opts options) error {
	for i := range f.Services().Len() {
		s := f.Services().Get(i)
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			o, err := opts.get(m, ruleOption)
			if err != nil {
				return err
			}
			r := method{found: o != nil}
			if o != nil {
				r.permission, r.services = text(o, "permission"), texts(o, "services")
				r.public, r.mutating = flagOf(o, "public"), flagOf(o, "mutating")
			}
			c.methods[string(s.Name())+"_"+string(m.Name())] = r
		}
	}
	return nil
}

// options reads custom options by name, from the descriptor set itself.
type options struct{ types *dynamicpb.Types }

// get answers the message that the option holds, nil when it is not set.
func (o options) get(d protoreflect.Descriptor, name protoreflect.FullName) (protoreflect.Message, error) {
	raw, err := proto.Marshal(d.Options())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.FullName(), err)
	}
	fresh := d.Options().ProtoReflect().New()
	if err := (proto.UnmarshalOptions{Resolver: resolver(o)}).Unmarshal(raw, fresh.Interface()); err != nil {
		return nil, fmt.Errorf("%s: %w", d.FullName(), err)
	}
	// Extensions of the set are told apart by name: proto.HasExtension compares descriptors, and the linked-in MethodOptions is not the set's.
	var found protoreflect.Message
	fresh.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.FullName() == name {
			found = v.Message()
		}
		return found == nil
	})
	return found, nil
}

// resolver looks only at the descriptor set, never at what is linked in.
type resolver struct{ types *dynamicpb.Types }

func (r resolver) FindExtensionByName(n protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return r.types.FindExtensionByName(n)
}

func (r resolver) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	t, err := r.types.FindExtensionByNumber(m, n)
	if err != nil {
		return nil, protoregistry.NotFound
	}
	return t, nil
}

func text(m protoreflect.Message, field protoreflect.Name) string {
	return m.Get(m.Descriptor().Fields().ByName(field)).String()
}

func flagOf(m protoreflect.Message, field protoreflect.Name) bool {
	return m.Get(m.Descriptor().Fields().ByName(field)).Bool()
}

func texts(m protoreflect.Message, field protoreflect.Name) []string {
	l := m.Get(m.Descriptor().Fields().ByName(field)).List()
	var out []string
	for i := range l.Len() {
		out = append(out, l.Get(i).String())
	}
	return out
}

// comment is the text above a declaration, or behind it on the same line.
func comment(d protoreflect.Descriptor) string {
	l := d.ParentFile().SourceLocations().ByDescriptor(d)
	if s := clean(l.LeadingComments); s != "" {
		return s
	}
	return clean(l.TrailingComments)
}

func clean(s string) string {
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		lines = append(lines, strings.TrimSpace(l))
	}
	return strings.TrimSpace(strings.Join(lines, " "))
}

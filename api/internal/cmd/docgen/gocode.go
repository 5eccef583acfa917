package main

import (
	"bytes"
	"fmt"
	"go/format"
)

const header = "// Code generated from the event options of the contracts by \"make gen\". DO NOT EDIT.\n\n"

// goFiles writes the constants of the event types, each beside its message, and the list that makes a message from a type.
func goFiles(c *catalogue) (map[string][]byte, error) {
	files := map[string][]byte{}
	var index bytes.Buffer
	index.WriteString(header + "package events\n\nimport (\n\t\"google.golang.org/protobuf/proto\"\n\n")
	for _, ctx := range c.contexts {
		if len(ctx.events) > 0 {
			fmt.Fprintf(&index, "\t%s %q\n", ctx.goName, ctx.goPath)
		}
	}
	index.WriteString(")\n\n// New answers an empty message of the event type, false when no contract knows the type.\nfunc New(eventType string) (proto.Message, bool) {\n\tswitch eventType {\n")
	var types bytes.Buffer
	for _, ctx := range c.contexts {
		if len(ctx.events) == 0 {
			continue
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "%spackage %s\n\n// The event types of this package.\nconst (\n", header, ctx.goName)
		for _, e := range ctx.events {
			name := string(e.message.Name())
			fmt.Fprintf(&b, "\t// Type%s is the type of the event whose data is %s.\n\tType%s = %q\n", name, name, name, e.typ)
			fmt.Fprintf(&index, "\tcase %s.Type%s:\n\t\treturn new(%s.%s), true\n", ctx.goName, name, ctx.goName, name)
			fmt.Fprintf(&types, "\t\t%s.Type%s,\n", ctx.goName, name)
		}
		b.WriteString(")\n")
		src, err := format.Source(b.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ctx.dir, err)
		}
		files[ctx.dir+"/types.gen.go"] = src
	}
	index.WriteString("\tdefault:\n\t\treturn nil, false\n\t}\n}\n\n// Types answers every event type, ordered by context.\nfunc Types() []string {\n\treturn []string{\n")
	index.Write(types.Bytes())
	index.WriteString("\t}\n}\n")
	src, err := format.Source(index.Bytes())
	if err != nil {
		return nil, err
	}
	files["api/events/events.gen.go"] = src

	var all bytes.Buffer
	all.WriteString(header + "package api_test\n\n// Every package of the contracts, so that the tests see all that there is.\nimport (\n")
	for _, path := range c.goPaths {
		fmt.Fprintf(&all, "\t_ %q\n", path)
	}
	all.WriteString(")\n")
	if src, err = format.Source(all.Bytes()); err != nil {
		return nil, err
	}
	files["api/contracts_gen_test.go"] = src
	return files, nil
}

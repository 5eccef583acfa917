// Command docgen writes what follows from the contracts besides the Go code of the protobuf plugins: the catalogue of events (docs/events.md),
// the AsyncAPI document, the OpenAPI document with who may call what, and the constants of the event types.
// It reads a descriptor set with source information, so it depends on none of the generated code, and must never invent what the protos do not say.
//
// Usage: docgen -image FILE -openapi FILE -out DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	image := flag.String("image", "", "file descriptor set with source information (buf build --as-file-descriptor-set)")
	openapi := flag.String("openapi", "", "OpenAPI document that protoc-gen-openapi wrote")
	out := flag.String("out", "", "folder that stands for the repository's root")
	flag.Parse()
	if err := run(*image, *openapi, *out); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(image, openapi, out string) error {
	if image == "" || openapi == "" || out == "" {
		return fmt.Errorf("-image, -openapi and -out are all needed")
	}
	raw, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	c, err := load(raw)
	if err != nil {
		return err
	}
	files, err := goFiles(c)
	if err != nil {
		return err
	}
	files["docs/events.md"] = eventsMarkdown(c)
	if files["api/asyncapi/certwright.asyncapi.yaml"], err = asyncAPI(c); err != nil {
		return err
	}
	doc, err := os.ReadFile(openapi)
	if err != nil {
		return err
	}
	if files["api/openapi/certwright.openapi.yaml"], files["api/openapi/certwright.openapi.json"], err = openAPI(c, doc); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(out, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

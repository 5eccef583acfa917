package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// openAPI adds to the plugin's document how a caller proves who it is and which permission each operation needs.
// It answers the document as YAML and as JSON.
func openAPI(c *catalogue, raw []byte) (asYAML, asJSON []byte, err error) {
	doc := object{}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, nil, fmt.Errorf("OpenAPI: %w", err)
	}
	info, _ := doc["info"].(object)
	info["description"] = "The platform that keeps TLS certificates valid, from request to retirement. Errors are google.rpc.Status with an ErrorInfo; its reasons are listed in docs/errors.md."
	info["license"] = object{"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
	components, _ := doc["components"].(object)
	components["securitySchemes"] = object{"token": object{"type": "http", "scheme": "bearer", "description": "An API token, made with POST /v1/tokens or certwright tokens create."}}
	doc["security"] = []any{object{"token": []any{}}}
	paths, _ := doc["paths"].(object)
	for _, path := range sortedKeys(paths) {
		item, _ := paths[path].(object)
		for _, verb := range sortedKeys(item) {
			operation, ok := item[verb].(object)
			if !ok {
				continue
			}
			id, _ := operation["operationId"].(string)
			m, ok := c.methods[id]
			if !ok || !m.found {
				return nil, nil, fmt.Errorf("OpenAPI: %s %s: the method %s has no rule option", strings.ToUpper(verb), path, id)
			}
			var note string
			switch {
			case m.public:
				operation["security"] = []any{}
				note = "Anybody may call it."
			case m.permission != "":
				operation["x-permission"] = m.permission
				note = "Needs the permission `" + m.permission + "`."
			}
			text, _ := operation["description"].(string)
			operation["description"] = strings.TrimSpace(text + "\n\n" + note)
		}
	}
	body, err := yaml.Marshal(doc)
	if err != nil {
		return nil, nil, err
	}
	asYAML = append([]byte("# Generated from api/certwright by \"make gen\". Do not edit.\n"), body...)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return nil, nil, err
	}
	return asYAML, b.Bytes(), nil
}

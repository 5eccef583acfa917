// Package openapi holds the OpenAPI 3 document of the REST edge, made from the contracts. The edge serves it as /openapi.json.
package openapi

import _ "embed" // The documents are part of the binary.

// JSON is the document as JSON.
//
//go:embed certwright.openapi.json
var JSON []byte

// YAML is the same document as YAML.
//
//go:embed certwright.openapi.yaml
var YAML []byte

package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

const docsStyle = `body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}code{font:13px ui-monospace,monospace}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #8884}h2{margin-top:2rem}`

var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}} API</title><style>{{.Style}}</style></head><body>
<h1>{{.Title}} API</h1><p>{{.Description}}</p>
<p>Send <code>Authorization: Bearer cwt_…</code>. The whole contract with its messages is <a href="/openapi.json">/openapi.json</a>.
The live feed of facts is <code>GET /v1/events</code> (server-sent events; <code>?types=certificate.issued,…</code>, <code>?since=</code> a position).</p>
{{range .Groups}}<h2>{{.Name}}</h2><table><tr><th>Call</th><th>What it does</th><th>Permission</th></tr>
{{range .Calls}}<tr><td><code>{{.Verb}} {{.Path}}</code></td><td>{{.Summary}}</td><td><code>{{.Permission}}</code></td></tr>
{{end}}</table>{{end}}</body></html>
`))

type docsCall struct{ Verb, Path, Summary, Permission string }

type docsGroup struct {
	Name  string
	Calls []docsCall
}

// docsPage is a page that lists every call. It needs nothing from elsewhere.
type docsPage struct{ html, policy string }

func newDocsPage(document []byte) (docsPage, error) {
	var doc struct {
		Info  struct{ Title, Description string }
		Paths map[string]map[string]struct {
			Summary, Description string
			Tags                 []string
			Permission           string `json:"x-permission"`
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return docsPage{}, fmt.Errorf("the OpenAPI document: %w", err)
	}
	groups := map[string][]docsCall{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, verb := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][verb]
			group := "Other"
			if len(op.Tags) > 0 {
				group = strings.TrimSuffix(op.Tags[0], "Service")
			}
			summary := op.Summary
			if summary == "" {
				summary, _, _ = strings.Cut(op.Description, "Needs the permission")
			}
			groups[group] = append(groups[group], docsCall{strings.ToUpper(verb), path, strings.TrimSpace(summary), op.Permission})
		}
	}
	page := struct {
		Title, Description string
		Style              template.CSS
		Groups             []docsGroup
	}{doc.Info.Title, doc.Info.Description, docsStyle, nil}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		page.Groups = append(page.Groups, docsGroup{name, groups[name]})
	}
	var out bytes.Buffer
	if err := docsTemplate.Execute(&out, page); err != nil {
		return docsPage{}, fmt.Errorf("the page /docs: %w", err)
	}
	sum := sha256.Sum256([]byte(docsStyle))
	return docsPage{out.String(), "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"}, nil
}

func (p docsPage) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", p.policy)
	_, _ = w.Write([]byte(p.html))
}

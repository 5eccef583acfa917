package dnstest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What the fake Cloudflare takes.
const (
	CloudflareToken     = "cf-token-of-the-zone-1234567890abcdefghi"
	CloudflareZoneToken = "cf-token-that-reads-zones-1234567890abcd"
	CloudflareReadOnly  = "cf-token-that-edits-nothing-1234567890ab"
	CloudflareNoZones   = "cf-token-without-zone-read-1234567890abc"
	CloudflareEmail     = "ops@example.org"
	CloudflareKey       = "global-key-of-ops-0123456789abcdef012345"
)

// Cloudflare is a fake of the API v4: zones, and TXT records in pages of two.
type Cloudflare struct {
	API
	Zone  string
	Alias string // a name that is a CNAME
	ids   map[string]string
	next  int
	// lag is how often a listing does not have the latest changes yet.
	lag   int
	stale map[string][]string
}

// StartCloudflare serves a zone until the test ends.
func StartCloudflare(t testing.TB, zone string) *Cloudflare {
	c := &Cloudflare{Zone: zone, ids: map[string]string{}, stale: map[string][]string{}}
	c.start(t, c.serve)
	return c
}

// Lag makes the next n listings of records not show the changes from now on.
func (c *Cloudflare) Lag(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag, c.stale = n, map[string][]string{}
	for name, values := range c.values {
		c.stale[name] = slices.Clone(values)
	}
}

func cfError(code int, message string) object {
	return object{"success": false, "errors": []object{{"code": code, "message": message}}, "messages": []any{}, "result": nil}
}

func (c *Cloudflare) serve(w http.ResponseWriter, r *http.Request) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	global := r.Header.Get("X-Auth-Email") == CloudflareEmail && r.Header.Get("X-Auth-Key") == CloudflareKey
	switch {
	case !bearer && r.Header.Get("X-Auth-Key") != "" && !global:
		answer(w, http.StatusBadRequest, cfError(9103, "Unknown X-Auth-Key or X-Auth-Email: "+r.Header.Get("X-Auth-Key")))
		return
	case bearer && len(token) < 40:
		answer(w, http.StatusBadRequest, cfError(6003, "Invalid request headers"))
		return
	case bearer && !slices.Contains([]string{CloudflareToken, CloudflareZoneToken, CloudflareReadOnly, CloudflareNoZones}, token), !bearer && !global:
		answer(w, http.StatusUnauthorized, cfError(10000, "Authentication error for "+token)) // a worst case: it repeats what it got
		return
	}
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	list := func(rows []object) {
		const size = 2
		pages := (len(rows) + size - 1) / size
		from := min(max(page-1, 0)*size, len(rows))
		answer(w, http.StatusOK, object{
			"success": true, "errors": []any{}, "result": rows[from:min(from+size, len(rows))],
			"result_info": object{"page": page, "per_page": size, "total_pages": pages, "total_count": len(rows)},
		})
	}
	const zoneID = "023e105f4ecef8ad9ca31a8372d0c353"
	path, inZone := strings.CutPrefix(r.URL.Path, "/zones/"+zoneID+"/dns_records")
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/zones":
		rows := []object{}
		if r.URL.Query().Get("name") == c.Zone && token != CloudflareNoZones {
			rows = append(rows, object{"id": zoneID, "name": c.Zone, "status": "active"})
		}
		list(rows)
	case !inZone:
		answer(w, http.StatusNotFound, cfError(7003, "Could not route to "+r.URL.Path))
	case token == CloudflareZoneToken, token == CloudflareReadOnly && r.Method != http.MethodGet:
		answer(w, http.StatusForbidden, cfError(10000, "Authentication error"))
	case r.Method == http.MethodGet:
		name := r.URL.Query().Get("name")
		values := c.values[name]
		if c.lag > 0 {
			c.lag--
			values = c.stale[name]
		}
		rows := []object{}
		if name == c.Alias {
			rows = append(rows, object{"id": "alias", "type": "CNAME", "name": name, "content": "elsewhere.test", "ttl": 1})
		}
		for _, v := range values {
			rows = append(rows, object{"id": c.id(name, v), "type": "TXT", "name": name, "content": quote(v), "ttl": 60})
		}
		list(rows)
	case r.Method == http.MethodPost && path == "":
		var in struct {
			Type, Name, Content string
			TTL                 int
		}
		if !decode(r, &in) || in.Type != "TXT" || in.TTL < 60 || !strings.HasPrefix(in.Content, `"`) {
			answer(w, http.StatusBadRequest, cfError(9005, "Content for TXT record is invalid."))
			return
		}
		v := unquote(in.Content)
		if slices.Contains(c.values[in.Name], v) {
			answer(w, http.StatusBadRequest, cfError(81058, "An identical record already exists."))
			return
		}
		c.values[in.Name] = append(slices.Clone(c.values[in.Name]), v)
		c.writes++
		answer(w, http.StatusOK, object{"success": true, "errors": []any{}, "result": object{"id": c.id(in.Name, v)}})
	case r.Method == http.MethodDelete:
		for name, values := range c.values {
			for _, v := range values {
				if c.id(name, v) == strings.TrimPrefix(path, "/") {
					c.values[name] = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == v })
					c.writes++
					answer(w, http.StatusOK, object{"result": object{"id": strings.TrimPrefix(path, "/")}, "success": true})
					return
				}
			}
		}
		answer(w, http.StatusNotFound, cfError(81044, "Record does not exist."))
	default:
		answer(w, http.StatusMethodNotAllowed, cfError(10405, "Method not allowed"))
	}
}

func (c *Cloudflare) id(name, value string) string {
	key := name + " " + value
	if c.ids[key] == "" {
		c.next++
		c.ids[key] = "rec" + strconv.Itoa(c.next)
	}
	return c.ids[key]
}

// quote and unquote are on purpose not those of the product; values of tests have no quotes or backslashes.
func quote(v string) string {
	var parts []string
	for len(v) > 255 {
		parts, v = append(parts, `"`+v[:255]+`"`), v[255:]
	}
	return strings.Join(append(parts, `"`+v+`"`), " ")
}

func unquote(s string) string { return strings.Trim(strings.ReplaceAll(s, `" "`, ""), `"`) }

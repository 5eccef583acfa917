package dnstest

import (
	"net/http"
	"strings"
	"testing"
)

// What the fake GoDaddy takes.
const (
	GoDaddyKey       = "dLDkgodaddykey_123456789"
	GoDaddySecret    = "godaddysecret987654321"
	GoDaddyForeigner = "dLDkanotheraccount_98765" // a key of an account without the domain
)

// GoDaddy is a fake of the API v1: all TXT records of a name at once.
type GoDaddy struct {
	API
	Zone string
}

// StartGoDaddy serves a domain until the test ends.
func StartGoDaddy(t testing.TB, zone string) *GoDaddy {
	g := &GoDaddy{Zone: zone}
	g.start(t, g.serve)
	return g
}

func (g *GoDaddy) serve(w http.ResponseWriter, r *http.Request) {
	key, secret, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "sso-key "), ":")
	refuse := func(status int, code, message string) { answer(w, status, object{"code": code, "message": message}) }
	if secret != GoDaddySecret || key != GoDaddyKey && key != GoDaddyForeigner {
		refuse(http.StatusUnauthorized, "UNABLE_TO_AUTHENTICATE", "Unauthorized : Could not authenticate API key/secret "+key+":"+secret)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/domains/"), "/") // <domain>/records/TXT/<name>
	switch {
	case len(parts) != 4 || parts[1] != "records" || parts[2] != "TXT":
		refuse(http.StatusNotFound, "NOT_FOUND", "no such path")
		return
	case key == GoDaddyForeigner:
		refuse(http.StatusForbidden, "ACCESS_DENIED", "Authenticated user is not allowed access")
		return
	case parts[0] != g.Zone:
		refuse(http.StatusNotFound, "UNKNOWN_DOMAIN", "The given domain is not registered, or does not have a zone file")
		return
	}
	name := parts[3] + "." + g.Zone
	if parts[3] == "@" {
		name = g.Zone
	}
	switch r.Method {
	case http.MethodGet:
		rows := []object{}
		for _, v := range g.values[name] {
			rows = append(rows, object{"data": v, "name": parts[3], "ttl": 3600, "type": "TXT"})
		}
		answer(w, http.StatusOK, rows)
	case http.MethodPut:
		var in []struct {
			Data string
			TTL  int
		}
		if !decode(r, &in) || len(in) == 0 {
			refuse(http.StatusUnprocessableEntity, "INVALID_BODY", "records expected")
			return
		}
		var values []string
		seen := map[string]bool{}
		for _, rec := range in {
			if rec.TTL < 600 || seen[rec.Data] {
				refuse(http.StatusUnprocessableEntity, "DUPLICATE_RECORD", "duplicate, or a TTL below 600")
				return
			}
			seen[rec.Data] = true
			values = append(values, rec.Data)
		}
		g.values[name] = values
		g.writes++
		answer(w, http.StatusOK, object{})
	case http.MethodDelete:
		if len(g.values[name]) == 0 {
			refuse(http.StatusNotFound, "NOT_FOUND", "no records")
			return
		}
		delete(g.values, name)
		g.writes++
		w.WriteHeader(http.StatusNoContent)
	}
}

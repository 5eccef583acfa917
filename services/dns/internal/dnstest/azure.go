package dnstest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What the fake Azure takes.
const (
	AzureSubscription = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
	AzureGroup        = "dns-zones"
	AzureTenant       = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	AzureClient       = "11111111-2222-3333-4444-555555555555"
	AzureSecret       = "azure~secret~of~the~application"
	AzureAssertion    = "assertion-of-the-workload"
	azureToken        = "azure-access-token"
)

// Azure is a fake of Azure's login, of a host's metadata, and of the TXT record sets of Azure DNS with their etags.
type Azure struct {
	API
	Zone   string
	Denied bool // the identity has no role on the zone
	Alias  string
	// before runs once before the next write: somebody else is quicker.
	before func(values map[string][]string)
}

// StartAzure serves a zone until the test ends.
func StartAzure(t testing.TB, zone string) *Azure {
	a := &Azure{Zone: zone}
	a.start(t, a.serve)
	return a
}

// BeforeNextWrite lets somebody else change values first.
func (a *Azure) BeforeNextWrite(f func(values map[string][]string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.before = f
}

func azError(code, message string) object {
	return object{"error": object{"code": code, "message": message}}
}

func (a *Azure) serve(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/oauth2/") {
		a.login(w, r)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+azureToken {
		answer(w, http.StatusUnauthorized, azError("InvalidAuthenticationToken", "The access token is invalid: "+r.Header.Get("Authorization")))
		return
	}
	if a.Denied {
		answer(w, http.StatusForbidden, azError("AuthorizationFailed", "The client does not have authorization to perform action 'Microsoft.Network/dnsZones/TXT/write'"))
		return
	}
	zones := "/subscriptions/" + AzureSubscription + "/resourceGroups/" + AzureGroup + "/providers/Microsoft.Network/dnsZones/"
	rest, ok := strings.CutPrefix(r.URL.Path, zones+a.Zone)
	if !ok || r.URL.Query().Get("api-version") != "2018-05-01" {
		answer(w, http.StatusNotFound, azError("ResourceNotFound", "The Resource was not found"))
		return
	}
	if rest == "" {
		answer(w, http.StatusOK, object{"name": a.Zone})
		return
	}
	relative, _ := strings.CutPrefix(rest, "/TXT/")
	name := relative + "." + a.Zone
	if relative == "@" {
		name = a.Zone
	}
	if r.Method != http.MethodGet && a.before != nil {
		a.before(a.values)
		a.before = nil
	}
	values, exists := a.values[name], len(a.values[name]) > 0
	etag := fmt.Sprintf("%x", strings.Join(values, "\x00"))
	if match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match"); match != "" && (!exists || match != etag) || none == "*" && exists {
		answer(w, http.StatusPreconditionFailed, azError("PreconditionFailed", "The condition was not met"))
		return
	}
	show := func(status int) {
		rows := []object{}
		for _, v := range a.values[name] {
			var parts []string
			for len(v) > 255 {
				parts, v = append(parts, v[:255]), v[255:]
			}
			rows = append(rows, object{"value": append(parts, v)})
		}
		answer(w, status, object{
			"id": r.URL.Path, "name": relative, "type": "Microsoft.Network/dnszones/TXT", "etag": fmt.Sprintf("%x", strings.Join(a.values[name], "\x00")),
			"properties": object{"TTL": 3600, "TXTRecords": rows, "fqdn": name + ".", "provisioningState": "Succeeded"},
		})
	}
	switch {
	case r.Method == http.MethodGet && !exists:
		answer(w, http.StatusNotFound, azError("NotFound", "The resource record '"+relative+"' does not exist"))
	case r.Method == http.MethodGet:
		show(http.StatusOK)
	case r.Method == http.MethodDelete:
		delete(a.values, name)
		a.writes++
		w.WriteHeader(http.StatusOK)
	case r.Method == http.MethodPut:
		if name == a.Alias {
			answer(w, http.StatusConflict, azError("Conflict", "The record could not be created because a CNAME record with the same name already exists in this zone."))
			return
		}
		var in struct {
			Properties struct {
				TTL        int
				TXTRecords []struct{ Value []string }
				Metadata   map[string]string
			}
		}
		if !decode(r, &in) || in.Properties.TTL < 1 || len(in.Properties.TXTRecords) == 0 {
			answer(w, http.StatusBadRequest, azError("BadRequest", "The record set is invalid."))
			return
		}
		var next []string
		for _, rec := range in.Properties.TXTRecords {
			v := strings.Join(rec.Value, "")
			if slices.Contains(next, v) || slices.ContainsFunc(rec.Value, func(s string) bool { return len(s) > 255 }) {
				answer(w, http.StatusBadRequest, azError("BadRequest", "The record set has duplicates, or a string of more than 255 characters."))
				return
			}
			next = append(next, v)
		}
		a.values[name] = next
		a.writes++
		show(http.StatusOK)
	}
}

func (a *Azure) login(w http.ResponseWriter, r *http.Request) {
	ok := false
	switch r.URL.Path {
	case "/metadata/identity/oauth2/token":
		ok = r.Header.Get("Metadata") == "true" && r.URL.Query().Get("resource") == a.URL && r.Header.Get("X-Forwarded-For") == ""
	case "/" + AzureTenant + "/oauth2/v2.0/token":
		_ = r.ParseForm()
		ok = r.PostForm.Get("grant_type") == "client_credentials" && r.PostForm.Get("scope") == a.URL+"/.default" && r.PostForm.Get("client_id") == AzureClient &&
			(r.PostForm.Get("client_secret") == AzureSecret || r.PostForm.Get("client_assertion") == AzureAssertion &&
				r.PostForm.Get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	}
	if !ok {
		answer(w, http.StatusUnauthorized, object{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided: " + r.PostForm.Get("client_secret")})
		return
	}
	answer(w, http.StatusOK, object{"token_type": "Bearer", "expires_in": 3599, "access_token": azureToken})
}

package dnstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What the fake AWS takes.
const (
	AWSKeyID       = "AKIAIOSFODNN7EXAMPLE"
	AWSSecret      = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	AWSRole        = "arn:aws:iam::123456789012:role/certwright-dns"
	AWSExternalID  = "certwright-7"
	Route53ZoneID  = "Z1D633PJN98FT9"
	awsRoleKeyID   = "ASIAROLEROLEROLEROLE"
	awsRoleSecret  = "secret/of/the/role"
	awsRoleSession = "session-of-the-role"
)

// Route53 is a fake of Route 53 and of STS's AssumeRole that checks signatures (SigV4).
type Route53 struct {
	API
	Zone     string
	Alias    string // a name that is a CNAME
	Twice    bool   // the zone is there twice
	RoleOnly bool   // the access key may only take on the role
	Weighted string // a name whose TXT records have a routing policy
	// Pending is how often a change is not in sync yet when it is asked for.
	Pending int
	changes int
	before  func(values map[string][]string)
}

// StartRoute53 serves a hosted zone until the test ends.
func StartRoute53(t testing.TB, zone string) *Route53 {
	r := &Route53{Zone: zone}
	r.throttled = func(w http.ResponseWriter, _ *http.Request) {
		awsError(w, http.StatusBadRequest, "Throttling", "Rate exceeded")
	}
	r.start(t, r.serve)
	return r
}

// BeforeNextWrite lets somebody else change values first.
func (s *Route53) BeforeNextWrite(f func(values map[string][]string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// SetPending makes changes take so many questions until they are in sync.
func (s *Route53) SetPending(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Pending = n
}

func awsError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
		code, escape(message))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func say(w http.ResponseWriter, format string, args ...any) {
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<?xml version="1.0"?>`+format, args...)
}

type rrset struct {
	Name    string   `xml:"Name"`
	Type    string   `xml:"Type"`
	TTL     int      `xml:"TTL"`
	Records []string `xml:"ResourceRecords>ResourceRecord>Value"`
}

func (s *Route53) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id, code := signed(r, body)
	if code != "" {
		awsError(w, http.StatusForbidden, code, "The request signature we calculated does not match, or the token "+r.Header.Get("X-Amz-Security-Token")+" is invalid")
		return
	}
	path := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/2013-04-01"), "/")
	if path == "" {
		s.assume(w, string(body))
		return
	}
	if s.RoleOnly && id == AWSKeyID {
		awsError(w, http.StatusForbidden, "AccessDenied", "User: arn:aws:iam::123456789012:user/certwright is not authorized to perform: route53:ListHostedZonesByName")
		return
	}
	const ns = `xmlns="https://route53.amazonaws.com/doc/2013-04-01/"`
	switch {
	case path == "/hostedzonesbyname":
		zones := ""
		if r.URL.Query().Get("dnsname") == s.Zone {
			row := `<HostedZone><Id>/hostedzone/%s</Id><Name>%s.</Name><CallerReference>c</CallerReference><Config><PrivateZone>%t</PrivateZone></Config></HostedZone>`
			zones = fmt.Sprintf(row, "ZPRIVATE", s.Zone, true) + fmt.Sprintf(row, Route53ZoneID, s.Zone, false)
			if s.Twice {
				zones += fmt.Sprintf(row, "ZTWICE", s.Zone, false)
			}
		}
		zones += `<HostedZone><Id>/hostedzone/ZNEXT</Id><Name>zzz.test.</Name><CallerReference>c</CallerReference></HostedZone>`
		say(w, `<ListHostedZonesByNameResponse %s><HostedZones>%s</HostedZones><IsTruncated>false</IsTruncated><MaxItems>100</MaxItems></ListHostedZonesByNameResponse>`, ns, zones)
	case strings.HasPrefix(path, "/change/"):
		status := "INSYNC"
		if s.Pending > 0 {
			s.Pending--
			status = "PENDING"
		}
		say(w, `<GetChangeResponse %s><ChangeInfo><Id>%s</Id><Status>%s</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></GetChangeResponse>`, ns, path, status)
	case path != "/hostedzone/"+Route53ZoneID+"/rrset":
		awsError(w, http.StatusNotFound, "NoSuchHostedZone", "No hosted zone found with ID: "+path)
	case r.Method == http.MethodGet:
		from := strings.TrimSuffix(r.URL.Query().Get("name"), ".")
		sets := ""
		if from == s.Alias {
			sets += `<ResourceRecordSet><Name>` + from + `.</Name><Type>CNAME</Type><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>elsewhere.test</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>`
		}
		if from == s.Weighted {
			sets += `<ResourceRecordSet><Name>` + from + `.</Name><Type>TXT</Type><SetIdentifier>blue</SetIdentifier><Weight>10</Weight><TTL>60</TTL><ResourceRecords><ResourceRecord><Value>"x"</Value></ResourceRecord></ResourceRecords></ResourceRecordSet>`
		}
		for _, name := range []string{from, "zzz." + s.Zone} { // what comes next in the zone is listed too
			if len(s.values[name]) == 0 {
				continue
			}
			sets += `<ResourceRecordSet><Name>` + name + `.</Name><Type>TXT</Type><TTL>3600</TTL><ResourceRecords>`
			for _, v := range s.values[name] {
				sets += `<ResourceRecord><Value>` + escape(quote(v)) + `</Value></ResourceRecord>`
			}
			sets += `</ResourceRecords></ResourceRecordSet>`
		}
		say(w, `<ListResourceRecordSetsResponse %s><ResourceRecordSets>%s</ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>100</MaxItems></ListResourceRecordSetsResponse>`, ns, sets)
	default:
		s.change(w, body)
	}
}

// change takes a batch whole or not at all, as Route 53 does.
func (s *Route53) change(w http.ResponseWriter, body []byte) {
	var in struct {
		Changes []struct {
			Action string `xml:"Action"`
			Set    rrset  `xml:"ResourceRecordSet"`
		} `xml:"ChangeBatch>Changes>Change"`
	}
	if err := xml.Unmarshal(body, &in); err != nil || len(in.Changes) == 0 {
		awsError(w, http.StatusBadRequest, "InvalidInput", "not a batch")
		return
	}
	if s.before != nil {
		s.before(s.values)
		s.before = nil
	}
	refuse := func(message string) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `<?xml version="1.0"?><InvalidChangeBatch xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Messages><Message>%s</Message></Messages><RequestId>r</RequestId></InvalidChangeBatch>`, escape(message))
	}
	next := map[string][]string{}
	for _, c := range in.Changes {
		name := strings.TrimSuffix(c.Set.Name, ".")
		now, touched := next[name]
		if !touched {
			now = s.values[name]
		}
		var values []string
		for _, v := range c.Set.Records {
			if slices.Contains(values, unquote(v)) || !strings.HasPrefix(v, `"`) || strings.Contains(v, strings.Repeat("x", 256)) {
				refuse("[Invalid Resource Record: FATAL problem: InvalidCharacterString or duplicate at '" + v + "']")
				return
			}
			values = append(values, unquote(v))
		}
		switch {
		case name != s.Zone && !strings.HasSuffix(name, "."+s.Zone):
			refuse("[RRSet with DNS name " + c.Set.Name + " is not permitted in zone " + s.Zone + ".]")
			return
		case name == s.Alias:
			refuse("[RRSet of type TXT with DNS name " + c.Set.Name + " is not permitted because a conflicting RRSet of type CNAME with the same DNS name already exists in zone " + s.Zone + ".]")
			return
		case c.Action == "CREATE" && len(now) > 0:
			refuse("[Tried to create resource record set [name='" + c.Set.Name + "', type='TXT'] but it already exists]")
			return
		case c.Action == "DELETE" && len(now) == 0:
			refuse("[Tried to delete resource record set [name='" + c.Set.Name + "', type='TXT'] but it was not found]")
			return
		case c.Action == "DELETE" && (!slices.Equal(slices.Sorted(slices.Values(now)), slices.Sorted(slices.Values(values))) || c.Set.TTL != 3600):
			refuse("[Tried to delete resource record set [name='" + c.Set.Name + "', type='TXT'] but the values provided do not match the current values]")
			return
		case c.Action == "DELETE":
			next[name] = nil
		default:
			next[name] = values
		}
	}
	for name, values := range next {
		s.values[name] = values
	}
	s.writes++
	s.changes++
	say(w, `<ChangeResourceRecordSetsResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><ChangeInfo><Id>/change/C%d</Id><Status>PENDING</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`, s.changes)
}

func (s *Route53) assume(w http.ResponseWriter, body string) {
	form, _ := url.ParseQuery(body)
	if form.Get("Action") != "AssumeRole" || form.Get("RoleArn") != AWSRole || form.Get("ExternalId") != AWSExternalID {
		awsError(w, http.StatusForbidden, "AccessDenied", "User is not authorized to perform: sts:AssumeRole on resource: "+form.Get("RoleArn"))
		return
	}
	say(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		awsRoleKeyID, awsRoleSecret, awsRoleSession)
}

// signed checks a signature as AWS does (Signature Version 4), and answers whose it is or what is wrong with it.
func signed(r *http.Request, body []byte) (id, code string) {
	fields := map[string]string{}
	for _, part := range strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/") // id/date/region/service/aws4_request
	if len(scope) != 5 {
		return "", "IncompleteSignature"
	}
	key, token := AWSSecret, ""
	switch scope[0] {
	case AWSKeyID:
	case awsRoleKeyID:
		key, token = awsRoleSecret, awsRoleSession
	default:
		return "", "InvalidClientTokenId"
	}
	if r.Header.Get("X-Amz-Security-Token") != token {
		return "", "InvalidClientTokenId"
	}
	var headers strings.Builder
	for _, name := range strings.Split(fields["SignedHeaders"], ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(len(body))
		}
		headers.WriteString(name + ":" + strings.TrimSpace(value) + "\n")
	}
	sum := sha256.Sum256(body)
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20"), headers.String(), fields["SignedHeaders"], hex.EncodeToString(sum[:]),
	}, "\n")
	sum = sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), strings.Join(scope[1:], "/"), hex.EncodeToString(sum[:])}, "\n")
	mac := []byte("AWS4" + key)
	for _, part := range append(slices.Clone(scope[1:]), text) {
		h := hmac.New(sha256.New, mac)
		h.Write([]byte(part))
		mac = h.Sum(nil)
	}
	if hex.EncodeToString(mac) != fields["Signature"] {
		return "", "SignatureDoesNotMatch"
	}
	return scope[0], ""
}

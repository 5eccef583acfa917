// Package rfc2136 writes TXT records by signed dynamic updates (RFC 2136, RFC 8945), and reads them back from the same server.
//
// One update takes out what is to go and puts in what is to be there, record by record; it never deletes a whole RRset, since other values
// at the name may be somebody else's.
package rfc2136

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Name of the provider.
const Name = "rfc2136"

// The settings of an account: one server and key for all its zones, or SettingZones.
const (
	SettingServer    = "server"         // host:port
	SettingKeyName   = "tsig_key_name"  // lower case, no dot at the end
	SettingAlgorithm = "tsig_algorithm" // hmac-sha256, …
	SettingZones     = "zones"          // JSON of []Zone
)

// SecretTSIG is the secret of the one key in base64; those of a Zone are named by ZoneSecret.
const SecretTSIG = "tsig_secret"

// Zone is the server and key of one zone.
type Zone struct {
	Zone      string `json:"zone"`
	Server    string `json:"server"`
	KeyName   string `json:"tsig_key_name"`
	Algorithm string `json:"tsig_algorithm"`
}

// ZoneSecret names the secret of the key of the zone that is the i-th of SettingZones as given.
func ZoneSecret(i int) string { return fmt.Sprintf("zones[%d]", i) }

// ZonesSetting is the setting of a list of zones, empty for none.
func ZonesSetting(zones []Zone) string {
	if len(zones) == 0 {
		return ""
	}
	b, _ := json.Marshal(zones) // strings can always be encoded
	return string(b)
}

// Zones is the list that a setting has, none when it is empty.
func Zones(setting string) []Zone {
	var zones []Zone
	if json.Unmarshal([]byte(setting), &zones) != nil {
		return nil
	}
	return zones
}

const defaultAlgorithm = "hmac-sha256"

// fudge is how far the clocks may differ, in seconds (RFC 8945 section 10).
const fudge = 300

var algorithms = map[string]string{
	"hmac-sha1": mdns.HmacSHA1, "hmac-sha224": mdns.HmacSHA224, "hmac-sha256": mdns.HmacSHA256, "hmac-sha384": mdns.HmacSHA384, "hmac-sha512": mdns.HmacSHA512,
}

// Kind is the provider. Its clock must be the wall clock, for the name server compares it with its own.
type Kind struct{ Clock clock.Clock }

var _ app.Kind = Kind{}

// Check implements app.Kind. The credential of the one key is its secret as it is, that of several the secrets by zone.
func (Kind) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	zones := Zones(in.Settings[SettingZones])
	if len(zones) == 0 {
		one, wrong := check("", Zone{
			Server: in.Settings[SettingServer], KeyName: in.Settings[SettingKeyName], Algorithm: in.Settings[SettingAlgorithm],
		}, secrets[SecretTSIG])
		return map[string]string{SettingServer: one.Server, SettingKeyName: one.KeyName, SettingAlgorithm: one.Algorithm}, secrets[SecretTSIG], wrong
	}

	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: field, Msg: fmt.Sprintf(format, args...)})
	}
	if in.Settings[SettingServer]+in.Settings[SettingKeyName]+in.Settings[SettingAlgorithm] != "" || !secrets[SecretTSIG].IsZero() {
		fail("zones", "is given beside a server or key for all zones; give one or the other")
	}
	var seen []string
	byZone := app.Secrets{}
	for i := range zones {
		path, given := fmt.Sprintf("zones[%d].", i), zones[i].Zone
		one, more := check(path, zones[i], secrets[ZoneSecret(i)])
		wrong = append(wrong, more...)
		one.Zone, _ = domain.Name(given)
		if slices.Contains(seen, one.Zone) {
			fail(path+"zone", "%q is there twice; leave one out", given)
		}
		seen = append(seen, one.Zone)
		byZone[one.Zone] = secrets[ZoneSecret(i)]
		zones[i] = one
	}
	return map[string]string{SettingZones: ZonesSetting(zones)}, byZone.Pack(), wrong
}

// CheckZones implements app.ZoneChecker: servers and keys are given for the account's zones, each of them and no other.
func (Kind) CheckZones(in domain.Account) []errs.Field {
	zones := Zones(in.Settings[SettingZones])
	if len(zones) == 0 {
		return nil
	}
	var wrong []errs.Field
	for i, z := range zones {
		if !slices.Contains(in.Zones, z.Zone) {
			wrong = append(wrong, errs.Field{Name: fmt.Sprintf("zones[%d].zone", i), Msg: fmt.Sprintf("%q given, allowed are the account's zones: %s", z.Zone, strings.Join(in.Zones, ", "))})
		}
	}
	for _, zone := range in.Zones {
		if !slices.ContainsFunc(zones, func(z Zone) bool { return z.Zone == zone }) {
			wrong = append(wrong, errs.Field{Name: "zones", Msg: fmt.Sprintf("has no server and key for the zone %s of the account; add them, or take the zone out of the account", zone)})
		}
	}
	return wrong
}

// check completes one server and key; the names of what is wrong begin with path.
func check(path string, in Zone, key secret.Value) (Zone, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: path + field, Msg: fmt.Sprintf(format, args...)})
	}
	out := in
	out.Server = strings.TrimSpace(in.Server)
	if out.Server != "" && !strings.Contains(out.Server, ":") {
		out.Server += ":53"
	}
	host, port, err := net.SplitHostPort(out.Server)
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 1 || n > 65535 || host == "" {
		fail("server", "%q given; give the zone's primary name server as host:port, e.g. ns1.example.org:53 or [2001:db8::53]:53", in.Server)
	}

	var why string
	if out.KeyName, why = domain.Name(in.KeyName); why != "" {
		fail("tsigKeyName", "%q %s; give the name of the key as the name server's configuration has it", in.KeyName, why)
	}

	out.Algorithm = cmp.Or(strings.TrimSuffix(strings.ToLower(in.Algorithm), "."), defaultAlgorithm)
	if algorithms[out.Algorithm] == "" {
		fail("tsigAlgorithm", "%q given, allowed: %s", in.Algorithm, strings.Join(slices.Sorted(maps.Keys(algorithms)), ", "))
	}

	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key.Reveal()))
	switch {
	case key.IsZero():
		fail("tsigSecret", "is required: the secret of the key in base64, as tsig-keygen prints it")
	case err != nil || len(plain) == 0:
		fail("tsigSecret", "is not base64; give the secret of the key as tsig-keygen prints it, without quotes")
	}
	return out, wrong
}

// Open implements app.Kind.
func (k Kind) Open(settings map[string]string, credential secret.Value) (app.Provider, error) {
	zones := Zones(settings[SettingZones])
	if len(zones) == 0 {
		return &provider{
			clock: k.Clock, server: settings[SettingServer], algorithm: settings[SettingAlgorithm],
			keyName: settings[SettingKeyName], secret: credential,
		}, nil
	}
	secrets, err := app.Unpack(credential)
	if err != nil {
		return nil, err
	}
	all := &perZone{providers: map[string]*provider{}}
	for _, z := range zones {
		all.providers[z.Zone] = &provider{clock: k.Clock, server: z.Server, algorithm: z.Algorithm, keyName: z.KeyName, secret: secrets[z.Zone], exact: true}
		all.servers = append(all.servers, z.Server)
	}
	slices.Sort(all.servers)
	all.servers = slices.Compact(all.servers)
	return all, nil
}

// perZone sends each zone to its own server, with its own key.
type perZone struct {
	providers map[string]*provider
	servers   []string
}

// Server implements app.Provider.
func (p *perZone) Server() string { return strings.Join(p.servers, " or ") }

// Apply implements app.Provider.
func (p *perZone) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	one, err := p.of(zone)
	if err != nil {
		return "", err
	}
	return one.Apply(ctx, zone, fqdn, want, drop, ttl)
}

// Read implements app.Provider.
func (p *perZone) Read(ctx context.Context, zone, fqdn string) ([]string, error) {
	one, err := p.of(zone)
	if err != nil {
		return nil, err
	}
	return one.Read(ctx, zone, fqdn)
}

func (p *perZone) of(zone string) (*provider, error) {
	if one := p.providers[zone]; one != nil {
		return one, nil
	}
	return nil, errs.New(errs.Precondition, domain.ReasonZoneUnknown, "the DNS account has no server and key for the zone %s any more; it has them for %s: add the zone again",
		zone, strings.Join(slices.Sorted(maps.Keys(p.providers)), ", "))
}

type provider struct {
	clock     clock.Clock
	server    string
	keyName   string // no dot at the end
	algorithm string
	secret    secret.Value
	exact     bool // the zone is given with its server and key, and is not looked for
}

// Server implements app.Provider.
func (p *provider) Server() string { return p.server }

// Apply implements app.Provider with one update message.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	if !p.exact {
		var err error
		if zone, err = p.zoneOf(ctx, zone, fqdn); err != nil {
			return "", err
		}
	}
	return "", p.update(ctx, zone, fqdn, want, drop, ttl)
}

// zoneOf asks the server which of its zones has the name: it may be a child of the account's zone, or the account's zone only a part of it. A
// server that does not say is sent the account's zone, and its answer to the update says what is wrong.
func (p *provider) zoneOf(ctx context.Context, zone, fqdn string) (string, error) {
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(fqdn), mdns.TypeSOA)
	m.RecursionDesired = false
	answer, err := p.exchange(ctx, client(), m)
	if err != nil {
		return "", err
	}
	if !answer.Authoritative {
		return zone, nil
	}
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if soa, ok := rr.(*mdns.SOA); ok && mdns.IsSubDomain(soa.Hdr.Name, mdns.Fqdn(fqdn)) && soa.Hdr.Name != "." {
			return strings.TrimSuffix(strings.ToLower(soa.Hdr.Name), "."), nil
		}
	}
	return zone, nil
}

func (p *provider) update(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) error {
	m := new(mdns.Msg)
	m.SetUpdate(mdns.Fqdn(zone))
	m.Remove(records(fqdn, drop, ttl))
	m.Insert(records(fqdn, want, ttl))
	key := mdns.Fqdn(p.keyName)
	m.SetTsig(key, algorithms[p.algorithm], fudge, p.clock.Now().Unix())
	c := client()
	c.TsigSecret = map[string]string{key: strings.TrimSpace(p.secret.Reveal())}
	answer, err := p.exchange(ctx, c, m)
	if answer == nil {
		return err
	}
	// An answer to a refused signature cannot be signed by the key, so what it says comes before the error of its own signature.
	if refused := p.judge(answer, zone, fqdn); refused != nil {
		return refused
	}
	if err != nil {
		return errs.New(errs.Timeout, domain.ReasonTSIGRefused, "the name server %s answered an update with a signature that the TSIG key %q (%s) did not make: %w; "+
			"is something between that changes messages?", p.server, p.keyName, p.algorithm, err)
	}
	return nil
}

// records makes TXT records; a value longer than 255 bytes is split (RFC 1035 section 3.3.14).
func records(fqdn string, values []string, ttl time.Duration) []mdns.RR {
	rrs := make([]mdns.RR, len(values))
	for i, v := range values {
		var parts []string
		for len(v) > 255 {
			parts, v = append(parts, v[:255]), v[255:]
		}
		rrs[i] = &mdns.TXT{
			Hdr: mdns.RR_Header{Name: mdns.Fqdn(fqdn), Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: uint32(ttl / time.Second)}, //nolint:gosec // at most a day
			Txt: append(parts, v),
		}
	}
	return rrs
}

// longest bounds an exchange whose context has no deadline.
const longest = 30 * time.Second

// client speaks TCP: no answer is cut, and a failed dial is known not to have changed anything.
func client() *mdns.Client { return &mdns.Client{Net: "tcp", Timeout: longest} }

// exchange returns an answer, an error, or both when the answer's signature is not right.
func (p *provider) exchange(ctx context.Context, c *mdns.Client, m *mdns.Msg) (*mdns.Msg, error) {
	conn, err := c.DialContext(ctx, p.server)
	if err != nil {
		return nil, errs.New(errs.Unavailable, domain.ReasonUnreachable,
			"the name server %s cannot be reached: %w; check the address, that it runs, and that TCP to it is let through", p.server, bare(err))
	}
	defer func() { _ = conn.Close() }()
	answer, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if err == nil || (answer != nil && signature(err)) {
		return answer, err
	}
	return nil, errs.New(errs.Timeout, domain.ReasonNoAnswer, "the name server %s took the connection but gave no answer: %w", p.server, bare(err))
}

// signature reports whether err is about the signature of an answer that arrived whole.
func signature(err error) bool {
	return slices.ContainsFunc([]error{mdns.ErrSig, mdns.ErrTime, mdns.ErrKeyAlg, mdns.ErrSecret, mdns.ErrAuth, mdns.ErrNoSig},
		func(e error) bool { return errors.Is(err, e) })
}

// bare drops the addresses that net puts around an error: the message names the server already.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// judge classifies the answer to an update (RFC 2136 section 2.2, RFC 8945 section 5.2).
func (p *provider) judge(answer *mdns.Msg, zone, fqdn string) error {
	key := fmt.Sprintf("the TSIG key %q (%s)", p.keyName, p.algorithm)
	if t := answer.IsTsig(); t != nil && t.Error != mdns.RcodeSuccess {
		refused := func(format string, args ...any) error {
			return errs.New(errs.Forbidden, domain.ReasonTSIGRefused, format, args...)
		}
		switch t.Error {
		case mdns.RcodeBadKey:
			return refused("the name server %s does not know %s (BADKEY); give the name and algorithm as its configuration has them, or add the key there", p.server, key)
		case mdns.RcodeBadSig:
			return refused("the name server %s refused the signature of %s (BADSIG); the secret is not the one that it has for this key: "+
				"make a DNS account with the right secret and disable this one", p.server, key)
		case mdns.RcodeBadTime:
			return refused("the name server %s refused the time of the signature of %s (BADTIME); its clock and this host's differ by more than %d s: mend the clocks",
				p.server, key, fudge)
		}
		return refused("the name server %s refused %s (%s)", p.server, key, mdns.RcodeToString[int(t.Error)])
	}
	switch answer.Rcode {
	case mdns.RcodeSuccess:
		return nil
	case mdns.RcodeNotAuth:
		return errs.New(errs.Precondition, domain.ReasonZoneNotAuth,
			"the name server %s is not authoritative for the zone %s (NOTAUTH); give the account the zone that it serves as primary, or the server that serves this zone", p.server, zone)
	case mdns.RcodeNotZone:
		return errs.New(errs.Precondition, domain.ReasonZoneNotAuth, "the name server %s says that %s is not in the zone %s (NOTZONE)", p.server, fqdn, zone)
	case mdns.RcodeRefused:
		return errs.New(errs.Forbidden, domain.ReasonUpdateRefused,
			"the name server %s refused to change %s for %s (REFUSED); allow it there, e.g. in BIND: update-policy { grant %s zonesub TXT; };", p.server, fqdn, key, p.keyName)
	case mdns.RcodeNotImplemented:
		return errs.New(errs.Precondition, domain.ReasonUpdateRefused, "the name server %s takes no dynamic updates for %s (NOTIMP); give the zone's primary, with updates switched on", p.server, zone)
	}
	return errs.New(errs.Unavailable, domain.ReasonUpdateFailed, "the name server %s did not change %s: %s; its log says why", p.server, fqdn, rcode(answer.Rcode))
}

func rcode(code int) string {
	if s, ok := mdns.RcodeToString[code]; ok {
		return s
	}
	return "RCODE " + strconv.Itoa(code)
}

// Read implements app.Provider. The question is not signed, as those of a CA are not.
func (p *provider) Read(ctx context.Context, _, fqdn string) ([]string, error) {
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(fqdn), mdns.TypeTXT)
	m.RecursionDesired = false
	answer, err := p.exchange(ctx, client(), m)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != mdns.RcodeSuccess && answer.Rcode != mdns.RcodeNameError {
		return nil, errs.New(errs.Precondition, domain.ReasonReadFailed, "the name server %s does not answer what is at %s: %s; allow questions from this host", p.server, fqdn, rcode(answer.Rcode))
	}
	var values []string
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *mdns.CNAME:
			return nil, errs.New(errs.Precondition, domain.ReasonNameIsCNAME,
				"%s is an alias (CNAME) of %s, so it takes no TXT record; remove the alias, or prove control by http-01", fqdn, strings.TrimSuffix(rr.Target, "."))
		case *mdns.TXT:
			values = append(values, strings.Join(rr.Txt, ""))
		}
	}
	return values, nil
}

// Package route53 writes TXT record sets of Amazon Route 53 in change batches that somebody else's change in between makes fail, asks whether all servers
// have them, and reads them back.
package route53

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/certwright/certwright/services/dns/internal/adapters/rest"
	"github.com/certwright/certwright/services/dns/internal/adapters/txt"
	"github.com/certwright/certwright/services/dns/internal/app"
	"github.com/certwright/certwright/services/dns/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/secret"
)

// Name of the provider.
const Name = "route53"

// The settings and secrets of an account.
const (
	SettingKeyID       = "access_key_id"
	SettingRole        = "role_arn"
	SettingExternalID  = "external_id"
	SettingZoneID      = "hosted_zone_id"
	SettingRegion      = "region"
	SecretKey          = "secret_access_key"
	SecretSessionToken = "session_token"
)

const (
	defaultRegion = "us-east-1"
	session       = "certwright-dns" // names our calls in the trail of an assumed role
	host          = "AWS"
	// tries bounds how often a set is read and written again since somebody else was quicker.
	tries = 3
)

var (
	keyID  = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	role   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
	zoneID = regexp.MustCompile(`^Z[A-Z0-9]{1,31}$`)
	region = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
)

// Kind is the provider. Its clock must be the wall clock, for AWS compares it with its own.
type Kind struct {
	Clock    clock.Clock
	Endpoint string // instead of Route 53's and STS's own
}

var (
	_ app.Kind        = Kind{}
	_ app.ZoneChecker = Kind{}
	_ app.Settler     = &provider{}
)

// Check implements app.Kind.
func (Kind) Check(in domain.Account, secrets app.Secrets) (map[string]string, secret.Value, []errs.Field) {
	var wrong []errs.Field
	fail := func(field, format string, args ...any) {
		wrong = append(wrong, errs.Field{Name: field, Msg: fmt.Sprintf(format, args...)})
	}
	out := map[string]string{}
	for _, name := range []string{SettingKeyID, SettingRole, SettingExternalID, SettingZoneID, SettingRegion} {
		out[name] = strings.TrimSpace(in.Settings[name])
	}
	out[SettingZoneID] = strings.TrimPrefix(out[SettingZoneID], "/hostedzone/")
	out[SettingRegion] = cmp.Or(out[SettingRegion], defaultRegion)
	key := secret.New(strings.TrimSpace(secrets[SecretKey].Reveal()))
	token := secret.New(strings.TrimSpace(secrets[SecretSessionToken].Reveal()))

	if !keyID.MatchString(out[SettingKeyID]) {
		fail("accessKeyId", "%q given; give the id of an access key, e.g. AKIAIOSFODNN7EXAMPLE", out[SettingKeyID])
	}
	if key.IsZero() {
		fail("secretAccessKey", "is required: AWS shows it once, when the access key is made")
	}
	if strings.HasPrefix(out[SettingKeyID], "ASIA") && token.IsZero() {
		fail("sessionToken", "is required: the access key %s is a temporary one", out[SettingKeyID])
	}
	if out[SettingRole] != "" && !role.MatchString(out[SettingRole]) {
		fail("roleArn", "%q given; give the role as arn:aws:iam::<12 digits>:role/<name>, or leave it out", out[SettingRole])
	}
	if out[SettingExternalID] != "" && out[SettingRole] == "" {
		fail("externalId", "is given without roleArn; it is what the trust policy of a role asks for")
	}
	if out[SettingZoneID] != "" && !zoneID.MatchString(out[SettingZoneID]) {
		fail("hostedZoneId", "%q given; give an id like Z1D633PJN98FT9, or leave it out and the zone is found by its name", out[SettingZoneID])
	}
	if !region.MatchString(out[SettingRegion]) {
		fail("region", "%q given; give a region like us-east-1, or leave it out for %s", out[SettingRegion], defaultRegion)
	}
	return out, app.Secrets{SecretKey: key, SecretSessionToken: token}.Pack(), wrong
}

// CheckZones implements app.ZoneChecker.
func (Kind) CheckZones(in domain.Account) []errs.Field {
	if in.Settings[SettingZoneID] != "" && len(in.Zones) > 1 {
		return []errs.Field{{Name: "hostedZoneId", Msg: fmt.Sprintf("is one zone's, but the account has %d; leave it out and they are found by name, or make an account for each", len(in.Zones))}}
	}
	return nil
}

// Open implements app.Kind.
func (k Kind) Open(settings map[string]string, credential secret.Value) (app.Provider, error) {
	secrets, err := app.Unpack(credential)
	if err != nil {
		return nil, err
	}
	var endpoint *string
	if k.Endpoint != "" {
		endpoint = aws.String(k.Endpoint)
	}
	var who aws.CredentialsProvider = credentials.NewStaticCredentialsProvider(settings[SettingKeyID], secrets[SecretKey].Reveal(), secrets[SecretSessionToken].Reveal())
	if arn := settings[SettingRole]; arn != "" {
		client := sts.New(sts.Options{Region: settings[SettingRegion], Credentials: who, BaseEndpoint: endpoint, HTTPClient: rest.HTTP, Retryer: aws.NopRetryer{}})
		who = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, arn, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = session
			if id := settings[SettingExternalID]; id != "" {
				o.ExternalID = aws.String(id)
			}
		}))
	}
	return &provider{
		zone: settings[SettingZoneID],
		rest: &rest.Client{Provider: "Route 53", Clock: k.Clock, Hide: []secret.Value{secrets[SecretKey], secrets[SecretSessionToken]}},
		// The worker tries again: a retry of the SDK's own would outlive the call's time.
		client: route53.New(route53.Options{Region: settings[SettingRegion], Credentials: who, BaseEndpoint: endpoint, HTTPClient: rest.HTTP, Retryer: aws.NopRetryer{}}),
	}, nil
}

type provider struct {
	client *route53.Client
	rest   *rest.Client
	zone   string // id, empty: to be found by name
}

// Server implements app.Provider.
func (p *provider) Server() string { return "Route 53" }

// Apply implements app.Provider. The batch deletes the set exactly as it was read and makes the new one, so it fails when somebody else changed the set meanwhile.
// It is sent also when all that is wanted is there, since the servers may not all have it yet.
func (p *provider) Apply(ctx context.Context, zone, fqdn string, want, drop []string, ttl time.Duration) (string, error) {
	id, err := p.zoneID(ctx, zone)
	if err != nil {
		return "", err
	}
	for range tries {
		old, err := p.get(ctx, id, zone, fqdn)
		if err != nil {
			return "", err
		}
		var changes []types.Change
		next := types.ResourceRecordSet{Name: aws.String(fqdn + "."), Type: types.RRTypeTxt, TTL: aws.Int64(int64(ttl / time.Second))}
		if old != nil {
			changes = append(changes, types.Change{Action: types.ChangeActionDelete, ResourceRecordSet: old})
			next.TTL = old.TTL
			for _, r := range old.ResourceRecords { // as they are, for they may be somebody else's
				if v := txt.Unquote(aws.ToString(r.Value)); !slices.Contains(drop, v) {
					next.ResourceRecords = append(next.ResourceRecords, r)
				}
			}
		}
		for _, v := range want {
			if !slices.Contains(values(&next), v) {
				next.ResourceRecords = append(next.ResourceRecords, types.ResourceRecord{Value: aws.String(txt.Quote(v))})
			}
		}
		if len(next.ResourceRecords) > 0 {
			changes = append(changes, types.Change{Action: types.ChangeActionCreate, ResourceRecordSet: &next})
		}
		if len(changes) == 0 {
			return "", nil
		}
		out, err := p.client.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{
			HostedZoneId: aws.String(id), ChangeBatch: &types.ChangeBatch{Changes: changes, Comment: aws.String("ACME challenge")},
		})
		var batch *types.InvalidChangeBatch
		switch {
		case err == nil:
			return strings.TrimPrefix(aws.ToString(out.ChangeInfo.Id), "/change/"), nil
		case !errors.As(err, &batch):
			return "", p.classify(true, err, "change TXT records of the zone "+zone)
		}
		said := p.said(cmp.Or(strings.Join(batch.Messages, " "), aws.ToString(batch.Message)))
		switch {
		case strings.Contains(said, "CNAME"):
			return "", errs.New(errs.Precondition, domain.ReasonNameIsCNAME, "%s is an alias (CNAME), so it takes no TXT record; remove the alias, or prove control by http-01", fqdn)
		case strings.Contains(said, "not permitted in zone"):
			return "", errs.New(errs.Precondition, domain.ReasonZoneUnknown, "the hosted zone %s is not that of %s: %s; correct hostedZoneId, or leave it out", id, zone, said)
		case !strings.Contains(said, "it already exists") && !strings.Contains(said, "not found") && !strings.Contains(said, "do not match"):
			return "", errs.New(errs.Precondition, domain.ReasonUpdateRefused, "Route 53 refused to change %s: %s", fqdn, said)
		}
	}
	return "", errs.New(errs.Conflict, domain.ReasonSetChanged, "the TXT records of %s are changed by somebody else all the time; they are written again later", fqdn)
}

// Settled implements app.Settler.
func (p *provider) Settled(ctx context.Context, change string) (bool, error) {
	out, err := p.client.GetChange(ctx, &route53.GetChangeInput{Id: aws.String(change)})
	var gone *types.NoSuchChange
	if errors.As(err, &gone) { // forgotten after 30 days, or of the account's former credentials
		return true, nil
	}
	if err != nil {
		return false, p.classify(false, err, "say whether a change has reached its servers (route53:GetChange)")
	}
	return out.ChangeInfo.Status == types.ChangeStatusInsync, nil
}

// Read implements app.Provider.
func (p *provider) Read(ctx context.Context, zone, fqdn string) ([]string, error) {
	id, err := p.zoneID(ctx, zone)
	if err != nil {
		return nil, err
	}
	set, err := p.get(ctx, id, zone, fqdn)
	return values(set), err
}

func values(set *types.ResourceRecordSet) []string {
	if set == nil {
		return nil
	}
	all := make([]string, len(set.ResourceRecords))
	for i, r := range set.ResourceRecords {
		all[i] = txt.Unquote(aws.ToString(r.Value))
	}
	return all
}

// zoneID finds the public hosted zone.
func (p *provider) zoneID(ctx context.Context, zone string) (string, error) {
	if p.zone != "" {
		return p.zone, nil
	}
	out, err := p.client.ListHostedZonesByName(ctx, &route53.ListHostedZonesByNameInput{DNSName: aws.String(zone), MaxItems: aws.Int32(100)})
	if err != nil {
		return "", p.classify(false, err, "list hosted zones (route53:ListHostedZonesByName)")
	}
	var ids []string
	for _, z := range out.HostedZones {
		if aws.ToString(z.Name) == zone+"." && (z.Config == nil || !z.Config.PrivateZone) {
			ids = append(ids, strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/"))
		}
	}
	switch len(ids) {
	case 1:
		return ids[0], nil
	case 0:
		return "", errs.New(errs.Precondition, domain.ReasonZoneUnknown,
			"Route 53 has no public hosted zone %s in this AWS account; give the zone as Route 53 names it, or the role of the account that has it", zone)
	}
	return "", errs.New(errs.Precondition, domain.ReasonZoneUnknown,
		"Route 53 has several public hosted zones %s: %s; give hostedZoneId, the one that the name servers of the domain serve", zone, strings.Join(ids, ", "))
}

// get returns the TXT set of a name, nil when there is none.
func (p *provider) get(ctx context.Context, id, zone, fqdn string) (*types.ResourceRecordSet, error) {
	out, err := p.client.ListResourceRecordSets(ctx, &route53.ListResourceRecordSetsInput{HostedZoneId: aws.String(id), StartRecordName: aws.String(fqdn), MaxItems: aws.Int32(100)})
	if err != nil {
		return nil, p.classify(false, err, "list records of the zone "+zone)
	}
	for _, set := range out.ResourceRecordSets {
		if aws.ToString(set.Name) != fqdn+"." {
			continue
		}
		switch {
		case set.Type == types.RRTypeCname && len(set.ResourceRecords) > 0:
			return nil, errs.New(errs.Precondition, domain.ReasonNameIsCNAME, "%s is an alias (CNAME) of %s, so it takes no TXT record; remove the alias, or prove control by http-01",
				fqdn, strings.TrimSuffix(aws.ToString(set.ResourceRecords[0].Value), "."))
		case set.Type != types.RRTypeTxt:
		case set.SetIdentifier != nil || set.AliasTarget != nil:
			return nil, errs.New(errs.Precondition, domain.ReasonUpdateRefused, "the TXT records of %s have a routing policy or are an alias in Route 53; make them a simple record, or remove them", fqdn)
		default:
			return &set, nil
		}
	}
	return nil, nil
}

// classify brings an error of the SDK into our words; what says what was asked for.
func (p *provider) classify(changes bool, err error, what string) error {
	var (
		api      smithy.APIError
		response *awshttp.ResponseError
	)
	a := rest.Answer{Header: http.Header{}}
	if errors.As(err, &response) && response.HTTPResponse() != nil {
		a.Status, a.Header = response.HTTPStatusCode(), response.HTTPResponse().Header
	}
	if !errors.As(err, &api) {
		if a.Status >= 300 {
			a.Body = []byte("an answer that is no error of its own")
			return p.failed(changes, a)
		}
		return p.rest.Lost(changes, host, err)
	}
	said := p.said(api.ErrorCode() + ": " + api.ErrorMessage())
	switch api.ErrorCode() {
	case "Throttling", "ThrottlingException", "PriorRequestNotComplete", "RequestLimitExceeded":
		return p.rest.Throttled(a)
	case "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
		"MissingAuthenticationToken", "InvalidAccessKeyId", "InvalidSignatureException":
		return errs.New(errs.Forbidden, domain.ReasonCredentialRefused,
			"AWS refused the access key when asked to %s: %s; give a valid key by an update of the DNS account, and mend the clock of this host if it says the request has expired", what, said)
	case "AccessDenied", "AccessDeniedException":
		return errs.New(errs.Forbidden, domain.ReasonUpdateRefused, "AWS does not let this account %s: %s; allow it by a policy", what, said)
	case "NoSuchHostedZone":
		return errs.New(errs.Precondition, domain.ReasonZoneUnknown, "Route 53 does not have the hosted zone: %s; correct hostedZoneId, or leave it out", said)
	}
	if a.Status == http.StatusTooManyRequests {
		return p.rest.Throttled(a)
	}
	a.Body = []byte(said)
	return p.failed(changes, a)
}

func (p *provider) failed(changes bool, a rest.Answer) error {
	if changes && a.Status >= 500 {
		return p.rest.Failed(errs.Timeout, a)
	}
	return p.rest.Failed(errs.Unavailable, a)
}

func (p *provider) said(text string) string { return p.rest.Said(rest.Answer{Body: []byte(text)}) }

package domain

import (
	typesv1 "github.com/certwright/certwright/api/certwright/types/v1"
	"github.com/certwright/certwright/shared/errs"
)

// The reasons that this service introduces; docs/errors.md lists each with cause and remedy.
const (
	ReasonNoAccount         = "DNS_NO_ACCOUNT"
	ReasonAccountGone       = "DNS_ACCOUNT_GONE"
	ReasonAccountInUse      = "DNS_ACCOUNT_IN_USE"
	ReasonNotVisible        = "DNS_RECORD_NOT_VISIBLE"
	ReasonUnreachable       = "DNS_SERVER_UNREACHABLE"
	ReasonNoAnswer          = "DNS_SERVER_NO_ANSWER"
	ReasonTSIGRefused       = "DNS_TSIG_REFUSED"
	ReasonZoneNotAuth       = "DNS_ZONE_NOT_AUTH"
	ReasonUpdateRefused     = "DNS_UPDATE_REFUSED"
	ReasonUpdateFailed      = "DNS_UPDATE_FAILED"
	ReasonNameIsCNAME       = "DNS_NAME_IS_CNAME"
	ReasonReadFailed        = "DNS_READ_FAILED"
	ReasonCredentialRefused = "DNS_CREDENTIALS_REFUSED"
	ReasonZoneUnknown       = "DNS_ZONE_UNKNOWN"
	ReasonThrottled         = "DNS_THROTTLED"
	ReasonProviderFailed    = "DNS_PROVIDER_FAILED"
	ReasonSetChanged        = "DNS_RECORDS_CHANGED"
	ReasonChangePending     = "DNS_CHANGE_PENDING"
	ReasonProviderUnknown   = "DNS_PROVIDER_UNKNOWN"
	ReasonCredentialsSealed = "DNS_CREDENTIALS_UNREADABLE"
)

// Problem is why something does not go on, as users see it. The zero Problem is none.
type Problem struct {
	Reason   string `bson:"reason"`
	Detail   string `bson:"detail"`
	Retrying bool   `bson:"retrying"`
}

// IsZero reports whether there is no problem.
func (p Problem) IsZero() bool { return p.Reason == "" }

// Proto is the problem on the wire, nil when there is none.
func (p Problem) Proto() *typesv1.Problem {
	if p.IsZero() {
		return nil
	}
	return &typesv1.Problem{Reason: p.Reason, Detail: p.Detail, Retrying: p.Retrying}
}

// ProblemOf is the problem that an error of a provider means. It is tried again whatever it is: an operator may mend the server.
func ProblemOf(err error) Problem {
	e := errs.As(err)
	if e == nil {
		return Problem{Reason: ReasonUpdateFailed, Detail: "the DNS provider failed in an unexpected way; the log of the dns service says more", Retrying: true}
	}
	return Problem{Reason: errs.ReasonOf(err), Detail: e.Msg, Retrying: true}
}

// Code generated from the event options of the contracts by "make gen". DO NOT EDIT.

package events

import (
	"google.golang.org/protobuf/proto"

	certificateeventsv1 "github.com/certwright/certwright/api/certwright/events/certificate/v1"
	challengeeventsv1 "github.com/certwright/certwright/api/certwright/events/challenge/v1"
	deploymenteventsv1 "github.com/certwright/certwright/api/certwright/events/deployment/v1"
	dnseventsv1 "github.com/certwright/certwright/api/certwright/events/dns/v1"
	keyeventsv1 "github.com/certwright/certwright/api/certwright/events/key/v1"
	ordereventsv1 "github.com/certwright/certwright/api/certwright/events/order/v1"
	renewaleventsv1 "github.com/certwright/certwright/api/certwright/events/renewal/v1"
	revocationeventsv1 "github.com/certwright/certwright/api/certwright/events/revocation/v1"
)

// New answers an empty message of the event type, false when no contract knows the type.
func New(eventType string) (proto.Message, bool) {
	switch eventType {
	case certificateeventsv1.TypeRequested:
		return new(certificateeventsv1.Requested), true
	case certificateeventsv1.TypeSpecChanged:
		return new(certificateeventsv1.SpecChanged), true
	case certificateeventsv1.TypeDeleted:
		return new(certificateeventsv1.Deleted), true
	case certificateeventsv1.TypeRevocationRequested:
		return new(certificateeventsv1.RevocationRequested), true
	case certificateeventsv1.TypeVersionAdded:
		return new(certificateeventsv1.VersionAdded), true
	case certificateeventsv1.TypeVersionRefused:
		return new(certificateeventsv1.VersionRefused), true
	case certificateeventsv1.TypeIntentClosed:
		return new(certificateeventsv1.IntentClosed), true
	case certificateeventsv1.TypeVersionRevoked:
		return new(certificateeventsv1.VersionRevoked), true
	case certificateeventsv1.TypeRevocationFailed:
		return new(certificateeventsv1.RevocationFailed), true
	case certificateeventsv1.TypeIssued:
		return new(certificateeventsv1.Issued), true
	case certificateeventsv1.TypeRenewed:
		return new(certificateeventsv1.Renewed), true
	case challengeeventsv1.TypePresented:
		return new(challengeeventsv1.Presented), true
	case challengeeventsv1.TypeActionRequired:
		return new(challengeeventsv1.ActionRequired), true
	case challengeeventsv1.TypeFailed:
		return new(challengeeventsv1.Failed), true
	case challengeeventsv1.TypeRecordWanted:
		return new(challengeeventsv1.RecordWanted), true
	case challengeeventsv1.TypeRecordUnwanted:
		return new(challengeeventsv1.RecordUnwanted), true
	case deploymenteventsv1.TypeStarted:
		return new(deploymenteventsv1.Started), true
	case deploymenteventsv1.TypeSucceeded:
		return new(deploymenteventsv1.Succeeded), true
	case deploymenteventsv1.TypeFailed:
		return new(deploymenteventsv1.Failed), true
	case deploymenteventsv1.TypeRolledBack:
		return new(deploymenteventsv1.RolledBack), true
	case deploymenteventsv1.TypeStuck:
		return new(deploymenteventsv1.Stuck), true
	case dnseventsv1.TypeRecordPresented:
		return new(dnseventsv1.RecordPresented), true
	case dnseventsv1.TypeRecordFailed:
		return new(dnseventsv1.RecordFailed), true
	case dnseventsv1.TypeRecordRemoved:
		return new(dnseventsv1.RecordRemoved), true
	case keyeventsv1.TypeCreated:
		return new(keyeventsv1.Created), true
	case keyeventsv1.TypeActivated:
		return new(keyeventsv1.Activated), true
	case keyeventsv1.TypeReleased:
		return new(keyeventsv1.Released), true
	case keyeventsv1.TypeDestroyed:
		return new(keyeventsv1.Destroyed), true
	case ordereventsv1.TypeAccepted:
		return new(ordereventsv1.Accepted), true
	case ordereventsv1.TypeIssued:
		return new(ordereventsv1.Issued), true
	case ordereventsv1.TypeFailed:
		return new(ordereventsv1.Failed), true
	case ordereventsv1.TypeRejected:
		return new(ordereventsv1.Rejected), true
	case ordereventsv1.TypeCancelled:
		return new(ordereventsv1.Cancelled), true
	case ordereventsv1.TypeBlocked:
		return new(ordereventsv1.Blocked), true
	case ordereventsv1.TypeUnblocked:
		return new(ordereventsv1.Unblocked), true
	case ordereventsv1.TypeAuthorizationRequired:
		return new(ordereventsv1.AuthorizationRequired), true
	case ordereventsv1.TypeAuthorizationClosed:
		return new(ordereventsv1.AuthorizationClosed), true
	case renewaleventsv1.TypePlanned:
		return new(renewaleventsv1.Planned), true
	case renewaleventsv1.TypeHeld:
		return new(renewaleventsv1.Held), true
	case renewaleventsv1.TypeDue:
		return new(renewaleventsv1.Due), true
	case renewaleventsv1.TypeOverdue:
		return new(renewaleventsv1.Overdue), true
	case renewaleventsv1.TypeExpiring:
		return new(renewaleventsv1.Expiring), true
	case renewaleventsv1.TypeExpired:
		return new(renewaleventsv1.Expired), true
	case renewaleventsv1.TypeWindowMoved:
		return new(renewaleventsv1.WindowMoved), true
	case revocationeventsv1.TypeDone:
		return new(revocationeventsv1.Done), true
	case revocationeventsv1.TypeFailed:
		return new(revocationeventsv1.Failed), true
	default:
		return nil, false
	}
}

// Types answers every event type, ordered by context.
func Types() []string {
	return []string{
		certificateeventsv1.TypeRequested,
		certificateeventsv1.TypeSpecChanged,
		certificateeventsv1.TypeDeleted,
		certificateeventsv1.TypeRevocationRequested,
		certificateeventsv1.TypeVersionAdded,
		certificateeventsv1.TypeVersionRefused,
		certificateeventsv1.TypeIntentClosed,
		certificateeventsv1.TypeVersionRevoked,
		certificateeventsv1.TypeRevocationFailed,
		certificateeventsv1.TypeIssued,
		certificateeventsv1.TypeRenewed,
		challengeeventsv1.TypePresented,
		challengeeventsv1.TypeActionRequired,
		challengeeventsv1.TypeFailed,
		challengeeventsv1.TypeRecordWanted,
		challengeeventsv1.TypeRecordUnwanted,
		deploymenteventsv1.TypeStarted,
		deploymenteventsv1.TypeSucceeded,
		deploymenteventsv1.TypeFailed,
		deploymenteventsv1.TypeRolledBack,
		deploymenteventsv1.TypeStuck,
		dnseventsv1.TypeRecordPresented,
		dnseventsv1.TypeRecordFailed,
		dnseventsv1.TypeRecordRemoved,
		keyeventsv1.TypeCreated,
		keyeventsv1.TypeActivated,
		keyeventsv1.TypeReleased,
		keyeventsv1.TypeDestroyed,
		ordereventsv1.TypeAccepted,
		ordereventsv1.TypeIssued,
		ordereventsv1.TypeFailed,
		ordereventsv1.TypeRejected,
		ordereventsv1.TypeCancelled,
		ordereventsv1.TypeBlocked,
		ordereventsv1.TypeUnblocked,
		ordereventsv1.TypeAuthorizationRequired,
		ordereventsv1.TypeAuthorizationClosed,
		renewaleventsv1.TypePlanned,
		renewaleventsv1.TypeHeld,
		renewaleventsv1.TypeDue,
		renewaleventsv1.TypeOverdue,
		renewaleventsv1.TypeExpiring,
		renewaleventsv1.TypeExpired,
		renewaleventsv1.TypeWindowMoved,
		revocationeventsv1.TypeDone,
		revocationeventsv1.TypeFailed,
	}
}

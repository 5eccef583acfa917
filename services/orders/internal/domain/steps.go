package domain

import "time"

// Step is the next thing to do for an order.
type Step string

// The steps, in the order of a smooth way.
const (
	StepNone           Step = "none"
	StepGiveUp         Step = "give_up"        // write only
	StepEnsureCSR      Step = "ensure_csr"     // ask keys
	StepOpenAttempt    Step = "open_attempt"   // write only: before newOrder is sent
	StepNewOrder       Step = "new_order"      // ask the CA
	StepUnknown        Step = "unknown"        // write only: newOrder was sent and its answer lost
	StepAuthorizations Step = "authorizations" // read the authorizations
	StepRespond        Step = "respond"        // tell the CA that answers are in place
	StepPoll           Step = "poll"           // ask the CA for the order
	StepFinalize       Step = "finalize"       // send the CSR
	StepDownload       Step = "download"       // fetch the certificate
	StepExpire         Step = "expire"         // write only: the authorizations are about to expire
)

// Next is what an order needs next, why, and when.
type Next struct {
	Step   Step
	Reason string
	At     time.Time
}

// rule is one finding of the decision; nil when it does not apply.
type rule func(o *Order, lease string, now time.Time) *Next

// The decision, first finding wins. This is the whole policy of the saga.
var rules = []rule{
	finished, givenUp, needsCSR, needsAttempt, unknownAttempt, needsAuthorizations, needsFinalize, needsDownload,
	answersInPlace, validating, aboutToExpire,
}

// Decide returns the next step for a worker that holds the lease given (empty: none). A step whose moment is in the future has it in At.
func (o *Order) Decide(lease string, now time.Time) Next {
	for _, r := range rules {
		if n := r(o, lease, now); n != nil {
			if n.At.Before(o.RetryAt) && n.Step != StepNone && n.Step != StepGiveUp {
				n.At = o.RetryAt
			}
			if !o.State.Final() && o.State != Finalizing && n.Step != StepGiveUp && n.At.After(o.GiveUpAt) {
				return Next{Step: StepGiveUp, Reason: "GiveUpReached", At: o.GiveUpAt}
			}
			return *n
		}
	}
	// Waiting for challenges: their answer is awaited by a hand-over, and the authorizations expire.
	return Next{Step: StepNone, Reason: "WaitingForChallenges", At: o.GiveUpAt}
}

func finished(o *Order, _ string, _ time.Time) *Next {
	if o.State.Final() {
		return &Next{Step: StepNone, Reason: "Finished"}
	}
	return nil
}

func givenUp(o *Order, _ string, now time.Time) *Next {
	if o.State != Finalizing && !now.Before(o.GiveUpAt) {
		return &Next{Step: StepGiveUp, Reason: "GiveUpReached"}
	}
	return nil
}

func needsCSR(o *Order, _ string, _ time.Time) *Next {
	if len(o.CSR) == 0 {
		return &Next{Step: StepEnsureCSR, Reason: "NoCSR"}
	}
	return nil
}

func needsAttempt(o *Order, _ string, _ time.Time) *Next {
	if o.Attempt() == nil {
		return &Next{Step: StepOpenAttempt, Reason: "NoOpenAttempt"}
	}
	return nil
}

func unknownAttempt(o *Order, lease string, _ time.Time) *Next {
	a := o.Attempt()
	switch {
	case a.URL != "":
		return nil
	case a.Lease == lease:
		return &Next{Step: StepNewOrder, Reason: "NoOrderURL"}
	}
	return &Next{Step: StepUnknown, Reason: "NewOrderUnanswered"}
}

func needsAuthorizations(o *Order, _ string, _ time.Time) *Next {
	a := o.Attempt()
	if o.State == Queued && len(a.Authorizations) < len(a.AuthzURLs) {
		return &Next{Step: StepAuthorizations, Reason: "AuthorizationsUnread"}
	}
	return nil
}

func needsFinalize(o *Order, lease string, _ time.Time) *Next {
	a := o.Attempt()
	if o.State != Finalizing || a.Finalized {
		return nil
	}
	if a.Lease == lease {
		return &Next{Step: StepFinalize, Reason: "ReadyToFinalize"}
	}
	return &Next{Step: StepPoll, Reason: "FinalizeUnanswered"}
}

func needsDownload(o *Order, _ string, _ time.Time) *Next {
	if o.State != Finalizing {
		return nil
	}
	if o.Attempt().CertificateURL != "" {
		return &Next{Step: StepDownload, Reason: "CertificateReady"}
	}
	return &Next{Step: StepPoll, Reason: "FinalizeSent"}
}

func answersInPlace(o *Order, _ string, _ time.Time) *Next {
	for _, z := range o.Attempt().Authorizations {
		if z.State == AuthzPresented {
			return &Next{Step: StepRespond, Reason: "AnswersInPlace"}
		}
	}
	return nil
}

func validating(o *Order, _ string, now time.Time) *Next {
	a := o.Attempt()
	if !a.ExpiresAt.IsZero() && !now.Before(a.ExpiresAt) {
		return nil // the CA has forgotten what it was to validate
	}
	for _, z := range a.Authorizations {
		if z.State == AuthzValidating {
			return &Next{Step: StepPoll, Reason: "CAValidates"}
		}
	}
	return nil
}

func aboutToExpire(o *Order, _ string, _ time.Time) *Next {
	a := o.Attempt()
	if a.ExpiresAt.IsZero() {
		return nil
	}
	return &Next{Step: StepExpire, Reason: "AuthorizationsExpire", At: a.ExpiresAt.Add(-margin(a))}
}

// margin is how long before their end authorizations count as expired: an hour, or a tenth of a short life.
func margin(a *Attempt) time.Duration {
	return max(0, min(time.Hour, a.ExpiresAt.Sub(a.CreatedAt)/10))
}

// silentAt is until when a CA that took finalize is asked at least: the safe limit of the version to be replaced (10 % of its life or 24 h are left,
// whichever is earlier), but not less than an hour; a first version has a day (flows.md, Finalize).
func (o *Order) silentAt(now time.Time) time.Time {
	r := o.Replaces
	if r == nil || !r.NotAfter.After(now) {
		return now.Add(24 * time.Hour)
	}
	left := 24 * time.Hour
	if !r.NotBefore.IsZero() {
		left = max(left, r.NotAfter.Sub(r.NotBefore)/10)
	}
	safe, least := r.NotAfter.Add(-left), now.Add(time.Hour)
	if safe.After(least) {
		return safe
	}
	return least
}

// PollAfter is how long to wait for the n-th poll without news when the CA does not say: soon at first, at last every minute.
func PollAfter(n int) time.Duration {
	waits := []time.Duration{10, 20, 40, 80, 150, 300, 600, 1000, 2000, 3000, 5000, 10_000, 20_000, 30_000, 60_000}
	return waits[min(n, len(waits)-1)] * time.Millisecond
}

// Backoff is how long to wait after the n-th transient failure in a row, from 1: 1 s doubled up to 10 min.
func Backoff(n int) time.Duration {
	return min(time.Second<<min(max(n-1, 0), 12), 10*time.Minute)
}

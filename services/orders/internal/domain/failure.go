package domain

import "time"

// Failure is what went wrong at a CA, classified once by the adapter that spoke with it.
type Failure struct {
	Problem    Problem
	RetryAfter time.Duration // the CA's word; zero: it said nothing
	// Unknown: the request may have reached the CA and been carried out.
	Unknown bool
	// Gone: the CA does not know the thing asked for.
	Gone bool
	// AccountGone: the CA does not know the account, and so nothing of it.
	AccountGone bool
}

// Error returns the detail.
func (f *Failure) Error() string { return f.Problem.Detail }

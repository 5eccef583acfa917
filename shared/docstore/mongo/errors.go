package mongo

import (
	"context"
	"errors"
	"strings"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/certwright/certwright/shared/docstore/internal/plan"
	"github.com/certwright/certwright/shared/errs"
)

// Codes of the server (src/mongo/base/error_codes.yml).
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
	codeMaxTimeExpired       = 50
	codeIndexOptionsConflict = 85
	codeIndexKeysConflict    = 86
)

// isDuplicate tells whether a write violated uniqueness. FerretDB v1 on SQLite hands its database's own message through for updates.
func isDuplicate(err error) bool {
	return mongo.IsDuplicateKeyError(err) || err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}

// classify brings an error of the driver to the kinds of errs; classified ones pass. What the server did not refuse for a reason of its
// own is Unavailable: the network, an election, a majority that did not answer.
func classify(ctx context.Context, err error) error {
	if err == nil || errs.As(err) != nil {
		return err
	}
	if ctx.Err() != nil {
		return plan.Ctx(ctx, err)
	}
	if errors.Is(err, mongo.ErrClientDisconnected) {
		return plan.Closed()
	}
	var server mongo.ServerError
	if !errors.As(err, &server) {
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "the database cannot be reached: %w", err)
	}
	var write mongo.WriteException
	switch {
	case server.HasErrorCode(codeUnauthorized), server.HasErrorCode(codeAuthenticationFailed):
		return errs.New(errs.Unavailable, "STORE_FORBIDDEN", "the database refuses this user: %w", err)
	case server.HasErrorCode(codeMaxTimeExpired), mongo.IsTimeout(err):
		return errs.New(errs.Timeout, "", "the database did not answer in time: %w", err)
	case errors.As(err, &write) && len(write.WriteErrors) == 0 && write.WriteConcernError != nil,
		mongo.IsNetworkError(err), server.HasErrorLabel("RetryableWriteError"), server.HasErrorLabel("RetryableError"):
		return errs.New(errs.Unavailable, "STORE_UNAVAILABLE", "the database is not ready: %w", err)
	default:
		return errs.New(errs.Internal, "", "database: %w", err)
	}
}

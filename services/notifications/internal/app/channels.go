package app

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/certwright/certwright/services/notifications/internal/domain"
	"github.com/certwright/certwright/shared/clock"
	"github.com/certwright/certwright/shared/docstore"
	"github.com/certwright/certwright/shared/errs"
	"github.com/certwright/certwright/shared/listing"
	"github.com/certwright/certwright/shared/outbox"
	"github.com/certwright/certwright/shared/seal"
	"github.com/certwright/certwright/shared/secret"
)

// Of webhook secrets (Standard Webhooks: "whsec_" and base64 of 24 to 64 bytes).
const (
	webhookPrefix = "whsec_"
	webhookBytes  = 32 // of a secret made here
	minWebhook    = 24
	maxWebhook    = 64
	maxPassword   = 1024
)

// cacheFor is how long another replica's new channel may stay unseen.
const cacheFor = 3 * time.Second

// CheckSecret names what is wrong with a secret that a user gave. It never shows it.
func CheckSecret(kind string, given secret.Value) []errs.Field {
	if given.IsZero() {
		return nil
	}
	if kind == domain.KindSMTP {
		if n := len(given.RevealBytes()); n > maxPassword {
			return []errs.Field{{Name: "channel.smtp.password", Msg: fmt.Sprintf("has %d bytes; at most %d are allowed", n, maxPassword)}}
		}
		return nil
	}
	if _, err := WebhookKey(given); err != nil {
		return []errs.Field{{Name: "channel.webhook.secret", Msg: errs.As(err).Msg}}
	}
	return nil
}

// WebhookKey returns the bytes that sign. Invalid when the secret is not of the right form; the message does not show it.
func WebhookKey(s secret.Value) ([]byte, error) {
	text, ok := strings.CutPrefix(s.Reveal(), webhookPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < minWebhook || len(key) > maxWebhook {
		return nil, errs.New(errs.Invalid, "INVALID_ARGUMENT", "is not %q followed by the base64 of %d to %d bytes; leave it out to have one made", webhookPrefix, minWebhook, maxWebhook)
	}
	return key, nil
}

// CreateChannel stores a checked channel under id. made is the webhook secret if one had to be made: it is shown this once. When the id exists already
// the call is a repeat and answers what is stored, without secret; AlreadyExists REQUEST_ID_REUSED when it gives another secret.
func (a *App) CreateChannel(ctx context.Context, id, team string, channel domain.Channel, given secret.Value) (doc ChannelDoc, made secret.Value, err error) {
	value := given
	if channel.Kind == domain.KindWebhook && value.IsZero() {
		key := make([]byte, webhookBytes)
		_, _ = rand.Read(key) // never fails, crypto/rand
		value = secret.New(webhookPrefix + base64.StdEncoding.EncodeToString(key))
		made = value
	}
	doc = ChannelDoc{Meta: docstore.Meta{ID: id, Team: team, WorkAt: clock.Never}, Body: StoredChannel{Channel: channel}}
	if !value.IsZero() {
		plain := value.RevealBytes()
		defer clear(plain)
		if doc.Body.Secret, err = a.Sealer.Seal(ctx, plain, []byte(id)); err != nil {
			return ChannelDoc{}, secret.Value{}, err
		}
	}
	err = a.Channels.Insert(ctx, &doc)
	if errs.KindOf(err) == errs.AlreadyExists {
		doc, err = a.repeated(ctx, id, given)
		return doc, secret.Value{}, err
	}
	if err != nil {
		return ChannelDoc{}, secret.Value{}, err
	}
	a.forget()
	return doc, made, nil
}

// repeated answers a repeated creation. The request's hash is made without the secret, so that the store holds nothing to guess it by; it is compared here.
func (a *App) repeated(ctx context.Context, id string, given secret.Value) (ChannelDoc, error) {
	doc, err := a.Channel(ctx, id)
	if err != nil || given.IsZero() {
		return doc, err
	}
	first, err := a.open(ctx, doc)
	if err != nil {
		return ChannelDoc{}, err
	}
	if !first.Equal(given) {
		return ChannelDoc{}, errs.New(errs.AlreadyExists, "REQUEST_ID_REUSED",
			"this requestId was used with another secret, which made %s; use a new requestId for a new request", id).WithMeta("first", id)
	}
	return doc, nil
}

// Channel returns a channel that is not deleted.
func (a *App) Channel(ctx context.Context, id string) (ChannelDoc, error) {
	doc, err := a.Channels.Get(ctx, id)
	if err == nil && doc.Tombstone || errs.KindOf(err) == errs.NotFound {
		return ChannelDoc{}, errs.New(errs.NotFound, "", "channel %s does not exist", id)
	}
	return doc, err
}

// ListChannels returns a page of channels by id, of all teams when team is empty.
func (a *App) ListChannels(ctx context.Context, team string, size int, after string) (docstore.Page[StoredChannel], error) {
	q := docstore.Query{Limit: size, After: after, Filter: []docstore.Cond{{Field: "tombstone", Op: docstore.Eq, Value: false}}}
	return a.Channels.Find(ctx, listing.By(q, listing.Term{"team", team}))
}

// DeleteChannel deletes a channel and its secret; a deleted one is deleted again with success. What is queued for it fails as CHANNEL_GONE.
func (a *App) DeleteChannel(ctx context.Context, id string) error {
	_, err := a.Channels.Change(ctx, id, func(doc *ChannelDoc) ([]outbox.Fact, error) {
		if doc.Tombstone {
			return nil, outbox.ErrUnchanged
		}
		doc.Tombstone, doc.Body.Secret = true, seal.Sealed{}
		return nil, nil
	})
	a.forget()
	return err
}

// all returns every channel, at most cacheFor old.
func (a *App) all(ctx context.Context) ([]ChannelDoc, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.Clock.Now()
	if !a.readAt.IsZero() && now.Sub(a.readAt) < cacheFor && !now.Before(a.readAt) {
		return a.known, nil
	}
	var found []ChannelDoc
	for after := ""; ; {
		page, err := a.ListChannels(ctx, "", 1000, after)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Docs...)
		if after = page.Next; after == "" {
			break
		}
	}
	a.known, a.readAt = found, now
	return found, nil
}

func (a *App) forget() {
	a.mu.Lock()
	a.readAt = time.Time{}
	a.mu.Unlock()
}

// open returns the channel's secret, the empty one when it has none. Precondition CHANNEL_SECRET_UNREADABLE.
func (a *App) open(ctx context.Context, doc ChannelDoc) (secret.Value, error) {
	if doc.Body.Secret.IsZero() {
		return secret.Value{}, nil
	}
	plain, err := a.Sealer.Open(ctx, doc.Body.Secret, []byte(doc.ID))
	if err != nil {
		return secret.Value{}, errs.New(errs.Precondition, domain.ReasonChannelUnreadable, "the secret of the channel %s cannot be opened: %w", doc.ID, err)
	}
	defer clear(plain)
	return secret.NewBytes(plain), nil
}

package outbox

import (
	"context"
	"sync"
)

// locks orders the writes of one document inside this process, so that its facts are queued in the order of their revisions.
// Writers of one document only take turns in failing by the revision guard without it, so nothing is lost by waiting.
type locks struct {
	mu   sync.Mutex
	held map[string]*docLock
}

type docLock struct {
	turn chan struct{} // has one element while the document is being written
	uses int           // guarded by locks.mu
}

// lock waits for the document's turn or the end of ctx.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	d := l.held[name]
	if d == nil {
		d = &docLock{turn: make(chan struct{}, 1)}
		l.held[name] = d
	}
	d.uses++
	l.mu.Unlock()
	select {
	case d.turn <- struct{}{}:
		return func() { <-d.turn; l.leave(name, d) }, nil
	case <-ctx.Done():
		l.leave(name, d)
		return nil, ctx.Err()
	}
}

func (l *locks) leave(name string, d *docLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.uses--; d.uses == 0 {
		delete(l.held, name)
	}
}

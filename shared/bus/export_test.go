package bus

import "time"

// SetDrainTimeout shortens how long Run waits for its handlers.
func (b *Bus) SetDrainTimeout(d time.Duration) { b.drain = d }

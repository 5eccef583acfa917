package orders

import "time"

// Config of the service.
type Config struct {
	// KEKFile is the key-encryption key of account keys; empty: orders.kek in the data directory.
	KEKFile     string `yaml:"kek_file" doc:"File of the key that seals ACME account keys; default orders.kek in the data directory"`
	Concurrency int    `yaml:"concurrency" validate:"gte=0,lte=1024" doc:"How many orders are stepped at once, most of them waiting for a CA; 0 for 128"`
	// ARIMinRetry is how often a CA is asked for the renewal window of one certificate at most, default 1 min.
	ARIMinRetry time.Duration `yaml:"ari_min_retry" doc:"The shortest Retry-After of a CA's renewal information that is believed; default 1m"`
	// Version of the program, for the user agent.
	Version string `yaml:"-"`
}

func (c Config) ariMinRetry() time.Duration {
	if c.ARIMinRetry > 0 {
		return c.ARIMinRetry
	}
	return time.Minute
}

// Defaults returns the configuration that is used where none is given.
func Defaults() Config { return Config{} }

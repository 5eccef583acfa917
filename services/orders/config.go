package orders

import "time"

// Config of the service.
type Config struct {
	// KEKFile is the key-encryption key of account keys; empty: orders.kek in the data directory.
	KEKFile string `yaml:"kek_file" doc:"File of the key that seals ACME account keys; default orders.kek in the data directory"`
	// Lease of the workers, default 60 s.
	Lease time.Duration `yaml:"lease" validate:"omitempty,min=2000000000" doc:"How long a worker's claim lasts; at least four times the clock skew between replicas"`
	// Concurrency is how many orders are stepped at once, default 64.
	Concurrency int `yaml:"concurrency" validate:"gte=0,lte=1024" doc:"How many orders are stepped at once"`
	// Sweep is how often the store is asked for due documents, default 5 s.
	Sweep time.Duration `yaml:"sweep" doc:"How often the store is asked for due orders"`
	// Version of the program, for the user agent.
	Version string `yaml:"-"`
}

func (c Config) keyFile(def string) string {
	if c.KEKFile != "" {
		return c.KEKFile
	}
	return def
}

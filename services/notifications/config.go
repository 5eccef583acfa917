package notifications

import "time"

// Config of the notifications service.
type Config struct {
	KEKFile     string        `yaml:"kek_file" doc:"File of the key-encryption key that seals the channels' secrets; empty for notifications.kek in the data directory"`
	Timeout     time.Duration `yaml:"timeout" validate:"min=1s,max=25s" doc:"How long one mail or one post may take"`
	Concurrency int           `yaml:"concurrency" validate:"min=1,max=256" doc:"How many messages are sent at once"`
	Keep        time.Duration `yaml:"keep" validate:"min=48h" doc:"How long deliveries are kept; a day longer than the bus keeps events, since they are what drops a repeated event"`
}

// Defaults returns the defaults.
func Defaults() Config {
	return Config{Timeout: 20 * time.Second, Concurrency: 16, Keep: 8 * 24 * time.Hour}
}

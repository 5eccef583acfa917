package inventory

import "time"

// Config of the service.
type Config struct {
	RevokeWait    time.Duration `yaml:"revoke_wait" validate:"min=0" doc:"How long a revocation waits for its replacement to be served."`
	TombstoneKeep time.Duration `yaml:"tombstone_keep" validate:"min=624h" doc:"How long a deleted certificate's record stays; longer than the 25 days for which a cursor is good."`
	SweepEvery    time.Duration `yaml:"sweep_every" validate:"min=1s" doc:"How often records that have served their time are looked for."`
}

// Defaults is the configuration of an installation that configures nothing.
func Defaults() Config {
	return Config{RevokeWait: 24 * time.Hour, TombstoneKeep: 30 * 24 * time.Hour, SweepEvery: time.Hour}
}

package keys

import "time"

// Config of the service. Start from Defaults.
type Config struct {
	KEKFile          string        `yaml:"kek_file" doc:"File of the key-encryption key; a relative path is below the data directory." validate:"required"`
	KeepPrevious     int           `yaml:"keep_previous" doc:"How many keys before the newest of a certificate are kept for rollbacks." validate:"min=0,max=100"`
	DeletedRetention time.Duration `yaml:"deleted_retention" doc:"How long the keys of a deleted certificate are kept." validate:"min=0"`
	Unanswered       time.Duration `yaml:"unanswered" doc:"After how long the outcome of an order is asked for if none was told; orders give up earlier." validate:"min=1h"`
	ReviewEvery      time.Duration `yaml:"review_every" doc:"How often inventory is asked whether a key in use is still needed." validate:"min=1h"`
	ForgetAfter      time.Duration `yaml:"forget_after" doc:"How long the record of a destroyed key is kept; the key itself is erased at once." validate:"min=24h"`
}

// Defaults is the configuration of an installation that configures nothing.
func Defaults() Config {
	const day = 24 * time.Hour
	return Config{
		KEKFile: "keys.kek", KeepPrevious: 1, DeletedRetention: 30 * day, Unanswered: 31 * day, ReviewEvery: 30 * day, ForgetAfter: 400 * day,
	}
}

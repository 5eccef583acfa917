package dns

import "time"

// Config of the dns service.
type Config struct {
	KEKFile string        `yaml:"kek_file" validate:"required" doc:"File of the key-encryption key that seals the accounts' credentials; a relative path is below the data directory"`
	Timeout time.Duration `yaml:"timeout" validate:"min=1s,max=25s" doc:"How long one call to a DNS provider may take"`
	Workers int           `yaml:"workers" validate:"min=1,max=1000" doc:"How many record sets are written or read at once"`
}

// Defaults returns the defaults.
func Defaults() Config { return Config{KEKFile: "dns.kek", Timeout: 10 * time.Second, Workers: 32} }

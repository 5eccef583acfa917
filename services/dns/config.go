package dns

import "time"

// Config of the dns service.
type Config struct {
	KEKFile string        `yaml:"kek_file" validate:"required" doc:"File of the key-encryption key that seals the accounts' credentials; a relative path is below the data directory"`
	Timeout time.Duration `yaml:"timeout" validate:"min=1s,max=25s" doc:"How long one call to a DNS provider may take"`
	// Propagation is at most what record sets wait before they call it trouble.
	Propagation time.Duration `yaml:"propagation" validate:"min=0s,max=60s" doc:"How long the servers of Cloudflare, Azure DNS and GoDaddy, which do not say when they have a record, are given before the CA is told to look"`
	// HostIdentity is off by default: who may make an account would act as the host.
	HostIdentity bool `yaml:"host_identity" doc:"Whether DNS accounts may use the identity of the host that this service runs on (Azure's managed and workload identity); everybody who may make accounts then acts as it"`
	Workers      int  `yaml:"workers" validate:"min=1,max=1000" doc:"How many record sets are written or read at once"`

	endpoint string // instead of the APIs of all providers; tests set it
}

// Defaults returns the defaults.
func Defaults() Config {
	return Config{KEKFile: "dns.kek", Timeout: 10 * time.Second, Propagation: 30 * time.Second, Workers: 32}
}

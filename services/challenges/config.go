package challenges

import "time"

// Config of the challenges service.
type Config struct {
	HTTP01     `yaml:"http01"`
	TLSALPN01  TLSALPN01     `yaml:"tlsalpn01"`
	DNS        DNS           `yaml:"dns"`
	VerifyWait time.Duration `yaml:"verify_wait" validate:"min=0s,max=60s" doc:"How long a call to verify a challenge waits for the verdict"`
	Timeout    time.Duration `yaml:"timeout" validate:"min=1s,max=25s" doc:"How long one look at a name server or a URL may take"`
	Workers    int           `yaml:"workers" validate:"min=1,max=1000" doc:"How many challenges are stepped at once"`
}

// HTTP01 is how http-01 is answered and looked for.
type HTTP01 struct {
	HTTP01Addr string `yaml:"listen" doc:"Where the built-in responder listens, e.g. :80, or :5002 behind a forwarded port 80; empty to switch it off"`
	SelfCheck  string `yaml:"self_check" validate:"oneof=none loopback" doc:"Whether the responder is asked over loopback before the CA is told"`
	CheckPort  int    `yaml:"check_port" validate:"min=1,max=65535" doc:"Port at which a file placed by hand is looked for; CAs use 80"`
}

// TLSALPN01 is how tls-alpn-01 is answered and looked for.
type TLSALPN01 struct {
	Listen    string `yaml:"listen" doc:"Where the built-in responder listens, e.g. :443, or :5001 behind a forwarded port 443; empty to switch it off"`
	SelfCheck string `yaml:"self_check" validate:"oneof=none loopback" doc:"Whether the responder is asked over loopback before the CA is told"`
	CheckPort int    `yaml:"check_port" validate:"min=1,max=65535" doc:"Port at which a certificate shown by hand is looked for; CAs use 443"`
}

// DNS is how aliases and TXT records are looked for.
type DNS struct {
	Resolvers []string `yaml:"resolvers" validate:"dive,hostname_port" doc:"Resolvers to ask for aliases, records and addresses, as host:port; empty for those of the host. With split DNS name resolvers that see what the CA sees"`
	CheckPort int      `yaml:"check_port" validate:"min=1,max=65535" doc:"Port at which authoritative name servers are asked, where a route wants them checked"`
}

const selfCheckLoopback = "loopback"

// Defaults returns the defaults.
func Defaults() Config {
	return Config{
		HTTP01:    HTTP01{HTTP01Addr: ":5002", SelfCheck: selfCheckLoopback, CheckPort: 80},
		TLSALPN01: TLSALPN01{Listen: ":5001", SelfCheck: selfCheckLoopback, CheckPort: 443}, DNS: DNS{CheckPort: 53}, VerifyWait: 10 * time.Second, Timeout: 5 * time.Second, Workers: 64,
	}
}

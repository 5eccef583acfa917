package renewals

import (
	"time"

	"github.com/certwright/certwright/services/renewals/internal/domain"
)

// Config of the service. Start from Defaults.
type Config struct {
	LifeLeft       float64         `yaml:"life_left" validate:"gt=0,lt=1" doc:"Part of its life that a certificate has left when it is replaced, where the CA suggests nothing (ARI)"`
	ShortLifeLeft  float64         `yaml:"short_life_left" validate:"gt=0,lt=1" doc:"The same for certificates that live shorter than short_life"`
	ShortLife      time.Duration   `yaml:"short_life" validate:"min=0" doc:"Below this life a certificate is short-lived"`
	ARIMinInterval time.Duration   `yaml:"ari_min_interval" validate:"min=1s" doc:"The CA's suggestion (ARI) of one certificate is not read more often than this, whatever the CA says"`
	ARIMaxInterval time.Duration   `yaml:"ari_max_interval" validate:"min=1s,max=24h" doc:"It is read at least this often, whatever the CA says"`
	Review         time.Duration   `yaml:"review" validate:"min=1m" doc:"When the owner of a held certificate without a valid version is reminded"`
	AskAgain       time.Duration   `yaml:"ask_again" validate:"min=1s" doc:"When the inventory is asked again about an order whose end was not heard of"`
	OverdueAfter   time.Duration   `yaml:"overdue_after" validate:"min=1s" doc:"A wanted version is overdue after this, or after overdue_part of the life if that is longer; for short lives after a quarter of the life at the latest"`
	OverduePart    float64         `yaml:"overdue_part" validate:"gte=0,lt=1" doc:"See overdue_after"`
	OverdueFirst   time.Duration   `yaml:"overdue_first" validate:"min=1s" doc:"When a first version is overdue"`
	Expiring       []time.Duration `yaml:"expiring" validate:"dive,min=1s" doc:"Time left at which an unreplaced certificate is warned of, falling; the first is at most a fifth of the life, each next one at most half of that"`
	Lease          time.Duration   `yaml:"lease" validate:"omitempty,min=2s" doc:"How long a worker's claim lasts; at least four times the clock skew between replicas; 0 for 60s"`
	Concurrency    int             `yaml:"concurrency" validate:"gte=0,lte=1024" doc:"How many plans are stepped at once; 0 for 64"`
	Sweep          time.Duration   `yaml:"sweep" validate:"min=0" doc:"How often the store is asked for due plans; 0 for 5s"`
}

// Defaults is the configuration of an installation that configures nothing.
func Defaults() Config {
	p := domain.Defaults()
	return Config{
		LifeLeft: p.LifeLeft, ShortLifeLeft: p.ShortLifeLeft, ShortLife: p.ShortLife, ARIMinInterval: p.ARIMin, ARIMaxInterval: p.ARIMax, Review: p.Review,
		AskAgain: p.AskAgain, OverdueAfter: p.OverdueAfter, OverduePart: p.OverduePart, OverdueFirst: p.OverdueFirst, Expiring: p.Expiring,
	}
}

func (c Config) policy() domain.Policy {
	return domain.Policy{
		LifeLeft: c.LifeLeft, ShortLifeLeft: c.ShortLifeLeft, ShortLife: c.ShortLife, ARIMin: c.ARIMinInterval, ARIMax: c.ARIMaxInterval, Review: c.Review,
		AskAgain: c.AskAgain, OverdueAfter: c.OverdueAfter, OverduePart: c.OverduePart, OverdueFirst: c.OverdueFirst, Expiring: c.Expiring,
	}
}

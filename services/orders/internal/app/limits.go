package app

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	"github.com/certwright/certwright/services/orders/internal/domain"
)

// limits reads the limits of an issuer as they travel; checkLimits has passed them.
func limits(in []*ordersv1.IssuerLimit) []domain.Limit {
	out := make([]domain.Limit, len(in))
	for i, l := range in {
		out[i] = domain.Limit{Kind: domain.LimitKind(l.GetKind()), Capacity: l.GetCapacity(), Period: l.GetPeriod().AsDuration(), Exempt: l.GetExempt()}
	}
	return out
}

// LimitMessages are limits as they travel.
func LimitMessages(in []domain.Limit) (out []*ordersv1.IssuerLimit) {
	for _, l := range in {
		out = append(out, &ordersv1.IssuerLimit{Kind: string(l.Kind), Capacity: l.Capacity, Period: durationpb.New(l.Period), Exempt: l.Exempt})
	}
	return out
}

func checkLimits(in []*ordersv1.IssuerLimit, bad func(field, format string, args ...any)) {
	seen := map[string]bool{}
	for i, l := range in {
		at := fmt.Sprintf("issuer.acme.limits[%d].", i)
		switch {
		case !slices.Contains(domain.LimitKinds(), domain.LimitKind(l.GetKind())):
			bad(at+"kind", "is %q; allowed are %v", l.GetKind(), domain.LimitKinds())
		case seen[l.GetKind()]:
			bad(at+"kind", "%s is given twice; give each kind once", l.GetKind())
		}
		seen[l.GetKind()] = true
		if n := l.GetCapacity(); n < 1 || n > domain.MaxCapacity {
			bad(at+"capacity", "is %d; 1 to %d are allowed", n, domain.MaxCapacity)
		}
		if p := l.GetPeriod().AsDuration(); p < domain.MinPeriod || p > domain.MaxPeriod {
			bad(at+"period", "is %s; %s to %s are allowed, such as 3h", p, domain.MinPeriod, domain.MaxPeriod)
		}
		for _, e := range l.GetExempt() {
			if e != domain.ExemptARI && e != domain.ExemptRenewal {
				bad(at+"exempt", "holds %q; allowed are %s and %s", e, domain.ExemptARI, domain.ExemptRenewal)
			}
		}
	}
}

package authz

import (
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	optionsv1 "github.com/certwright/certwright/api/certwright/options/v1"

	"github.com/certwright/certwright/shared/errs"
)

// RuleOf returns the rule that a method declares, or nil. fullMethod has gRPC's form "/certwright.orders.v1.Orders/GetOrder".
func RuleOf(fullMethod string) *optionsv1.Rule {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(fullMethod, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok || !proto.HasExtension(m.Options(), optionsv1.E_Rule) {
		return nil
	}
	rule, _ := proto.GetExtension(m.Options(), optionsv1.E_Rule).(*optionsv1.Rule)
	return rule
}

// checked reports whether a rule lets anybody call at all.
func checked(r *optionsv1.Rule) bool {
	return r != nil && (r.GetPublic() || r.GetPermission() != "" || len(r.GetServices()) > 0)
}

// exempt are the services of gRPC itself: they reveal nothing, and probes come without a principal.
func exempt(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/grpc.health.v1.Health/") }

// CheckServer refuses a server that has a method without a rule, so that a forgotten rule stops the service at start and not a user later. Call
// it after the services were registered. The error is Internal RULE_MISSING and names every such method.
func CheckServer(s *grpc.Server) error {
	var missing []string
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			if full := "/" + service + "/" + m.Name; !exempt(full) && !checked(RuleOf(full)) {
				missing = append(missing, full)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return errs.New(errs.Internal, ReasonNoRule, "methods without option (certwright.options.v1.rule): %s", strings.Join(missing, ", "))
}

// Authorize decides whether p, who may be nobody, may call a method with this rule. It returns nil, Unauthenticated TOKEN_MISSING, or Forbidden
// with the permission wanted and what the caller has.
func Authorize(p Principal, rule *optionsv1.Rule) error {
	switch {
	case !checked(rule):
		return errs.New(errs.Forbidden, ReasonNoRule, "the method declares no rule, so nobody may call it")
	case rule.GetPublic():
		return nil
	case p.IsZero():
		return errMissing()
	case p.Service != "" && slices.Contains(rule.GetServices(), p.Service):
		return nil
	case p.Service != "":
		return errs.New(errs.Forbidden, ReasonDenied, "the service %q may not call this with its own identity; allowed: %s", p.Service, list(rule.GetServices())).
			WithMeta("subject", p.Subject)
	case rule.GetPermission() == "":
		return errs.New(errs.Forbidden, ReasonDenied, "only services may call this: %s", list(rule.GetServices())).WithMeta("subject", p.Subject)
	case p.Has(rule.GetPermission()):
		return nil
	}
	return errs.New(errs.Forbidden, ReasonDenied, "the permission %q is wanted; %s has: %s", rule.GetPermission(), p.Subject, list(p.Permissions)).
		WithMeta("permission", rule.GetPermission()).WithMeta("subject", p.Subject)
}

func list(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

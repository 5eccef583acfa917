package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	challengesv1 "github.com/certwright/certwright/api/certwright/challenges/v1"
	deployerv1 "github.com/certwright/certwright/api/certwright/deployer/v1"
	dnsv1 "github.com/certwright/certwright/api/certwright/dns/v1"
	identityv1 "github.com/certwright/certwright/api/certwright/identity/v1"
	inventoryv1 "github.com/certwright/certwright/api/certwright/inventory/v1"
	keysv1 "github.com/certwright/certwright/api/certwright/keys/v1"
	notificationsv1 "github.com/certwright/certwright/api/certwright/notifications/v1"
	ordersv1 "github.com/certwright/certwright/api/certwright/orders/v1"
	renewalsv1 "github.com/certwright/certwright/api/certwright/renewals/v1"
	"github.com/certwright/certwright/shared/errs"
)

// sibling is a service that the edge reaches.
type sibling struct {
	name     string
	file     protoreflect.FileDescriptor
	register func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error
}

// reach makes a sibling of what its contract generates.
func reach[C any](
	name string, file protoreflect.FileDescriptor, client func(grpc.ClientConnInterface) C, register func(context.Context, *runtime.ServeMux, C) error,
) sibling {
	return sibling{name, file, func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
		return register(ctx, mux, client(conn))
	}}
}

func siblings() []sibling {
	return []sibling{
		reach("inventory", inventoryv1.File_certwright_inventory_v1_inventory_proto, inventoryv1.NewInventoryServiceClient, inventoryv1.RegisterInventoryServiceHandlerClient),
		reach("orders", ordersv1.File_certwright_orders_v1_orders_proto, ordersv1.NewOrdersServiceClient, ordersv1.RegisterOrdersServiceHandlerClient),
		reach("keys", keysv1.File_certwright_keys_v1_keys_proto, keysv1.NewKeysServiceClient, keysv1.RegisterKeysServiceHandlerClient),
		reach("challenges", challengesv1.File_certwright_challenges_v1_challenges_proto, challengesv1.NewChallengesServiceClient, challengesv1.RegisterChallengesServiceHandlerClient),
		reach("dns", dnsv1.File_certwright_dns_v1_dns_proto, dnsv1.NewDNSServiceClient, dnsv1.RegisterDNSServiceHandlerClient),
		reach("renewals", renewalsv1.File_certwright_renewals_v1_renewals_proto, renewalsv1.NewRenewalsServiceClient, renewalsv1.RegisterRenewalsServiceHandlerClient),
		reach("deployer", deployerv1.File_certwright_deployer_v1_deployer_proto, deployerv1.NewDeployerServiceClient, deployerv1.RegisterDeployerServiceHandlerClient),
		reach("notifications", notificationsv1.File_certwright_notifications_v1_notifications_proto, notificationsv1.NewNotificationsServiceClient, notificationsv1.RegisterNotificationsServiceHandlerClient),
		reach("identity", identityv1.File_certwright_identity_v1_identity_proto, identityv1.NewIdentityServiceClient, identityv1.RegisterIdentityServiceHandlerClient),
	}
}

// route is one REST binding of a method (google.api.http).
type route struct {
	verb     string // GET, POST …
	template string // "/v1/certificates/{id}:renew"
	matches  *regexp.Regexp
	params   []string // fields in the path, proto names
	body     string   // "*", a field's proto name, or "" for none
	input    protoreflect.MessageDescriptor
}

// routesOf reads the bindings of all siblings out of their contracts.
func routesOf(all []sibling) ([]route, error) {
	var out []route
	for _, s := range all {
		for i := range s.file.Services().Len() {
			methods := s.file.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				if !ok || rule == nil {
					continue
				}
				for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					made, err := newRoute(r, m.Input())
					if err != nil {
						return nil, fmt.Errorf("%s: %w", m.FullName(), err)
					}
					out = append(out, made)
				}
			}
		}
	}
	return out, nil
}

var parameter = regexp.MustCompile(`\{([a-z0-9_.]+)\}`)

func newRoute(rule *annotations.HttpRule, input protoreflect.MessageDescriptor) (route, error) {
	r := route{body: rule.GetBody(), input: input}
	for verb, template := range map[string]string{
		http.MethodGet: rule.GetGet(), http.MethodPost: rule.GetPost(), http.MethodPatch: rule.GetPatch(), http.MethodPut: rule.GetPut(), http.MethodDelete: rule.GetDelete(),
	} {
		if template != "" {
			r.verb, r.template = verb, template
		}
	}
	if r.template == "" {
		return r, errs.New(errs.Internal, "", "the binding has no path")
	}
	pattern, rest := "", r.template
	for _, at := range parameter.FindAllStringSubmatchIndex(r.template, -1) {
		from := at[0] - (len(r.template) - len(rest))
		pattern += regexp.QuoteMeta(rest[:from]) + "[^/:]+"
		rest = r.template[at[1]:]
		r.params = append(r.params, r.template[at[2]:at[3]])
	}
	var err error
	r.matches, err = regexp.Compile("^" + pattern + regexp.QuoteMeta(rest) + "$")
	return r, err
}

// find returns the route of a request. NotFound ROUTE_NOT_FOUND; Unimplemented METHOD_NOT_ALLOWED with the verbs that the path has.
func find(routes []route, verb, path string) (route, []string, error) {
	var allowed []string
	for _, r := range routes {
		if !r.matches.MatchString(path) {
			continue
		}
		if r.verb == verb {
			return r, nil, nil
		}
		allowed = append(allowed, r.verb)
	}
	if len(allowed) == 0 {
		return route{}, nil, errs.New(errs.NotFound, "ROUTE_NOT_FOUND", "there is no %q here; /openapi.json and /docs list every path", path)
	}
	slices.Sort(allowed)
	return route{}, allowed, errs.New(errs.Unimplemented, "METHOD_NOT_ALLOWED", "%s is not possible at %q; allowed: %s", verb, path, strings.Join(allowed, ", "))
}

// checkQuery refuses parameters that would have no effect, since a mistyped filter would answer everything.
func (r route) checkQuery(query url.Values) error {
	e := errs.New(errs.Invalid, "UNKNOWN_PARAMETER", "the query has a parameter that this call does not know")
	for _, name := range slices.Sorted(maps.Keys(query)) {
		top, _, _ := strings.Cut(name, ".")
		if f := fieldOf(r.input, top); f == nil || !r.inQuery(f) {
			e = e.WithField(name, "allowed in the query: %s", listed(fieldNames(r.input, r.inQuery)))
		}
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

func (r route) inQuery(f protoreflect.FieldDescriptor) bool {
	name := string(f.Name())
	return r.body != "*" && r.body != name && !slices.Contains(r.params, name)
}

// bodyMessage is the message that the body is read into.
func (r route) bodyMessage() protoreflect.MessageDescriptor {
	if f := r.input.Fields().ByName(protoreflect.Name(r.body)); f != nil { // there is none for "*" and ""
		return f.Message()
	}
	return r.input
}

func fieldOf(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByJSONName(name); f != nil {
		return f
	}
	return m.Fields().ByTextName(name)
}

// fieldNames lists the JSON names of the fields that are wanted.
func fieldNames(m protoreflect.MessageDescriptor, wanted func(protoreflect.FieldDescriptor) bool) (out []string) {
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); wanted(f) {
			out = append(out, f.JSONName())
		}
	}
	return out
}

func listed(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

package identity

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

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
	"github.com/certwright/certwright/shared/authz"
)

var teamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// knownPermissions are those that a method of the contracts wants, and those of the edge itself, sorted.
var knownPermissions = sync.OnceValue(func() []string {
	found := []string{"events.read", "platform.read"}
	for _, file := range []protoreflect.FileDescriptor{
		challengesv1.File_certwright_challenges_v1_challenges_proto, deployerv1.File_certwright_deployer_v1_deployer_proto, dnsv1.File_certwright_dns_v1_dns_proto,
		identityv1.File_certwright_identity_v1_identity_proto, inventoryv1.File_certwright_inventory_v1_inventory_proto, keysv1.File_certwright_keys_v1_keys_proto,
		notificationsv1.File_certwright_notifications_v1_notifications_proto, ordersv1.File_certwright_orders_v1_orders_proto, renewalsv1.File_certwright_renewals_v1_renewals_proto,
	} {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				if p := authz.RuleOf("/" + string(s.FullName()) + "/" + string(s.Methods().Get(j).Name())).GetPermission(); p != "" {
					found = append(found, p)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
})

// checkPermission says what is wrong with a permission, or "".
func checkPermission(p string) string {
	known := knownPermissions()
	if p == "*" || slices.Contains(known, p) {
		return ""
	}
	if family, ok := strings.CutSuffix(p, "*"); ok && strings.HasSuffix(family, ".") && slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, family) }) {
		return ""
	}
	return "there is no such permission; known are *, a family such as certificates.*, and " + strings.Join(known, ", ")
}

func field(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

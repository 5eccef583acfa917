package app

import "github.com/certwright/certwright/shared/docstore"

// AccountsSpec declares the collection of accounts.
func AccountsSpec() docstore.Spec {
	return docstore.Spec{Name: "dns_accounts", Indexes: []docstore.Index{
		{Fields: []string{"team"}},
		{Fields: []string{"tombstone", "changed_at"}}, // the janitor's
	}}
}

// SetsSpec declares the collection of record sets.
func SetsSpec() docstore.Spec {
	return docstore.Spec{Name: "record_sets", Indexes: []docstore.Index{
		{Fields: []string{"team", "idle"}},
		{Fields: []string{"idle"}},
		{Fields: []string{"idle", "changed_at"}}, // the janitor's
		{Fields: []string{"account_id"}},
		{Fields: []string{"troubled"}},
	}}
}

package bus

// InboxPrefix is where the answers to this service's requests go, for nats.CustomInboxPrefix: with one prefix a service nobody
// can listen to another's answers.
func InboxPrefix(service string) string { return "_INBOX." + service }

// Permissions are the subjects that the NATS user of a service needs to publish to and to subscribe to: what it tells (event
// types), the upkeep of streams and consumers, and the acknowledgement of what it hears. Its connection must use InboxPrefix.
//
// Hearing is not limited by type, since everybody may hear everything; hears being empty means that it has no consumers. When
// the names of its consumers are given, only those may be made and read; else any name may, which a service that uses Tail
// needs as well. NATS cannot match a part of a name.
func Permissions(service string, tells, hears []string, consumers ...string) (pub, sub []string) {
	const api = "$JS.API."
	for _, t := range tells {
		pub = append(pub, eventSubjects+"."+t+".>")
	}
	for _, s := range []string{Stream, DeadStream, AdvisoryStream} {
		pub = append(pub, api+"STREAM.INFO."+s, api+"STREAM.CREATE."+s)
	}
	pub = append(pub, redriveSubjects+".*", api+"DIRECT.GET."+DeadStream)
	sub = []string{InboxPrefix(service) + ".>", redrivenSubjects + ".>"}
	if len(hears) == 0 {
		return pub, sub
	}

	pub = append(pub, api+"DIRECT.GET."+Stream, api+"STREAM.MSG.DELETE."+DeadStream)
	if len(consumers) == 0 {
		consumers = []string{"*"}
		pub = append(pub, api+"CONSUMER.CREATE."+Stream+".>") // with the filter in the subject, as Tail's are
	}
	for _, c := range consumers {
		pub = append(pub, consumerSubjects(Stream, c)...)
		pub = append(pub, deadSubjects+"."+c+".>", redrivenSubjects+"."+c+".*")
		sub = append(sub, redriveSubjects+"."+c)
	}
	pub = append(pub, consumerSubjects(AdvisoryStream, service+"-advisories")...)
	return pub, sub
}

func consumerSubjects(stream, consumer string) []string {
	const api = "$JS.API.CONSUMER."
	return []string{
		api + "INFO." + stream + "." + consumer,
		api + "CREATE." + stream + "." + consumer,
		api + "MSG.NEXT." + stream + "." + consumer,
		"$JS.ACK." + stream + "." + consumer + ".>",
	}
}

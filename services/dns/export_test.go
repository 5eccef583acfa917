package dns

// WithEndpoint sends the calls to all providers' APIs to an address of a test.
func (c Config) WithEndpoint(url string) Config {
	c.endpoint = url
	return c
}

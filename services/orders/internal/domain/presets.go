package domain

// Preset is a CA that is known by name.
type Preset struct {
	Name, DisplayName       string
	DirectoryURL            string // empty: every installation has its own
	ExternalAccountRequired bool
	Staging                 string // name of the preset to try things with
	DocumentationURL        string
	Note                    string
}

// Presets lists them, as their makers document them.
func Presets() []Preset {
	return []Preset{
		{
			Name: "letsencrypt", DisplayName: "Let's Encrypt", DirectoryURL: "https://acme-v02.api.letsencrypt.org/directory", Staging: "letsencrypt-staging",
			DocumentationURL: "https://letsencrypt.org/docs/", Note: "Free; five certificates of the same names a week, so try with the staging twin first.",
		},
		{
			Name: "letsencrypt-staging", DisplayName: "Let's Encrypt (staging)", DirectoryURL: "https://acme-staging-v02.api.letsencrypt.org/directory",
			DocumentationURL: "https://letsencrypt.org/docs/staging-environment/", Note: "No browser trusts its certificates.",
		},
		{
			Name: "zerossl", DisplayName: "ZeroSSL", DirectoryURL: "https://acme.zerossl.com/v2/DV90", ExternalAccountRequired: true,
			DocumentationURL: "https://zerossl.com/documentation/acme/", Note: "The developer page of a ZeroSSL account makes the key id and the HMAC key.",
		},
		{
			Name: "google", DisplayName: "Google Trust Services", DirectoryURL: "https://dv.acme-v02.api.pki.goog/directory", ExternalAccountRequired: true, Staging: "google-staging",
			DocumentationURL: "https://cloud.google.com/certificate-manager/docs/public-ca-tutorial", Note: "gcloud publicca external-account-keys create makes the key; it serves one account and for seven days.",
		},
		{
			Name: "google-staging", DisplayName: "Google Trust Services (staging)", DirectoryURL: "https://dv.acme-v02.test-api.pki.goog/directory", ExternalAccountRequired: true,
			DocumentationURL: "https://cloud.google.com/certificate-manager/docs/public-ca-tutorial", Note: "No browser trusts its certificates; its external account keys are others than production's.",
		},
		{
			Name: "buypass", DisplayName: "Buypass Go SSL", DirectoryURL: "https://api.buypass.com/acme/directory",
			DocumentationURL: "https://www.buypass.com/products/tls-ssl-certificates/go-ssl", Note: "Buypass has announced the end of its TLS certificates: for existing installations; look at its page before you begin.",
		},
		{
			Name: "sslcom", DisplayName: "SSL.com", DirectoryURL: "https://acme.ssl.com/sslcom-dv-ecc", ExternalAccountRequired: true,
			DocumentationURL: "https://www.ssl.com/guide/ssl-tls-certificate-issuance-and-revocation-with-acme/",
			Note:             "For ECDSA keys; RSA keys have the directory https://acme.ssl.com/sslcom-dv-rsa. The API credentials of an SSL.com account are the key.",
		},
		{
			Name: "step-ca", DisplayName: "step-ca", DocumentationURL: "https://smallstep.com/docs/step-ca/acme-basics/",
			Note: "Your own CA: give the directory, https://HOST/acme/PROVISIONER/directory, and its root as trust roots.",
		},
	}
}

// PresetByName returns the preset of that name.
func PresetByName(name string) (Preset, bool) {
	for _, p := range Presets() {
		if p.Name == name {
			return p, true
		}
	}
	return Preset{}, false
}

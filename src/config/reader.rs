//! Reads variables, and reports every problem at once.

use std::time::Duration;

use secrecy::SecretString;
use url::{Host, Url};

use super::{AwsConfig, AwsCredentials, CloudflareConfig, DEFAULT_KV_URL, TokenSource};

/// Reads variables and gathers what is wrong with them.
pub struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of the variables that `lookup` finds; empty ones count as absent.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// Everything that is wrong.
    pub fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// Notes what is wrong with a variable.
    pub fn problem(&mut self, variable: &str, problem: &str) {
        let problem = format!("{variable} {problem}");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// A variable that may be absent.
    pub fn optional(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.is_empty())
    }

    /// A variable that has to be there; `what` says what for.
    pub fn required(&mut self, variable: &str, what: &str) -> String {
        self.optional(variable).unwrap_or_else(|| {
            self.problem(variable, &format!("is required: {what}"));
            String::new()
        })
    }

    /// A URL that is complete once its placeholders are filled in.
    pub fn template(&mut self, variable: &str, default: Option<&str>, holds: &[&str]) -> String {
        let template = match (self.optional(variable), default) {
            (Some(template), _) => template,
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                self.problem(variable, &format!("is required: a URL with {}", holds.join(" and ")));
                return String::new();
            }
        };
        for placeholder in holds {
            if !template.contains(placeholder) {
                self.problem(variable, &format!("must hold {placeholder}"));
            }
        }
        let filled = template.replace(['{', '}'], "");
        self.check_url(variable, &filled);
        if Url::parse(&filled).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
            self.problem(variable, "must be https: what it carries is secret");
        }
        template
    }

    /// What Lambda sets for AWS.
    pub fn aws(&mut self) -> AwsConfig {
        const SET_BY_LAMBDA: &str =
            "Lambda sets it; for a profile's, aws configure export-credentials";
        let region = self.optional("AWS_REGION").or_else(|| self.optional("AWS_DEFAULT_REGION"));
        AwsConfig {
            dynamodb_url: self.endpoint("AWS_ENDPOINT_URL_DYNAMODB"),
            secrets_manager_url: self.endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            region: region.unwrap_or_else(|| self.required("AWS_REGION", "Lambda sets it")),
            credentials: AwsCredentials {
                access_key_id: self.required("AWS_ACCESS_KEY_ID", SET_BY_LAMBDA),
                secret_access_key: self.required("AWS_SECRET_ACCESS_KEY", SET_BY_LAMBDA).into(),
                session_token: self.optional("AWS_SESSION_TOKEN").map(SecretString::from),
            },
        }
    }

    /// A stand-in's address, for one service or for all.
    fn endpoint(&mut self, variable: &str) -> Option<String> {
        let named = [variable, "AWS_ENDPOINT_URL"]
            .into_iter()
            .find_map(|variable| Some((variable, self.optional(variable)?)));
        let (variable, url) = named?;
        self.check_url(variable, &url);
        Some(url)
    }

    fn check_url(&mut self, variable: &str, url: &str) {
        let valid = Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
        if !valid {
            self.problem(variable, "must be an absolute http or https URL");
        }
    }

    /// Cloudflare; `None` where its account is absent.
    pub fn cloudflare(&mut self, environment: &str) -> Option<CloudflareConfig> {
        let account_id = self.optional("CLOUDFLARE_ACCOUNT_ID")?;
        let template =
            self.template("CLOUDFLARE_KV_URL", Some(DEFAULT_KV_URL), &["{namespace_id}"]);
        let mut namespace_url = |variable: &str| {
            let id = self.required(
                variable,
                "a namespace's id, unless CLOUDFLARE_ACCOUNT_ID is absent (dry run)",
            );
            for (name, value) in [(variable, &id), ("CLOUDFLARE_ACCOUNT_ID", &account_id)] {
                if value.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
                    self.problem(name, "may hold letters, digits, '-' and '_' only");
                }
            }
            template.replace("{account_id}", &account_id).replace("{namespace_id}", &id)
        };
        let settings_url = namespace_url("CLOUDFLARE_KV_NAMESPACE_ID");
        let query_configs_url = namespace_url("CLOUDFLARE_KV_QCFG_NAMESPACE_ID");
        let ids = ["CLOUDFLARE_KV_NAMESPACE_ID", "CLOUDFLARE_KV_QCFG_NAMESPACE_ID"];
        let [settings_id, query_configs_id] = ids.map(|variable| self.optional(variable));
        if settings_id.is_some() && settings_id == query_configs_id {
            // Reconcile would take each one's keys for orphans of the other.
            self.problem(
                "CLOUDFLARE_KV_QCFG_NAMESPACE_ID",
                "must be another namespace than CLOUDFLARE_KV_NAMESPACE_ID",
            );
        }
        let token = match self.optional("CLOUDFLARE_API_TOKEN") {
            Some(token) => TokenSource::Given(token.into()),
            None => TokenSource::SecretId(
                self.optional("CLOUDFLARE_API_TOKEN_SECRET_ID")
                    .unwrap_or_else(|| format!("{environment}/CloudFlareApiToken")),
            ),
        };
        Some(CloudflareConfig { settings_url, query_configs_url, token })
    }

    /// A whole number within `range`.
    pub fn number(
        &mut self,
        variable: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> usize {
        let Some(text) = self.optional(variable) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.problem(variable, &format!("must be a whole number from {least} to {most}"));
                default
            }
        }
    }

    /// Milliseconds within `range`.
    pub fn millis(
        &mut self,
        variable: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Duration {
        let millis = self.number(variable, default, range);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

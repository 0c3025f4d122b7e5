//! Reads variables, and reports every problem at once.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use url::{Host, Url};

use super::{AwsConfig, CloudflareConfig, DEFAULT_KV_URL, TokenSource};
use crate::kv::stored::fits_a_header;

pub struct Reader<'a> {
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    pub problems: Vec<String>,
}

impl Reader<'_> {
    pub fn problem(&mut self, variable: &str, problem: &str) {
        let problem = format!("{variable} {problem}");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

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
        let Some(template) = self.optional(variable).or(default.map(str::to_owned)) else {
            return self.required(variable, &format!("a URL with {}", holds.join(" and ")));
        };
        for placeholder in holds.iter().filter(|placeholder| !template.contains(**placeholder)) {
            self.problem(variable, &format!("must hold {placeholder}"));
        }
        let filled = self.url(variable, &template.replace(['{', '}'], ""));
        if filled.is_some_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
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
            access_key_id: self.required("AWS_ACCESS_KEY_ID", SET_BY_LAMBDA),
            secret_access_key: self.required("AWS_SECRET_ACCESS_KEY", SET_BY_LAMBDA).into(),
            session_token: self.optional("AWS_SESSION_TOKEN").map(Into::into),
        }
    }

    /// A stand-in's address, for one service or for all.
    fn endpoint(&mut self, variable: &str) -> Option<String> {
        let given = |variable| Some((variable, self.optional(variable)?));
        let (variable, url) = given(variable).or_else(|| given("AWS_ENDPOINT_URL"))?;
        self.url(variable, &url);
        Some(url)
    }

    fn url(&mut self, variable: &str, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        if url.is_none() {
            self.problem(variable, "must be an absolute http or https URL");
        }
        url
    }

    /// `None` where the account is absent.
    pub fn cloudflare(&mut self, environment: &str) -> Option<CloudflareConfig> {
        const ACCOUNT: &str = "CLOUDFLARE_ACCOUNT_ID";
        const NAMESPACES: [&str; 2] =
            ["CLOUDFLARE_KV_NAMESPACE_ID", "CLOUDFLARE_KV_QCFG_NAMESPACE_ID"];
        let account = self.optional(ACCOUNT)?;
        self.check_id(ACCOUNT, &account);
        let template =
            self.template("CLOUDFLARE_KV_URL", Some(DEFAULT_KV_URL), &["{namespace_id}"]);
        let template = template.replace("{account_id}", &account);
        let ids = NAMESPACES.map(|variable| {
            let what = "a namespace's id, unless CLOUDFLARE_ACCOUNT_ID is absent (dry run)";
            let id = self.required(variable, what);
            self.check_id(variable, &id);
            id
        });
        if !ids[0].is_empty() && ids[0] == ids[1] {
            // Reconcile would take each one's keys for orphans of the other.
            let problem = "must be another namespace than CLOUDFLARE_KV_NAMESPACE_ID";
            self.problem(NAMESPACES[1], problem);
        }
        let [settings_url, query_configs_url] =
            ids.map(|id| template.replace("{namespace_id}", &id));
        let token = self.optional("CLOUDFLARE_API_TOKEN");
        if token.as_deref().is_some_and(|token| !fits_a_header(token)) {
            self.problem("CLOUDFLARE_API_TOKEN", "must be visible ASCII characters");
        }
        let secret_id = self.optional("CLOUDFLARE_API_TOKEN_SECRET_ID");
        let secret_id = secret_id.unwrap_or_else(|| format!("{environment}/CloudFlareApiToken"));
        let token = match token {
            Some(token) => TokenSource::Given(token.into()),
            None => TokenSource::SecretId(secret_id),
        };
        Some(CloudflareConfig { settings_url, query_configs_url, token })
    }

    fn check_id(&mut self, variable: &str, id: &str) {
        if id.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
            self.problem(variable, "may hold letters, digits, '-' and '_' only");
        }
    }

    pub fn number<T: FromStr + PartialOrd + Display>(
        &mut self,
        variable: &str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let Some(text) = self.optional(variable) else { return default };
        text.parse().ok().filter(|number| range.contains(number)).unwrap_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.problem(variable, &format!("must be a whole number from {least} to {most}"));
            default
        })
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

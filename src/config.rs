//! The configuration, from an injected look-up. Every problem is reported at once.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use enum_map::{EnumMap, enum_map};
use secrecy::SecretString;
use url::Url;

use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_PAIRS;
use crate::kv::stored::{fits_a_header, is_environment};

const DEFAULT_KV_URL: &str = "https://api.cloudflare.com/client/v4/accounts/{account_id}/storage/kv/namespaces/{namespace_id}";

#[derive(Debug)]
pub struct Config {
    /// With `{cell}` and `{system_account_id}`.
    pub api_keys_url: String,
    /// `None` is a dry run.
    pub cloudflare: Option<CloudflareConfig>,
    pub aws: AwsConfig,
    pub exporter: ExporterConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterConfig {
    /// `{env}` in the names of resources and in the metadata of each entry.
    pub environment: String,
    pub table_name: String,
    /// Whether Lambda runs the function, with AWS's own services and no stand-ins.
    pub in_aws: bool,
    /// The cell of records that name none.
    pub default_cell: Option<String>,
    pub bulk_max_pairs: usize,
    /// How many index items a process removes at most in ten minutes.
    pub removals_up_to: usize,
    pub http_timeout: Duration,
    /// The first back-off.
    pub retry_base: Duration,
    pub dry_run: bool,
}

/// Where and as whom AWS is called. The credentials of the function's role outlive its process.
#[derive(Debug)]
pub struct AwsConfig {
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// Absent for a user's keys.
    pub session_token: Option<SecretString>,
    /// Absent where AWS's own service is called. The same goes for the next field.
    pub dynamodb_url: Option<String>,
    pub secrets_manager_url: Option<String>,
}

#[derive(Debug)]
pub struct CloudflareConfig {
    pub urls: EnumMap<Namespace, String>,
    pub token: TokenSource,
}

#[derive(Debug)]
pub enum TokenSource {
    SecretId(String),
    /// The token itself, for local use.
    Given(SecretString),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not usable: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    pub fn from_env() -> Result<Self, ConfigError> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Empty variables count as absent.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader { lookup: &lookup, problems: Vec::new() };
        let environment = reader.required("ENVIRONMENT", "the {env} in the names of resources");
        if !environment.is_empty() && !is_environment(&environment) {
            reader.problem("ENVIRONMENT", "must be 1 to 64 letters, digits, '-', '_' or '.'");
        }
        let aws = aws(&mut reader);
        let cloudflare = cloudflare(&mut reader, &environment);
        let table_name = reader.optional("SETTINGS_TABLE_NAME");
        let own_services = aws.dynamodb_url.is_none() && aws.secrets_manager_url.is_none();
        let millis = Duration::from_millis;
        let exporter = ExporterConfig {
            table_name: table_name
                .unwrap_or_else(|| format!("{environment}-EcomIndexSettingsTable")),
            environment,
            in_aws: reader.optional("AWS_LAMBDA_FUNCTION_NAME").is_some() && own_services,
            default_cell: reader.optional("DEFAULT_CELL"),
            bulk_max_pairs: reader.number("KV_BULK_MAX_PAIRS", MAX_BULK_PAIRS, 1..=MAX_BULK_PAIRS),
            removals_up_to: reader.number("REMOVALS_UP_TO", 100, 0..=1_000_000),
            http_timeout: millis(reader.number("HTTP_TIMEOUT_MS", 30_000, 1..=300_000)),
            retry_base: millis(reader.number("HTTP_RETRY_BASE_MS", 1_000, 0..=60_000)),
            dry_run: cloudflare.is_none(),
        };
        let placeholders = ["{cell}", "{system_account_id}"];
        let api_keys_url = reader.secret_url("API_KEYS_URL", None, &placeholders);
        if reader.problems.is_empty() {
            Ok(Self { api_keys_url, cloudflare, aws, exporter })
        } else {
            Err(ConfigError(reader.problems))
        }
    }
}

/// Returns what Lambda sets for AWS.
fn aws(reader: &mut Reader<'_>) -> AwsConfig {
    const CREDENTIALS: &str = "Lambda sets it; for a profile's, aws configure export-credentials";
    let region = reader.optional("AWS_REGION").or_else(|| reader.optional("AWS_DEFAULT_REGION"));
    let all = reader.url("AWS_ENDPOINT_URL");
    AwsConfig {
        dynamodb_url: reader.url("AWS_ENDPOINT_URL_DYNAMODB").or_else(|| all.clone()),
        secrets_manager_url: reader.url("AWS_ENDPOINT_URL_SECRETS_MANAGER").or(all),
        region: region.unwrap_or_else(|| reader.required("AWS_REGION", "Lambda sets it")),
        access_key_id: reader.required("AWS_ACCESS_KEY_ID", CREDENTIALS),
        secret_access_key: reader.required("AWS_SECRET_ACCESS_KEY", CREDENTIALS).into(),
        session_token: reader.optional("AWS_SESSION_TOKEN").map(Into::into),
    }
}

/// Returns `None` where the account is absent.
fn cloudflare(reader: &mut Reader<'_>, environment: &str) -> Option<CloudflareConfig> {
    reader.optional("CLOUDFLARE_ACCOUNT_ID")?;
    let account = reader.id("CLOUDFLARE_ACCOUNT_ID");
    let settings = reader.id("CLOUDFLARE_KV_NAMESPACE_ID");
    let query_configs = reader.id("CLOUDFLARE_KV_QCFG_NAMESPACE_ID");
    if !settings.is_empty() && settings == query_configs {
        // In each of them, reconcile would take the keys of the other kind for orphans.
        let problem = "must be another namespace than CLOUDFLARE_KV_NAMESPACE_ID";
        reader.problem("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", problem);
    }
    let url = reader.secret_url("CLOUDFLARE_KV_URL", Some(DEFAULT_KV_URL), &["{namespace_id}"]);
    let url = url.trim_end_matches('/');
    let url = |id: &str| url.replace("{account_id}", &account).replace("{namespace_id}", id);
    let urls = enum_map! {
        Namespace::Settings => url(&settings),
        Namespace::QueryConfigs => url(&query_configs),
    };
    let given = reader.optional("CLOUDFLARE_API_TOKEN");
    if given.as_deref().is_some_and(|token| !fits_a_header(token)) {
        reader.problem("CLOUDFLARE_API_TOKEN", "must be visible ASCII characters");
    }
    let secret_id = reader.optional("CLOUDFLARE_API_TOKEN_SECRET_ID");
    let secret_id = secret_id.unwrap_or_else(|| format!("{environment}/CloudFlareApiToken"));
    let token = given.map_or(TokenSource::SecretId(secret_id), |it| TokenSource::Given(it.into()));
    Some(CloudflareConfig { urls, token })
}

/// Reads variables, and collects every problem.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, variable: &str, problem: &str) {
        self.problems.push(format!("{variable} {problem}"));
    }

    fn optional(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.is_empty())
    }

    fn required(&mut self, variable: &str, what: &str) -> String {
        self.optional(variable).unwrap_or_else(|| {
            self.problem(variable, &format!("is required: {what}"));
            String::new()
        })
    }

    /// Returns a required part of a URL's path.
    fn id(&mut self, variable: &str) -> String {
        let id = self.required(variable, "unless CLOUDFLARE_ACCOUNT_ID is absent (dry run)");
        if id.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
            self.problem(variable, "may hold letters, digits, '-' and '_' only");
        }
        id
    }

    fn number<T: FromStr + PartialOrd + Display>(
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

    fn url(&mut self, variable: &str) -> Option<String> {
        let url = self.optional(variable)?;
        self.parse(variable, &url);
        Some(url)
    }

    /// Returns a URL that has placeholders and carries secrets.
    fn secret_url(&mut self, variable: &str, default: Option<&str>, holds: &[&str]) -> String {
        let Some(template) = self.optional(variable).or(default.map(str::to_owned)) else {
            return self.required(variable, &format!("a URL with {}", holds.join(" and ")));
        };
        let mut filled = template.clone();
        for placeholder in holds {
            if !template.contains(placeholder) {
                self.problem(variable, &format!("must hold {placeholder}"));
            }
            filled = filled.replace(placeholder, FILLED);
        }
        let filled = filled.replace("{account_id}", FILLED);
        if filled.contains(['{', '}']) {
            self.problem(variable, "holds an unknown placeholder");
        }
        let Some(url) = self.parse(variable, &filled) else { return template };
        let host = url.host_str().unwrap_or_default();
        if url.scheme() == "http" && !is_loopback(host) {
            self.problem(variable, "must be https: what it carries is secret");
        }
        if !has_fixed_domain(host) {
            let problem = "must end its host in a fixed domain, as https://{cell}.gateway.example/ does: otherwise a record would choose the host";
            self.problem(variable, problem);
        }
        template
    }

    fn parse(&mut self, variable: &str, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        if url.is_none() {
            self.problem(variable, "must be an absolute http or https URL");
        }
        url
    }
}

/// What replaces a placeholder when a template is checked.
const FILLED: &str = "filled-in-by-the-exporter";

/// Returns whether a host ends in at least two labels that hold no placeholder.
fn has_fixed_domain(host: &str) -> bool {
    let Some((_, domain)) = host.trim_end_matches('.').rsplit_once(FILLED) else { return true };
    domain.strip_prefix('.').is_some_and(|domain| domain.contains('.'))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: [(&str, &str); 5] = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ("ENVIRONMENT", "prod"),
        ("API_KEYS_URL", "https://{cell}.example.com/accounts/{system_account_id}/key"),
    ];

    const CLOUDFLARE: [(&str, &str); 3] = [
        ("CLOUDFLARE_ACCOUNT_ID", "acc"),
        ("CLOUDFLARE_KV_NAMESPACE_ID", "ns1"),
        ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", "ns2"),
    ];

    /// Reads these variables only.
    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = std::collections::BTreeMap::from_iter(variables.iter().copied());
        Config::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    /// Reads a whole configuration, in which these variables come before the others.
    fn read_with(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        read(&[&MINIMAL[..], &CLOUDFLARE, variables].concat())
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = read_with(&[]).unwrap();
        let CloudflareConfig { urls, token } = config.cloudflare.unwrap();
        assert_eq!(
            urls[Namespace::Settings],
            "https://api.cloudflare.com/client/v4/accounts/acc/storage/kv/namespaces/ns1"
        );
        assert!(urls[Namespace::QueryConfigs].ends_with("/namespaces/ns2"));
        assert!(matches!(token, TokenSource::SecretId(id) if id == "prod/CloudFlareApiToken"));
        assert_eq!(
            config.exporter,
            ExporterConfig {
                environment: "prod".into(),
                table_name: "prod-EcomIndexSettingsTable".into(),
                in_aws: false,
                default_cell: None,
                bulk_max_pairs: 10_000,
                removals_up_to: 100,
                http_timeout: Duration::from_secs(30),
                retry_base: Duration::from_secs(1),
                dry_run: false,
            }
        );
        let slash = read_with(&[("CLOUDFLARE_KV_URL", "https://h/{namespace_id}/")]).unwrap();
        assert_eq!(slash.cloudflare.unwrap().urls[Namespace::Settings], "https://h/ns1");
        let dry_run = read_with(&[("CLOUDFLARE_ACCOUNT_ID", "")]).unwrap();
        assert!(dry_run.cloudflare.is_none() && dry_run.exporter.dry_run);
    }

    #[test]
    fn aws_is_what_lambda_sets_and_no_secret_is_shown() {
        let config = read_with(&[
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("AWS_SESSION_TOKEN", "s3ssion"),
            ("AWS_ENDPOINT_URL", "http://all"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "http://table"),
            ("CLOUDFLARE_API_TOKEN", "t0ken"),
        ])
        .unwrap();
        assert_eq!(config.aws.region, "us-east-1");
        assert_eq!(config.aws.dynamodb_url.as_deref(), Some("http://table"));
        assert_eq!(config.aws.secrets_manager_url.as_deref(), Some("http://all"));
        let shown = format!("{config:?}");
        assert!(shown.contains("AKID"), "{shown}");
        for secret in ["s3cret", "s3ssion", "t0ken"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(matches!(config.cloudflare.unwrap().token, TokenSource::Given(_)));
    }

    #[test]
    fn every_problem_is_reported_at_once_by_its_variable() {
        let rows = [
            ("AWS_REGION", "", "is required"),
            ("AWS_ACCESS_KEY_ID", "", "is required"),
            ("AWS_SECRET_ACCESS_KEY", "", "is required"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "localhost:8000", "must be an absolute"),
            ("ENVIRONMENT", "", "is required"),
            ("API_KEYS_URL", "ftp://keys/{cell}", "must hold {system_account_id}"),
            ("API_KEYS_URL", "ftp://keys/{cell}", "must be an absolute"),
            ("CLOUDFLARE_ACCOUNT_ID", "a/b", "may hold"),
            ("CLOUDFLARE_KV_NAMESPACE_ID", "../x", "may hold"),
            ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", "", "is required"),
            ("CLOUDFLARE_KV_URL", "https://kv.example.com/", "must hold {namespace_id}"),
            ("KV_BULK_MAX_PAIRS", "10001", "must be"),
            ("REMOVALS_UP_TO", "1000001", "must be"),
            ("HTTP_TIMEOUT_MS", "soon", "must be"),
            ("HTTP_RETRY_BASE_MS", "-1", "must be"),
            ("CLOUDFLARE_API_TOKEN", "a\nb", "must be"),
        ];
        let ConfigError(problems) = read(&rows.map(|(name, value, _)| (name, value))).unwrap_err();
        for (variable, _, problem) in rows {
            let start = format!("{variable} {problem}");
            let found = problems.iter().filter(|problem| problem.starts_with(&start)).count();
            assert_eq!(found, 1, "{start}: {problems:?}");
        }
        assert_eq!(problems.len(), rows.len());
    }

    #[test]
    fn it_runs_in_aws_where_lambda_runs_it_against_awss_own_services() {
        const LAMBDA: (&str, &str) = ("AWS_LAMBDA_FUNCTION_NAME", "exporter");
        assert!(read_with(&[LAMBDA]).unwrap().exporter.in_aws);
        for service in ["", "_DYNAMODB", "_SECRETS_MANAGER"] {
            let endpoint = format!("AWS_ENDPOINT_URL{service}");
            let config = read_with(&[LAMBDA, (&endpoint, "http://localhost:1")]).unwrap();
            assert!(!config.exporter.in_aws, "{endpoint}");
        }
    }

    #[test]
    fn a_value_has_to_fit_its_variable() {
        const LETTERS: &str = "must be 1 to 64 letters, digits, '-', '_' or '.'";
        const HOST: &str = "must end its host in a fixed domain";
        let (longest, too_long) = ("e".repeat(64), "e".repeat(65));
        for (variable, values, problem) in [
            ("ENVIRONMENT", &["e", "A.b-c_9", &longest][..], None),
            ("ENVIRONMENT", &["a/b", "ü", &too_long], Some(LETTERS)),
            ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", &["ns1"], Some("must be another namespace")),
            // What carries secrets goes over plain HTTP to loopback hosts only.
            ("CLOUDFLARE_KV_URL", &["https://h", "http://localhost:1"], None),
            ("CLOUDFLARE_KV_URL", &["http://h"], Some("must be https")),
            ("API_KEYS_URL", &["https://h", "http://localhost:1", "http://127.0.0.2:1"], None),
            ("API_KEYS_URL", &["http://[::1]:1", "https://placeholder.invalid"], None),
            ("API_KEYS_URL", &["http://h", "http://10.0.0.1"], Some("must be https")),
            ("API_KEYS_URL", &["http://localhost.example.com"], Some("must be https")),
            // A record chooses no host.
            (
                "API_KEYS_URL",
                &["https://{cell}.gateway.example", "https://k-{cell}.h.x:8443"],
                None,
            ),
            ("API_KEYS_URL", &["https://{system_account_id}.{cell}.gateway.example"], None),
            ("API_KEYS_URL", &["https://{cell}", "https:/{cell}", r"https:\\{cell}"], Some(HOST)),
            ("API_KEYS_URL", &["https://{cell}:8443", "https://gateway.{cell}"], Some(HOST)),
            ("API_KEYS_URL", &["https://{cell}.com", "https://{cell}.com."], Some(HOST)),
            ("API_KEYS_URL", &["https://{cell}gateway.example", "https://me@{cell}"], Some(HOST)),
            ("API_KEYS_URL", &["https://gateway.example.{cell}"], Some(HOST)),
            ("API_KEYS_URL", &["https://h/{env}", "https://h/}"], Some("holds an unknown")),
            ("API_KEYS_URL", &["{cell}://h", "https://h:{cell}"], Some("must be an absolute")),
        ] {
            let path = match variable {
                "API_KEYS_URL" => "/{cell}/{system_account_id}",
                "CLOUDFLARE_KV_URL" => "/{namespace_id}",
                _ => "",
            };
            for value in values {
                let value = format!("{value}{path}");
                let problems = read_with(&[(variable, &value)]).err().map_or(Vec::new(), |it| it.0);
                let expected = problem.map(|problem| format!("{variable} {problem}"));
                let told = problems.iter().zip(&expected).all(|(it, start)| it.starts_with(start));
                assert!(told && problems.len() == expected.iter().len(), "{value}: {problems:?}");
            }
        }
    }
}

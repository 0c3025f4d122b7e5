//! Reads variables, and collects every problem.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

pub struct Reader<'a> {
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    pub problems: Vec<String>,
}

impl Reader<'_> {
    pub fn problem(&mut self, variable: &str, problem: &str) {
        self.problems.push(format!("{variable} {problem}"));
    }

    pub fn optional(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable).filter(|value| !value.is_empty())
    }

    pub fn required(&mut self, variable: &str, what: &str) -> String {
        self.optional(variable).unwrap_or_else(|| {
            self.problem(variable, &format!("is required: {what}"));
            String::new()
        })
    }

    /// Returns a required part of a URL's path.
    pub fn id(&mut self, variable: &str) -> String {
        let id = self.required(variable, "unless CLOUDFLARE_ACCOUNT_ID is absent (dry run)");
        if id.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))) {
            self.problem(variable, "may hold letters, digits, '-' and '_' only");
        }
        id
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

    pub fn millis(&mut self, name: &str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(name, default, range))
    }

    pub fn url(&mut self, variable: &str) -> Option<String> {
        let url = self.optional(variable)?;
        self.parse(variable, &url);
        Some(url)
    }

    /// Returns a URL that has placeholders and carries secrets.
    pub fn secret_url(&mut self, variable: &str, default: Option<&str>, holds: &[&str]) -> String {
        let Some(template) = self.optional(variable).or(default.map(str::to_owned)) else {
            return self.required(variable, &format!("a URL with {}", holds.join(" and ")));
        };
        for placeholder in holds.iter().filter(|placeholder| !template.contains(**placeholder)) {
            self.problem(variable, &format!("must hold {placeholder}"));
        }
        let filled = holds
            .iter()
            .fold(template.clone(), |url, placeholder| url.replace(placeholder, FILLED));
        let Some(url) = self.parse(variable, &filled.replace(['{', '}'], "")) else {
            return template;
        };
        if url.scheme() == "http" && !is_loopback(&url) {
            self.problem(variable, "must be https: what it carries is secret");
        }
        if url.host_str().is_some_and(|host| !has_fixed_domain(host)) {
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
const FILLED: &str = "placeholder";

/// Returns whether a host ends in at least two labels that hold no placeholder.
fn has_fixed_domain(host: &str) -> bool {
    let Some((_, domain)) = host.trim_end_matches('.').rsplit_once(FILLED) else { return true };
    domain.strip_prefix('.').is_some_and(|domain| domain.contains('.'))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

//! Reads variables, and collects every problem.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use url::Url;

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
        let fill = |url: String, placeholder: &&str| url.replace(placeholder, FILLED);
        let filled = holds.iter().fold(template.clone(), fill);
        let Some(url) = self.parse(variable, &filled.replace(['{', '}'], "")) else {
            return template;
        };
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
const FILLED: &str = "placeholder";

/// Returns whether a host ends in at least two labels that hold no placeholder.
fn has_fixed_domain(host: &str) -> bool {
    let Some((_, domain)) = host.trim_end_matches('.').rsplit_once(FILLED) else { return true };
    domain.strip_prefix('.').is_some_and(|domain| domain.contains('.'))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

//! Requests of the KV API, parsed whole and checked against its limits before any work.

use std::collections::BTreeSet;

use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::limits;
use super::log::KvVerb;
use super::stored::Stored;
use super::wire::{NO_ROUTE, Refusal};
use crate::http::{Request, decode};

/// What stands between the account and the namespace in the path.
const NAMESPACES: &str = "/storage/kv/namespaces/";

/// Where a request goes, known from its path and method alone.
pub struct Target {
    pub verb: KvVerb,
    pub account: String,
    pub namespace: String,
    /// The key in the path, decoded.
    key: String,
}

impl Target {
    /// Reads the path; `None` if the API has no such path.
    pub fn of(request: &Request) -> Option<Self> {
        let path = request.path.strip_prefix("/client/v4/accounts/")?;
        let (account, rest) = path.split_once(NAMESPACES)?;
        let (namespace, tail) = rest.split_once('/')?;
        let (collection, key) = tail.split_once('/').unwrap_or((tail, ""));
        let verb = match (&request.method, collection, key) {
            (&Method::PUT, "bulk", "") => KvVerb::PutBulk,
            (&Method::POST, "bulk", "delete") => KvVerb::DeleteBulk,
            (&Method::POST, "bulk", "get") => KvVerb::GetBulk,
            (&Method::GET, "keys", "") => KvVerb::ListKeys,
            (&Method::GET, "values", _) => KvVerb::GetValue,
            (&Method::PUT, "values", _) => KvVerb::PutValue,
            (&Method::DELETE, "values", _) => KvVerb::DeleteValue,
            _ => return None,
        };
        let [account, namespace, key] = [account, namespace, key].map(decode);
        Some(Self { verb, account, namespace, key })
    }

    /// The refusal of an unknown path or method.
    pub fn missing(request: &Request) -> Refusal {
        let message = format!("No route for {} {}", request.method, request.path);
        Refusal::new(404, NO_ROUTE, message)
    }
}

/// A key, and what is written under it; nothing where it is deleted.
pub type Write = (String, Option<Stored>);

pub enum Call {
    Write(Vec<Write>),
    /// A number of pairs to throw away.
    Discard(usize),
    GetBulk(GetBulk),
    Get(String),
    List(Page),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetBulk {
    pub keys: Vec<String>,
    /// `json` returns parsed values, else they are text.
    #[serde(default)]
    pub r#type: ValueType,
    #[serde(default)]
    pub with_metadata: bool,
}

#[derive(Deserialize, Default, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    #[default]
    Text,
    Json,
}

pub struct Page {
    pub prefix: String,
    /// The most keys of a page.
    pub limit: usize,
    /// The last key of the previous page.
    pub after: Option<String>,
}

#[derive(Deserialize)]
struct Pair<'a> {
    key: String,
    value: String,
    #[serde(default)]
    base64: bool,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl Call {
    /// Reads and checks a request. In discard mode the pairs of a bulk write are only counted.
    pub fn read(target: &Target, request: &Request, discard: bool) -> Result<Self, Refusal> {
        match target.verb {
            KvVerb::PutBulk if discard => {
                let pairs: Vec<IgnoredAny> = body(request)?;
                Ok(Self::Discard(limits::count(pairs.len())?))
            }
            KvVerb::PutBulk => Ok(Self::Write(pairs(body(request)?)?)),
            KvVerb::DeleteBulk => {
                let keys: Vec<String> = body(request)?;
                limits::count(keys.len())?;
                keys.iter().try_for_each(|key| limits::key(key))?;
                distinct(keys.iter())?;
                Ok(Self::Write(keys.into_iter().map(|key| (key, None)).collect()))
            }
            KvVerb::GetBulk => {
                let get: GetBulk = body(request)?;
                if get.keys.is_empty() || get.keys.len() > limits::MAX_GET {
                    return Err(Refusal::bad(format!("keys must be 1 to {}", limits::MAX_GET)));
                }
                get.keys.iter().try_for_each(|key| limits::key(key))?;
                Ok(Self::GetBulk(get))
            }
            KvVerb::ListKeys => page(request).map(Self::List),
            KvVerb::GetValue => Ok(Self::Get(key(target)?)),
            KvVerb::DeleteValue => Ok(Self::Write(vec![(key(target)?, None)])),
            KvVerb::PutValue => {
                let value = String::from_utf8(request.body.to_vec())
                    .map_err(|_| Refusal::bad("this stand-in keeps UTF-8 values only"))?;
                limits::value(&value)?;
                Ok(Self::Write(vec![(key(target)?, Some(Stored { value, metadata: None }))]))
            }
        }
    }

    pub fn keys(&self) -> Vec<String> {
        match self {
            Self::Write(writes) => writes.iter().map(|(key, _)| key.clone()).collect(),
            Self::GetBulk(GetBulk { keys, .. }) => keys.clone(),
            Self::Get(key) => vec![key.clone()],
            Self::Discard(_) | Self::List(_) => Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Write(writes) => writes.len(),
            Self::Discard(pairs) => *pairs,
            Self::GetBulk(GetBulk { keys, .. }) => keys.len(),
            Self::Get(_) => 1,
            Self::List(_) => 0,
        }
    }
}

fn body<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, Refusal> {
    let content_type = request.header("content-type").unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Refusal::bad("Content-Type must be application/json"));
    }
    limits::body(request.body.len())?;
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::bad(format!("could not parse the body: {error}")))
}

fn pairs(pairs: Vec<Pair<'_>>) -> Result<Vec<Write>, Refusal> {
    limits::count(pairs.len())?;
    distinct(pairs.iter().map(|pair| &pair.key))?;
    for pair in &pairs {
        limits::key(&pair.key)?;
        limits::value(&pair.value)?;
        if pair.base64 {
            return Err(Refusal::bad("this stand-in does not accept base64"));
        }
    }
    pairs
        .into_iter()
        .map(|pair| {
            let metadata = pair.metadata.map(limits::metadata).transpose()?;
            Ok((pair.key, Some(Stored { value: pair.value, metadata })))
        })
        .collect()
}

/// Refuses a key that occurs twice in a request.
fn distinct<'a>(keys: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(Refusal::bad(format!("key {key:?} occurs twice")));
        }
    }
    Ok(())
}

fn key(target: &Target) -> Result<String, Refusal> {
    limits::key(&target.key)?;
    Ok(target.key.clone())
}

fn page(request: &Request) -> Result<Page, Refusal> {
    let limit = request.param("limit").map_or(Ok(1_000), |limit| limit.parse()).unwrap_or(0);
    if !(10..=1_000).contains(&limit) {
        return Err(Refusal::bad("limit must be 10 to 1000"));
    }
    let after = match request.param("cursor").filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => {
            let key = hex::decode(cursor).ok().and_then(|key| String::from_utf8(key).ok());
            Some(key.ok_or_else(|| Refusal::bad("unknown cursor"))?)
        }
        None => None,
    };
    Ok(Page { prefix: request.param("prefix").unwrap_or_default(), limit, after })
}

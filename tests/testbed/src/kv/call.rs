//! Requests of the KV API, parsed whole and checked against its limits before any work.

use std::collections::BTreeSet;

use hyper::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::limits;
use super::log::KvVerb;
use super::namespace::Stored;
use super::wire::{NO_ROUTE, Refusal};
use crate::http::{Request, decode};

/// What stands between the account and the namespace in the path.
const NAMESPACES: &str = "/storage/kv/namespaces/";

/// Where a request goes, known from its path and method alone.
pub struct Target {
    pub verb: KvVerb,
    pub account: String,
    pub namespace: String,
}

impl Target {
    /// Reads the path; the error is the refusal of one that the API does not have.
    pub fn of(request: &Request) -> Result<Self, Refusal> {
        Self::read(request).ok_or_else(|| {
            let message = format!("No route for {} {}", request.method, request.path);
            Refusal::new(404, NO_ROUTE, message)
        })
    }

    fn read(request: &Request) -> Option<Self> {
        let path = request.path.strip_prefix("/client/v4/accounts/")?;
        let (account, rest) = path.split_once(NAMESPACES)?;
        let (namespace, tail) = rest.split_once('/')?;
        let verb = match (&request.method, tail) {
            (&Method::PUT, "bulk") => KvVerb::PutBulk,
            (&Method::POST, "bulk/delete") => KvVerb::DeleteBulk,
            (&Method::POST, "bulk/get") => KvVerb::GetBulk,
            (&Method::GET, "keys") => KvVerb::ListKeys,
            _ => return None,
        };
        let [account, namespace] = [account, namespace].map(decode);
        Some(Self { verb, account, namespace })
    }
}

/// A key, and what is written under it; nothing where it is deleted.
pub type Write = (String, Option<Stored>);

pub enum Call {
    Write(Vec<Write>),
    GetBulk(GetBulk),
    List(Page),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetBulk {
    pub keys: Vec<String>,
    #[serde(default)]
    pub with_metadata: bool,
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
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

impl Call {
    /// Reads and checks a request.
    pub fn read(target: &Target, request: &Request) -> Result<Self, Refusal> {
        match target.verb {
            KvVerb::PutBulk => {
                let pairs: Vec<Pair<'_>> = body(request)?;
                writable(pairs.iter().map(|pair| &pair.key))?;
                pairs.into_iter().map(write).collect::<Result<_, _>>().map(Self::Write)
            }
            KvVerb::DeleteBulk => {
                let keys: Vec<String> = body(request)?;
                writable(keys.iter())?;
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
        }
    }

    pub fn keys(&self) -> Vec<String> {
        match self {
            Self::Write(writes) => writes.iter().map(|(key, _)| key.clone()).collect(),
            Self::GetBulk(GetBulk { keys, .. }) => keys.clone(),
            Self::List(_) => Vec::new(),
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

/// Refuses too many keys, one that KV cannot hold, and one that occurs twice.
fn writable<'a>(keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), Refusal> {
    limits::count(keys.len())?;
    let mut seen = BTreeSet::new();
    for key in keys {
        limits::key(key)?;
        if !seen.insert(key) {
            return Err(Refusal::bad(format!("key {key:?} occurs twice")));
        }
    }
    Ok(())
}

fn write(pair: Pair<'_>) -> Result<Write, Refusal> {
    limits::value(&pair.value)?;
    let metadata = pair.metadata.map(limits::metadata).transpose()?;
    Ok((pair.key, Some(Stored { value: pair.value, metadata })))
}

fn page(request: &Request) -> Result<Page, Refusal> {
    let limit = request.param("limit").map_or(Ok(1_000), |limit| limit.parse()).unwrap_or(0);
    if !(10..=1_000).contains(&limit) {
        return Err(Refusal::bad("limit must be 10 to 1000"));
    }
    let key = |cursor| String::from_utf8(hex::decode(cursor).ok()?).ok();
    let after = request
        .param("cursor")
        .filter(|cursor| !cursor.is_empty())
        .map(|cursor| key(cursor).ok_or_else(|| Refusal::bad("unknown cursor")));
    let prefix = request.param("prefix").unwrap_or_default();
    Ok(Page { prefix, limit, after: after.transpose()? })
}

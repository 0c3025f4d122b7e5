//! The envelope around every reply of Cloudflare's API, and the codes of its errors.

use serde::Serialize;
use serde_json::{Value, json};

use crate::http::Reply;

/// A wrong token.
pub const AUTHENTICATION: u16 = 10_000;
/// A malformed body, or a malformed part of it.
pub const BAD_BODY: u16 = 10_012;
pub const NAMESPACE_NOT_FOUND: u16 = 10_013;
pub const RATE_LIMIT: u16 = 971;
/// A path or method that the API does not have.
pub const NO_ROUTE: u16 = 7_003;

pub fn success(result: impl Serialize, result_info: Option<Value>) -> Reply {
    let mut envelope = json!({"result": result, "success": true, "errors": [], "messages": []});
    if let Some(info) = result_info {
        envelope["result_info"] = info;
    }
    Reply::json(200, &envelope)
}

/// A failure in its envelope. Bulk requests have a result even then.
pub fn failure(status: u16, code: u16, message: &str, result: impl Serialize) -> Reply {
    let errors = json!([{"code": code, "message": message}]);
    let envelope = json!({"result": result, "success": false, "errors": errors, "messages": []});
    Reply::json(status, &envelope)
}

#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: u16,
    message: String,
}

impl Refusal {
    pub fn new(status: u16, code: u16, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, BAD_BODY, message)
    }

    pub fn reply(&self) -> Reply {
        failure(self.status, self.code, &self.message, None::<()>)
    }
}

//! AWS Secrets Manager: `GetSecretValue` of its JSON 1.1 protocol.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::faults::Faults;
use crate::http::{Outcome, Reply, Request, Server};
use crate::sync::lock;

/// A running Secrets Manager. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct Secrets {
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Default)]
struct Shared {
    secrets: Mutex<BTreeMap<String, String>>,
    log: Mutex<Vec<String>>,
    faults: Faults,
}

impl Secrets {
    /// Starts it on a port; 0 for any.
    pub async fn start(port: u16) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = Server::sharing(port, &shared, handle).await?;
        Ok(Self { shared, server })
    }

    /// The address, as `AWS_ENDPOINT_URL_SECRETS_MANAGER` takes it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Sets a secret's string, plain or JSON.
    pub fn set(&self, secret_id: &str, secret: &str) {
        lock(&self.shared.secrets).insert(secret_id.to_owned(), secret.to_owned());
    }

    /// The secrets that were asked for since the log was cleared.
    pub fn log(&self) -> Vec<String> {
        lock(&self.shared.log).clone()
    }

    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }
}

async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let asked: Value = request.json().unwrap_or_default();
    let (Some("GetSecretValue"), Some(secret_id)) =
        (request.operation(), asked["SecretId"].as_str())
    else {
        return error("InvalidRequestException", "only GetSecretValue of a SecretId").into();
    };
    let secret_id = secret_id.to_owned();
    lock(&shared.log).push(secret_id.clone());
    let work = async |_, _| match lock(&shared.secrets).get(&secret_id) {
        Some(secret) => reply(
            200,
            &json!({
                "ARN": format!("arn:aws:secretsmanager:us-east-1:000000000000:secret:{secret_id}"),
                "Name": secret_id,
                "VersionId": "00000000-0000-4000-8000-000000000000",
                "VersionStages": ["AWSCURRENT"],
                "SecretString": secret,
                "CreatedDate": 1_767_600_000,
            }),
        ),
        None => {
            let message = "Secrets Manager can't find the specified secret.";
            error("ResourceNotFoundException", message)
        }
    };
    shared.faults.serve(request, work).await
}

fn error(kind: &str, message: &str) -> Reply {
    reply(400, &json!({"__type": kind, "Message": message})).with("x-amzn-errortype", kind)
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply::json(status, body).with("content-type", "application/x-amz-json-1.1")
}

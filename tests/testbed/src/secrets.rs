//! AWS Secrets Manager: the operations that read a secret and rotate it, of its JSON 1.1 protocol.

mod versions;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::Faults;
use crate::http::{Outcome, Reply, Request, Server};
use crate::sync::lock;
use versions::Secret;

#[derive(Debug, Clone)]
pub struct SecretRequest {
    pub secret_id: String,
    pub received_at: Instant,
}

/// A running Secrets Manager. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct Secrets {
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Default)]
struct Shared {
    secrets: Mutex<BTreeMap<String, Secret>>,
    log: Mutex<Vec<SecretRequest>>,
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

    /// Sets a secret's string, plain or JSON: its next version.
    pub fn set(&self, secret_id: &str, secret: &str) {
        lock(&self.shared.secrets)
            .entry(secret_id.to_owned())
            .and_modify(|known| known.put(secret))
            .or_insert_with(|| Secret::new(secret));
    }

    /// Removes a secret: `ResourceNotFoundException` from now on.
    pub fn remove(&self, secret_id: &str) {
        lock(&self.shared.secrets).remove(secret_id);
    }

    /// All requests since the log was cleared.
    pub fn log(&self) -> Vec<SecretRequest> {
        lock(&self.shared.log).clone()
    }

    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }
}

/// What the operations take, each a part of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    secret_id: String,
    secret_string: Option<String>,
    version_stage: Option<String>,
    move_to_version_id: Option<String>,
    remove_from_version_id: Option<String>,
}

async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let Ok(asked) = request.json::<Asked>() else {
        return error("InvalidRequestException", "SecretId is missing").into();
    };
    let operation = request.operation().unwrap_or_default().to_owned();
    if operation == "GetSecretValue" {
        let secret_id = asked.secret_id.clone();
        lock(&shared.log).push(SecretRequest { secret_id, received_at: Instant::now() });
    }
    let work = async |_, _| match lock(&shared.secrets).get_mut(&asked.secret_id) {
        Some(secret) => answer(&operation, secret, &asked),
        None => {
            let message = "Secrets Manager can't find the specified secret.";
            error("ResourceNotFoundException", message)
        }
    };
    shared.faults.serve(request, work).await
}

fn answer(operation: &str, secret: &mut Secret, asked: &Asked) -> Reply {
    let more = match (operation, asked) {
        ("GetSecretValue", _) => json!({
            "VersionId": secret.current_id(),
            "VersionStages": ["AWSCURRENT"],
            "SecretString": secret.current(),
            "CreatedDate": 1_767_600_000,
        }),
        ("PutSecretValue", Asked { secret_string: Some(value), .. }) => {
            secret.put(value);
            json!({"VersionId": secret.current_id(), "VersionStages": ["AWSCURRENT"]})
        }
        ("ListSecretVersionIds", _) => json!({"Versions": secret.listed()}),
        (
            "UpdateSecretVersionStage",
            Asked {
                version_stage: Some(label),
                move_to_version_id: Some(to),
                remove_from_version_id: Some(from),
                ..
            },
        ) if label == "AWSCURRENT" => {
            if !secret.move_current(to, from) {
                let message = "AWSCURRENT can't be moved between these versions.";
                return error("InvalidParameterException", message);
            }
            json!({})
        }
        _ => return error("InvalidRequestException", "the stand-in doesn't know this request"),
    };
    amz(200, &named(&asked.secret_id, more))
}

/// Most answers name the secret.
fn named(secret_id: &str, mut answer: Value) -> Value {
    answer["ARN"] =
        format!("arn:aws:secretsmanager:us-east-1:000000000000:secret:{secret_id}").into();
    answer["Name"] = secret_id.into();
    answer
}

fn error(kind: &str, message: &str) -> Reply {
    amz(400, &json!({"__type": kind, "Message": message})).with("x-amzn-errortype", kind)
}

fn amz(status: u16, body: &Value) -> Reply {
    Reply::json(status, body).with("content-type", "application/x-amz-json-1.1")
}

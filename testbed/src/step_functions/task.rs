//! What tasks call.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Shared;
use crate::lambda::Failure;

/// A service that a task calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Invokes the function, and waits for its answer.
    Invoke,
    /// Lists executions by the SDK's own call.
    ListExecutions,
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "arn:aws:states:::lambda:invoke" => Ok(Self::Invoke),
            "arn:aws:states:::aws-sdk:sfn:listExecutions" => Ok(Self::ListExecutions),
            other => Err(D::Error::custom(format!("{other}: a resource that is not served here"))),
        }
    }
}

impl Resource {
    /// The service and its call, as the history names them.
    pub fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Invoke => ("lambda", "invoke"),
            Self::ListExecutions => ("aws-sdk:sfn", "listExecutions"),
        }
    }

    /// Calls the service.
    pub async fn call(self, shared: &Shared, parameters: &Value) -> Result<Value, Failure> {
        match self {
            Self::Invoke => {
                let payload = parameters["Payload"].clone();
                let answer = (shared.invoke)(payload).await?;
                Ok(json!({"ExecutedVersion": "$LATEST", "Payload": answer, "StatusCode": 200}))
            }
            Self::ListExecutions => {
                let most = parameters["MaxResults"].as_u64().unwrap_or(100);
                let status = parameters["StatusFilter"].as_str();
                let listed = shared.executions.listed(status, most);
                let listed: Vec<Value> = listed
                    .iter()
                    .map(|execution| {
                        json!({
                            "ExecutionArn": execution.arn, "Name": execution.name,
                            "Status": execution.status.as_str(),
                            "StartDate": execution.started,
                        })
                    })
                    .collect();
                Ok(json!({"Executions": listed}))
            }
        }
    }
}

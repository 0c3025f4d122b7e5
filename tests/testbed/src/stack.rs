//! All stand-ins with one call, and the environment that points the function at them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::api_keys::{self, ApiKeys};
use crate::aws::REGION;
use crate::kv::{self, Kv};
use crate::lambda::{Function, FunctionOptions};
use crate::poller::{Poller, PollerOptions};
use crate::secrets::Secrets;
use crate::table::{StreamView, Table};

/// The environment's name, `{env}` in the names of the table and the secret.
pub const ENVIRONMENT: &str = "local";
/// The cell of records that name none.
pub const DEFAULT_CELL: &str = "local-1";
pub const TABLE: &str = "local-EcomIndexSettingsTable";
pub const ACCOUNT: &str = "local-account";
pub const SETTINGS: &str = "settings";
pub const QUERY_CONFIGS: &str = "query-configs";
/// The first Cloudflare token.
pub const TOKEN: &str = "local-token";
pub const TOKEN_SECRET: &str = "local/CloudFlareApiToken";

/// The ports of the stand-ins; 0 for any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    pub dynamodb: u16,
    /// Lambda's Invoke API.
    pub lambda: u16,
    pub kv: u16,
    pub api_keys: u16,
    pub secrets: u16,
    /// Where `make fault` asks for faults.
    pub faults: u16,
}

impl Ports {
    pub const FIXED: Self = Self {
        dynamodb: 8000,
        lambda: 9001,
        kv: 8787,
        api_keys: 8788,
        secrets: 8789,
        faults: 8790,
    };
}

/// What a stack is started with. The default: free ports, and the stream view of production.
#[derive(Debug, Clone, Copy, Default)]
pub struct StackOptions {
    pub ports: Ports,
    pub view: StreamView,
}

/// All services that the function talks to.
#[derive(Clone)]
pub struct Stack {
    pub table: Table,
    /// Cloudflare KV with the namespaces [`SETTINGS`] and [`QUERY_CONFIGS`].
    pub kv: Kv,
    pub api_keys: ApiKeys,
    /// Secrets Manager with the secret [`TOKEN_SECRET`].
    pub secrets: Secrets,
    ports: Ports,
}

impl Stack {
    pub async fn start(options: StackOptions) -> io::Result<Self> {
        let StackOptions { ports, view } = options;
        let table = Table::start(ports.dynamodb, TABLE, view).await;
        let table = on_port("dynamodb", ports.dynamodb, table)?;
        let kv = Kv::start(ports.kv, ACCOUNT, TOKEN, &[SETTINGS, QUERY_CONFIGS]).await;
        let kv = on_port("kv", ports.kv, kv)?;
        let api_keys = on_port("api-keys", ports.api_keys, ApiKeys::start(ports.api_keys).await)?;
        let secrets = on_port("secrets", ports.secrets, Secrets::start(ports.secrets).await)?;
        secrets.set(TOKEN_SECRET, TOKEN);
        Ok(Self { table, kv, api_keys, secrets, ports })
    }

    /// The function's environment.
    pub fn env(&self) -> BTreeMap<String, String> {
        environment(
            &self.table.url(),
            &self.kv.url_template(),
            &self.api_keys.url_template(),
            &self.secrets.url(),
        )
    }

    /// Starts the binary as the function of this stack, with more environment over that of
    /// [`Stack::env`].
    pub async fn function<'a>(
        &self,
        binary: impl Into<PathBuf>,
        more: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Function> {
        let mut env = self.env();
        env.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let port = self.ports.lambda;
        let options = FunctionOptions { port, ..FunctionOptions::new(binary, env) };
        on_port("lambda", port, Function::start(options).await)
    }

    /// Carries the table's stream to a function of this stack.
    pub fn poll(&self, function: &Function, options: PollerOptions) -> Poller {
        let function = function.clone();
        Poller::start(&self.table, options, move |event| {
            let function = function.clone();
            async move {
                let invocation =
                    function.invoke(&event).await.map_err(|error| error.to_string())?;
                invocation.result.map_err(|failure| failure.to_string())
            }
        })
    }
}

/// Says which port was the problem, and how to take another.
fn on_port<T>(name: &str, port: u16, started: io::Result<T>) -> io::Result<T> {
    started.map_err(|error| {
        let text = format!("port {port}: {error}; --{name}-port takes another");
        io::Error::new(error.kind(), text)
    })
}

/// The environment of a function for a stack at these ports.
pub fn environment_at(ports: Ports) -> BTreeMap<String, String> {
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    environment(
        &at(ports.dynamodb),
        &kv::url_template(&at(ports.kv)),
        &api_keys::url_template(&at(ports.api_keys)),
        &at(ports.secrets),
    )
}

fn environment(
    dynamodb: &str,
    kv: &str,
    api_keys: &str,
    secrets: &str,
) -> BTreeMap<String, String> {
    let env = [
        ("ENVIRONMENT", ENVIRONMENT),
        ("API_KEYS_URL", api_keys),
        ("DEFAULT_CELL", DEFAULT_CELL),
        ("CLOUDFLARE_ACCOUNT_ID", ACCOUNT),
        ("CLOUDFLARE_KV_NAMESPACE_ID", SETTINGS),
        ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", QUERY_CONFIGS),
        ("CLOUDFLARE_KV_URL", kv),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets),
        ("AWS_REGION", REGION),
        // Older versions of the AWS CLI read only this one.
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
        // So that nothing waits for missing credentials.
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

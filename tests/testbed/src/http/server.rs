//! A server on the loopback interface that stops when it is dropped.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use async_stream::try_stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

use super::{Reply, Request};

/// What a handler does with the connection.
pub enum Outcome {
    Reply(Reply),
    /// Send the head and half of the body, then break the connection.
    Truncated(Reply),
    /// Break the connection without an answer.
    Drop,
}

impl Outcome {
    /// The reply, unless the connection is broken without one.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Reply(reply) | Self::Truncated(reply) => Some(reply),
            Self::Drop => None,
        }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

type Handler = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// A running server. Clones share it; dropping the last breaks its connections and frees its port.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    _task: Arc<JoinSet<()>>,
}

impl Server {
    /// Binds `127.0.0.1:port`, any free port for 0, and serves `handler` there.
    pub async fn start<H, F>(port: u16, handler: H) -> io::Result<Self>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, handler));
        Ok(Self { address, _task: Arc::new(task) })
    }

    /// Serves requests with a function and what it shares with the holder of the server.
    pub async fn sharing<S, F>(
        port: u16,
        shared: &Arc<S>,
        handle: fn(Arc<S>, Request) -> F,
    ) -> io::Result<Self>
    where
        S: Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let shared = shared.clone();
        Self::start(port, move |request| handle(shared.clone(), request)).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, handler: Handler) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, handler.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, handler: Handler) {
    // Small replies would otherwise wait for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, handler.clone()));
    // An error here means that the client or a fault broke the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    handler: Handler,
) -> io::Result<Response<impl Body<Data = Bytes, Error = io::Error>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        received_at: Instant::now(),
    };
    let outcome = handler(request).await;
    let reply = outcome.reply().ok_or(io::ErrorKind::ConnectionAborted)?;
    let (status, mut headers) = (reply.status, reply.headers.clone());
    headers.insert(CONTENT_LENGTH, reply.body.len().into());
    let mut response = Response::new(body_of(outcome));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn body_of(outcome: Outcome) -> impl Body<Data = Bytes, Error = io::Error> {
    StreamBody::new(try_stream! {
        match outcome {
            Outcome::Reply(reply) => yield Frame::data(reply.body),
            Outcome::Truncated(reply) => {
                yield Frame::data(reply.body.slice(..reply.body.len() / 2));
                // hyper sends what it has buffered only when the body makes it wait.
                yield_now().await;
                Err(io::Error::from(io::ErrorKind::ConnectionAborted))?;
            }
            Outcome::Drop => {}
        }
    })
}

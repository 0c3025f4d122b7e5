//! A server on the loopback interface that stops when it is dropped.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::message::{Reply, Request};

/// What a handler does with the connection.
pub enum Outcome {
    Reply(Reply),
    /// Send the head and half of the body, then break the connection.
    Truncated(Reply),
    /// Answer with blanks after the body, so many bytes in all, without announcing how many.
    Padded(Reply, usize),
    /// Break the connection without an answer.
    Drop,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Handler = Arc<dyn Fn(Request) -> Handling + Send + Sync>;

/// A running server. Dropping it breaks its connections and frees its port.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
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
        let task = tokio::spawn(accept(listener, handler));
        Ok(Self { address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
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
) -> io::Result<Response<ReplyBody>> {
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
    match handler(request).await {
        Outcome::Reply(reply) => Ok(respond(reply, Shape::Whole)),
        Outcome::Truncated(reply) => Ok(respond(reply, Shape::Truncated)),
        Outcome::Padded(reply, length) => {
            let blanks = length.saturating_sub(reply.body.len());
            Ok(respond(reply, Shape::Padded { blanks }))
        }
        Outcome::Drop => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

fn respond(reply: Reply, shape: Shape) -> Response<ReplyBody> {
    let announced = reply.body.len() as u64;
    let body = ReplyBody { left: reply.body, announced, shape, flushed: false };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// A body that announces its whole length; a truncated one then fails after half of it. A padded
/// one announces nothing, and no more than a piece of its blanks is ever held.
struct ReplyBody {
    left: Bytes,
    announced: u64,
    shape: Shape,
    flushed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    Truncated,
    Padded { blanks: usize },
}

/// The blanks of a padded body, piece by piece.
const BLANKS: &[u8] = &[b' '; 64 * 1024];

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let truncated = self.shape == Shape::Truncated;
        if self.left.is_empty() {
            if let Shape::Padded { blanks: blanks @ 1.. } = &mut self.shape {
                let piece = (*blanks).min(BLANKS.len());
                *blanks -= piece;
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLANKS[..piece])))));
            }
            if !truncated {
                return Poll::Ready(None);
            }
            if !self.flushed {
                // hyper sends what it has buffered only when the body makes it wait.
                self.flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        let mut frame = std::mem::take(&mut self.left);
        if truncated {
            frame.truncate(frame.len() / 2);
        }
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && matches!(self.shape, Shape::Whole | Shape::Padded { blanks: 0 })
    }

    fn size_hint(&self) -> SizeHint {
        match self.shape {
            Shape::Whole | Shape::Truncated => SizeHint::with_exact(self.announced),
            Shape::Padded { .. } => SizeHint::default(),
        }
    }
}

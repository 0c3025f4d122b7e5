//! What a function prints, line by line.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::sync::Kept;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub stream: Stream,
    /// The line, without its end.
    pub text: String,
}

/// All lines of all processes of one function.
pub(super) type Logs = Arc<Kept<LogLine>>;

/// Reads one pipe of a process. It is asked for a sign that the pipe is empty.
pub(super) struct Reader(mpsc::Sender<oneshot::Sender<()>>);

impl Reader {
    pub fn start(
        pipe: impl AsyncRead + Send + Unpin + 'static,
        stream: Stream,
        logs: Logs,
    ) -> Self {
        let (asks, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            loop {
                tokio::select! {
                    // Lines first, so that a sign means an empty pipe.
                    biased;
                    read = pipe.read_until(b'\n', &mut line) => {
                        if !line.is_empty() {
                            let text = String::from_utf8_lossy(&line);
                            let text = text.trim_end_matches(['\r', '\n']).to_owned();
                            logs.push(LogLine { stream, text });
                            line.clear();
                        }
                        if !matches!(read, Ok(1..)) {
                            return;
                        }
                    }
                    Some(done) = asked.recv() => {
                        let _ = done.send(());
                    }
                }
            }
        });
        Self(asks)
    }

    /// Returns once everything that is in the pipe now is in the log.
    pub async fn caught_up(&self) {
        let (done, caught_up) = oneshot::channel();
        // Once the pipe is closed, it has been read to its end, and nobody answers.
        if self.0.send(done).await.is_ok() {
            tokio::select! {
                _ = caught_up => {}
                () = self.0.closed() => {}
            }
        }
    }
}

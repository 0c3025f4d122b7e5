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

/// Reads one pipe of a process.
pub(super) struct Reader(mpsc::Sender<oneshot::Sender<()>>);

impl Reader {
    pub fn start(
        pipe: impl AsyncRead + Send + Unpin + 'static,
        stream: Stream,
        logs: Logs,
    ) -> Self {
        let (asks, asked) = mpsc::channel(1);
        tokio::spawn(read(BufReader::new(pipe), stream, logs, asked));
        Self(asks)
    }

    /// Returns once everything that is in the pipe now is in the log.
    pub async fn caught_up(&self) {
        let (done, caught_up) = oneshot::channel();
        // Once the pipe is closed, it has been read to its end. The question then fails, or stays
        // unread in the channel.
        if self.0.send(done).await.is_ok() {
            tokio::select! {
                _ = caught_up => {}
                () = self.0.closed() => {}
            }
        }
    }
}

async fn read(
    mut pipe: BufReader<impl AsyncRead + Unpin>,
    stream: Stream,
    logs: Logs,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut line = Vec::new();
    loop {
        tokio::select! {
            // Lines first, so that an answered question means an empty pipe.
            biased;
            read = pipe.read_until(b'\n', &mut line) => {
                if !line.is_empty() {
                    let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).into();
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
}

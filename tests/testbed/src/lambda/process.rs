//! The function's process, and what it costs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::logs::{Logs, Reader, Stream};

/// Clock ticks in a second, the unit of `/proc/{pid}/stat`: 100 on every Linux that Rust targets.
const TICKS: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The most memory it ever held, in bytes.
    pub peak_memory: u64,
    /// Its time on the processor, user and system, to a hundredth of a second.
    pub cpu: Duration,
}

/// A running process. Killed when dropped.
pub(super) struct Process {
    child: Child,
    readers: Vec<Reader>,
    /// When it was started.
    pub spawned: Instant,
}

impl Process {
    /// Starts the binary with this environment and none of this program's.
    pub fn spawn(binary: &Path, env: &BTreeMap<String, String>, logs: &Logs) -> io::Result<Self> {
        let spawned = Instant::now();
        let mut child = Command::new(binary)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = child.stdout.take().map(|pipe| Reader::start(pipe, Stream::Stdout, logs.clone()));
        let err = child.stderr.take().map(|pipe| Reader::start(pipe, Stream::Stderr, logs.clone()));
        Ok(Self { child, readers: out.into_iter().chain(err).collect(), spawned })
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it, and returns once everything that it printed is in the log.
    pub async fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill().await;
        self.printed().await;
    }

    /// Returns once everything that it has printed is in the log.
    pub async fn printed(&self) {
        for reader in &self.readers {
            reader.caught_up().await;
        }
    }

    pub fn usage(&self) -> io::Result<Usage> {
        let pid = self.child.id().ok_or(io::ErrorKind::NotFound)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (peak_memory, cpu) = peak(&status)
            .zip(ticks(&stat))
            .ok_or_else(|| io::Error::other("/proc has another format than expected"))?;
        Ok(Usage { peak_memory, cpu: Duration::from_secs_f64(cpu as f64 / TICKS) })
    }
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

fn ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may contain blanks. User and system time are the 12th and 13th field
    // after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

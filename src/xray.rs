//! X-Ray: a subsegment for each call to a service, sent to the daemon that Lambda runs.
//!
//! UDP and fire-and-forget: a trace that is lost must not cost an invocation anything. Nothing but
//! the service's name, the times and whether the call answered is sent.
//!
//! The token may have been read before the invocation began, as the process started. A subsegment
//! may have any times, but a trace reaches from its earliest to its latest: with provisioned
//! concurrency, or a sandbox that was started ahead, the reading would stretch it by hours. So one
//! that had ended by then is no subsegment, and of one that was under way only the rest is: what
//! the invocation may have waited for. Both are in the metrics and in the invocation's log line.

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use ecom_settings_exporter::tally::CallSpan;

const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// The way to the daemon.
pub struct XRay(Option<UdpSocket>);

impl XRay {
    /// Connects to the daemon at `address`, where there is one.
    pub fn connect(address: Option<&str>) -> Self {
        let connect = |address: &str| {
            let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.connect(address).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        Self(address.and_then(connect))
    }

    /// Sends the calls of an invocation, if its trace is sampled.
    pub fn send(&self, trace_header: Option<&str>, spans: &[CallSpan]) {
        let Some(socket) = &self.0 else { return };
        let Some(trace) = trace_header.and_then(Trace::parse) else { return };
        for span in spans {
            let document = trace.subsegment(span, fastrand::u64(..));
            let _ = socket.send(format!("{HEADER}{document}").as_bytes());
        }
    }
}

/// A sampled trace, as in `Root=1-…;Parent=…;Sampled=1`.
struct Trace<'a> {
    root: &'a str,
    parent: &'a str,
}

impl<'a> Trace<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let field = |name: &str| {
            header
                .split(';')
                .filter_map(|field| field.split_once('='))
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value)
        };
        let sampled = field("Sampled") == Some("1");
        sampled.then_some(Self { root: field("Root")?, parent: field("Parent")? })
    }

    fn subsegment(&self, span: &CallSpan, id: u64) -> String {
        let epoch =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        serde_json::json!({
            "trace_id": self.root,
            "parent_id": self.parent,
            "id": format!("{id:016x}"),
            "name": span.service,
            "type": "subsegment",
            "namespace": "remote",
            "start_time": epoch(span.started),
            "end_time": epoch(span.started + span.duration),
            "fault": !span.answered,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SAMPLED: &str =
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0";

    #[test]
    fn a_sampled_call_reaches_the_daemon_as_a_subsegment() {
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = daemon.local_addr().unwrap().to_string();
        let span = CallSpan {
            service: "Cloudflare KV",
            started: UNIX_EPOCH + Duration::from_secs(100),
            duration: Duration::from_millis(500),
            answered: true,
        };
        XRay::connect(Some(&address)).send(Some(SAMPLED), &[span]);
        let mut datagram = [0; 2048];
        let length = daemon.recv(&mut datagram).unwrap();
        let text = std::str::from_utf8(&datagram[..length]).unwrap();
        let document: serde_json::Value =
            serde_json::from_str(text.strip_prefix(HEADER).unwrap()).unwrap();
        assert_eq!(document["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(document["parent_id"], "53995c3f42cd8ad8");
        assert_eq!(document["name"], "Cloudflare KV");
        assert_eq!(
            (document["start_time"].as_f64(), document["end_time"].as_f64()),
            (Some(100.0), Some(100.5))
        );
    }

    #[test]
    fn what_is_not_sampled_is_not_sent() {
        assert!(Trace::parse(SAMPLED).is_some());
        assert!(Trace::parse(&SAMPLED.replace("Sampled=1", "Sampled=0")).is_none());
        assert!(Trace::parse("").is_none());
    }
}

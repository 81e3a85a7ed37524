//! What the running agent writes for `ringfence-agent status`, and the words that it is shown with.

use std::fmt::Write as _;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The file in the state directory.
pub const FILE: &str = "status.json";
/// Older than this, the agent isn't running.
pub const STALE_SECONDS: i64 = 10;

/// The agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this was written.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Version of the agent.
    pub version: String,
    /// The PBX's name in the portal.
    pub pbx_name: String,
    /// `host:port`.
    pub server: String,
    /// Whether the server is connected.
    pub online: bool,
    /// Why it isn't.
    pub offline_because: String,
    /// `nftables` or `memory`.
    pub firewall: String,
    /// Whether the kernel has everything that it should have.
    pub enforced: bool,
    /// `asterisk` or `simulated`.
    pub pbx_kind: String,
    /// Its version; empty while it isn't reached.
    pub pbx_version: String,
    /// Why the PBX isn't reached; empty when it is.
    pub pbx_down_because: String,
    /// Phones registered.
    pub registered: u32,
    /// Revision of the policy in force.
    pub policy_revision: i64,
    /// Ranges that are never blocked.
    pub allowed: usize,
    /// Number of the last change of bans in force.
    pub ban_seq: Option<i64>,
    /// Bans in force.
    pub bans: usize,
    /// Bans that the server hasn't taken over yet.
    pub bans_unreported: usize,
    /// Reports that wait for the server.
    pub spooled: usize,
    /// Reported events dropped since start.
    pub dropped: u64,
    /// How far the server's clock is ahead of this machine's, in seconds.
    pub clock_apart_seconds: i64,
    /// The last ban that this agent made.
    pub last_ban: Option<LastBan>,
    /// When all that is never to be blocked was last found in the kernel.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub proven_at: Option<OffsetDateTime>,
}

/// A ban that this agent made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBan {
    /// What is blocked.
    pub net: IpNet,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Why.
    pub reason: String,
    /// From the last event to the kernel's answer, in microseconds.
    pub took_us: u64,
}

impl Status {
    /// Whether the agent that wrote this is running; `now` is by this machine's clock, as everything else here is by the server's.
    pub fn is_fresh(&self, now: OffsetDateTime) -> bool {
        (now + time::Duration::seconds(self.clock_apart_seconds) - self.at).whole_seconds().abs() <= STALE_SECONDS
    }

    /// For people.
    pub fn text(&self, now: OffsetDateTime) -> String {
        let mut text = String::new();
        let mut line =
            |name: &str, value: String| writeln!(text, "{name:<12}{value}").expect("writing to a String can't fail");
        let or = |good: bool, yes: String, no: String| if good { yes } else { no };
        line(
            "Agent",
            or(
                self.is_fresh(now),
                format!("running, version {}", self.version),
                format!("NOT RUNNING since {}", short(self.at)),
            ),
        );
        line("PBX", format!("{} ({})", self.pbx_name, self.pbx_kind));
        line(
            "Server",
            or(
                self.online,
                format!("connected to {}", self.server),
                format!("NOT CONNECTED to {}: {}", self.server, self.offline_because),
            ),
        );
        let real = self.firewall == "nftables";
        line(
            "Firewall",
            match (real, self.enforced) {
                (true, true) => "nftables, complete".to_owned(),
                (true, false) => "nftables, NOT COMPLETE; see the log".to_owned(),
                (false, _) => "memory: NOTHING IS BLOCKED on this machine".to_owned(),
            },
        );
        let reached = self.pbx_down_because.is_empty();
        line(
            "Phones",
            or(
                reached,
                format!("{} registered, version {}", self.registered, self.pbx_version),
                format!("PBX NOT REACHED: {}", self.pbx_down_because),
            ),
        );
        line("Policy", format!("revision {}, {} ranges never blocked", self.policy_revision, self.allowed));
        line("Bans", format!("{} in force, {} of them not yet known to the server", self.bans, self.bans_unreported));
        line("Reports", format!("{} waiting, {} dropped", self.spooled, self.dropped));
        if let Some(LastBan { net, at, reason, took_us }) = &self.last_ban {
            line(
                "Last ban",
                format!(
                    "{}, {reason}, {}, in the kernel after {:.1} ms",
                    policy::net::display(net),
                    short(*at),
                    f64::from(u32::try_from(*took_us).unwrap_or(u32::MAX)) / 1000.0
                ),
            );
        }
        text
    }
}

/// To the second, for people.
fn short(at: OffsetDateTime) -> String {
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| at.to_string())
}

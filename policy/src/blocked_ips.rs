//! Blocked IPs: bans from detection and by hand, with what is known about why.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::fields::{FieldError, plain_text};
use crate::ids::{BanId, PbxId};
use crate::net;

/// Longest reason of a ban, in characters.
pub const REASON_MAX_CHARS: usize = 200;
/// Longest ban that isn't permanent: one year.
pub const MAX_BAN_SECONDS: i64 = 366 * 86_400;

/// Where a ban comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BanSource {
    /// An agent detected an attack.
    Detection,
    /// An administrator.
    Manual,
    /// Somebody attacked the portal's own login.
    Portal,
}

impl BanSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Detection, Self::Manual, Self::Portal];

    /// The stable name used in the database and in CSV.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Manual => "manual",
            Self::Portal => "portal",
        }
    }

    /// The source of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }
}

/// One event that led to a ban, as the PBX reported it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EvidenceEvent {
    /// When the PBX saw it.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The event as the PBX names it, such as `ChallengeResponseFailed`.
    pub kind: String,
    /// Transport, such as `UDP`.
    pub transport: String,
    /// The account that was tried, such as `1007`.
    pub account: String,
    /// Service, such as `PJSIP` or `AMI`.
    pub service: String,
}

/// A checked wish to block something by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedIpDraft {
    /// What to block, canonical.
    pub net: IpNet,
    /// For how long, in seconds; `None` is until someone unblocks it.
    pub ban_seconds: Option<i64>,
    /// Why.
    pub reason: String,
}

/// A ban as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedIp {
    /// Its id.
    pub id: BanId,
    /// What is blocked.
    pub net: IpNet,
    /// Where the ban comes from.
    pub source: BanSource,
    /// Why, such as "5 wrong passwords for 1007".
    pub reason: String,
    /// The account that was attacked, if one stands out.
    pub account: Option<String>,
    /// The PBX that detected it, `None` for bans by hand.
    pub pbx_id: Option<PbxId>,
    /// That PBX's name.
    pub pbx_name: Option<String>,
    /// Who blocked it by hand (e-mail address).
    pub blocked_by: Option<String>,
    /// How often this source has been banned, this time included.
    pub times_banned: i32,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Until when; `None` is until someone unblocks it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// A ban with everything known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedIpDetails {
    /// The ban.
    pub ban: BlockedIp,
    /// The events that led to it, oldest first.
    pub evidence: Vec<EvidenceEvent>,
    /// Earlier bans of the same source: since, until, why; newest first.
    pub earlier: Vec<BlockedIp>,
}

/// Parses what a form holds. `duration` is `permanent` or a number of seconds as text.
///
/// # Errors
/// One error per wrong field (`net`, `duration`, `reason`).
pub fn parse_draft(target: &str, duration: &str, reason: &str) -> Result<BlockedIpDraft, Vec<FieldError>> {
    let mut errors = Vec::new();
    let net = parse_blockable(target).map_err(|message| errors.push(FieldError::new("net", message)));
    let ban_seconds = parse_duration(duration).map_err(|message| errors.push(FieldError::new("duration", message)));
    let reason =
        plain_text(reason, REASON_MAX_CHARS).map_err(|message| errors.push(FieldError::new("reason", message)));
    match (net, ban_seconds, reason) {
        (Ok(net), Ok(ban_seconds), Ok(reason)) => Ok(BlockedIpDraft { net, ban_seconds, reason }),
        _ => Err(errors),
    }
}

fn parse_blockable(text: &str) -> Result<IpNet, String> {
    let net = net::parse_net(text)?;
    match net::unusable(&net) {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(net),
    }
}

fn parse_duration(text: &str) -> Result<Option<i64>, String> {
    let text = text.trim();
    if text == "permanent" {
        return Ok(None);
    }
    text.parse::<i64>()
        .ok()
        .filter(|seconds| (60..=MAX_BAN_SECONDS).contains(seconds))
        .map(Some)
        .ok_or_else(|| "Choose how long: from one minute to one year, or permanently.".to_owned())
}

/// When a ban that begins at `now` ends.
pub fn expiry(ban_seconds: Option<i64>, now: OffsetDateTime) -> Option<OffsetDateTime> {
    ban_seconds.map(|seconds| now + Duration::seconds(seconds))
}

/// The longest "Ends in" and "Since" texts people read at a glance: `58 min`, `3 h`, `6 d`.
pub fn short_duration(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{} s", seconds.max(0)),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Which bans a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockedIpFilter {
    /// An address or network (finds bans that contain it or that it contains), the beginning of an address, or a word
    /// of the reason or the account; empty for all.
    pub search: String,
    /// Only bans of this source.
    pub source: Option<BanSource>,
    /// Only bans that this PBX detected.
    pub pbx_id: Option<PbxId>,
}

/// How blocking by hand ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The ban.
    pub id: BanId,
    /// Whether it was there before and has been changed.
    pub replaced: bool,
}

/// A warning when a network is so wide that one block may hit phones that nobody thinks of.
pub fn too_wide(net: &IpNet) -> Option<String> {
    let (limit, wide) = match net {
        IpNet::V4(v4) => ("/16", v4.prefix_len() < 16),
        IpNet::V6(v6) => ("/32", v6.prefix_len() < 32),
    };
    wide.then(|| format!("{net} is wider than a {limit}: phones in it that aren't in Allowed IPs lose the PBX. Block it all the same?"))
}

/// What a form sends; parsed by [`parse_draft`] on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockedIpForm {
    /// Address or network.
    pub net: String,
    /// `permanent` or seconds.
    pub duration: String,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_networks_are_asked_about() {
        for (net, wide) in
            [("10.0.0.0/8", true), ("10.0.0.0/15", true), ("10.1.0.0/16", false), ("2001:db8::/32", false)]
        {
            assert_eq!(too_wide(&net.parse().unwrap()).is_some(), wide, "{net}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration(" permanent "), Ok(None));
        assert_eq!(parse_duration("60"), Ok(Some(60)));
        assert_eq!(parse_duration(&MAX_BAN_SECONDS.to_string()), Ok(Some(MAX_BAN_SECONDS)));
        let too_long = (MAX_BAN_SECONDS + 1).to_string();
        for bad in ["", "59", "0", "-60", "1e3", "60.5", "Permanent!", "9223372036854775808", "١٢٣", &too_long] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let now = time::macros::datetime!(2030-01-01 0:00 UTC);
        assert_eq!(expiry(Some(60), now), Some(now + Duration::MINUTE));
        assert_eq!(expiry(None, now), None);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = parse_draft("0.0.0.0/0", "5", &"x".repeat(201)).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["net", "duration", "reason"]);
        for unblockable in
            ["127.0.0.1", "::1", "::/0", "224.0.0.5", "0.0.0.0", "office.example.com", "203.0.113.9' OR 1=1"]
        {
            assert_eq!(parse_draft(unblockable, "60", "").unwrap_err()[0].field, "net", "{unblockable}");
        }
        let draft = parse_draft("203.0.113.77/24", "permanent", " scans ").unwrap();
        assert_eq!(
            (draft.net.to_string().as_str(), draft.ban_seconds, draft.reason.as_str()),
            ("203.0.113.0/24", None, "scans")
        );
    }

    #[test]
    fn durations_at_a_glance() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (604_800, "7 d"),
        ] {
            assert_eq!(short_duration(seconds), text);
        }
    }

    #[test]
    fn sources_lead_back() {
        for source in BanSource::ALL {
            assert_eq!(BanSource::from_name(source.as_str()), Some(source));
        }
        assert_eq!(BanSource::from_name("Manual"), None);
    }
}

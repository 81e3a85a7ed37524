//! The policy of a tenant as its PBXes get it: always the whole of it, under a revision and a digest.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::allowed_ips::AllowedTarget;
use crate::detection::DetectionRule;
use crate::safety::PhoneLossLimit;
use crate::trace_parent::TraceParent;

/// One allowed target and when it ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllowedEntry {
    /// What is allowed.
    pub target: AllowedTarget,
    /// Until when; `None` for ever.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// Everything that a PBX enforces but its bans.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicySnapshot {
    /// Rises by one with every change of the tenant's policy.
    pub revision: i64,
    /// What is never blocked.
    pub allowed: Vec<AllowedEntry>,
    /// When a source is banned.
    pub detection: DetectionRule,
    /// How many phones a change may cost before it is taken back.
    #[serde(default)]
    pub phone_loss_limit: PhoneLossLimit,
    /// The trace that this revision belongs to, while traces are on. No part of the content: neither in the digest nor on disk.
    #[serde(skip)]
    pub trace_parent: Option<TraceParent>,
}

impl PolicySnapshot {
    /// SHA-256 over the content, whatever the order of the entries; whole seconds. Agents of the first version compute it, too, and
    /// refuse what it doesn't fit: what came later than they (the limit for phones) isn't in it, but each change has its revision.
    pub fn digest(&self) -> [u8; 32] {
        let mut lines: Vec<String> = self
            .allowed
            .iter()
            .map(|entry| {
                format!("allow {} {}", entry.target, entry.expires_at.map_or(0, OffsetDateTime::unix_timestamp))
            })
            .collect();
        lines.sort_unstable();
        let DetectionRule { failures, window_seconds, ban_seconds, max_ban_seconds } = self.detection;
        let mut hash = Sha256::new();
        hash.update(format!("revision {}\n", self.revision));
        hash.update(format!("detection {failures} {window_seconds} {ban_seconds} {max_ban_seconds}\n"));
        for line in lines {
            hash.update(line);
            hash.update("\n");
        }
        hash.finalize().into()
    }
}

/// The short form of a digest that people compare: the first 8 hexadecimal digits.
pub fn short_digest(digest: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest.get(..4).unwrap_or(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> PolicySnapshot {
        let entry = |target: &str, until: Option<i64>| AllowedEntry {
            target: crate::allowed_ips::parse_target(target).unwrap(),
            expires_at: until.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
        };
        PolicySnapshot {
            revision: 7,
            allowed: vec![
                entry("203.0.113.0/24", None),
                entry("sip.example.com", Some(1_893_456_000)),
                entry("2001:db8::1", None),
            ],
            detection: DetectionRule { failures: 5, window_seconds: 60, ban_seconds: 3600, max_ban_seconds: 604_800 },
            phone_loss_limit: PhoneLossLimit::default(),
            trace_parent: None,
        }
    }

    #[test]
    fn order_and_fractions_of_a_second_do_not_count() {
        let mut other = snapshot();
        other.allowed.reverse();
        other.allowed[1].expires_at = other.allowed[1].expires_at.map(|at| at + time::Duration::milliseconds(900));
        assert_eq!(other.digest(), snapshot().digest());
    }

    #[test]
    fn every_part_counts() {
        let changes: [fn(&mut PolicySnapshot); 9] = [
            |s| s.revision += 1,
            |s| s.detection.failures += 1,
            |s| s.detection.window_seconds += 1,
            |s| s.detection.ban_seconds += 1,
            |s| s.detection.max_ban_seconds += 1,
            |s| drop(s.allowed.pop()),
            |s| s.allowed.push(s.allowed[0].clone()),
            |s| s.allowed[0].expires_at = OffsetDateTime::from_unix_timestamp(1).ok(),
            |s| s.allowed[2].target = AllowedTarget::Domain("2001.example".to_owned()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut other = snapshot();
            change(&mut other);
            assert_ne!(other.digest(), snapshot().digest(), "change {index}");
        }
    }

    /// Agents of other versions compute it, too: it may never change.
    #[test]
    fn the_digest_is_part_of_the_wire() {
        assert_eq!(
            data_encoding::HEXLOWER.encode(&snapshot().digest()),
            "ade7ed0adea7d72c0e6c7a8fd25b41df2b7f985249283df136d9e9743b57e396"
        );
        assert_eq!(short_digest(&[0xab, 0xcd, 0xef, 0x01, 0x23]), "abcdef01");
        assert_eq!(short_digest(&[0xab]), "ab");
    }
}

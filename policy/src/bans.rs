//! The set of bans that a tenant's PBXes hold, and the digest by which both sides know that they hold the same.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// One element of the set: a network and when it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BanEntry {
    /// What is blocked.
    pub net: IpNet,
    /// Until when; `None` is until it is lifted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

impl BanEntry {
    /// Whether it still counts at `now`.
    pub fn holds(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

/// One numbered change of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BanChange {
    /// Block, or change until when.
    Add(BanEntry),
    /// Lift.
    Remove(IpNet),
}

/// A digest of a set of bans that is updated in constant time per change: the sum modulo 2^128 of the first 16 bytes of
/// the SHA-256 of each element. It proves that two honest parties hold the same set; it is no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct BanDigest(u128);

impl BanDigest {
    /// The digest of a set.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a BanEntry>) -> Self {
        let mut digest = Self::default();
        for entry in entries {
            digest.add(entry);
        }
        digest
    }

    /// The set gained `entry`.
    pub fn add(&mut self, entry: &BanEntry) {
        self.0 = self.0.wrapping_add(element(entry));
    }

    /// The set lost `entry`.
    pub fn remove(&mut self, entry: &BanEntry) {
        self.0 = self.0.wrapping_sub(element(entry));
    }

    /// 16 bytes, big endian.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes, big endian.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl std::fmt::Display for BanDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Both sides keep whole seconds: PostgreSQL, the wire and the kernel round differently below.
fn element(entry: &BanEntry) -> u128 {
    let mut hash = Sha256::new();
    hash.update(entry.net.to_string().as_bytes());
    hash.update(entry.expires_at.map_or(0, OffsetDateTime::unix_timestamp).to_be_bytes());
    let bytes = hash.finalize();
    bytes.iter().take(16).fold(0u128, |sum, byte| (sum << 8) | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = BanEntry> {
        (any::<std::net::IpAddr>(), any::<u8>(), prop::option::of(1i64..4_102_444_800)).prop_map(
            |(addr, length, until)| {
                let most = if addr.is_ipv4() { 32 } else { 128 };
                BanEntry {
                    net: IpNet::new_assert(addr, length % (most + 1)).trunc(),
                    expires_at: until.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn adding_and_removing_is_the_digest_of_what_stays(stay in prop::collection::vec(any_entry(), 0..20), go in prop::collection::vec(any_entry(), 0..20)) {
            let mut digest = BanDigest::of(stay.iter().chain(&go));
            for entry in &go {
                digest.remove(entry);
            }
            prop_assert_eq!(digest, BanDigest::of(stay.iter().rev()));
            prop_assert_eq!(BanDigest::from_bytes(digest.to_bytes()), digest);
        }

        #[test]
        fn another_element_is_another_digest(a in any_entry(), b in any_entry()) {
            prop_assert_eq!(BanDigest::of([&a]) == BanDigest::of([&b]), a == b);
        }

        #[test]
        fn fractions_of_a_second_do_not_count(entry in any_entry(), nanosecond in 0u32..1_000_000_000) {
            let rounded = BanEntry { expires_at: entry.expires_at.map(|at| at.replace_nanosecond(nanosecond).unwrap()), ..entry };
            prop_assert_eq!(BanDigest::of([&rounded]), BanDigest::of([&entry]));
        }
    }

    /// Agents of other versions compute it, too: it may never change.
    #[test]
    fn the_digest_is_part_of_the_wire() {
        assert_eq!(BanDigest::of([]).to_string(), "0".repeat(32));
        let entries = [
            BanEntry {
                net: "203.0.113.9/32".parse().unwrap(),
                expires_at: OffsetDateTime::from_unix_timestamp(1_893_456_000).ok(),
            },
            BanEntry { net: "2001:db8::/64".parse().unwrap(), expires_at: None },
        ];
        assert_eq!(BanDigest::of(&entries).to_string(), "785480c89861cd72e2c349fd907928bd");
    }
}

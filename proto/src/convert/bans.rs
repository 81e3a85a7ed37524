//! The set of bans: whole in parts, or as numbered changes.

use policy::bans::{BanChange, BanDigest, BanEntry};

use super::{WireError, fields};
use crate::pb;

/// Most bans in one part of a snapshot.
pub const BAN_PART_MAX: usize = 5_000;
/// Most changes in one delta.
pub const BAN_CHANGES_MAX: usize = 5_000;
/// Most parts of a snapshot: ten million bans.
const PARTS_MAX: u32 = 2_000;

/// One part of the whole set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BanSnapshotPart {
    /// The number of the last change that the set holds.
    pub seq: i64,
    /// Digest of the whole set.
    pub digest: BanDigest,
    /// From 0.
    pub part: u32,
    /// How many parts there are, at least one.
    pub parts: u32,
    /// The bans of this part.
    pub bans: Vec<BanEntry>,
}

/// Numbered changes of the set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BanDelta {
    /// Number of the first change.
    pub from_seq: i64,
    /// Number of the last change.
    pub to_seq: i64,
    /// Digest of the set after the last change.
    pub digest: BanDigest,
    /// In order.
    pub changes: Vec<BanChange>,
}

/// A whole set in parts of [`BAN_PART_MAX`]; an empty set is one empty part.
pub fn snapshot_parts(seq: i64, bans: &[BanEntry]) -> Vec<BanSnapshotPart> {
    let digest = BanDigest::of(bans);
    let parts = u32::try_from(bans.len().div_ceil(BAN_PART_MAX).max(1)).unwrap_or(u32::MAX);
    (0..parts)
        .zip(bans.chunks(BAN_PART_MAX).chain(bans.is_empty().then_some(bans)))
        .map(|(part, bans)| BanSnapshotPart { seq, digest, part, parts, bans: bans.to_vec() })
        .collect()
}

impl From<&BanEntry> for pb::Ban {
    fn from(entry: &BanEntry) -> Self {
        Self { net: entry.net.to_string(), expires_at: fields::to_seconds(entry.expires_at) }
    }
}

impl TryFrom<pb::Ban> for BanEntry {
    type Error = WireError;

    fn try_from(wire: pb::Ban) -> Result<Self, WireError> {
        Ok(Self {
            net: fields::net("ban.net", &wire.net)?,
            expires_at: fields::expiry("ban.expires_at", wire.expires_at)?,
        })
    }
}

impl From<&BanChange> for pb::BanChange {
    fn from(change: &BanChange) -> Self {
        let change = match change {
            BanChange::Add(entry) => pb::ban_change::Change::Add(entry.into()),
            BanChange::Remove(net) => pb::ban_change::Change::Remove(net.to_string()),
        };
        Self { change: Some(change) }
    }
}

impl TryFrom<pb::BanChange> for BanChange {
    type Error = WireError;

    fn try_from(wire: pb::BanChange) -> Result<Self, WireError> {
        match wire.change.ok_or_else(|| WireError::new("ban_change.change", "missing"))? {
            pb::ban_change::Change::Add(ban) => ban.try_into().map(Self::Add),
            pb::ban_change::Change::Remove(net) => fields::net("ban_change.remove", &net).map(Self::Remove),
        }
    }
}

impl From<&BanSnapshotPart> for pb::BanSnapshot {
    fn from(part: &BanSnapshotPart) -> Self {
        Self {
            seq: part.seq,
            digest: part.digest.to_bytes().to_vec(),
            part: part.part,
            parts: part.parts,
            bans: part.bans.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::BanSnapshot> for BanSnapshotPart {
    type Error = WireError;

    fn try_from(wire: pb::BanSnapshot) -> Result<Self, WireError> {
        fields::at_most("ban_snapshot.bans", wire.bans.len(), BAN_PART_MAX)?;
        let parts = fields::within("ban_snapshot.parts", wire.parts, 1..=PARTS_MAX)?;
        Ok(Self {
            seq: fields::number("ban_snapshot.seq", wire.seq)?,
            digest: digest("ban_snapshot.digest", &wire.digest)?,
            part: fields::within("ban_snapshot.part", wire.part, 0..=parts - 1)?,
            parts,
            bans: wire.bans.into_iter().map(BanEntry::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&BanDelta> for pb::BanDelta {
    fn from(delta: &BanDelta) -> Self {
        Self {
            from_seq: delta.from_seq,
            to_seq: delta.to_seq,
            digest: delta.digest.to_bytes().to_vec(),
            changes: delta.changes.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::BanDelta> for BanDelta {
    type Error = WireError;

    fn try_from(wire: pb::BanDelta) -> Result<Self, WireError> {
        fields::at_most("ban_delta.changes", wire.changes.len(), BAN_CHANGES_MAX)?;
        let from_seq = fields::number("ban_delta.from_seq", wire.from_seq)?;
        if wire.to_seq < from_seq {
            return Err(WireError::new("ban_delta.to_seq", "before from_seq"));
        }
        Ok(Self {
            from_seq,
            to_seq: wire.to_seq,
            digest: digest("ban_delta.digest", &wire.digest)?,
            changes: wire.changes.into_iter().map(BanChange::try_from).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) fn digest(field: &'static str, bytes: &[u8]) -> Result<BanDigest, WireError> {
    fields::bytes(field, bytes).map(BanDigest::from_bytes)
}

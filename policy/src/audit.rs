//! The audit log's hash chain: each row's hash covers its content and the hash of the row before, per tenant.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::ids::AuditId;

/// How an attempt to do something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused and changed nothing.
    Refused,
}

impl Outcome {
    /// The stable name used in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// The outcome of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "done" => Some(Self::Done),
            "refused" => Some(Self::Refused),
            _ => None,
        }
    }
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its id.
    pub id: AuditId,
    /// Its place in the tenant's chain, from 1, without holes.
    pub seq: i64,
    /// When; whole microseconds.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who: an e-mail address, `pbx NAME`, or `system`.
    pub actor: String,
    /// What, such as `blocked_ips/block`.
    pub action: String,
    /// Whether it was done.
    pub outcome: Outcome,
    /// To what, such as an address or a PBX's name.
    pub subject: String,
    /// More, as JSON text.
    pub details: String,
    /// From which address; empty where there is none.
    pub source: String,
    /// The hash of the row before; 32 zero bytes for the first.
    pub previous_hash: Vec<u8>,
    /// SHA-256 over all of the above.
    pub hash: Vec<u8>,
}

impl AuditRow {
    /// What `hash` must be. Every field goes in with its length, so that no two different rows read alike.
    pub fn expected_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(&self.previous_hash);
        field(self.id.0.as_bytes());
        field(&self.seq.to_be_bytes());
        field(&(self.at.unix_timestamp_nanos() / 1000).to_be_bytes());
        field(self.actor.as_bytes());
        field(self.action.as_bytes());
        field(self.outcome.as_str().as_bytes());
        field(self.subject.as_bytes());
        field(self.details.as_bytes());
        field(self.source.as_bytes());
        hash.finalize().into()
    }
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainBreak {
    /// The row at which it shows.
    pub seq: i64,
    /// What is wrong there.
    pub problem: String,
}

/// Checks a chain row by row, oldest first.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    next_seq: i64,
    previous_hash: Vec<u8>,
}

impl Default for ChainCheck {
    fn default() -> Self {
        Self { next_seq: 1, previous_hash: vec![0; 32] }
    }
}

impl ChainCheck {
    /// Checks the next row.
    ///
    /// # Errors
    /// Where the chain breaks.
    pub fn check(&mut self, row: &AuditRow) -> Result<(), ChainBreak> {
        let broken = |problem: &str| Err(ChainBreak { seq: row.seq, problem: problem.to_owned() });
        if row.seq != self.next_seq {
            return broken(&format!("row {} is missing", self.next_seq));
        }
        if row.previous_hash != self.previous_hash {
            return broken("it does not continue the row before");
        }
        if row.hash != row.expected_hash() {
            return broken("its content was changed");
        }
        self.next_seq += 1;
        self.previous_hash.clone_from(&row.hash);
        Ok(())
    }

    /// How many rows were checked, and the last one's hash.
    pub fn finish(self) -> (i64, Vec<u8>) {
        (self.next_seq - 1, self.previous_hash)
    }
}

/// Which rows a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditFilter {
    /// A word of the actor, the subject or the action; empty for all.
    pub search: String,
    /// Only rows whose action begins with this, such as `blocked_ips/`; empty for all.
    pub action: String,
    /// Only done or only refused.
    pub outcome: Option<Outcome>,
}

/// What verifying a chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainVerdict {
    /// Rows checked.
    pub rows: i64,
    /// The last row's hash, hexadecimal; note it elsewhere to prove later that nothing before it changed.
    pub last_hash: String,
    /// Where the chain breaks, if it does.
    pub broken: Option<ChainBreak>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn sealed(mut row: AuditRow, previous_hash: Vec<u8>) -> AuditRow {
        row.previous_hash = previous_hash;
        row.hash = row.expected_hash().to_vec();
        row
    }

    fn row(seq: i64) -> AuditRow {
        AuditRow {
            id: uuid::Uuid::from_u128(seq.unsigned_abs().into()).into(),
            seq,
            at: OffsetDateTime::from_unix_timestamp(1_893_456_000 + seq).unwrap(),
            actor: "ann@example.com".to_owned(),
            action: "blocked_ips/block".to_owned(),
            outcome: Outcome::Done,
            subject: format!("203.0.113.{seq}"),
            details: "{}".to_owned(),
            source: "198.51.100.7".to_owned(),
            previous_hash: Vec::new(),
            hash: Vec::new(),
        }
    }

    fn chain(length: i64) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        for seq in 1..=length {
            let previous = rows.last().map_or_else(|| vec![0; 32], |row| row.hash.clone());
            rows.push(sealed(row(seq), previous));
        }
        rows
    }

    /// What verifying does: each row, then the end against the head that is kept apart.
    fn holds(rows: &[AuditRow], head: &(i64, Vec<u8>)) -> bool {
        let mut check = ChainCheck::default();
        rows.iter().all(|row| check.check(row).is_ok()) && check.finish() == *head
    }

    fn head(rows: &[AuditRow]) -> (i64, Vec<u8>) {
        rows.last().map_or((0, vec![0; 32]), |row| (row.seq, row.hash.clone()))
    }

    const CHANGES: [fn(&mut AuditRow); 11] = [
        |row| row.id = uuid::Uuid::from_u128(999).into(),
        |row| row.seq += 1,
        |row| row.at += time::Duration::MICROSECOND,
        |row| row.actor.push('x'),
        |row| row.action.push('x'),
        |row| row.outcome = Outcome::Refused,
        |row| row.subject.push('x'),
        |row| row.details.push(' '),
        |row| row.source.clear(),
        |row| row.previous_hash = vec![1; 32],
        |row| row.hash[0] ^= 1,
    ];

    #[test]
    fn a_chain_that_nobody_touched_holds() {
        for length in 0..5 {
            let rows = chain(length);
            assert!(holds(&rows, &head(&rows)));
        }
    }

    #[test]
    fn a_character_moved_between_fields_shows() {
        let mut moved = row(1);
        let last = moved.actor.pop().unwrap();
        moved.action.insert(0, last);
        assert_ne!(moved.expected_hash(), row(1).expected_hash());
    }

    #[test]
    fn the_break_is_named() {
        let mut rows = chain(3);
        rows[1].subject = "198.51.100.1".to_owned();
        let mut check = ChainCheck::default();
        check.check(&rows[0]).unwrap();
        let broken = check.check(&rows[1]).unwrap_err();
        assert_eq!((broken.seq, broken.problem.as_str()), (2, "its content was changed"));
        assert_eq!(check.check(&rows[2]).unwrap_err().problem, "row 2 is missing");
    }

    proptest! {
        #[test]
        fn any_change_is_found(length in 1i64..12, at in any::<Index>(), change in 0..CHANGES.len(), resealed in any::<bool>()) {
            let mut rows = chain(length);
            let head = head(&rows);
            let index = at.index(rows.len());
            CHANGES[change](&mut rows[index]);
            // A forger who knows how the hash is made still breaks the row after, or the head.
            if resealed && rows[index].hash != rows[index].expected_hash() {
                rows[index].hash = rows[index].expected_hash().to_vec();
            }
            let untouched = rows == chain(length);
            prop_assert_eq!(holds(&rows, &head), untouched);
        }

        #[test]
        fn deleting_inserting_and_swapping_are_found(length in 2i64..12, at in any::<Index>(), to in any::<Index>(), forge in any::<bool>()) {
            let rows = chain(length);
            let head = head(&rows);
            let (index, other) = (at.index(rows.len()), to.index(rows.len()));

            let mut deleted = rows.clone();
            deleted.remove(index);
            prop_assert!(!holds(&deleted, &head));

            let mut inserted = rows.clone();
            let copy = rows[other].clone();
            let new = if forge { sealed(AuditRow { seq: i64::try_from(index).unwrap() + 1, ..copy }, rows[index].previous_hash.clone()) } else { copy };
            inserted.insert(index, new);
            prop_assert!(!holds(&inserted, &head));

            let mut swapped = rows.clone();
            swapped.swap(index, other);
            prop_assert_eq!(holds(&swapped, &head), index == other);

            let mut appended = rows.clone();
            appended.push(sealed(row(length + 1), head.1.clone()));
            prop_assert!(!holds(&appended, &head));
        }
    }
}

//! How far the newest change is enforced: the "enforced on 2 of 2 PBXes, 38 ms" of every page.

use serde::{Deserialize, Serialize};

use crate::pbxes::{Pbx, PbxState};
use crate::safety;

/// Where the tenant's PBXes stand against what is wanted of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Enforcement {
    /// PBXes with an agent that isn't revoked.
    pub of: usize,
    /// Those that have applied the newest policy and the newest bans.
    pub enforced: usize,
    /// Those that are online.
    pub online: usize,
    /// The slowest apply of the newest change, in milliseconds.
    pub took_ms: i64,
    /// The wanted policy revision.
    pub revision: i64,
    /// The wanted number of the last change of bans.
    pub ban_seq: i64,
    /// PBXes that refused or withhold something, with their reason.
    pub refused: Vec<(String, String)>,
    /// PBXes that are behind or offline, by name.
    pub behind: Vec<String>,
    /// PBXes that enforce nothing for real (memory firewall), by name.
    pub simulated: Vec<String>,
}

/// Sums up the PBXes of a tenant.
pub fn sum_up(pbxes: &[Pbx]) -> Enforcement {
    let mut sum = Enforcement::default();
    for pbx in pbxes {
        sum.revision = sum.revision.max(pbx.wanted_revision);
        sum.ban_seq = sum.ban_seq.max(pbx.wanted_ban_seq);
        match pbx.state {
            PbxState::WaitingForAgent | PbxState::Revoked => continue,
            PbxState::Online => sum.online += 1,
            PbxState::Offline => {}
        }
        sum.of += 1;
        if pbx.firewall == "memory" {
            sum.simulated.push(pbx.name.clone());
        }
        if !pbx.last_refusal.is_empty() {
            sum.refused.push((pbx.name.clone(), pbx.last_refusal.clone()));
        } else if let Some(withheld) = pbx.withheld.first() {
            sum.refused.push((pbx.name.clone(), format!("{}. {}", safety::name(&withheld.change), withheld.reason)));
        } else if pbx.applied_revision >= pbx.wanted_revision
            && pbx.applied_ban_seq >= pbx.wanted_ban_seq
            && pbx.state == PbxState::Online
        {
            sum.enforced += 1;
            sum.took_ms = sum.took_ms.max((pbx.applied_took_us + 999) / 1000);
        } else {
            sum.behind.push(pbx.name.clone());
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pbxes::sample;

    #[test]
    fn only_who_has_applied_the_newest_enforces_it() {
        let pbxes = [
            Pbx { applied_took_us: 37_001, ..sample("hq", PbxState::Online) },
            sample("branch", PbxState::Online),
            Pbx { applied_revision: 6, ..sample("old policy", PbxState::Online) },
            Pbx { applied_ban_seq: 39, applied_took_us: 900_000, ..sample("old bans", PbxState::Online) },
            sample("away", PbxState::Offline),
            Pbx { last_refusal: "no nftables".to_owned(), ..sample("unwilling", PbxState::Online) },
            Pbx {
                withheld: vec![safety::Withheld {
                    change: safety::Change::Ban("203.0.113.0/24".parse().unwrap()),
                    at: time::OffsetDateTime::UNIX_EPOCH,
                    rolled_back: true,
                    reason: safety::phones_fell(10, 2),
                    lines: vec![],
                }],
                ..sample("careful", PbxState::Online)
            },
            Pbx { firewall: "memory".to_owned(), ..sample("demo", PbxState::Online) },
            sample("new", PbxState::WaitingForAgent),
            Pbx { last_refusal: "gone".to_owned(), ..sample("stolen", PbxState::Revoked) },
        ];
        let sum = sum_up(&pbxes);
        assert_eq!((sum.enforced, sum.of, sum.online), (3, 8, 7));
        assert_eq!((sum.revision, sum.ban_seq, sum.took_ms), (7, 40, 38));
        assert_eq!(sum.behind, ["old policy", "old bans", "away"]);
        let words = "ban of 203.0.113.0/24. Registered phones fell from 10 to 2.";
        assert_eq!(
            sum.refused,
            [("unwilling", "no nftables"), ("careful", words)].map(|(name, why)| (name.to_owned(), why.to_owned()))
        );
        assert_eq!(sum.simulated, ["demo"]);
    }

    #[test]
    fn without_pbxes_nothing_is_enforced_anywhere() {
        assert_eq!(sum_up(&[]), Enforcement::default());
    }
}

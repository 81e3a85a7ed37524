//! The overview page: is it under control, what needs someone, what happened in the last 24 hours.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::blocked_ips::BlockedIp;
use crate::enforcement::Enforcement;
use crate::pbxes::{Pbx, PbxState};
use crate::safety;

/// One hour of the chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourCount {
    /// Start of the hour.
    #[serde(with = "time::serde::rfc3339")]
    pub hour: OffsetDateTime,
    /// Failed attempts.
    pub attempts: i64,
    /// Bans begun.
    pub bans: i64,
}

/// Something that needs someone, and where to do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// What, in one sentence.
    pub text: String,
    /// Where the button leads.
    pub href: String,
    /// What the button says.
    pub button: String,
    /// Whether something is broken or attacked, rather than waiting.
    pub urgent: bool,
}

/// All of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The PBXes.
    pub pbxes: Vec<Pbx>,
    /// How far the newest change is enforced.
    pub enforcement: Enforcement,
    /// The last 24 hours, oldest first, one entry per hour.
    pub hours: Vec<HourCount>,
    /// Failed attempts of the last hour.
    pub attempts_last_hour: i64,
    /// Bans that hold.
    pub active_bans: i64,
    /// The newest bans, at most 8.
    pub newest_bans: Vec<BlockedIp>,
    /// How many entries Allowed IPs has.
    pub allowed_ips: i64,
    /// What needs someone, at most five, the most urgent first.
    pub attention: Vec<Attention>,
}

/// What needs someone.
pub fn attention(pbxes: &[Pbx], allowed_ips: i64) -> Vec<Attention> {
    let mut list = Vec::new();
    let mut add = |urgent: bool, text: String, button: &str, href: &str| {
        list.push(Attention { text, href: href.to_owned(), button: button.to_owned(), urgent });
    };
    if pbxes.is_empty() {
        add(false, "No PBX is connected yet. Nothing is protected.".to_owned(), "Add a PBX", "/pbxes");
    }
    for pbx in pbxes {
        match pbx.state {
            PbxState::Offline => add(
                true,
                format!("{} is offline. It goes on enforcing what it had; changes wait for it.", pbx.name),
                "Show",
                "/pbxes",
            ),
            PbxState::WaitingForAgent => {
                add(false, format!("{} waits for its agent.", pbx.name), "Connect it", "/pbxes");
            }
            PbxState::Online if !pbx.last_refusal.is_empty() => {
                add(
                    true,
                    format!("{} refused revision {}: {}", pbx.name, pbx.wanted_revision, pbx.last_refusal),
                    "Show",
                    "/pbxes",
                );
            }
            PbxState::Online if !pbx.withheld.is_empty() => {
                for withheld in &pbx.withheld {
                    let what = safety::name(&withheld.change);
                    add(
                        true,
                        format!("{} does not enforce the {what}. {}", pbx.name, withheld.reason),
                        "Show",
                        "/pbxes",
                    );
                }
            }
            PbxState::Online if pbx.firewall == "memory" => {
                add(
                    false,
                    format!("{} runs without a firewall: it detects, but nothing is dropped.", pbx.name),
                    "Show",
                    "/pbxes",
                );
            }
            PbxState::Online | PbxState::Revoked => {}
        }
    }
    if allowed_ips == 0 && !pbxes.is_empty() {
        add(
            false,
            "No address is allowed yet. Allow your offices and trunks, so that they are never blocked.".to_owned(),
            "Allow addresses",
            "/allowed-ips",
        );
    }
    list.sort_by_key(|item| !item.urgent);
    list.truncate(5);
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pbxes::sample;

    fn texts(pbxes: &[Pbx], allowed_ips: i64) -> Vec<String> {
        attention(pbxes, allowed_ips).into_iter().map(|item| item.text).collect()
    }

    #[test]
    fn an_empty_tenant_is_told_where_to_begin() {
        let list = attention(&[], 0);
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].href, "/pbxes");
    }

    #[test]
    fn nothing_when_all_is_well() {
        assert!(texts(&[sample("hq", PbxState::Online)], 1).is_empty());
        assert!(texts(&[sample("stolen", PbxState::Revoked)], 1).is_empty());
    }

    #[test]
    fn the_urgent_first() {
        let pbxes = [
            sample("new", PbxState::WaitingForAgent),
            Pbx { firewall: "memory".to_owned(), ..sample("demo", PbxState::Online) },
            sample("away", PbxState::Offline),
            Pbx { last_refusal: "no nftables".to_owned(), ..sample("unwilling", PbxState::Online) },
        ];
        let list = attention(&pbxes, 0);
        let begins: Vec<&str> = list.iter().filter_map(|item| item.text.split(' ').next()).collect();
        assert_eq!(begins, ["away", "unwilling", "new", "demo", "No"]);
        assert!(list.iter().take(2).all(|item| item.urgent) && list.iter().skip(2).all(|item| !item.urgent));
        assert!(list[1].text.contains("no nftables"));
    }

    #[test]
    fn at_most_five_and_never_an_urgent_one_lost_to_a_patient_one() {
        let mut pbxes: Vec<Pbx> = (0..10).map(|n| sample(&format!("new {n}"), PbxState::WaitingForAgent)).collect();
        pbxes.push(sample("away", PbxState::Offline));
        let list = texts(&pbxes, 0);
        assert_eq!(list.len(), 5);
        assert!(list[0].starts_with("away"));
    }
}

//! Nobody locks himself out. A change that would cut off too many registered phones is not loaded. One that changes who can reach the
//! PBX is on trial for ten seconds: if the server isn't heard by then, or the phones go away meanwhile, what was in force before
//! comes back by itself. What is withheld is told, and stays withheld over a restart.

use std::collections::BTreeSet;

use ipnet::IpNet;
use policy::bans::BanChange;
use policy::metrics::AGENT_ROLLBACKS;
use policy::net;
use policy::ruleset::Coverage;
use policy::safety::{self, Change, Phones, TRIES, Withheld};
use policy::snapshot::PolicySnapshot;
use proto::convert::FromAgent;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Engine;

const TRIAL_FILE: &str = "trial.json";
const WITHHELD_FILE: &str = "withheld.json";

/// The phones of the PBX; `None` while it isn't reached.
pub(super) type Registered = Option<(usize, Phones)>;

/// Changes in force that aren't confirmed yet.
pub(super) struct Trial {
    began: Instant,
    heard: bool,
    /// How many phones were registered when it began, if the PBX was reached.
    phones: Option<usize>,
    undo: Undo,
}

/// How to go back; on disk while a trial lasts, so that a restart doesn't confirm anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Undo {
    /// The policy on trial, and what was in force before it.
    policy: Option<PolicyUndo>,
    /// Bans on trial.
    bans: BTreeSet<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PolicyUndo {
    before: Option<PolicySnapshot>,
}

/// Something withheld, and what was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    withheld: Withheld,
    /// How often the server wasn't heard after it; [`TRIES`] is for good.
    tries: u32,
    /// It is in force again, on trial.
    again: bool,
}

/// All that is withheld.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Kept>);

impl Refusals {
    /// For people, newest first.
    pub(super) fn told(&self) -> Vec<Withheld> {
        let kept = self.0.iter().rev().filter(|kept| !kept.again);
        kept.take(safety::WITHHELD_MAX).map(|kept| kept.withheld.clone()).collect()
    }

    fn of(&mut self, change: &Change) -> Option<&mut Kept> {
        self.0.iter_mut().find(|kept| kept.withheld.change == *change)
    }

    fn add(&mut self, withheld: Withheld, tries: u32) {
        self.0.retain(|kept| kept.withheld.change != withheld.change);
        self.0.push(Kept { withheld, tries, again: false });
    }
}

impl Engine {
    /// Takes up what an earlier run left: what was withheld stays so, what was on trial is on trial again.
    pub(super) fn take_up_safety(&mut self) {
        self.refusals = Refusals(self.state.read_json(WITHHELD_FILE).unwrap_or_default());
        self.book.hold(&self.held_bans(|kept| !kept.again));
        if let Some(undo) = self.state.read_json::<Undo>(TRIAL_FILE) {
            self.trial = Some(Trial { began: Instant::now(), heard: false, phones: None, undo });
        }
    }

    fn held_bans(&self, which: impl Fn(&Kept) -> bool) -> BTreeSet<IpNet> {
        let ban = |kept: &Kept| if let Change::Ban(net) = kept.withheld.change { Some(net) } else { None };
        self.refusals.0.iter().filter(|kept| which(kept)).filter_map(ban).collect()
    }

    /// Whether this policy was taken back for good or never loaded; then that is told once more.
    pub(super) fn refuses_still(&mut self, policy: &PolicySnapshot) -> bool {
        let change = Change::Policy(policy.revision);
        let Some(kept) = self.refusals.of(&change) else { return false };
        if kept.tries >= TRIES {
            return true;
        }
        kept.again = true;
        false
    }

    /// Why a policy may not be loaded: it would cut off too many of the phones that get through now.
    pub(super) fn phones_against(&self, before: &Coverage, policy: &PolicySnapshot) -> Option<String> {
        let (registered, phones) = self.registered.as_ref()?;
        let now = self.clock.now();
        let lost: Phones = phones
            .iter()
            .filter(|(addr, _)| before.covers(**addr, now) && !self.coverage.covers(**addr, now))
            .filter(|(addr, _)| self.book.blocks(**addr, now))
            .map(|(addr, count)| (*addr, *count))
            .collect();
        policy
            .phone_loss_limit
            .exceeded(lost.values().sum(), *registered)
            .then(|| safety::would_cut(&lost, *registered))
    }

    /// Withholds those of the server's bans that would cut off too many phones; what remains for the kernel.
    pub(super) fn spare_phones(&mut self, changes: Vec<BanChange>) -> Vec<BanChange> {
        self.forget_what_is_gone();
        let Some((registered, phones)) = &self.registered else { return changes };
        let now = self.clock.now();
        let hit = |net: IpNet| {
            safety::phones_within(phones, net).filter(|(addr, _)| !self.coverage.covers(*addr, now)).collect::<Phones>()
        };
        let hits: Vec<(IpNet, Phones)> =
            added(&changes).map(|net| (net, hit(net))).filter(|(_, lost)| !lost.is_empty()).collect();
        let all: Phones = hits.iter().flat_map(|(_, lost)| lost.clone()).collect();
        let limit = self.policy.as_ref().map(|policy| policy.phone_loss_limit).unwrap_or_default();
        if !limit.exceeded(all.values().sum(), *registered) {
            return changes;
        }
        let registered = *registered;
        for (net, lost) in &hits {
            self.withhold(Change::Ban(*net), false, safety::would_cut(lost, registered), vec![], TRIES);
        }
        self.book.hold(&hits.into_iter().map(|(net, _)| net).collect());
        let held = self.book.held();
        let spared = |change: BanChange| match change {
            BanChange::Add(entry) if held.contains(&entry.net) => self.book.wanted(entry.net),
            BanChange::Add(_) | BanChange::Remove(_) => change,
        };
        let changes = changes.into_iter().map(spared).collect();
        self.tell_withheld();
        changes
    }

    /// A policy is in force that changes who can reach the PBX.
    pub(super) fn try_policy(&mut self, before: Option<PolicySnapshot>) {
        // What the first of several unconfirmed policies replaced is what was last known to be good.
        self.on_trial(|undo| {
            undo.policy.get_or_insert(PolicyUndo { before });
        });
    }

    /// Bans are in force; those of whole networks are on trial.
    pub(super) fn try_bans(&mut self, changes: &[BanChange]) {
        let wide: Vec<IpNet> = added(changes).filter(|net| !net::source_key(net.network()).contains(net)).collect();
        if !wide.is_empty() {
            self.on_trial(|undo| undo.bans.extend(wide));
        }
    }

    fn on_trial(&mut self, add: impl FnOnce(&mut Undo)) {
        let phones = self.registered.as_ref().map(|(count, _)| *count);
        let trial = self.trial.get_or_insert_with(|| Trial {
            began: Instant::now(),
            heard: false,
            phones,
            undo: Undo::default(),
        });
        add(&mut trial.undo);
        // The first of several changes may have come before the PBX was reached.
        trial.phones = trial.phones.or(phones);
        (trial.began, trial.heard) = (Instant::now(), false);
        if let Err(error) = self.state.write_json(TRIAL_FILE, &trial.undo) {
            error!(%error, "How to go back could not be kept on disk");
        }
        self.closely.send_replace(true);
    }

    /// The server was heard.
    pub(super) fn heard(&mut self, at: Instant) {
        if let Some(trial) = self.trial.as_mut().filter(|trial| at > trial.began) {
            trial.heard = true;
        }
    }

    /// Judges the changes on trial.
    pub(super) async fn judge(&mut self) {
        let Some(trial) = &self.trial else { return };
        let limit = self.policy.as_ref().map(|policy| policy.phone_loss_limit).unwrap_or_default();
        if let (Some(from), Some((to, _))) = (trial.phones, &self.registered)
            && limit.exceeded(from.saturating_sub(*to), from)
        {
            let why = safety::phones_fell(from, *to);
            self.roll_back(&why, TRIES).await;
        } else if trial.began.elapsed() >= safety::TRIAL.unsigned_abs() {
            if trial.heard { self.confirm() } else { self.roll_back(&safety::not_heard(), 1).await }
        }
    }

    /// The PBX went away or came back: its phones of before say nothing.
    pub(super) fn phones_unknown(&mut self) {
        self.registered = None;
        if let Some(trial) = &mut self.trial {
            trial.phones = None;
        }
    }

    fn confirm(&mut self) {
        self.end_trial();
        let before = self.refusals.0.len();
        self.refusals.0.retain(|kept| !kept.again);
        if self.refusals.0.len() != before {
            self.keep_refusals();
        }
        info!("The server was heard and the phones are there: the change stays");
    }

    fn end_trial(&mut self) -> Option<Undo> {
        let trial = self.trial.take()?;
        self.state.remove(TRIAL_FILE);
        self.closely.send_replace(false);
        Some(trial.undo)
    }

    /// Goes back to what was in force before the trial, and says so.
    async fn roll_back(&mut self, why: &str, tries: u32) {
        let Some(Undo { policy, bans }) = self.end_trial() else { return };
        self.metrics.add(&AGENT_ROLLBACKS, "", 1);
        warn!(why, "Going back to what was in force before the last change");
        if let Some(PolicyUndo { before }) = policy
            && let Some(bad) = std::mem::replace(&mut self.policy, before)
        {
            self.set_allowed();
            if let Some(policy) = &self.policy {
                self.detector.set_rule(policy.detection);
            }
            self.keep_policy();
            let lines = safety::differences(self.policy.as_ref(), &bad);
            self.withhold(Change::Policy(bad.revision), true, why.to_owned(), lines, tries);
        }
        for net in &bans {
            self.withhold(Change::Ban(*net), true, why.to_owned(), vec![], tries);
        }
        self.book.hold(&bans);
        // The link may come back the moment that the kernel lets it, and says hello.
        self.publish_hello();
        let _ = self.reload().await;
        self.say_policy_in_force();
        self.tell_withheld();
        if tries < TRIES {
            // The stream may hang on what was dropped; a new one says all of it again.
            self.uplink.close();
        }
    }

    pub(super) fn withhold(
        &mut self,
        change: Change,
        rolled_back: bool,
        reason: String,
        lines: Vec<String>,
        tries: u32,
    ) {
        warn!(change = safety::name(&change), reason, rolled_back, "Not enforced, lest this machine be cut off");
        let tries = tries.saturating_add(self.refusals.of(&change).map_or(0, |kept| kept.tries)).min(TRIES);
        let at = self.clock.now();
        self.refusals.add(Withheld { change, at, rolled_back, reason, lines }, tries);
    }

    /// What was withheld and is no longer wanted, or wanted anew, is no longer withheld.
    pub(super) fn forget_what_is_gone(&mut self) {
        let (held, revision) = (self.book.held(), self.policy.as_ref().map(|policy| policy.revision));
        let before = self.refusals.0.len();
        self.refusals.0.retain(|kept| match kept.withheld.change {
            Change::Ban(net) => kept.again || held.contains(&net),
            Change::Policy(withheld) => kept.again || revision.is_none_or(|revision| revision < withheld),
        });
        if self.refusals.0.len() != before {
            self.tell_withheld();
        }
    }

    pub(super) fn tell_withheld(&mut self) {
        self.keep_refusals();
        let told = self.refusals.told();
        self.hello.send_modify(|hello| hello.withheld.clone_from(&told));
        self.uplink.send(&FromAgent::Withheld(told));
    }

    fn keep_refusals(&self) {
        if let Err(error) = self.state.write_json(WITHHELD_FILE, &self.refusals.0) {
            error!(%error, "What is withheld could not be kept on disk");
        }
    }

    /// With a new stream, bans that were taken back because the server wasn't heard are tried once more: it may have been away for a
    /// reason of its own.
    pub(super) async fn try_bans_again(&mut self) {
        let again = self.held_bans(|kept| !kept.again && kept.tries < TRIES);
        if again.is_empty() {
            return;
        }
        for kept in self
            .refusals
            .0
            .iter_mut()
            .filter(|kept| matches!(kept.withheld.change, Change::Ban(net) if again.contains(&net)))
        {
            kept.again = true;
        }
        let changes = self.book.let_go(&again);
        self.tell_withheld();
        if let Err(refused) = self.enforce(&changes).await {
            error!(error = %refused, "Changes of bans are not in the kernel yet");
        }
        self.try_bans(&changes);
    }
}

fn added(changes: &[BanChange]) -> impl Iterator<Item = IpNet> {
    changes.iter().filter_map(|change| match change {
        BanChange::Add(entry) => Some(entry.net),
        BanChange::Remove(_) => None,
    })
}

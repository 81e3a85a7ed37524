//! When a source is banned: what counts as one failed attempt, what is proven, how many make a ban, how long it lasts.
//!
//! Counting follows what Asterisk really reports. One attempt may raise several events (an unknown account raises
//! three) and is one failure. A failure over UDP proves nothing about its source address: it counts towards a ban only when it
//! answers a challenge that the PBX sent to that very address; five forged packets must not ban a trunk. Which challenge a failure
//! answered is not what Asterisk says: it reports that of the first `Authorization` header and checks another one, so an attacker
//! who puts a made-up one in front would never be banned. What counts is what the packets of the source held.
//! A phone over its `max_contacts` raises `FailedACL` after a successful login and is no failure.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::blocked_ips::EvidenceEvent;
use crate::net;

/// Most sources, sessions and challenges that are remembered at once; the longest unseen go first.
pub const MAX_TRACKED: usize = 65_536;
/// Most events kept as evidence per source.
pub const MAX_EVIDENCE: usize = 20;
/// How long a challenge may be answered; Asterisk's nonces live 32 s.
const CHALLENGE_SECONDS: i64 = 60;
/// How long after the packet with the answer the PBX may report what became of it.
const ANSWER_SECONDS: i64 = 5;
/// Most failures kept that a challenge may yet prove; forged ones must not fill the memory.
const MAX_LATE: usize = 4_096;

/// How many proven failures in which time lead to a ban of which length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectionRule {
    /// Proven failures that make a ban.
    pub failures: u32,
    /// Within this time.
    pub window_seconds: u32,
    /// Length of the first ban; each further one lasts twice as long as the one before.
    pub ban_seconds: u32,
    /// Longest ban.
    pub max_ban_seconds: u32,
}

impl Default for DetectionRule {
    /// 5 failures in 60 s, one hour, doubling for repeaters to 7 days.
    fn default() -> Self {
        Self { failures: 5, window_seconds: 60, ban_seconds: 3600, max_ban_seconds: 7 * 86_400 }
    }
}

impl DetectionRule {
    /// How long the `times`-th ban of a source lasts (the first is 1).
    pub fn ban_seconds_for(&self, times: u32) -> i64 {
        let doubled = u64::from(self.ban_seconds) << times.saturating_sub(1).min(20);
        i64::try_from(doubled.min(u64::from(self.max_ban_seconds))).unwrap_or(i64::MAX)
    }
}

/// What a PBX reports about an authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SecurityEventKind {
    /// The PBX asked for credentials.
    ChallengeSent,
    /// The answer to a challenge was wrong.
    ChallengeResponseFailed,
    /// The account does not exist.
    InvalidAccountId,
    /// A password sent as such was wrong (AMI).
    InvalidPassword,
    /// An access list refused.
    FailedAcl,
    /// The credentials were right.
    SuccessfulAuth,
    /// A packet came in that holds a challenge sent to its very source. Read off the wire: no PBX reports it.
    ChallengeAnswered,
}

impl SecurityEventKind {
    /// The event's name in Asterisk.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChallengeSent => "ChallengeSent",
            Self::ChallengeResponseFailed => "ChallengeResponseFailed",
            Self::InvalidAccountId => "InvalidAccountID",
            Self::InvalidPassword => "InvalidPassword",
            Self::FailedAcl => "FailedACL",
            Self::SuccessfulAuth => "SuccessfulAuth",
            Self::ChallengeAnswered => "ChallengeAnswered",
        }
    }

    /// The kind of an event's name in Asterisk; `None` for events that say nothing about authentication.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::ChallengeSent,
            Self::ChallengeResponseFailed,
            Self::InvalidAccountId,
            Self::InvalidPassword,
            Self::FailedAcl,
            Self::SuccessfulAuth,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }
}

/// One security event of a PBX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityEvent {
    /// When the PBX saw it.
    pub at: OffsetDateTime,
    /// What happened.
    pub kind: SecurityEventKind,
    /// The account named, such as `1007`; attacker-controlled text.
    pub account: String,
    /// The session (SIP Call-ID); attacker-controlled text.
    pub session: String,
    /// Where it came from.
    pub remote: IpAddr,
    /// Transport in capitals, such as `UDP`, `TCP`, `TLS`, `WSS`.
    pub transport: String,
    /// Service, such as `PJSIP` or `AMI`.
    pub service: String,
    /// The challenge sent or answered, if the event carries one.
    pub challenge: Option<String>,
}

/// A failed attempt, for counting and charts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When.
    pub at: OffsetDateTime,
    /// From where.
    pub remote: IpAddr,
    /// The account tried.
    pub account: String,
    /// Whether the source address is proven.
    pub proven: bool,
    /// It was counted before as unproven: this proves it, and is no further attempt.
    pub upgrade: bool,
}

/// The decision to ban a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanDecision {
    /// What to ban: the address, or the /64 of an IPv6 source.
    pub net: IpNet,
    /// For how long.
    pub ban_seconds: i64,
    /// How often this source has been banned, this time included.
    pub times_banned: u32,
    /// Why, in words.
    pub reason: String,
    /// The account that was tried most.
    pub account: String,
    /// The events, oldest first.
    pub evidence: Vec<EvidenceEvent>,
}

/// What one event meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The failed attempt that it completed, if it did.
    pub attempt: Option<Attempt>,
    /// The ban that it led to, if it did.
    pub ban: Option<BanDecision>,
}

#[derive(Debug, Default)]
struct Source {
    failures: VecDeque<(OffsetDateTime, String)>,
    evidence: VecDeque<EvidenceEvent>,
    last_seen: Option<OffsetDateTime>,
}

#[derive(Debug)]
struct Session {
    last_seen: OffsetDateTime,
    /// The attempt on an unknown account that is going on, if one is.
    unknown: Option<Unknown>,
}

/// Answers to our challenges whose outcome isn't reported yet.
#[derive(Debug)]
struct Answers {
    last: OffsetDateTime,
    waiting: u32,
}

/// An attempt on an unknown account: Asterisk reports it with the request, again with the answer to the challenge, and at last as
/// a failed answer of `<unknown>`.
#[derive(Debug)]
struct Unknown {
    account: String,
    reports: u32,
    proven: bool,
}

/// A failure that an event completes.
struct Failure {
    account: String,
    proven: bool,
    upgrade: bool,
    /// What the PBX reported, if that was another event before.
    reported: Option<SecurityEvent>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    times: u32,
    last: OffsetDateTime,
}

/// Counts failures per source and decides about bans. Bounded in memory whatever attackers send.
#[derive(Debug)]
pub struct Detector {
    rule: DetectionRule,
    sources: HashMap<IpNet, Source>,
    sessions: HashMap<(IpAddr, String), Session>,
    challenges: HashMap<(IpAddr, String), OffsetDateTime>,
    answers: HashMap<IpAddr, Answers>,
    /// Failures whose challenge nobody has heard of, by that challenge: on a busy machine the packets may be read after what the PBX says.
    late: HashMap<(IpAddr, String), (SecurityEvent, String)>,
    records: HashMap<IpNet, Record>,
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(rule: DetectionRule) -> Self {
        Self {
            rule,
            sources: HashMap::new(),
            sessions: HashMap::new(),
            challenges: HashMap::new(),
            answers: HashMap::new(),
            late: HashMap::new(),
            records: HashMap::new(),
        }
    }

    /// Goes on with another rule; what was counted stays.
    pub fn set_rule(&mut self, rule: DetectionRule) {
        self.rule = rule;
    }

    /// Tells that a source has been banned `times` times, the last time at `last`; used after a restart.
    pub fn remember_ban(&mut self, net: IpNet, times: u32, last: OffsetDateTime) {
        self.records.insert(net, Record { times, last });
    }

    /// Takes one event; `allowed` tells whether an address is never to be banned.
    pub fn observe(&mut self, event: &SecurityEvent, allowed: impl Fn(IpAddr) -> bool) -> Observation {
        if event.remote.is_loopback() || event.remote.is_unspecified() {
            return Observation::default();
        }
        self.bound(event.at);
        let Some(Failure { account, proven, upgrade, reported }) = self.failure(event) else {
            return Observation::default();
        };
        let event = reported.as_ref().unwrap_or(event);
        let ban = if proven && !allowed(event.remote) { self.count(event, &account) } else { None };
        Observation { attempt: Some(Attempt { at: event.at, remote: event.remote, account, proven, upgrade }), ban }
    }

    /// The failed attempt that the event completes, if it does.
    fn failure(&mut self, event: &SecurityEvent) -> Option<Failure> {
        let connected = ["TCP", "TLS", "WS", "WSS"].contains(&event.transport.as_str());
        let failure = |account: &str, proven, upgrade| {
            Some(Failure { account: account.to_owned(), proven, upgrade, reported: None })
        };
        match event.kind {
            SecurityEventKind::ChallengeSent => {
                let key = (event.remote, event.challenge.clone()?);
                let late = self.late.remove(&key);
                self.challenges.insert(key, event.at);
                let (reported, account) =
                    late.filter(|(reported, _)| (event.at - reported.at).abs() <= Duration::seconds(ANSWER_SECONDS))?;
                Some(Failure { account, proven: true, upgrade: true, reported: Some(reported) })
            }
            SecurityEventKind::ChallengeAnswered => {
                let answers = self.answers.entry(event.remote).or_insert(Answers { last: event.at, waiting: 0 });
                answers.waiting =
                    if event.at - answers.last > Duration::seconds(ANSWER_SECONDS) { 1 } else { answers.waiting + 1 };
                answers.last = event.at;
                None
            }
            // Asterisk goes on to ChallengeResponseFailed where credentials were wrong; behind a success it is a phone over its limit.
            SecurityEventKind::FailedAcl => None,
            SecurityEventKind::SuccessfulAuth => {
                self.take_answer(event);
                self.sessions.remove(&(event.remote, event.session.clone()));
                None
            }
            SecurityEventKind::InvalidPassword => failure(&event.account, connected, false),
            SecurityEventKind::InvalidAccountId => {
                let session = self
                    .sessions
                    .entry((event.remote, event.session.clone()))
                    .or_insert(Session { last_seen: event.at, unknown: None });
                session.last_seen = event.at;
                match &mut session.unknown {
                    // The second report of the same attempt. A third one begins another: answers that never come must not hide attempts.
                    Some(unknown)
                        if unknown.account == event.account && unknown.reports < 2 && event.service != "AMI" =>
                    {
                        unknown.reports += 1;
                        None
                    }
                    // Over UDP one forged packet raises this; only the answered challenge that may follow proves a source.
                    unknown => {
                        *unknown = Some(Unknown { account: event.account.clone(), reports: 1, proven: connected });
                        failure(&event.account, connected, false)
                    }
                }
            }
            SecurityEventKind::ChallengeResponseFailed => {
                let proven = self.take_answer(event) || connected || self.is_ours(event);
                let unknown = self
                    .sessions
                    .get_mut(&(event.remote, event.session.clone()))
                    .and_then(|session| session.unknown.take());
                match unknown {
                    None => {
                        if !proven {
                            self.prove_later(event, &event.account);
                        }
                        failure(&event.account, proven, false)
                    }
                    Some(unknown) if proven && !unknown.proven => failure(&unknown.account, true, true),
                    Some(unknown) => {
                        if !proven && !unknown.proven {
                            self.prove_later(event, &unknown.account);
                        }
                        None
                    }
                }
            }
        }
    }

    /// Keeps an unproven failure in case its challenge is heard of in a moment.
    fn prove_later(&mut self, event: &SecurityEvent, account: &str) {
        if self.late.len() >= MAX_LATE {
            self.late.retain(|_, (late, _)| event.at - late.at <= Duration::seconds(1));
        }
        if let Some(challenge) = event.challenge.as_ref().filter(|_| self.late.len() < MAX_LATE) {
            self.late.insert((event.remote, challenge.clone()), (event.clone(), account.to_owned()));
        }
    }

    /// Whether the event answers a challenge that was sent to its very address a moment ago.
    fn is_ours(&self, event: &SecurityEvent) -> bool {
        let Some(challenge) = &event.challenge else { return false };
        self.challenges
            .get(&(event.remote, challenge.clone()))
            .is_some_and(|sent| (event.at - *sent).abs() <= Duration::seconds(CHALLENGE_SECONDS))
    }

    /// Whether the source has answered one of our challenges a moment ago. Each answer proves one event, so that what a phone proves
    /// is of no use to whoever forges its address.
    fn take_answer(&mut self, event: &SecurityEvent) -> bool {
        let Some(answers) = self.answers.get_mut(&event.remote) else { return false };
        let fresh = (event.at - answers.last).abs() <= Duration::seconds(ANSWER_SECONDS);
        answers.waiting = answers.waiting.saturating_sub(1);
        if answers.waiting == 0 || !fresh {
            self.answers.remove(&event.remote);
        }
        fresh
    }

    fn count(&mut self, event: &SecurityEvent, account: &str) -> Option<BanDecision> {
        let key = net::source_key(event.remote);
        if net::unusable(&key).is_some() {
            return None;
        }
        let window = Duration::seconds(i64::from(self.rule.window_seconds));
        let source = self.sources.entry(key).or_default();
        source.last_seen = Some(event.at);
        while source.failures.front().is_some_and(|(at, _)| event.at - *at > window) {
            source.failures.pop_front();
        }
        source.failures.push_back((event.at, account.to_owned()));
        source.evidence.push_back(EvidenceEvent {
            at: event.at,
            kind: event.kind.as_str().to_owned(),
            transport: event.transport.clone(),
            account: account.to_owned(),
            service: event.service.clone(),
        });
        while source.evidence.len() > MAX_EVIDENCE {
            source.evidence.pop_front();
        }
        if source.failures.len() < usize::try_from(self.rule.failures.max(1)).unwrap_or(usize::MAX) {
            return None;
        }
        let source = self.sources.remove(&key)?;
        Some(self.decide(key, source, event.at))
    }

    fn decide(&mut self, net: IpNet, source: Source, now: OffsetDateTime) -> BanDecision {
        let forget = Duration::seconds(i64::from(self.rule.max_ban_seconds) * 2);
        let record = self.records.entry(net).or_insert(Record { times: 0, last: now });
        record.times = if now - record.last > forget { 1 } else { record.times.saturating_add(1) };
        record.last = now;
        let times_banned = record.times;
        let (account, accounts) = most_tried(&source.failures);
        let count = source.failures.len();
        let reason = match accounts {
            1 => format!("{count} wrong passwords for {account}"),
            _ => format!("{count} wrong passwords for {accounts} accounts, mostly {account}"),
        };
        BanDecision {
            net,
            ban_seconds: self.rule.ban_seconds_for(times_banned),
            times_banned,
            reason,
            account,
            evidence: source.evidence.into(),
        }
    }

    /// Forgets what is too old to matter; when that is not enough, the longer unseen half.
    fn bound(&mut self, now: OffsetDateTime) {
        let window = Duration::seconds(i64::from(self.rule.window_seconds).max(CHALLENGE_SECONDS));
        shrink(&mut self.sources, now - window, |source| source.last_seen.unwrap_or(now));
        shrink(&mut self.sessions, now - window, |session| session.last_seen);
        shrink(&mut self.challenges, now - window, |sent| *sent);
        shrink(&mut self.answers, now - window, |answers| answers.last);
        let forget = Duration::seconds(i64::from(self.rule.max_ban_seconds) * 2);
        shrink(&mut self.records, now - forget, |record| record.last);
    }
}

fn shrink<K: Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    oldest: OffsetDateTime,
    seen: impl Fn(&V) -> OffsetDateTime,
) {
    if map.len() < MAX_TRACKED {
        return;
    }
    map.retain(|_, value| seen(value) >= oldest);
    // Half of the room is free afterwards, so that a flood pays for this once in many events.
    if map.len() > MAX_TRACKED / 2 {
        let mut times: Vec<_> = map.values().map(&seen).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        map.retain(|_, value| seen(value) > median);
    }
}

/// The account tried most, with control characters taken out, and how many different ones there were.
fn most_tried(failures: &VecDeque<(OffsetDateTime, String)>) -> (String, usize) {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for (_, account) in failures {
        *counts.entry(account).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map_or("", |(account, _)| *account);
    let account: String = most.chars().filter(|c| !c.is_control()).take(80).collect();
    (if account.is_empty() { "an empty name".to_owned() } else { account }, counts.len())
}

#[cfg(test)]
mod tests;

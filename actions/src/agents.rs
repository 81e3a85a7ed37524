//! What agents do: enrol, connect, apply, report. Who an agent is comes from its certificate alone.

use std::collections::HashMap;
use std::net::IpAddr;

use policy::authz::Operation;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::blocked_ips::BanSource;
use policy::ids::{BatchId, PbxId, TenantId};
use policy::net;
use policy::reports::{DetectedBan, ReportEvent};
use policy::safety::{self, Drift, Withheld};
use policy::snapshot::PolicySnapshot;
use sha2::{Digest as _, Sha256};
use store::agents::Described;
pub use store::agents::{Certified, Health};
use store::blocked_ips::NewBan;
use uuid::Uuid;

use crate::act::{Act, Actor};
use crate::bus::Topic;
use crate::ctx::{Ctx, INSTALLATION};
use crate::error::ActError;
use crate::{bans, blocked_ips, ca};

/// Changes sent as deltas; who is further behind gets the whole set.
const MAX_DELTA: i64 = 5_000;

/// An agent whose certificate holds.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its tenant.
    pub tenant_id: TenantId,
    /// Its PBX.
    pub pbx_id: PbxId,
    /// The PBX's name.
    pub pbx_name: String,
    /// Hash of its certificate.
    fingerprint: Vec<u8>,
}

impl Agent {
    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    fn actor(&self) -> Actor {
        Actor { tenant_id: self.tenant_id, name: format!("pbx {}", self.pbx_name), address: None }
    }

    async fn act<'a>(&self, ctx: &'a Ctx) -> Result<Act<'a>, ActError> {
        Act::begin_as(ctx, self.actor(), Operation::LinkAgent).await
    }
}

/// What an agent sends to enrol.
#[derive(Debug, Clone)]
pub struct EnrolRequest {
    /// The one-time token.
    pub token: String,
    /// PKCS#10, PEM.
    pub csr_pem: String,
    /// The agent's version.
    pub agent_version: String,
    /// The machine's host name.
    pub hostname: String,
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The CA, PEM.
    pub ca_pem: String,
    /// The PBX's name.
    pub pbx_name: String,
}

/// Exchanges a token for a certificate. The token is used up by it; the certificates of the PBX before it are revoked.
pub async fn enrol(ctx: &Ctx, source: IpAddr, request: EnrolRequest) -> Result<Enrolled, ActError> {
    let claims = ctx.token_key().verify(&request.token);
    let (tenant_id, name) = match &claims {
        Some(claims) => (claims.tenant, format!("pbx {}", claims.pbx)),
        None => (INSTALLATION, "an agent".to_owned()),
    };
    let mut act = Act::begin_as(ctx, Actor { tenant_id, name, address: Some(source) }, Operation::EnrolAgent).await?;
    let result = match claims {
        Some(claims) => {
            act.subject(claims.pbx);
            enrol_inner(ctx, &mut act, claims.pbx, claims.jti, &request).await
        }
        None => Err(spent_token()),
    };
    act.finish(result).await
}

async fn enrol_inner(
    ctx: &Ctx,
    act: &mut Act<'_>,
    pbx: PbxId,
    token_id: Uuid,
    request: &EnrolRequest,
) -> Result<Enrolled, ActError> {
    let now = act.now;
    if !store::pbxes::use_token(&mut act.tx, pbx, token_id, now).await? {
        return Err(spent_token());
    }
    let pbx_name = store::pbxes::name(&mut act.tx, pbx).await?.ok_or(ActError::NotFound)?;
    act.subject(&pbx_name);
    act.detail("hostname", request.hostname.chars().take(253).collect::<String>());
    let issued = ctx.ca().issue(&request.csr_pem, act.tx.tenant(), pbx, now)?;
    store::agents::revoke_certificates(&mut act.tx, pbx, None, now).await?;
    store::agents::insert_certificate(&mut act.tx, pbx, &issued.fingerprint, now, issued.expires_at).await?;
    act.detail("certificate", data_encoding::HEXLOWER.encode(&issued.fingerprint));
    act.publish(Topic::Pbxes);
    Ok(Enrolled { certificate_pem: issued.pem, ca_pem: ctx.ca().pem().to_owned(), pbx_name })
}

fn spent_token() -> ActError {
    ActError::Refused(
        "This token was used before, has expired or was replaced. Make a new one in the portal: PBXes, Connect."
            .to_owned(),
    )
}

/// Who a certificate is.
///
/// # Errors
/// `NotFound` when it isn't known, has expired or was revoked.
pub async fn identify(ctx: &Ctx, certificate_der: &[u8]) -> Result<Agent, ActError> {
    let (tenant_id, pbx_id) = ca::identity(certificate_der).ok_or(ActError::NotFound)?;
    let fingerprint = Sha256::digest(certificate_der).to_vec();
    let mut tx = ctx.store().tenant(tenant_id).await?;
    let found = store::agents::by_certificate(&mut tx, &fingerprint, ctx.now()).await?;
    tx.commit().await?;
    match found {
        Some(Certified { id, name, .. }) if id == pbx_id => {
            Ok(Agent { tenant_id, pbx_id, pbx_name: name, fingerprint })
        }
        _ => Err(ActError::NotFound),
    }
}

/// A new certificate for an agent whose own has passed half of its life; PEM. Its own holds until a stream is opened with the new one.
///
/// # Errors
/// `Refused` when it isn't due, so that nobody makes any number of them.
pub async fn renew(ctx: &Ctx, agent: &Agent, csr_pem: &str) -> Result<String, ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    let result = renew_inner(ctx, &mut act, agent, csr_pem).await;
    act.finish(result).await
}

async fn renew_inner(ctx: &Ctx, act: &mut Act<'_>, agent: &Agent, csr_pem: &str) -> Result<String, ActError> {
    let now = act.now;
    let held = store::agents::by_certificate(&mut act.tx, &agent.fingerprint, now).await?.ok_or(ActError::NotFound)?;
    if now < held.issued_at + (held.expires_at - held.issued_at) / 2 {
        return Err(ActError::Refused("The certificate isn't due for renewal.".to_owned()));
    }
    let issued = ctx.ca().issue(csr_pem, agent.tenant_id, agent.pbx_id, now)?;
    // Earlier renewals that were never used.
    store::agents::revoke_certificates(&mut act.tx, agent.pbx_id, Some(&agent.fingerprint), now).await?;
    store::agents::insert_certificate(&mut act.tx, agent.pbx_id, &issued.fingerprint, now, issued.expires_at).await?;
    act.detail("renewed", data_encoding::HEXLOWER.encode(&issued.fingerprint));
    Ok(issued.pem)
}

/// What an agent says first.
#[derive(Debug, Clone, Default)]
pub struct Hello {
    /// The agent's version.
    pub agent_version: String,
    /// The machine's host name.
    pub hostname: String,
    /// `asterisk` or `simulated`.
    pub pbx_kind: String,
    /// The PBX's version.
    pub pbx_version: String,
    /// `nftables` or `memory`.
    pub firewall: String,
    /// What it does not enforce, lest it be cut off.
    pub withheld: Vec<Withheld>,
}

/// An agent's stream begins; it replaces an older one of the same PBX.
pub async fn connected(ctx: &Ctx, agent: &Agent, link_id: Uuid, hello: Hello) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    let short = |text: String| -> String { text.chars().filter(|c| !c.is_control()).take(120).collect() };
    let described = Described {
        agent_version: short(hello.agent_version),
        hostname: short(hello.hostname),
        pbx_kind: short(hello.pbx_kind),
        pbx_version: short(hello.pbx_version),
        firewall: short(hello.firewall),
    };
    act.detail("connected", described.agent_version.clone());
    let now = act.now;
    let there = store::agents::connected(&mut act.tx, agent.pbx_id, link_id, &described, now).await?;
    if store::agents::withheld(&mut act.tx, agent.pbx_id, &hello.withheld).await? {
        note_withheld(&mut act, &hello.withheld);
    }
    // The one before it was kept until this one was seen to work.
    if store::agents::revoke_certificates(&mut act.tx, agent.pbx_id, Some(&agent.fingerprint), now).await? > 0 {
        act.detail("certificate", data_encoding::HEXLOWER.encode(&agent.fingerprint));
    }
    act.publish(Topic::Pbxes);
    act.finish(if there { Ok(()) } else { Err(ActError::NotFound) }).await
}

/// An agent's stream ended.
pub async fn disconnected(ctx: &Ctx, agent: &Agent, link_id: Uuid) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    if store::agents::disconnected(&mut act.tx, agent.pbx_id, link_id).await? {
        act.publish(Topic::Pbxes);
    }
    act.finish_quietly().await
}

/// Agents of a tenant are alive, with the stream that each said it on.
pub async fn heard(ctx: &Ctx, tenant: TenantId, beats: &[(PbxId, Uuid, Health)]) -> Result<(), ActError> {
    let now = ctx.now();
    // A PBX whose clock is ahead has proven nothing about the future.
    let beats: Vec<_> = beats
        .iter()
        .map(|(pbx, link, health)| {
            (*pbx, *link, Health { proven_at: health.proven_at.map(|at| at.min(now)), ..*health })
        })
        .collect();
    let mut tx = ctx.store().tenant(tenant).await?;
    store::agents::heard(&mut tx, &beats, now).await?;
    tx.commit().await?;
    Ok(())
}

/// What a node needs to know of a tenant whose agents it serves.
#[derive(Debug)]
pub struct Tenancy {
    /// The revision that the tenant's policy has.
    pub revision: i64,
    /// The certificates that hold, by their fingerprints.
    pub certificates: HashMap<Vec<u8>, Certified>,
}

/// How things stand with a tenant's agents; for a look whether a notification was lost.
pub async fn look(ctx: &Ctx, tenant: TenantId) -> Result<Tenancy, ActError> {
    let mut tx = ctx.store().tenant(tenant).await?;
    let (revision, ..) = store::tenants::policy(&mut tx).await?.ok_or(ActError::NotFound)?;
    let certificates = store::agents::certificates(&mut tx, ctx.now()).await?;
    tx.commit().await?;
    Ok(Tenancy { revision, certificates })
}

/// The agent found something in its firewall that wasn't as it should be.
pub async fn drifted(ctx: &Ctx, agent: &Agent, drift: Drift) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    act.detail("found", drift.found.clone());
    act.detail("repaired", drift.repaired);
    let drift = Drift { at: drift.at.min(act.now), ..drift };
    store::agents::drifted(&mut act.tx, agent.pbx_id, &drift).await?;
    act.publish(Topic::Pbxes);
    act.finish(Ok(())).await
}

/// The policy that the agents of a tenant must enforce.
pub async fn policy(ctx: &Ctx, tenant: TenantId) -> Result<PolicySnapshot, ActError> {
    let now = ctx.now();
    let mut tx = ctx.store().tenant(tenant).await?;
    // Held, so that the revision and the entries are of one moment.
    store::ban_set::hold(&mut tx).await?;
    let (revision, detection, phone_loss_limit) = store::tenants::policy(&mut tx).await?.ok_or(ActError::NotFound)?;
    let allowed = store::allowed_ips::entries(&mut tx, now).await?;
    tx.commit().await?;
    Ok(PolicySnapshot { revision, allowed, detection, phone_loss_limit })
}

/// What an agent needs to hold the tenant's set of bans.
#[derive(Debug, Clone)]
pub enum BanSync {
    /// Nothing.
    Current {
        /// Number of the last change.
        seq: i64,
    },
    /// The changes that it missed.
    Delta {
        /// Number of the first.
        from_seq: i64,
        /// Number of the last.
        to_seq: i64,
        /// Digest after the last.
        digest: BanDigest,
        /// In order.
        changes: Vec<BanChange>,
    },
    /// All of it.
    Snapshot {
        /// Number of the last change.
        seq: i64,
        /// Digest of the set.
        digest: BanDigest,
        /// The set.
        bans: Vec<BanEntry>,
    },
}

/// What an agent that holds the set as of `seq` needs. `digest` is the one it has; `None` asks for the whole set.
pub async fn bans_since(ctx: &Ctx, agent: &Agent, seq: i64, digest: Option<BanDigest>) -> Result<BanSync, ActError> {
    let mut tx = ctx.store().tenant(agent.tenant_id).await?;
    let set = store::ban_set::hold(&mut tx).await?;
    // `seq` is what somebody else says: it may be anything.
    let behind = set.seq.saturating_sub(seq);
    let changes = match digest {
        Some(digest) if behind == 0 && digest == set.digest => {
            tx.commit().await?;
            return Ok(BanSync::Current { seq });
        }
        Some(_) if (1..=MAX_DELTA).contains(&behind) => store::ban_set::changes_after(&mut tx, seq, MAX_DELTA).await?,
        _ => None,
    };
    let sync = match changes {
        Some(changes) if i64::try_from(changes.len()) == Ok(behind) => {
            BanSync::Delta { from_seq: seq + 1, to_seq: set.seq, digest: set.digest, changes }
        }
        _ => {
            let bans = store::blocked_ips::entries(&mut tx).await?;
            let digest = BanDigest::of(&bans);
            if digest != set.digest {
                // Never by us. Agents that hold what the rows say must not be taken for wrong, over and over.
                tracing::error!(tenant.id = %agent.tenant_id, seq = set.seq, "the kept digest of a tenant's bans does not fit the bans; it is set right");
                tx.commit().await?;
                return repair_digest(ctx, agent).await;
            }
            BanSync::Snapshot { seq: set.seq, digest, bans }
        }
    };
    tx.commit().await?;
    Ok(sync)
}

async fn repair_digest(ctx: &Ctx, agent: &Agent) -> Result<BanSync, ActError> {
    let mut tx = ctx.store().tenant(agent.tenant_id).await?;
    let set = store::ban_set::lock(&mut tx).await?;
    let bans = store::blocked_ips::entries(&mut tx).await?;
    let digest = BanDigest::of(&bans);
    store::ban_set::append(&mut tx, &set, &[], digest).await?;
    tx.commit().await?;
    Ok(BanSync::Snapshot { seq: set.seq, digest, bans })
}

/// The agent has applied a policy. Kept only when its digest is the one of that revision: what is shown as enforced is. `took_us` is
/// `None` when it held the policy before. `wanted` is the policy as it was read after that revision was made.
pub async fn policy_applied(
    ctx: &Ctx,
    agent: &Agent,
    revision: i64,
    digest: &[u8],
    took_us: Option<u64>,
    wanted: &PolicySnapshot,
) -> Result<(), ActError> {
    if revision > wanted.revision || (revision == wanted.revision && digest != wanted.digest()) {
        return Ok(());
    }
    let mut act = agent.act(ctx).await?;
    let took_us = took_us.map(|took| i64::try_from(took).unwrap_or(i64::MAX));
    store::agents::policy_applied(&mut act.tx, agent.pbx_id, revision, digest, took_us).await?;
    act.publish(Topic::Pbxes);
    act.finish_quietly().await
}

/// The agent has refused a policy and stays on the last good one.
pub async fn policy_refused(ctx: &Ctx, agent: &Agent, revision: i64, reason: &str) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    let mut reason: String = reason.chars().filter(|c| !c.is_control()).take(500).collect();
    if reason.is_empty() {
        "The agent gave no reason.".clone_into(&mut reason);
    }
    act.subject(&agent.pbx_name);
    act.detail("refused_revision", revision);
    act.detail("reason", reason.clone());
    if !store::agents::policy_refused(&mut act.tx, agent.pbx_id, &reason).await? {
        // Known: what an agent repeats must not fill the log.
        return act.finish_quietly().await;
    }
    act.publish(Topic::Pbxes);
    act.finish(Ok(())).await
}

/// All that the agent does not enforce although it should, lest it be cut off from the server or from its phones.
pub async fn withheld(ctx: &Ctx, agent: &Agent, withheld: &[Withheld]) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    if !store::agents::withheld(&mut act.tx, agent.pbx_id, withheld).await? {
        return act.finish_quietly().await;
    }
    note_withheld(&mut act, withheld);
    act.publish(Topic::Pbxes);
    act.finish(Ok(())).await
}

fn note_withheld(act: &mut Act<'_>, withheld: &[Withheld]) {
    let changes: Vec<String> =
        withheld.iter().map(|withheld| format!("{}: {}", safety::name(&withheld.change), withheld.reason)).collect();
    act.detail("withheld", changes);
}

/// The agent holds the set of bans as of a change. Kept only when its digest is the one of that number; `took_us` is `None`
/// when it held the set before.
pub async fn bans_applied(
    ctx: &Ctx,
    agent: &Agent,
    seq: i64,
    digest: BanDigest,
    took_us: Option<u64>,
) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    let set = store::ban_set::read(&mut act.tx).await?;
    if seq < set.seq || (seq == set.seq && digest == set.digest) {
        let took_us = took_us.map(|took| i64::try_from(took).unwrap_or(i64::MAX));
        store::agents::bans_applied(&mut act.tx, agent.pbx_id, seq, took_us).await?;
        act.publish(Topic::Pbxes);
    }
    act.finish_quietly().await
}

/// Stores a batch of reports, once however often it is sent; answers the number of the last change of the set of bans.
pub async fn report(ctx: &Ctx, agent: &Agent, batch: BatchId, events: Vec<ReportEvent>) -> Result<i64, ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    let now = act.now;
    if !store::agents::insert_batch(&mut act.tx, agent.pbx_id, batch, now).await? {
        let seq = store::ban_set::read(&mut act.tx).await?.seq;
        act.finish_quietly().await?;
        return Ok(seq);
    }
    let kept = store_events(&mut act, agent, events).await?;
    let seq = store::ban_set::read(&mut act.tx).await?.seq;
    if kept == 0 {
        act.finish_quietly().await?;
        return Ok(seq);
    }
    act.detail("batch", batch.to_string());
    act.finish(Ok(seq)).await
}

/// Answers how many bans were kept.
async fn store_events(act: &mut Act<'_>, agent: &Agent, events: Vec<ReportEvent>) -> Result<usize, ActError> {
    if events.iter().any(|event| matches!(event, ReportEvent::Detected(_))) {
        // Before anything is looked up: another PBX, or an administrator, may be about to block or allow the same source.
        store::ban_set::lock(&mut act.tx).await?;
    }
    let mut new_bans = Vec::new();
    let mut attempts = std::collections::BTreeMap::new();
    for event in events {
        match event {
            ReportEvent::Detected(ban) => new_bans.extend(accept(act, agent, ban).await?),
            ReportEvent::Attempts(count) => {
                *attempts.entry(count.minute).or_insert(0i64) += i64::from(count.proven) + i64::from(count.unproven);
            }
        }
    }
    for (minute, count) in attempts {
        store::rollups::add(
            &mut act.tx,
            agent.pbx_id,
            minute.clamp(act.now - time::Duration::days(30), act.now),
            count,
            0,
        )
        .await?;
    }
    for ban in &new_bans {
        store::rollups::add(&mut act.tx, agent.pbx_id, ban.created_at, 0, 1).await?;
    }
    if new_bans.is_empty() {
        return Ok(0);
    }
    blocked_ips::note_networks(act, new_bans.iter().map(|ban| ban.entry.net));
    bans::add(act, &new_bans, &format!("pbx {}", agent.pbx_name)).await?;
    Ok(new_bans.len())
}

/// A reported ban as it is kept; `None` when it was kept before, or when its source has been allowed meanwhile.
async fn accept(act: &mut Act<'_>, agent: &Agent, ban: DetectedBan) -> Result<Option<NewBan>, ActError> {
    if store::blocked_ips::known(&mut act.tx, ban.id).await?
        || net::unusable(&ban.net).is_some()
        || net::source_key(ban.net.addr()) != ban.net
    {
        return Ok(None);
    }
    let now = act.now;
    let allowed = store::allowed_ips::overlapping(&mut act.tx, ban.net, now).await?;
    if allowed.is_some_and(|allowed| allowed.contains(&ban.net)) {
        return Ok(None);
    }
    let expires_at = blocked_ips::whole_seconds(Some(ban.expires_at));
    if let Some((_, holding)) = store::blocked_ips::holding(&mut act.tx, ban.net).await?
        && holding.expires_at.is_none_or(|ends| Some(ends) >= expires_at)
    {
        // Another PBX, or an administrator, was faster and blocks it for at least as long.
        return Ok(None);
    }
    let earlier = store::blocked_ips::times_banned(&mut act.tx, ban.net).await?;
    let times = i32::try_from(earlier + 1).unwrap_or(i32::MAX).max(i32::try_from(ban.times_banned).unwrap_or(i32::MAX));
    Ok(Some(NewBan {
        id: ban.id,
        entry: BanEntry { net: ban.net, expires_at },
        source: BanSource::Detection,
        reason: ban.reason,
        account: Some(ban.account).filter(|account| !account.is_empty()),
        pbx_id: Some(agent.pbx_id),
        blocked_by: None,
        times_banned: times,
        evidence: ban.evidence,
        // A PBX whose clock is ahead does not put bans into the future.
        created_at: ban.at.min(now),
    }))
}

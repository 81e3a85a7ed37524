//! An agent's stream: its beginning and end, and what the agent says of itself on it.

use std::collections::HashMap;

use policy::authz::Operation;
use policy::ids::{PbxId, TenantId};
use policy::metrics::{DRIFTS, WITHHELD};
use policy::safety::{self, Drift, Withheld};
use store::agents::Described;
use uuid::Uuid;

use super::{Agent, Certified, Marks, Told};
use crate::act::{Act, Actor};
use crate::bus::Topic;
use crate::ctx::Ctx;
use crate::error::ActError;

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

/// An agent's stream begins; it replaces an older one of the same PBX. Answers what is written down of what the agent has in force.
pub async fn connected(ctx: &Ctx, agent: &Agent, link_id: Uuid, hello: Hello) -> Result<Told, ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    let result = connected_inner(ctx, &mut act, agent, link_id, hello).await;
    act.finish(result).await
}

async fn connected_inner(
    ctx: &Ctx,
    act: &mut Act<'_>,
    agent: &Agent,
    link_id: Uuid,
    hello: Hello,
) -> Result<Told, ActError> {
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
    let found = store::agents::connected(&mut act.tx, agent.pbx_id, (link_id, ctx.node()), &described, now)
        .await?
        .ok_or(ActError::NotFound)?;
    if found.older_on.is_some_and(|node| node != ctx.node()) {
        // It ends the older stream. After a node was killed a whole fleet comes back, and nobody has to.
        act.raise_roster().await?;
    }
    if (found.withheld_before || !hello.withheld.is_empty())
        && store::agents::withheld(&mut act.tx, agent.pbx_id, &hello.withheld).await?
    {
        note_withheld(act, &hello.withheld);
    }
    // The one before it was kept until this one was seen to work.
    if found.several_certificates
        && store::agents::revoke_certificates(&mut act.tx, agent.pbx_id, Some(&agent.fingerprint), now).await? > 0
    {
        act.detail("certificate", data_encoding::HEXLOWER.encode(&agent.fingerprint));
        act.raise_roster().await?;
    }
    act.publish(Topic::Pbxes);
    Ok(found.written)
}

/// An agent's stream is ended by another one of the same PBX while its agent is there: two machines have one certificate.
pub async fn taken_over(ctx: &Ctx, agent: &Agent) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    act.detail(
        "another_agent",
        "Another machine has connected with this PBX's certificate while this one was connected. A copy of a PBX must be enrolled as one of \
         its own; if it isn't yours, connect this PBX anew.",
    );
    act.finish(Ok(())).await
}

/// An agent's stream ended.
pub async fn disconnected(ctx: &Ctx, agent: &Agent, link_id: Uuid) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    let now = act.now;
    if store::agents::disconnected(&mut act.tx, agent.pbx_id, link_id, now).await? {
        act.publish(Topic::Pbxes);
    }
    act.finish_quietly().await
}

/// Writes down what agents of a tenant have told of themselves, with the stream that each said it on. After a crash of the database it
/// has to be told again.
pub async fn told(ctx: &Ctx, tenant: TenantId, told: &[(PbxId, Uuid, Told)]) -> Result<(), ActError> {
    let actor = Actor { tenant_id: tenant, name: "pbxes".to_owned(), address: None };
    let mut act = Act::begin_as(ctx, actor, Operation::LinkAgent).await?;
    act.tx.may_be_lost().await?;
    let now = act.now;
    // A PBX whose clock is ahead has proven nothing about the future.
    let checked = told.iter().map(|(pbx, link, told)| {
        let health =
            told.health.map(|health| super::Health { proven_at: health.proven_at.map(|at| at.min(now)), ..health });
        (*pbx, *link, Told { health, ..*told })
    });
    store::agents::told(&mut act.tx, &checked.collect::<Vec<_>>()).await?;
    act.publish(Topic::Pbxes);
    act.finish_quietly().await
}

/// What a node needs to know of a tenant whose agents it serves.
#[derive(Debug)]
pub struct Tenancy {
    /// The certificates that hold, by their fingerprints.
    pub certificates: HashMap<Vec<u8>, Certified>,
}

/// How things stand with a tenant's agents.
pub async fn look(ctx: &Ctx, tenant: TenantId) -> Result<Tenancy, ActError> {
    let mut tx = ctx.store().tenant_for_agents(tenant).await?;
    let certificates = store::agents::certificates(&mut tx, ctx.now()).await?;
    tx.commit().await?;
    Ok(Tenancy { certificates })
}

/// Where tenants stand; for a look whether a notification was lost.
pub async fn marks(ctx: &Ctx, tenants: &[TenantId]) -> Result<Vec<Marks>, ActError> {
    Ok(store::nodes::marks(ctx.store(), tenants).await?)
}

/// The agent found something in its firewall that wasn't as it should be.
pub async fn drifted(ctx: &Ctx, agent: &Agent, drift: Drift) -> Result<(), ActError> {
    let mut act = agent.act(ctx).await?;
    act.subject(&agent.pbx_name);
    act.detail("found", drift.found.clone());
    act.detail("repaired", drift.repaired);
    act.count(&DRIFTS, if drift.repaired { "yes" } else { "no" }, 1);
    let drift = Drift { at: drift.at.min(act.now), ..drift };
    store::agents::drifted(&mut act.tx, agent.pbx_id, &drift).await?;
    act.publish(Topic::Pbxes);
    act.finish(Ok(())).await
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
    for change in withheld {
        act.count(&WITHHELD, if change.rolled_back { "yes" } else { "no" }, 1);
    }
    let changes: Vec<String> =
        withheld.iter().map(|withheld| format!("{}: {}", safety::name(&withheld.change), withheld.reason)).collect();
    act.detail("withheld", changes);
}

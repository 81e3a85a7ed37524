//! PBXes: add, connect, rename, revoke, remove; how many phones a change may cost before they take it back.

use policy::authz::Operation;
use policy::ids::PbxId;
use policy::pbxes::{EnrolmentCommand, Pbx};
use policy::people;
use policy::safety::{PhoneLossLimit, parse_phone_loss_limit};
use time::Duration;
use uuid::Uuid;

use crate::act::Act;
use crate::bus::Topic;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::enrolment_token::Claims;
use crate::error::ActError;

const TOKEN_HOURS: i64 = 1;

/// All PBXes by name.
pub async fn list(ctx: &Ctx, caller: &Caller) -> Result<Vec<Pbx>, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListPbxes).await?;
    let now = act.now;
    let pbxes = store::pbxes::list(&mut act.tx, now).await?;
    act.finish(Ok(pbxes)).await
}

/// Adds a PBX; the command that connects it is shown once.
pub async fn add(ctx: &Ctx, caller: &Caller, name: String) -> Result<EnrolmentCommand, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::AddPbx).await?;
    let result = add_inner(ctx, &mut act, &name).await;
    act.finish(result).await
}

async fn add_inner(ctx: &Ctx, act: &mut Act<'_>, name: &str) -> Result<EnrolmentCommand, ActError> {
    act.subject(name.chars().take(80).collect::<String>());
    let name = people::parse_name(name).map_err(|message| ActError::field("name", message))?;
    let id = PbxId(Uuid::now_v7());
    let now = act.now;
    store::pbxes::insert(&mut act.tx, id, &name, now).await?;
    command(ctx, act, id, name).await
}

/// A new command for a PBX; one made before stops working. An agent that enrols with it takes the place of the one before.
pub async fn renew_enrolment(ctx: &Ctx, caller: &Caller, id: PbxId) -> Result<EnrolmentCommand, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::RenewEnrolment).await?;
    act.subject(id);
    let result = match store::pbxes::name(&mut act.tx, id).await? {
        None => Err(ActError::NotFound),
        Some(name) => {
            act.subject(&name);
            command(ctx, &mut act, id, name).await
        }
    };
    act.finish(result).await
}

async fn command(ctx: &Ctx, act: &mut Act<'_>, id: PbxId, pbx_name: String) -> Result<EnrolmentCommand, ActError> {
    let expires_at = act.now + Duration::hours(TOKEN_HOURS);
    let claims = Claims {
        jti: Uuid::new_v4(),
        tenant: act.tx.tenant(),
        pbx: id,
        exp: expires_at.unix_timestamp(),
        ca: ctx.ca().fingerprint_hex(),
        server: ctx.settings().agent_address.clone(),
    };
    if !store::pbxes::set_token(&mut act.tx, id, claims.jti, expires_at).await? {
        return Err(ActError::Refused(
            "This PBX was revoked, and a revoked one never comes back. Add it anew.".to_owned(),
        ));
    }
    act.publish(Topic::Pbxes);
    let command = format!("ringfence-agent enrol --token {}", ctx.token_key().sign(&claims)?);
    Ok(EnrolmentCommand { pbx_id: id, pbx_name, command, expires_at })
}

/// Renames a PBX.
pub async fn rename(ctx: &Ctx, caller: &Caller, id: PbxId, name: String) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::RenamePbx).await?;
    let result = rename_inner(&mut act, id, &name).await;
    act.finish(result).await
}

async fn rename_inner(act: &mut Act<'_>, id: PbxId, name: &str) -> Result<(), ActError> {
    act.subject(id);
    let name = people::parse_name(name).map_err(|message| ActError::field("name", message))?;
    act.raise_roster().await?;
    let before = store::pbxes::rename(&mut act.tx, id, &name).await?.ok_or(ActError::NotFound)?;
    act.subject(&name);
    act.detail("before", before);
    act.publish(Topic::Pbxes);
    Ok(())
}

/// Revokes a PBX for good: its stream is cut, its certificate never works again. It goes on enforcing what it has.
pub async fn revoke(ctx: &Ctx, caller: &Caller, id: PbxId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::RevokePbx).await?;
    let result = revoke_inner(&mut act, id).await;
    act.finish(result).await
}

async fn revoke_inner(act: &mut Act<'_>, id: PbxId) -> Result<(), ActError> {
    act.subject(id);
    let name = store::pbxes::name(&mut act.tx, id).await?.ok_or(ActError::NotFound)?;
    act.subject(name);
    act.raise_roster().await?;
    let now = act.now;
    if !store::pbxes::revoke(&mut act.tx, id, now).await? {
        return Err(ActError::Refused("This PBX was revoked before.".to_owned()));
    }
    act.publish(Topic::Pbxes);
    Ok(())
}

/// Removes a PBX and what is known of it; bans that it detected stay.
pub async fn remove(ctx: &Ctx, caller: &Caller, id: PbxId) -> Result<(), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::RemovePbx).await?;
    let result = remove_inner(&mut act, id).await;
    act.finish(result).await
}

async fn remove_inner(act: &mut Act<'_>, id: PbxId) -> Result<(), ActError> {
    act.subject(id);
    let name = store::pbxes::name(&mut act.tx, id).await?.ok_or(ActError::NotFound)?;
    act.subject(name);
    act.raise_roster().await?;
    store::pbxes::remove(&mut act.tx, id).await?;
    act.publish(Topic::Pbxes);
    Ok(())
}

/// How many phones a change may cost before PBXes take it back.
pub async fn phone_loss_limit(ctx: &Ctx, caller: &Caller) -> Result<PhoneLossLimit, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ShowPhoneLossLimit).await?;
    let policy = store::tenants::policy(&mut act.tx).await?;
    act.finish(policy.map(|(_, _, limit)| limit).ok_or(ActError::NotFound)).await
}

/// Sets that limit, typed as a whole number of percent. PBXes get it with the next revision of the policy.
pub async fn set_phone_loss_limit(ctx: &Ctx, caller: &Caller, percent: String) -> Result<PhoneLossLimit, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::SetPhoneLossLimit).await?;
    let result = set_phone_loss_limit_inner(&mut act, &percent).await;
    act.finish(result).await
}

async fn set_phone_loss_limit_inner(act: &mut Act<'_>, percent: &str) -> Result<PhoneLossLimit, ActError> {
    let limit = parse_phone_loss_limit(percent).map_err(|message| ActError::field("percent", message))?;
    act.subject(format!("{} %", limit.percent()));
    let before = store::tenants::set_phone_loss_limit(&mut act.tx, limit).await?;
    act.detail("before", before.percent());
    act.publish(Topic::Pbxes);
    act.raise_revision().await?;
    Ok(limit)
}

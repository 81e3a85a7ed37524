//! How an agent gets its certificate, and the next one.

use std::net::IpAddr;

use policy::authz::Operation;
use policy::ids::PbxId;
use uuid::Uuid;

use super::Agent;
use crate::act::{Act, Actor};
use crate::bus::Topic;
use crate::ctx::{Ctx, INSTALLATION};
use crate::error::ActError;

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
    act.raise_roster().await?;
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

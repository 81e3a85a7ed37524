//! The demo tenant of `make run`: a login that is known, and a PBX to connect a simulated agent to. For development only.

use std::net::{IpAddr, Ipv4Addr};

use policy::account::Stage;
use policy::authz::Role;
use policy::ids::{PbxId, TenantId, UserId};
use serde::{Deserialize, Serialize};
use store::people::SignUp;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::caller::{Caller, Login, Visitor};
use crate::ctx::{Ctx, secret};
use crate::error::ActError;
use crate::{allowed_ips, pbxes, sign_up, tokens, totp};

const EMAIL: &str = "demo@ringfence.example";
const PBX: &str = "hq";

/// What the person who runs the demo needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Demo {
    /// E-mail address.
    pub email: String,
    /// Password.
    pub password: String,
    /// TOTP key, base32.
    pub totp_secret: String,
    /// With which an agent enrols as the demo PBX; `None` when one has.
    pub enrolment_token: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    tenant: TenantId,
    user: UserId,
    password: String,
}

/// Makes the demo tenant the first time, and tells its login every time.
///
/// # Errors
/// When the installation sends real mail: a known login has no place there.
pub async fn seed(ctx: &Ctx) -> Result<Demo, ActError> {
    if !ctx.settings().development_mailbox {
        return Err(ActError::Refused("The demo tenant is for development only (development.mailbox).".to_owned()));
    }
    let kept = secret(ctx.store(), ctx.master_key(), "demo-login", ctx.now(), || {
        let password = tokens::link_token().chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        let kept = Kept { tenant: TenantId(Uuid::now_v7()), user: UserId(Uuid::now_v7()), password };
        serde_json::to_vec(&kept).map(Zeroizing::new).map_err(ActError::internal)
    })
    .await?;
    let kept: Kept = serde_json::from_slice(&kept).map_err(ActError::internal)?;
    let mut tx = ctx.store().platform().await?;
    let there = store::people::by_id(&mut tx, kept.user).await?.is_some();
    tx.commit().await?;
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if !there {
        let password_hash = ctx.passwords().hash(&kept.password).await?;
        let sign_up = SignUp {
            organisation: "Demo Telecom".to_owned(),
            slug: "demo".to_owned(),
            email: EMAIL.to_owned(),
            password_hash,
        };
        let tx = ctx.store().tenant(kept.tenant).await?;
        sign_up::create(ctx, tx, address, kept.user, &sign_up).await?;
    }
    let totp_secret = set_up_totp(ctx, kept.user, address).await?;
    let caller = Caller {
        user_id: kept.user,
        email: EMAIL.to_owned(),
        tenant_id: kept.tenant,
        role: Role::SuperAdministrator,
        address,
        proven_at: None,
    };
    let enrolment_token = enrolment(ctx, &caller).await?;
    Ok(Demo { email: EMAIL.to_owned(), password: kept.password, totp_secret, enrolment_token })
}

async fn set_up_totp(ctx: &Ctx, user: UserId, address: IpAddr) -> Result<String, ActError> {
    if let Some(secret) = totp::demo_secret(ctx, user).await? {
        return Ok(secret);
    }
    let login = Login::lacking(Stage::NeedsTotpSetup, user);
    let (login, setup) = totp::begin(ctx, &Visitor { address, login: Some(login) }).await?;
    let code = totp::demo_code(ctx, &setup.key)?;
    totp::confirm(ctx, &Visitor { address, login: Some(login) }, &code).await?;
    totp::demo_secret(ctx, user).await?.ok_or_else(|| ActError::internal("the demo's TOTP seed is missing"))
}

/// The demo PBX's token, unless an agent has enrolled; and, the first time, an address that is allowed.
async fn enrolment(ctx: &Ctx, caller: &Caller) -> Result<Option<String>, ActError> {
    let there = pbxes::list(ctx, caller).await?.into_iter().find(|pbx| pbx.name == PBX);
    let command = match there {
        Some(pbx) if pbx.agent_version.is_empty() => pbxes::renew_enrolment(ctx, caller, PbxId(pbx.id.0)).await?,
        Some(_) => return Ok(None),
        None => {
            let form = policy::allowed_ips::AllowedIpForm {
                target: "192.0.2.0/24".to_owned(),
                note: "Main office".to_owned(),
                expires_at: String::new(),
            };
            allowed_ips::add(ctx, caller, form, false).await?;
            pbxes::add(ctx, caller, PBX.to_owned()).await?
        }
    };
    Ok(command.command.split_whitespace().last().map(str::to_owned))
}

/// An agent of a simulated fleet.
#[derive(Clone, Serialize)]
pub struct FleetMember {
    /// Where agents reach the server, `host:port`.
    pub server: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Client certificate, PEM.
    pub certificate_pem: String,
    /// The server's CA, PEM.
    pub ca_pem: String,
}

/// Makes a tenant with so many enrolled PBXes, to measure an installation with; nobody can log in to it.
///
/// # Errors
/// When the installation is not for development.
pub async fn fleet(ctx: &Ctx, tenant: usize, agents: usize) -> Result<Vec<FleetMember>, ActError> {
    if !ctx.settings().development_mailbox {
        return Err(ActError::Refused("A simulated fleet is for development only (development.mailbox).".to_owned()));
    }
    let (id, address) = (TenantId(Uuid::now_v7()), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let sign_up = SignUp {
        organisation: format!("Fleet {tenant}"),
        slug: format!("fleet-{}", id.0.simple()),
        email: format!("fleet-{}@ringfence.example", id.0.simple()),
        // No password has this hash.
        password_hash: "-".to_owned(),
    };
    sign_up::create(ctx, ctx.store().tenant(id).await?, address, UserId(Uuid::now_v7()), &sign_up).await?;
    let now = ctx.now();
    let mut tx = ctx.store().tenant(id).await?;
    let mut members = Vec::with_capacity(agents);
    for number in 0..agents {
        let (pbx, token) = (PbxId(Uuid::now_v7()), Uuid::new_v4());
        store::pbxes::insert(&mut tx, pbx, &format!("pbx {number}"), now).await?;
        store::pbxes::set_token(&mut tx, pbx, token, now + time::Duration::HOUR).await?;
        store::pbxes::use_token(&mut tx, pbx, token, now).await?;
        let key = rcgen::KeyPair::generate().map_err(ActError::internal)?;
        let request = rcgen::CertificateParams::default().serialize_request(&key).and_then(|request| request.pem());
        let issued = ctx.ca().issue(&request.map_err(ActError::internal)?, id, pbx, now)?;
        store::agents::insert_certificate(&mut tx, pbx, &issued.fingerprint, now, issued.expires_at).await?;
        members.push(FleetMember {
            server: ctx.settings().agent_address.clone(),
            key_pem: key.serialize_pem(),
            certificate_pem: issued.pem,
            ca_pem: ctx.ca().pem().to_owned(),
        });
    }
    tx.commit().await?;
    Ok(members)
}

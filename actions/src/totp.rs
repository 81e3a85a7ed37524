//! TOTP (RFC 6238): set-up with proof, codes that are accepted once, recovery codes.

use policy::account::{Stage, TotpSetup};
use policy::authz::Operation;
use policy::ids::UserId;
use store::people::User;
use totp_rs::{Builder, Secret, Totp};

use crate::caller::{Login, Visitor};
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{account, tokens};

/// Recovery codes given at set-up.
pub const RECOVERY_CODES: usize = 10;

/// Begins the set-up of the person who is logged in up to the password: a new seed, as QR code and as text.
pub async fn begin(ctx: &Ctx, visitor: &Visitor) -> Result<TotpSetup, ActError> {
    let user = setting_up(ctx, visitor).await?;
    // Reloading the page must not make the code that was just scanned useless.
    let totp = if let Some((sealed, key_id)) = &user.totp {
        totp(ctx, &user, sealed, key_id)?
    } else {
        let secret = Secret::generate();
        let sealed = ctx.master_key().seal(&seed_name(user.id), secret.to_base32().as_bytes())?;
        let mut tx = ctx.store().platform().await?;
        store::people::begin_totp(&mut tx, user.id, &sealed, ctx.master_key().id()).await?;
        tx.commit().await?;
        build(secret, &user.email)?
    };
    let key = secret_text(&totp)?;
    let groups: Vec<String> =
        key.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    let qr_png_base64 = totp.to_qr_base64().map_err(|error| ActError::internal(format!("{error:?}")))?;
    account::log_person(ctx, visitor, &user, Operation::BeginTotp).await?;
    Ok(TotpSetup { qr_png_base64, key: groups.join(" ") })
}

/// Proves the set-up with a code: the login is complete, and there are ten recovery codes.
pub async fn confirm(ctx: &Ctx, visitor: &Visitor, code: &str) -> Result<(Login, Vec<String>), ActError> {
    let user = setting_up(ctx, visitor).await?;
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| tokens::recovery_code()).collect();
    let result = account::guarded(ctx, user.id, prove(ctx, &user, code, &codes)).await;
    let login = account::complete(ctx, visitor, &user, Operation::ConfirmTotp, result).await?;
    Ok((login, codes))
}

async fn prove(ctx: &Ctx, user: &User, code: &str, codes: &[String]) -> Result<bool, ActError> {
    let Some(step) = matching_step(ctx, user, code)? else { return Ok(false) };
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| tokens::recovery_hash(user.id.0, code)).collect();
    let mut tx = ctx.store().platform().await?;
    let proven = store::people::use_totp_step(&mut tx, user.id, step).await?
        && store::people::confirm_totp(&mut tx, user.id, ctx.now()).await?;
    if proven {
        store::people::set_recovery_codes(&mut tx, user.id, &hashes).await?;
    }
    tx.commit().await?;
    Ok(proven)
}

/// Whether a code is right and was not used before; uses it up.
pub(crate) async fn use_code(ctx: &Ctx, user: &User, code: &str) -> Result<bool, ActError> {
    let Some(step) = matching_step(ctx, user, code)? else { return Ok(false) };
    let mut tx = ctx.store().platform().await?;
    let fresh = store::people::use_totp_step(&mut tx, user.id, step).await?;
    tx.commit().await?;
    Ok(fresh)
}

fn matching_step(ctx: &Ctx, user: &User, code: &str) -> Result<Option<i64>, ActError> {
    let Some((sealed, key_id)) = &user.totp else { return Ok(None) };
    let code: String = code.chars().filter(char::is_ascii_digit).take(8).collect();
    let now = u64::try_from(ctx.now().unix_timestamp()).map_err(ActError::internal)?;
    let step = totp(ctx, user, sealed, key_id)?.check(&code, now);
    step.map(|step| i64::try_from(step).map_err(ActError::internal)).transpose()
}

async fn setting_up(ctx: &Ctx, visitor: &Visitor) -> Result<User, ActError> {
    let login = visitor.person()?;
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    if login.stage != Stage::NeedsTotpSetup || user.totp_confirmed {
        return Err(ActError::Refused("The second factor is set up already. Log in with a code.".to_owned()));
    }
    Ok(user)
}

fn totp(ctx: &Ctx, user: &User, sealed: &[u8], key_id: &str) -> Result<Totp, ActError> {
    let seed = ctx.master_key().open(&seed_name(user.id), key_id, sealed)?;
    let text = std::str::from_utf8(&seed).map_err(ActError::internal)?;
    let secret = Secret::try_from_base32(text).map_err(|error| ActError::internal(format!("{error:?}")))?;
    build(secret, &user.email)
}

/// Six digits, 30 s, one step of clock skew either way.
fn build(secret: Secret, email: &str) -> Result<Totp, ActError> {
    Builder::new()
        .with_secret(secret)
        .with_skew(1)
        .with_issuer(Some("Ringfence"))
        .with_account_name(email)
        .build()
        .map_err(|error| ActError::internal(format!("{error:?}")))
}

fn secret_text(totp: &Totp) -> Result<String, ActError> {
    let url = totp.to_url().map_err(|error| ActError::internal(format!("{error:?}")))?;
    let secret = url.split(['?', '&']).find_map(|part| part.strip_prefix("secret="));
    secret.map(str::to_owned).ok_or_else(|| ActError::internal("a TOTP URL without its secret"))
}

/// The name under which a person's seed is sealed.
fn seed_name(user: UserId) -> String {
    format!("totp {user}")
}

/// The TOTP key of the demo's person, once its set-up is complete or begun.
pub(crate) async fn demo_secret(ctx: &Ctx, user: UserId) -> Result<Option<String>, ActError> {
    let Some(totp) = demo_totp(ctx, user).await? else { return Ok(None) };
    secret_text(&totp).map(Some)
}

/// A code of the demo's person.
pub(crate) async fn demo_code(ctx: &Ctx, user: UserId) -> Result<String, ActError> {
    let totp = demo_totp(ctx, user).await?.ok_or_else(|| ActError::internal("the demo has no TOTP seed"))?;
    let now = u64::try_from(ctx.now().unix_timestamp()).map_err(ActError::internal)?;
    // The step before: the one of this moment stays free for the person's first login.
    Ok(totp.generate(now.saturating_sub(30)).to_string())
}

async fn demo_totp(ctx: &Ctx, user: UserId) -> Result<Option<Totp>, ActError> {
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, user).await?;
    tx.commit().await?;
    let Some(user) = user else { return Ok(None) };
    let Some((sealed, key_id)) = &user.totp else { return Ok(None) };
    totp(ctx, &user, sealed, key_id).map(Some)
}

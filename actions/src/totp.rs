//! TOTP (RFC 6238): set-up with proof, codes that are accepted once, recovery codes.

use data_encoding::BASE64;
use policy::account::{Stage, TotpSetup};
use policy::authz::Operation;
use policy::ids::UserId;
use store::people::User;
use totp_rs::{Builder, Secret, Totp};

use crate::caller::{Login, UnprovenSeed, Visitor};
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{account, tokens};

/// Recovery codes given at set-up.
pub const RECOVERY_CODES: usize = 10;

/// Begins the set-up of the person who is logged in up to the password: a seed, as QR code and as text. The same one for the
/// same session, since reloading the page must not make the code that was just scanned useless, and another one for each
/// other session. The session must keep the login that this gives.
pub async fn begin(ctx: &Ctx, visitor: &Visitor) -> Result<(Login, TotpSetup), ActError> {
    let (mut login, user) = setting_up(ctx, visitor).await?;
    let totp = if let Some(seed) = &login.setup {
        unproven(ctx, &user, seed)?
    } else {
        let secret = Secret::generate();
        let sealed = ctx.master_key().seal(&seed_name(user.id), secret.to_base32().as_bytes())?;
        let key_id = ctx.master_key().id().to_owned();
        login.setup = Some(UnprovenSeed { sealed: BASE64.encode(&sealed), key_id });
        build(secret, &user.email)?
    };
    let key = secret_text(&totp)?;
    let groups: Vec<String> =
        key.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    let qr_png_base64 = totp.to_qr_base64().map_err(|error| ActError::internal(format!("{error:?}")))?;
    account::log_person(ctx, visitor, &user, Operation::BeginTotp).await?;
    Ok((login, TotpSetup { qr_png_base64, key: groups.join(" ") }))
}

/// Proves the set-up with a code: the login is complete, all other sessions of the person end, and there are ten recovery codes.
pub async fn confirm(ctx: &Ctx, visitor: &Visitor, code: &str) -> Result<(Login, Vec<String>), ActError> {
    let (login, user) = setting_up(ctx, visitor).await?;
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| tokens::recovery_code()).collect();
    // Before anything is kept: who has lost her access meanwhile would never see her recovery codes.
    let result = match (account::first_tenant(ctx, &user).await, &login.setup) {
        (Err(error), _) => Err(error),
        (Ok(_), Some(seed)) => account::guarded(ctx, user.id, prove(ctx, &user, seed, code, &codes)).await,
        (Ok(_), None) => Err(ActError::Refused("Load this page again and scan the code first.".to_owned())),
    };
    let login = account::complete(ctx, visitor, &user, Operation::ConfirmTotp, result).await?;
    Ok((login, codes))
}

async fn prove(ctx: &Ctx, user: &User, seed: &UnprovenSeed, code: &str, codes: &[String]) -> Result<bool, ActError> {
    let Some(step) = matching_step(ctx, &unproven(ctx, user, seed)?, code)? else { return Ok(false) };
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| tokens::recovery_hash(user.id.0, code)).collect();
    let sealed = BASE64.decode(seed.sealed.as_bytes()).map_err(ActError::internal)?;
    let mut tx = ctx.store().platform().await?;
    let kept = store::people::set_totp(&mut tx, user.id, &sealed, &seed.key_id, step, ctx.now()).await?;
    if kept {
        store::people::set_recovery_codes(&mut tx, user.id, &hashes).await?;
        store::sessions::delete_of_user(&mut tx, user.id, ctx.now()).await?;
    }
    tx.commit().await?;
    Ok(kept)
}

/// Whether a code is right and was not used before; uses it up.
pub(crate) async fn use_code(ctx: &Ctx, user: &User, code: &str) -> Result<bool, ActError> {
    let Some(totp) = proven(ctx, user)? else { return Ok(false) };
    let Some(step) = matching_step(ctx, &totp, code)? else { return Ok(false) };
    let mut tx = ctx.store().platform().await?;
    let fresh = store::people::use_totp_step(&mut tx, user.id, step).await?;
    tx.commit().await?;
    Ok(fresh)
}

/// The step of time whose code this is.
fn matching_step(ctx: &Ctx, totp: &Totp, code: &str) -> Result<Option<i64>, ActError> {
    let code: String = code.chars().filter(char::is_ascii_digit).take(8).collect();
    let now = u64::try_from(ctx.now().unix_timestamp()).map_err(ActError::internal)?;
    totp.check(&code, now).map(|step| i64::try_from(step).map_err(ActError::internal)).transpose()
}

async fn setting_up(ctx: &Ctx, visitor: &Visitor) -> Result<(Login, User), ActError> {
    let login = visitor.person()?;
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    if login.stage != Stage::NeedsTotpSetup || user.totp.is_some() {
        return Err(ActError::Refused("The second factor is set up already. Log in with a code.".to_owned()));
    }
    Ok((login.clone(), user))
}

/// The proven seed of a person.
fn proven(ctx: &Ctx, user: &User) -> Result<Option<Totp>, ActError> {
    user.totp.as_ref().map(|(sealed, key_id)| totp(ctx, user, sealed, key_id)).transpose()
}

fn unproven(ctx: &Ctx, user: &User, seed: &UnprovenSeed) -> Result<Totp, ActError> {
    totp(ctx, user, &BASE64.decode(seed.sealed.as_bytes()).map_err(ActError::internal)?, &seed.key_id)
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

/// The TOTP key of the demo's person, once its set-up is complete.
pub(crate) async fn demo_secret(ctx: &Ctx, user: UserId) -> Result<Option<String>, ActError> {
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, user).await?.ok_or(ActError::NotFound)?;
    tx.commit().await?;
    proven(ctx, &user)?.map(|totp| secret_text(&totp)).transpose()
}

/// A code of the demo's person, who is setting up a key.
pub(crate) fn demo_code(ctx: &Ctx, key: &str) -> Result<String, ActError> {
    let secret =
        Secret::try_from_base32(key.replace(' ', "")).map_err(|error| ActError::internal(format!("{error:?}")))?;
    let now = u64::try_from(ctx.now().unix_timestamp()).map_err(ActError::internal)?;
    // The step before: the one of this moment stays free for the person's first login.
    Ok(build(secret, "demo")?.generate(now.saturating_sub(30)).to_string())
}

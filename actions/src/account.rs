//! Login and logout, who a session is, switching tenants.

use policy::account::{Me, Membership, PasswordStrength, Stage};
use policy::authz::{Operation, Permission};
use policy::ids::{TenantId, UserId};
use policy::metrics::LOGIN_FAILURES;
use policy::people;
use store::people::User;
use tokio::time::{Duration, Instant, sleep_until};

use crate::act::{Act, Actor};
use crate::bus::{self, Topic};
use crate::caller::{Login, Visitor};
use crate::ctx::{Ctx, INSTALLATION};
use crate::error::ActError;
use crate::{guesses, login_guard, tokens, totp};

/// What a wrong e-mail address and a wrong password are both told.
const WRONG: &str = "E-mail address or password is wrong. Check both, or set a new password.";
/// What a wrong, old or used code is told.
const WRONG_CODE: &str = "This code is wrong or was used before. Wait for the next one and type it as it is shown.";
/// What somebody is told who is in no organisation any more.
const NO_ACCESS: &str =
    "You have no access to any organisation: it was suspended or removed. Ask an administrator of your organisation.";
/// Answers that must not tell by their time whether an e-mail address is known come no sooner than this.
pub(crate) const EVEN: Duration = Duration::from_millis(200);

/// Who the session is and what it still lacks.
pub async fn me(ctx: &Ctx, visitor: &Visitor) -> Result<Me, ActError> {
    let mut me = Me {
        stage: Stage::SignedOut,
        email: String::new(),
        current: None,
        tenants: Vec::new(),
        permissions: Vec::new(),
        address: visitor.address.to_string(),
        development_mailbox: ctx.settings().development_mailbox,
    };
    let Ok(login) = visitor.person() else { return Ok(me) };
    let mut tx = ctx.store().person(login.user_id).await?;
    let Some(user) = store::people::by_id(&mut tx, login.user_id).await? else { return Ok(me) };
    me.stage = login.stage;
    me.email = user.email;
    if login.stage == Stage::SignedIn {
        me.tenants = store::people::memberships(&mut tx, login.user_id).await?;
        me.current = me.tenants.iter().find(|membership| Some(membership.tenant_id) == login.tenant_id).cloned();
        let Some(current) = &me.current else { return Ok(Me { stage: Stage::SignedOut, ..me }) };
        me.permissions = Permission::ALL.into_iter().filter(|permission| current.role.may(*permission)).collect();
    }
    tx.commit().await?;
    Ok(me)
}

/// How strong a password is; `words` are what it should not contain.
pub async fn password_strength(ctx: &Ctx, password: &str, words: &[String]) -> Result<PasswordStrength, ActError> {
    ctx.passwords().strength(password, words).await
}

/// Checks e-mail address and password; the second factor is still to come. A wrong address takes as long as a wrong password,
/// though the log of a known one takes longer to write. `pass` is the token of the link that is mailed to whoever has to wait.
pub async fn log_in(
    ctx: &Ctx,
    visitor: &Visitor,
    email: &str,
    password: &str,
    pass: Option<&str>,
) -> Result<Login, ActError> {
    let email = people::parse_email(email).map_err(|message| ActError::field("email", message))?;
    login_guard::turn_away(ctx, &email, visitor.address, pass)?;
    let begun = Instant::now();
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_email(&mut tx, &email).await?;
    tx.commit().await?;
    let made = match login_guard::begin(ctx, &email, user.as_ref(), visitor.address, pass).await {
        Ok(made) => made,
        Err(error) => {
            sleep_until(begun + EVEN).await;
            return Err(error);
        }
    };
    let right = ctx.passwords().verify(password, user.as_ref().map(|user| user.password_hash.as_str())).await?;
    match user {
        Some(user) if right => {
            login_guard::right(ctx, &made).await?;
            let stage = if user.totp.is_some() { Stage::NeedsCode } else { Stage::NeedsTotpSetup };
            let login = Login::lacking(stage, user.id);
            audit_login(ctx, visitor, Some(&user), &email, Operation::LogIn, Ok(login)).await
        }
        user => {
            let error = ActError::field("password", WRONG);
            login_guard::wrong(ctx, made, visitor.address);
            let refused = audit_login(ctx, visitor, user.as_ref(), &email, Operation::LogIn, Err(error)).await;
            sleep_until(begun + EVEN).await;
            refused
        }
    }
}

/// Completes a login with a TOTP code. A code is accepted once.
pub async fn log_in_code(ctx: &Ctx, visitor: &Visitor, code: &str) -> Result<Login, ActError> {
    let user = waiting_for_code(ctx, visitor).await?;
    let result = guarded(ctx, user.id, totp::use_code(ctx, &user, code)).await;
    complete(ctx, visitor, &user, Operation::LogInCode, result).await
}

/// Completes a login with a recovery code, which is used up by it.
pub async fn log_in_recovery_code(ctx: &Ctx, visitor: &Visitor, code: &str) -> Result<Login, ActError> {
    let user = waiting_for_code(ctx, visitor).await?;
    let result = guarded(ctx, user.id, use_recovery_code(ctx, user.id, code)).await;
    complete(ctx, visitor, &user, Operation::LogInRecoveryCode, result).await
}

async fn waiting_for_code(ctx: &Ctx, visitor: &Visitor) -> Result<User, ActError> {
    let login = visitor.person()?;
    if login.stage != Stage::NeedsCode {
        return Err(ActError::SignedOut);
    }
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    Ok(user)
}

async fn use_recovery_code(ctx: &Ctx, user: UserId, code: &str) -> Result<bool, ActError> {
    let mut tx = ctx.store().platform().await?;
    let fresh =
        store::people::use_recovery_code(&mut tx, user, &tokens::recovery_hash(user.0, code), ctx.now()).await?;
    tx.commit().await?;
    Ok(fresh)
}

/// Lets a person try a code unless she has tried too many wrong ones.
pub(crate) async fn guarded(
    ctx: &Ctx,
    user: UserId,
    check: impl Future<Output = Result<bool, ActError>>,
) -> Result<(), ActError> {
    let subject = guesses::code(user);
    guesses::begin(ctx, &subject).await?;
    if check.await? { guesses::right(ctx, &subject).await } else { Err(ActError::field("code", WRONG_CODE)) }
}

/// The complete login of a person whose second factor was right, in the first of her tenants.
pub(crate) async fn complete(
    ctx: &Ctx,
    visitor: &Visitor,
    user: &User,
    operation: Operation,
    result: Result<(), ActError>,
) -> Result<Login, ActError> {
    let result = match result {
        Ok(()) => enter(ctx, user).await,
        Err(error) => Err(error),
    };
    audit_login(ctx, visitor, Some(user), &user.email, operation, result).await
}

async fn enter(ctx: &Ctx, user: &User) -> Result<Login, ActError> {
    let tenant_id = first_tenant(ctx, user).await?;
    if let Some(tenant_id) = tenant_id {
        let mut tx = ctx.store().tenant(tenant_id).await?;
        store::members::used(&mut tx, user.id, ctx.now()).await?;
        bus::commit(ctx, tx, [Topic::People, Topic::Sessions]).await?;
    }
    Ok(Login::complete(user.id, tenant_id, ctx.now()))
}

/// The tenant in which a person goes on; none while she is only invited. Who is neither is refused.
pub(crate) async fn first_tenant(ctx: &Ctx, user: &User) -> Result<Option<TenantId>, ActError> {
    let mut tx = ctx.store().person(user.id).await?;
    let last = store::people::last_tenant(&mut tx, user.id).await?;
    let invited = store::invitations::any_open(&mut tx, &user.email, ctx.now()).await?;
    tx.commit().await?;
    if last.is_none() && !invited { Err(ActError::Refused(NO_ACCESS.to_owned())) } else { Ok(last) }
}

/// The tenants that hear of what a person does with her account: also those that have suspended her.
pub(crate) async fn tenants(ctx: &Ctx, user: UserId) -> Result<Vec<TenantId>, ActError> {
    let mut tx = ctx.store().person(user).await?;
    let tenants = store::people::tenants(&mut tx, user).await?;
    tx.commit().await?;
    Ok(tenants)
}

async fn memberships(ctx: &Ctx, user: UserId) -> Result<Vec<Membership>, ActError> {
    let mut tx = ctx.store().person(user).await?;
    let memberships = store::people::memberships(&mut tx, user).await?;
    tx.commit().await?;
    Ok(memberships)
}

/// Leaves the row of a login's end in the log of each tenant of the person; where there is none, in the installation's.
async fn audit_login(
    ctx: &Ctx,
    visitor: &Visitor,
    user: Option<&User>,
    email: &str,
    operation: Operation,
    result: Result<Login, ActError>,
) -> Result<Login, ActError> {
    if result.is_err() {
        metrics::counter!(LOGIN_FAILURES.name, "operation" => operation.path()).increment(1);
    }
    let mut tenants = match user {
        Some(user) => tenants(ctx, user.id).await?,
        None => Vec::new(),
    };
    let last = tenants.pop().unwrap_or(INSTALLATION);
    for tenant_id in tenants {
        let row: Result<(), ActError> = match &result {
            Ok(_) => Ok(()),
            Err(error) => Err(ActError::Refused(error.to_string())),
        };
        // Audited; that it was refused is said once, below.
        let _ = log_entry(ctx, visitor, tenant_id, email, operation, row).await;
    }
    log_entry(ctx, visitor, last, email, operation, result).await
}

async fn log_entry<T>(
    ctx: &Ctx,
    visitor: &Visitor,
    tenant_id: TenantId,
    email: &str,
    operation: Operation,
    result: Result<T, ActError>,
) -> Result<T, ActError> {
    let actor = Actor { tenant_id, name: email.to_owned(), address: Some(visitor.address) };
    let mut act = Act::begin_as(ctx, actor, operation).await?;
    act.subject(email);
    act.finish(result).await
}

/// Notes that a session ended. Ending it is the session layer's.
pub async fn log_out(ctx: &Ctx, visitor: &Visitor) -> Result<(), ActError> {
    let Ok(login) = visitor.complete() else { return Ok(()) };
    let tenant_id = login.tenant_id.unwrap_or(INSTALLATION);
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?;
    tx.commit().await?;
    let email = user.map(|user| user.email).unwrap_or_default();
    log_entry(ctx, visitor, tenant_id, &email, Operation::LogOut, Ok(())).await
}

/// Shows the second factor again, a TOTP code or a recovery code, so that what asks for a fresh one is done.
pub async fn step_up(ctx: &Ctx, visitor: &Visitor, code: &str) -> Result<Login, ActError> {
    let login = visitor.complete()?;
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    if !code.chars().any(char::is_alphanumeric) {
        return Err(ActError::field("code", "Enter the code."));
    }
    // Recovery codes have letters; codes of apps are typed with spaces and hyphens.
    let result = if code.chars().any(char::is_alphabetic) {
        guarded(ctx, user.id, use_recovery_code(ctx, user.id, code)).await
    } else {
        guarded(ctx, user.id, totp::use_code(ctx, &user, code)).await
    };
    let tenant_id = login.tenant_id.unwrap_or(INSTALLATION);
    log_entry(ctx, visitor, tenant_id, &user.email, Operation::StepUp, result).await?;
    Ok(Login { proven_at: Some(ctx.now()), ..login.clone() })
}

/// Works in another of one's tenants.
pub async fn switch_tenant(ctx: &Ctx, visitor: &Visitor, tenant_id: TenantId) -> Result<Login, ActError> {
    let login = visitor.complete()?;
    let here = login.tenant_id.unwrap_or(INSTALLATION);
    let memberships = memberships(ctx, login.user_id).await?;
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_id(&mut tx, login.user_id).await?.ok_or(ActError::SignedOut)?;
    tx.commit().await?;
    // A tenant that isn't hers gets no row of hers: it is refused in the log of the one she is in.
    let there = memberships.iter().any(|membership| membership.tenant_id == tenant_id);
    let (log, result) = if there { (tenant_id, Ok(())) } else { (here, Err(ActError::NotFound)) };
    let actor = Actor { tenant_id: log, name: user.email, address: Some(visitor.address) };
    let mut act = Act::begin_as(ctx, actor, Operation::SwitchTenant).await?;
    act.subject(tenant_id);
    if there {
        let now = act.now;
        store::members::used(&mut act.tx, login.user_id, now).await?;
        act.publish(Topic::People);
    }
    act.finish(result).await?;
    Ok(Login { tenant_id: Some(tenant_id), ..login.clone() })
}

/// Leaves a row in the installation's log.
pub(crate) async fn log_installation<T>(
    ctx: &Ctx,
    visitor: &Visitor,
    operation: Operation,
    subject: &str,
    result: Result<T, ActError>,
) -> Result<T, ActError> {
    log_entry(ctx, visitor, INSTALLATION, subject, operation, result).await
}

/// Leaves the row of what somebody did about her account in the log of each of her tenants; where there is none, in the
/// installation's.
pub(crate) async fn log_person(
    ctx: &Ctx,
    visitor: &Visitor,
    user: &User,
    operation: Operation,
) -> Result<(), ActError> {
    let mut tenants = tenants(ctx, user.id).await?;
    if tenants.is_empty() {
        tenants.push(INSTALLATION);
    }
    for tenant_id in tenants {
        log_entry(ctx, visitor, tenant_id, &user.email, operation, Ok(())).await?;
    }
    Ok(())
}

//! Server functions of sign-up, login, second factor and password reset. A few lines each: parse, one action, return.

use leptos::prelude::*;
use policy::account::{Me, PasswordStrength, SignUpForm, Stage, TotpSetup};
use policy::ids::TenantId;
use policy::people::Offer;
#[cfg(feature = "ssr")]
use policy::sessions::Factor;

use crate::error::ApiError;
use crate::json::Json;

#[cfg(feature = "ssr")]
use crate::context;

/// Who the session is and what it still lacks.
#[server(name = ShowMe, prefix = "/api", endpoint = "account/me", input = Json, output = Json)]
pub async fn me() -> Result<Me, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::account::me(&ctx, &visitor).await?)
}

/// How strong a password is; `words` are what it should not contain (e-mail address, organisation).
#[server(name = JudgePassword, prefix = "/api", endpoint = "account/password_strength", input = Json, output = Json)]
pub async fn password_strength(password: String, words: Vec<String>) -> Result<PasswordStrength, ApiError> {
    let (ctx, _) = context::visitor().await?;
    Ok(actions::account::password_strength(&ctx, &password, &words).await?)
}

/// Asks for a new tenant; a mail with a link follows. The answer is the same whether the e-mail address is known.
#[server(prefix = "/api", endpoint = "account/sign_up", input = Json, output = Json)]
pub async fn sign_up(form: SignUpForm) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::sign_up::request(&ctx, &visitor, form).await?)
}

/// Follows the link of the sign-up mail with the password of the sign-up: makes the tenant and its first person and logs in
/// up to the second factor.
#[server(prefix = "/api", endpoint = "account/verify_email", input = Json, output = Json)]
pub async fn verify_email(token: String, password: String) -> Result<Stage, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::sign_up::verify(&ctx, &visitor, &token, &password).await?;
    context::start_session(&login).await
}

/// Logs in up to the second factor. `pass` is the token of the link that is mailed to whoever has to wait.
#[server(prefix = "/api", endpoint = "account/log_in", input = Json, output = Json)]
pub async fn log_in(email: String, password: String, pass: Option<String>) -> Result<Stage, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::account::log_in(&ctx, &visitor, &email, &password, pass.as_deref()).await?;
    context::start_session(&login).await
}

/// Completes a login with a code of the authenticator app.
#[server(prefix = "/api", endpoint = "account/log_in_code", input = Json, output = Json)]
pub async fn log_in_code(code: String) -> Result<Stage, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::account::log_in_code(&ctx, &visitor, &code).await?;
    context::complete_session(&login, Factor::Totp).await
}

/// Completes a login with a recovery code, which is used up by it.
#[server(prefix = "/api", endpoint = "account/log_in_recovery_code", input = Json, output = Json)]
pub async fn log_in_recovery_code(code: String) -> Result<Stage, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::account::log_in_recovery_code(&ctx, &visitor, &code).await?;
    context::complete_session(&login, Factor::RecoveryCode).await
}

/// Ends the session.
#[server(prefix = "/api", endpoint = "account/log_out", input = Json, output = Json)]
pub async fn log_out() -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    actions::account::log_out(&ctx, &visitor).await?;
    context::end_session().await
}

/// Shows the second factor again: a code of the authenticator app, or a recovery code. The session gets a new id.
#[server(prefix = "/api", endpoint = "account/step_up", input = Json, output = Json)]
pub async fn step_up(code: String) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::account::step_up(&ctx, &visitor, &code).await?;
    context::start_session(&login).await.map(drop)
}

/// Asks for a mail with a link to set a new password. The answer is the same whether the e-mail address is known.
#[server(prefix = "/api", endpoint = "account/request_password_reset", input = Json, output = Json)]
pub async fn request_password_reset(email: String) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::password_reset::request(&ctx, &visitor, &email).await?)
}

/// Follows that link: sets the password and ends all sessions of the person.
#[server(prefix = "/api", endpoint = "account/reset_password", input = Json, output = Json)]
pub async fn reset_password(token: String, password: String) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::password_reset::reset(&ctx, &visitor, &token, &password).await?)
}

/// Begins to set up TOTP: the QR code and the key to type by hand.
#[server(prefix = "/api", endpoint = "account/begin_totp", input = Json, output = Json)]
pub async fn begin_totp() -> Result<TotpSetup, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let (login, setup) = actions::totp::begin(&ctx, &visitor).await?;
    context::keep_in_session(&login).await?;
    Ok(setup)
}

/// Proves the set-up with a code, completes the login, and gives ten recovery codes, shown once.
#[server(prefix = "/api", endpoint = "account/confirm_totp", input = Json, output = Json)]
pub async fn confirm_totp(code: String) -> Result<Vec<String>, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let (login, recovery_codes) = actions::totp::confirm(&ctx, &visitor, &code).await?;
    context::complete_session(&login, Factor::Totp).await?;
    Ok(recovery_codes)
}

/// What an invitation offers.
#[server(prefix = "/api", endpoint = "account/show_invitation", input = Json, output = Json)]
pub async fn show_invitation(token: String) -> Result<Offer, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    Ok(actions::invitations::show(&ctx, &visitor, &token).await?)
}

/// Accepts an invitation as somebody new: an account is made, and its second factor is set up next.
#[server(prefix = "/api", endpoint = "account/accept_invitation", input = Json, output = Json)]
pub async fn accept_invitation(token: String, password: String) -> Result<Stage, ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::invitations::accept(&ctx, &visitor, &token, &password).await?;
    context::start_session(&login).await
}

/// Accepts an invitation with the account of the session, and works in that tenant.
#[server(prefix = "/api", endpoint = "account/join_tenant", input = Json, output = Json)]
pub async fn join_tenant(token: String) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::invitations::join(&ctx, &visitor, &token).await?;
    context::start_session(&login).await.map(drop)
}

/// Works in another of one's tenants.
#[server(prefix = "/api", endpoint = "account/switch_tenant", input = Json, output = Json)]
pub async fn switch_tenant(tenant_id: TenantId) -> Result<(), ApiError> {
    let (ctx, visitor) = context::visitor().await?;
    let login = actions::account::switch_tenant(&ctx, &visitor, tenant_id).await?;
    context::start_session(&login).await.map(drop)
}

//! What the mails say, and their delivery over SMTP.

use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use policy::authz::Role;
use policy::people::{INVITATION_DAYS, Invitation};
use store::PlatformTx;
use store::mails::Mail;

use crate::ctx::Ctx;
use crate::error::ActError;

pub(crate) async fn verify(
    tx: &mut PlatformTx,
    ctx: &Ctx,
    email: &str,
    organisation: &str,
    token: &str,
) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "Somebody, probably you, signed {organisation} up for Ringfence with this e-mail address.\n\n\
         Confirm it within 24 hours:\n{url}/verify?token={token}\n\n\
         If it wasn't you, do nothing: without this link nothing is made.\n"
    );
    Ok(store::mails::insert(tx, email, "Confirm your e-mail address", &body, ctx.now()).await?)
}

pub(crate) async fn already_known(tx: &mut PlatformTx, ctx: &Ctx, email: &str) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "Somebody, probably you, tried to sign up for Ringfence with this e-mail address. It has an account already.\n\n\
         Log in: {url}/login\nForgot the password? {url}/forgot\n\n\
         If it wasn't you, do nothing: nothing has changed.\n"
    );
    Ok(store::mails::insert(tx, email, "You have a Ringfence account already", &body, ctx.now()).await?)
}

pub(crate) async fn reset(tx: &mut PlatformTx, ctx: &Ctx, email: &str, token: &str) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "Somebody, probably you, asked to set a new Ringfence password for this e-mail address.\n\n\
         Set it within one hour:\n{url}/reset?token={token}\n\n\
         If it wasn't you, do nothing: your password stays as it is.\n"
    );
    Ok(store::mails::insert(tx, email, "Set a new password", &body, ctx.now()).await?)
}

pub(crate) async fn login_pass(tx: &mut PlatformTx, ctx: &Ctx, email: &str, token: &str) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "Too many wrong passwords were typed, for your Ringfence account or from the network that you use, so that the login has to wait.\n\n\
         Log in without waiting, within one hour:\n{url}/login?pass={token}\n\n\
         If you don't want to log in, do nothing: whoever guesses gets slower with each try.\n"
    );
    Ok(store::mails::insert(tx, email, "Log in without waiting", &body, ctx.now()).await?)
}

pub(crate) async fn invitation(
    tx: &mut PlatformTx,
    ctx: &Ctx,
    invitation: &Invitation,
    organisation: &str,
    link: &str,
) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let Invitation { email, role, invited_by, .. } = invitation;
    let body = format!(
        "{invited_by} invites you to {organisation} on Ringfence, as {}.\n\n\
         Accept within {INVITATION_DAYS} days:\n{url}/invitation?token={link}\n\n\
         If you don't know what this is about, do nothing: without this link nothing is made.\n",
        role.title()
    );
    let subject = format!("Invitation to {organisation}");
    Ok(store::mails::insert(tx, email, &subject, &body, ctx.now()).await?)
}

pub(crate) async fn role_changed(
    tx: &mut PlatformTx,
    ctx: &Ctx,
    email: &str,
    organisation: &str,
    role: Role,
) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "You are {} of {organisation} on Ringfence now. Log in again to go on: {url}/login\n\n\
         If that surprises you, ask an administrator of {organisation}.\n",
        role.title()
    );
    Ok(store::mails::insert(tx, email, "Your role was changed", &body, ctx.now()).await?)
}

pub(crate) async fn password_changed(tx: &mut PlatformTx, ctx: &Ctx, email: &str) -> Result<(), ActError> {
    let url = &ctx.settings().public_url;
    let body = format!(
        "The password of your Ringfence account was changed just now, and all its sessions were ended.\n\n\
         If it wasn't you, set a new one at once: {url}/forgot\n"
    );
    Ok(store::mails::insert(tx, email, "Your password was changed", &body, ctx.now()).await?)
}

/// Delivers over SMTP.
#[derive(Debug, Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: lettre::message::Mailbox,
}

impl Mailer {
    /// `smtp_url` such as `smtps://user:password@mail.example.com`; `from` such as `Ringfence <noreply@example.com>`.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn new(smtp_url: &str, from: &str) -> Result<Self, String> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp_url)
            .map_err(|error| format!("mail.smtp_url: {error}"))?
            .build();
        let from = from.parse().map_err(|error| format!("mail.from: {error}"))?;
        Ok(Self { transport, from })
    }

    pub(crate) async fn send(&self, mail: &Mail) -> Result<(), String> {
        let message = Message::builder()
            .from(self.from.clone())
            .to(mail.recipient.parse().map_err(|error| format!("the recipient: {error}"))?)
            .subject(mail.subject.clone())
            .message_id(Some(format!("<{}@ringfence>", mail.id)))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.clone())
            .map_err(|error| error.to_string())?;
        self.transport.send(message).await.map(drop).map_err(|error| error.to_string())
    }
}

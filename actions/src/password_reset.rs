//! A forgotten password: a link by mail, good for an hour and once. The second factor stays as it is.

use policy::authz::Operation;
use policy::people;
use time::Duration;

use crate::caller::Visitor;
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{account, guesses, login_guard, mail, sessions, tokens};

const LINK_HOURS: i64 = 1;

/// Sends a link to a known address; an unknown one gets nothing, and the same answer after the same time.
pub async fn request(ctx: &Ctx, visitor: &Visitor, email: &str) -> Result<(), ActError> {
    let (result, ()) = tokio::join!(request_inner(ctx, email), tokio::time::sleep(account::EVEN));
    let subject: String = email.chars().take(254).collect();
    account::log_installation(ctx, visitor, Operation::RequestPasswordReset, &subject, result).await
}

async fn request_inner(ctx: &Ctx, email: &str) -> Result<(), ActError> {
    let email = people::parse_email(email).map_err(|message| ActError::field("email", message))?;
    if !guesses::may_mail(ctx, "reset", &email).await? {
        return Ok(());
    }
    let mut tx = ctx.store().platform().await?;
    if let Some(user) = store::people::by_email(&mut tx, &email).await? {
        let token = tokens::link_token();
        store::people::insert_reset(&mut tx, &tokens::hash(&token), user.id, ctx.now() + Duration::hours(LINK_HOURS))
            .await?;
        mail::reset(&mut tx, ctx, &email, &token).await?;
    }
    Ok(tx.commit().await?)
}

/// Sets the password and ends all sessions of the person. Who knew the one before, and made her wait for the second factor by
/// guessing at it, makes her wait no longer.
pub async fn reset(ctx: &Ctx, visitor: &Visitor, token: &str, password: &str) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    let user = match store::people::find_reset(&mut tx, &tokens::hash(token), ctx.now()).await? {
        Some(id) => store::people::by_id(&mut tx, id).await?,
        None => None,
    };
    tx.commit().await?;
    let Some(user) = user else {
        return account::log_installation(ctx, visitor, Operation::ResetPassword, "", Err(spent_link())).await;
    };
    // The link stays good while the password is refused.
    if let Err(message) = ctx.passwords().check_new(password, &[user.email.clone(), "ringfence".to_owned()]).await? {
        let error = ActError::field("password", message);
        return account::log_installation(ctx, visitor, Operation::ResetPassword, &user.email, Err(error)).await;
    }
    let hash = ctx.passwords().hash(password).await?;
    let mut tx = ctx.store().platform().await?;
    if !store::people::take_reset(&mut tx, &tokens::hash(token)).await? {
        tx.rollback().await?;
        return account::log_installation(ctx, visitor, Operation::ResetPassword, &user.email, Err(spent_link())).await;
    }
    store::people::set_password(&mut tx, user.id, &hash).await?;
    store::people::delete_resets(&mut tx, user.id).await?;
    store::sessions::delete_of_user(&mut tx, user.id, ctx.now()).await?;
    login_guard::forget_person(&mut tx, &user.email, visitor.address).await?;
    guesses::forget(&mut tx, &guesses::code(user.id)).await?;
    mail::password_changed(&mut tx, ctx, &user.email).await?;
    tx.commit().await?;
    sessions::tell_everywhere(ctx, user.id).await?;
    account::log_person(ctx, visitor, &user, Operation::ResetPassword).await
}

fn spent_link() -> ActError {
    ActError::Refused("This link has been used or has expired. Ask for a new one.".to_owned())
}

//! Sign-up: nothing is made before the link in the mail is followed, and nobody learns which e-mail addresses are known.

use std::net::IpAddr;

use policy::account::{SignUpForm, Stage};
use policy::authz::{Operation, Role};
use policy::fields::FieldError;
use policy::ids::{TenantId, UserId};
use policy::people;
use store::TenantTx;
use store::people::SignUp;
use time::Duration;
use uuid::Uuid;

use crate::act::{Act, Actor};
use crate::caller::{Login, Visitor};
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::{account, guesses, login_guard, mail, tokens};

const LINK_HOURS: i64 = 24;
const NOT_THE_PASSWORD: &str = "This is not the password that was chosen at sign-up. If it was not you who signed up, \
                                sign up yourself: this link makes somebody else's organisation.";

/// Asks for a new tenant. An unknown e-mail address gets a link to follow, a known one a note that it is known; the answer is the same.
pub async fn request(ctx: &Ctx, visitor: &Visitor, form: SignUpForm) -> Result<(), ActError> {
    let result = request_inner(ctx, &form).await;
    let subject: String = form.email.chars().take(254).collect();
    account::log_installation(ctx, visitor, Operation::SignUp, &subject, result).await
}

async fn request_inner(ctx: &Ctx, form: &SignUpForm) -> Result<(), ActError> {
    let mut wrong = Vec::new();
    let mut field = |name: &str, parsed: Result<String, String>| {
        parsed.map_err(|message| wrong.push(FieldError::new(name, message))).unwrap_or_default()
    };
    let organisation = field("organisation", people::parse_name(&form.organisation));
    let slug = field("slug", people::parse_slug(&form.slug));
    let email = field("email", people::parse_email(&form.email));
    let words = [organisation.clone(), slug.clone(), email.clone(), "ringfence".to_owned()];
    let strong = ctx.passwords().check_new(&form.password, &words).await?;
    field("password", strong.map(|()| String::new()));
    // No connection is held while a password waits to be hashed.
    let mut tx = ctx.store().platform().await?;
    if !slug.is_empty() && store::people::slug_taken(&mut tx, &slug).await? {
        field("slug", Err("This short name is taken. Choose another one.".to_owned()));
    }
    tx.commit().await?;
    if !wrong.is_empty() {
        return Err(ActError::Invalid(wrong));
    }
    // Hashed whether the address is known or not, so that both take as long.
    let password_hash = ctx.passwords().hash(&form.password).await?;
    if !guesses::may_mail(ctx, "sign_up", &email).await? {
        return Ok(());
    }
    let token = tokens::link_token();
    let sign_up = SignUp { organisation, slug, email: email.clone(), password_hash };
    let mut tx = ctx.store().platform().await?;
    let known = store::people::by_email(&mut tx, &email).await?.is_some();
    // Kept for a known address, too, which takes as long; it has expired, and nobody gets its link.
    let good_for = if known { Duration::ZERO } else { Duration::hours(LINK_HOURS) };
    store::people::insert_sign_up(&mut tx, &tokens::hash(&token), &sign_up, ctx.now() + good_for).await?;
    if known {
        mail::already_known(&mut tx, ctx, &email).await?;
    } else {
        mail::verify(&mut tx, ctx, &email, &sign_up.organisation, &token).await?;
    }
    Ok(tx.commit().await?)
}

/// Follows the link with the password of the sign-up: makes the tenant and its Super administrator, who must set up TOTP
/// before anything else opens. The link alone is not enough: who had the mailbox's owner confirm a sign-up of his would
/// know the password of her account.
pub async fn verify(ctx: &Ctx, visitor: &Visitor, token: &str, password: &str) -> Result<Login, ActError> {
    let token_hash = tokens::hash(token);
    let refuse = async |email: &str, error: ActError| {
        account::log_installation(ctx, visitor, Operation::VerifyEmail, email, Err(error)).await
    };
    let mut tx = ctx.store().platform().await?;
    let found = store::people::find_sign_up(&mut tx, &token_hash, ctx.now()).await?;
    tx.commit().await?;
    let Some(sign_up) = found else { return refuse("", spent_link()).await };
    if let Err(error) = check_password(ctx, visitor, &sign_up, password).await {
        return refuse(&sign_up.email, error).await;
    }
    let mut tx = ctx.store().tenant(TenantId(Uuid::now_v7())).await?;
    // Taken in the transaction that makes the tenant: when that fails, the link stays good.
    if !store::people::take_sign_up(&mut tx, &token_hash, ctx.now()).await? {
        tx.rollback().await?;
        return refuse(&sign_up.email, spent_link()).await;
    }
    let user_id = UserId(Uuid::now_v7());
    create(ctx, tx, visitor.address, user_id, &sign_up).await?;
    Ok(Login::lacking(Stage::NeedsTotpSetup, user_id))
}

async fn check_password(ctx: &Ctx, visitor: &Visitor, sign_up: &SignUp, password: &str) -> Result<(), ActError> {
    let made = login_guard::begin(ctx, &sign_up.email, None, visitor.address, None).await?;
    if ctx.passwords().verify(password, Some(&sign_up.password_hash)).await? {
        login_guard::right(ctx, &made).await
    } else {
        login_guard::wrong(ctx, made, visitor.address);
        Err(ActError::field("password", NOT_THE_PASSWORD))
    }
}

fn spent_link() -> ActError {
    ActError::Refused("This link has been used or has expired. Log in, or sign up again.".to_owned())
}

/// Makes the tenant of the transaction and its first person.
pub(crate) async fn create(
    ctx: &Ctx,
    tx: TenantTx,
    address: IpAddr,
    user_id: UserId,
    sign_up: &SignUp,
) -> Result<(), ActError> {
    let actor = Actor { tenant_id: tx.tenant(), name: sign_up.email.clone(), address: Some(address) };
    let mut act = Act::begin_in(ctx, tx, actor, Operation::VerifyEmail);
    act.subject(&sign_up.slug);
    match create_inner(&mut act, user_id, sign_up).await {
        Ok(()) => act.finish(Ok(())).await,
        // The tenant does not exist, so that its log can't hold the refusal; the caller has another.
        Err(error) => {
            act.tx.rollback().await?;
            Err(error)
        }
    }
}

async fn create_inner(act: &mut Act<'_>, user_id: UserId, sign_up: &SignUp) -> Result<(), ActError> {
    let now = act.now;
    store::tenants::insert(&mut act.tx, &sign_up.organisation, &sign_up.slug, now).await?;
    let inserted = store::people::insert(&mut act.tx, user_id, &sign_up.email, &sign_up.password_hash, now).await;
    if matches!(&inserted, Err(store::StoreError::Conflict { constraint }) if constraint == "users_email_key") {
        return Err(ActError::Refused("This e-mail address has an account by now. Log in with it.".to_owned()));
    }
    inserted?;
    store::members::insert(&mut act.tx, user_id, Role::SuperAdministrator, "", now).await?;
    Ok(())
}

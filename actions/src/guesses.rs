//! Guessing slowed down: after a few failures at one subject each further try has to wait longer.

use policy::ids::{TenantId, UserId};
use store::PlatformTx;
use time::{Duration, OffsetDateTime};

use crate::ctx::Ctx;
use crate::error::ActError;

/// How guesses at something are slowed down.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// Failures without a wait.
    free: i32,
    /// The wait after the first failure beyond those; doubles with each further one.
    first_seconds: i64,
    /// The longest wait.
    most_seconds: i64,
}

/// For passwords of one account from wherever; [`crate::login_guard`] slows each source down. No one source can take more than a few of
/// these seconds, the others stay for the owner, who must not be kept out by anybody who knows her e-mail address.
const PASSWORD_FROM_ANYWHERE: Limit = Limit { free: 100, first_seconds: 1, most_seconds: 1 };
/// For six-digit codes: 5 tries, then at most about four in an hour, from wherever: there are few codes. Who makes the owner
/// wait here knows her password; a new one ends that.
const CODE: Limit = Limit { free: 5, first_seconds: 30, most_seconds: 900 };

/// For mail of one kind to one address: nobody's mailbox is filled by others.
const MAIL: Limit = Limit { free: 5, first_seconds: 900, most_seconds: 3600 };

/// For invitations of one tenant, to whomever: nobody makes the portal write to strangers.
const INVITATIONS: Limit = Limit { free: 100, first_seconds: 60, most_seconds: 3600 };

impl Limit {
    fn wait(self, failures: i32) -> Duration {
        if failures < self.free {
            return Duration::ZERO;
        }
        let doubled = self.first_seconds << (failures - self.free).clamp(0, 20);
        Duration::seconds(doubled.min(self.most_seconds))
    }
}

const FORGET: Duration = Duration::hours(6);

/// What is guessed at, under each of the names that failures are counted by.
#[derive(Debug, Clone)]
pub(crate) struct Subject(Vec<(String, Limit)>);

/// The password of an e-mail address, tried from wherever.
pub(crate) fn password_from_anywhere(email: &str) -> Subject {
    Subject(vec![(format!("password {email}"), PASSWORD_FROM_ANYWHERE)])
}

/// An invitation of a tenant to an e-mail address.
pub(crate) fn invitation(tenant: TenantId, email: &str) -> Subject {
    Subject(vec![
        (format!("mail invitation {tenant} {email}"), MAIL),
        (format!("mail invitations of {tenant}"), INVITATIONS),
    ])
}

/// The second factor of a person.
pub(crate) fn code(user: UserId) -> Subject {
    Subject(vec![(format!("code {user}"), CODE)])
}

/// Counts a try as a failure before it is made, or refuses it while a wait is running; who is right is cleared afterwards.
/// In this order, so that a hundred tries at once are a hundred tries. A refused try counts nowhere.
pub(crate) async fn begin(ctx: &Ctx, subject: &Subject) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    begin_in(&mut tx, ctx.now(), subject).await?;
    Ok(tx.commit().await?)
}

/// The same, in a transaction that has begun, and that must end when it is refused.
pub(crate) async fn begin_in(
    tx: &mut PlatformTx,
    now: OffsetDateTime,
    Subject(names): &Subject,
) -> Result<(), ActError> {
    for (name, limit) in names {
        store::people::lock_guesses(tx, name).await?;
        if let Some((failures, last_at)) = store::people::guesses(tx, name).await? {
            let wait = limit.wait(failures);
            if now - last_at <= FORGET && now < last_at + wait {
                let seconds = (last_at + wait - now).whole_seconds() + 1;
                return Err(ActError::TooMany { retry_after_seconds: seconds.unsigned_abs() });
            }
        }
    }
    for (name, _) in names {
        store::people::count_guess(tx, name, now, now - FORGET).await?;
    }
    Ok(())
}

/// Forgets the failures: the try was right.
pub(crate) async fn right(ctx: &Ctx, subject: &Subject) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    forget(&mut tx, subject).await?;
    Ok(tx.commit().await?)
}

/// The same, in a transaction that has begun.
pub(crate) async fn forget(tx: &mut PlatformTx, Subject(names): &Subject) -> Result<(), ActError> {
    for (name, _) in names {
        store::people::clear_guesses(tx, name).await?;
    }
    Ok(())
}

/// Whether one more mail of a kind may go to an address; when not, it is left out without a word, as nobody learns which
/// addresses are known. By kind, so that who asks for the one does not keep the other away.
pub(crate) async fn may_mail(ctx: &Ctx, kind: &str, email: &str) -> Result<bool, ActError> {
    match begin(ctx, &Subject(vec![(format!("mail {kind} {email}"), MAIL)])).await {
        Ok(()) => Ok(true),
        Err(ActError::TooMany { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

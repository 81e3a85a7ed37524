//! Guessing slowed down: after a few failures at one subject each further try has to wait longer.

use time::Duration;

use crate::ctx::Ctx;
use crate::error::ActError;

/// How guesses at something are slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Failures without a wait.
    pub free: i32,
    /// The wait after the first failure beyond those; doubles with each further one.
    pub first_seconds: i64,
    /// The longest wait.
    pub most_seconds: i64,
}

/// For passwords: slow for who guesses, never long for the owner.
pub(crate) const PASSWORD: Limit = Limit { free: 8, first_seconds: 1, most_seconds: 15 };
/// For six-digit codes: 5 tries, then at most about four in an hour.
pub(crate) const CODE: Limit = Limit { free: 5, first_seconds: 30, most_seconds: 900 };

/// For mail to one address: nobody's mailbox is filled by others.
const MAIL: Limit = Limit { free: 5, first_seconds: 900, most_seconds: 3600 };

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

/// Counts a try as a failure before it is made, or refuses it while a wait is running; who is right is cleared afterwards.
/// In this order, so that a hundred tries at once are a hundred tries.
pub(crate) async fn begin(ctx: &Ctx, subject: &str, limit: Limit) -> Result<(), ActError> {
    let now = ctx.now();
    let mut tx = ctx.store().platform().await?;
    store::people::lock_guesses(&mut tx, subject).await?;
    if let Some((failures, last_at)) = store::people::guesses(&mut tx, subject).await? {
        let wait = limit.wait(failures);
        if now - last_at <= FORGET && now < last_at + wait {
            tx.rollback().await?;
            let seconds = (last_at + wait - now).whole_seconds() + 1;
            return Err(ActError::TooMany { retry_after_seconds: seconds.unsigned_abs() });
        }
    }
    store::people::count_guess(&mut tx, subject, now, now - FORGET).await?;
    Ok(tx.commit().await?)
}

/// Forgets the failures: the try was right.
pub(crate) async fn right(ctx: &Ctx, subject: &str) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    store::people::clear_guesses(&mut tx, subject).await?;
    Ok(tx.commit().await?)
}

/// Whether one more mail may go to an address; when not, it is left out without a word, as nobody learns which addresses
/// are known.
pub(crate) async fn may_mail(ctx: &Ctx, email: &str) -> Result<bool, ActError> {
    match begin(ctx, &format!("mail {email}"), MAIL).await {
        Ok(()) => Ok(true),
        Err(ActError::TooMany { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

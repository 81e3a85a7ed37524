//! Guesses at passwords, slowed down. Whoever mistypes waits for seconds; a source that fails often waits for minutes, and then for a day;
//! one that fails at many accounts waits for a day, and is blocked at the PBXes of those whom it tried. What others do from elsewhere makes
//! an owner wait for a second at most, and a link by mail takes her past even that.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use policy::authz::Operation;
use policy::bans::BanEntry;
use policy::blocked_ips::BanSource;
use policy::ids::{BanId, TenantId, UserId};
use policy::net::{self, source_key};
use sha2::{Digest as _, Sha256};
use store::blocked_ips::NewBan;
use store::login_failures::{self, Tried};
use store::people::User;
use store::{PlatformTx, TenantTx};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::act::{Act, Actor};
use crate::ctx::Ctx;
use crate::error::{ActError, chain};
use crate::guesses::{self, Subject};
use crate::{account, bans, blocked_ips, mail, tokens};

/// The wait after so many failures at one account from one source. Slow for who guesses, never long for the owner who mistypes.
const AT_AN_ACCOUNT: &[(i64, Duration)] = &[
    (4, Duration::seconds(1)),
    (5, Duration::seconds(3)),
    (6, Duration::seconds(5)),
    (7, Duration::seconds(10)),
    (9, Duration::seconds(30)),
];
/// The wait after so many failures of one source, at whichever accounts.
const OF_A_SOURCE: &[(i64, Duration)] = &[
    (7, Duration::minutes(1)),
    (10, Duration::minutes(5)),
    (14, Duration::minutes(30)),
    (19, Duration::hours(4)),
    (25, Duration::DAY),
];
/// The wait after so many accounts at which one source failed within [`LATELY`].
const ACCOUNTS: &[(i64, Duration)] = &[(15, Duration::DAY)];
/// In this time accounts are counted.
const LATELY: Duration = Duration::hours(3);
/// After this time failures are forgotten.
const FORGET: Duration = Duration::DAY;

/// A pass is good for so long, and for so many tries: its owner may mistype.
const PASS: Duration = Duration::hours(1);
const PASS_TRIES: i32 = 5;
/// What is known of a source that has to wait for a day is read again after this.
const ASK_AGAIN: Duration = Duration::minutes(1);
/// So many of them are known at a time, about ten megabytes.
const TURNED_MOST: usize = 100_000;
/// Who has to wait longer than this is mailed a pass.
const PATIENCE: Duration = Duration::seconds(30);

/// One try at a password.
#[derive(Debug)]
pub(crate) struct Try {
    source: String,
    account: Vec<u8>,
    everywhere: Subject,
    user: Option<UserId>,
    tried: Tried,
}

fn step(ladder: &[(i64, Duration)], count: i64) -> Duration {
    ladder.iter().rev().find(|(from, _)| count >= *from).map_or(Duration::ZERO, |(_, wait)| *wait)
}

/// Until when a source has to wait that has tried like this.
fn until(tried: &Tried) -> Option<OffsetDateTime> {
    let here = tried.here_at.map(|at| at + step(AT_AN_ACCOUNT, tried.here));
    let everywhere = tried.everywhere_at.map(|at| at + step(OF_A_SOURCE, tried.everywhere));
    let accounts = tried.accounts_at.map(|at| at + step(ACCOUNTS, tried.accounts));
    here.max(everywhere).max(accounts)
}

fn too_many(wait: Duration) -> ActError {
    ActError::TooMany { retry_after_seconds: (wait.whole_seconds() + 1).unsigned_abs() }
}

fn account_of(email: &str) -> Vec<u8> {
    Sha256::digest(email.as_bytes()).to_vec()
}

/// Sources that have to wait for a day, and until when: they are refused without asking the database, which they would keep from others.
/// It is asked again now and then, since the wait may have ended there.
#[derive(Debug, Default)]
pub(crate) struct Turned(Mutex<HashMap<String, (OffsetDateTime, OffsetDateTime)>>);

impl Turned {
    /// Until when a source has to wait, if that was read lately.
    fn until(&self, source: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let turned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turned
            .get(source)
            .filter(|(_, read)| now < *read + ASK_AGAIN)
            .map(|(until, _)| *until)
            .filter(|until| *until > now)
    }

    fn keep(&self, source: &str, until: OffsetDateTime, now: OffsetDateTime) {
        let mut turned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turned.len() >= TURNED_MOST {
            turned.retain(|_, (_, read)| now < *read + ASK_AGAIN);
        }
        if turned.len() < TURNED_MOST {
            turned.insert(source.to_owned(), (until, now));
        }
    }
}

/// Refuses a source of which this is known, unless it comes with a pass.
pub(crate) fn turn_away(ctx: &Ctx, from: IpAddr, pass: Option<&str>) -> Result<(), ActError> {
    let now = ctx.now();
    match ctx.turned().until(&net::display(&source_key(from)), now) {
        Some(until) if pass.is_none() => Err(too_many(until - now)),
        Some(_) | None => Ok(()),
    }
}

/// Counts a try as a failure before it is made, or refuses it while the source, or the account, has to wait. In this order, so that a
/// hundred tries at once are a hundred tries. A refused try is no failure; but who goes on, account by account, while he has to wait, is known
/// for what he is. `pass` takes its owner past every wait.
pub(crate) async fn begin(
    ctx: &Ctx,
    email: &str,
    user: Option<&User>,
    from: IpAddr,
    pass: Option<&str>,
) -> Result<Try, ActError> {
    let (source, account) = (net::display(&source_key(from)), account_of(email));
    let (now, user) = (ctx.now(), user.map(|user| user.id));
    let everywhere = guesses::password_from_anywhere(email);
    let mut tx = ctx.store().platform().await?;
    store::people::lock_guesses(&mut tx, &format!("login from {source}")).await?;
    let passes = match (user, pass) {
        (Some(user), Some(pass)) => {
            login_failures::try_pass(&mut tx, &tokens::hash(pass), user, PASS_TRIES, now).await?
        }
        _ => false,
    };
    let mut tried = login_failures::tried(&mut tx, &source, &account, (now - FORGET, now - LATELY)).await?;
    let wait = until(&tried).map_or(Duration::ZERO, |until| until - now);
    let refused = match wait {
        _ if passes => None,
        wait if wait > Duration::ZERO => {
            // At the end of this ladder nothing can come of the next try.
            if step(ACCOUNTS, tried.accounts) > Duration::ZERO {
                ctx.turned().keep(&source, now + wait, now);
            }
            Some((too_many(wait), wait > PATIENCE))
        }
        // Who has to wait for what others do gets a pass at once.
        _ => guesses::begin_in(&mut tx, now, &everywhere).await.err().map(|error| (error, true)),
    };
    if let Some((error, offered)) = refused {
        let goes_on =
            step(OF_A_SOURCE, tried.everywhere) > Duration::ZERO && step(ACCOUNTS, tried.accounts) == Duration::ZERO;
        if goes_on && login_failures::note(&mut tx, &source, &account, user, now).await? {
            tx.commit().await?;
            tried.accounts += 1;
            attacks(ctx, source, from, &tried);
        } else {
            tx.rollback().await?;
        }
        if let Some(user) = user.filter(|_| offered) {
            offer_pass(ctx, email, user);
        }
        return Err(error);
    }
    login_failures::count(&mut tx, &source, &account, user, (now, now - FORGET)).await?;
    tx.commit().await?;
    tried.accounts += i64::from(tried.here == 0);
    tried.everywhere += 1;
    tried.here += 1;
    Ok(Try { source, account, everywhere, user, tried })
}

/// Forgets what failed at the account from its source: the try was right. Failures at other accounts stay, lest a guesser with an
/// account of his own begins anew.
pub(crate) async fn right(ctx: &Ctx, made: &Try) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    forget(&mut tx, made).await?;
    if let Some(user) = made.user {
        login_failures::delete_passes(&mut tx, user).await?;
    }
    Ok(tx.commit().await?)
}

async fn forget(tx: &mut PlatformTx, made: &Try) -> Result<(), ActError> {
    login_failures::clear(tx, &made.source, &made.account).await?;
    guesses::forget(tx, &made.everywhere).await
}

/// The same for a person who has set a new password, in a transaction that has begun.
pub(crate) async fn forget_person(tx: &mut PlatformTx, email: &str, from: IpAddr) -> Result<(), ActError> {
    login_failures::clear(tx, &net::display(&source_key(from)), &account_of(email)).await?;
    guesses::forget(tx, &guesses::password_from_anywhere(email)).await
}

/// The try was wrong.
pub(crate) fn wrong(ctx: &Ctx, made: Try, from: IpAddr) {
    attacks(ctx, made.source, from, &made.tried);
}

/// A source that has come to the end of a ladder is blocked at the PBXes of all whom it tried. Beside the answer, which takes as long as
/// any other.
fn attacks(ctx: &Ctx, source: String, from: IpAddr, tried: &Tried) {
    let Tried { everywhere, accounts, .. } = *tried;
    let reason = if step(ACCOUNTS, accounts) == Duration::DAY {
        format!("{accounts} accounts tried at the portal's login")
    } else if step(OF_A_SOURCE, everywhere) == Duration::DAY {
        format!("{everywhere} wrong passwords at the portal's login")
    } else {
        return;
    };
    let ctx = ctx.clone();
    tokio::spawn(async move {
        if let Err(error) = block(&ctx, &source, from, &reason).await {
            tracing::error!(source, error = %chain(&error), "blocking who attacks the login");
        }
    });
}

async fn block(ctx: &Ctx, source: &str, from: IpAddr, reason: &str) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    let people = login_failures::people(&mut tx, source, ctx.now() - FORGET).await?;
    tx.commit().await?;
    let mut tenants = Vec::new();
    for person in people {
        tenants.extend(account::tenants(ctx, person).await?);
    }
    tenants.sort_unstable();
    tenants.dedup();
    tracing::warn!(source, reason, tenants = tenants.len(), "a source attacks the login");
    for tenant_id in tenants {
        block_at(ctx, tenant_id, from, reason).await?;
    }
    Ok(())
}

async fn block_at(ctx: &Ctx, tenant_id: TenantId, from: IpAddr, reason: &str) -> Result<(), ActError> {
    let actor = Actor { tenant_id, name: "system".to_owned(), address: Some(from) };
    let mut act = Act::begin_as(ctx, actor, Operation::BlockIp).await?;
    let net = source_key(from);
    act.subject(net::display(&net));
    let expires_at = blocked_ips::whole_seconds(Some(act.now + Duration::DAY));
    // The order of whoever changes bans: before anything is looked up.
    store::ban_set::lock(&mut act.tx).await?;
    if !worth_it(&mut act.tx, BanEntry { net, expires_at }, act.now).await? {
        return act.finish_quietly().await;
    }
    let times = store::blocked_ips::times_banned(&mut act.tx, &[net]).await?.get(&net).copied().unwrap_or(0) + 1;
    let ban = NewBan {
        id: BanId(Uuid::now_v7()),
        entry: BanEntry { net, expires_at },
        source: BanSource::Portal,
        reason: reason.to_owned(),
        account: None,
        pbx_id: None,
        blocked_by: None,
        times_banned: i32::try_from(times).unwrap_or(i32::MAX),
        evidence: Vec::new(),
        created_at: act.now,
    };
    act.detail("reason", reason);
    let result = bans::add(&mut act, std::slice::from_ref(&ban), "portal").await;
    act.finish(result.map(drop)).await
}

/// An allowed source stays so, and a block that lasts longer isn't replaced.
async fn worth_it(tx: &mut TenantTx, entry: BanEntry, now: OffsetDateTime) -> Result<bool, ActError> {
    if net::unusable(&entry.net).is_some() || store::allowed_ips::overlapping(tx, entry.net, now).await?.is_some() {
        return Ok(false);
    }
    let holding = store::blocked_ips::holding(tx, &[entry.net]).await?;
    Ok(holding
        .get(&entry.net)
        .is_none_or(|(_, held)| held.expires_at.is_some_and(|ends| Some(ends) < entry.expires_at)))
}

/// Mails the owner of an account a pass, beside the answer: that there is an owner must not show in how long it takes.
fn offer_pass(ctx: &Ctx, email: &str, user: UserId) {
    let (ctx, email) = (ctx.clone(), email.to_owned());
    tokio::spawn(async move {
        if let Err(error) = mail_pass(&ctx, &email, user).await {
            tracing::error!(error = %chain(&error), "mailing a pass for the login");
        }
    });
}

async fn mail_pass(ctx: &Ctx, email: &str, user: UserId) -> Result<(), ActError> {
    if !guesses::may_mail(ctx, "pass", email).await? {
        return Ok(());
    }
    let token = tokens::link_token();
    let mut tx = ctx.store().platform().await?;
    login_failures::insert_pass(&mut tx, &tokens::hash(&token), user, ctx.now() + PASS).await?;
    mail::login_pass(&mut tx, ctx, email, &token).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits() {
        let begun = OffsetDateTime::UNIX_EPOCH;
        let wait = |here, everywhere, accounts| {
            let at = Some(begun);
            let tried = Tried { here, here_at: at, everywhere, everywhere_at: at, accounts, accounts_at: at };
            until(&tried).unwrap() - begun
        };
        let owner: Vec<i64> = (0..7).map(|failures| wait(failures, failures, 1).whole_seconds()).collect();
        assert_eq!(owner, [0, 0, 0, 0, 1, 3, 5], "who mistypes");
        let source: Vec<i64> =
            [6, 7, 9, 10, 14, 19, 24, 25, 99].map(|failures| wait(1, failures, 3).whole_minutes()).to_vec();
        assert_eq!(source, [0, 1, 1, 5, 30, 240, 240, 1440, 1440]);
        assert_eq!((wait(1, 14, 14).whole_minutes(), wait(1, 15, 15)), (30, Duration::DAY), "who tries many accounts");
        assert_eq!(until(&Tried::default()), None);
    }
}

//! Guesses at passwords, slowed down. Whoever mistypes waits for seconds; a source that fails often waits for minutes, and then for a day;
//! one that fails at many accounts waits for a day, and is blocked at the PBXes of those whom it attacks. What others do from elsewhere makes
//! an owner wait for a second at most, and a link by mail takes her past even that.

use std::collections::{BTreeMap, HashMap};
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

/// The wait after so many failures at one account from one source: seconds for the owner who mistypes. After them comes [`OF_A_SOURCE`].
const AT_AN_ACCOUNT: &[(i64, Duration)] =
    &[(4, Duration::seconds(1)), (5, Duration::seconds(3)), (6, Duration::seconds(5))];
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
/// So many wrong passwords for people of one tenant make a source its attacker.
const SEVERAL: i64 = 5;
/// What is known of a source that has to wait long is read again after this.
const ASK_AGAIN: Duration = Duration::minutes(1);
/// A pass is offered to one account no oftener.
const OFFER_AGAIN: Duration = Duration::minutes(10);
/// So many sources, and accounts, are remembered at a time, about ten megabytes of each.
const REMEMBERED: usize = 100_000;
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
    here.max(everywhere).max(tried.until)
}

fn too_many(wait: Duration) -> ActError {
    ActError::TooMany { retry_after_seconds: (wait.whole_seconds() + 1).unsigned_abs() }
}

fn account_of(email: &str) -> Vec<u8> {
    Sha256::digest(email.as_bytes()).to_vec()
}

/// What a node remembers of guessers, so that they don't keep the database from others.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    /// Sources that have to wait long: until when, and when that was read. It is read again now and then, since it may have ended.
    sources: Mutex<HashMap<String, (OffsetDateTime, OffsetDateTime)>>,
    /// Accounts, there or not, to which a pass was offered, and when.
    offered: Mutex<HashMap<String, OffsetDateTime>>,
}

impl Turned {
    /// Until when a source has to wait, if that was read lately.
    fn until(&self, source: &str, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let (until, read) = *self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(source)?;
        (now < read + ASK_AGAIN && now < until).then_some(until)
    }

    fn keep(&self, source: &str, until: OffsetDateTime, now: OffsetDateTime) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= REMEMBERED {
            sources.retain(|_, (_, read)| now < *read + ASK_AGAIN);
        }
        if sources.len() < REMEMBERED {
            sources.insert(source.to_owned(), (until, now));
        }
    }

    /// Whether it is time to offer the owner of an account a pass.
    fn may_offer(&self, email: &str, now: OffsetDateTime) -> bool {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.get(email).is_some_and(|at| now < *at + OFFER_AGAIN) {
            return false;
        }
        if offered.len() >= REMEMBERED {
            offered.retain(|_, at| now < *at + OFFER_AGAIN);
        }
        if offered.len() < REMEMBERED {
            offered.insert(email.to_owned(), now);
        }
        true
    }
}

/// Refuses a source of which this is known, unless it comes with what may be a pass.
pub(crate) fn turn_away(ctx: &Ctx, email: &str, from: IpAddr, pass: Option<&str>) -> Result<(), ActError> {
    let now = ctx.now();
    match ctx.turned().until(&net::display(&source_key(from)), now) {
        Some(until) if !pass.is_some_and(tokens::is_link_token) => {
            offer_pass(ctx, email);
            Err(too_many(until - now))
        }
        Some(_) | None => Ok(()),
    }
}

/// Counts a try as a failure before it is made, or refuses it while the source, or the account, has to wait. In this order, so that a
/// hundred tries at once are a hundred tries. A refused try counts nowhere. `pass` takes its owner past every wait.
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
    lock(&mut tx, &source).await?;
    let passes = match pass {
        // Nobody's, too: whether there is an owner must not show.
        Some(pass) => {
            let owner = user.unwrap_or(UserId(Uuid::nil()));
            login_failures::try_pass(&mut tx, &tokens::hash(pass), owner, PASS_TRIES, now).await?
        }
        None => false,
    };
    let mut tried = login_failures::tried(&mut tx, &source, &account, (now - FORGET, now - LATELY)).await?;
    let wait = until(&tried).map_or(Duration::ZERO, |until| until - now);
    let refused = match wait {
        _ if passes => None,
        wait if wait > Duration::ZERO => Some((too_many(wait), wait > PATIENCE)),
        // Who has to wait for what others do gets a pass at once.
        _ => guesses::begin_in(&mut tx, now, &everywhere).await.err().map(|error| (error, true)),
    };
    if let Some((error, long)) = refused {
        tx.rollback().await?;
        if wait > PATIENCE {
            ctx.turned().keep(&source, now + wait, now);
        }
        if long {
            offer_pass(ctx, email);
        }
        return Err(error);
    }
    tried.accounts += i64::from(tried.here == 0);
    tried.everywhere += 1;
    tried.here += 1;
    login_failures::count(&mut tx, &source, &account, user, (now, now - FORGET)).await?;
    tx.commit().await?;
    Ok(Try { source, account, everywhere, user, tried })
}

/// Whoever changes what is counted of a source waits for the others here, before anything else.
async fn lock(tx: &mut PlatformTx, source: &str) -> Result<(), ActError> {
    Ok(store::people::lock_guesses(tx, &format!("login from {source}")).await?)
}

/// Forgets what failed at the account from its source: the try was right. Failures at other accounts stay, lest a guesser with an
/// account of his own begins anew.
pub(crate) async fn right(ctx: &Ctx, made: &Try) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    lock(&mut tx, &made.source).await?;
    if let Some(user) = made.user {
        login_failures::delete_passes(&mut tx, user).await?;
    }
    guesses::forget(&mut tx, &made.everywhere).await?;
    login_failures::clear(&mut tx, &made.source, &made.account).await?;
    Ok(tx.commit().await?)
}

/// The same for a person who has set a new password, in a transaction that has begun.
pub(crate) async fn forget_person(tx: &mut PlatformTx, email: &str, from: IpAddr) -> Result<(), ActError> {
    let source = net::display(&source_key(from));
    lock(tx, &source).await?;
    guesses::forget(tx, &guesses::password_from_anywhere(email)).await?;
    Ok(login_failures::clear(tx, &source, &account_of(email)).await?)
}

/// The try was wrong.
pub(crate) fn wrong(ctx: &Ctx, made: Try, from: IpAddr) {
    attacks(ctx, made.source, from, &made.tried);
}

/// A source that has come to the end of a ladder is blocked at the PBXes of whom it attacks. Beside the answer, which takes as long as any
/// other.
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
        if let Err(error) = stop(&ctx, &source, from, &reason).await {
            tracing::error!(error = %chain(&error), "stopping who attacks the login");
        }
    });
}

/// Makes it wait for a day, and blocks it at the PBXes of tenants whose people it has tried several passwords of, so that the block gives
/// nobody's membership away.
async fn stop(ctx: &Ctx, source: &str, from: IpAddr, reason: &str) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    login_failures::make_wait(&mut tx, source, ctx.now() + Duration::DAY).await?;
    let people = login_failures::people(&mut tx, source, ctx.now() - FORGET).await?;
    tx.commit().await?;
    let mut tenants: BTreeMap<TenantId, i64> = BTreeMap::new();
    for (person, failures) in people {
        for tenant_id in account::tenants(ctx, person).await? {
            *tenants.entry(tenant_id).or_default() += failures;
        }
    }
    tenants.retain(|_, failures| *failures >= SEVERAL);
    tracing::warn!(reason, tenants = tenants.len(), "a source attacks the login");
    tracing::debug!(source, "it is this one");
    for tenant_id in tenants.into_keys() {
        if let Err(error) = block_at(ctx, tenant_id, from, reason).await {
            tracing::error!(tenant.id = %tenant_id, error = %chain(&error), "blocking who attacks the login");
        }
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
    // Where people of the tenant work there may be phones, too.
    let now = act.now;
    let addresses = store::sessions::addresses(&mut act.tx, now).await?;
    let at_home = addresses
        .iter()
        .any(|address| address.parse().is_ok_and(|address: IpAddr| net.contains(&address.to_canonical())));
    if at_home || !worth_it(&mut act.tx, BanEntry { net, expires_at }, now).await? {
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

/// Mails the owner of an account, if there is one, a pass. Beside the answer, and looked up there: that there is an owner must not show in
/// how long it takes.
fn offer_pass(ctx: &Ctx, email: &str) {
    if !ctx.turned().may_offer(email, ctx.now()) {
        return;
    }
    let (ctx, email) = (ctx.clone(), email.to_owned());
    tokio::spawn(async move {
        if let Err(error) = mail_pass(&ctx, &email).await {
            tracing::error!(error = %chain(&error), "mailing a pass for the login");
        }
    });
}

async fn mail_pass(ctx: &Ctx, email: &str) -> Result<(), ActError> {
    let mut tx = ctx.store().platform().await?;
    let user = store::people::by_email(&mut tx, email).await?;
    tx.commit().await?;
    let Some(user) = user else { return Ok(()) };
    if !guesses::may_mail(ctx, "pass", email).await? {
        return Ok(());
    }
    let token = tokens::link_token();
    let mut tx = ctx.store().platform().await?;
    login_failures::insert_pass(&mut tx, &tokens::hash(&token), user.id, ctx.now() + PASS).await?;
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
            let tried = Tried { here, here_at: at, everywhere, everywhere_at: at, accounts, until: None };
            until(&tried).unwrap() - begun
        };
        let owner: Vec<i64> = (0..7).map(|failures| wait(failures, failures, 1).whole_seconds()).collect();
        assert_eq!(owner, [0, 0, 0, 0, 1, 3, 5], "who mistypes");
        let source: Vec<i64> =
            [6, 7, 9, 10, 14, 19, 24, 25, 99].map(|failures| wait(1, failures, 3).whole_minutes()).to_vec();
        assert_eq!(source, [0, 1, 1, 5, 30, 240, 240, 1440, 1440]);
        assert_eq!(step(ACCOUNTS, 14), Duration::ZERO);
        assert_eq!(step(ACCOUNTS, 15), Duration::DAY);
        let day = Tried { until: Some(begun + Duration::DAY), ..Tried::default() };
        assert_eq!(until(&day), day.until, "whatever is counted");
        assert_eq!(until(&Tried::default()), None);
    }
}

//! Blocked IPs: list, evidence, block, unblock, unblock and allow, export.

use ipnet::IpNet;
use policy::allowed_ips::{AllowedIpDraft, AllowedTarget};
use policy::authz::Operation;
use policy::bans::BanEntry;
use policy::blocked_ips::{
    self, BanSource, Blocked, BlockedIp, BlockedIpDetails, BlockedIpDraft, BlockedIpFilter, BlockedIpForm,
};
use policy::csv_text;
use policy::ids::BanId;
use policy::net;
use policy::paging::{PAGE_ROWS, Page};
use store::blocked_ips::{NewBan, Search};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::act::Act;
use crate::bus::Topic;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::{ActError, chain};
use crate::search::{self, Cursor};
use crate::{allowed_ips, bans};

/// Bans that are read, or ended in one transaction, at a time where there may be any number.
const BATCH: i64 = 10_000;

/// A page of the bans that hold, newest first.
pub async fn list(
    ctx: &Ctx,
    caller: &Caller,
    filter: BlockedIpFilter,
    after: Option<String>,
) -> Result<Page<BlockedIp>, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListBlockedIps).await?;
    let search = search(&filter);
    let before = after.as_deref().and_then(Cursor::parse);
    let mut rows =
        store::blocked_ips::list(&mut act.tx, &search, before.map(|at| (at.0, at.1.into())), PAGE_ROWS + 1).await?;
    let total = match search::known_total(&rows, before) {
        Some(total) => total,
        None => store::blocked_ips::count(&mut act.tx, &search).await?,
    };
    let next = search::next_cursor(&mut rows, |ban| Cursor(ban.created_at, ban.id.0));
    act.finish(Ok(Page { rows, next, total })).await
}

/// One ban with its evidence and the earlier bans of its source.
pub async fn show(ctx: &Ctx, caller: &Caller, id: BanId) -> Result<BlockedIpDetails, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ShowBlockedIp).await?;
    let result = match store::blocked_ips::by_id(&mut act.tx, id).await? {
        None => Err(ActError::NotFound),
        Some((ban, evidence)) => {
            let earlier = store::blocked_ips::earlier(&mut act.tx, ban.net, id, 20).await?;
            Ok(BlockedIpDetails { ban, evidence, earlier })
        }
    };
    act.finish(result).await
}

/// Blocks an address or network by hand.
pub async fn block(ctx: &Ctx, caller: &Caller, form: BlockedIpForm, insist: bool) -> Result<Blocked, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::BlockIp).await?;
    let result = block_inner(&mut act, caller, &form, insist).await;
    act.finish(result).await
}

async fn block_inner(
    act: &mut Act<'_>,
    caller: &Caller,
    form: &BlockedIpForm,
    insist: bool,
) -> Result<Blocked, ActError> {
    act.subject(form.net.chars().take(80).collect::<String>());
    let draft = blocked_ips::parse_draft(&form.net, &form.duration, &form.reason).map_err(ActError::Invalid)?;
    act.subject(net::display(&draft.net));
    if !insist {
        warn_of_harm(act, caller, &draft).await?;
    }
    let earlier = store::blocked_ips::times_banned(&mut act.tx, &[draft.net]).await?;
    let times = earlier.get(&draft.net).copied().unwrap_or(0) + 1;
    // Both sides of the wire keep whole seconds.
    let now = act.now.replace_nanosecond(0).unwrap_or(act.now);
    let expires_at = blocked_ips::expiry(draft.ban_seconds, now);
    let ban = NewBan {
        id: BanId(Uuid::now_v7()),
        entry: BanEntry { net: draft.net, expires_at },
        source: BanSource::Manual,
        reason: draft.reason.clone(),
        account: None,
        pbx_id: None,
        blocked_by: Some(caller.email.clone()),
        times_banned: i32::try_from(times).unwrap_or(i32::MAX),
        evidence: Vec::new(),
        created_at: act.now,
    };
    act.detail("reason", draft.reason);
    act.detail("seconds", draft.ban_seconds);
    act.detail("insisted", insist);
    let replaced = bans::add(act, std::slice::from_ref(&ban), &caller.email).await?;
    Ok(Blocked { id: ban.id, replaced })
}

/// Refuses, unless insisted, what would hit an allowed address or the administrator himself.
async fn warn_of_harm(act: &mut Act<'_>, caller: &Caller, draft: &BlockedIpDraft) -> Result<(), ActError> {
    if draft.net.contains(&caller.address.to_canonical()) {
        return Err(ActError::NeedsInsisting(format!(
            "You are at {} yourself: phones and administrators there would lose the PBX. Block it all the same?",
            caller.address
        )));
    }
    if let Some(warning) = blocked_ips::too_wide(&draft.net) {
        return Err(ActError::NeedsInsisting(warning));
    }
    let now = act.now;
    if let Some(allowed) = store::allowed_ips::overlapping(&mut act.tx, draft.net, now).await? {
        let name = net::display(&allowed);
        return Err(ActError::NeedsInsisting(if allowed.contains(&draft.net) {
            format!(
                "{name} is in Allowed IPs, and allowed always wins: the block would have no effect until that entry ends. Block it all the same?"
            )
        } else {
            format!(
                "This covers {name} of Allowed IPs, which stays reachable; everything else in it is blocked. Block it all the same?"
            )
        }));
    }
    Ok(())
}

/// Unblocks by ids; answers how many bans were ended.
pub async fn unblock(ctx: &Ctx, caller: &Caller, ids: Vec<BanId>) -> Result<i64, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::UnblockIps).await?;
    let result = unblock_inner(&mut act, caller, &ids).await;
    act.finish(result).await
}

/// Unblocks all that a filter finds; answers how many bans were ended. Each batch is kept, and audited, by itself.
pub async fn unblock_matching(ctx: &Ctx, caller: &Caller, filter: BlockedIpFilter) -> Result<i64, ActError> {
    let (mut total, mut before) = (0, None);
    loop {
        match unblock_batch(ctx, caller, &filter, before).await {
            Ok((ended, next)) => {
                total += ended;
                if next.is_none() {
                    return Ok(total);
                }
                before = next;
            }
            // That something failed says, in the portal, that nothing was changed.
            Err(error @ ActError::Internal { .. }) if total > 0 => {
                tracing::error!(error = %chain(&error), "unblocking all that match, in the middle");
                return Err(ActError::Refused(format!(
                    "{total} were unblocked, then something failed on our side. Unblock the rest again."
                )));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Unblocks those of a filter that began before a place in the list, as many as one transaction takes. Answers how many bans
/// were ended, and where the rest begins.
async fn unblock_batch(
    ctx: &Ctx,
    caller: &Caller,
    filter: &BlockedIpFilter,
    before: Option<Place>,
) -> Result<(i64, Option<Place>), ActError> {
    let mut act = Act::begin(ctx, caller, Operation::UnblockMatching).await?;
    act.detail("search", filter.search.clone());
    let result = unblock_batch_inner(&mut act, caller, &search(filter), before).await;
    act.finish(result).await
}

async fn unblock_batch_inner(
    act: &mut Act<'_>,
    caller: &Caller,
    search: &Search,
    before: Option<Place>,
) -> Result<(i64, Option<Place>), ActError> {
    let found = store::blocked_ips::list(&mut act.tx, search, before, BATCH).await?;
    let ids: Vec<BanId> = found.iter().map(|ban| ban.id).collect();
    let ended = bans::end(act, &ids, &caller.email).await?;
    note_networks(act, ended.iter().map(|entry| entry.net));
    Ok((i64::try_from(ended.len()).unwrap_or(i64::MAX), rest_after(&found)))
}

/// The instant and id of a ban: where those before it begin, in a list that has the newest first.
type Place = (OffsetDateTime, BanId);

/// Where the bans after a batch begin; `None` when it was the last one.
fn rest_after(batch: &[BlockedIp]) -> Option<Place> {
    let full = i64::try_from(batch.len()).is_ok_and(|rows| rows == BATCH);
    batch.last().filter(|_| full).map(|ban| (ban.created_at, ban.id))
}

async fn unblock_inner(act: &mut Act<'_>, caller: &Caller, ids: &[BanId]) -> Result<i64, ActError> {
    let ended = bans::end(act, ids, &caller.email).await?;
    note_networks(act, ended.iter().map(|entry| entry.net));
    if ended.is_empty() { Err(ActError::NotFound) } else { Ok(i64::try_from(ended.len()).unwrap_or(i64::MAX)) }
}

/// Unblocks and allows for good; answers how many bans were ended.
pub async fn unblock_and_allow(ctx: &Ctx, caller: &Caller, ids: Vec<BanId>, note: String) -> Result<i64, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::UnblockAndAllow).await?;
    let result = unblock_and_allow_inner(&mut act, caller, &ids, &note).await;
    act.finish(result).await
}

async fn unblock_and_allow_inner(
    act: &mut Act<'_>,
    caller: &Caller,
    ids: &[BanId],
    note: &str,
) -> Result<i64, ActError> {
    let note = policy::fields::plain_text(note, policy::allowed_ips::NOTE_MAX_CHARS)
        .map_err(|message| ActError::field("note", message))?;
    let ended = bans::end(act, ids, &caller.email).await?;
    if ended.is_empty() {
        return Err(ActError::NotFound);
    }
    let mut existing = store::allowed_ips::all(&mut act.tx).await?;
    for entry in &ended {
        if policy::allowed_ips::too_wide(&AllowedTarget::Net(entry.net)).is_some() {
            return Err(ActError::Refused(format!(
                "{} is too wide to be allowed from here: everyone in it would get past every protection. Unblock it, and allow the networks that you mean in Allowed IPs.",
                entry.net
            )));
        }
        let draft = AllowedIpDraft { target: AllowedTarget::Net(entry.net), note: note.clone(), expires_at: None };
        allowed_ips::ensure(act, caller, draft, &mut existing).await?;
    }
    note_networks(act, ended.iter().map(|entry| entry.net));
    act.publish(Topic::AllowedIps);
    act.raise_revision().await?;
    Ok(i64::try_from(ended.len()).unwrap_or(i64::MAX))
}

/// All bans of a filter as CSV.
pub async fn export(ctx: &Ctx, caller: &Caller, filter: BlockedIpFilter) -> Result<String, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ExportBlockedIps).await?;
    let result = export_inner(&mut act, &search(&filter)).await;
    act.finish(result).await
}

/// In batches: only the text is held whole.
async fn export_inner(act: &mut Act<'_>, search: &Search) -> Result<String, ActError> {
    let (mut text, mut before) = (String::new(), None);
    loop {
        let bans = store::blocked_ips::list(&mut act.tx, search, before, BATCH).await?;
        let part = csv_text::write_blocked_ips(&bans);
        // The names of the columns head the first part only.
        let rows = if text.is_empty() { None } else { part.split_once('\n') };
        text.push_str(rows.map_or(&part, |(_, rows)| rows));
        before = rest_after(&bans);
        if before.is_none() {
            return Ok(text);
        }
    }
}

/// Names up to 20 networks in the audit row, and how many there were.
pub(crate) fn note_networks(act: &mut Act<'_>, nets: impl Iterator<Item = IpNet>) {
    let names: Vec<String> = nets.map(|net| net::display(&net)).collect();
    let subject = match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    act.subject(subject);
    act.detail("count", names.len());
    act.detail("networks", names.into_iter().take(20).collect::<Vec<_>>());
}

fn search(filter: &BlockedIpFilter) -> Search {
    let typed = search::typed(&filter.search);
    Search { range: typed.range, word: typed.word, source: filter.source, pbx_id: filter.pbx_id }
}

/// When a ban reported by an agent ends, as both sides keep it.
pub(crate) fn whole_seconds(at: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    at.and_then(|at| at.replace_nanosecond(0).ok())
}

//! Allowed IPs: list, add, edit, delete, CSV in and out. Adding lifts the bans that the new entry covers.

use policy::allowed_ips::{self, Added, AllowedIp, AllowedIpDraft, AllowedIpForm, AllowedTarget};
use policy::authz::Operation;
use policy::csv_text;
use policy::fields::FieldError;
use policy::ids::AllowedIpId;
use policy::paging::{PAGE_ROWS, Page};
use store::allowed_ips::Search;
use uuid::Uuid;

use crate::act::Act;
use crate::bans;
use crate::bus::Topic;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;
use crate::search::{self, Cursor};

/// Most entries of a tenant; every PBX evaluates all of them.
const MAX_ENTRIES: usize = 10_000;

/// A page of the list, newest first.
pub async fn list(
    ctx: &Ctx,
    caller: &Caller,
    search: String,
    after: Option<String>,
) -> Result<Page<AllowedIp>, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListAllowedIps).await?;
    let typed = search::typed(&search);
    let search = Search { range: typed.range, word: typed.word };
    let before = after.as_deref().and_then(Cursor::parse);
    let mut rows =
        store::allowed_ips::list(&mut act.tx, &search, before.map(|at| (at.0, at.1.into())), PAGE_ROWS + 1).await?;
    let total = match search::known_total(&rows, before) {
        Some(total) => total,
        None => store::allowed_ips::count(&mut act.tx, &search).await?,
    };
    let next = search::next_cursor(&mut rows, |entry| Cursor(entry.created_at, entry.id.0));
    act.finish(Ok(Page { rows, next, total })).await
}

/// Allows a target.
pub async fn add(ctx: &Ctx, caller: &Caller, form: AllowedIpForm, insist: bool) -> Result<Added, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::AddAllowedIp).await?;
    let result = add_inner(&mut act, caller, &form, insist).await;
    act.finish(result).await
}

/// Allows the address that the request came from.
pub async fn allow_my_address(ctx: &Ctx, caller: &Caller) -> Result<Added, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::AllowMyAddress).await?;
    let form = AllowedIpForm {
        target: caller.address.to_canonical().to_string(),
        note: format!("where {} administers from", caller.email).chars().take(allowed_ips::NOTE_MAX_CHARS).collect(),
        expires_at: String::new(),
    };
    let result = add_inner(&mut act, caller, &form, true).await;
    act.finish(result).await
}

async fn add_inner(act: &mut Act<'_>, caller: &Caller, form: &AllowedIpForm, insist: bool) -> Result<Added, ActError> {
    let draft = parse(act, form)?;
    store::ban_set::lock(&mut act.tx).await?;
    let mut existing = store::allowed_ips::all(&mut act.tx).await?;
    refuse_covered(&draft, &existing, None)?;
    warn([allowed_ips::too_wide(&draft.target)], insist)?;
    guard_wide(act, caller, &draft.target)?;
    let id = AllowedIpId(Uuid::now_v7());
    let lifted_bans = insert_new(act, caller, id, draft, &mut existing).await?;
    act.publish(Topic::AllowedIps);
    act.raise_revision().await?;
    Ok(Added { id, added: 1, skipped: 0, lifted_bans })
}

/// Changes an entry.
pub async fn edit(
    ctx: &Ctx,
    caller: &Caller,
    id: AllowedIpId,
    form: AllowedIpForm,
    insist: bool,
) -> Result<Added, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::EditAllowedIp).await?;
    let result = edit_inner(&mut act, caller, id, &form, insist).await;
    act.finish(result).await
}

async fn edit_inner(
    act: &mut Act<'_>,
    caller: &Caller,
    id: AllowedIpId,
    form: &AllowedIpForm,
    insist: bool,
) -> Result<Added, ActError> {
    store::ban_set::lock(&mut act.tx).await?;
    let before = store::allowed_ips::by_id(&mut act.tx, id).await?.ok_or(ActError::NotFound)?;
    let draft = parse(act, form)?;
    let existing = store::allowed_ips::all(&mut act.tx).await?;
    refuse_covered(&draft, &existing, Some(id))?;
    store::allowed_ips::update(&mut act.tx, id, &draft).await?;
    act.detail("before", before.target.to_string());
    let lifted_bans = lift_covered(act, caller, &draft.target).await?;
    let cut_off = cut_off(act, caller, &[before.target]).await?;
    warn([allowed_ips::too_wide(&draft.target), cut_off], insist)?;
    guard_wide(act, caller, &draft.target)?;
    act.publish(Topic::AllowedIps);
    act.raise_revision().await?;
    Ok(Added { id, added: 0, skipped: 0, lifted_bans })
}

/// Letting so many in that it is advised against takes protection away.
fn guard_wide(act: &Act<'_>, caller: &Caller, target: &AllowedTarget) -> Result<(), ActError> {
    if allowed_ips::too_wide(target).is_some() { act.require_fresh_factor(caller) } else { Ok(()) }
}

/// Deletes entries; answers how many.
pub async fn delete(ctx: &Ctx, caller: &Caller, ids: Vec<AllowedIpId>, insist: bool) -> Result<i64, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::DeleteAllowedIps).await?;
    let result = delete_inner(&mut act, caller, &ids, insist).await;
    act.finish(result).await
}

async fn delete_inner(act: &mut Act<'_>, caller: &Caller, ids: &[AllowedIpId], insist: bool) -> Result<i64, ActError> {
    store::ban_set::lock(&mut act.tx).await?;
    let deleted = store::allowed_ips::delete(&mut act.tx, ids).await?;
    let Some(first) = deleted.first() else { return Err(ActError::NotFound) };
    act.subject(if deleted.len() == 1 { first.to_string() } else { format!("{first} and {} more", deleted.len() - 1) });
    act.detail("targets", deleted.iter().take(20).map(ToString::to_string).collect::<Vec<_>>());
    warn([cut_off(act, caller, &deleted).await?], insist)?;
    act.publish(Topic::AllowedIps);
    act.raise_revision().await?;
    Ok(i64::try_from(deleted.len()).unwrap_or(i64::MAX))
}

/// Adds the rows of a CSV file: all of them, or none when one is wrong. What is covered already is skipped; an entry of the
/// same target that ends earlier than its row lasts as long as the row says, and counts as added.
pub async fn import(ctx: &Ctx, caller: &Caller, csv: String) -> Result<Added, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ImportAllowedIps).await?;
    let result = import_inner(&mut act, caller, &csv).await;
    act.finish(result).await
}

async fn import_inner(act: &mut Act<'_>, caller: &Caller, csv: &str) -> Result<Added, ActError> {
    act.subject("CSV file");
    let drafts = csv_text::parse_allowed_ips(csv.as_bytes(), act.now).map_err(|errors| {
        ActError::Invalid(
            errors.into_iter().map(|error| FieldError::new(&format!("line {}", error.line), error.message)).collect(),
        )
    })?;
    let too_wide: Vec<FieldError> = drafts
        .iter()
        .filter_map(|(line, draft)| allowed_ips::too_wide(&draft.target).map(|_| (line, draft)))
        .map(|(line, draft)| {
            FieldError::new(
                &format!("line {line}"),
                format!("{} is wider than a file may allow. Add it by hand if you mean it.", draft.target),
            )
        })
        .collect();
    if !too_wide.is_empty() {
        return Err(ActError::Invalid(too_wide));
    }
    store::ban_set::lock(&mut act.tx).await?;
    let mut existing = store::allowed_ips::all(&mut act.tx).await?;
    let mut sum = Added { id: AllowedIpId(Uuid::nil()), added: 0, skipped: 0, lifted_bans: 0 };
    let mut lengthened = 0;
    for (_, draft) in drafts {
        let Some(ensured) = ensure(act, caller, draft, &mut existing).await? else {
            sum.skipped += 1;
            continue;
        };
        if sum.added == 0 {
            sum.id = ensured.id;
        }
        sum.added += 1;
        sum.lifted_bans += ensured.lifted_bans;
        lengthened += i64::from(!ensured.is_new);
    }
    act.detail("added", sum.added - lengthened);
    act.detail("lengthened", lengthened);
    act.detail("skipped", sum.skipped);
    if sum.added > 0 {
        act.publish(Topic::AllowedIps);
        act.raise_revision().await?;
    }
    Ok(sum)
}

/// All entries as CSV.
pub async fn export(ctx: &Ctx, caller: &Caller) -> Result<String, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ExportAllowedIps).await?;
    let entries = store::allowed_ips::all(&mut act.tx).await?;
    act.finish(Ok(csv_text::write_allowed_ips(&entries))).await
}

fn parse(act: &mut Act<'_>, form: &AllowedIpForm) -> Result<AllowedIpDraft, ActError> {
    act.subject(form.target.chars().take(80).collect::<String>());
    let draft =
        allowed_ips::parse_draft(&form.target, &form.note, &form.expires_at, act.now).map_err(ActError::Invalid)?;
    act.subject(&draft.target);
    act.detail("note", draft.note.clone());
    Ok(draft)
}

fn refuse_covered(draft: &AllowedIpDraft, existing: &[AllowedIp], except: Option<AllowedIpId>) -> Result<(), ActError> {
    let Some(cover) = allowed_ips::covered_by(draft, existing, except) else { return Ok(()) };
    let note = if cover.note.is_empty() { String::new() } else { format!(" ({})", cover.note) };
    Err(ActError::field("target", format!("Allowed already, by {}{note}. Edit that entry instead.", cover.target)))
}

/// Refuses, unless insisted, what is warned of.
fn warn<const N: usize>(warnings: [Option<String>; N], insist: bool) -> Result<(), ActError> {
    let warnings: Vec<String> = warnings.into_iter().flatten().collect();
    if insist || warnings.is_empty() { Ok(()) } else { Err(ActError::NeedsInsisting(warnings.join(" "))) }
}

/// What to warn of when entries of `targets` are gone or changed and the administrator's own address is blocked without them.
/// Whether a domain name stands for it only agents know; here it is taken for one that may.
async fn cut_off(act: &mut Act<'_>, caller: &Caller, targets: &[AllowedTarget]) -> Result<Option<String>, ActError> {
    let address = caller.address.to_canonical();
    let shielded = targets.iter().any(|target| match target {
        AllowedTarget::Net(net) => net.contains(&address),
        AllowedTarget::Domain(_) => true,
    });
    let now = act.now;
    if !shielded || store::allowed_ips::overlapping(&mut act.tx, address.into(), now).await?.is_some() {
        return Ok(None);
    }
    let ban = store::blocked_ips::covering(&mut act.tx, address.into(), now).await?;
    Ok(ban.map(|ban| {
        format!(
            "You are at {address} yourself, and {} is blocked: without this entry phones and administrators there would lose the PBX. Do it all the same?",
            policy::net::display(&ban)
        )
    }))
}

/// A target that is allowed by an entry of its own.
pub(crate) struct Ensured {
    id: AllowedIpId,
    is_new: bool,
    lifted_bans: i64,
}

/// Sees to it that a target is allowed for as long as the draft says: by a new entry, or by its own made to last. `None` when
/// there is nothing to do.
pub(crate) async fn ensure(
    act: &mut Act<'_>,
    caller: &Caller,
    draft: AllowedIpDraft,
    existing: &mut Vec<AllowedIp>,
) -> Result<Option<Ensured>, ActError> {
    let Some(cover) = allowed_ips::covered_by(&draft, existing, None) else {
        let id = AllowedIpId(Uuid::now_v7());
        let lifted_bans = insert_new(act, caller, id, draft, existing).await?;
        return Ok(Some(Ensured { id, is_new: true, lifted_bans }));
    };
    if cover.expires_at.is_none_or(|ours| draft.expires_at.is_some_and(|theirs| ours >= theirs)) {
        return Ok(None);
    }
    let id = cover.id;
    let longer = AllowedIpDraft { note: cover.note.clone(), ..draft };
    store::allowed_ips::update(&mut act.tx, id, &longer).await?;
    let lifted_bans = lift_covered(act, caller, &longer.target).await?;
    if let Some(entry) = existing.iter_mut().find(|entry| entry.id == id) {
        entry.expires_at = longer.expires_at;
    }
    Ok(Some(Ensured { id, is_new: false, lifted_bans }))
}

/// Keeps a new entry and lifts the bans that it covers; answers how many.
async fn insert_new(
    act: &mut Act<'_>,
    caller: &Caller,
    id: AllowedIpId,
    draft: AllowedIpDraft,
    existing: &mut Vec<AllowedIp>,
) -> Result<i64, ActError> {
    if existing.len() >= MAX_ENTRIES {
        return Err(ActError::Refused(format!(
            "The list is full: {MAX_ENTRIES} entries. Delete some, or allow networks instead of single addresses."
        )));
    }
    store::allowed_ips::insert(&mut act.tx, id, &draft, &caller.email, act.now).await?;
    let lifted = lift_covered(act, caller, &draft.target).await?;
    existing.push(AllowedIp {
        id,
        target: draft.target,
        note: draft.note,
        expires_at: draft.expires_at,
        created_at: act.now,
        created_by: caller.email.clone(),
    });
    Ok(lifted)
}

/// Ends the bans inside a newly allowed network. For a domain name the agents do, as only they resolve it.
async fn lift_covered(act: &mut Act<'_>, caller: &Caller, target: &AllowedTarget) -> Result<i64, ActError> {
    let AllowedTarget::Net(net) = target else { return Ok(0) };
    let covered = store::blocked_ips::inside(&mut act.tx, *net).await?;
    if covered.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = covered.into_iter().map(|(id, _)| id).collect();
    let ended = bans::end(act, &ids, &caller.email).await?;
    act.detail("lifted_bans", ended.len());
    Ok(i64::try_from(ended.len()).unwrap_or(i64::MAX))
}

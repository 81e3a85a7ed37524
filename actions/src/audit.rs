//! The audit log: list, and verify its chain.

use policy::audit::{AuditFilter, AuditRow, ChainBreak, ChainCheck, ChainVerdict};
use policy::authz::Operation;
use policy::ids::TenantId;
use policy::paging::{PAGE_ROWS, Page};
use store::TenantTx;

use crate::act::Act;
use crate::caller::Caller;
use crate::ctx::Ctx;
use crate::error::ActError;

/// Rows read at a time while verifying.
const CHUNK: i64 = 2_000;

/// A page of the log, newest first.
pub async fn list(
    ctx: &Ctx,
    caller: &Caller,
    filter: AuditFilter,
    after: Option<String>,
) -> Result<Page<AuditRow>, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::ListAudit).await?;
    let printable =
        |text: &str, most: usize| -> String { text.chars().filter(|c| !c.is_control()).take(most).collect() };
    let filter =
        AuditFilter { search: printable(&filter.search, 100), action: printable(&filter.action, 60), ..filter };
    let before = after.and_then(|text| text.parse().ok());
    let mut rows = store::audit::list(&mut act.tx, &filter, before, PAGE_ROWS + 1).await?;
    let total = store::audit::count(&mut act.tx, &filter).await?;
    let page = usize::try_from(PAGE_ROWS).unwrap_or(usize::MAX);
    let more = rows.len() > page;
    rows.truncate(page);
    let next = rows.last().filter(|_| more).map(|row| row.seq.to_string());
    act.finish(Ok(Page { rows, next, total })).await
}

/// Verifies the chain of the caller's tenant.
pub async fn verify(ctx: &Ctx, caller: &Caller) -> Result<ChainVerdict, ActError> {
    let mut act = Act::begin(ctx, caller, Operation::VerifyAudit).await?;
    let verdict = verify_chain(&mut act.tx).await?;
    act.finish(Ok(verdict)).await
}

/// Verifies the chains of all tenants; for the server's console.
pub async fn verify_all(ctx: &Ctx) -> Result<Vec<(TenantId, ChainVerdict)>, ActError> {
    let mut verdicts = Vec::new();
    for tenant in store::jobs::all_tenants(ctx.store()).await? {
        let mut tx = ctx.store().tenant(tenant).await?;
        verdicts.push((tenant, verify_chain(&mut tx).await?));
        tx.commit().await?;
    }
    Ok(verdicts)
}

async fn verify_chain(tx: &mut TenantTx) -> Result<ChainVerdict, ActError> {
    let head = store::audit::head(tx).await?.unwrap_or((0, vec![0; 32]));
    let mut check = ChainCheck::default();
    let mut reaches_head = head == (0, vec![0; 32]);
    let mut after = i64::MIN;
    loop {
        let rows = store::audit::chain(tx, after, CHUNK).await?;
        let Some(last) = rows.last() else { break };
        after = last.seq;
        for row in &rows {
            if let Err(broken) = check.check(row) {
                return Ok(verdict(check, Some(broken)));
            }
            if row.seq == head.0 {
                reaches_head = row.hash == head.1;
            }
        }
    }
    // Others may have written meanwhile, but a row and the head that knows it come at once: none that was read before is beyond
    // the head that is read after.
    let last = store::audit::head(tx).await?.map_or(0, |head| head.0);
    let broken = if !reaches_head {
        Some(ChainBreak {
            seq: head.0,
            problem: format!("row {}, the last written, is missing or another one", head.0),
        })
    } else if after > last {
        Some(ChainBreak { seq: last + 1, problem: format!("row {last} was the last written, and more rows follow") })
    } else {
        None
    };
    Ok(verdict(check, broken))
}

fn verdict(check: ChainCheck, broken: Option<ChainBreak>) -> ChainVerdict {
    let (rows, last_hash) = check.finish();
    ChainVerdict { rows, last_hash: data_encoding::HEXLOWER.encode(&last_hash), broken }
}

//! The audit log: append and read. The database grants no more.

use policy::audit::{AuditFilter, AuditRow, Outcome};
use policy::ids::AuditId;
use time::OffsetDateTime;

use crate::db::{StoreError, TenantTx};

/// What a new row says.
#[derive(Debug, Clone)]
pub struct NewAuditRow {
    /// Its id.
    pub id: AuditId,
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// What.
    pub action: &'static str,
    /// Done or refused.
    pub outcome: Outcome,
    /// To what.
    pub subject: String,
    /// More, as JSON text.
    pub details: String,
    /// From which address.
    pub source: String,
}

/// Begins the chain of a new tenant.
pub async fn begin_chain(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    sqlx::query!(
        "INSERT INTO audit_heads (tenant_id, seq, hash) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING",
        tenant,
        &[0u8; 32][..]
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Appends rows to the tenant's chain, in this order. Writers of one tenant wait for each other here, so call it last; see also
/// [`crate::ban_set::lock`].
pub async fn append(tx: &mut TenantTx, new: Vec<NewAuditRow>) -> Result<(), StoreError> {
    let tenant = tx.tenant().0;
    let head = if let Some(head) = lock_head(tx).await? {
        head
    } else {
        begin_chain(tx).await?;
        lock_head(tx).await?.ok_or(StoreError::Database(sqlx::Error::RowNotFound))?
    };
    let (mut seq, mut hash) = head;
    let rows: Vec<AuditRow> = new
        .into_iter()
        .map(|new| {
            let row = chained(new, seq, hash.clone());
            (seq, hash) = (row.seq, row.hash.clone());
            row
        })
        .collect();
    let of = |text: fn(&AuditRow) -> &str| -> Vec<String> { rows.iter().map(|row| text(row).to_owned()).collect() };
    sqlx::query!(
        "INSERT INTO audit (tenant_id, id, seq, at, actor, action, outcome, subject, details, source, previous_hash, hash)
         SELECT $1, r.* FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                                    $10::text[], $11::bytea[], $12::bytea[]) AS r",
        tenant,
        &rows.iter().map(|row| row.id.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        &of(|row| &row.actor),
        &of(|row| &row.action),
        &of(|row| row.outcome.as_str()),
        &of(|row| &row.subject),
        &of(|row| &row.details),
        &of(|row| &row.source),
        &rows.iter().map(|row| row.previous_hash.clone()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.hash.clone()).collect::<Vec<_>>()
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!("UPDATE audit_heads SET seq = $2, hash = $3 WHERE tenant_id = $1", tenant, seq, hash)
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn lock_head(tx: &mut TenantTx) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let tenant = tx.tenant().0;
    let head = sqlx::query!("SELECT seq, hash FROM audit_heads WHERE tenant_id = $1 FOR UPDATE", tenant)
        .fetch_optional(tx.conn())
        .await?;
    Ok(head.map(|head| (head.seq, head.hash)))
}

/// The row after the one with this number and hash.
fn chained(new: NewAuditRow, seq: i64, previous_hash: Vec<u8>) -> AuditRow {
    let NewAuditRow { id, at, actor, action, outcome, subject, details, source } = new;
    // PostgreSQL keeps microseconds; what is hashed must be what will be read.
    let at = at.replace_nanosecond(at.nanosecond() / 1000 * 1000).unwrap_or(at);
    let mut row = AuditRow {
        id,
        seq: seq + 1,
        at,
        actor,
        action: action.to_owned(),
        outcome,
        subject,
        details,
        source,
        previous_hash,
        hash: Vec::new(),
    };
    row.hash = row.expected_hash().to_vec();
    row
}

struct Row {
    id: uuid::Uuid,
    seq: i64,
    at: OffsetDateTime,
    actor: String,
    action: String,
    outcome: String,
    subject: String,
    details: String,
    source: String,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
}

impl From<Row> for AuditRow {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            seq: row.seq,
            at: row.at,
            actor: row.actor,
            action: row.action,
            outcome: Outcome::from_name(&row.outcome).unwrap_or(Outcome::Refused),
            subject: row.subject,
            details: row.details,
            source: row.source,
            previous_hash: row.previous_hash,
            hash: row.hash,
        }
    }
}

/// Rows before `before` (a place in the chain), newest first.
pub async fn list(
    tx: &mut TenantTx,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    let (search, action) = patterns(filter);
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, seq, at, actor, action, outcome, subject, details, source, previous_hash, hash FROM audit
         WHERE ($1::bigint IS NULL OR seq < $1)
           AND ($2::text IS NULL OR actor ILIKE $2 OR subject ILIKE $2 OR action ILIKE $2)
           AND ($3::text IS NULL OR action LIKE $3)
           AND ($4::text IS NULL OR outcome = $4)
         ORDER BY seq DESC LIMIT $5",
        before,
        search,
        action,
        filter.outcome.map(Outcome::as_str),
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(AuditRow::from).collect())
}

/// How many rows a filter finds.
pub async fn count(tx: &mut TenantTx, filter: &AuditFilter) -> Result<i64, StoreError> {
    let (search, action) = patterns(filter);
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM audit
           WHERE ($1::text IS NULL OR actor ILIKE $1 OR subject ILIKE $1 OR action ILIKE $1)
             AND ($2::text IS NULL OR action LIKE $2)
             AND ($3::text IS NULL OR outcome = $3)"#,
        search,
        action,
        filter.outcome.map(Outcome::as_str)
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Rows after a place in the chain, oldest first; for verifying.
pub async fn chain(tx: &mut TenantTx, after: i64, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, seq, at, actor, action, outcome, subject, details, source, previous_hash, hash FROM audit
         WHERE seq > $1 ORDER BY seq LIMIT $2",
        after,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(AuditRow::from).collect())
}

/// Where the chain must end: its last row's place and hash.
pub async fn head(tx: &mut TenantTx) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let tenant = tx.tenant().0;
    let head = sqlx::query!("SELECT seq, hash FROM audit_heads WHERE tenant_id = $1", tenant)
        .fetch_optional(tx.conn())
        .await?;
    Ok(head.map(|head| (head.seq, head.hash)))
}

fn patterns(filter: &AuditFilter) -> (Option<String>, Option<String>) {
    let search = (!filter.search.trim().is_empty()).then(|| format!("%{}%", escape_like(filter.search.trim())));
    let action = (!filter.action.is_empty()).then(|| format!("{}%", escape_like(&filter.action)));
    (search, action)
}

/// Takes the meaning from what LIKE reads as wildcards.
pub(crate) fn escape_like(text: &str) -> String {
    text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_")
}

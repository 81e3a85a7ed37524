//! Two tenants with a row in every table, made through the store's own functions, and connections of each role.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use policy::allowed_ips::AllowedIpDraft;
use policy::audit::Outcome;
use policy::authz::Role;
use policy::bans::{BanChange, BanDigest, BanEntry};
use policy::blocked_ips::BanSource;
use policy::ids::{AllowedIpId, AuditId, BanId, BatchId, InvitationId, PbxId, TenantId, UserId};
use policy::people::Invitation;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use store::audit::NewAuditRow;
use store::blocked_ips::NewBan;
use store::rollups::Count;
use store::testing::TestDb;
use store::{StoreError, TenantTx};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

pub(crate) const NOW: OffsetDateTime = datetime!(2030-01-01 12:00 UTC);

/// A database with two tenants.
pub(crate) struct World {
    pub db: TestDb,
    pub a: Tenant,
    pub b: Tenant,
}

/// A tenant and what it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant {
    pub id: TenantId,
    pub user: UserId,
    pub pbx: PbxId,
    pub allowed: AllowedIpId,
    pub ban: BanId,
}

impl World {
    pub(crate) async fn new() -> Self {
        let db = TestDb::new().await;
        let (a, b) = (Tenant::make(&db, "alpha").await, Tenant::make(&db, "beta").await);
        Self { db, a, b }
    }

    pub(crate) async fn tx(&self, tenant: Tenant) -> TenantTx {
        self.db.store.tenant(tenant.id).await.unwrap()
    }
}

impl Tenant {
    async fn make(db: &TestDb, slug: &str) -> Self {
        let tenant = Self {
            id: TenantId(Uuid::now_v7()),
            user: UserId(Uuid::now_v7()),
            pbx: PbxId(Uuid::now_v7()),
            allowed: AllowedIpId(Uuid::now_v7()),
            ban: BanId(Uuid::now_v7()),
        };
        let mut tx = db.store.tenant(tenant.id).await.unwrap();
        store::tenants::insert(&mut tx, slug, slug, NOW).await.unwrap();
        store::people::insert(&mut tx, tenant.user, &format!("ann@{slug}.example"), "$argon2id$", NOW).await.unwrap();
        store::members::insert(&mut tx, tenant.user, Role::SuperAdministrator, "", NOW).await.unwrap();
        let invitation = Invitation {
            id: InvitationId(Uuid::now_v7()),
            email: format!("new@{slug}.example"),
            role: Role::Auditor,
            invited_by: format!("ann@{slug}.example"),
            expires_at: NOW + time::Duration::WEEK,
        };
        store::invitations::insert(&mut tx, &invitation, slug.as_bytes(), NOW).await.unwrap();
        store::pbxes::insert(&mut tx, tenant.pbx, "hq", NOW).await.unwrap();
        store::agents::insert_certificate(&mut tx, tenant.pbx, slug.as_bytes(), NOW, NOW + time::Duration::DAY)
            .await
            .unwrap();
        store::agents::insert_batches(&mut tx, &[(BatchId(Uuid::now_v7()), tenant.pbx)], NOW).await.unwrap();
        store::rollups::add(&mut tx, &[Count { pbx_id: tenant.pbx, at: NOW, attempts: 5, bans: 1 }]).await.unwrap();
        store::allowed_ips::insert(&mut tx, tenant.allowed, &allow("203.0.113.0/24"), "ann", NOW).await.unwrap();
        let ban = ban("198.51.100.7", NOW);
        let entry = ban.entry;
        insert(&mut tx, &NewBan { id: tenant.ban, pbx_id: Some(tenant.pbx), ..ban }).await.unwrap();
        let set = store::ban_set::lock(&mut tx).await.unwrap();
        store::ban_set::append(&mut tx, &set, &[BanChange::Add(entry)], BanDigest::of([&entry])).await.unwrap();
        store::audit::append(&mut tx, vec![audit_row("203.0.113.0/24")]).await.unwrap();
        tx.commit().await.unwrap();
        tenant
    }
}

pub(crate) fn allow(target: &str) -> AllowedIpDraft {
    policy::allowed_ips::parse_draft(target, "Office", "", NOW).unwrap()
}

pub(crate) fn ban(net: &str, created_at: OffsetDateTime) -> NewBan {
    NewBan {
        id: BanId(Uuid::now_v7()),
        entry: BanEntry {
            net: policy::net::parse_net(net).unwrap(),
            expires_at: Some(created_at + time::Duration::HOUR),
        },
        source: BanSource::Detection,
        reason: "5 wrong passwords for 1007".to_owned(),
        account: Some("1007".to_owned()),
        pbx_id: None,
        blocked_by: None,
        times_banned: 1,
        evidence: Vec::new(),
        created_at,
    }
}

pub(crate) fn audit_row(subject: &str) -> NewAuditRow {
    NewAuditRow {
        id: AuditId(Uuid::now_v7()),
        at: NOW,
        actor: "ann@example.com".to_owned(),
        action: "allowed_ips/add",
        outcome: Outcome::Done,
        subject: subject.to_owned(),
        details: "{}".to_owned(),
        source: "203.0.113.9".to_owned(),
    }
}

/// A connection of its own, for statements that the store doesn't have.
pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

/// The same sequence in every run: enough randomness for tests, and a failure comes again.
pub(crate) struct Random(pub u64);

impl Random {
    /// Splitmix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Keeps one ban.
pub(crate) async fn insert(tx: &mut TenantTx, ban: &NewBan) -> Result<(), StoreError> {
    store::blocked_ips::insert(tx, std::slice::from_ref(ban), &BTreeSet::new(), "", NOW).await
}

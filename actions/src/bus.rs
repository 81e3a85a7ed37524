//! Hints that something of a tenant changed, to this node and to the others. Never the truth: who misses one finds it in the rows, and
//! everybody looks again every few seconds.

use std::collections::HashSet;
use std::time::Duration;

use policy::ids::TenantId;
use policy::metrics::{HINTS, HINTS_LOST};
use store::TenantTx;
use tokio::sync::{broadcast, mpsc};

use crate::ctx::Ctx;
use crate::error::{ActError, chain};

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The policy that PBXes enforce.
    Policy,
    /// The set of bans that PBXes hold.
    Bans,
    /// A PBX: state, name, what it applied.
    Pbxes,
    /// What may end a stream of an agent: revoked, removed, renamed, taken over.
    Roster,
    /// The list of allowed IPs.
    AllowedIps,
    /// The list of blocked IPs.
    BlockedIps,
    /// The audit log.
    Audit,
    /// Sessions or roles of people.
    Sessions,
    /// Who has access, or is invited.
    People,
    /// Hints may have been lost: look at everything.
    Everything,
}

impl Topic {
    const ALL: [Self; 10] = [
        Self::Policy,
        Self::Bans,
        Self::Pbxes,
        Self::Roster,
        Self::AllowedIps,
        Self::BlockedIps,
        Self::Audit,
        Self::Sessions,
        Self::People,
        Self::Everything,
    ];

    /// Its name on the notification channel and in the browser's stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Bans => "bans",
            Self::Pbxes => "pbxes",
            Self::Roster => "roster",
            Self::AllowedIps => "allowed_ips",
            Self::BlockedIps => "blocked_ips",
            Self::Audit => "audit",
            Self::Sessions => "sessions",
            Self::People => "people",
            Self::Everything => "everything",
        }
    }

    /// The topic of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == name)
    }
}

/// One hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// Whose; `None` for all tenants.
    pub tenant_id: Option<TenantId>,
    /// What.
    pub topic: Topic,
}

impl Change {
    /// Whether it concerns a tenant.
    pub fn concerns(&self, tenant: TenantId) -> bool {
        self.tenant_id.is_none_or(|id| id == tenant)
    }
}

impl Change {
    /// To look at everything, of all tenants: hints may have been lost.
    pub const EVERYTHING: Self = Self { tenant_id: None, topic: Topic::Everything };
}

/// Commits, and tells this node and the others what has changed. Telling neither waits nor fails, and is no part of the transaction:
/// PostgreSQL writes transactions that notify to its disk one after the other, those that don't together.
pub(crate) async fn commit(ctx: &Ctx, tx: TenantTx, topics: impl IntoIterator<Item = Topic>) -> Result<(), ActError> {
    let tenant_id = Some(tx.tenant());
    tx.commit().await?;
    for topic in topics {
        ctx.bus().tell(Change { tenant_id, topic });
    }
    Ok(())
}

/// Hints for the other nodes, for whoever carries them there.
pub type Outgoing = mpsc::Receiver<Change>;

/// Hints that wait to be carried to the other nodes; what comes on top of them is lost, and found by the next look.
const WAITING: usize = 4096;

/// Spreads hints.
#[derive(Debug, Clone)]
pub struct Bus {
    inside: broadcast::Sender<Change>,
    outside: mpsc::Sender<Change>,
}

impl Bus {
    /// The bus of a node, and what it has for the others.
    pub fn new() -> (Self, Outgoing) {
        Self::with_room(WAITING)
    }

    /// The same, with room for so many hints for the others.
    pub fn with_room(waiting: usize) -> (Self, Outgoing) {
        let (outside, outgoing) = mpsc::channel(waiting);
        (Self { inside: broadcast::Sender::new(1024), outside }, outgoing)
    }

    /// Hears all hints from here on. A receiver that lags must look at everything.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.inside.subscribe()
    }

    /// Spreads a hint on this node only.
    pub fn send(&self, change: Change) {
        // Nobody listening is fine.
        let _ = self.inside.send(change);
    }

    /// Spreads a hint on this node and on the others.
    pub(crate) fn tell(&self, change: Change) {
        self.send(change);
        if let Err(mpsc::error::TrySendError::Full(change)) = self.outside.try_send(change) {
            tracing::debug!(topic = change.topic.as_str(), "a hint to the other nodes is lost; they look for it");
        }
    }
}

/// Carries hints between nodes as notifications of the database until the task is dropped; after a lost connection everybody is told to
/// look at everything. What is left in `outgoing` then is for [`carry`].
pub async fn run(ctx: &Ctx, outgoing: &mut Outgoing) {
    let listening = Box::pin(async {
        loop {
            if let Err(error) = feed(ctx).await {
                tracing::warn!(error = %chain(&error), "listening for notifications of the database; trying again");
            }
            ctx.bus().send(Change::EVERYTHING);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    tokio::join!(listening, carry(ctx, outgoing));
}

/// Notifies the other nodes of what is in `outgoing`, until it is closed.
pub async fn carry(ctx: &Ctx, outgoing: &mut Outgoing) {
    let mut taken = Vec::new();
    while outgoing.recv_many(&mut taken, WAITING).await > 0 {
        let changes: HashSet<Change> = taken.drain(..).collect();
        let hints = changes.into_iter().filter_map(|change| Some((change.tenant_id?, change.topic.as_str())));
        if let Err(error) = store::notify::publish(ctx.store(), ctx.node(), hints).await {
            tracing::debug!(error = %chain(&error), "hints to the other nodes are lost; they look for them");
        }
    }
}

async fn feed(ctx: &Ctx) -> Result<(), store::StoreError> {
    let mut listener = store::notify::Listener::start(ctx.store(), ctx.node()).await?;
    metrics::counter!(HINTS_LOST.name).increment(1);
    ctx.bus().send(Change::EVERYTHING);
    loop {
        let change = match listener.next().await? {
            None => {
                metrics::counter!(HINTS_LOST.name).increment(1);
                Change::EVERYTHING
            }
            Some((tenant_id, name)) => match Topic::from_name(&name) {
                Some(topic) => Change { tenant_id: Some(tenant_id), topic },
                None => continue,
            },
        };
        metrics::counter!(HINTS.name).increment(1);
        ctx.bus().send(change);
    }
}

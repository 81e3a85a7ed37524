//! Turns of streams that begin at the database: a few at a time, so that a fleet that comes back leaves room for everything else, and fewer of
//! one tenant, so that none keeps the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use policy::ids::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many streams are looked up, or noted, at a time.
const ALTOGETHER: usize = 16;
/// So many of one tenant, whose log they wait for one after the other.
const OF_TENANT: usize = 4;

/// Who is under way.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    altogether: Arc<Semaphore>,
    tenants: Arc<Mutex<HashMap<TenantId, Arc<Semaphore>>>>,
}

/// One turn, as long as it is kept.
#[derive(Debug)]
pub(super) struct Turn {
    _altogether: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { altogether: Arc::new(Semaphore::new(ALTOGETHER)), tenants: Arc::default() }
    }

    /// Waits among its tenant's, and then among all; `None` never, since nobody closes them.
    pub(super) async fn turn(&self, tenant: TenantId) -> Option<Turn> {
        let of_tenant = self.of_tenant(tenant).acquire_owned().await.ok()?;
        let altogether = Arc::clone(&self.altogether).acquire_owned().await.ok()?;
        Some(Turn { _altogether: altogether, _of_tenant: of_tenant })
    }

    /// Waits until those who have come before have their turn.
    pub(super) async fn pass(&self) {
        drop(self.altogether.acquire().await);
    }

    fn of_tenant(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then, so that nothing is kept of who is through.
        if tenants.len() == tenants.capacity() {
            tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(OF_TENANT))))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn tenant(n: usize) -> TenantId {
        TenantId(Uuid::from_u128(n as u128))
    }

    #[tokio::test]
    async fn one_tenant_keeps_neither_the_others_nor_the_door_shut() {
        let arrivals = Arrivals::new();
        let mut busy = Vec::new();
        for _ in 0..OF_TENANT {
            busy.push(arrivals.turn(tenant(0)).await.unwrap());
        }
        let waiting: Vec<_> = (0..100).map(|_| arrivals.clone()).collect();
        let mut waiting: Vec<_> = waiting.iter().map(|arrivals| Box::pin(arrivals.turn(tenant(0)))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        arrivals.pass().now_or_never().expect("the door is open");
        arrivals.turn(tenant(1)).now_or_never().expect("another tenant's have their turn").unwrap();
        drop(busy.pop());
        waiting[0].as_mut().now_or_never().expect("the first of those who wait").unwrap();
    }

    #[tokio::test]
    async fn who_comes_waits_for_those_before() {
        let arrivals = Arrivals::new();
        let mut busy = Vec::new();
        for n in 0..ALTOGETHER {
            busy.push(arrivals.turn(tenant(n)).await.unwrap());
        }
        let mut next = Box::pin(arrivals.turn(tenant(ALTOGETHER)));
        assert!(next.as_mut().now_or_never().is_none());
        let mut door = Box::pin(arrivals.pass());
        assert!(door.as_mut().now_or_never().is_none());
        busy.pop();
        let turn = next.as_mut().now_or_never().expect("it came before").unwrap();
        assert!(door.as_mut().now_or_never().is_none());
        drop(turn);
        door.now_or_never().expect("nobody is before it");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_is_through() {
        let arrivals = Arrivals::new();
        for n in 0..10_000 {
            drop(arrivals.turn(tenant(n)).await);
        }
        assert!(arrivals.tenants.lock().unwrap().len() < 100);
    }
}

//! How fast a PBX may go on after a stream of it has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use policy::ids::PbxId;
use tokio::time::Instant;

/// From when on the next stream of a PBX is read: making one anew is no way around the pace.
#[derive(Debug, Clone, Default)]
pub(super) struct Paces(Arc<Mutex<HashMap<PbxId, Instant>>>);

impl Paces {
    /// Takes what was kept of a PBX.
    pub(super) fn take(&self, pbx: PbxId) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pbx)
    }

    /// Keeps until when the PBX's next stream has to wait.
    pub(super) fn keep(&self, pbx: PbxId, until: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then, so that a fleet that leaves at once doesn't look through itself for each.
        if kept.len() == kept.capacity() {
            kept.retain(|_, until| *until > Instant::now());
        }
        let until = kept.get(&pbx).map_or(until, |before| until.max(*before));
        if until > Instant::now() {
            kept.insert(pbx, until);
        }
    }
}

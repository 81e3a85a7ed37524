//! The phone system: where security events come from. Asterisk for real, or a simulated one for the demonstration.

mod ami;
mod asterisk;
mod challenges;
mod simulated;

use async_trait::async_trait;
use policy::detection::SecurityEvent;
use policy::safety::Phones;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use ami::{AmiError, AmiSession, security_event, security_events_of_text};
pub use asterisk::Asterisk;
pub use challenges::{Sent, watch as watch_challenges};
pub use simulated::Simulated;

/// What a PBX tells.
#[derive(Debug, Clone)]
pub enum PbxEvent {
    /// It is connected; its version.
    Up(String),
    /// It isn't reached, and why.
    Down(String),
    /// A security event, and when it arrived here.
    Security(SecurityEvent, Instant),
    /// How many phones are registered, and from which addresses, where they are known.
    Registered(usize, Phones),
}

/// A phone system.
#[async_trait]
pub trait Pbx: Send {
    /// `asterisk` or `simulated`.
    fn kind(&self) -> &'static str;

    /// Tells what happens until nobody listens; connects again by itself. `closely` says when phones are to be counted often.
    async fn run(self: Box<Self>, events: mpsc::Sender<PbxEvent>, closely: watch::Receiver<bool>);
}

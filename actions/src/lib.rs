//! What people, agents and jobs can do. One function per use case: authorise, decide with `policy`, write through `store`,
//! leave an audit row, publish. [`act::Act`] is the frame that all of them share.

pub mod account;
pub mod act;
pub mod agents;
pub mod allowed_ips;
pub mod audit;
mod backstage;
mod bans;
pub mod blocked_ips;
pub mod bus;
pub mod ca;
pub mod caller;
pub mod clock;
mod ctx;
pub mod demo;
pub mod enforcement;
mod enrolment_token;
mod error;
mod guesses;
pub mod invitations;
pub mod jobs;
mod login_guard;
pub mod mail;
pub mod overview;
pub mod password_reset;
pub mod passwords;
pub mod pbxes;
pub mod people;
pub mod seal;
mod search;
pub mod sessions;
pub mod sign_up;
pub mod standing;
mod tokens;
pub mod totp;
pub mod trace;

pub use caller::{Caller, Login, Visitor};
pub use ctx::{Ctx, Settings};
pub use error::{ActError, chain};

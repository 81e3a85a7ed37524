//! Drills: something breaks while everything runs, and what was promised holds all the same. The programs are the real ones, built beside
//! the tests; the firewall is the kernel's; the packets are real, in network namespaces of their own:
//!
//! ```text
//! phones, attackers ── wire ── PBX: ringfence-agent, nftables, UDP echo, Asterisk's manager port ── uplink ── portal: ringfence serve, PostgreSQL
//! ```
//!
//! Asterisk itself isn't there: [`Asterisk`] is a socket that speaks its manager protocol, so that an attack comes when a drill wants it and
//! from where it wants it. Phones in allowed addresses send all the time, and none of their packets may be lost in any drill.
//!
//! What holds in every drill is asserted by [`Drill::end`]: the phones lost nothing, the audit log's chain is whole, and every ban is in
//! the database once. The programs are built with the tests of the workspace (`cargo nextest run --workspace --exclude frontend`), or by
//! `cargo build -p server -p agent`.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a drill fails that way")]

mod asterisk;
mod machine;
mod portal;
mod programs;

use std::time::Duration;

use ipnet::IpNet;
use testbed::namespaces::Namespaces;
use testbed::traffic::Traffic;

pub use asterisk::Asterisk;
pub use machine::Machine;
pub use portal::{Answer, Portal};
pub use programs::{Program, eventually, until};
pub use testbed::namespaces::possible;

/// What the tenant allows: the phones are in it.
pub const OFFICE: [&str; 2] = ["203.0.113.192/26", "2001:db8:0:c0::/64"];
const PHONES: [&str; 2] = ["203.0.113.200", "2001:db8:0:c0::200"];
/// Blocked by hand from the beginning of each drill, for a day.
pub const BLOCKED: &str = "198.51.100.66";

/// A portal and a PBX at work: the agent is connected, phones are busy, one source is blocked and goes on trying.
pub struct Drill {
    /// Phones in allowed addresses.
    pub phones: Vec<Traffic>,
    /// The source that is blocked.
    pub blocked: Traffic,
    /// The PBX's manager port.
    pub asterisk: Asterisk,
    /// The PBX.
    pub machine: Machine,
    /// The server and its database.
    pub portal: Portal,
    /// The machines and wires; gone last.
    pub namespaces: Namespaces,
}

impl Drill {
    /// Everything is up, and what the administrator wants is enforced.
    pub fn start() -> Self {
        Self::with(|_, _| {})
    }

    /// The same; `prepare` may do something to the PBX's machine before its agent enrols.
    pub fn with(prepare: impl FnOnce(&Namespaces, &mut Machine)) -> Self {
        let namespaces = Namespaces::with_portal();
        let portal = Portal::start(&namespaces);
        let mut machine = Machine::new();
        prepare(&namespaces, &mut machine);
        for net in OFFICE {
            portal.allow(&namespaces, net);
        }
        portal.block(&namespaces, BLOCKED, 86_400);
        machine.enrol(&namespaces, &portal.token(&namespaces, "hq"));
        let asterisk = Asterisk::start(&namespaces, PHONES.len());
        machine.start(&namespaces);
        let phones = PHONES.iter().map(|phone| Traffic::start(&namespaces, phone)).collect();
        portal.until_enforced(&namespaces);
        let blocked = Traffic::start(&namespaces, BLOCKED);
        Self { phones, blocked, asterisk, machine, portal, namespaces }
    }

    /// Blocks an address for an hour, if the portal answers; whether it said that it is done.
    pub fn block(&self, address: &str) -> bool {
        self.portal.try_block(&self.namespaces, address, 3_600)
    }

    /// Somebody guesses passwords until he is banned: when this returns, his packets are dropped.
    pub fn attack(&self, address: &str) {
        assert!(self.gets_through(address), "{address} is banned before it has done anything");
        self.asterisk.attack(address);
        eventually("the attacker is banned", 10, || !self.gets_through(address));
    }

    /// Whether packets of this source are answered.
    pub fn gets_through(&self, address: &str) -> bool {
        self.namespaces.flow(address).works()
    }

    /// None of these sources gets an answer.
    pub fn assert_out<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        for address in addresses {
            assert!(!self.gets_through(address), "{address} gets through");
        }
    }

    /// What the administrator wants is in force, and all that the agent has to tell is stored.
    pub fn until_settled(&self) {
        self.portal.until_enforced(&self.namespaces);
        // What it says a second later: it may have written the last one before something happened.
        let before = self.machine.status().map(|status| status.at);
        until("all reports are stored", 40, || {
            let status = self.machine.status().ok_or("no status")?;
            if Some(status.at) != before
                && status.online
                && status.enforced
                && status.spooled == 0
                && status.bans_unreported == 0
            {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        });
    }

    /// What holds after every drill. `bans` were acknowledged, by the portal or by the kernel: each is there once, and in force.
    pub fn end<'a>(self, bans: impl IntoIterator<Item = &'a str>) {
        self.until_settled();
        let bans: Vec<&str> = bans.into_iter().chain([BLOCKED]).collect();
        for address in &bans {
            let net: IpNet = policy::net::source_key(address.parse().unwrap());
            assert_eq!(self.portal.times_banned(net), 1, "{address} was acknowledged");
        }
        self.assert_out(bans);
        self.blocked.assert_nothing_got_through();
        self.portal.assert_no_ban_twice();
        self.phones.iter().for_each(Traffic::assert_nothing_lost);
        self.portal.assert_audit_is_whole();
    }
}

/// A moment from 0 to `most`, another one each time.
pub fn some_moment(most: Duration) {
    std::thread::sleep(most.mul_f64(rand::random::<f64>()));
}

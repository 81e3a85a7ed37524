//! The PBX's machine: its disk, its firewall, its clock, its power.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use agent::clock::{Clock as _, SystemClock};
use drills::{BLOCKED, Drill, Machine, eventually, possible, until};
use testbed::namespaces::{Namespaces, run};

/// A file system of its own for the agent's state, with little room.
struct SmallDisk<'a> {
    path: &'a Path,
}

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        run("mount", &format!("-t tmpfs -o size=1m,mode=700 ringfence-drill {}", path.display()));
        Self { path }
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = File::create(self.path.join("somebody-elses")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path.join("somebody-elses")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // The agent may still have a file open when a drill fails.
        run("umount", &format!("--lazy {}", self.path.display()));
    }
}

#[test]
fn a_full_disk_stops_nothing_and_loses_nothing_once_there_is_room() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(folder.path());
    let mut drill = Drill::with(|_, machine| machine.keep_state_in(folder.path()));
    disk.fill();
    // By the agent, by hand, and a change of the policy: in force, although nothing can be kept.
    drill.attack("203.0.113.10");
    drill.portal.block(&drill.namespaces, "198.51.100.100", 3_600);
    let guest = drill.portal.allow(&drill.namespaces, "198.51.100.128/28");
    drill.portal.until_enforced(&drill.namespaces);
    drill.portal.disallow(&drill.namespaces, &guest);
    drill.portal.until_enforced(&drill.namespaces);
    drill.assert_out(["203.0.113.10", "198.51.100.100"]);
    // With the server there, it hears of the ban all the same.
    let net = "203.0.113.10/32".parse().unwrap();
    eventually("the server has stored the ban", 20, || drill.portal.times_banned(net) == 1);
    // A restart now finds less on disk than was in force, and the server has the rest.
    drill.machine.kill();
    drill.machine.start(&drill.namespaces);
    drill.assert_out([BLOCKED]);
    drill.portal.until_enforced(&drill.namespaces);
    drill.assert_out(["203.0.113.10", "198.51.100.100"]);
    // The wire is cut, too.
    drill.namespaces.set_uplink(false);
    drill.attack("203.0.113.11");
    drill.assert_out(["203.0.113.11"]);
    disk.free();
    // What was acknowledged, and what the agent did, is on disk as soon as there is room: a restart changes nothing, even alone.
    let wanted = drill.portal.pbx(&drill.namespaces).wanted_revision;
    until("all of it is on disk", 15, || {
        let kept = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let (policy, bans) = (kept("policy.json"), kept("bans.log"));
        let there = policy.contains(&format!("\"revision\": {wanted}"))
            && ["203.0.113.10", "203.0.113.11", "198.51.100.100"].iter().all(|address| bans.contains(address));
        if there { Ok(()) } else { Err(format!("{policy}\n{bans}")) }
    });
    drill.machine.kill();
    drill.machine.start(&drill.namespaces);
    drill.assert_out(["203.0.113.10", "203.0.113.11", "198.51.100.100", BLOCKED]);
    drill.namespaces.set_uplink(true);
    drill.end(["203.0.113.10", "203.0.113.11", "198.51.100.100"]);
    drop(disk);
}

#[test]
fn a_ruleset_flushed_by_hand_is_repaired_within_a_minute_and_told() {
    if !possible() {
        return;
    }
    let drill = Drill::start();
    drill.blocked.assert_nothing_got_through();
    drill.namespaces.on_pbx(|| run("nft", "flush ruleset"));
    assert!(drill.gets_through(BLOCKED), "the rules are gone");
    eventually("the rules are back", 62, || !drill.gets_through(BLOCKED));
    let drift =
        until("the page tells of it", 10, || drill.portal.pbx(&drill.namespaces).drift.ok_or("it says nothing"));
    assert!(drift.repaired && !drift.found.is_empty(), "{drift:?}");
    let told = drill.portal.audit().into_iter().filter(|row| row.details.contains("repaired")).count();
    assert_eq!(told, 1);
    // Some packets got through while there were no rules; from here on none does.
    let Drill { namespaces, portal, machine, asterisk, phones, blocked } = drill;
    drop(blocked);
    let blocked = testbed::traffic::Traffic::start(&namespaces, BLOCKED);
    Drill { namespaces, portal, machine, asterisk, phones, blocked }.end([]);
}

#[test]
fn after_a_reboot_with_the_server_away_what_is_on_disk_is_enforced_first() {
    if !possible() {
        return;
    }
    let mut drill = Drill::start();
    drill.portal.block(&drill.namespaces, "198.51.100.100", 60);
    let ends = SystemClock.now() + Duration::from_secs(61);
    drill.attack("203.0.113.10");
    drill.until_settled();
    drill.assert_out(["198.51.100.100", "203.0.113.10"]);
    drill.portal.kill_server();
    drill.attack("203.0.113.11");
    let own = drill.machine.state().join("bans.log");
    eventually("the ban is on disk", 10, || fs::read_to_string(&own).unwrap().contains("203.0.113.11"));
    drill.phones.iter().for_each(testbed::traffic::Traffic::pause);
    drill.blocked.pause();
    drill.machine.kill();
    drill.namespaces.reboot_pbx();
    assert!(drill.gets_through(BLOCKED), "nothing is left of the rules");
    eventually("the short ban is over", 70, || SystemClock.now() > ends);
    drill.asterisk = drills::Asterisk::start(&drill.namespaces, 2);
    drill.machine.start(&drill.namespaces);
    drill.phones.iter().for_each(testbed::traffic::Traffic::resume);
    drill.blocked.resume();
    drill.assert_out([BLOCKED, "203.0.113.10", "203.0.113.11"]);
    assert!(drill.gets_through("198.51.100.100"), "its time was over");
    drill.machine.until_online(false);
    drill.portal.start_server(&drill.namespaces);
    drill.end(["203.0.113.10", "203.0.113.11"]);
}

/// Where Debian's package faketime keeps its library.
fn faketime() -> String {
    let mut folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let library = folders
        .find_map(|folder| Some(folder.path().join("faketime/libfaketimeMT.so.1")).filter(|library| library.exists()));
    library.expect("the package faketime: apt-get install faketime").display().to_string()
}

/// The clock of the PBX's machine, as its programs see it.
struct WrongClock<'a>(&'a Path);

impl WrongClock<'_> {
    fn give_to(&self, machine: &mut Machine) {
        self.set(0);
        let file = self.0.display().to_string();
        machine.environment = [
            ("LD_PRELOAD", faketime().as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    }

    fn set(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}")).unwrap();
        fs::rename(new, self.0).unwrap();
    }
}

#[test]
fn bans_end_when_the_server_says_so_whatever_the_clock_of_the_pbx_shows() {
    if !possible() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clock");
    let clock = WrongClock(&path);
    let prepare = |_: &Namespaces, machine: &mut Machine| clock.give_to(machine);
    let mut drill = Drill::with(prepare);
    drill.portal.block(&drill.namespaces, "198.51.100.100", 3_600);
    // A minute is a minute.
    drill.portal.block(&drill.namespaces, "198.51.100.101", 60);
    let minute_over = SystemClock.now() + Duration::from_secs(58);
    drill.portal.until_enforced(&drill.namespaces);
    let mut bans = vec!["198.51.100.100".to_owned()];
    for (number, hours) in [1, -1].into_iter().enumerate() {
        clock.set(hours * 3_600);
        drill.asterisk.set_clock(time::Duration::hours(hours));
        // While it runs, and after a restart.
        for restarted in [false, true] {
            if restarted {
                drill.machine.kill();
                drill.machine.start(&drill.namespaces);
                drill.machine.until_online(true);
            }
            let address = format!("203.0.113.{}", 10 + number * 2 + usize::from(restarted));
            drill.attack(&address);
            let now = SystemClock.now();
            drill.until_settled();
            let ends = drill.portal.bans().into_iter().find(|ban| ban.net.addr().to_string() == address);
            let ends = ends.unwrap_or_else(|| panic!("{address} is not banned any more")).expires_at.unwrap();
            let right = now + Duration::from_hours(1);
            assert!((ends - right).abs() < Duration::from_secs(20), "{hours:+} h: {ends} instead of {right}");
            bans.push(address);
            drill.assert_out(bans.iter().map(String::as_str));
            assert!(!drill.gets_through("198.51.100.101") || SystemClock.now() > minute_over, "its minute is not over");
            assert!(SystemClock.now() > ends || !drill.gets_through("198.51.100.101"), "less than a minute is over");
        }
        let apart = drill.machine.status().unwrap().clock_apart_seconds;
        assert!((apart + hours * 3_600).abs() < 5, "the agent tells how far its clock is off: {apart} s");
    }
    eventually("a minute is over", 70, || drill.gets_through("198.51.100.101"));
    drill.end(bans.iter().map(String::as_str));
}

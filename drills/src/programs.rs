//! The programs under test, as processes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// A program beside the tests.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/it-…, and target/debug/ringfence.
    let program = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(program.exists(), "{} is not there; run: cargo build -p server -p agent", program.display());
    program
}

/// A command of a program, with nothing of our environment.
#[expect(clippy::disallowed_methods, reason = "the programs under test")]
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(path(name));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("RUST_LOG", "info").stdin(Stdio::null());
    command
}

/// What a command printed; it must succeed.
pub(crate) fn succeed(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{said}\n{errors}");
    said.into_owned()
}

/// A running program whose log is kept; shown when the test fails.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it in the namespace of the calling thread; its log goes to the end of `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), tail(&self.log));
        }
    }
}

fn tail(log: &Path) -> String {
    let mut text = String::new();
    let _ = File::open(log).and_then(|mut file| file.read_to_string(&mut text));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Waits for something, at most so many seconds.
pub fn eventually(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    until(what, seconds, || if holds() { Ok(()) } else { Err("not yet") });
}

/// Waits for something, at most so many seconds; what it says while it isn't so is shown when it never is.
pub fn until<T, E: std::fmt::Display>(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let mut tries = seconds * 20;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) => assert!(tries > 0, "within {seconds} s {what}; but {why}"),
        }
        tries -= 1;
        std::thread::sleep(Duration::from_millis(50));
    }
}

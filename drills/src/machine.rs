//! The PBX's machine: the real agent in its namespace, with the kernel's firewall.

use std::fs;
use std::path::{Path, PathBuf};

use agent::status::{self, Status};
use tempfile::TempDir;
use testbed::namespaces::Namespaces;

use crate::programs::{Program, command, eventually, succeed};

/// A PBX's machine.
pub struct Machine {
    state: PathBuf,
    /// More of its environment.
    pub environment: Vec<(String, String)>,
    agent: Option<Program>,
    folder: TempDir,
}

impl Machine {
    /// A machine without an agent.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ringfence-drill-").tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        Self { state, environment: Vec::new(), agent: None, folder }
    }

    /// Where its agent keeps its state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its agent keeps its state there.
    pub fn keep_state_in(&mut self, path: &Path) {
        path.clone_into(&mut self.state);
    }

    /// Its agent's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    fn command(&self) -> std::process::Command {
        let mut command = command("ringfence-agent");
        command
            .arg("--state-dir")
            .arg(&self.state)
            .env("RINGFENCE_AGENT_AMI_USER", "ringfence")
            .env("RINGFENCE_AGENT_AMI_SECRET", "secret")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// As the page of the portal says it.
    pub fn enrol(&self, namespaces: &Namespaces, token: &str) {
        namespaces.on_pbx(|| {
            let mut command = self.command();
            command.args(["enrol", "--token", token]);
            succeed(command);
        });
    }

    /// Another machine with a copy of this one's state, its key too.
    pub fn copy_of(other: &Self) -> Self {
        let mut copy = Self::new();
        // Its attackers are the same each time, and others than those of the drill.
        copy.environment = vec![("RINGFENCE_AGENT_SIMULATION_SEED".to_owned(), "7".to_owned())];
        for entry in fs::read_dir(&other.state).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.state.join(entry.file_name())).unwrap();
            }
        }
        copy
    }

    /// Starts the agent, and waits until it enforces what it has on disk.
    pub fn start(&mut self, namespaces: &Namespaces) {
        self.start_with("asterisk", "nftables", |start| namespaces.on_pbx(start));
    }

    /// Starts the agent on the portal's machine, where there is neither an Asterisk nor anything to protect.
    pub fn start_elsewhere(&mut self, namespaces: &Namespaces) {
        self.start_with("simulated", "memory", |start| namespaces.on_portal(start));
    }

    fn start_with(&mut self, pbx: &str, firewall: &str, somewhere: impl FnOnce(&Start<'_>) -> Program) {
        let before = self.log().matches(ENFORCED).count();
        let mut agent = somewhere(&|| {
            let mut command = self.command();
            command.args(["run", "--pbx", pbx, "--firewall", firewall]);
            Program::start(command, &self.log_path())
        });
        eventually("the agent enforces what is on disk", 20, || {
            assert!(agent.ended().is_none(), "the agent has ended:\n{}", self.log());
            self.log().matches(ENFORCED).count() > before
        });
        self.agent = Some(agent);
    }

    /// `kill -9` of the agent.
    pub fn kill(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// What the agent said last of itself.
    pub fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.state.join(status::FILE)).ok()?).ok()
    }

    /// Waits until the agent, as it runs now, says that it is connected, or that it is not.
    pub fn until_online(&self, online: bool) {
        let began = self.status().map(|status| status.at);
        eventually("the agent has noticed", 40, || {
            self.status().is_some_and(|status| Some(status.at) != began && status.online == online)
        });
    }
}

type Start<'a> = dyn Fn() -> Program + Sync + 'a;

/// What the agent logs once it does.
const ENFORCED: &str = "What is on disk is enforced";

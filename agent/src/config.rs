//! The agent's configuration: defaults < file < environment, one typed struct.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// Where the file is unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/ringfence-agent.toml";

/// Everything that can be configured. `RINGFENCE_AGENT_AMI_HOST` in the environment is `ami_host` in the file.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where Asterisk's manager interface listens.
    pub ami_host: String,
    /// Its port.
    pub ami_port: u16,
    /// Manager user; needs `read` of security and system, and `write` of system or reporting for the count of phones.
    pub ami_user: String,
    /// Its secret.
    pub ami_secret: String,
    /// Where the agent keeps its key and what it must remember.
    pub state_dir: PathBuf,
    /// Chooses the attacks of the simulated PBX; another number, other attacks. 0 is another one each start.
    pub simulation_seed: u64,
    /// Address and port of `/metrics`, `/healthz` and `/readyz`, without a login; off without it.
    pub metrics_listen: Option<SocketAddr>,
    /// `http://HOST:4317`: the OTLP/gRPC port of a collector of traces; off without it.
    pub otlp_endpoint: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ami_host: "127.0.0.1".to_owned(),
            ami_port: 5038,
            ami_user: "ringfence".to_owned(),
            ami_secret: String::new(),
            state_dir: PathBuf::from("/var/lib/ringfence-agent"),
            simulation_seed: 0,
            metrics_listen: None,
            otlp_endpoint: None,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("ami_host", &self.ami_host)
            .field("ami_port", &self.ami_port)
            .field("ami_user", &self.ami_user)
            .field("ami_secret", &if self.ami_secret.is_empty() { "" } else { "(set)" })
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the configuration. A file that the command line names must be there; the default one need not.
    ///
    /// # Errors
    /// The file or the variable that can't be read, and why.
    pub fn load(file: Option<&Path>, state_dir: Option<&Path>) -> anyhow::Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let mut config: Self = config::Config::builder()
            .add_source(config::File::from(path).format(config::FileFormat::Toml).required(file.is_some()))
            .add_source(config::Environment::with_prefix("RINGFENCE_AGENT").prefix_separator("_").try_parsing(false))
            .build()
            .and_then(config::Config::try_deserialize)
            .with_context(|| {
                format!("reading the configuration ({} and RINGFENCE_AGENT_* variables)", path.display())
            })?;
        if let Some(dir) = state_dir {
            dir.clone_into(&mut config.state_dir);
        }
        Ok(config)
    }
}

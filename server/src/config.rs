//! What the installation is set to: one typed struct, read once. Defaults < TOML file < environment
//! (`RINGFENCE__SECTION__KEY`). The only place that reads the environment.

mod check;
mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Serialize;
use url::Url;

pub use read::Masked;
use read::Reader;

/// All settings.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The pages.
    pub http: Http,
    /// PostgreSQL.
    pub database: Database,
    /// What agents connect to.
    pub agents: Agents,
    /// How nodes wake each other.
    pub wakeups: Wakeups,
    /// Metrics for Prometheus.
    pub metrics: Metrics,
    /// Traces for an OpenTelemetry collector.
    pub tracing: Tracing,
    /// Mail that the portal sends.
    pub mail: Mail,
    /// Keys.
    pub secrets: Secrets,
    /// What helps developers and is refused on a real installation.
    pub development: Development,
}

/// The pages.
#[derive(Debug, Clone, Serialize)]
pub struct Http {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The address that people type; links in mails begin with it.
    pub public_url: Url,
    /// Networks of reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether cookies go over https only; follows `public_url` when unset.
    pub secure_cookies: bool,
    /// The folder of the built pages; found beside the program or in `target/site` when unset.
    pub site_dir: PathBuf,
}

/// PostgreSQL.
#[derive(Debug, Clone, Serialize)]
pub struct Database {
    /// As the role `ringfence_app`. Without it a private PostgreSQL is started in `data_dir`.
    pub url: Option<Masked>,
    /// As the role `ringfence_system`, which runs the jobs.
    pub system_url: Option<Masked>,
    /// As the role `ringfence_owner`, to bring the schema up to date at start; without it that is left to you.
    pub owner_url: Option<Masked>,
    /// Most connections of this node.
    pub max_connections: u32,
    /// Where the private PostgreSQL and the made master key are kept.
    pub data_dir: PathBuf,
}

/// What agents connect to.
#[derive(Debug, Clone, Serialize)]
pub struct Agents {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Host name or address by which agents reach it.
    pub public_host: String,
    /// Port by which agents reach it.
    pub public_port: u16,
    /// Networks of load balancers in front of it, which must say who connects by the PROXY protocol.
    pub trusted_proxies: Vec<IpNet>,
}

/// How nodes wake each other.
#[derive(Debug, Clone, Serialize)]
pub struct Wakeups {
    /// Servers of one NATS, `nats://` or `tls://`, with user and password, or a token, if it wants them. Without any, nodes wake each other
    /// over the database.
    pub nats_url: Vec<Masked>,
    /// The subject on it; another one for each installation that shares a NATS.
    pub subject: String,
}

/// Metrics for Prometheus.
#[derive(Debug, Clone, Serialize)]
pub struct Metrics {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`, without a login: for the network of those who operate this only. Without
    /// it nothing is measured.
    pub listen: Option<SocketAddr>,
}

/// Traces for an OpenTelemetry collector.
#[derive(Debug, Clone, Serialize)]
pub struct Tracing {
    /// `http://HOST:4317`: the OTLP/gRPC port of a collector. Without it nothing is traced.
    pub otlp_endpoint: Option<Url>,
}

/// Mail that the portal sends.
#[derive(Debug, Clone, Serialize)]
pub struct Mail {
    /// `smtp://` or `smtps://`, with user and password if it wants them. Without it nothing is sent.
    pub smtp_url: Option<Masked>,
    /// The sender.
    pub from: String,
}

/// Keys.
#[derive(Debug, Clone, Serialize)]
pub struct Secrets {
    /// File with the master key: 32 bytes in hexadecimal or base64.
    pub master_key_file: Option<PathBuf>,
    /// The master key itself, for installations that hand out secrets in the environment.
    pub master_key: Option<Masked>,
}

/// What helps developers.
#[derive(Debug, Clone, Serialize)]
pub struct Development {
    /// Show mail that was not sent at `/dev/mailbox`, to this machine only.
    pub mailbox: bool,
}

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl Config {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let environment: BTreeMap<String, String> = std::env::vars().collect();
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| ConfigErrors(vec![format!("{}: {error}", path.display())]))?,
            None => String::new(),
        };
        Self::from_sources(&text, &environment)
    }

    /// Reads settings from the text of a TOML file and the variables of an environment.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_sources(toml: &str, environment: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(toml, environment);
        let listen: SocketAddr = read.or("http.listen", SocketAddr::from(([127, 0, 0, 1], 3000)));
        let public_url: Url = read.option("http.public_url").unwrap_or_else(|| local_url(listen.port()));
        let agents_listen: SocketAddr = read.or("agents.listen", SocketAddr::from(([0, 0, 0, 0], 3443)));
        let url: Option<Masked> = read.option("database.url");
        let smtp_url: Option<Masked> = read.option("mail.smtp_url");
        let own_machine = check::is_local(&public_url) && check::is_own_machine(listen);
        let config = Self {
            database: Database {
                system_url: read.option("database.system_url"),
                owner_url: read.option("database.owner_url"),
                max_connections: read.or("database.max_connections", 20),
                data_dir: read.option("database.data_dir").unwrap_or_else(|| default_data_dir(environment)),
                url,
            },
            agents: Agents {
                listen: agents_listen,
                public_host: read
                    .option("agents.public_host")
                    .unwrap_or_else(|| public_url.host_str().unwrap_or("localhost").to_owned()),
                public_port: read.or("agents.public_port", agents_listen.port()),
                trusted_proxies: read.list("agents.trusted_proxies"),
            },
            wakeups: Wakeups {
                nats_url: read.list("wakeups.nats_url"),
                subject: read.or("wakeups.subject", "ringfence.hints".to_owned()),
            },
            metrics: Metrics { listen: read.option("metrics.listen") },
            tracing: Tracing { otlp_endpoint: read.option("tracing.otlp_endpoint") },
            mail: Mail { smtp_url, from: read.or("mail.from", "Ringfence <ringfence@localhost>".to_owned()) },
            secrets: Secrets {
                master_key_file: read.option("secrets.master_key_file"),
                master_key: read.option("secrets.master_key"),
            },
            development: Development { mailbox: read.option("development.mailbox").unwrap_or(false) },
            http: Http {
                listen,
                trusted_proxies: read.list("http.trusted_proxies"),
                secure_cookies: read.or("http.secure_cookies", public_url.scheme() == "https"),
                site_dir: read.option("http.site_dir").unwrap_or_else(|| default_site_dir(environment)),
                public_url,
            },
        };
        let mut config = config;
        // Somebody who just tries it out on his own machine finds his mail without any setting.
        if !read.was_given("development.mailbox")
            && config.is_private()
            && config.mail.smtp_url.is_none()
            && own_machine
        {
            config.development.mailbox = true;
        }
        let mut errors = read.finish();
        errors.extend(check::problems(&config));
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// Whether the database is a private PostgreSQL that this process starts.
    pub fn is_private(&self) -> bool {
        self.database.url.is_none()
    }

    /// The settings as a TOML file would say them, secrets masked.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// The master key's file: the configured one, or the one beside the private database.
    pub fn master_key_path(&self) -> PathBuf {
        self.secrets.master_key_file.clone().unwrap_or_else(|| self.database.data_dir.join("master.key"))
    }
}

fn local_url(port: u16) -> Url {
    let mut url = Url::parse("http://localhost").unwrap_or_else(|_| unreachable!("a constant"));
    let _ = url.set_port(Some(port));
    url
}

/// As root a system folder, because the private PostgreSQL gives up root and must be able to pass through to its data.
fn default_data_dir(environment: &BTreeMap<String, String>) -> PathBuf {
    let home = environment.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    match (environment.get("XDG_DATA_HOME"), home) {
        (_, Some(home)) if home == Path::new("/root") => PathBuf::from("/var/lib/ringfence"),
        (Some(data), _) if Path::new(data).is_absolute() => Path::new(data).join("ringfence"),
        (_, Some(home)) => home.join(".local/share/ringfence"),
        (_, None) => PathBuf::from("/var/lib/ringfence"),
    }
}

/// `LEPTOS_SITE_ROOT` is what the build tool sets.
fn default_site_dir(environment: &BTreeMap<String, String>) -> PathBuf {
    let beside =
        std::env::current_exe().ok().map(|program| program.with_file_name("site")).filter(|folder| folder.is_dir());
    environment.get("LEPTOS_SITE_ROOT").map(PathBuf::from).or(beside).unwrap_or_else(|| PathBuf::from("target/site"))
}

#[cfg(test)]
mod tests;

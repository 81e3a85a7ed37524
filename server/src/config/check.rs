//! What settings must be to each other.

use std::net::SocketAddr;

use url::{Host, Url};

use super::Config;

/// Everything that is wrong.
pub(super) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut must = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    let url = &config.http.public_url;
    must(
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/" && url.query().is_none(),
        format!("http.public_url: “{url}” must be http:// or https:// with a host and nothing after it"),
    );
    must(
        !config.http.secure_cookies || url.scheme() == "https",
        "http.secure_cookies: browsers drop such cookies on http; set http.public_url to the https address".to_owned(),
    );
    must(
        config.http.secure_cookies || url.scheme() != "https",
        "http.secure_cookies: must stay on when http.public_url is https".to_owned(),
    );
    let database = &config.database;
    for (key, given) in
        [("url", &database.url), ("system_url", &database.system_url), ("owner_url", &database.owner_url)]
    {
        let right = given.as_ref().is_none_or(|url| has_scheme(url.expose(), &["postgres", "postgresql"]));
        must(right, format!("database.{key}: must begin with postgres://"));
    }
    must(
        database.url.is_none() || database.system_url.is_some(),
        "database.system_url: needed with database.url: the jobs' role, ringfence_system".to_owned(),
    );
    must(
        database.url.is_some() || (database.system_url.is_none() && database.owner_url.is_none()),
        "database.url: needed with database.system_url or database.owner_url".to_owned(),
    );
    must(
        (2..=1000).contains(&database.max_connections),
        format!("database.max_connections: {} is not from 2 to 1000", database.max_connections),
    );
    must(
        database.data_dir.is_absolute(),
        format!("database.data_dir: “{}” must be an absolute path", database.data_dir.display()),
    );
    must(
        config.agents.public_port != 0 || config.agents.listen.port() == 0,
        "agents.public_port: must not be 0".to_owned(),
    );
    must(
        Host::parse(config.agents.public_host.trim_matches(['[', ']'])).is_ok()
            || Host::parse(&config.agents.public_host).is_ok(),
        format!("agents.public_host: “{}” is no host name or address", config.agents.public_host),
    );
    let collector = config.tracing.otlp_endpoint.as_ref();
    must(
        collector.is_none_or(|url| url.scheme() == "http" && url.has_host() && url.path() == "/"),
        "tracing.otlp_endpoint: must be http:// with a host and a port, such as http://127.0.0.1:4317; have a collector nearby send it on over TLS".to_owned(),
    );
    let wakeups = &config.wakeups;
    must(
        wakeups.nats_url.iter().all(|url| is_nats(url.expose())),
        "wakeups.nats_url: must begin with nats:// or tls://, and name a host".to_owned(),
    );
    must(
        wakeups.nats_url.is_empty() || !config.is_private(),
        "wakeups.nats_url: of use for several nodes only, which share a database: set database.url".to_owned(),
    );
    must(
        wakeups.subject.split('.').all(is_word),
        format!(
            "wakeups.subject: “{}” must be words of letters, digits, - and _ with dots between them",
            wakeups.subject
        ),
    );
    let smtp = config.mail.smtp_url.as_ref();
    must(
        smtp.is_none_or(|url| has_scheme(url.expose(), &["smtp", "smtps"])),
        "mail.smtp_url: must begin with smtp:// or smtps://".to_owned(),
    );
    must(config.mail.from.contains('@'), format!("mail.from: “{}” holds no e-mail address", config.mail.from));
    let secrets = &config.secrets;
    must(
        config.is_private() || secrets.master_key_file.is_some() || secrets.master_key.is_some(),
        "secrets.master_key_file: needed with database.url: a file with 32 random bytes in hexadecimal (openssl rand -hex 32)".to_owned(),
    );
    must(
        secrets.master_key_file.is_none() || secrets.master_key.is_none(),
        "secrets.master_key: give this or secrets.master_key_file, not both".to_owned(),
    );
    must(
        !config.development.mailbox || url.scheme() == "http",
        "development.mailbox: it shows everyone's mail; it must be off when http.public_url is https".to_owned(),
    );
    must(
        !config.development.mailbox || is_own_machine(config.http.listen),
        format!(
            "development.mailbox: it shows everyone's mail; it must be off when http.listen ({}) is not this machine only, such as 127.0.0.1",
            config.http.listen
        ),
    );
    problems
}

/// Whether a URL leads to this very machine.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether only this very machine reaches what listens there.
pub(super) fn is_own_machine(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

fn is_nats(text: &str) -> bool {
    has_scheme(text, &["nats", "tls"]) && Url::parse(text).is_ok_and(|url| url.has_host())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    Url::parse(text).is_ok_and(|url| schemes.contains(&url.scheme()))
}

//! Settings from their sources.

use super::*;

fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_sources(toml, &environment)
}

#[test]
fn without_any_setting_it_runs_on_this_machine() {
    let config = load("", &[("HOME", "/home/ann")]).unwrap();
    assert!(config.is_private());
    assert!(config.development.mailbox);
    assert_eq!(config.database.data_dir, Path::new("/home/ann/.local/share/ringfence"));
    insta::assert_snapshot!(config.to_toml());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let toml = "[http]\nlisten = \"127.0.0.1:1\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n[agents]\npublic_port = 7";
    let config =
        load(toml, &[("RINGFENCE__HTTP__LISTEN", "127.0.0.1:2"), ("RINGFENCE__DATABASE__DATA_DIR", "/data")]).unwrap();
    assert_eq!(config.http.listen.port(), 2);
    assert_eq!(config.agents.public_port, 7);
    assert_eq!(config.http.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.http.public_url.as_str(), "http://localhost:2/");
}

#[test]
fn lists_come_separated_by_commas_from_the_environment() {
    let config = load("", &[("RINGFENCE__HTTP__TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::/32")]).unwrap();
    assert_eq!(config.http.trusted_proxies.len(), 2);
}

#[test]
fn every_error_is_named_at_once() {
    let toml = "[http]\nlisten = \"here\"\npublic_url = \"ftp://x/y\"\ncolour = 1\n[database]\nurl = \"mysql://x\"\nmax_connections = 1\n\
        [wakeups]\nnats_url = \"http://x\"\nsubject = \"a..>\"";
    let errors = load(toml, &[("RINGFENCE__MAIL__FROM", "nobody"), ("RINGFENCE__NOPE", "1")]).unwrap_err();
    insta::assert_snapshot!(errors.to_string());
}

#[test]
fn secrets_are_masked() {
    let toml = "[database]\nurl = \"postgres://app:hunter2@db/x\"\nsystem_url = \"postgres://db/x?password=hunter2\"\n\
        [wakeups]\nnats_url = [\"nats://me:hunter2@a:4222\", \"tls://hunter2@b\"]\n\
        [secrets]\nmaster_key = \"hunter2\"\n[mail]\nsmtp_url = \"smtps://me:hunter2@mail.example\"";
    let config = load(toml, &[]).unwrap();
    let printed = config.to_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(printed.contains("postgres://app:***@db/x"), "{printed}");
    assert!(printed.contains(r#"["nats://me:***@a:4222", "tls://***@b"]"#), "{printed}");
}

#[test]
fn a_real_installation_has_no_mailbox_and_needs_a_master_key() {
    let toml = "[http]\npublic_url = \"https://ringfence.example\"\n[database]\nurl = \"postgres://db/x\"\nsystem_url = \"postgres://db/x\"";
    let errors = load(toml, &[]).unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(errors.0[0].starts_with("secrets.master_key_file"));
    let errors =
        load("[http]\npublic_url = \"https://ringfence.example\"\n[development]\nmailbox = true", &[]).unwrap_err();
    assert!(errors.0[0].starts_with("development.mailbox"));
}

#[test]
fn the_mailbox_is_for_this_machine_only() {
    for (listen, own) in [
        ("127.0.0.1:3000", true),
        ("[::1]:3000", true),
        ("[::ffff:127.0.0.1]:3000", true),
        ("0.0.0.0:3000", false),
        ("[::]:3000", false),
    ] {
        let toml = format!("[http]\nlisten = \"{listen}\"\n");
        assert_eq!(load(&toml, &[]).unwrap().development.mailbox, own, "{listen}, by itself");
        let asked_for = load(&toml, &[("RINGFENCE__DEVELOPMENT__MAILBOX", "true")]);
        assert_eq!(asked_for.is_ok(), own, "{listen}, asked for");
    }
    let errors = load("[http]\nlisten = \"192.0.2.1:3000\"\n[development]\nmailbox = true", &[]).unwrap_err();
    assert!(errors.0.len() == 1 && errors.0[0].starts_with("development.mailbox"), "{errors}");
}

#[test]
fn nats_is_for_several_nodes() {
    let private = load("", &[("RINGFENCE__WAKEUPS__NATS_URL", "nats://a, nats://b")]).unwrap_err();
    assert!(private.0.len() == 1 && private.0[0].starts_with("wakeups.nats_url"), "{private}");
    let toml = "[database]\nurl = \"postgres://db/x\"\nsystem_url = \"postgres://db/x\"\n[secrets]\nmaster_key = \"x\"";
    let config = load(toml, &[("RINGFENCE__WAKEUPS__NATS_URL", "nats://a, nats://b")]).unwrap();
    assert_eq!(config.wakeups.nats_url.len(), 2);
}

//! The metrics of server and agent: every name, what it means, its unit and its labels. Labels take few values that are known when the
//! program is built: never a tenant, an address, an account or anything else that somebody outside chooses. What dashboards and alert
//! rules name must be declared here; a test compares.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, and begins at nothing with each start.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values by how large they are; has `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A declared metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, unit included.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
}

/// Upper ends of the buckets of all histograms, in seconds: from what a ban in the kernel takes to what nobody waits for.
pub const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];

macro_rules! metrics {
    ($(#[$doc:meta])* $list:ident: $($id:ident = $kind:ident $unit:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric =
                Metric { name: $name, kind: Kind::$kind, unit: Unit::$unit, help: $help, labels: &[$($label),*] };
        )*
        $(#[$doc])*
        pub const $list: &[Metric] = &[$($id),*];
    };
}

metrics! {
    /// Of every process, by the names that Prometheus' own libraries use.
    PROCESS:
    PROCESS_RSS = Gauge Bytes "process_resident_memory_bytes" [] "Memory of the process that is in RAM.";
    PROCESS_FDS = Gauge Count "process_open_fds" [] "Open files and connections of the process.";
    PROCESS_MAX_FDS = Gauge Count "process_max_fds" [] "Most open files and connections that the process may have.";
    PROCESS_START = Gauge Seconds "process_start_time_seconds" [] "When the process began to measure, in seconds since 1970.";
}

metrics! {
    /// Of the server.
    SERVER:
    BUILD = Gauge Count "ringfence_build_info" ["version"] "Always 1; which version runs.";
    AGENTS = Gauge Count "ringfence_agents_connected" [] "Agents whose stream this node serves.";
    STREAMS_OPENED = Counter Count "ringfence_agent_streams_opened_total" [] "Streams of agents that said hello.";
    STREAMS_ENDED = Counter Count "ringfence_agent_streams_ended_total" ["reason"] "Streams of agents that ended, and why.";
    POLICIES_PUSHED = Counter Count "ringfence_policies_pushed_total" [] "Policies sent to agents.";
    PUSH_TO_APPLIED = Histogram Seconds "ringfence_push_to_applied_seconds" [] "From sending a policy to the agent's word that it is in the kernel.";
    POLICIES_REFUSED = Counter Count "ringfence_policies_refused_total" [] "Policies that an agent said it can't apply.";
    WITHHELD = Counter Count "ringfence_changes_withheld_total" ["rolled_back"] "Changes that agents reported as not enforced or taken back, lest they be cut off.";
    DRIFTS = Counter Count "ringfence_drifts_total" ["repaired"] "Times that an agent found its firewall other than it should be.";
    BAN_DELTAS = Counter Count "ringfence_ban_deltas_sent_total" [] "Messages with numbered changes of the set of bans.";
    BAN_SNAPSHOTS = Counter Count "ringfence_ban_snapshots_sent_total" [] "Whole sets of bans sent to agents.";
    RESYNCS = Counter Count "ringfence_ban_resyncs_total" [] "Times that an agent asked for the whole set, or held another than it was sent.";
    BANS_STORED = Counter Count "ringfence_bans_stored_total" ["source"] "Bans kept in the database, by detection, by people, or for attacks on the portal.";
    BATCHES = Counter Count "ringfence_report_batches_total" ["outcome"] "Batches of reports: stored, or known already.";
    REPORT_SECONDS = Histogram Seconds "ringfence_report_seconds" [] "How long storing a batch of reports took.";
    HINTS = Counter Count "ringfence_hints_received_total" [] "Hints of other nodes that something changed.";
    HINTS_LOST = Counter Count "ringfence_hints_lost_total" [] "Times that hints may have been lost and everything was looked at.";
    LOOKS = Counter Count "ringfence_looks_total" ["outcome"] "Looks into the database for what hints did not tell.";
    ACTIONS = Counter Count "ringfence_actions_total" ["operation" "outcome"] "Operations of people, agents and jobs: done, refused or failed.";
    ACTION_SECONDS = Histogram Seconds "ringfence_action_seconds" ["operation"] "From the beginning of an operation to its commit.";
    LOGIN_FAILURES = Counter Count "ringfence_login_failures_total" ["operation"] "Passwords and codes that were not right, or came too often.";
    HTTP_REQUESTS = Counter Count "ringfence_http_requests_total" ["route" "status"] "Requests to the pages' port by route and class of status.";
    HTTP_SECONDS = Histogram Seconds "ringfence_http_request_seconds" ["route"] "From a request to the head of its answer.";
    DB_CONNECTIONS = Gauge Count "ringfence_db_connections" ["state"] "Connections of the pool of the application's role: used and idle.";
    DB_CONNECTIONS_MAX = Gauge Count "ringfence_db_connections_max" [] "Most connections that the pool may have.";
    DB_WAIT = Histogram Seconds "ringfence_db_wait_seconds" [] "Waiting for a connection of the pool and the beginning of a transaction.";
    MAILS_WAITING = Gauge Count "ringfence_mails_waiting" [] "Mails that are still to be delivered; every node tells the same.";
    MAILS_GIVEN_UP = Gauge Count "ringfence_mails_given_up" [] "Mails of the last week whose delivery was given up; every node tells the same.";
    MAIL_FAILURES = Counter Count "ringfence_mail_failures_total" [] "Tries to deliver a mail that failed.";
    JOB_SECONDS = Histogram Seconds "ringfence_job_seconds" ["job"] "How long a turn of a job took.";
    JOB_FAILURES = Counter Count "ringfence_job_failures_total" ["job"] "Turns of jobs that failed.";
    READY = Gauge Count "ringfence_ready" [] "Whether /readyz would answer 200.";
}

metrics! {
    /// Of the agent.
    AGENT:
    AGENT_BUILD = Gauge Count "ringfence_agent_build_info" ["version"] "Always 1; which version runs.";
    AGENT_LINK_UP = Gauge Count "ringfence_agent_link_up" [] "Whether the server is connected.";
    AGENT_LINK_BREAKS = Counter Count "ringfence_agent_link_breaks_total" [] "Times that the link to the server broke or could not be made.";
    AGENT_ENFORCED = Gauge Count "ringfence_agent_enforced" [] "Whether the kernel has everything that it should have.";
    AGENT_BANS = Gauge Count "ringfence_agent_bans" [] "Bans in force.";
    AGENT_OWN_BANS = Counter Count "ringfence_agent_own_bans_total" [] "Bans that this agent decided by itself.";
    AGENT_POLICY_REVISION = Gauge Count "ringfence_agent_policy_revision" [] "Revision of the policy in force.";
    AGENT_ALLOWED = Gauge Count "ringfence_agent_allowed_ranges" [] "Ranges that are never blocked.";
    AGENT_SPOOLED = Gauge Count "ringfence_agent_reports_spooled" [] "Batches of reports that wait for the server.";
    AGENT_DROPPED = Counter Count "ringfence_agent_reports_dropped_total" [] "Reported events that were dropped since too many waited.";
    AGENT_REACTION = Histogram Seconds "ringfence_agent_ban_reaction_seconds" [] "From the PBX's event to the kernel's answer to the ban.";
    AGENT_ATTEMPTS = Counter Count "ringfence_agent_attempts_total" ["proven"] "Failed attempts, by whether the source was proven not to be forged.";
    AGENT_PROOFS = Counter Count "ringfence_agent_proofs_total" ["outcome"] "Times that the kernel was read back: as it should be, or not.";
    AGENT_PROVEN_AT = Gauge Seconds "ringfence_agent_proven_time_seconds" [] "When the kernel was last found as it should be, in seconds since 1970; 0 for not now.";
    AGENT_ROLLBACKS = Counter Count "ringfence_agent_rollbacks_total" [] "Changes that were taken back since the server was not heard or phones went away.";
    AGENT_WITHHELD = Gauge Count "ringfence_agent_withheld" [] "Changes that are not enforced, lest this machine be cut off.";
    AGENT_NAME_CHANGES = Counter Count "ringfence_agent_name_changes_total" [] "Times that an allowed name or the server's had other addresses than before.";
    AGENT_PBX_UP = Gauge Count "ringfence_agent_pbx_up" [] "Whether the PBX is reached.";
    AGENT_PHONES = Gauge Count "ringfence_agent_registered_phones" [] "Phones registered at the PBX.";
    AGENT_CLOCK = Gauge Seconds "ringfence_agent_clock_apart_seconds" [] "How far the server's clock is ahead of this machine's.";
}

/// Whether a name, as a query has it, is one of ours: a declared metric, or the parts of a declared histogram.
pub fn is_declared(name: &str) -> bool {
    [PROCESS, SERVER, AGENT].into_iter().flatten().any(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => metric.name == name,
        Kind::Histogram => {
            name.strip_prefix(metric.name).is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Metric> {
        [PROCESS, SERVER, AGENT].into_iter().flatten()
    }

    #[test]
    fn names_follow_the_rules_of_prometheus_and_are_declared_once() {
        let mut names = BTreeSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            match metric.unit {
                Unit::Seconds => assert!(name.ends_with("_seconds"), "{name}"),
                Unit::Bytes => assert!(name.ends_with("_bytes"), "{name}"),
                Unit::Count => {}
            }
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
        }
    }

    #[test]
    fn no_label_names_somebody() {
        let known = [
            "version",
            "reason",
            "rolled_back",
            "repaired",
            "source",
            "outcome",
            "operation",
            "route",
            "status",
            "state",
            "job",
            "proven",
        ];
        for metric in all() {
            assert!(metric.labels.iter().all(|label| known.contains(label)), "{}: {:?}", metric.name, metric.labels);
        }
    }

    /// Whatever begins like a metric of ours in the files that operators load.
    #[test]
    fn dashboards_and_alerts_name_only_what_is_declared() {
        let files = [
            include_str!("../../packaging/grafana/ringfence.json"),
            include_str!("../../packaging/prometheus/ringfence.rules.yml"),
        ];
        for file in files {
            let words = file.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let named: BTreeSet<&str> =
                words.filter(|word| word.starts_with("ringfence_") || word.starts_with("process_")).collect();
            assert!(named.len() > 5, "{named:?}");
            let unknown: Vec<_> = named.into_iter().filter(|name| !is_declared(name)).collect();
            assert!(unknown.is_empty(), "not declared: {unknown:?}");
        }
    }

    #[test]
    fn the_dashboard_is_one() {
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../packaging/grafana/ringfence.json")).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
        }
    }
}

//! What operators watch: metrics of a server with a real agent on its line, readiness as things go missing, and one trace from a click to
//! the agent's word that it is applied, as a collector receives it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actions::bus::{Change, Topic};
use agent::clock::{SharedClock, SystemClock};
use agent::engine::{Engine, Inputs, Parts};
use agent::firewall::Memory;
use agent::state::StateDir;
use agent::{enrol, link, tls};
use axum::body::Body;
use http::{Request, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use policy::authz::{Operation, Role};
use policy::ids::{PbxId, TenantId};
use policy::metrics::{self, Kind, Metric};
use policy::pbxes::EnrolmentCommand;
use serde_json::{Value, json};
use server::http::limits::Limit;
use server::observe::Metrics;
use server::observe::health::Health;
use server::observe::telemetry::Telemetry;
use sqlx::Connection as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::{Person, TestServer, stranger, text};

const LONGEST: Duration = Duration::from_secs(30);
/// Names that must not be found in anything that operators are told.
const HOSTNAME: &str = "pbx-of-somebody.test";

/// A portal with the agent of one PBX on its line.
struct Lab {
    server: TestServer,
    tenant: TenantId,
    pbx: PbxId,
    admin: Person,
    _folder: tempfile::TempDir,
}

impl Lab {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = TestServer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let (ctx, stopping) = (server.ctx.clone(), server.stopping.clone());
        let limit = Limit { burst: 1000, refill: Duration::from_millis(1) };
        tokio::spawn(async move {
            server::rpc::serve(ctx, listener, &["localhost".to_owned()], limit, stopping).await.unwrap();
        });
        let tenant = server.tenant("observed").await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        let made: EnrolmentCommand = server.done(&admin, Operation::AddPbx, json!({ "name": "hq" })).await;
        let token = made.command.split_whitespace().last().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let (identity, credentials) = enrol::enrol(token, Some(&address), HOSTNAME).await.unwrap();
        state.enrolled(&identity, &credentials).unwrap();
        run_agent(&state).await;
        Self { server, tenant, pbx: made.pbx_id, admin, _folder: folder }
    }

    /// The revision that the agent has applied.
    async fn applied(&self) -> i64 {
        let pbxes: Value = self.server.done(&self.admin, Operation::ListPbxes, json!({})).await;
        pbxes[0]["applied_revision"].as_i64().unwrap_or_default()
    }

    /// Waits until the agent has applied a revision.
    async fn until_applied(&self, revision: i64) {
        let mut changes = self.server.ctx.bus().subscribe();
        timeout(LONGEST, async {
            while self.applied().await < revision {
                changes.recv().await.unwrap();
            }
        })
        .await
        .expect("applied in time");
    }

    /// Another node hints at something that nothing else here changes.
    async fn hear_of_another_node(&self) {
        let mut changes = self.server.ctx.bus().subscribe();
        let hint = Change { tenant_id: Some(self.tenant), topic: Topic::Sessions };
        let hints = [(self.tenant, hint.topic.as_str())];
        store::notify::publish(self.server.ctx.store(), Uuid::nil(), hints).await.unwrap();
        timeout(LONGEST, async { while changes.recv().await.unwrap() != hint {} }).await.expect("heard in time");
    }

    async fn allow(&self, target: &str) {
        let form = json!({ "target": target, "note": "", "expires_at": "" });
        let _: Value =
            self.server.done(&self.admin, Operation::AddAllowedIp, json!({ "form": form, "insist": false })).await;
    }
}

/// Runs the agent of a state directory as its program does, with the memory firewall.
async fn run_agent(state: &StateDir) {
    let clock: SharedClock = Arc::new(SystemClock);
    let (identity, credentials) = state.identity().zip(state.credentials()).unwrap();
    let (pbx, from_pbx) = mpsc::channel(64);
    let (link_events, from_link) = mpsc::channel(64);
    let (names, answers) = (watch::Sender::default(), watch::channel(agent::dns::Answers::default()).1);
    let way = tls::Way::to(&identity.server);
    let kept = state.clone();
    let keep: link::Keep = Box::new(move |credentials| kept.renewed(credentials));
    let parts = Parts {
        clock: Arc::clone(&clock),
        state: state.clone(),
        identity,
        firewall: Box::new(Memory::default()),
        pbx_kind: "asterisk",
        hostname: HOSTNAME.into(),
        names,
        closely: watch::Sender::new(false),
    };
    let engine = Engine::start(parts).await.unwrap();
    let about = engine.about();
    tokio::spawn(async move { link::run(&way, credentials, keep, about, link_events, clock).await });
    let inputs = Inputs { pbx: from_pbx, link: from_link, answers };
    tokio::spawn(engine.run(inputs, async move {
        let _pbx = pbx;
        std::future::pending::<()>().await;
    }));
}

/// One line of what Prometheus reads.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    value: f64,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split("\",").filter(|part| !part.is_empty());
            let labels = labels.map(|part| part.split_once("=\"").unwrap()).map(|(k, v)| (k, v.trim_end_matches('"')));
            Sample { name, labels: labels.collect(), value: value.parse().unwrap() }
        })
        .collect()
}

/// The sum over all samples of a name whose labels hold these.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(name, value)| sample.labels.get(name) == Some(value))
    };
    samples.iter().filter(fits).map(|sample| sample.value).sum()
}

/// A metric, some of its labels, and what it has come to at least.
type Least<'a> = (Metric, &'a [(&'a str, &'a str)], f64);

#[tokio::test]
async fn what_happens_is_measured_and_nobody_is_named() {
    // Before anything happens: what is held is counted as it is taken.
    let early = TestServer::start().await;
    let health = Health::new(early.ctx.clone(), early.stopping.clone());
    drop(Metrics::start(early.ctx.clone(), health, CancellationToken::new()).unwrap());

    let lab = Lab::start().await;
    let server = &lab.server;
    lab.until_applied(1).await;
    lab.allow("198.51.100.0/28").await;
    lab.until_applied(2).await;
    let form = json!({ "net": "203.0.113.77", "duration": "3600", "reason": "test" });
    let _: Value = server.done(&lab.admin, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    let wrong = json!({ "email": lab.admin.email, "password": "not the password" });
    assert_eq!(server.call(&stranger(), Operation::LogIn, &wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    server.get(&stranger(), "/nobody@example.test/203.0.113.77").await;
    lab.hear_of_another_node().await;

    let health = Health::new(server.ctx.clone(), server.stopping.clone());
    let metrics = Metrics::start(server.ctx.clone(), health, server.stopping.clone()).unwrap();
    let ask = |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        metrics.clone().router().oneshot(request)
    };
    let response = ask("/metrics").await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let page = text(response).await;
    let found = samples(&page);

    let add = Operation::AddAllowedIp.path();
    let least: [Least<'_>; 16] = [
        (metrics::AGENTS, &[], 1.0),
        (metrics::STREAMS_OPENED, &[], 1.0),
        (metrics::POLICIES_PUSHED, &[], 2.0),
        (metrics::BANS_STORED, &[("source", "manual")], 1.0),
        (metrics::HINTS, &[], 1.0),
        (metrics::ACTIONS, &[("operation", add), ("outcome", "done")], 1.0),
        (metrics::ACTIONS, &[("operation", "account/log_in"), ("outcome", "refused")], 1.0),
        (metrics::LOGIN_FAILURES, &[("operation", "account/log_in")], 1.0),
        (metrics::HTTP_REQUESTS, &[("route", "/api/allowed_ips/add"), ("status", "2xx")], 1.0),
        (metrics::HTTP_REQUESTS, &[("route", "other")], 1.0),
        (metrics::DB_CONNECTIONS_MAX, &[], 5.0),
        (metrics::READY, &[], 1.0),
        (metrics::BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        (metrics::PROCESS_RSS, &[], 1e6),
        (metrics::PROCESS_FDS, &[], 10.0),
        (metrics::PROCESS_START, &[], 1e9),
    ];
    for (metric, labels, least) in least {
        let sum = sum(&found, metric.name, labels);
        assert!(sum >= least, "{} {labels:?}: {sum}, not {least}\n{page}", metric.name);
    }
    for histogram in [metrics::PUSH_TO_APPLIED, metrics::ACTION_SECONDS, metrics::HTTP_SECONDS, metrics::DB_WAIT] {
        let count = sum(&found, &format!("{}_count", histogram.name), &[]);
        let all = sum(&found, &format!("{}_bucket", histogram.name), &[("le", "+Inf")]);
        assert!(count >= 1.0 && count.to_bits() == all.to_bits(), "{}: {count}, {all}", histogram.name);
    }

    // Each has its description; nothing is there that isn't declared, under no other labels.
    let declared: Vec<&Metric> = [metrics::PROCESS, metrics::SERVER].into_iter().flatten().collect();
    for sample in &found {
        let metric = declared.iter().find(|metric| {
            let rest = sample.name.strip_prefix(metric.name);
            rest == Some("") || (metric.kind == Kind::Histogram && rest.is_some_and(|rest| rest.starts_with('_')))
        });
        let metric = metric.unwrap_or_else(|| panic!("{} is not declared", sample.name));
        assert!(page.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        assert!(page.contains(&format!("# TYPE {} {}", metric.name, metric.kind.as_str())), "{}", metric.name);
        let labels: BTreeSet<&str> = sample.labels.keys().copied().filter(|label| *label != "le").collect();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{}", sample.name);
    }
    for somebody in secrets(&lab).into_iter().chain([lab.pbx.to_string()]) {
        assert!(!page.contains(&somebody), "{somebody} is told\n{page}");
    }
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let response = ask(path).await.unwrap();
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, body), "{path}");
    }
}

/// What no metric and no span may hold.
fn secrets(lab: &Lab) -> Vec<String> {
    let mut secrets = vec![lab.tenant.to_string(), lab.admin.email.clone(), lab.admin.cookie.clone()];
    secrets.extend(["203.0.113.77", "198.51.100", "192.0.2.7", HOSTNAME, "nobody@example"].map(str::to_owned));
    secrets
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let server = TestServer::start().await;
    let mut admin = sqlx::PgConnection::connect(&server.admin_url).await.unwrap();
    let stopping = CancellationToken::new();
    // A new one each time: what one has read a moment ago still counts.
    let ready = || {
        let health = Health::new(server.ctx.clone(), stopping.clone());
        async move { health.ready().await }
    };
    assert_eq!(ready().await, Ok(()));
    for (breaks, mends, word) in [
        (
            "UPDATE _sqlx_migrations SET success = false WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)",
            "UPDATE _sqlx_migrations SET success = true",
            "schema",
        ),
        (
            "UPDATE platform_secrets SET sealed = sealed || '\\x00'",
            "UPDATE platform_secrets SET sealed = substring(sealed FROM 1 FOR length(sealed) - 1)",
            "keys",
        ),
        (
            "REVOKE SELECT ON _sqlx_migrations FROM ringfence_app",
            "GRANT SELECT ON _sqlx_migrations TO ringfence_app",
            "database",
        ),
    ] {
        sqlx::raw_sql(breaks).execute(&mut admin).await.unwrap();
        assert_eq!(ready().await, Err(word));
        sqlx::raw_sql(mends).execute(&mut admin).await.unwrap();
        assert_eq!(ready().await, Ok(()), "after {word}");
    }

    // On the pages' port, for load balancers: without a login, and nothing but a word.
    let get = async |path: &str| {
        let response = server.get(&stranger(), path).await;
        (response.status(), text(response).await)
    };
    let asked = Instant::now();
    assert_eq!(get("/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
    sqlx::raw_sql(
        "DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END $$;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let again = get("/readyz").await;
    if asked.elapsed() < Duration::from_secs(1) {
        assert_eq!(again, (StatusCode::OK, "ready\n".to_owned()), "the database was asked a moment ago");
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(get("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "database\n".to_owned()));
    assert_eq!(get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()), "it lives all the same");

    stopping.cancel();
    assert_eq!(ready().await, Err("draining"));
    server.stopping.cancel();
    assert_eq!(get("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()));
}

/// Stands for a collector; the wire is the real one, OTLP over gRPC.
struct Collector(mpsc::UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            let _ = self.0.send(span);
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (spans, received) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(spans)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_from_the_click_to_applied() {
    let (address, mut received) = collector().await;
    let endpoint = format!("http://{address}").parse().unwrap();
    let telemetry = Telemetry::start(Some(&endpoint)).unwrap();
    let lab = Lab::start().await;
    lab.until_applied(1).await;
    lab.allow("198.51.100.0/28").await;
    lab.until_applied(2).await;
    let with = |span: &Span, key: &str, wanted: &str| {
        span.attributes.iter().any(|pair| pair.key == key && format!("{:?}", pair.value).contains(wanted))
    };
    let mut spans: Vec<Span> = Vec::new();
    let ended =
        |spans: &[Span], name: &str| spans.iter().any(|span| span.name == name && with(span, "policy.revision", "2"));
    timeout(LONGEST, async {
        while !ended(&spans, "push") || !ended(&spans, "apply") {
            spans.push(received.recv().await.unwrap());
        }
    })
    .await
    .expect("the spans of the server and of the agent");
    telemetry.stop().await;
    while let Ok(span) = received.try_recv() {
        spans.push(span);
    }

    let click = spans.iter().find(|span| span.name == "http" && with(span, "http.route", "/api/allowed_ips/add"));
    let click = click.unwrap_or_else(|| panic!("no click in {spans:#?}"));
    assert!(with(click, "http.response.status_code", "200"), "{click:?}");
    assert!(click.parent_span_id.is_empty(), "a trace begins with the click");
    let child = |parent: &Span, name: &str, key: &str, wanted: &str| -> Span {
        let fits = |span: &&Span| span.parent_span_id == parent.span_id && span.name == name && with(span, key, wanted);
        let found = spans.iter().find(fits);
        found.cloned().unwrap_or_else(|| panic!("no {name} in {} in {spans:#?}", parent.name))
    };
    let action = child(click, "action", "operation", Operation::AddAllowedIp.path());
    let commit = spans.iter().find(|span| span.name == "commit" && span.parent_span_id == action.span_id).unwrap();
    let push = child(&action, "push", "policy.revision", "2");
    let apply = child(&push, "apply", "policy.revision", "2");
    let applied = child(&push, "applied", "policy.revision", "2");
    for span in [&action, commit, &push, &apply, &applied] {
        assert_eq!(span.trace_id, click.trace_id, "{}", span.name);
    }
    assert!(with(&push, "pbx.id", &lab.pbx.to_string()));

    // Ids, operations and revisions; nothing of anybody.
    let everything = format!("{spans:?}");
    for somebody in secrets(&lab) {
        assert!(!everything.contains(&somebody), "{somebody} is told");
    }
    // The second edit is another trace.
    let others = spans.iter().filter(|span| span.name == "http" && span.trace_id != click.trace_id).count();
    assert!(others > 0);
}

/// Nothing is kept in the database or sent to agents while traces are off.
#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let server = TestServer::start().await;
    let tenant = server.tenant("untraced").await;
    let admin = server.person(tenant, Role::SuperAdministrator).await;
    let form = json!({ "target": "198.51.100.0/28", "note": "", "expires_at": "" });
    let _: Value = server.done(&admin, Operation::AddAllowedIp, json!({ "form": form, "insist": false })).await;
    let mut tx = server.ctx.store().tenant(tenant).await.unwrap();
    assert_eq!(store::tenants::policy_trace(&mut tx).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(actions::agents::policy(&server.ctx, tenant).await.unwrap().trace_parent, None);
}

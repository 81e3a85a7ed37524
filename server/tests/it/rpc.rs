//! Agents: enrolment, mutual TLS, policy and bans down, reports up, the end of a stream.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use policy::audit::AuditRow;
use policy::authz::{Operation, Role};
use policy::bans::{BanChange, BanDigest};
use policy::ids::{BanId, BatchId, TenantId};
use policy::pbxes::EnrolmentCommand;
use policy::reports::{DetectedBan, ReportBatch, ReportEvent};
use proto::convert::{FromAgent, FromServer, Hello, PolicyApplied};
use proto::pb::agent_link_client::AgentLinkClient;
use proto::pb::enrolment_client::EnrolmentClient;
use proto::pb::{self, EnrolRequest};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use server::http::limits::Limit;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use crate::support::{Person, TestServer};

pub(crate) const LONGEST: Duration = Duration::from_secs(10);

/// A portal that agents can reach, and a tenant with somebody who may do everything.
pub(crate) struct Portal {
    pub(crate) server: TestServer,
    pub(crate) address: SocketAddr,
    pub(crate) tenant: TenantId,
    pub(crate) admin: Person,
}

/// An enrolled agent.
pub(crate) struct Enrolled {
    pub(crate) pbx: EnrolmentCommand,
    pub(crate) identity: Identity,
}

/// An open stream.
pub(crate) struct Link {
    pub(crate) out: mpsc::Sender<pb::AgentMessage>,
    pub(crate) incoming: Streaming<pb::ServerMessage>,
}

impl Portal {
    pub(crate) async fn start() -> Self {
        let server = TestServer::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ctx, stopping) = (server.ctx.clone(), server.stopping.clone());
        let limit = Limit { burst: 1000, refill: Duration::from_millis(1) };
        tokio::spawn(async move {
            server::rpc::serve(ctx, listener, &["localhost".to_owned()], limit, stopping).await.unwrap();
        });
        let tenant = server.tenant("agents").await;
        let admin = server.person(tenant, Role::SuperAdministrator).await;
        Self { server, address, tenant, admin }
    }

    fn channel(&self, identity: Option<Identity>) -> Channel {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.server.ctx.ca().pem()))
            .domain_name("localhost");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap().connect_lazy()
    }

    pub(crate) async fn add_pbx(&self, name: &str) -> EnrolmentCommand {
        self.server.done(&self.admin, Operation::AddPbx, json!({ "name": name })).await
    }

    async fn enrol(&self, token: &str) -> Result<Identity, Status> {
        let key = KeyPair::generate().unwrap();
        let csr_pem = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let request = EnrolRequest {
            token: token.to_owned(),
            csr_pem,
            agent_version: "0.1.0".to_owned(),
            hostname: "pbx.test".to_owned(),
        };
        let answer = EnrolmentClient::new(self.channel(None)).enrol(request).await?.into_inner();
        assert_eq!(answer.ca_pem, self.server.ctx.ca().pem());
        Ok(Identity::from_pem(answer.certificate_pem, key.serialize_pem()))
    }

    pub(crate) async fn enrolled(&self, name: &str) -> Enrolled {
        let pbx = self.add_pbx(name).await;
        let identity = self.enrol(token(&pbx)).await.unwrap();
        Enrolled { pbx, identity }
    }

    pub(crate) async fn open(&self, identity: Option<Identity>) -> Result<Link, Status> {
        let (out, messages) = mpsc::channel(16);
        let mut client = AgentLinkClient::new(self.channel(identity));
        let incoming = client.link(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Link { out, incoming })
    }

    /// A stream on which hello was said and everything has come that comes by itself.
    async fn connect(&self, agent: &Enrolled) -> Link {
        self.connect_with(agent, 0).await
    }

    /// The same; there are so many bans.
    async fn connect_with(&self, agent: &Enrolled, bans: usize) -> Link {
        let mut link = self.open(Some(agent.identity.clone())).await.unwrap();
        link.say(hello()).await;
        let welcome = link.hear(|message| matches!(message, FromServer::Welcome(_))).await;
        let FromServer::Welcome(welcome) = welcome else { unreachable!() };
        assert_eq!(welcome.pbx_name, agent.pbx.pbx_name);
        link.hear(|message| matches!(message, FromServer::Policy(_))).await;
        // Agents here say that they know no bans, so they get the set: what changes after it comes as a delta.
        let set = link.hear(|message| matches!(message, FromServer::BanSnapshot(_))).await;
        assert!(matches!(set, FromServer::BanSnapshot(part) if part.bans.len() == bans && part.parts == 1));
        link
    }

    async fn audit(&self) -> Vec<AuditRow> {
        let mut tx = self.server.ctx.store().tenant(self.tenant).await.unwrap();
        let rows = store::audit::chain(&mut tx, 0, 10_000).await.unwrap();
        tx.commit().await.unwrap();
        rows
    }

    async fn block(&self, net: &str) {
        let form = json!({ "net": net, "duration": "3600", "reason": "test" });
        let _: Value =
            self.server.done(&self.admin, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    }
}

impl Link {
    async fn say(&self, message: FromAgent) {
        self.out.send((&message).into()).await.unwrap();
    }

    /// The next message of a kind; others are passed over.
    async fn hear(&mut self, wanted: impl Fn(&FromServer) -> bool) -> FromServer {
        timeout(LONGEST, async {
            loop {
                let message = self.incoming.message().await.unwrap().expect("the stream goes on");
                let message = FromServer::try_from(message).unwrap();
                if wanted(&message) {
                    return message;
                }
            }
        })
        .await
        .expect("the message comes in time")
    }

    /// Reports a batch; the number of the last ban when it was stored.
    async fn report(&mut self, batch: &ReportBatch) -> i64 {
        self.say(FromAgent::Report(batch.clone())).await;
        let wanted = |message: &FromServer| matches!(message, FromServer::ReportAck(ack) if ack.batch_id == batch.id);
        let FromServer::ReportAck(ack) = self.hear(wanted).await else { unreachable!() };
        ack.ban_seq
    }

    /// How the stream ends.
    async fn end(mut self) -> Option<Code> {
        timeout(LONGEST, async {
            loop {
                match self.incoming.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(status) => return Some(status.code()),
                }
            }
        })
        .await
        .expect("the stream ends in time")
    }
}

fn token(pbx: &EnrolmentCommand) -> &str {
    pbx.command.split_whitespace().last().unwrap()
}

fn hello() -> FromAgent {
    FromAgent::Hello(Hello {
        agent_version: "0.1.0".to_owned(),
        hostname: "pbx.test".to_owned(),
        pbx_kind: "simulated".to_owned(),
        pbx_version: "1".to_owned(),
        firewall: "memory".to_owned(),
        policy: None,
        bans: None,
        withheld: vec![],
    })
}

fn batch(portal: &Portal, id: BanId, net: &str) -> ReportBatch {
    let at = portal.server.ctx.now();
    let net: IpNet = net.parse().unwrap();
    let ban = DetectedBan {
        id,
        net,
        at,
        expires_at: at + time::Duration::hours(1),
        reason: "5 wrong passwords for 1007".to_owned(),
        account: "1007".to_owned(),
        times_banned: 1,
        evidence: Vec::new(),
        took_us: 90,
    };
    ReportBatch { id: BatchId(Uuid::now_v7()), events: vec![ReportEvent::Detected(ban)] }
}

#[tokio::test]
async fn a_token_works_once_and_only_as_it_was_made() {
    let portal = Portal::start().await;
    let pbx = portal.add_pbx("hq").await;
    let right = token(&pbx).to_owned();
    let (head, signature) = right.rsplit_once('.').unwrap();
    let huge = "x".repeat(10_000);
    for wrong in ["", "nonsense", "\u{0}", &huge, &format!("{head}.{}", signature.chars().rev().collect::<String>())] {
        let refused = portal.enrol(wrong).await.unwrap_err().code();
        assert!(matches!(refused, Code::FailedPrecondition | Code::InvalidArgument), "{refused:?}");
    }
    portal.enrol(&right).await.unwrap();
    assert_eq!(portal.enrol(&right).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(portal.server.audited(portal.tenant, Operation::EnrolAgent).await >= 2, "done and refused");

    let late = portal.add_pbx("late").await;
    portal.server.clock.advance(time::Duration::hours(2));
    assert_eq!(portal.enrol(token(&late)).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_certificate_request_that_is_none_uses_no_token_up() {
    let portal = Portal::start().await;
    let pbx = portal.add_pbx("hq").await;
    for csr_pem in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "\u{0}"] {
        let request = EnrolRequest { token: token(&pbx).to_owned(), csr_pem: csr_pem.to_owned(), ..Default::default() };
        let refused = EnrolmentClient::new(portal.channel(None)).enrol(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    portal.enrol(token(&pbx)).await.unwrap();
}

#[tokio::test]
async fn without_a_certificate_of_ours_there_is_no_stream() {
    let portal = Portal::start().await;
    assert_eq!(portal.open(None).await.err().map(|status| status.code()), Some(Code::Unauthenticated));
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let foreign = Identity::from_pem(own.pem(), key.serialize_pem());
    assert!(portal.open(Some(foreign)).await.is_err(), "the handshake refuses it");
}

/// Whoever opens connections and says nothing takes only what one source may have.
#[tokio::test]
async fn silent_connections_leave_room_for_others() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut silent = Vec::new();
    for _ in 0..70 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(portal.address).await.unwrap());
    }
    for refused in &mut silent[64..] {
        assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)), "closed at once");
    }
    portal.connect(&agent).await;
}

#[tokio::test]
async fn changes_reach_the_agent() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let form = json!({ "target": "198.51.100.0/24", "note": "", "expires_at": "" });
    let _: Value =
        portal.server.done(&portal.admin, Operation::AddAllowedIp, json!({ "form": form, "insist": false })).await;
    let FromServer::Policy(policy) = link.hear(|message| matches!(message, FromServer::Policy(_))).await else {
        unreachable!()
    };
    assert_eq!(policy.allowed.len(), 1);
    link.say(FromAgent::PolicyApplied(PolicyApplied {
        revision: policy.revision,
        digest: policy.digest(),
        took_us: 38_000,
    }))
    .await;

    portal.block("203.0.113.9").await;
    let FromServer::BanDelta(delta) = link.hear(|message| matches!(message, FromServer::BanDelta(_))).await else {
        unreachable!()
    };
    let [BanChange::Add(entry)] = delta.changes[..] else { panic!("{delta:?}") };
    assert_eq!((entry.net.to_string().as_str(), delta.digest), ("203.0.113.9/32", BanDigest::of([&entry])));

    // Something else than was sent: the agent gets all of it.
    let wrong = proto::convert::BansApplied {
        seq: delta.to_seq,
        digest: BanDigest::from_bytes([9; 16]),
        took_us: 1,
        resync: false,
    };
    link.say(FromAgent::BansApplied(wrong)).await;
    let whole = link.hear(|message| matches!(message, FromServer::BanSnapshot(_))).await;
    assert!(matches!(whole, FromServer::BanSnapshot(part) if part.bans == [entry]));
}

#[tokio::test]
async fn changes_of_another_tenant_do_not() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let other = portal.server.tenant("other").await;
    let them = portal.server.person(other, Role::SuperAdministrator).await;
    let form = json!({ "net": "203.0.113.50", "duration": "3600", "reason": "theirs" });
    let _: Value = portal.server.done(&them, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    portal.block("203.0.113.9").await;
    let FromServer::BanDelta(delta) = link.hear(|message| matches!(message, FromServer::BanDelta(_))).await else {
        unreachable!()
    };
    assert!(matches!(delta.changes[..], [BanChange::Add(entry)] if entry.net.to_string() == "203.0.113.9/32"));
}

#[tokio::test]
async fn a_batch_is_stored_once_however_often_it_comes() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let report = batch(&portal, BanId(Uuid::now_v7()), "203.0.113.9/32");
    for _ in 0..3 {
        assert_eq!(link.report(&report).await, 1);
    }
    let page: Value =
        portal.server.done(&portal.admin, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await;
    assert_eq!(page["total"], 1);
    assert_eq!(page["rows"][0]["pbx_name"], "hq");
    assert!(portal.server.audited(portal.tenant, Operation::LinkAgent).await >= 2, "connected, and the batch");
}

/// Twice, out of order, again on another stream, again after the ban was lifted, and under another number.
#[tokio::test]
async fn duplicate_reordered_and_replayed_batches_change_nothing_twice() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let batches: Vec<ReportBatch> =
        (1..=6).map(|host| batch(&portal, BanId(Uuid::now_v7()), &format!("203.0.113.{host}/32"))).collect();
    let mut link = portal.connect(&agent).await;
    for number in [5, 1, 1, 4, 0, 5, 3, 2, 0] {
        link.report(&batches[number]).await;
    }
    drop(link);
    let mut link = portal.connect_with(&agent, 6).await;
    for batch in batches.iter().rev() {
        assert_eq!(link.report(batch).await, 6);
    }
    let list = async || -> Value {
        portal.server.done(&portal.admin, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await
    };
    let page = list().await;
    assert_eq!(page["total"], 6);
    let lifted = page["rows"][0]["id"].clone();
    let batch =
        batches.iter().find(|batch| matches!(&batch.events[0], ReportEvent::Detected(ban) if json!(ban.id) == lifted));
    let _: Value = portal.server.done(&portal.admin, Operation::UnblockIps, json!({ "ids": [lifted] })).await;
    let batch = batch.unwrap();
    assert_eq!(link.report(batch).await, 7);
    assert_eq!(link.report(&ReportBatch { id: BatchId(Uuid::now_v7()), ..batch.clone() }).await, 7);
    assert_eq!(list().await["total"], 5, "what was lifted stays lifted");

    // Each was stored once: one row of the log for each, and a set whose digest is that of its bans.
    let stored = portal.audit().await.iter().filter(|row| row.details.contains("\"batch\"")).count();
    let mut tx = portal.server.ctx.store().tenant(portal.tenant).await.unwrap();
    let set = store::ban_set::read(&mut tx).await.unwrap();
    let bans = store::blocked_ips::entries(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((stored, set.seq, set.digest), (6, 7, BanDigest::of(&bans)));
    let verdicts = actions::audit::verify_all(&portal.server.ctx).await.unwrap();
    assert!(verdicts.iter().all(|(_, verdict)| verdict.broken.is_none()));
}

#[tokio::test]
async fn an_id_of_another_tenants_ban_changes_nothing_there() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let other = portal.server.tenant("other").await;
    let them = portal.server.person(other, Role::SuperAdministrator).await;
    let form = json!({ "net": "203.0.113.50", "duration": "permanent", "reason": "theirs" });
    let theirs: Value = portal.server.done(&them, Operation::BlockIp, json!({ "form": form, "insist": false })).await;
    let before =
        portal.server.call(&them, Operation::ListBlockedIps, &json!({ "filter": {}, "after": null })).await.text;
    let id = BanId(theirs["id"].as_str().unwrap().parse().unwrap());
    link.say(FromAgent::Report(batch(&portal, id, "198.51.100.77/32"))).await;
    link.hear(|message| matches!(message, FromServer::ReportAck(_))).await;
    let after =
        portal.server.call(&them, Operation::ListBlockedIps, &json!({ "filter": {}, "after": null })).await.text;
    assert_eq!(before, after);
}

#[tokio::test]
async fn revoking_cuts_the_stream_at_once_and_for_good() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let link = portal.connect(&agent).await;
    let _: () = portal.server.done(&portal.admin, Operation::RevokePbx, json!({ "id": agent.pbx.pbx_id })).await;
    let ended = timeout(Duration::from_secs(3), link.end()).await.expect("at once");
    assert_eq!(ended, Some(Code::NotFound));
    let again = portal.open(Some(agent.identity)).await;
    assert_eq!(again.err().map(|status| status.code()), Some(Code::NotFound));
}

#[tokio::test]
async fn a_newer_stream_of_the_same_pbx_takes_over() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let first = portal.connect(&agent).await;
    let mut second = portal.connect(&agent).await;
    // Without a word from its agent.
    assert_eq!(first.end().await, Some(Code::Aborted));
    // Its agent was there, so there are two.
    let told = portal.audit().await.iter().filter(|row| row.details.contains("another_agent")).count();
    assert_eq!(told, 1);
    portal.block("203.0.113.9").await;
    second.hear(|message| matches!(message, FromServer::BanDelta(_))).await;
}

#[tokio::test]
async fn who_holds_the_policy_is_not_sent_it() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.open(Some(agent.identity.clone())).await.unwrap();
    link.say(hello()).await;
    let FromServer::Policy(policy) = link.hear(|message| matches!(message, FromServer::Policy(_))).await else {
        unreachable!()
    };
    drop(link);
    let FromAgent::Hello(mut hello) = hello() else { unreachable!() };
    hello.policy = Some((policy.revision, policy.digest()));
    hello.bans = Some((0, BanDigest::default()));
    let mut link = portal.open(Some(agent.identity.clone())).await.unwrap();
    link.say(FromAgent::Hello(hello.clone())).await;
    link.hear(|message| matches!(message, FromServer::Welcome(_))).await;
    portal.block("203.0.113.9").await;
    let next = link.hear(|message| !matches!(message, FromServer::Heartbeat(_))).await;
    assert!(matches!(next, FromServer::BanDelta(_)), "{next:?}");
    drop(link);
    // Another content under the same number is not what was wanted.
    hello.policy = Some((policy.revision, [7; 32]));
    let mut link = portal.open(Some(agent.identity.clone())).await.unwrap();
    link.say(FromAgent::Hello(hello)).await;
    link.hear(|message| matches!(message, FromServer::Policy(_))).await;
}

/// What a PBX that is gone meanwhile, or a made-up batch, can't bring in doesn't keep the others' reports out.
#[tokio::test]
async fn agents_that_report_at_once_are_each_answered() {
    let portal = Portal::start().await;
    let mut links = Vec::new();
    for number in 0..8 {
        let agent = portal.enrolled(&format!("pbx-{number}")).await;
        links.push(portal.connect(&agent).await);
    }
    let mut acked = Vec::new();
    for (number, link) in links.iter().enumerate() {
        for host in 1..=5 {
            let report = batch(&portal, BanId(Uuid::now_v7()), &format!("198.51.{number}.{host}/32"));
            acked.push(report.id);
            link.say(FromAgent::Report(report)).await;
        }
    }
    for (number, link) in links.iter_mut().enumerate() {
        for turn in 0..5 {
            let ack = link.hear(|message| matches!(message, FromServer::ReportAck(_))).await;
            assert!(matches!(ack, FromServer::ReportAck(ack) if ack.batch_id == acked[number * 5 + turn]));
        }
    }
    let page: Value =
        portal.server.done(&portal.admin, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await;
    assert_eq!(page["total"], 40);
    let verdict: Value = portal.server.done(&portal.admin, Operation::VerifyAudit, json!({})).await;
    assert_eq!(verdict["broken"], Value::Null);
}

/// Somebody's change that no notification told of is found by the look.
#[tokio::test]
async fn a_lost_hint_is_made_up_for() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let mut tx = portal.server.ctx.store().tenant(portal.tenant).await.unwrap();
    let revision = store::tenants::raise_revision(&mut tx, None).await.unwrap();
    tx.commit().await.unwrap();
    let policy = link.hear(|message| matches!(message, FromServer::Policy(_))).await;
    assert!(matches!(policy, FromServer::Policy(policy) if policy.revision == revision));
    let mut tx = portal.server.ctx.store().tenant(portal.tenant).await.unwrap();
    store::tenants::raise_roster(&mut tx).await.unwrap();
    store::pbxes::revoke(&mut tx, agent.pbx.pbx_id, portal.server.ctx.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(link.end().await, Some(Code::NotFound));
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_stream() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let nothing = pb::AgentMessage { message: None };
    let endless = pb::agent_message::Message::Report(pb::Report {
        batch_id: vec![1; 16],
        events: vec![pb::Event::default(); 600],
    });
    let forged =
        pb::agent_message::Message::PolicyRefused(pb::PolicyRefused { revision: -1, reason: "\u{0}".repeat(9_000) });
    for bad in [nothing, pb::AgentMessage { message: Some(endless) }, pb::AgentMessage { message: Some(forged) }] {
        let link = portal.connect(&agent).await;
        link.out.send(bad).await.unwrap();
        assert_eq!(link.end().await, Some(Code::InvalidArgument));
    }
    let early = portal.open(Some(agent.identity.clone())).await.unwrap();
    early.say(FromAgent::Heartbeat(pb::Heartbeat::default())).await;
    assert_eq!(early.end().await, Some(Code::FailedPrecondition));
}

#[tokio::test]
async fn what_the_agent_says_is_shown() {
    let portal = Portal::start().await;
    let list = async || -> Value { portal.server.done(&portal.admin, Operation::ListPbxes, json!({})).await };
    let pbx = portal.add_pbx("hq").await;
    assert_eq!(list().await[0]["state"], "waiting_for_agent");
    let identity = portal.enrol(token(&pbx)).await.unwrap();
    let agent = Enrolled { pbx, identity };
    let link = portal.connect(&agent).await;
    link.say(FromAgent::Heartbeat(pb::Heartbeat { bans: 3, registered: 14, ..Default::default() })).await;
    for _ in 0..100 {
        if list().await[0]["registered"] == 14 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = list().await;
    assert_eq!(
        (&shown[0]["state"], &shown[0]["registered"], &shown[0]["bans"]),
        (&json!("online"), &json!(14), &json!(3))
    );
    drop(link);
    portal.server.clock.advance(time::Duration::seconds(15));
    assert_eq!(list().await[0]["state"], "offline");
}

#[tokio::test]
async fn what_is_stored_when_the_portal_stops_is_acknowledged() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let mut link = portal.connect(&agent).await;
    let batches: Vec<_> =
        (1..=12).map(|n| batch(&portal, BanId(Uuid::now_v7()), &format!("203.0.113.{n}/32"))).collect();
    for batch in &batches {
        link.say(FromAgent::Report(batch.clone())).await;
    }
    let is_ack = |message: &FromServer| matches!(message, FromServer::ReportAck(_));
    link.hear(is_ack).await;
    portal.server.stopping.cancel();
    let mut acknowledged = 1;
    let end = timeout(LONGEST, async {
        loop {
            match link.incoming.message().await {
                Ok(Some(message)) => acknowledged += usize::from(is_ack(&message.try_into().unwrap())),
                Ok(None) => panic!("it says why"),
                Err(status) => return status,
            }
        }
    });
    let end = end.await.expect("the stream ends in time");
    assert_eq!((end.code(), end.message()), (Code::Unavailable, proto::LEAVING));
    let page: Value =
        portal.server.done(&portal.admin, Operation::ListBlockedIps, json!({ "filter": {}, "after": null })).await;
    assert_eq!(page["total"], acknowledged);
}

#[tokio::test]
async fn who_has_said_nothing_does_not_hold_the_portal_up() {
    let portal = Portal::start().await;
    let agent = portal.enrolled("hq").await;
    let link = portal.open(Some(agent.identity.clone())).await.unwrap();
    portal.server.stopping.cancel();
    let ended = timeout(Duration::from_secs(5), link.end()).await.expect("before its hello is too late");
    assert_eq!(ended, Some(Code::Unavailable));
}

//! What several nodes need around them: one database, a load balancer, a NATS, browsers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use actions::bus::Change;
use agent::fleet::Member;
use data_encoding::HEXLOWER;
use policy::audit::AuditRow;
use policy::authz::Operation;
use policy::ids::TenantId;
use serde_json::{Value, json};
use server::commands::serve::serve;
use server::config::Config;
use server::installation::Installation;
use store::ban_set::BanSet;
use store::testing::TestDb;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::LONGEST;
use crate::support::{MASTER_KEY, Person, Route, TestServer, route, wide};

/// One database with one tenant, and how many PBXes are enrolled there.
pub(super) struct Cluster {
    db: TestDb,
    /// Looks into the database, and makes people in it; serves nobody.
    pub(super) office: TestServer,
    pub(super) tenant: TenantId,
    members: Vec<Member>,
}

impl Cluster {
    pub(super) async fn start(agents: usize) -> Self {
        let db = TestDb::new().await;
        let office = TestServer::on(&db, wide()).await;
        let members = actions::demo::fleet(&office.ctx, 0, agents).await.unwrap();
        let members = members.into_iter().map(|member| Member {
            server: String::new(),
            key_pem: member.key_pem,
            certificate_pem: member.certificate_pem,
            ca_pem: member.ca_pem,
        });
        let tenants = store::jobs::all_tenants(office.ctx.store()).await.unwrap();
        // The first is the installation's own.
        let [_, tenant] = tenants[..] else { panic!("{tenants:?}") };
        Self { db, office, tenant, members: members.collect() }
    }

    pub(super) fn members(&self, server: &str) -> Vec<Member> {
        self.members.iter().map(|member| Member { server: server.to_owned(), ..member.clone() }).collect()
    }

    /// One more node.
    pub(super) async fn node(&self, nats: Option<&Nats>) -> Node {
        let (pages, agents) = (listener().await, listener().await);
        let (pages_at, agents_at) = (pages.local_addr().unwrap(), agents.local_addr().unwrap());
        let TestDb { app_url, system_url, .. } = &self.db;
        let nats = nats.map(|nats| format!("[wakeups]\nnats_url = \"{}\"\n", nats.url)).unwrap_or_default();
        let settings = format!(
            "[http]\nlisten = \"{pages_at}\"\npublic_url = \"http://{pages_at}\"\n\
             [database]\nurl = \"{app_url}\"\nsystem_url = \"{system_url}\"\nmax_connections = 10\n\
             [agents]\nlisten = \"{agents_at}\"\npublic_host = \"127.0.0.1\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n\
             [secrets]\nmaster_key = \"{}\"\n{nats}",
            HEXLOWER.encode(&MASTER_KEY)
        );
        let config = Config::from_sources(&settings, &BTreeMap::new()).unwrap();
        let (installation, carrier) = Installation::open(&config).await.unwrap();
        let hints = installation.ctx.bus().subscribe();
        let stopping = CancellationToken::new();
        let token = stopping.clone();
        let served = tokio::spawn(async move {
            serve(&config, (&installation.ctx, carrier), None, pages, agents, None, token).await?;
            installation.close().await
        });
        Node { pages: pages_at, agents: agents_at, hints, stopping, served }
    }

    pub(super) async fn pbxes(&self, admin: &Person) -> Value {
        self.office.done(admin, Operation::ListPbxes, json!({})).await
    }

    /// How many bans there are.
    pub(super) async fn blocked(&self, admin: &Person) -> usize {
        let list = json!({ "filter": {}, "after": null });
        let page: Value = self.office.done(admin, Operation::ListBlockedIps, list).await;
        usize::try_from(page["total"].as_u64().unwrap()).unwrap()
    }

    pub(super) async fn audit(&self) -> Vec<AuditRow> {
        let mut tx = self.office.ctx.store().tenant(self.tenant).await.unwrap();
        let rows = store::audit::chain(&mut tx, 0, 10_000).await.unwrap();
        tx.commit().await.unwrap();
        rows
    }

    pub(super) async fn ban_set(&self) -> BanSet {
        let mut tx = self.office.ctx.store().tenant(self.tenant).await.unwrap();
        let set = store::ban_set::read(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        set
    }

    /// Waits until the portal shows that all PBXes enforce everything: what an agent says it holds counts only under its digest.
    pub(super) async fn until_enforced(&self, admin: &Person, agents: usize) {
        let mut changes = self.office.ctx.bus().subscribe();
        timeout(LONGEST, async {
            loop {
                let shown: Value = self.office.done(admin, Operation::ShowEnforcement, json!({})).await;
                if shown["enforced"] == agents {
                    return;
                }
                let _ = changes.recv().await;
            }
        })
        .await
        .expect("all PBXes enforce everything");
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A node, as `ringfence serve` runs it.
pub(super) struct Node {
    pub(super) pages: SocketAddr,
    pub(super) agents: SocketAddr,
    /// All that its bus has told from the beginning.
    pub(super) hints: broadcast::Receiver<Change>,
    stopping: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Node {
    /// Stops as after SIGTERM, and waits for the end.
    pub(super) async fn stop(self) {
        self.stopping.cancel();
        timeout(LONGEST, self.served).await.expect("it ends within its grace").unwrap().unwrap();
    }
}

/// A load balancer for agents: to each of the nodes in turn, and past one that isn't there. It says who connects, or that `named` does.
pub(super) struct Balancer {
    pub(super) address: SocketAddr,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    _running: JoinSet<()>,
}

impl Balancer {
    pub(super) async fn start(targets: Vec<SocketAddr>, named: Option<IpAddr>) -> Self {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(targets));
        let mut running = JoinSet::new();
        let to = Arc::clone(&targets);
        running.spawn(async move {
            let mut connections = JoinSet::new();
            for turn in 0.. {
                let (client, peer) = listener.accept().await.unwrap();
                let mut to = to.lock().unwrap().clone();
                let next = turn % to.len();
                to.rotate_left(next);
                let source = named.unwrap_or(peer.ip());
                connections.spawn(pass(client, SocketAddr::new(source, peer.port()), to));
            }
        });
        Self { address, targets, _running: running }
    }

    pub(super) fn replace(&self, old: SocketAddr, new: SocketAddr) {
        self.targets.lock().unwrap().iter_mut().filter(|target| **target == old).for_each(|target| *target = new);
    }
}

async fn pass(mut client: TcpStream, source: SocketAddr, targets: Vec<SocketAddr>) {
    for target in targets {
        if let Ok(mut node) = TcpStream::connect(target).await {
            let header = format!("PROXY TCP4 {} {} {} {}\r\n", source.ip(), target.ip(), source.port(), target.port());
            if node.write_all(header.as_bytes()).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut node).await;
            }
            return;
        }
    }
}

/// Somebody's browser, which may ask any node.
pub(super) struct Browser {
    cookie: String,
}

impl Browser {
    pub(super) fn of(person: &Person) -> Self {
        Self { cookie: person.cookie.clone() }
    }

    /// Calls an operation; status and answer.
    pub(super) async fn post(&self, node: &Node, operation: Operation, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let answer = self.ask(node, operation, &body, "").await.complete(&body).await;
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Begins to call an operation; the node has begun to answer and waits for the body.
    pub(super) async fn begin(&self, node: &Node, operation: Operation, body: &str) -> Asked {
        let mut asked = self.ask(node, operation, body, "Expect: 100-continue\r\n").await;
        let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        timeout(LONGEST, asked.stream.read_exact(&mut go_on)).await.expect("it asks for the body").unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
        asked
    }

    async fn ask(&self, node: &Node, operation: Operation, body: &str, more: &str) -> Asked {
        let Route::ServerFn(path) = route(operation) else { panic!("{operation:?} is no server function") };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n",
            node.pages,
            self.cookie,
            body.len()
        );
        let mut stream = TcpStream::connect(node.pages).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        Asked { stream }
    }

    /// Calls an operation that must succeed.
    pub(super) async fn done(&self, node: &Node, operation: Operation, body: &Value) {
        let (status, answer) = self.post(node, operation, body).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// A page that is open on a node.
    pub(super) async fn watch(&self, node: &Node) -> Page {
        let mut stream = TcpStream::connect(node.pages).await.unwrap();
        let request = format!(
            "GET /live HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nConnection: close\r\n\r\n",
            node.pages, self.cookie
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = Page { stream, unread: String::new() };
        page.sees("event: ready").await;
        page
    }
}

/// A request without its body.
pub(super) struct Asked {
    stream: TcpStream,
}

impl Asked {
    /// Sends the body; the whole answer.
    pub(super) async fn complete(&mut self, body: &str) -> String {
        self.stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONGEST, self.stream.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        answer
    }
}

/// An open page with its stream of hints.
pub(super) struct Page {
    stream: TcpStream,
    unread: String,
}

impl Page {
    /// Waits for a hint, past those before it.
    pub(super) async fn sees(&mut self, wanted: &str) {
        let seen = timeout(LONGEST, async {
            loop {
                if let Some(at) = self.unread.find(wanted) {
                    self.unread.drain(..at + wanted.len());
                    return;
                }
                assert!(self.read().await, "the stream ended before “{wanted}”");
            }
        });
        assert!(seen.await.is_ok(), "“{wanted}” did not come");
    }

    /// Waits for the end of the stream.
    pub(super) async fn ends(&mut self) {
        timeout(LONGEST, async { while self.read().await {} }).await.expect("the stream ends");
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).await.unwrap_or(0);
        self.unread += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }
}

/// A real NATS server.
pub(super) struct Nats {
    pub(super) url: String,
    port: u16,
    process: Child,
}

impl Nats {
    /// On a port of its own, or on one where another one was.
    pub(super) async fn start(port: Option<u16>) -> Self {
        let wanted = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
        let mut process = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &wanted])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("nats-server is missing: scripts/install-tools.sh test installs it");
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut port = 0;
        timeout(LONGEST, async {
            while let Some(line) = log.next_line().await.unwrap() {
                if let Some((_, at)) = line.split_once("client connections on 127.0.0.1:") {
                    port = at.trim().parse().unwrap();
                }
                if line.contains("Server is ready") {
                    return;
                }
            }
            panic!("nats-server ended");
        })
        .await
        .expect("nats-server starts");
        // Read on, lest it blocks.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { url: format!("nats://127.0.0.1:{port}"), port, process }
    }

    /// Kills it; answers its port.
    pub(super) async fn stop(mut self) -> u16 {
        self.process.kill().await.unwrap();
        self.port
    }
}

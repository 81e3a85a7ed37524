//! The portal's machine: the real server in its namespace, on a PostgreSQL of its own, and the administrator, who works over HTTP as her
//! browser would. What the drills look up afterwards they read from the database, as another node of the portal.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use actions::clock::SystemClock;
use actions::seal::MasterKey;
use actions::{Ctx, Login, Settings};
use data_encoding::HEXLOWER;
use ipnet::IpNet;
use policy::audit::AuditRow;
use policy::authz::{Operation, Role};
use policy::bans::BanEntry;
use policy::ids::{PbxId, TenantId, UserId};
use policy::pbxes::{EnrolmentCommand, Pbx};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use server::sessions::Sessions;
use store::Store;
use tempfile::TempDir;
use testbed::namespaces::{Namespaces, PORTAL};
use tokio::runtime::Runtime;
use tower_sessions::SessionStore as _;
use tower_sessions::session::{Id, Record};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::programs::{Program, command, eventually, succeed, until};

const PAGES: u16 = 3000;
const AGENTS: u16 = 3443;

/// What the portal answered: the status and the body. `None` when it did not, or not all of it.
pub type Answer = Option<(u16, String)>;

/// The portal's machine.
pub struct Portal {
    server: Option<Program>,
    /// The administrator's; empty until there is one.
    cookie: String,
    tenant: TenantId,
    ctx: Option<Ctx>,
    runtime: Runtime,
    folder: TempDir,
}

impl Portal {
    /// A running portal with a tenant and its administrator.
    pub fn start(namespaces: &Namespaces) -> Self {
        // PostgreSQL gives up root and must be able to pass through.
        let folder = tempfile::Builder::new()
            .prefix("ringfence-drill-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in("/tmp")
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tenant, cookie) = (TenantId(Uuid::now_v7()), String::new());
        let mut portal = Self { server: None, cookie, tenant, ctx: None, runtime, folder };
        portal.start_server(namespaces);
        let ctx = portal.runtime.block_on(open(&portal.data()));
        portal.cookie = portal.runtime.block_on(administrator(&ctx, tenant));
        portal.ctx = Some(ctx);
        portal
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = command("ringfence");
        command
            .env("RINGFENCE__HTTP__LISTEN", format!("{PORTAL}:{PAGES}"))
            .env("RINGFENCE__HTTP__PUBLIC_URL", origin())
            .env("RINGFENCE__AGENTS__LISTEN", format!("{PORTAL}:{AGENTS}"))
            .env("RINGFENCE__DATABASE__DATA_DIR", self.data())
            .current_dir(self.folder.path());
        command
    }

    /// Starts the server, and waits until it answers.
    pub fn start_server(&mut self, namespaces: &Namespaces) {
        let mut command = self.command();
        command.arg("serve");
        let log = self.folder.path().join("server.log");
        let mut server = namespaces.on_portal(|| Program::start(command, &log));
        eventually("the server answers", 60, || {
            assert!(server.ended().is_none(), "the server has ended");
            self.call(namespaces, Operation::Me, &json!({})).is_some()
        });
        self.server = Some(server);
    }

    /// `kill -9` of the server. Its PostgreSQL goes on.
    pub fn kill_server(&mut self) {
        self.server.take().unwrap().kill();
    }

    /// `kill -9` of PostgreSQL, all its processes at once. The server starts it again.
    pub fn kill_postgres(&self) {
        kill_process_group(self.postgres().unwrap(), Signal::KILL).unwrap();
    }

    /// The process that leads PostgreSQL's group.
    fn postgres(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postgres/data/postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.parse().ok()?)
    }

    /// Calls the server as the administrator's browser does.
    pub fn call(&self, namespaces: &Namespaces, operation: Operation, body: &Value) -> Answer {
        let body = body.to_string();
        let request = format!(
            "POST /api/{} HTTP/1.1\r\nHost: {PORTAL}:{PAGES}\r\nOrigin: {}\r\nCookie: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            operation.path(),
            origin(),
            self.cookie,
            body.len()
        );
        namespaces.on_portal(|| ask(&request))
    }

    /// A call that must succeed.
    pub fn done<T: DeserializeOwned>(&self, namespaces: &Namespaces, operation: Operation, body: &Value) -> T {
        let answer = self.call(namespaces, operation, body);
        let Some((200, text)) = &answer else { panic!("{} {body}: {answer:?}", operation.path()) };
        serde_json::from_str(text).unwrap()
    }

    /// Adds a PBX; the token with which its agent enrols.
    pub fn token(&self, namespaces: &Namespaces, name: &str) -> String {
        let added: EnrolmentCommand = self.done(namespaces, Operation::AddPbx, &json!({ "name": name }));
        added.command.split_whitespace().last().unwrap().to_owned()
    }

    /// Blocks an address; whether the portal said that it is done.
    pub fn try_block(&self, namespaces: &Namespaces, net: &str, seconds: u32) -> bool {
        let form = json!({ "net": net, "duration": seconds.to_string(), "reason": "drill" });
        let answer = self.call(namespaces, Operation::BlockIp, &json!({ "form": form, "insist": true }));
        answer.is_some_and(|(status, _)| status == 200)
    }

    /// Blocks an address.
    pub fn block(&self, namespaces: &Namespaces, net: &str, seconds: u32) {
        assert!(self.try_block(namespaces, net, seconds), "blocking {net}");
    }

    /// Allows a network; the id of the entry.
    pub fn allow(&self, namespaces: &Namespaces, net: &str) -> Value {
        let form = json!({ "target": net, "note": "", "expires_at": "" });
        let added: Value = self.done(namespaces, Operation::AddAllowedIp, &json!({ "form": form, "insist": true }));
        added["id"].clone()
    }

    /// Takes an allowed network away.
    pub fn disallow(&self, namespaces: &Namespaces, id: &Value) {
        let body = json!({ "ids": [id], "insist": true });
        let _: Value = self.done(namespaces, Operation::DeleteAllowedIps, &body);
    }

    /// Revokes a PBX.
    pub fn revoke(&self, namespaces: &Namespaces, id: PbxId) {
        let _: Value = self.done(namespaces, Operation::RevokePbx, &json!({ "id": id }));
    }

    /// The first PBX as the page shows it.
    pub fn pbx(&self, namespaces: &Namespaces) -> Pbx {
        let pbxes: Vec<Pbx> = self.done(namespaces, Operation::ListPbxes, &json!({}));
        pbxes.into_iter().next().unwrap()
    }

    /// Waits until the page says that the first PBX enforces all that is wanted.
    pub fn until_enforced(&self, namespaces: &Namespaces) {
        until("all that is wanted is enforced", 90, || {
            let answer = self.call(namespaces, Operation::ListPbxes, &json!({}));
            let Some((200, text)) = &answer else { return Err(format!("{answer:?}")) };
            let pbx = serde_json::from_str::<Vec<Pbx>>(text).unwrap().remove(0);
            let revisions = pbx.applied_revision == pbx.wanted_revision;
            if revisions && pbx.applied_ban_seq == pbx.wanted_ban_seq && pbx.state == policy::pbxes::PbxState::Online {
                Ok(())
            } else {
                Err(format!("{pbx:?}"))
            }
        });
    }

    /// How often a network was banned, ever.
    pub fn times_banned(&self, net: IpNet) -> i64 {
        self.read(async |tx| store::blocked_ips::times_banned(tx, &[net]).await.unwrap())
            .get(&net)
            .copied()
            .unwrap_or(0)
    }

    /// The bans that hold.
    pub fn bans(&self) -> Vec<BanEntry> {
        self.read(async |tx| store::blocked_ips::entries(tx).await.unwrap())
    }

    /// The tenant's audit log.
    pub fn audit(&self) -> Vec<AuditRow> {
        self.read(async |tx| store::audit::chain(tx, 0, 10_000).await.unwrap())
    }

    /// Nothing was banned twice.
    pub fn assert_no_ban_twice(&self) {
        let mut times = BTreeMap::<IpNet, usize>::new();
        self.bans().iter().for_each(|ban| *times.entry(ban.net).or_default() += 1);
        for net in times.keys() {
            assert_eq!((times[net], self.times_banned(*net)), (1, 1), "{net}");
        }
    }

    /// `ringfence audit verify` finds nothing wrong.
    pub fn assert_audit_is_whole(&self) {
        let mut verify = self.command();
        verify.args(["audit", "verify"]);
        let said = succeed(verify);
        assert!(said.lines().any(|line| line.contains(&self.tenant.to_string()) && line.contains("whole")), "{said}");
    }

    fn read<T>(&self, work: impl AsyncFnOnce(&mut store::TenantTx) -> T) -> T {
        self.runtime.block_on(async {
            let mut tx = self.ctx.as_ref().unwrap().store().tenant(self.tenant).await.unwrap();
            let read = work(&mut tx).await;
            tx.commit().await.unwrap();
            read
        })
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.server = None;
        // Whose server was killed runs on. Nothing in it is wanted any more.
        if let Some(postgres) = self.postgres() {
            let _ = kill_process_group(postgres, Signal::KILL);
        }
    }
}

fn origin() -> String {
    format!("http://{PORTAL}:{PAGES}")
}

/// One request, from the portal's own machine.
fn ask(request: &str) -> Answer {
    let address = SocketAddr::new(PORTAL.parse().ok()?, PAGES);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    // A server that is killed while it answers has answered nothing.
    length.is_none_or(|length| length == body.len()).then(|| (status, body.to_owned()))
}

async fn open(data: &Path) -> Ctx {
    let url = |role: &str| format!("postgres://{role}@localhost/ringfence?host={}/postgres/socket", data.display());
    let store = Store::connect(&url("ringfence_app"), &url("ringfence_system"), 3).await.unwrap();
    let settings =
        Settings { public_url: origin(), agent_address: format!("{PORTAL}:{AGENTS}"), development_mailbox: false };
    let key = HEXLOWER.decode(fs::read(data.join("master.key")).unwrap().trim_ascii()).unwrap();
    let key = MasterKey::new(&Zeroizing::new(key)).unwrap();
    Ctx::start(store, settings, key, Arc::new(SystemClock)).await.unwrap()
}

/// Makes a tenant; the cookie of somebody who may do everything there.
async fn administrator(ctx: &Ctx, tenant: TenantId) -> String {
    let user = UserId(Uuid::now_v7());
    let mut tx = ctx.store().tenant(tenant).await.unwrap();
    store::tenants::insert(&mut tx, "Drill", "drill", ctx.now()).await.unwrap();
    store::people::insert(&mut tx, user, "admin@drill.test", "-", ctx.now()).await.unwrap();
    store::members::insert(&mut tx, user, Role::SuperAdministrator, "", ctx.now()).await.unwrap();
    tx.commit().await.unwrap();
    let login = Login::complete(user, Some(tenant), ctx.now());
    let mut session = Record { id: Id::default(), data: std::collections::HashMap::new(), expiry_date: ctx.now() };
    session.data.insert(app::context::LOGIN.to_owned(), serde_json::to_value(&login).unwrap());
    session.data.insert(app::context::BEGAN.to_owned(), json!(ctx.now().unix_timestamp()));
    Sessions::new(ctx.clone()).create(&mut session).await.unwrap();
    format!("ringfence={}", session.id)
}

//! An installation with its clock, tenants with their people, agents with certificates.

use std::net::IpAddr;
use std::sync::Arc;

use actions::bus::Bus;
use actions::clock::TestClock;
use actions::seal::MasterKey;
use actions::{ActError, Caller, Ctx, Login, Settings, Visitor};
use policy::account::SignUpForm;
use policy::allowed_ips::{Added, AllowedIpForm};
use policy::audit::{AuditFilter, AuditRow, Outcome};
use policy::authz::Role;
use policy::blocked_ips::{BlockedIpFilter, BlockedIpForm};
use policy::ids::{BanId, PbxId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use store::testing::TestDb;
use time::Duration;
use time::macros::datetime;
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

pub(crate) const PASSWORD: &str = "violet tractor hums softly";

/// An installation.
pub(crate) struct Portal {
    pub ctx: Ctx,
    pub db: TestDb,
    clock: Arc<TestClock>,
}

impl Portal {
    pub(crate) async fn new() -> Self {
        Self::on(Bus::new().0).await
    }

    /// One with this bus.
    pub(crate) async fn on(bus: Bus) -> Self {
        let db = TestDb::new().await;
        let clock = Arc::new(TestClock::new(datetime!(2030-01-01 12:00 UTC)));
        let settings = Settings {
            public_url: "https://portal.example".to_owned(),
            agent_address: "portal.example:3443".to_owned(),
            development_mailbox: true,
        };
        let key = MasterKey::new(&Zeroizing::new(vec![7; 32])).unwrap();
        let ctx = Ctx::start_on(bus, db.store.clone(), settings, key, clock.clone()).await.unwrap();
        Self { ctx, db, clock }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A connection as the cluster's administrator, for what only an attacker in the database could do.
    pub(crate) async fn admin(&self) -> PgConnection {
        self.db.admin_url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
    }

    /// The token of the newest mail to somebody.
    pub(crate) async fn mailed_token(&self, to: &str) -> String {
        self.mailed(to, "?token=").await.unwrap()
    }

    /// What follows these words in the newest mail to somebody that has them.
    pub(crate) async fn mailed(&self, to: &str, words: &str) -> Option<String> {
        let mails = store::mails::newest(self.ctx.store(), 50).await.unwrap();
        let mail = mails.into_iter().find(|mail| mail.recipient == to && mail.body.contains(words))?;
        mail.body.split(words).nth(1)?.split_whitespace().next().map(str::to_owned)
    }

    /// Signs somebody up and verifies; the second factor is still to come.
    pub(crate) async fn sign_up(&self, slug: &str) -> Login {
        let form = form(slug);
        actions::sign_up::request(&self.ctx, &visitor(None), form.clone()).await.unwrap();
        let token = self.mailed_token(&form.email).await;
        actions::sign_up::verify(&self.ctx, &visitor(None), &token, PASSWORD).await.unwrap()
    }

    /// Signs somebody up and sets up TOTP.
    pub(crate) async fn person(&self, slug: &str) -> Person {
        let login = self.sign_up(slug).await;
        Person::set_up(self, &form(slug).email, login).await
    }

    /// The Super administrator of a new tenant.
    pub(crate) async fn tenant(&self, slug: &str) -> Caller {
        let person = self.person(slug).await;
        actions::caller::caller(&self.ctx, &visitor(Some(person.login))).await.unwrap()
    }

    pub(crate) async fn allow(&self, caller: &Caller, target: &str) -> Result<Added, ActError> {
        let form = AllowedIpForm { target: target.to_owned(), note: "Office".to_owned(), expires_at: String::new() };
        actions::allowed_ips::add(&self.ctx, caller, form, false).await
    }

    pub(crate) async fn block(&self, caller: &Caller, net: &str) -> Result<BanId, ActError> {
        let form = BlockedIpForm { net: net.to_owned(), duration: "3600".to_owned(), reason: "scans".to_owned() };
        actions::blocked_ips::block(&self.ctx, caller, form, false).await.map(|blocked| blocked.id)
    }

    /// Puts bans into the database, each a second older than the one before, far faster than the portal would make them.
    pub(crate) async fn fill_with_bans(&self, caller: &Caller, count: i32) {
        sqlx::query(
            "INSERT INTO blocked_ips (tenant_id, id, net, source, reason, times_banned, created_at, expires_at)
             SELECT $1, gen_random_uuid(), ('11.' || (n >> 16) || '.' || ((n >> 8) & 255) || '.' || (n & 255))::cidr,
                    'manual', 'scans', 1, timestamptz '2030-01-01' - make_interval(secs => n), '2030-02-01'
             FROM generate_series(1, $2) AS n",
        )
        .bind(caller.tenant_id.0)
        .bind(count)
        .execute(&mut self.admin().await)
        .await
        .unwrap();
    }

    /// What is blocked, sorted.
    pub(crate) async fn blocked(&self, caller: &Caller) -> Vec<String> {
        let page = actions::blocked_ips::list(&self.ctx, caller, BlockedIpFilter::default(), None).await.unwrap();
        let mut nets: Vec<String> = page.rows.iter().map(|ban| policy::net::display(&ban.net)).collect();
        nets.sort_unstable();
        nets
    }

    /// What is allowed, newest first.
    pub(crate) async fn allowed(&self, caller: &Caller) -> Vec<String> {
        let page = actions::allowed_ips::list(&self.ctx, caller, String::new(), None).await.unwrap();
        page.rows.iter().map(|entry| entry.target.to_string()).collect()
    }

    pub(crate) async fn last_audit(&self, caller: &Caller) -> AuditRow {
        let reader = Caller { role: Role::Auditor, ..caller.clone() };
        actions::audit::list(&self.ctx, &reader, AuditFilter::default(), None).await.unwrap().rows.remove(0)
    }

    /// Asserts what the newest row of the tenant's log says.
    pub(crate) async fn assert_audited(&self, caller: &Caller, action: &str, outcome: Outcome) -> AuditRow {
        let row = self.last_audit(caller).await;
        assert_eq!((row.action.as_str(), row.outcome), (action, outcome), "{row:?}");
        row
    }

    /// How many rows the tenant's log has.
    pub(crate) async fn audit_rows(&self, caller: &Caller) -> i64 {
        let reader = Caller { role: Role::Auditor, ..caller.clone() };
        actions::audit::list(&self.ctx, &reader, AuditFilter::default(), None).await.unwrap().total
    }

    /// An enrolled agent of a new PBX.
    pub(crate) async fn agent(&self, caller: &Caller, name: &str) -> actions::agents::Agent {
        let (_, der) = self.enrolled(caller, name).await;
        actions::agents::identify(&self.ctx, &der).await.unwrap()
    }

    /// A new PBX and the certificate of its agent.
    pub(crate) async fn enrolled(&self, caller: &Caller, name: &str) -> (PbxId, Vec<u8>) {
        let command = actions::pbxes::add(&self.ctx, caller, name.to_owned()).await.unwrap();
        let enrolled = self.enrol(&token(&command.command)).await.unwrap();
        (command.pbx_id, der(&enrolled.certificate_pem))
    }

    pub(crate) async fn enrol(&self, token: &str) -> Result<actions::agents::Enrolled, ActError> {
        let request = actions::agents::EnrolRequest {
            token: token.to_owned(),
            csr_pem: csr(),
            agent_version: "0.1.0".to_owned(),
            hostname: "hq.example".to_owned(),
        };
        actions::agents::enrol(&self.ctx, address("192.0.2.77"), request).await
    }
}

/// Somebody with a second factor.
pub(crate) struct Person {
    pub email: String,
    /// TOTP key, base32.
    key: String,
    pub login: Login,
    pub recovery_codes: Vec<String>,
}

impl Person {
    /// Sets up the second factor of somebody new.
    pub(crate) async fn set_up(portal: &Portal, email: &str, login: Login) -> Self {
        let (login, setup) = actions::totp::begin(&portal.ctx, &visitor(Some(login))).await.unwrap();
        let key = setup.key.replace(' ', "");
        let mut person = Self { email: email.to_owned(), key, login, recovery_codes: Vec::new() };
        let code = person.code(portal);
        let confirmed = actions::totp::confirm(&portal.ctx, &visitor(Some(person.login.clone())), &code).await;
        (person.login, person.recovery_codes) = confirmed.unwrap();
        person
    }

    /// The code of this moment.
    pub(crate) fn code(&self, portal: &Portal) -> String {
        self.code_at(portal.ctx.now().unix_timestamp())
    }

    pub(crate) fn code_at(&self, at: i64) -> String {
        code_at(&self.key, at)
    }
}

/// What an authenticator app shows for a key at an instant, in seconds since 1970.
pub(crate) fn code_at(key: &str, at: i64) -> String {
    let secret = Secret::try_from_base32(key.replace(' ', "")).unwrap();
    Builder::new().with_secret(secret).build().unwrap().generate(at.unsigned_abs()).to_string()
}

pub(crate) fn form(slug: &str) -> SignUpForm {
    SignUpForm {
        organisation: format!("{slug} telecom"),
        slug: slug.to_owned(),
        email: format!("ann@{slug}.example"),
        password: PASSWORD.to_owned(),
    }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Somebody at 203.0.113.50, in the documentation's range.
pub(crate) fn visitor(login: Option<Login>) -> Visitor {
    Visitor { address: address("203.0.113.50"), login }
}

/// The token of an enrolment command.
pub(crate) fn token(command: &str) -> String {
    command.rsplit(' ').next().unwrap().to_owned()
}

/// A certificate request as an agent makes it.
pub(crate) fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

/// The sentence of an error about one field.
pub(crate) fn field_error<T: std::fmt::Debug>(result: Result<T, ActError>, field: &str) -> String {
    let error = result.unwrap_err();
    let ActError::Invalid(errors) = &error else { panic!("{error:?}") };
    assert!(errors.len() == 1 && errors[0].field == field, "{errors:?}");
    errors[0].message.clone()
}

//! The pages' view of sessions: whose they are, which are whose business, and that one that is ended is over everywhere.

use http::StatusCode;
use policy::authz::{Operation, Role};
use policy::ids::TenantId;
use policy::sessions::Session;
use serde_json::json;

use crate::support::{Person, TestServer};

impl TestServer {
    async fn sessions(&self, person: &Person, operation: Operation) -> Vec<Session> {
        self.done(person, operation, json!({})).await
    }

    /// One more session of a person.
    async fn again(&self, person: &Person, tenant: TenantId) -> Person {
        let login = actions::Login::complete(person.user_id, Some(tenant), self.ctx.now());
        let (cookie, session) = self.session(&login).await;
        Person { cookie, session, ..person.clone() }
    }

    async fn is_in(&self, person: &Person) -> bool {
        self.call(person, Operation::ListPbxes, &json!({})).await.status == StatusCode::OK
    }
}

#[tokio::test]
async fn own_sessions_are_listed_and_ended_in_whichever_tenant() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    let ann = server.person(one, Role::Auditor).await;
    let mut tx = server.ctx.store().tenant(two).await.unwrap();
    store::members::insert(&mut tx, ann.user_id, Role::Auditor, "", server.ctx.now()).await.unwrap();
    tx.commit().await.unwrap();
    let (elsewhere, third) = (server.again(&ann, two).await, server.again(&ann, one).await);
    let other = server.person(one, Role::SuperAdministrator).await;
    let listed = server.sessions(&ann, Operation::ListOwnSessions).await;
    assert_eq!(listed.len(), 3);
    let this: Vec<_> = listed.iter().filter(|session| session.is_this).map(|session| session.origin.id).collect();
    assert_eq!(this, [ann.session]);

    let foreign = server.call(&ann, Operation::EndOwnSession, &json!({ "id": other.session })).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let _: () = server.done(&ann, Operation::EndOwnSession, json!({ "id": elsewhere.session })).await;
    assert!(!server.is_in(&elsewhere).await && server.is_in(&third).await && server.is_in(&ann).await);
    let ended: u64 = server.done(&ann, Operation::EndOtherSessions, json!({})).await;
    assert_eq!(ended, 1);
    assert!(!server.is_in(&third).await && server.is_in(&ann).await && server.is_in(&other).await);
}

#[tokio::test]
async fn a_tenant_sees_and_ends_the_sessions_in_it_and_no_others() {
    let server = TestServer::start().await;
    let (one, two) = (server.tenant("one").await, server.tenant("two").await);
    let owner = server.person(one, Role::SuperAdministrator).await;
    let admin = server.person(one, Role::Administrator).await;
    let auditor = server.person(one, Role::Auditor).await;
    let mut tx = server.ctx.store().tenant(two).await.unwrap();
    store::members::insert(&mut tx, auditor.user_id, Role::Auditor, "", server.ctx.now()).await.unwrap();
    tx.commit().await.unwrap();
    let elsewhere = server.again(&auditor, two).await;
    let seen = server.sessions(&auditor, Operation::ListSessions).await;
    assert_eq!(seen.len(), 3, "all may see, but only what is here");
    let end = |session| json!({ "id": session });
    let refused = server.call(&admin, Operation::EndSession, &end(owner.session)).await;
    assert_eq!(refused.code(), "refused");
    assert_eq!(server.call(&admin, Operation::EndSession, &end(elsewhere.session)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.call(&auditor, Operation::EndSession, &end(admin.session)).await.code(), "forbidden");
    let _: () = server.done(&admin, Operation::EndSession, end(auditor.session)).await;
    assert!(!server.is_in(&auditor).await && server.is_in(&elsewhere).await && server.is_in(&owner).await);
}

#[tokio::test]
async fn when_it_was_last_used_is_noted_to_the_minute() {
    let server = TestServer::start().await;
    let tenant = server.tenant("seen").await;
    let ann = server.person(tenant, Role::Auditor).await;
    let began = server.ctx.now();
    for minutes in [0, 20, 5] {
        server.clock.advance(time::Duration::minutes(minutes));
        let listed = server.sessions(&ann, Operation::ListOwnSessions).await;
        assert!((server.ctx.now() - listed[0].seen_at) < time::Duration::MINUTE, "{listed:?}");
        assert!((listed[0].began_at - began).abs() < time::Duration::SECOND);
    }
}

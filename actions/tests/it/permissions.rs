//! What a role doesn't allow is refused and written down, whoever asks for it.

use actions::{ActError, Caller, allowed_ips, blocked_ips, pbxes, people, sessions};
use policy::allowed_ips::AllowedIpForm;
use policy::audit::Outcome;
use policy::authz::Role;
use policy::blocked_ips::{BlockedIpFilter, BlockedIpForm};
use policy::ids::{AllowedIpId, BanId, InvitationId, PbxId, SessionId, UserId};
use uuid::Uuid;

use crate::portal::{Portal, visitor};

async fn attempt(portal: &Portal, caller: &Caller, operation: &str) -> ActError {
    attempt_any(portal, caller, operation).await.unwrap_err()
}

/// Every change that people can ask for, with ids that are nobody's.
async fn attempt_any(portal: &Portal, caller: &Caller, operation: &str) -> Result<(), ActError> {
    let ctx = &portal.ctx;
    let id = Uuid::from_u128(1);
    let allow = AllowedIpForm { target: "192.0.2.1".to_owned(), ..AllowedIpForm::default() };
    let block = BlockedIpForm { net: "192.0.2.1".to_owned(), duration: "60".to_owned(), reason: String::new() };
    match operation {
        "pbxes/add" => pbxes::add(ctx, caller, "hq".to_owned()).await.map(drop),
        "pbxes/renew_enrolment" => pbxes::renew_enrolment(ctx, caller, PbxId(id)).await.map(drop),
        "pbxes/rename" => pbxes::rename(ctx, caller, PbxId(id), "x".to_owned()).await,
        "pbxes/revoke" => pbxes::revoke(ctx, caller, PbxId(id)).await,
        "pbxes/remove" => pbxes::remove(ctx, caller, PbxId(id)).await,
        "pbxes/set_phone_loss_limit" => pbxes::set_phone_loss_limit(ctx, caller, "35".to_owned()).await.map(drop),
        "sessions/end" => sessions::end(ctx, caller, SessionId(id)).await,
        "people/invite" => people::invite(ctx, caller, "x@people.example", "auditor").await,
        "people/resend_invitation" => people::resend_invitation(ctx, caller, InvitationId(id)).await,
        "people/withdraw_invitation" => people::withdraw_invitation(ctx, caller, InvitationId(id)).await,
        "people/change_role" => people::change_role(ctx, caller, UserId(id), "auditor").await,
        "people/suspend" => people::suspend(ctx, caller, UserId(id)).await,
        "people/reinstate" => people::reinstate(ctx, caller, UserId(id)).await,
        "people/remove" => people::remove(ctx, caller, UserId(id)).await,
        "people/transfer_ownership" => people::transfer_ownership(ctx, caller, UserId(id)).await,
        "allowed_ips/add" => allowed_ips::add(ctx, caller, allow, true).await.map(drop),
        "allowed_ips/edit" => allowed_ips::edit(ctx, caller, AllowedIpId(id), allow, true).await.map(drop),
        "allowed_ips/delete" => allowed_ips::delete(ctx, caller, vec![AllowedIpId(id)], false).await.map(drop),
        "allowed_ips/allow_my_address" => allowed_ips::allow_my_address(ctx, caller).await.map(drop),
        "allowed_ips/import" => allowed_ips::import(ctx, caller, "192.0.2.1".to_owned()).await.map(drop),
        "blocked_ips/block" => blocked_ips::block(ctx, caller, block, true).await.map(drop),
        "blocked_ips/unblock" => blocked_ips::unblock(ctx, caller, vec![BanId(id)]).await.map(drop),
        "blocked_ips/unblock_matching" => {
            blocked_ips::unblock_matching(ctx, caller, BlockedIpFilter::default()).await.map(drop)
        }
        "blocked_ips/unblock_and_allow" => {
            blocked_ips::unblock_and_allow(ctx, caller, vec![BanId(id)], String::new()).await.map(drop)
        }
        other => panic!("{other} is not tried: add it"),
    }
}

#[tokio::test]
async fn an_auditor_changes_nothing_and_every_attempt_is_written_down() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    for role in Role::ALL {
        let caller = Caller { role, ..owner.clone() };
        for operation in policy::authz::Operation::ALL {
            let person_changes = matches!(operation.need(), policy::authz::Need::Permission(_)) && operation.changes();
            if !person_changes || operation.allowed_for(role) {
                continue;
            }
            let error = attempt(&portal, &caller, operation.path()).await;
            assert!(matches!(error, ActError::Forbidden), "{role:?} {operation:?}: {error:?}");
            portal.assert_audited(&owner, operation.path(), Outcome::Refused).await;
        }
    }
    assert!(portal.allowed(&owner).await.is_empty() && portal.blocked(&owner).await.is_empty());
    assert!(pbxes::list(&portal.ctx, &owner).await.unwrap().is_empty());
    assert_eq!(actions::audit::verify(&portal.ctx, &owner).await.unwrap().broken, None);
}

/// Whoever has found a browser open changes nothing of who has access, nor of what protects.
#[tokio::test]
async fn what_is_dangerous_asks_for_a_fresh_second_factor_and_nothing_else_does() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    portal.advance(time::Duration::minutes(9));
    for (operation, stale) in
        policy::authz::Operation::ALL.iter().flat_map(|operation| [(operation, false), (operation, true)])
    {
        if !matches!(operation.need(), policy::authz::Need::Permission(_)) || !operation.changes() {
            continue;
        }
        let long_ago = portal.ctx.now() - time::Duration::minutes(10);
        for proven_at in if stale { vec![Some(long_ago), None] } else { vec![owner.proven_at] } {
            let caller = Caller { proven_at, ..owner.clone() };
            let refused = attempt_any(&portal, &caller, operation.path()).await;
            let asked = matches!(refused, Err(ActError::StepUpNeeded));
            assert_eq!(asked, stale && operation.needs_fresh_factor(), "{operation:?}: {refused:?}");
            if asked {
                let row = portal.assert_audited(&owner, operation.path(), Outcome::Refused).await;
                assert!(row.details.contains("second factor"), "{}", row.details);
            }
        }
    }
    // What stops an attack waits for nothing.
    let stale = Caller { proven_at: None, ..owner.clone() };
    portal.block(&stale, "203.0.113.9").await.unwrap();
    portal.allow(&stale, "198.51.100.1").await.unwrap();
    let wide = AllowedIpForm { target: "10.0.0.0/8".to_owned(), ..AllowedIpForm::default() };
    let refused = allowed_ips::add(&portal.ctx, &stale, wide.clone(), true).await;
    assert!(matches!(refused, Err(ActError::StepUpNeeded)), "half the world: {refused:?}");
    allowed_ips::add(&portal.ctx, &owner, wide, true).await.unwrap();
    let auditor = Caller { role: Role::Auditor, ..stale };
    let refused = attempt(&portal, &auditor, "people/invite").await;
    assert!(matches!(refused, ActError::Forbidden), "who may not isn't asked for anything: {refused:?}");
}

/// A role is looked up for every request: one that was taken away is gone for sessions that are open, too.
#[tokio::test]
async fn a_role_that_was_taken_away_is_gone_at_once() {
    let portal = Portal::new().await;
    let person = portal.person("acme").await;
    let signed_in = visitor(Some(person.login.clone()));
    let caller = async || actions::caller::caller(&portal.ctx, &signed_in).await;
    portal.allow(&caller().await.unwrap(), "203.0.113.1").await.unwrap();
    let mut database = portal.admin().await;
    let mut change = async |sql: &'static str| {
        sqlx::query(sql).bind(person.login.user_id.0).execute(&mut database).await.unwrap();
    };
    change("UPDATE memberships SET role = 'auditor' WHERE user_id = $1").await;
    let refused = portal.allow(&caller().await.unwrap(), "203.0.113.2").await;
    assert!(matches!(refused, Err(ActError::Forbidden)), "{refused:?}");
    change("DELETE FROM memberships WHERE user_id = $1").await;
    assert!(matches!(caller().await, Err(ActError::SignedOut)));
}

/// The ids of another tenant are as those that never were.
#[tokio::test]
async fn another_tenants_ids_are_not_there() {
    let portal = Portal::new().await;
    let (ours, theirs) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    let allowed = portal.allow(&theirs, "203.0.113.0/24").await.unwrap().id;
    let ban = portal.block(&theirs, "198.51.100.7").await.unwrap();
    let (pbx, _) = portal.enrolled(&theirs, "hq").await;
    let ctx = &portal.ctx;
    let form = AllowedIpForm { target: "192.0.2.1".to_owned(), ..AllowedIpForm::default() };
    let results = [
        ("allowed_ips/edit", allowed_ips::edit(ctx, &ours, allowed, form, true).await.map(drop)),
        ("allowed_ips/delete", allowed_ips::delete(ctx, &ours, vec![allowed], false).await.map(drop)),
        ("blocked_ips/show", blocked_ips::show(ctx, &ours, ban).await.map(drop)),
        ("blocked_ips/unblock", blocked_ips::unblock(ctx, &ours, vec![ban]).await.map(drop)),
        (
            "blocked_ips/unblock_and_allow",
            blocked_ips::unblock_and_allow(ctx, &ours, vec![ban], String::new()).await.map(drop),
        ),
        ("pbxes/rename", pbxes::rename(ctx, &ours, pbx, "stolen".to_owned()).await),
        ("pbxes/renew_enrolment", pbxes::renew_enrolment(ctx, &ours, pbx).await.map(drop)),
        ("pbxes/revoke", pbxes::revoke(ctx, &ours, pbx).await),
        ("pbxes/remove", pbxes::remove(ctx, &ours, pbx).await),
    ];
    for (what, result) in results {
        assert!(matches!(result, Err(ActError::NotFound)), "{what}: {result:?}");
    }
    let filter = BlockedIpFilter { pbx_id: Some(pbx), ..BlockedIpFilter::default() };
    assert_eq!(blocked_ips::unblock_matching(ctx, &ours, filter).await.unwrap(), 0);
    assert_eq!((portal.allowed(&theirs).await.len(), portal.blocked(&theirs).await.len()), (1, 1));
    assert!(!blocked_ips::export(ctx, &ours, BlockedIpFilter::default()).await.unwrap().contains("198.51.100.7"));
    assert!(!allowed_ips::export(ctx, &ours).await.unwrap().contains("203.0.113"));
}

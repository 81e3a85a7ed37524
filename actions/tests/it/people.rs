//! Who has access: invitations, roles, suspending, removing, and that somebody is always left who may do everything.

use actions::{ActError, Caller, Login, Visitor, invitations, people};
use policy::account::Stage;
use policy::audit::Outcome;
use policy::authz::Role;
use policy::ids::UserId;
use policy::people::People;
use time::Duration;

use crate::portal::{PASSWORD, Person, Portal, visitor};

const NEW: &str = "new@people.example";

impl Portal {
    async fn people(&self, caller: &Caller) -> People {
        people::list(&self.ctx, caller).await.unwrap()
    }

    /// Invites somebody; the token of the mail.
    async fn invited(&self, caller: &Caller, email: &str, role: Role) -> String {
        people::invite(&self.ctx, caller, email, role.as_str()).await.unwrap();
        self.mailed_token(email).await
    }

    /// Somebody new with a role in the tenant of a caller, as she calls.
    async fn colleague(&self, caller: &Caller, email: &str, role: Role) -> (Caller, Login) {
        let token = self.invited(caller, email, role).await;
        let login = invitations::accept(&self.ctx, &visitor(None), &token, PASSWORD).await.unwrap();
        let person = Person::set_up(self, email, login).await;
        (self.caller(&person.login).await.unwrap(), person.login)
    }

    async fn caller(&self, login: &Login) -> Result<Caller, ActError> {
        actions::caller::caller(&self.ctx, &visitor(Some(login.clone()))).await
    }
}

fn refused<T>(result: Result<T, ActError>) -> String {
    match result {
        Err(error @ (ActError::Refused(_) | ActError::Invalid(_))) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

#[tokio::test]
async fn somebody_new_is_invited_and_comes() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let token = portal.invited(&owner, NEW, Role::SecurityOperator).await;
    let row = portal.assert_audited(&owner, "people/invite", Outcome::Done).await;
    assert_eq!(row.subject, NEW);
    assert!(!row.details.contains(&token));
    let offer = invitations::show(&portal.ctx, &visitor(None), &token).await.unwrap();
    assert_eq!((offer.email.as_str(), offer.role, offer.has_account), (NEW, Role::SecurityOperator, false));
    refused(invitations::accept(&portal.ctx, &visitor(None), &token, "password1234").await);

    let login = invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await.unwrap();
    assert_eq!((login.stage, login.tenant_id), (Stage::NeedsTotpSetup, None), "nothing opens without a second factor");
    portal.assert_audited(&owner, "account/accept_invitation", Outcome::Done).await;
    let people = portal.people(&owner).await;
    assert!(people.invitations.is_empty());
    let new = people.people.iter().find(|person| person.email == NEW).unwrap();
    assert_eq!((new.role, new.second_factor, new.last_used_at), (Role::SecurityOperator, false, None));
    assert_eq!(new.invited_by, owner.email);

    let person = Person::set_up(&portal, NEW, login).await;
    let caller = portal.caller(&person.login).await.unwrap();
    assert_eq!((caller.role, caller.tenant_id), (Role::SecurityOperator, owner.tenant_id));
    let people = portal.people(&owner).await;
    assert!(people.people.iter().all(|person| person.second_factor && person.last_used_at.is_some()));
    refused(invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await);
    refused(people::invite(&portal.ctx, &owner, NEW, "auditor").await);
}

#[tokio::test]
async fn links_end() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let first = portal.invited(&owner, NEW, Role::Auditor).await;
    refused(people::invite(&portal.ctx, &owner, NEW, "auditor").await);
    let id = portal.people(&owner).await.invitations[0].id;
    people::resend_invitation(&portal.ctx, &owner, id).await.unwrap();
    let second = portal.mailed_token(NEW).await;
    refused(invitations::accept(&portal.ctx, &visitor(None), &first, PASSWORD).await);
    invitations::show(&portal.ctx, &visitor(None), &second).await.unwrap();
    portal.advance(Duration::days(7) + Duration::SECOND);
    let owner = actions::Caller { proven_at: Some(portal.ctx.now()), ..owner };
    refused(invitations::show(&portal.ctx, &visitor(None), &second).await);
    refused(invitations::accept(&portal.ctx, &visitor(None), &second, PASSWORD).await);
    people::resend_invitation(&portal.ctx, &owner, id).await.unwrap();
    let third = portal.mailed_token(NEW).await;
    people::withdraw_invitation(&portal.ctx, &owner, id).await.unwrap();
    refused(invitations::accept(&portal.ctx, &visitor(None), &third, PASSWORD).await);
    assert!(matches!(people::resend_invitation(&portal.ctx, &owner, id).await, Err(ActError::NotFound)));
    for nonsense in ["", ".", "x.y", &format!("{}.", owner.tenant_id), &third[..third.len() - 1]] {
        refused(invitations::show(&portal.ctx, &visitor(None), nonsense).await);
    }
}

#[tokio::test]
async fn who_has_an_account_joins_with_it_and_nobody_else_does() {
    let portal = Portal::new().await;
    let (owner, other) = (portal.tenant("acme").await, portal.person("other").await);
    let stranger = portal.person("stranger").await;
    let token = portal.invited(&owner, &other.email, Role::Auditor).await;
    let as_visitor = |person: &Person| -> Visitor { visitor(Some(person.login.clone())) };
    let offer = invitations::show(&portal.ctx, &as_visitor(&other), &token).await.unwrap();
    assert_eq!((offer.has_account, offer.signed_in_as.as_deref()), (true, Some(other.email.as_str())));
    refused(invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await);
    let foreign = invitations::join(&portal.ctx, &as_visitor(&stranger), &token).await;
    assert!(refused(foreign).contains(&other.email));
    assert!(matches!(invitations::join(&portal.ctx, &visitor(None), &token).await, Err(ActError::SignedOut)));

    let login = invitations::join(&portal.ctx, &as_visitor(&other), &token).await.unwrap();
    assert_eq!(portal.caller(&login).await.unwrap().role, Role::Auditor);
    assert_eq!(
        portal.caller(&other.login).await.unwrap().role,
        Role::SuperAdministrator,
        "in her own tenant as before"
    );
    refused(invitations::join(&portal.ctx, &as_visitor(&other), &token).await);
}

#[tokio::test]
async fn nobody_reaches_above_herself() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let (admin, _) = portal.colleague(&owner, "admin@people.example", Role::Administrator).await;
    let (auditor, _) = portal.colleague(&owner, "auditor@people.example", Role::Auditor).await;
    let ctx = &portal.ctx;
    let all = portal.people(&admin).await.people;
    assert_eq!(all.len(), 3);
    refused(people::invite(ctx, &admin, NEW, "super_administrator").await);
    refused(people::change_role(ctx, &admin, auditor.user_id, "super_administrator").await);
    refused(people::transfer_ownership(ctx, &admin, auditor.user_id).await);
    for result in [
        people::change_role(ctx, &admin, owner.user_id, "auditor").await,
        people::suspend(ctx, &admin, owner.user_id).await,
        people::remove(ctx, &admin, owner.user_id).await,
    ] {
        refused(result);
        portal.last_audit(&owner).await;
    }
    let token = portal.invited(&owner, NEW, Role::SuperAdministrator).await;
    let id = portal.people(&owner).await.invitations[0].id;
    refused(people::withdraw_invitation(ctx, &admin, id).await);
    invitations::show(ctx, &visitor(None), &token).await.unwrap();
    for caller in [&owner, &admin] {
        refused(people::change_role(ctx, caller, caller.user_id, "auditor").await);
        refused(people::remove(ctx, caller, caller.user_id).await);
    }
    let forbidden = people::remove(ctx, &auditor, admin.user_id).await;
    assert!(matches!(forbidden, Err(ActError::Forbidden)));
    people::change_role(ctx, &admin, auditor.user_id, "administrator").await.unwrap();
    let row = portal.assert_audited(&owner, "people/change_role", Outcome::Done).await;
    assert!(row.details.contains("Auditor") && row.details.contains("Administrator"), "{}", row.details);
    people::remove(ctx, &admin, auditor.user_id).await.unwrap();
    assert_eq!(portal.people(&owner).await.people.len(), 2);
}

#[tokio::test]
async fn two_who_remove_each_other_leave_one() {
    let portal = Portal::new().await;
    let one = portal.tenant("acme").await;
    let (two, _) = portal.colleague(&one, "two@people.example", Role::SuperAdministrator).await;
    let ctx = &portal.ctx;
    let (first, second) = tokio::join!(people::remove(ctx, &one, two.user_id), people::suspend(ctx, &two, one.user_id));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let left = portal.people(&one).await.people;
    assert!(left.iter().any(|person| person.role == Role::SuperAdministrator && !person.suspended), "{left:?}");
}

#[tokio::test]
async fn who_is_suspended_or_removed_is_out_and_comes_back_only_when_let_in() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let (auditor, login) = portal.colleague(&owner, NEW, Role::Auditor).await;
    people::suspend(ctx, &owner, auditor.user_id).await.unwrap();
    assert!(matches!(portal.caller(&login).await, Err(ActError::SignedOut)));
    refused(people::suspend(ctx, &owner, auditor.user_id).await);
    actions::account::log_in(ctx, &visitor(None), NEW, PASSWORD, None).await.unwrap();
    let row = portal.assert_audited(&owner, "account/log_in", Outcome::Done).await;
    assert_eq!(row.subject, NEW, "the tenant that suspended her hears that she tries");
    refused(people::transfer_ownership(ctx, &owner, auditor.user_id).await);
    people::reinstate(ctx, &owner, auditor.user_id).await.unwrap();
    assert_eq!(portal.caller(&login).await.unwrap().role, Role::Auditor);
    refused(people::reinstate(ctx, &owner, auditor.user_id).await);
    people::remove(ctx, &owner, auditor.user_id).await.unwrap();
    assert!(matches!(portal.caller(&login).await, Err(ActError::SignedOut)));
    assert!(matches!(people::remove(ctx, &owner, auditor.user_id).await, Err(ActError::NotFound)));
    assert!(matches!(people::remove(ctx, &owner, UserId(uuid::Uuid::nil())).await, Err(ActError::NotFound)));
}

#[tokio::test]
async fn an_organisation_is_handed_over() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let (heir, login) = portal.colleague(&owner, NEW, Role::Auditor).await;
    people::transfer_ownership(&portal.ctx, &owner, heir.user_id).await.unwrap();
    assert_eq!(portal.caller(&login).await.unwrap().role, Role::SuperAdministrator);
    let people = portal.people(&heir).await.people;
    let before = people.iter().find(|person| person.email == owner.email).unwrap();
    assert_eq!(before.role, Role::Administrator);
    // The request of before, as it was under way.
    let late = people::remove(&portal.ctx, &owner, heir.user_id).await;
    assert!(matches!(late, Err(ActError::Forbidden)), "{late:?}");
}

#[tokio::test]
async fn of_another_tenant_nobody_is_found() {
    let portal = Portal::new().await;
    let (ours, theirs) = (portal.tenant("ours").await, portal.tenant("theirs").await);
    portal.invited(&theirs, NEW, Role::Auditor).await;
    let invitation = portal.people(&theirs).await.invitations[0].id;
    assert_eq!(portal.people(&ours).await.people.len(), 1);
    let ctx = &portal.ctx;
    for result in [
        people::change_role(ctx, &ours, theirs.user_id, "auditor").await,
        people::suspend(ctx, &ours, theirs.user_id).await,
        people::remove(ctx, &ours, theirs.user_id).await,
        people::transfer_ownership(ctx, &ours, theirs.user_id).await,
        people::withdraw_invitation(ctx, &ours, invitation).await,
        people::resend_invitation(ctx, &ours, invitation).await,
    ] {
        assert!(matches!(result, Err(ActError::NotFound)), "{result:?}");
    }
}

#[tokio::test]
async fn who_has_no_tenant_left_is_told() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let token = portal.invited(&owner, NEW, Role::Auditor).await;
    let login = invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await.unwrap();
    let person = Person::set_up(&portal, NEW, login).await;
    people::remove(&portal.ctx, &owner, person.login.user_id).await.unwrap();
    portal.advance(Duration::minutes(2));
    let login = actions::account::log_in(&portal.ctx, &visitor(None), NEW, PASSWORD, None).await.unwrap();
    let code = person.code(&portal);
    let told = refused(actions::account::log_in_code(&portal.ctx, &visitor(Some(login)), &code).await);
    assert!(told.contains("no access to any organisation"), "{told}");
}

#[tokio::test]
async fn who_was_removed_is_invited_again_and_comes_back_with_her_account() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let token = portal.invited(&owner, NEW, Role::Auditor).await;
    let login = invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await.unwrap();
    let person = Person::set_up(&portal, NEW, login).await;
    people::remove(&portal.ctx, &owner, person.login.user_id).await.unwrap();
    let again = portal.invited(&owner, NEW, Role::SecurityOperator).await;
    portal.advance(Duration::minutes(2));
    let login = actions::account::log_in(&portal.ctx, &visitor(None), NEW, PASSWORD, None).await.unwrap();
    let code = person.code(&portal);
    let login = actions::account::log_in_code(&portal.ctx, &visitor(Some(login)), &code).await.unwrap();
    assert_eq!((login.stage, login.tenant_id), (Stage::SignedIn, None), "nothing is open to her but the invitation");
    assert!(matches!(portal.caller(&login).await, Err(ActError::SignedOut)));
    let login = invitations::join(&portal.ctx, &visitor(Some(login)), &again).await.unwrap();
    assert_eq!(portal.caller(&login).await.unwrap().role, Role::SecurityOperator);
}

#[tokio::test]
async fn who_is_removed_before_her_second_factor_keeps_none_of_it() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let token = portal.invited(&owner, NEW, Role::Auditor).await;
    let login = invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await.unwrap();
    let (login, setup) = actions::totp::begin(&portal.ctx, &visitor(Some(login))).await.unwrap();
    people::remove(&portal.ctx, &owner, login.user_id).await.unwrap();
    let code = crate::portal::code_at(&setup.key, portal.ctx.now().unix_timestamp());
    refused(actions::totp::confirm(&portal.ctx, &visitor(Some(login)), &code).await);
    let again = actions::account::log_in(&portal.ctx, &visitor(None), NEW, PASSWORD, None).await.unwrap();
    assert_eq!(again.stage, Stage::NeedsTotpSetup, "nothing was kept that she has never seen");
}

#[tokio::test]
async fn no_invitation_outlives_the_right_to_send_it() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let (admin, _) = portal.colleague(&owner, "admin@people.example", Role::Administrator).await;
    let by_admin = portal.invited(&admin, "friend@people.example", Role::Administrator).await;
    let by_owner = portal.invited(&owner, NEW, Role::Administrator).await;
    people::change_role(&portal.ctx, &owner, admin.user_id, "auditor").await.unwrap();
    let row = portal.assert_audited(&owner, "people/change_role", Outcome::Done).await;
    assert!(row.details.contains("friend@people.example"), "{}", row.details);
    refused(invitations::accept(&portal.ctx, &visitor(None), &by_admin, PASSWORD).await);
    invitations::show(&portal.ctx, &visitor(None), &by_owner).await.unwrap();
}

#[tokio::test]
async fn of_two_who_follow_a_link_one_comes() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    let token = portal.invited(&owner, NEW, Role::Auditor).await;
    let accept = || async { invitations::accept(&portal.ctx, &visitor(None), &token, PASSWORD).await };
    let (one, two) = tokio::join!(accept(), accept());
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(portal.people(&owner).await.people.len(), 2);
}

#[tokio::test]
async fn nobody_makes_the_portal_write_to_strangers() {
    let portal = Portal::new().await;
    let owner = portal.tenant("acme").await;
    for number in 0..100 {
        people::invite(&portal.ctx, &owner, &format!("stranger-{number}@people.example"), "auditor").await.unwrap();
    }
    let told = refused(people::invite(&portal.ctx, &owner, NEW, "auditor").await);
    assert!(told.contains("Too many invitations"), "{told}");
    assert_eq!(portal.people(&owner).await.invitations.len(), 100);
    portal.advance(Duration::minutes(2));
    people::invite(&portal.ctx, &owner, NEW, "auditor").await.unwrap();
    portal.tenant("other").await;
}

//! PBXes as people manage them.

use actions::{ActError, pbxes};
use policy::audit::Outcome;
use policy::pbxes::PbxState;

use crate::portal::{Portal, field_error, token};

#[tokio::test]
async fn add_rename_revoke_remove() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let ctx = &portal.ctx;
    let added = pbxes::add(ctx, &caller, " Headquarters ".to_owned()).await.unwrap();
    assert_eq!(added.pbx_name, "Headquarters");
    assert!(added.command.starts_with("ringfence-agent enrol --token "));
    let row = portal.assert_audited(&caller, "pbxes/add", Outcome::Done).await;
    assert!(!format!("{row:?}").contains(&token(&added.command)), "the token is a secret");
    for bad in ["", "  ", "two\nlines", &"x".repeat(81), "Headquarters"] {
        field_error(pbxes::add(ctx, &caller, bad.to_owned()).await, "name");
        portal.assert_audited(&caller, "pbxes/add", Outcome::Refused).await;
    }
    pbxes::rename(ctx, &caller, added.pbx_id, "Büro ☎".to_owned()).await.unwrap();
    let listed = pbxes::list(ctx, &caller).await.unwrap();
    assert_eq!(
        (listed[0].name.as_str(), listed[0].state, listed[0].token_expires_at),
        ("Büro ☎", PbxState::WaitingForAgent, Some(added.expires_at))
    );

    pbxes::revoke(ctx, &caller, added.pbx_id).await.unwrap();
    assert!(matches!(pbxes::revoke(ctx, &caller, added.pbx_id).await, Err(ActError::Refused(_))));
    assert!(matches!(pbxes::renew_enrolment(ctx, &caller, added.pbx_id).await, Err(ActError::Refused(_))));
    portal.assert_audited(&caller, "pbxes/renew_enrolment", Outcome::Refused).await;
    pbxes::remove(ctx, &caller, added.pbx_id).await.unwrap();
    assert!(matches!(pbxes::remove(ctx, &caller, added.pbx_id).await, Err(ActError::NotFound)));
    assert!(pbxes::list(ctx, &caller).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_overview_tells_what_needs_someone() {
    let portal = Portal::new().await;
    let caller = portal.tenant("acme").await;
    let overview = actions::overview::show(&portal.ctx, &caller).await.unwrap();
    assert_eq!((overview.hours.len(), overview.active_bans, overview.attention.len()), (24, 0, 1));
    portal.enrolled(&caller, "hq").await;
    for n in 0..10 {
        portal.block(&caller, &format!("192.0.2.{n}")).await.unwrap();
    }
    let overview = actions::overview::show(&portal.ctx, &caller).await.unwrap();
    assert_eq!((overview.active_bans, overview.newest_bans.len(), overview.enforcement.of), (10, 8, 1));
    assert!(overview.attention[0].urgent && overview.attention[0].text.starts_with("hq is offline"));
    let enforcement = actions::enforcement::show(&portal.ctx, &caller).await.unwrap();
    assert_eq!(enforcement.behind, ["hq"]);
}

#[tokio::test]
async fn a_limit_reaches_pbxes_with_a_new_revision_and_is_the_tenants_own() {
    let portal = Portal::new().await;
    let (ours, theirs) = (portal.tenant("acme").await, portal.tenant("bolt").await);
    let ctx = &portal.ctx;
    let before = actions::agents::policy(ctx, ours.tenant_id).await.unwrap();
    assert_eq!(
        (before.phone_loss_limit.percent(), pbxes::phone_loss_limit(ctx, &ours).await.unwrap().percent()),
        (20, 20)
    );

    pbxes::set_phone_loss_limit(ctx, &ours, " 35 % ".to_owned()).await.unwrap();
    let row = portal.assert_audited(&ours, "pbxes/set_phone_loss_limit", Outcome::Done).await;
    assert_eq!(row.subject, "35 %");
    assert!(row.details.contains("\"before\":20"), "{}", row.details);
    let after = actions::agents::policy(ctx, ours.tenant_id).await.unwrap();
    assert_eq!((after.phone_loss_limit.percent(), after.revision), (35, before.revision + 1));
    assert_eq!(pbxes::phone_loss_limit(ctx, &theirs).await.unwrap().percent(), 20);

    for bad in ["", "101", "-1", "2.5", "many"] {
        field_error(pbxes::set_phone_loss_limit(ctx, &ours, bad.to_owned()).await, "percent");
        portal.assert_audited(&ours, "pbxes/set_phone_loss_limit", Outcome::Refused).await;
    }
    assert_eq!(pbxes::phone_loss_limit(ctx, &ours).await.unwrap().percent(), 35);
}

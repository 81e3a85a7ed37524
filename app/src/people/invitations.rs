//! Who is invited and has not come yet.

use leptos::prelude::*;
use policy::people::Invitation;

use crate::clock::Until;
use crate::look::{Look, Peek};
use crate::people::api;
use crate::people::page::Listing;
use crate::ui::confirm::Question;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::when::When;

/// The table; nothing when nobody is invited.
#[component]
pub(crate) fn Invitations(listing: Listing, may_write: bool) -> impl IntoView {
    let ids = Memo::new(move |_| {
        listing.loader.data.look(|data| {
            let all = data.iter().flat_map(|data| &data.invitations);
            all.filter(|one| listing.finds(&one.email, one.role)).map(|one| one.id).collect::<Vec<_>>()
        })
    });
    let invitation = move |id| {
        Memo::new(move |_| {
            listing.loader.data.look(|data| data.as_ref()?.invitations.iter().find(|one| one.id == id).cloned())
        })
    };
    view! {
        <div hidden=move || ids.look(Vec::is_empty)>
            <h2 class="list-title">"Invited"</h2>
            <div class="table-frame">
                <table class="table people">
                    <caption class="visually-hidden">"Invitations"</caption>
                    <thead>
                        <tr>
                            <th class="col-email" scope="col">"E-mail address"</th>
                            <th class="col-role" scope="col">"Role"</th>
                            <th class="col-used" scope="col">"Link works for"</th>
                            <th class="col-since" scope="col">"Invited by"</th>
                            <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                        </tr>
                    </thead>
                    <tbody>
                        <For each=move || ids.get() key=|id| id.0 let:id>
                            <Row invitation=invitation(id) listing may_write />
                        </For>
                    </tbody>
                </table>
            </div>
        </div>
    }
}

#[component]
fn Row(invitation: Memo<Option<Invitation>>, listing: Listing, may_write: bool) -> impl IntoView {
    let one = move || invitation.peek(Option::clone);
    let read = move |part: fn(&Invitation) -> String| {
        move || invitation.look(|one| one.as_ref().map(part).unwrap_or_default())
    };
    let email = read(|one| one.email.clone());
    let expires_at = Memo::new(move |_| invitation.look(|one| one.as_ref().map(|one| one.expires_at)));
    let manageable = Memo::new(move |_| {
        may_write && invitation.look(|one| one.as_ref().is_some_and(|one| listing.may_manage(one.role)))
    });
    let resend = move |_| {
        let Some(Invitation { id, email, .. }) = one() else { return };
        listing.calls.change_access(
            move || api::resend_invitation(id),
            move |()| {
                listing
                    .calls
                    .toasts
                    .say(format!("Sent to {email} again. The link of the mail before no longer works."));
                listing.reload();
            },
        );
    };
    let withdraw = move |_| {
        let Some(Invitation { id, email, .. }) = one() else { return };
        let text = "The link of the mail stops working.";
        let act = move || listing.calls.change(api::withdraw_invitation(id), move |()| listing.reload());
        listing.calls.ask(Question::new(format!("Withdraw the invitation of {email}?"), text, "Withdraw", act));
    };
    view! {
        <tr data-row tabindex="-1">
            <th class="col-email" scope="row">{email}</th>
            <td class="col-role">{read(|one| one.role.title().to_owned())}</td>
            <td class="col-used">{move || view! { <Until at=expires_at.get() passed="expired" /> }}</td>
            <td class="col-since">{read(|one| one.invited_by.clone())}</td>
            <td class="col-actions">
                <When is=move || manageable.get()>
                    <div class="row-actions">
                        <button type="button" class="icon-button" title="Send again" aria-label=move || format!("Send the invitation of {} again", email()) on:click=resend>
                            <Icon glyph=Glyph::Mail />
                        </button>
                        <button type="button" class="icon-button" title="Withdraw" aria-label=move || format!("Withdraw the invitation of {}", email()) on:click=withdraw>
                            <Icon glyph=Glyph::Trash />
                        </button>
                    </div>
                </When>
            </td>
        </tr>
    }
}

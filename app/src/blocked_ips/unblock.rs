//! Unblocking: one, the selected, all that match; and unblocking for good.

use leptos::prelude::*;
use leptos::task::spawn_local;
use policy::authz::Permission;
use policy::blocked_ips::{BlockedIp, BlockedIpFilter, BlockedIpForm};
use policy::ids::BanId;
use policy::net;

use crate::blocked_ips::api;
use crate::blocked_ips::page::Listing;
use crate::calls::Calls;
use crate::clock::browser_now;
use crate::frame::SignedIn;
use crate::look::{Look, Peek};
use crate::ui::confirm::Question;
use crate::ui::page_header::{counted, grouped};
use crate::ui::when::When;

/// Up to this many are unblocked at once without a question, since they can all be blocked again by Undo.
const WITHOUT_QUESTION: usize = 5;

/// What unblocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unblocking {
    /// The list it happens in.
    pub(crate) listing: Listing,
    calls: Calls,
}

impl Unblocking {
    /// For a list.
    pub(crate) fn new(listing: Listing) -> Self {
        Self { listing, calls: Calls::of_page() }
    }

    /// Unblocks these.
    pub(crate) fn unblock(self, bans: Vec<BlockedIp>) {
        if bans.len() <= WITHOUT_QUESTION {
            self.unblock_now(bans);
            return;
        }
        let title = format!("Unblock {} addresses?", bans.len());
        let text = "They can reach your PBXes at once, and are blocked again only if they attack again.";
        self.calls.ask(Question::new(title, text, "Unblock", move || self.unblock_now(bans.clone())));
    }

    fn unblock_now(self, bans: Vec<BlockedIp>) {
        let ids = bans.iter().map(|ban| ban.id).collect();
        self.calls.change(api::unblock(ids), move |count| {
            self.done();
            let text = match bans.as_slice() {
                [ban] => format!("{} is unblocked.", net::display(&ban.net)),
                _ => format!("{} unblocked.", counted(count, "address", "addresses")),
            };
            self.calls.toasts.say_with_undo(text, move || self.block_again(bans.clone()));
        });
    }

    fn block_again(self, bans: Vec<BlockedIp>) {
        let now = browser_now();
        let forms: Vec<BlockedIpForm> = bans
            .iter()
            .filter(|ban| ban.expires_at.is_none_or(|end| end > now))
            .map(|ban| BlockedIpForm {
                net: ban.net.to_string(),
                duration: ban
                    .expires_at
                    .map_or_else(|| "permanent".to_owned(), |end| (end - now).whole_seconds().max(60).to_string()),
                reason: ban.reason.clone(),
            })
            .collect();
        spawn_local(async move {
            for form in forms {
                if let Err(error) = api::block(form, true).await {
                    self.calls.toasts.fail(&error);
                    break;
                }
            }
            self.listing.reload();
        });
    }

    /// Unblocks these and allows them for good.
    pub(crate) fn unblock_and_allow(self, bans: Vec<BlockedIp>) {
        let (title, note) = match bans.as_slice() {
            [ban] => (format!("Unblock and allow {}?", net::display(&ban.net)), format!("Was blocked: {}", ban.reason)),
            _ => (format!("Unblock and allow {} addresses?", bans.len()), "Were blocked".to_owned()),
        };
        let text =
            "They get past every protection and are never blocked again, until you delete them from Allowed IPs.";
        let ids: Vec<BanId> = bans.iter().map(|ban| ban.id).collect();
        let note: String = note.chars().take(policy::allowed_ips::NOTE_MAX_CHARS).collect();
        let act = move || {
            self.calls.change(api::unblock_and_allow(ids.clone(), note.clone()), move |count| {
                self.done();
                self.calls.toasts.say(format!("{} unblocked and allowed.", counted(count, "address", "addresses")));
            });
        };
        self.calls.ask(Question::new(title, text, "Unblock and allow", act));
    }

    /// Unblocks all that a filter finds, on whatever page they are.
    fn unblock_matching(self, filter: BlockedIpFilter, total: i64) {
        let title = format!("Unblock all {} that match?", grouped(total));
        let text = "All of them can reach your PBXes at once. This can't be undone in one step.";
        let act = move || {
            self.calls.change(api::unblock_matching(filter.clone()), move |count| {
                self.listing.pages.reset();
                self.done();
                self.calls.toasts.say(format!("{} unblocked.", counted(count, "address", "addresses")));
            });
        };
        self.calls.ask(Question::new(title, text, "Unblock all", act));
    }

    fn done(self) {
        if self.listing.loader.is_gone() {
            return;
        }
        self.listing.selection.clear();
        self.listing.reload();
        if self.listing.place.ban.peek(|ban| !ban.is_empty()) {
            self.listing.place.close();
        }
    }

    fn selected(self) -> Vec<BlockedIp> {
        let ids = self.listing.selection.ids();
        self.listing.loader.data.peek(|page| {
            page.as_ref()
                .map(|page| page.rows.iter().filter(|ban| ids.contains(&ban.id.0)).cloned().collect())
                .unwrap_or_default()
        })
    }
}

/// What can be done with the selected rows.
#[component]
pub(crate) fn SelectionBar(unblocking: Unblocking) -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let (may_block, may_allow) =
        (signed_in.may(Permission::WriteBlockedIps), signed_in.may(Permission::WriteAllowedIps));
    let Listing { loader, selection, place, .. } = unblocking.listing;
    let total = move || loader.data.look(|page| page.as_ref().map_or(0, |page| page.total));
    let whole_page = move || {
        let rows = loader.data.look(|page| page.as_ref().map_or(0, |page| page.rows.len()));
        selection.count() >= rows && i64::try_from(rows).is_ok_and(|rows| total() > rows)
    };
    view! {
        <div class="selection-bar" role="group" aria-label="Selected rows">
            <When is=move || selection.count() != 0>
                <span class="selection-count">{move || format!("{} selected", selection.count())}</span>
                {may_block.then(|| view! {
                    <button type="button" class="button" on:click=move |_| unblocking.unblock(unblocking.selected())>"Unblock"</button>
                })}
                {(may_allow && may_block).then(|| view! {
                    <button type="button" class="button" on:click=move |_| unblocking.unblock_and_allow(unblocking.selected())>
                        "Unblock and allow"
                    </button>
                })}
                <When is=move || may_block && whole_page()>
                    <button
                        type="button"
                        class="button"
                        on:click=move |_| unblocking.unblock_matching(place.filter.get_untracked(), untrack(total))
                    >
                        {move || format!("Unblock all {} that match", grouped(total()))}
                    </button>
                </When>
            </When>
        </div>
    }
}

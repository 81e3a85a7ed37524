//! The page: one's own sessions first, then everybody's.

use leptos::prelude::*;
use policy::authz::Permission;
use policy::ids::SessionId;
use policy::sessions::Session;

use crate::browser;
use crate::calls::{Calls, Loader, leave_if_signed_out};
use crate::clock::Since;
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::Look;
use crate::sessions::api;
use crate::ui::confirm::Question;
use crate::ui::page_header::PageHeader;
use crate::ui::states::{Failed, SkeletonRows};
use crate::ui::table::use_table_keys;
use crate::ui::when::When;

const TITLE: &str = "Sessions";
const TEXT: &str =
    "Where people are logged in. A session ends half an hour after its last use, and twelve hours after the login.";

/// Own, and everybody's for who may see them.
type Both = (Vec<Session>, Option<Vec<Session>>);

async fn both(everybody: bool) -> Result<Both, ApiError> {
    let own = api::list_own().await?;
    Ok((own, if everybody { Some(api::list().await?) } else { None }))
}

/// `/sessions`
#[component]
pub(crate) fn SessionsPage() -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let first = load(
        || (),
        move |()| async move {
            let me = signed_in.ask().await;
            let everybody = me.as_ref().is_some_and(|me| me.may(Permission::ReadPeople));
            (me, both(everybody).await)
        },
    );
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows rows=3 /> }>
            {move || Suspend::new(async move {
                let (me, sessions) = first.await;
                signed_in.learn(me);
                view! { <List sessions /> }
            })}
        </Suspense>
    }
}

#[derive(Debug, Clone, Copy)]
struct Listing {
    loader: Loader<Both>,
    everybody: bool,
    calls: Calls,
}

impl Listing {
    fn reload(self) {
        if !self.loader.is_gone() {
            self.loader.load(both(self.everybody));
        }
    }
}

#[component]
fn List(sessions: Result<Both, ApiError>) -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let may_write = signed_in.may(Permission::WritePeople);
    let everybody = signed_in.may(Permission::ReadPeople);
    let listing = Listing { loader: Loader::new(sessions), everybody, calls: Calls::of_page() };
    let loader = listing.loader;
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::Sessions], move || listing.reload());
    use_table_keys();
    let own =
        Memo::new(move |_| loader.data.look(|data| data.as_ref().map(|(own, _)| own.clone()).unwrap_or_default()));
    let all =
        Memo::new(move |_| loader.data.look(|data| data.as_ref().and_then(|(_, all)| all.clone()).unwrap_or_default()));
    let count = Signal::derive(move || i64::try_from(own.look(Vec::len)).ok());
    let end_others = move |_| {
        let act = move || {
            listing.calls.change(api::end_others(), move |ended| {
                listing.calls.toasts.say(format!("{ended} ended. Only this one is left."));
                listing.reload();
            });
        };
        let text = "Every other browser that you are logged in with is logged out at once.";
        listing.calls.ask(Question::new("End all your other sessions?", text, "End them", act));
    };
    view! {
        <PageHeader title=TITLE count text=TEXT>
            <When is=move || own.look(|own| own.len() > 1)>
                <button type="button" class="button" on:click=end_others>"End my other sessions"</button>
            </When>
        </PageHeader>
        <section class="list" aria-label="Sessions" aria-busy=move || loader.busy.get().to_string()>
            {move || {
                loader.error.get().map(|error| view! { <Failed what="The list" error retry=move |()| listing.reload() /> })
            }}
            <h2 class="list-title">"Yours"</h2>
            <Table caption="Your sessions" rows=own listing own=true may_end=true />
            {everybody.then(|| view! {
                <h2 class="list-title">"Everybody's in this organisation"</h2>
                <Table caption="Everybody's sessions" rows=all listing own=false may_end=may_write />
            })}
        </section>
    }
}

#[component]
fn Table(
    caption: &'static str,
    rows: Memo<Vec<Session>>,
    listing: Listing,
    /// Whether they are one's own.
    own: bool,
    may_end: bool,
) -> impl IntoView {
    view! {
        <div class="table-frame">
            <table class="table sessions">
                <caption class="visually-hidden">{caption}</caption>
                <thead>
                    <tr>
                        <th class="col-device" scope="col">{if own { "Device" } else { "Person and device" }}</th>
                        <th class="col-address" scope="col">"Address"</th>
                        <th class="col-seen" scope="col">"Last used"</th>
                        <th class="col-began" scope="col">"Logged in"</th>
                        <th class="col-actions" scope="col"><span class="visually-hidden">"Actions"</span></th>
                    </tr>
                </thead>
                <tbody>
                    // What of a row changes is in its key.
                    <For each=move || rows.get() key=|session| (session.origin.id.0, session.seen_at) let:session>
                        <Row session listing own may_end />
                    </For>
                </tbody>
            </table>
        </div>
    }
}

#[component]
fn Row(session: Session, listing: Listing, own: bool, may_end: bool) -> impl IntoView {
    let Session { email, origin, began_at, seen_at, is_this } = session;
    let id = origin.id;
    let named = format!("{} of {email}", origin.device);
    let ask = {
        let named = named.clone();
        move |_| end(listing, id, &named, own, is_this)
    };
    view! {
        <tr data-row tabindex="-1">
            <th class="col-device" scope="row">
                {if own { origin.device.clone() } else { email }}
                {is_this.then(|| view! { <span class="tag">"this one"</span> })}
                {(!own).then(|| view! { <small>{origin.device}</small> })}
            </th>
            <td class="col-address mono">{origin.address}</td>
            <td class="col-seen"><Since at=seen_at suffix=" ago" /></td>
            <td class="col-began">
                <Since at=began_at suffix=" ago" />
                <small>{origin.factor.title()}</small>
            </td>
            <td class="col-actions">
                {may_end.then(|| view! {
                    <button type="button" class="button small" aria-label=format!("End {named}") on:click=ask>"End"</button>
                })}
            </td>
        </tr>
    }
}

fn end(listing: Listing, id: SessionId, named: &str, own: bool, is_this: bool) {
    let act = move || {
        let done = move |()| if is_this { browser::load("/login") } else { listing.reload() };
        if own {
            listing.calls.change(api::end_own(id), done);
        } else {
            listing.calls.change(api::end(id), done);
        }
    };
    let text = if is_this { "You are logged out here." } else { "That browser is logged out at once." };
    listing.calls.ask(Question::new(format!("End {named}?"), text, "End it", act));
}

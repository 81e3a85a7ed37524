//! The page: who has access, who is invited, what each role may.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::authz::{Permission, Role};
use policy::people::{People, Person};

use crate::browser::address;
use crate::calls::{Calls, Loader, leave_if_signed_out};
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::go::Go;
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::Look;
use crate::people::api;
use crate::people::forms::{InviteDialog, RoleDialog};
use crate::people::invitations::Invitations;
use crate::people::roles::Roles;
use crate::people::row::Rows;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::PageHeader;
use crate::ui::states::{Empty, Failed, SkeletonRows};
use crate::ui::step_up::StepUpDialog;
use crate::ui::table::{SearchField, use_table_keys};
use crate::ui::when::When;

const TITLE: &str = "People";
const TEXT: &str = "Who has access to this organisation, since when, and what they may do.";

/// `/people`
#[component]
pub(crate) fn PeoplePage() -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let first = load(|| (), move |()| async move { (signed_in.ask().await, api::list().await) });
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows rows=3 /> }>
            {move || Suspend::new(async move {
                let (me, people) = first.await;
                signed_in.learn(me);
                view! { <List people /> }
            })}
        </Suspense>
    }
}

/// The list under way: what a row or dialog needs to change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// Who has access, and who is invited.
    pub(crate) loader: Loader<People>,
    /// What is searched for.
    pub(crate) search: Memo<String>,
    /// Whose role is being changed.
    pub(crate) changing: RwSignal<Option<Person>>,
    /// The caller's e-mail address, and role.
    you: StoredValue<Option<(String, Role)>>,
    /// Where to tell how it went.
    pub(crate) calls: Calls,
}

impl Listing {
    /// Loads the list again.
    pub(crate) fn reload(self) {
        if !self.loader.is_gone() {
            self.loader.load(api::list());
        }
    }

    /// Whether an e-mail address is the caller's.
    pub(crate) fn is_you(self, email: &str) -> bool {
        self.you.get_value().is_some_and(|(yours, _)| yours == email)
    }

    /// Whether the caller may give a role, or change the access of who has it.
    pub(crate) fn may_manage(self, role: Role) -> bool {
        self.you.get_value().is_some_and(|(_, yours)| yours.may_manage(role))
    }

    /// Whether a row is among those that are searched for.
    pub(crate) fn finds(self, email: &str, role: Role) -> bool {
        self.search.look(|search| {
            let search = search.trim().to_lowercase();
            email.contains(&search) || role.title().to_lowercase().contains(&search)
        })
    }
}

#[component]
fn List(people: Result<People, ApiError>) -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let may_write = signed_in.may(Permission::WritePeople);
    let (query, go) = (use_query_map(), Go::of_page());
    let listing = Listing {
        loader: Loader::new(people),
        search: Memo::new(move |_| query.look(|query| query.get("search")).unwrap_or_default()),
        changing: RwSignal::new(None),
        you: StoredValue::new(signed_in.person()),
        calls: Calls::of_page(),
    };
    let loader = listing.loader;
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::People], move || listing.reload());
    use_table_keys();
    let inviting = RwSignal::new(false);
    let count = Signal::derive(move || loader.data.look(|data| i64::try_from(data.as_ref()?.people.len()).ok()));
    let found = Memo::new(move |_| {
        loader.data.look(|data| {
            let People { people, invitations } = data.as_ref()?;
            let people = people.iter().filter(|person| listing.finds(&person.email, person.role)).count();
            let invitations = invitations.iter().filter(|one| listing.finds(&one.email, one.role)).count();
            Some(people + invitations)
        })
    });
    view! {
        <PageHeader title=TITLE count text=TEXT>
            {may_write.then(|| view! {
                <button type="button" class="button primary" on:click=move |_| inviting.set(true)>
                    <Icon glyph=Glyph::Plus />
                    "Invite"
                </button>
            })}
        </PageHeader>
        <div class="filters" role="search">
            <SearchField
                label="Search e-mail or role…"
                value=listing.search
                search=move |text: String| go.replace(address("/people", &[("search", &text)]))
            />
        </div>
        <section class="list" aria-label="People" aria-busy=move || loader.busy.get().to_string()>
            {move || {
                loader.error.get().map(|error| view! { <Failed what="The list" error retry=move |()| listing.reload() /> })
            }}
            <When is=move || found.get() == Some(0)>
                <Empty glyph=Glyph::User title="Nobody found" text="No e-mail address and no role here contains what you search for." />
            </When>
            <Rows listing may_write />
            <Invitations listing may_write />
        </section>
        <Roles />
        <InviteDialog open=inviting listing />
        <RoleDialog listing />
        <StepUpDialog />
    }
}

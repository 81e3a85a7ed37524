//! The page: what is never blocked.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::allowed_ips::{Added, AllowedIp};
use policy::authz::Permission;
use policy::paging::Page;

use crate::allowed_ips::api;
use crate::allowed_ips::form::{AllowDialog, Editing};
use crate::allowed_ips::import::ImportDialog;
use crate::allowed_ips::row::{Rows, SelectionBar};
use crate::browser::address;
use crate::calls::{Calls, Loader, leave_if_signed_out};
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::go::{Go, OPEN};
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::{Look, Peek};
use crate::ui::icon::{Glyph, Icon};
use crate::ui::menu::Menu;
use crate::ui::page_header::{PageHeader, counted};
use crate::ui::selection::Selection;
use crate::ui::states::{Empty, Failed, SkeletonRows};
use crate::ui::step_up::StepUpDialog;
use crate::ui::table::{Pager, Pages, SearchField, use_table_keys};

const TITLE: &str = "Allowed IPs";
const TEXT: &str = "Addresses, networks and domain names that are never blocked, whatever happens.";

/// `/allowed-ips`
#[component]
pub(crate) fn AllowedIpsPage() -> impl IntoView {
    let query = use_query_map();
    let search = Memo::new(move |_| query.look(|query| query.get("search")).unwrap_or_default());
    let signed_in = SignedIn::of_page();
    let first = load(
        || (),
        move |()| {
            let page = api::list(search.get_untracked(), None);
            async move { (signed_in.ask().await, page.await) }
        },
    );
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows /> }>
            {move || Suspend::new(async move {
                let (me, page) = first.await;
                signed_in.learn(me);
                view! { <List page search /> }
            })}
        </Suspense>
    }
}

/// The list under way: what a row or button needs to change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// The rows.
    pub(crate) loader: Loader<Page<AllowedIp>>,
    /// Which are selected.
    pub(crate) selection: Selection,
    /// Which page it is.
    pub(crate) pages: Pages,
    /// Whether rows that appear next are news.
    pub(crate) news: StoredValue<bool>,
    search: Memo<String>,
    calls: Calls,
}

impl Listing {
    /// Loads the page that is shown again.
    pub(crate) fn reload(self) {
        if self.loader.is_gone() {
            return;
        }
        let search = self.search.get_untracked();
        self.loader.load(self.pages.load(move |after| api::list(search.clone(), after)));
    }

    fn start_over(self) {
        self.news.set_value(false);
        self.pages.reset();
        self.selection.clear();
        self.reload();
    }

    /// Tells how adding ended, and shows it.
    pub(crate) fn added(self, added: &Added, what: &str) {
        let mut text = what.to_owned();
        if added.skipped > 0 {
            text = format!("{text} {} allowed already.", counted(added.skipped, "was", "were"));
        }
        if added.lifted_bans > 0 {
            text = format!("{text} {} lifted.", counted(added.lifted_bans, "ban was", "bans were"));
        }
        self.calls.toasts.say(text);
        self.news.set_value(true);
        self.reload();
    }
}

#[component]
fn List(page: Result<Page<AllowedIp>, ApiError>, search: Memo<String>) -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let may_write = signed_in.may(Permission::WriteAllowedIps);
    let go = Go::of_page();
    let listing = Listing {
        loader: Loader::new(page),
        selection: Selection::new(),
        pages: Pages::new(),
        news: StoredValue::new(false),
        search,
        calls: Calls::of_page(),
    };
    let loader = listing.loader;
    Effect::watch(move || search.get(), move |_, _, _| listing.start_over(), false);
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::AllowedIps], move || {
        if !listing.selection.any_now() {
            listing.news.set_value(true);
            listing.reload();
        }
    });
    use_table_keys();
    let editing = RwSignal::new(None::<Editing>);
    let importing = RwSignal::new(false);
    use_prefill(editing, go);
    let total = Signal::derive(move || loader.data.look(|page| page.as_ref().map(|page| page.total)));
    let empty = move || total.get().unwrap_or(0) == 0;
    let my_address = signed_in.address();
    let allow_mine = move |_| {
        listing.calls.change(api::allow_my_address(), move |added| {
            let address = signed_in.address();
            listing.added(&added, &format!("{address}, where you are, is allowed."));
        });
    };
    view! {
        <PageHeader title=TITLE count=total text=TEXT>
            <Menu id="csv-menu" label="CSV" button=|| view! { "CSV" <Icon glyph=Glyph::ChevronDown /> }>
                {may_write.then(|| view! {
                    <button type="button" class="menu-item" on:click=move |_| importing.set(true)>
                        <Icon glyph=Glyph::Upload />
                        "Import"
                    </button>
                })}
                <a class="menu-item" href="/csv/allowed-ips" download rel="external">
                    <Icon glyph=Glyph::Download />
                    "Export"
                </a>
            </Menu>
            {may_write.then(|| view! {
                <button type="button" class="button" title=format!("You come from {my_address}") on:click=allow_mine>
                    <Icon glyph=Glyph::Crosshair />
                    "Allow my address"
                </button>
                <button type="button" class="button primary" on:click=move |_| editing.set(Some(Editing::new("")))>
                    <Icon glyph=Glyph::Plus />
                    "Allow an address"
                </button>
            })}
        </PageHeader>
        <div class="filters" role="search">
            <SearchField
                label="Search address, network, name, note…"
                value=search
                search=move |text: String| go.replace(address("/allowed-ips", &[("search", &text)]))
            />
        </div>
        <section class="list" aria-label="Allowed addresses" aria-busy=move || loader.busy.get().to_string()>
            {move || {
                loader.error.get().map(|error| view! { <Failed what="The list" error retry=move |()| listing.reload() /> })
            }}
            <Nothing listing editing may_write />
            <div class="table-frame" hidden=empty>
                <Rows listing editing may_write />
            </div>
            <div class="list-foot" hidden=empty>
                <SelectionBar listing may_write />
                <Pager
                    pages=listing.pages
                    shown=Signal::derive(move || loader.data.look(|page| page.as_ref().map_or(0, |page| page.rows.len())))
                    total=Signal::derive(move || total.get().unwrap_or(0))
                    next=Signal::derive(move || loader.data.look(|page| page.as_ref().and_then(|page| page.next.clone())))
                    go=move |()| {
                        listing.news.set_value(false);
                        listing.selection.clear();
                        listing.reload();
                    }
                />
            </div>
        </section>
        <AllowDialog editing listing />
        <ImportDialog open=importing listing />
        <StepUpDialog />
    }
}

/// Opens the form when the address bar asks for it, with the address in it.
fn use_prefill(editing: RwSignal<Option<Editing>>, go: Go) {
    let query = use_query_map();
    Effect::new(move || {
        if let Some(target) = query.look(|query| query.get("allow")) {
            editing.set(Some(Editing::new(if target == OPEN { "" } else { &target })));
        }
    });
    // The address asks for it until it is closed: going elsewhere while the page still loads would load it twice.
    Effect::watch(
        move || editing.look(Option::is_none),
        move |closed, before, _| {
            if *closed && before == Some(&false) && query.peek(|query| query.get("allow")).is_some() {
                go.replace("/allowed-ips".to_owned());
            }
        },
        false,
    );
}

#[component]
fn Nothing(listing: Listing, editing: RwSignal<Option<Editing>>, may_write: bool) -> impl IntoView {
    let Listing { loader, search, .. } = listing;
    let nothing = Memo::new(move |_| loader.data.look(|page| page.as_ref().is_some_and(|page| page.total == 0)));
    move || {
        nothing.get().then(|| {
            if search.look(|search| !search.is_empty()) {
                view! {
                    <Empty glyph=Glyph::Search title="Nothing matches" text="No entry fits this search.">
                        <a class="button" href="/allowed-ips">"Clear the search"</a>
                    </Empty>
                }
                .into_any()
            } else {
                view! {
                    <Empty
                        glyph=Glyph::ShieldCheck
                        title="Nothing is allowed yet"
                        text="Allow your offices, your trunks and yourself, so that a mistyped password never cuts them off. On every PBX it comes before any ban."
                    >
                        {may_write.then(|| view! {
                            <button type="button" class="button" on:click=move |_| editing.set(Some(Editing::new("")))>
                                "Allow the first address"
                            </button>
                        })}
                    </Empty>
                }
                .into_any()
            }
        })
    }
}

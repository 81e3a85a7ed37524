//! The page: what is blocked, newest first, live. What is searched and opened stands in the address bar.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use policy::authz::Permission;
use policy::blocked_ips::{BanSource, BlockedIp, BlockedIpFilter};
use policy::paging::Page;
use policy::pbxes::Pbx;

use crate::blocked_ips::api;
use crate::blocked_ips::form::BlockDialog;
use crate::blocked_ips::panel::{BanPanel, OpenBan, open_ban};
use crate::blocked_ips::row::Rows;
use crate::blocked_ips::unblock::{SelectionBar, Unblocking};
use crate::browser::address;
use crate::calls::{Loader, leave_if_signed_out};
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::go::{Go, OPEN};
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::{Look, Peek};
use crate::pbxes;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::PageHeader;
use crate::ui::selection::Selection;
use crate::ui::states::{Empty, Failed, SkeletonRows};
use crate::ui::table::{FilterSelect, NewRows, Pager, Pages, SearchField, at_top, use_table_keys};

const TITLE: &str = "Blocked IPs";
const TEXT: &str = "Addresses that can't reach your PBXes. Allowed IPs always win.";

/// What the address bar says: what is searched, and which ban is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// What is searched.
    pub(crate) filter: Memo<BlockedIpFilter>,
    /// The open ban, as it stands there.
    pub(crate) ban: Memo<String>,
    go: Go,
}

impl Place {
    fn of_page() -> Self {
        let query = use_query_map();
        let get = move |name: &str| query.look(|query| query.get(name)).unwrap_or_default();
        Self {
            filter: Memo::new(move |_| BlockedIpFilter {
                search: get("search"),
                source: BanSource::from_name(&get("source")),
                pbx_id: get("pbx_id").parse().ok(),
            }),
            ban: Memo::new(move |_| get("ban")),
            go: Go::of_page(),
        }
    }

    /// The address of a filter with a ban open.
    pub(crate) fn address(path: &str, filter: &BlockedIpFilter, ban: &str) -> String {
        let source = filter.source.map_or("", BanSource::as_str);
        let pbx = filter.pbx_id.map(|id| id.to_string()).unwrap_or_default();
        address(path, &[("search", &filter.search), ("source", source), ("pbx_id", &pbx), ("ban", ban)])
    }

    fn set_filter(self, change: impl FnOnce(&mut BlockedIpFilter)) {
        let mut filter = self.filter.get_untracked();
        change(&mut filter);
        self.go.replace(Self::address("/blocked-ips", &filter, ""));
    }

    /// Closes the open ban.
    pub(crate) fn close(self) {
        self.go.to(Self::address("/blocked-ips", &self.filter.get_untracked(), ""));
    }
}

/// `/blocked-ips`
#[component]
pub(crate) fn BlockedIpsPage() -> impl IntoView {
    let place = Place::of_page();
    let signed_in = SignedIn::of_page();
    let first = load(
        || (),
        move |()| {
            let filter = place.filter.get_untracked();
            async move {
                (signed_in.ask().await, api::list(filter, None).await, pbxes::api::list().await.unwrap_or_default())
            }
        },
    );
    let details = open_ban(place);
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows /> }>
            {move || Suspend::new(async move {
                let (me, page, pbxes) = first.await;
                signed_in.learn(me);
                view! { <List page pbxes place details /> }
            })}
        </Suspense>
    }
}

/// The list under way: what a row or button needs to change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// The rows.
    pub(crate) loader: Loader<Page<BlockedIp>>,
    /// Which are selected.
    pub(crate) selection: Selection,
    /// Which page it is.
    pub(crate) pages: Pages,
    /// What is searched and open.
    pub(crate) place: Place,
    /// How many rows came that aren't shown yet.
    pub(crate) waiting: RwSignal<usize>,
    /// Whether rows that appear next are news.
    pub(crate) news: StoredValue<bool>,
}

impl Listing {
    /// Loads the page that is shown again.
    pub(crate) fn reload(self) {
        if self.loader.is_gone() {
            return;
        }
        self.waiting.set(0);
        let filter = self.place.filter.get_untracked();
        self.loader.load(self.pages.load(move |after| api::list(filter.clone(), after)));
    }

    fn start_over(self) {
        self.news.set_value(false);
        self.pages.reset();
        self.selection.clear();
        self.reload();
    }

    /// Something changed elsewhere: shown at once at the top of the list, else counted.
    fn changed(self) {
        let reading = !self.pages.at_first_now() || self.selection.any_now() || !at_top();
        if !reading {
            self.news.set_value(true);
            self.reload();
            return;
        }
        let filter = self.place.filter.get_untracked();
        spawn_local(async move {
            let newest = api::list(filter.clone(), None).await;
            // With rows of another filter, or rows that are being read anew, it is not compared.
            if let Ok(newest) = newest
                && !self.loader.is_gone()
                && !self.loader.busy.get_untracked()
                && self.place.filter.peek(|now| *now == filter)
            {
                let known = |ban: &BlockedIp| {
                    self.loader
                        .data
                        .peek(|page| page.as_ref().is_some_and(|page| page.rows.iter().any(|row| row.id == ban.id)))
                };
                let new = newest.rows.iter().filter(|ban| !known(ban)).count();
                // On later pages every row of the first is unknown.
                self.waiting.set(if self.pages.at_first_now() { new } else { 0 });
            }
        });
    }
}

#[component]
fn List(page: Result<Page<BlockedIp>, ApiError>, pbxes: Vec<Pbx>, place: Place, details: OpenBan) -> impl IntoView {
    let may_block = SignedIn::of_page().may(Permission::WriteBlockedIps);
    let listing = Listing {
        loader: Loader::new(page),
        selection: Selection::new(),
        pages: Pages::new(),
        place,
        waiting: RwSignal::new(0),
        news: StoredValue::new(false),
    };
    let (loader, pages) = (listing.loader, listing.pages);
    Effect::watch(move || place.filter.get(), move |_, _, _| listing.start_over(), false);
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::BlockedIps], move || listing.changed());
    use_table_keys();
    let dialog = RwSignal::new(false);
    let prefill = use_prefill(dialog, place);
    let total = Signal::derive(move || loader.data.look(|page| page.as_ref().map(|page| page.total)));
    let unblocking = Unblocking::new(listing);
    let export = move || Place::address("/csv/blocked-ips", &place.filter.get(), "");
    view! {
        <PageHeader title=TITLE count=total text=TEXT>
            <a class="button" href=export download rel="external">
                <Icon glyph=Glyph::Download />
                "Export"
            </a>
            {may_block.then(|| view! {
                <button type="button" class="button primary" on:click=move |_| dialog.set(true)>
                    <Icon glyph=Glyph::Plus />
                    "Block an address"
                </button>
            })}
        </PageHeader>
        <Filters place pbxes />
        <NewRows
            count=listing.waiting
            show=move |()| {
                window().scroll_to_with_x_and_y(0.0, 0.0);
                listing.start_over();
            }
        />
        <div class="list-and-panel">
            <section class="list" aria-label="Blocked addresses" aria-busy=move || loader.busy.get().to_string()>
                {move || {
                    loader
                        .error
                        .get()
                        .map(|error| view! { <Failed what="The list" error retry=move |()| listing.reload() /> })
                }}
                <Nothing listing dialog may_block />
                <div class="table-frame" hidden=move || total.get().unwrap_or(0) == 0>
                    <Rows listing unblocking may_block />
                </div>
                <div class="list-foot" hidden=move || total.get().unwrap_or(0) == 0>
                    <SelectionBar unblocking />
                    <Pager
                        pages
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
            <BanPanel details unblocking />
        </div>
        <BlockDialog open=dialog prefill listing />
    }
}

/// Opens the form when the address bar asks for it, with the address in it.
fn use_prefill(dialog: RwSignal<bool>, place: Place) -> RwSignal<String> {
    let prefill = RwSignal::new(String::new());
    let query = use_query_map();
    Effect::new(move || {
        if let Some(net) = query.look(|query| query.get("block")) {
            prefill.set(if net == OPEN { String::new() } else { net });
            dialog.set(true);
        }
    });
    // The address asks for it until it is closed: going elsewhere while the page still loads would load it twice.
    Effect::watch(
        move || dialog.get(),
        move |open, before, _| {
            if !open && before == Some(&true) && query.peek(|query| query.get("block")).is_some() {
                place.set_filter(|_| ());
            }
        },
        false,
    );
    prefill
}

#[component]
fn Filters(place: Place, pbxes: Vec<Pbx>) -> impl IntoView {
    let option = |value: &str, label: &str| (value.to_owned(), label.to_owned());
    let sources = vec![
        option("", "Any source"),
        option("detection", "Detected"),
        option("manual", "By hand"),
        option("portal", "Portal login"),
    ];
    let has_pbxes = !pbxes.is_empty();
    let mut names = vec![option("", "Any PBX")];
    names.extend(pbxes.into_iter().map(|pbx| (pbx.id.to_string(), pbx.name)));
    view! {
        <div class="filters" role="search">
            <SearchField
                label="Search address, network, extension…"
                value=Signal::derive(move || place.filter.look(|filter| filter.search.clone()))
                search=move |text: String| place.set_filter(|filter| filter.search = text)
            />
            <FilterSelect
                label="Source"
                value=Signal::derive(move || place.filter.look(|filter| filter.source.map_or("", BanSource::as_str).to_owned()))
                options=sources
                choose=move |name: String| place.set_filter(|filter| filter.source = BanSource::from_name(&name))
            />
            {has_pbxes
                .then(|| {
                    view! {
                        <FilterSelect
                            label="PBX"
                            value=Signal::derive(move || {
                                place.filter.look(|filter| filter.pbx_id.map(|id| id.to_string()).unwrap_or_default())
                            })
                            options=names
                            choose=move |id: String| place.set_filter(|filter| filter.pbx_id = id.parse().ok())
                        />
                    }
                })}
        </div>
    }
}

#[component]
fn Nothing(listing: Listing, dialog: RwSignal<bool>, may_block: bool) -> impl IntoView {
    let Listing { loader, place, .. } = listing;
    let nothing = Memo::new(move |_| loader.data.look(|page| page.as_ref().is_some_and(|page| page.total == 0)));
    let filtered = move || place.filter.look(|filter| *filter != BlockedIpFilter::default());
    move || {
        nothing.get().then(|| {
            if filtered() {
                view! {
                    <Empty glyph=Glyph::Search title="Nothing matches" text="No ban fits this search and these filters.">
                        <a class="button" href="/blocked-ips">"Clear the search"</a>
                    </Empty>
                }
                .into_any()
            } else {
                view! {
                    <Empty
                        glyph=Glyph::ShieldCheck
                        title="Nothing is blocked"
                        text="Attackers that your PBXes detect appear here by themselves, with what they did. You can also block addresses by hand."
                    >
                        {may_block.then(|| view! {
                            <button type="button" class="button" on:click=move |_| dialog.set(true)>"Block an address by hand"</button>
                        })}
                    </Empty>
                }
                .into_any()
            }
        })
    }
}

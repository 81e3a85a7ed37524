//! The page: each PBX with the agent on it and what it enforces.

use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::authz::Permission;
use policy::ids::PbxId;
use policy::pbxes::{EnrolmentCommand, Pbx, PbxState};
use policy::safety::PhoneLossLimit;

use crate::calls::{Calls, Loader, leave_if_signed_out};
use crate::error::ApiError;
use crate::frame::SignedIn;
use crate::go::Go;
use crate::live::{Live, Topic};
use crate::load::load;
use crate::look::{Look, Peek};
use crate::pbxes::add::{AddDialog, CommandDialog, RenameDialog};
use crate::pbxes::api;
use crate::pbxes::row::Rows;
use crate::pbxes::safety::Safety;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::page_header::PageHeader;
use crate::ui::states::{Empty, Failed, SkeletonRows};
use crate::ui::step_up::StepUpDialog;
use crate::ui::table::use_table_keys;
use crate::ui::when::When;

const TITLE: &str = "PBXes";
const TEXT: &str =
    "The phone systems that you protect. Each runs an agent that enforces on its own when the portal is away.";

/// `/pbxes`
#[component]
pub(crate) fn PbxesPage() -> impl IntoView {
    let signed_in = SignedIn::of_page();
    let first =
        load(|| (), move |()| async move { (signed_in.ask().await, api::list().await, api::phone_loss_limit().await) });
    view! {
        <Suspense fallback=|| view! { <PageHeader title=TITLE text=TEXT /> <SkeletonRows rows=3 /> }>
            {move || Suspend::new(async move {
                let (me, pbxes, limit) = first.await;
                signed_in.learn(me);
                view! { <List pbxes limit /> }
            })}
        </Suspense>
    }
}

/// The list under way: what a row or dialog needs to change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// The PBXes.
    pub(crate) loader: Loader<Vec<Pbx>>,
    /// How many phones a change may cost them.
    pub(crate) limit: Loader<PhoneLossLimit>,
    /// The command that is shown, once.
    pub(crate) command: RwSignal<Option<EnrolmentCommand>>,
    /// The PBX that is being renamed.
    pub(crate) renaming: RwSignal<Option<(PbxId, String)>>,
    /// Where to tell how it went.
    pub(crate) calls: Calls,
}

impl Listing {
    /// Loads the list again.
    pub(crate) fn reload(self) {
        if self.loader.is_gone() {
            return;
        }
        self.loader.load(api::list());
        self.limit.load(api::phone_loss_limit());
    }

    /// The state of one of them.
    pub(crate) fn state(self, id: PbxId) -> Option<PbxState> {
        self.loader.data.look(|pbxes| pbxes.as_ref()?.iter().find(|pbx| pbx.id == id).map(|pbx| pbx.state))
    }
}

#[component]
fn List(pbxes: Result<Vec<Pbx>, ApiError>, limit: Result<PhoneLossLimit, ApiError>) -> impl IntoView {
    let may_write = SignedIn::of_page().may(Permission::WritePbxes);
    let listing = Listing {
        loader: Loader::new(pbxes),
        limit: Loader::new(limit),
        command: RwSignal::new(None),
        renaming: RwSignal::new(None),
        calls: Calls::of_page(),
    };
    let loader = listing.loader;
    Effect::new(move || loader.error.look(|error| error.iter().for_each(leave_if_signed_out)));
    expect_context::<Live>().on_change(&[Topic::Pbxes, Topic::Enforcement], move || listing.reload());
    use_table_keys();
    let adding = RwSignal::new(false);
    let (query, go) = (use_query_map(), Go::of_page());
    Effect::new(move || {
        if query.look(|query| query.get("add").is_some()) {
            adding.set(true);
        }
    });
    // The address asks for it until it is closed: going elsewhere while the page still loads would load it twice.
    Effect::watch(
        move || adding.get(),
        move |open, before, _| {
            if !open && before == Some(&true) && query.peek(|query| query.get("add")).is_some() {
                go.replace("/pbxes".to_owned());
            }
        },
        false,
    );
    let count = Signal::derive(move || loader.data.look(|pbxes| i64::try_from(pbxes.as_ref()?.len()).ok()));
    let none = Memo::new(move |_| count.get() == Some(0));
    view! {
        <PageHeader title=TITLE count text=TEXT>
            {may_write.then(|| view! {
                <button type="button" class="button primary" on:click=move |_| adding.set(true)>
                    <Icon glyph=Glyph::Plus />
                    "Add a PBX"
                </button>
            })}
        </PageHeader>
        <section class="list" aria-label="PBXes" aria-busy=move || loader.busy.get().to_string()>
            {move || {
                loader.error.get().map(|error| view! { <Failed what="The list" error retry=move |()| listing.reload() /> })
            }}
            <When is=move || none.get()>
                <Empty
                    glyph=Glyph::Server
                    title="No PBX yet"
                    text="Add your first one, run one command on it, and it shows up here within seconds. Nothing is opened at your side: the agent dials out."
                >
                    {may_write.then(|| view! {
                        <button type="button" class="button" on:click=move |_| adding.set(true)>"Add the first PBX"</button>
                    })}
                </Empty>
            </When>
            <div class="table-frame" hidden=move || count.get().unwrap_or(0) == 0>
                <Rows listing may_write />
            </div>
        </section>
        <Safety listing may_write />
        <AddDialog open=adding listing />
        <CommandDialog listing />
        <RenameDialog listing />
        <StepUpDialog />
    }
}

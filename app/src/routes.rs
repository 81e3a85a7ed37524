//! Which address shows which page.

use leptos::prelude::*;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Route, Router, Routes};
use leptos_router::{Lazy, LazyRoute, SsrMode, path};

use crate::account::login::{CodePage, LoginPage};
use crate::account::reset::{ForgotPage, ResetPage};
use crate::account::setup::SetupPage;
use crate::account::sign_up::{SignUpPage, VerifyPage};
use crate::allowed_ips::page::AllowedIpsPage;
use crate::audit::page::AuditPage;
use crate::blocked_ips::page::BlockedIpsPage;
use crate::clock::Clock;
use crate::enforcement::pill::Saving;
use crate::frame::Frame;
use crate::live::Live;
use crate::overview::page::OverviewPage;
use crate::pbxes::page::PbxesPage;
use crate::ui::confirm::{Confirm, ConfirmDialog};
use crate::ui::toast::{ToastRegion, Toasts};

/// The whole portal.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    Clock::provide();
    Toasts::provide();
    Confirm::provide();
    Saving::provide();
    Live::provide();
    view! {
        <Title formatter=|title: String| if title.is_empty() { "Ringfence".to_owned() } else { format!("{title} · Ringfence") } />
        <Router>
            <Routes fallback=NotFound>
                <Route path=path!("/login") view={Lazy::<Login>::new()} ssr=SsrMode::Async />
                <Route path=path!("/login/code") view={Lazy::<Code>::new()} ssr=SsrMode::Async />
                <Route path=path!("/sign-up") view={Lazy::<SignUp>::new()} ssr=SsrMode::Async />
                <Route path=path!("/verify") view={Lazy::<Verify>::new()} ssr=SsrMode::Async />
                <Route path=path!("/setup") view={Lazy::<Setup>::new()} ssr=SsrMode::Async />
                <Route path=path!("/forgot") view={Lazy::<Forgot>::new()} ssr=SsrMode::Async />
                <Route path=path!("/reset") view={Lazy::<Reset>::new()} ssr=SsrMode::Async />
                <ParentRoute path=path!("") view={Lazy::<Framed>::new()} ssr=SsrMode::Async>
                    <Route path=path!("/") view={Lazy::<Overview>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/pbxes") view={Lazy::<Pbxes>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/allowed-ips") view={Lazy::<AllowedIps>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/blocked-ips") view={Lazy::<BlockedIps>::new()} ssr=SsrMode::Async />
                    <Route path=path!("/audit") view={Lazy::<Audit>::new()} ssr=SsrMode::Async />
                </ParentRoute>
            </Routes>
        </Router>
        <ConfirmDialog />
        <ToastRegion />
    }
}

#[component]
fn NotFound() -> impl IntoView {
    view! {
        <Title text="Not found" />
        <main class="alone">
            <div class="card">
                <h1>"There is nothing here"</h1>
                <p class="card-text">"The address may be mistyped, or what it showed is gone."</p>
                <a class="button primary wide" href="/" rel="external">"Go to the overview"</a>
            </div>
        </main>
    }
}

/// Pieces of the program, by the names of the functions marked `lazy`.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// What the page needs before it works.
    pub(crate) now: &'static [&'static str],
    /// What is likely wanted next; fetched when the browser has nothing else to do.
    #[cfg_attr(not(feature = "ssr"), expect(dead_code, reason = "the shell asks the browser for it"))]
    pub(crate) soon: &'static [&'static str],
}

impl Pieces {
    /// Those of the page at a path.
    pub(crate) fn of(path: &str) -> Self {
        // The router takes an address with a slash at its end for the same.
        match path.trim_end_matches('/') {
            "" => Self { now: &["console"], soon: &["lists", "palette"] },
            "/pbxes" | "/allowed-ips" | "/blocked-ips" | "/audit" => {
                Self { now: &["console", "lists"], soon: &["palette"] }
            }
            "/login" | "/login/code" | "/sign-up" | "/verify" | "/setup" | "/forgot" | "/reset" => {
                Self { now: &["account"], soon: &["console"] }
            }
            _ => Self::default(),
        }
    }
}

/// Pages whose code is fetched when somebody goes there, so that what everybody waits for first stays small. Those of one
/// piece come together: a piece for each page would be ninety files of what some of them share. `lazy` makes the function that
/// fetches a piece, and its name.
macro_rules! fetched {
    ($($piece:ident by $preload:ident ($which:ident): $($name:ident = $page:ident),*;)*) => {$(
        #[derive(Debug, Clone, Copy)]
        enum $which {
            $($name,)*
        }

        #[lazy]
        fn $piece(which: $which) -> AnyView {
            match which {
                $($which::$name => view! { <$page /> }.into_any(),)*
            }
        }

        $(
            #[derive(Debug)]
            struct $name;

            impl LazyRoute for $name {
                fn data() -> Self {
                    Self
                }

                /// The old page stays until the piece of the new one is there.
                #[cfg(feature = "hydrate")]
                async fn preload() {
                    $preload().await;
                }

                async fn view(_: Self) -> AnyView {
                    $piece($which::$name).await
                }
            }
        )*
    )*
        /// Fetches what the page at a path begins with. Taking over the page waits for it, and then does so in one go: with
        /// waits within, what pages do once they run would begin while half of them still is as the server sent it.
        #[cfg(feature = "hydrate")]
        pub async fn fetch_page(path: &str) {
            for piece in Pieces::of(path).now {
                match *piece {
                    $(stringify!($piece) => $preload().await,)*
                    _ => {}
                }
            }
        }
    };
}

fetched! {
    account by __preload_account (Account): Login = LoginPage, Code = CodePage, SignUp = SignUpPage, Verify = VerifyPage, Setup = SetupPage, Forgot = ForgotPage, Reset = ResetPage;
    console by __preload_console (Console): Framed = Frame, Overview = OverviewPage;
    lists by __preload_lists (Lists): Pbxes = PbxesPage, AllowedIps = AllowedIpsPage, BlockedIps = BlockedIpsPage, Audit = AuditPage;
}

//! The top bar: which tenant, jump to anything, whether all is enforced, who one is.

use leptos::prelude::*;
use policy::account::{Me, Membership};
use policy::enforcement::Enforcement;
use policy::ids::TenantId;

use crate::account::api;
use crate::browser;
use crate::calls::Calls;
use crate::enforcement::pill::EnforcementPill;
use crate::live::LiveDot;
use crate::look::PeekStored;
use crate::ui::icon::{Glyph, Icon};
use crate::ui::menu::Menu;
use crate::ui::palette::Palette;

/// The name under which the browser keeps a pinned theme, and the attribute that the style sheet looks at.
pub(crate) const THEME_KEY: &str = "ringfence-theme";
const THEME_ATTRIBUTE: &str = "data-theme";

/// The bar at the top of every page within the frame.
#[component]
pub(crate) fn TopBar(me: StoredValue<Me>, enforcement: Option<Enforcement>, drawer: RwSignal<bool>) -> impl IntoView {
    let Palette(palette) = expect_context();
    view! {
        <header class="top-bar">
            <button
                type="button"
                class="icon-button drawer-button"
                aria-label="Menu"
                aria-controls="navigation"
                aria-expanded=move || drawer.get().to_string()
                on:click=move |_| drawer.update(|open| *open = !*open)
            >
                <Icon glyph=Glyph::Menu />
            </button>
            <a class="brand" href="/" aria-label="Ringfence, overview">
                <Logo />
                <span>"Ringfence"</span>
            </a>
            <TenantMenu me />
            <button type="button" class="jump" aria-label="Search or jump" on:click=move |_| palette.set(true)>
                <Icon glyph=Glyph::Search />
                <span>"Search or jump…"</span>
                <kbd>"Ctrl K"</kbd>
            </button>
            <div class="top-bar-state">
                <EnforcementPill first=enforcement />
                <LiveDot />
            </div>
            <AccountMenu me />
        </header>
    }
}

/// The mark of the product: a ring with a fence post.
#[component]
pub(crate) fn Logo() -> impl IntoView {
    view! {
        <svg class="logo" viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false">
            <path class="logo-ring" d="M12 2.5 20.5 7.25v9.5L12 21.5 3.5 16.75v-9.5z" />
            <path class="logo-core" d="M12 8v8M8.5 9.75v4.5M15.5 9.75v4.5" />
        </svg>
    }
}

#[component]
fn TenantMenu(me: StoredValue<Me>) -> impl IntoView {
    let current = me.peek_stored(|me| me.current.clone());
    let Some(current) = current else { return ().into_any() };
    let others: Vec<Membership> = me
        .peek_stored(|me| me.tenants.iter().filter(|tenant| tenant.tenant_id != current.tenant_id).cloned().collect());
    if others.is_empty() {
        return view! { <span class="tenant-name">{current.tenant_name}</span> }.into_any();
    }
    let name = current.tenant_name.clone();
    view! {
        <Menu
            id="tenant-menu"
            label=format!("Organisation: {}", current.tenant_name)
            button=move || view! { <span class="tenant-name">{name.clone()}</span> <Icon glyph=Glyph::ChevronDown /> }
        >
            {others
                .iter()
                .cloned()
                .map(|tenant| view! { <SwitchTo id=tenant.tenant_id name=tenant.tenant_name role=tenant.role.title() /> })
                .collect_view()}
        </Menu>
    }
    .into_any()
}

#[component]
fn SwitchTo(id: TenantId, name: String, role: &'static str) -> impl IntoView {
    let calls = Calls::of_page();
    let switch = move |_| calls.change(api::switch_tenant(id), |()| browser::load("/"));
    view! {
        <button type="button" class="menu-item" on:click=switch>
            <Icon glyph=Glyph::Building />
            <span>{name} <small>{role}</small></span>
        </button>
    }
}

#[component]
fn AccountMenu(me: StoredValue<Me>) -> impl IntoView {
    let calls = Calls::of_page();
    let (email, role, mailbox) = me.peek_stored(|me| {
        (me.email.clone(), me.current.as_ref().map(|current| current.role.title()), me.development_mailbox)
    });
    let log_out = move |_| calls.change(api::log_out(), |()| browser::load("/login"));
    let short = email.split('@').next().unwrap_or_default().to_owned();
    view! {
        <Menu
            id="account-menu"
            label=format!("Account: {email}")
            button=move || view! { <span class="account-short"><Icon glyph=Glyph::User /></span> <span class="account-name">{short.clone()}</span> <Icon glyph=Glyph::ChevronDown /> }
        >
            <p class="menu-text">{email.clone()} <small>{role}</small></p>
            <ThemeItem label="System theme" glyph=Glyph::Monitor theme=None />
            <ThemeItem label="Light theme" glyph=Glyph::Sun theme=Some("light") />
            <ThemeItem label="Dark theme" glyph=Glyph::Moon theme=Some("dark") />
            {mailbox
                .then(|| {
                    view! {
                        <a class="menu-item" href="/dev/mailbox" rel="external">
                            <Icon glyph=Glyph::Mail />
                            "Development mailbox"
                        </a>
                    }
                })}
            <button type="button" class="menu-item" on:click=log_out>
                <Icon glyph=Glyph::LogOut />
                "Log out"
            </button>
        </Menu>
    }
}

#[component]
fn ThemeItem(label: &'static str, glyph: Glyph, theme: Option<&'static str>) -> impl IntoView {
    let pin = move |_| {
        browser::keep(THEME_KEY, theme.unwrap_or(""));
        browser::set_root_attribute(THEME_ATTRIBUTE, theme);
    };
    view! {
        <button type="button" class="menu-item" on:click=pin>
            <Icon glyph />
            {label}
        </button>
    }
}

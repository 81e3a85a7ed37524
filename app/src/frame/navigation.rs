//! The navigation: only places that exist and that the role may see. Groups fold, and stay as they were left.

use leptos::prelude::*;
use leptos_router::hooks::use_location;
use policy::account::Me;
use policy::authz::Permission;

use crate::browser;
use crate::look::{Look, PeekStored};
use crate::ui::icon::{Glyph, Icon};

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) label: &'static str,
    /// Its address.
    pub(crate) href: &'static str,
    glyph: Glyph,
    group: &'static str,
    needs: Permission,
}

const fn place(label: &'static str, href: &'static str, glyph: Glyph, group: &'static str, needs: Permission) -> Place {
    Place { label, href, glyph, group, needs }
}

/// In the order shown; the empty group has no heading.
const PLACES: [Place; 7] = [
    place("Overview", "/", Glyph::Dashboard, "", Permission::ReadNetwork),
    place("PBXes", "/pbxes", Glyph::Server, "", Permission::ReadNetwork),
    place("Allowed IPs", "/allowed-ips", Glyph::ShieldCheck, "Network", Permission::ReadNetwork),
    place("Blocked IPs", "/blocked-ips", Glyph::Ban, "Network", Permission::ReadNetwork),
    place("People", "/people", Glyph::User, "Access", Permission::ReadPeople),
    place("Sessions", "/sessions", Glyph::Monitor, "Access", Permission::ReadPeople),
    place("Audit log", "/audit", Glyph::Scroll, "Records", Permission::ReadAudit),
];

/// Where the document's root keeps which groups are folded; the style sheet hides by it.
pub(crate) const FOLDED_ATTRIBUTE: &str = "data-nav-folded";
/// The name under which the browser keeps it.
pub(crate) const FOLDED_KEY: &str = "ringfence-nav-folded";

/// The places that a person may see.
pub(crate) fn places(me: &Me) -> impl Iterator<Item = Place> + '_ {
    PLACES.into_iter().filter(|place| me.may(place.needs))
}

/// The navigation at the side; a drawer on narrow screens.
#[component]
pub(crate) fn Navigation(me: StoredValue<Me>, drawer: RwSignal<bool>) -> impl IntoView {
    let path = use_location().pathname;
    Effect::new(move || {
        path.track();
        drawer.set(false);
    });
    let folded = RwSignal::new(String::new());
    Effect::new(move || folded.set(browser::kept(FOLDED_KEY).unwrap_or_default()));
    let places: Vec<Place> = me.peek_stored(|me| places(me).collect());
    let mut groups: Vec<(&'static str, Vec<Place>)> = Vec::new();
    for place in places {
        match groups.last_mut() {
            Some((name, group)) if *name == place.group => group.push(place),
            _ => groups.push((place.group, vec![place])),
        }
    }
    let groups = groups.into_iter().map(|(name, places)| view! { <Group name places folded path /> }).collect_view();
    view! {
        <div class="drawer-shade" on:click=move |_| drawer.set(false)></div>
        <nav class="navigation" id="navigation" aria-label="Main" on:keydown=move |event| if event.key() == "Escape" { drawer.set(false) }>
            {groups}
        </nav>
    }
}

#[component]
fn Group(name: &'static str, places: Vec<Place>, folded: RwSignal<String>, path: Memo<String>) -> impl IntoView {
    let links = places
        .into_iter()
        .map(|place| {
            let here = move || path.look(|path| path == place.href);
            view! {
                <li>
                    <a href=place.href aria-current=move || here().then_some("page")>
                        <Icon glyph=place.glyph />
                        {place.label}
                    </a>
                </li>
            }
        })
        .collect_view();
    if name.is_empty() {
        return view! { <ul class="navigation-group">{links}</ul> }.into_any();
    }
    let is_folded = move || folded.look(|folded| folded.split(' ').any(|group| group == name));
    let fold = move |_| {
        folded.update(|folded| {
            let mut names: Vec<&str> = folded.split(' ').filter(|group| !group.is_empty()).collect();
            let before = names.len();
            names.retain(|group| *group != name);
            if names.len() == before {
                names.push(name);
            }
            *folded = names.join(" ");
            browser::keep(FOLDED_KEY, folded);
            browser::set_root_attribute(FOLDED_ATTRIBUTE, Some(folded));
        });
    };
    view! {
        <div class="navigation-group" data-group=name>
            <button type="button" class="navigation-heading" aria-expanded=move || (!is_folded()).to_string() on:click=fold>
                {name}
                <Icon glyph=Glyph::ChevronDown />
            </button>
            <ul>{links}</ul>
        </div>
    }
    .into_any()
}

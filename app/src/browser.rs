//! The few things that pages ask of the browser. Only for event handlers and effects: on the server there is no browser,
//! and nothing here may be called while rendering.

use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, HtmlAnchorElement, HtmlElement, Url};

/// Leaves this page for another with a full load, so that nothing of the session before stays in memory.
pub(crate) fn load(href: &str) {
    // Only a malformed address is refused, and ours are written here.
    let _ = window().location().assign(href);
}

/// Loads this page anew.
pub(crate) fn reload() {
    let _ = window().location().reload();
}

/// Where to go after a login: the `next` of the address bar if it leads into this portal, else the overview.
pub(crate) fn next_or_overview(next: Option<&str>) -> String {
    next.filter(|next| is_local(next)).unwrap_or("/").to_owned()
}

/// A path of this portal: browsers read `//host` and `/\host` as another host.
fn is_local(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\t', '\n', '\r'])
}

/// The login page that comes back to where we are.
pub(crate) fn load_login() {
    let location = window().location();
    let path = location.pathname().unwrap_or_default();
    let search = location.search().unwrap_or_default();
    load(&format!("/login?next={}", encode(&format!("{path}{search}"))));
}

/// Percent-encodes a value for a query, on the server as in the browser.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for half in [byte >> 4, byte & 15] {
                encoded.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    encoded
}

/// A path with those parameters that have a value.
pub(crate) fn address(path: &str, query: &[(&str, &str)]) -> String {
    let mut address = path.to_owned();
    for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        address.push(if address.contains('?') { '&' } else { '?' });
        address.push_str(key);
        address.push('=');
        address.push_str(&encode(value));
    }
    address
}

/// What was kept under a name in this browser.
pub(crate) fn kept(name: &str) -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(name).ok().flatten()
}

/// Keeps something under a name; private windows may refuse, and then it is forgotten.
pub(crate) fn keep(name: &str, value: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item(name, value);
    }
}

/// Sets or takes away an attribute of the document's root, which style sheets look at.
pub(crate) fn set_root_attribute(name: &str, value: Option<&str>) {
    if let Some(root) = document().document_element() {
        let _ = match value {
            Some(value) => root.set_attribute(name, value),
            None => root.remove_attribute(name),
        };
    }
}

/// The element of an id.
pub(crate) fn element(id: &str) -> Option<HtmlElement> {
    document().get_element_by_id(id)?.dyn_into().ok()
}

/// Whether the page shows a form field of this name.
pub(crate) fn has_field(name: &str) -> bool {
    let fields = document().query_selector_all("[data-field]").ok();
    fields.is_some_and(|fields| {
        (0..fields.length())
            .filter_map(|index| fields.item(index)?.dyn_into::<web_sys::Element>().ok())
            .any(|field| field.get_attribute("data-field").as_deref() == Some(name))
    })
}

/// Moves the focus to the first element that a selector finds, after the page has been drawn.
pub(crate) fn focus_soon(selector: String) {
    request_animation_frame(move || focus_now(&selector));
}

/// Moves the focus to the first element that a selector finds.
pub(crate) fn focus_now(selector: &str) {
    let found = document().query_selector(selector).ok().flatten();
    if let Some(element) = found.and_then(|element| element.dyn_into::<HtmlElement>().ok()) {
        let _ = element.focus();
    }
}

/// Copies a text; false where the browser doesn't let us, as on plain http.
pub(crate) async fn copy(text: String) -> bool {
    let navigator: JsValue = window().navigator().into();
    let clipboard = js_sys::Reflect::get(&navigator, &JsValue::from_str("clipboard"));
    match clipboard.ok().and_then(|clipboard| clipboard.dyn_into::<web_sys::Clipboard>().ok()) {
        Some(clipboard) => JsFuture::from(clipboard.write_text(&text)).await.is_ok(),
        None => false,
    }
}

/// Lets the person keep a text as a file.
pub(crate) fn save_as(name: &str, text: &str) {
    let parts = js_sys::Array::of1(&JsValue::from_str(text));
    let Ok(blob) = Blob::new_with_str_sequence(&parts) else { return };
    let Ok(url) = Url::create_object_url_with_blob(&blob) else { return };
    if let Ok(link) = document().create_element("a")
        && let Ok(link) = link.dyn_into::<HtmlAnchorElement>()
    {
        link.set_href(&url);
        link.set_download(name);
        link.click();
    }
    let _ = Url::revoke_object_url(&url);
}

/// The text of a file that the person picked.
pub(crate) async fn read_file(file: web_sys::File) -> Option<String> {
    JsFuture::from(file.text()).await.ok()?.as_string()
}

/// Whether the event came from something that takes typed text, where single keys are no commands.
pub(crate) fn is_typing(event: &web_sys::Event) -> bool {
    event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok()).is_some_and(|element| {
        matches!(element.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT") && !is_checkbox(&element)
    })
}

fn is_checkbox(element: &web_sys::Element) -> bool {
    element.get_attribute("type").as_deref() == Some("checkbox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_portal_are_gone_to_after_a_login() {
        assert_eq!(next_or_overview(Some("/blocked-ips?search=1007")), "/blocked-ips?search=1007");
        for foreign in
            ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "", "/a\n//b"]
        {
            assert_eq!(next_or_overview(Some(foreign)), "/", "{foreign:?}");
        }
        assert_eq!(next_or_overview(None), "/");
    }

    #[test]
    fn addresses_are_encoded_and_skip_what_is_empty() {
        assert_eq!(
            address("/blocked-ips", &[("search", "a&b=é"), ("source", ""), ("ban", "1")]),
            "/blocked-ips?search=a%26b%3D%C3%A9&ban=1"
        );
        assert_eq!(address("/audit", &[("search", "")]), "/audit");
    }
}

//! The design system: what pages are made of. Its style sheet is `style/ui/`.

pub(crate) mod chart;
pub(crate) mod confirm;
pub(crate) mod copy_text;
pub(crate) mod dialog;
pub(crate) mod field;
pub(crate) mod icon;
pub(crate) mod menu;
pub(crate) mod page_header;
pub(crate) mod palette;
pub(crate) mod panel;
pub(crate) mod password_field;
pub(crate) mod selection;
pub(crate) mod states;
pub(crate) mod step_up;
pub(crate) mod table;
pub(crate) mod toast;
pub(crate) mod when;

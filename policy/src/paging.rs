//! Keyset paging: a page begins after a cursor, never at an offset, so that the last page costs what the first does.

use serde::{Deserialize, Serialize};

/// Rows of a page.
pub const PAGE_ROWS: i64 = 50;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` on the last one. Opaque to the browser.
    pub next: Option<String>,
    /// How many rows all pages have together; counted up to [`COUNT_LIMIT`].
    pub total: i64,
}

/// Above this a count says "more than".
pub const COUNT_LIMIT: i64 = 1_000_000;

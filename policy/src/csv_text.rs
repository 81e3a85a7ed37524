//! Lists as CSV, in and out. Out: cells that a spreadsheet would run as a formula are defused. In: every row is checked,
//! and either all of them are taken or none.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::allowed_ips::{self, AllowedIp, AllowedIpDraft};
use crate::blocked_ips::BlockedIp;
use crate::net;

/// Largest file taken, in bytes.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Most rows taken from one file.
pub const MAX_ROWS: usize = 10_000;
/// Most errors listed of one file.
const MAX_ERRORS: usize = 100;

/// What is wrong with one row of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// Line in the file, from 1.
    pub line: u64,
    /// The sentence to show.
    pub message: String,
}

/// Reads allowed IPs: columns `target`, `note`, `expires_at` in any order under a header line; without a header the
/// first column is the target and the second the note.
///
/// # Errors
/// One error per wrong row; at most 100 are listed.
pub fn parse_allowed_ips(bytes: &[u8], now: OffsetDateTime) -> Result<Vec<(u64, AllowedIpDraft)>, Vec<RowError>> {
    let whole = |message: String| Err(vec![RowError { line: 1, message }]);
    if bytes.len() > MAX_BYTES {
        return whole(format!("The file has {} bytes; at most {MAX_BYTES} are taken. Split it.", bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return whole("The file is not UTF-8 text. Save it as CSV in UTF-8.".to_owned());
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(delimiter(text))
        .from_reader(text.as_bytes());
    let mut columns = Columns { target: 0, note: Some(1), expires_at: Some(2) };
    let (mut drafts, mut errors) = (Vec::new(), Vec::new());
    let mut lines = Lines::of(text);
    for (index, record) in reader.records().enumerate() {
        let Ok(record) = record else {
            return whole(format!("Row {} can't be read as CSV. Check its quotation marks.", index + 1));
        };
        let line = lines.of_row_after(record.position().map_or(0, csv::Position::byte));
        if index == 0
            && let Some(named) = Columns::from_header(&record)
        {
            // A column that isn't understood may say what must not get lost, such as when an entry ends.
            if let Some(unknown) = Columns::unknown(&record) {
                return whole(format!(
                    "The column “{}” isn't known. Known are target, note and expires_at: rename it, or take it out.",
                    unknown.chars().take(40).collect::<String>()
                ));
            }
            columns = named;
            continue;
        }
        if record.iter().all(str::is_empty) {
            continue;
        }
        if drafts.len() >= MAX_ROWS {
            return whole(format!("The file has more than {MAX_ROWS} rows. Split it."));
        }
        let cell = |column: Option<usize>| column.and_then(|column| record.get(column)).map(armed).unwrap_or_default();
        let (target, note, expires_at) = (cell(Some(columns.target)), cell(columns.note), cell(columns.expires_at));
        match allowed_ips::parse_draft(&target, &note, &expires_at, now) {
            Ok(draft) => drafts.push((line, draft)),
            Err(wrong) => errors.extend(wrong.into_iter().map(|error| RowError { line, message: error.message })),
        }
        if errors.len() >= MAX_ERRORS {
            errors.truncate(MAX_ERRORS);
            return Err(errors);
        }
    }
    if errors.is_empty() && drafts.is_empty() {
        return whole(
            "The file has no rows. It needs a column “target” with addresses, networks or domain names.".to_owned(),
        );
    }
    if errors.is_empty() { Ok(drafts) } else { Err(errors) }
}

/// Writes allowed IPs; what is written can be read again.
pub fn write_allowed_ips(entries: &[AllowedIp]) -> String {
    let rows = entries.iter().map(|entry| {
        vec![
            entry.target.to_string(),
            entry.note.clone(),
            instant(entry.expires_at),
            instant(Some(entry.created_at)),
            entry.created_by.clone(),
        ]
    });
    write(&["target", "note", "expires_at", "created_at", "created_by"], rows)
}

/// Writes blocked IPs.
pub fn write_blocked_ips(bans: &[BlockedIp]) -> String {
    let rows = bans.iter().map(|ban| {
        vec![
            net::display(&ban.net),
            ban.source.as_str().to_owned(),
            ban.reason.clone(),
            ban.account.clone().unwrap_or_default(),
            ban.pbx_name.clone().unwrap_or_default(),
            ban.blocked_by.clone().unwrap_or_default(),
            instant(Some(ban.created_at)),
            instant(ban.expires_at),
        ]
    });
    write(&["address", "source", "reason", "account", "pbx", "blocked_by", "since", "until"], rows)
}

/// What the columns of a file may be called.
const TARGET: &[&str] = &["target", "address", "ip", "cidr", "network", "domain"];
const NOTE: &[&str] = &["note", "comment", "description"];
const EXPIRES_AT: &[&str] = &["expires_at", "expires", "ends", "until"];

struct Columns {
    target: usize,
    note: Option<usize>,
    expires_at: Option<usize>,
}

impl Columns {
    fn from_header(record: &csv::StringRecord) -> Option<Self> {
        let find = |names: &[&str]| record.iter().position(|cell| names.contains(&cell.to_ascii_lowercase().as_str()));
        Some(Self { target: find(TARGET)?, note: find(NOTE), expires_at: find(EXPIRES_AT) })
    }

    /// The first column that is none of those, nor one of our own files that says nothing to import.
    fn unknown(record: &csv::StringRecord) -> Option<&str> {
        let known = [TARGET, NOTE, EXPIRES_AT, &["created_at", "created_by", ""]].concat();
        record.iter().find(|cell| !known.contains(&cell.trim().to_ascii_lowercase().as_str()))
    }
}

/// Counts the lines of a file as an editor shows them. The reader's own count takes the empty lines before a row, and the second
/// half of a CR LF, to be part of the row.
struct Lines<'a> {
    rest: &'a [u8],
    offset: u64,
    line: u64,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text.as_bytes(), offset: 0, line: 1 }
    }

    /// The line of the row that begins at or after a byte, which is not before that of the last call.
    fn of_row_after(&mut self, byte: u64) -> u64 {
        while let Some((first, rest)) = self.rest.split_first()
            && (self.offset < byte || matches!(first, b'\r' | b'\n'))
        {
            if *first == b'\n' || (*first == b'\r' && rest.first() != Some(&b'\n')) {
                self.line += 1;
            }
            self.rest = rest;
            self.offset += 1;
        }
        self.line
    }
}

/// Spreadsheets of many countries write semicolons.
fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or("");
    if first.contains(';') && !first.contains(',') { b';' } else { b',' }
}

fn instant(at: Option<OffsetDateTime>) -> String {
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn write(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail; a row of another length would be a defect that the tests see.
    let _ = writer.write_record(header);
    for row in rows {
        let _ = writer.write_record(row.iter().map(|cell| defused(cell)));
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// What a spreadsheet may take for the end of a cell, whatever the file was written with: in many countries the semicolon.
/// Quotation marks are no help, since they then stand in the middle of a cell.
const ENDS_OF_CELLS: [char; 4] = [';', '\t', '\r', '\n'];

/// A cell that begins like a formula gets an apostrophe in front (OWASP, CSV injection), and so does every part of it that a
/// spreadsheet may take for a cell. So does what looks like the result.
fn defused(cell: &str) -> String {
    parts(cell).map(|part| if runs(part) { format!("'{part}") } else { part.to_owned() }).collect()
}

/// The inverse of `defused`.
fn armed(cell: &str) -> String {
    parts(cell).map(|part| part.strip_prefix('\'').filter(|rest| runs(rest)).unwrap_or(part)).collect()
}

/// The parts of a cell, each with the end that it may have.
fn parts(cell: &str) -> impl Iterator<Item = &str> {
    cell.split_inclusive(ENDS_OF_CELLS)
}

/// Whether a spreadsheet may run it. Quotation marks at its beginning may be taken away by then.
fn runs(part: &str) -> bool {
    part.trim_start_matches(['\'', '"']).starts_with(['=', '+', '-', '@', '\t', '\r'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::allowed_ips::AllowedTarget;

    const NOW: OffsetDateTime = datetime!(2030-01-01 0:00 UTC);

    fn read(text: &str) -> Vec<(u64, String, String)> {
        let drafts = parse_allowed_ips(text.as_bytes(), NOW).unwrap();
        drafts.into_iter().map(|(line, draft)| (line, draft.target.to_string(), draft.note)).collect()
    }

    fn wrong_lines(text: &str) -> Vec<u64> {
        parse_allowed_ips(text.as_bytes(), NOW).unwrap_err().into_iter().map(|error| error.line).collect()
    }

    fn row(line: u64, target: &str, note: &str) -> (u64, String, String) {
        (line, target.to_owned(), note.to_owned())
    }

    fn entry(note: &str) -> AllowedIp {
        AllowedIp {
            id: uuid::Uuid::nil().into(),
            target: AllowedTarget::Net("203.0.113.9/32".parse().unwrap()),
            note: note.to_owned(),
            expires_at: Some(datetime!(2031-01-01 0:00 UTC)),
            created_at: NOW,
            created_by: "=cmd@example.com".to_owned(),
        }
    }

    #[test]
    fn columns_in_any_order_or_none_named() {
        let expected = vec![row(2, "203.0.113.9", "Office"), row(3, "sip.example.com", "")];
        assert_eq!(read("target,note\n203.0.113.9,Office\nsip.example.com,\n"), expected);
        assert_eq!(read("\u{feff}Comment;Expires;IP\r\nOffice;;203.0.113.9\r\n;;sip.example.com"), expected);
        assert_eq!(
            read("203.0.113.9, Office \nsip.example.com"),
            [row(1, "203.0.113.9", "Office"), row(2, "sip.example.com", "")]
        );
        let ends =
            parse_allowed_ips(b"Address;Ends\n203.0.113.9;2031-01-01T00:00:00Z\n", NOW).unwrap().remove(0).1.expires_at;
        assert_eq!(ends, Some(datetime!(2031-01-01 0:00 UTC)));
        let error =
            parse_allowed_ips(b"address,note,valid to\n203.0.113.9,Office,2030-01-01\n", NOW).unwrap_err().remove(0);
        assert!(error.message.starts_with("The column “valid to” isn't known."), "{}", error.message);
        assert_eq!(read("target,note\n203.0.113.9,\"a, \"\"b\"\"\"\n"), [row(2, "203.0.113.9", "a, \"b\"")]);
    }

    #[test]
    fn lines_are_those_of_the_file() {
        for end in ["\n", "\r\n"] {
            let lines = [
                "target,note",
                "",
                "203.0.113.1,",
                "nonsense,",
                "",
                "",
                "\"more nonsense\",",
                ",",
                "203.0.113.2,\"two",
                "lines\"",
                "bad,",
            ];
            assert_eq!(wrong_lines(&lines.join(end)), [4, 7, 9, 11], "{end:?}");
            let good = ["", "203.0.113.1", "", "203.0.113.2"].join(end);
            assert_eq!(read(&good), [row(2, "203.0.113.1", ""), row(4, "203.0.113.2", "")], "{end:?}");
        }
    }

    #[test]
    fn refused_as_a_whole() {
        let too_many = "203.0.113.9\n".repeat(MAX_ROWS + 1);
        let too_big = vec![b' '; MAX_BYTES + 1];
        for bytes in [
            b"203.0.113.9,caf\xe9".as_slice(),
            b"",
            b"\n\n,,\n",
            b"target,note\n",
            "\u{feff}".as_bytes(),
            too_many.as_bytes(),
            &too_big,
        ] {
            assert_eq!(parse_allowed_ips(bytes, NOW).unwrap_err().len(), 1);
        }
        assert_eq!(parse_allowed_ips("203.0.113.9\n".repeat(MAX_ROWS).as_bytes(), NOW).unwrap().len(), MAX_ROWS);
    }

    #[test]
    fn at_most_a_hundred_errors() {
        let note = "x".repeat(201);
        let text = format!("bad,{note},yesterday\n").repeat(200);
        assert_eq!(wrong_lines(&text).len(), 100);
    }

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_defused() {
        let text = write_allowed_ips(&[entry("=HYPERLINK(\"http://evil\")"), entry("+1"), entry("-1"), entry("@x")]);
        for cell in csv::Reader::from_reader(text.as_bytes())
            .records()
            .flat_map(|record| record.unwrap().iter().map(str::to_owned).collect::<Vec<_>>())
        {
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{cell}");
        }
        let ban = BlockedIp {
            id: uuid::Uuid::nil().into(),
            net: "2001:db8::1/128".parse().unwrap(),
            source: crate::blocked_ips::BanSource::Detection,
            reason: "5 wrong passwords".to_owned(),
            account: Some("=1+1".to_owned()),
            pbx_id: None,
            pbx_name: Some("@hq".to_owned()),
            blocked_by: None,
            times_banned: 1,
            created_at: NOW,
            expires_at: None,
        };
        let line = "2001:db8::1,detection,5 wrong passwords,'=1+1,'@hq,,2030-01-01T00:00:00Z,\n";
        assert_eq!(
            write_blocked_ips(&[ban]),
            format!("address,source,reason,account,pbx,blocked_by,since,until\n{line}")
        );
    }

    #[test]
    fn parts_that_a_spreadsheet_takes_for_cells_are_defused() {
        for (cell, written) in [
            ("a;=1+1", "a;'=1+1"),
            (";;@x", ";;'@x"),
            ("a\t+1;-1", "a\t'+1;'-1"),
            ("a;'=1", "a;''=1"),
            ("a;\"=1\"", "a;'\"=1\""),
            ("two\r\n=lines", "two\r\n'=lines"),
            ("\t=1", "'\t'=1"),
            ("a-b; c=d", "a-b; c=d"),
        ] {
            assert_eq!(defused(cell), written);
            assert_eq!(armed(written), cell);
        }
    }

    proptest! {
        #[test]
        fn what_is_defused_runs_nowhere_and_can_be_armed_again(cell in "[='\"+@;\t\r\na-c -]{0,16}") {
            let written = defused(&cell);
            for part in written.split(ENDS_OF_CELLS) {
                prop_assert!(!part.trim_start_matches('"').starts_with(['=', '+', '-', '@']), "{part:?} of {written:?}");
            }
            prop_assert_eq!(armed(&written), cell);
        }

        #[test]
        fn what_is_written_is_read_again(notes in prop::collection::vec("['=+@,;\"a-c é-]{0,12}", 1..5)) {
            let entries: Vec<AllowedIp> = notes.iter().map(|note| entry(note.trim())).collect();
            let drafts = parse_allowed_ips(write_allowed_ips(&entries).as_bytes(), NOW).unwrap();
            prop_assert_eq!(drafts.len(), entries.len());
            for ((_, draft), entry) in drafts.iter().zip(&entries) {
                prop_assert_eq!((&draft.target, &draft.note, draft.expires_at), (&entry.target, &entry.note, entry.expires_at));
            }
        }

        #[test]
        fn any_bytes_parse_or_explain(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Err(errors) = parse_allowed_ips(&bytes, NOW) {
                prop_assert!(!errors.is_empty() && errors.len() <= 100);
            }
        }
    }
}

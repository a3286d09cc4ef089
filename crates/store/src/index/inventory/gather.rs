//! Rows of a report, whatever its files are, gathered into pages.

use std::{borrow::Cow, ops::ControlFlow};

use tokio::sync::mpsc;

use crate::index::pages::{PAGE, Seen, SeenPage};

/// What a report says of one object; `None` where it has no such column.
#[derive(Debug, Default)]
pub(super) struct InventoryRow<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) bytes: u64,
    /// Milliseconds since 1970, 0 if it is not told.
    pub(super) modified_ms: i64,
    pub(super) etag: Option<&'a str>,
    pub(super) storage_class: Option<&'a str>,
    pub(super) is_latest: Option<bool>,
    pub(super) is_delete_marker: Option<bool>,
}

impl InventoryRow<'_> {
    /// The object; `None` for old versions, deleted objects and other folders.
    pub(super) fn seen(self, folder: &str) -> Option<Seen> {
        if self.is_latest == Some(false) || self.is_delete_marker == Some(true) {
            return None;
        }
        if !self.key.starts_with(folder) {
            return None;
        }
        Some(Seen {
            etag: Seen::etag_of(self.etag, self.modified_ms, self.bytes),
            key: self.key.into_owned(),
            bytes: self.bytes,
            modified_ms: self.modified_ms,
            storage_class: self.storage_class.map(str::to_owned),
            restored: None,
        })
    }
}

/// Cuts the rows of one file into pages of the objects in `folder`. A page's position is the number of rows that are done
/// with it, so rows of other folders are skipped for good, too.
pub(super) struct Gatherer<'a> {
    folder: &'a str,
    /// Rows that are done.
    done: u64,
    page: SeenPage,
    to: &'a mpsc::Sender<SeenPage>,
}

impl<'a> Gatherer<'a> {
    /// For a file of which `done` rows are done already.
    pub(super) fn new(folder: &'a str, done: u64, to: &'a mpsc::Sender<SeenPage>) -> Self {
        Self { folder, done, page: SeenPage::default(), to }
    }

    /// Rows at the beginning of the file that the reader skips.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Takes the next row; `None` is a row that tells of no object. Breaks when nobody wants more.
    pub(super) fn take(&mut self, row: Option<InventoryRow<'_>>) -> ControlFlow<()> {
        self.done += 1;
        self.page.objects.extend(row.and_then(|row| row.seen(self.folder)));
        if self.page.objects.len() < PAGE {
            return ControlFlow::Continue(());
        }
        self.send(false)
    }

    /// Behind the last row.
    pub(super) fn end(mut self) {
        let _ = self.send(true);
    }

    fn send(&mut self, done: bool) -> ControlFlow<()> {
        let page = SeenPage { position: self.done.to_string(), done, ..std::mem::take(&mut self.page) };
        match self.to.blocking_send(page) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

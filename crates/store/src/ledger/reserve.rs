//! A file of zeros beside the ledger, given up when the disk is full: so there is still room to write down that jobs
//! failed, and why. It is made again when the ledger is opened next.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Room for the failures of some dozens of jobs.
const BYTES: usize = 1 << 20;

fn path(ledger: &Path) -> PathBuf {
    ledger.with_extension("reserve")
}

/// Makes the reserve if it is missing. On a disk that is full already there is none.
pub(super) fn make(ledger: &Path) {
    let path = path(ledger);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == BYTES as u64) {
        return;
    }
    let written = fs::File::create(&path).and_then(|mut file| file.write_all(&vec![0; BYTES]));
    if written.is_err() {
        // Half a reserve is better left to others.
        let _ = fs::remove_file(&path);
    }
}

/// Gives the reserve up; an error where there is none.
pub(super) fn give_up(ledger: &Path) -> io::Result<()> {
    fs::remove_file(path(ledger))
}

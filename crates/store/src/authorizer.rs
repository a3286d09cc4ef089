//! SQLite's authorizer: asked at preparation about everything that a statement would do. The only unsafe code of the
//! store, because sqlx has no safe call for it.

use std::{
    collections::HashSet,
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use libsqlite3_sys as sqlite;
use sqlx::sqlite::LockedSqliteHandle;

use crate::VIEWS;

/// What a query may reach.
pub(crate) struct Rules {
    /// Names of the private tables, in lower case.
    pub(crate) private: HashSet<String>,
    /// Receives what was refused first.
    pub(crate) denied: Arc<Mutex<Option<String>>>,
}

/// One question of SQLite's.
struct Question<'a> {
    action: c_int,
    first: Option<&'a str>,
    second: Option<&'a str>,
    view: Option<&'a str>,
}

/// Table-valued functions over JSON texts, harmless.
const JSON_TABLES: [&str; 2] = ["json_each", "json_tree"];
/// Functions that reach outside the database or only serve to fill the memory.
const DENIED_FUNCTIONS: [&str; 6] =
    ["load_extension", "readfile", "writefile", "edit", "zeroblob", "randomblob"];
/// Longest text or blob that a query may build.
const MOST_BYTES: c_int = 16 << 20;

impl Rules {
    fn allow(&self, question: &Question<'_>) -> bool {
        let refused = match question.action {
            sqlite::SQLITE_SELECT | sqlite::SQLITE_RECURSIVE => return true,
            sqlite::SQLITE_FUNCTION => {
                let name = question.second.unwrap_or_default();
                if !DENIED_FUNCTIONS.contains(&name.to_lowercase().as_str()) {
                    return true;
                }
                format!("call {name}()")
            }
            sqlite::SQLITE_READ => {
                if self.may_read(question) {
                    return true;
                }
                format!("read {}", question.first.unwrap_or_default())
            }
            sqlite::SQLITE_ATTACH => "attach a database".to_owned(),
            sqlite::SQLITE_PRAGMA => format!("use pragma {}", question.first.unwrap_or_default()),
            sqlite::SQLITE_TRANSACTION | sqlite::SQLITE_SAVEPOINT => "begin a transaction".to_owned(),
            _ => "change anything".to_owned(),
        };
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        denied.get_or_insert(refused);
        false
    }

    fn may_read(&self, question: &Question<'_>) -> bool {
        let table = question.first.unwrap_or_default().to_lowercase();
        if VIEWS.contains(&table.as_str()) || JSON_TABLES.contains(&table.as_str()) {
            return true;
        }
        if self.private.contains(&table) {
            // A view's own reads; the query's text cannot hold the name, see `sql.rs`.
            return question.view.is_some_and(|view| VIEWS.contains(&view.to_lowercase().as_str()));
        }
        // A common table expression of which no column is used (`select count(*)`) comes as a table without a column.
        question.second == Some("") && !table.contains("sqlite") && !table.starts_with("pragma_")
    }
}

/// Lets `rules` decide on everything that is prepared on this connection from now on, and `goes_on` (asked every
/// `instructions`) whether a running statement may go on.
#[expect(unsafe_code, reason = "sqlx has no safe call for the authorizer")]
pub(crate) fn install(
    handle: &mut LockedSqliteHandle<'_>,
    rules: Rules,
    instructions: c_int,
    mut goes_on: impl FnMut() -> bool + Send + 'static,
) -> Result<(), c_int> {
    let rules = Arc::new(rules);
    let pointer = Arc::as_ptr(&rules);
    // sqlx keeps the handler until it closes the connection, so what the handler owns lives as long as the authorizer.
    handle.set_progress_handler(instructions, move || {
        let _owned = &rules;
        goes_on()
    });
    let database = handle.as_raw_handle().as_ptr();
    // SAFETY: the handle is locked, so no other thread is inside the connection, and it is open. `pointer` stays valid
    // until the connection closes (see above; nobody sets another handler), and the callback only reads through it.
    let code = unsafe {
        sqlite::sqlite3_limit(database, sqlite::SQLITE_LIMIT_LENGTH, MOST_BYTES);
        sqlite::sqlite3_set_authorizer(database, Some(authorize), pointer.cast_mut().cast())
    };
    if code == sqlite::SQLITE_OK { Ok(()) } else { Err(code) }
}

#[expect(unsafe_code, reason = "a C callback")]
unsafe extern "C" fn authorize(
    rules: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _database: *const c_char,
    view: *const c_char,
) -> c_int {
    let answer = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `rules` comes from `install`, which says how long it lives.
        let rules = unsafe { &*rules.cast::<Rules>() };
        // SAFETY: SQLite's texts are null or end with a zero byte, and live until this returns.
        let question =
            unsafe { Question { action, first: text(first), second: text(second), view: text(view) } };
        rules.allow(&question)
    }));
    // A panic or an unreadable name is a no.
    if matches!(answer, Ok(true)) { sqlite::SQLITE_OK } else { sqlite::SQLITE_DENY }
}

/// # Safety
/// `pointer` is null or points to a text that ends with a zero byte and outlives `'a`.
#[expect(unsafe_code, reason = "reads a C string")]
unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok()
}

//! What is to be done about an object, and the ids of its jobs.

use spectemp_types::{JobSpec, VideoUri};

use super::{
    IndexQuestion,
    catalogue::{Known, State},
    pages::Seen,
};

/// The longest name that stands in a job's id as it is: an id has at most 512 bytes.
const MOST_NAME_BYTES: usize = 300;
/// Classes whose objects cannot be read before they are restored.
const ARCHIVE_CLASSES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// This version was enqueued before.
    Known,
    /// Its questions become jobs; `changed`: of another version they were jobs before.
    Enqueue { changed: bool },
    /// A restore is to be asked for.
    Restore,
    /// It was asked for, and the listing does not tell whether it is done.
    AskWhetherRestored,
    /// It is on its way.
    Restoring,
    /// It is left out, and why.
    Skip(String),
}

/// Decides about one object whose name belongs to the index.
pub(super) fn fate(seen: &Seen, known: Option<&Known>, may_restore: bool) -> Fate {
    let same = known.filter(|known| known.etag == seen.etag);
    if same.is_some_and(|known| known.state == State::Enqueued) {
        return Fate::Known;
    }
    let enqueue = Fate::Enqueue { changed: known.is_some_and(|known| known.versions > 0) };
    let class = seen.storage_class.as_deref().unwrap_or_default();
    if !ARCHIVE_CLASSES.contains(&class) {
        return enqueue;
    }
    match seen.restored {
        Some(true) => enqueue,
        Some(false) => Fate::Restoring,
        None if same.is_some_and(|known| known.state == State::Restoring) => Fate::AskWhetherRestored,
        None if may_restore => Fate::Restore,
        None => Fate::Skip(format!("it lies in the class {class} and the index does not restore")),
    }
}

/// The job of a question about this version of an object: `QUESTION@NAME#VERSION`, VERSION a short hash of the ETag. The
/// same version has the same id in every listing; another version is another job.
pub(super) fn job(question: &IndexQuestion, video: &VideoUri, name: &str, seen: &Seen) -> JobSpec {
    let short = |text: &str, digits: usize| blake3::hash(text.as_bytes()).to_hex()[..digits].to_owned();
    let version = short(&seen.etag, 10);
    let name = match name.len() <= MOST_NAME_BYTES && !name.chars().any(char::is_control) {
        true => name.to_owned(),
        false => format!("…{}", short(name, 32)),
    };
    JobSpec {
        id: format!("{}@{name}#{version}", question.id),
        video: video.clone(),
        question: question.question.clone(),
        plan: question.plan.clone(),
    }
}

#[cfg(test)]
mod tests {
    use spectemp_types::PlanDefaults;

    use super::*;
    use crate::index::read_questions;

    fn seen(class: &str, restored: Option<bool>) -> Seen {
        Seen {
            key: "in/a.mp4".into(),
            etag: "e1".into(),
            bytes: 7,
            modified_ms: 0,
            storage_class: Some(class.into()),
            restored,
        }
    }

    fn known(etag: &str, state: State, versions: u64) -> Known {
        Known { etag: etag.into(), state, versions }
    }

    #[test]
    fn only_what_is_new_or_changed_is_enqueued() {
        let plain = seen("STANDARD", None);
        assert_eq!(fate(&plain, None, false), Fate::Enqueue { changed: false });
        assert_eq!(fate(&plain, Some(&known("e1", State::Enqueued, 1)), false), Fate::Known);
        assert_eq!(
            fate(&plain, Some(&known("e0", State::Enqueued, 1)), false),
            Fate::Enqueue { changed: true }
        );
        // Moved out of an archive class.
        assert_eq!(
            fate(&plain, Some(&known("e1", State::Skipped, 0)), false),
            Fate::Enqueue { changed: false }
        );
        // Moved into one after it was enqueued.
        assert_eq!(fate(&seen("GLACIER", None), Some(&known("e1", State::Enqueued, 1)), true), Fate::Known);
        assert_eq!(fate(&seen("GLACIER_IR", None), None, false), Fate::Enqueue { changed: false });
    }

    #[test]
    fn archived_objects_wait_or_are_skipped() {
        let archived = seen("DEEP_ARCHIVE", None);
        assert!(matches!(fate(&archived, None, false), Fate::Skip(why) if why.contains("DEEP_ARCHIVE")));
        assert_eq!(fate(&archived, None, true), Fate::Restore);
        assert_eq!(fate(&archived, Some(&known("e1", State::Skipped, 0)), true), Fate::Restore);
        let waiting = known("e1", State::Restoring, 0);
        assert_eq!(fate(&archived, Some(&waiting), false), Fate::AskWhetherRestored);
        assert_eq!(fate(&seen("GLACIER", Some(false)), Some(&waiting), true), Fate::Restoring);
        assert_eq!(
            fate(&seen("GLACIER", Some(true)), Some(&waiting), true),
            Fate::Enqueue { changed: false }
        );
        // Another version than the one that was being restored.
        assert_eq!(fate(&archived, Some(&known("e0", State::Restoring, 0)), true), Fate::Restore);
    }

    #[test]
    fn ids_tell_versions_apart_and_are_never_too_long() {
        let question = read_questions(
            "{\"id\":\"q1\",\"question\":\"What?\"}",
            &PlanDefaults { plan: "demo", set: &[] },
        )
        .unwrap()
        .remove(0);
        let video = VideoUri::parse("s3://b/in/a.mp4").unwrap();
        let id = |name: &str, etag: &str| {
            job(&question, &video, name, &Seen { etag: etag.into(), ..seen("STANDARD", None) }).id
        };
        assert!(id("x/a.mp4", "e1").starts_with("q1@x/a.mp4#"));
        assert_eq!(id("a", "e1"), id("a", "e1"));
        assert_ne!(id("a", "e1"), id("a", "e2"));
        let long = "x".repeat(1024);
        assert!(id(&long, "e1").len() < 200);
        assert_ne!(id(&long, "e1"), id(&long[1..], "e1"));
    }
}
